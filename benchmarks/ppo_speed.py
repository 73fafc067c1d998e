"""PPO through the bridge against PPO through 8 of stable-baselines3's own environments.

    python benchmarks/ppo_speed.py [--json] [--quick]

Same network (64, 64), same rollout of 16,384 decisions, minibatch 2,048 and 4 epochs, one thread, one process;
steps per CPU second of `learn`, the two in turns, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sat_env.env import SatEnv
from sat_env.sb3 import SatVecEnv

ROLLOUT = 16_384
MINIBATCH = 2_048


def learner(env: VecEnv) -> PPO:
    """Return the same PPO over any environment."""
    return PPO(
        "MultiInputPolicy",
        env,
        n_steps=ROLLOUT // env.num_envs,
        batch_size=MINIBATCH,
        n_epochs=4,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
        device="cpu",
    )


def steps_per_s(model: PPO, rollouts: int) -> float:
    """Return decisions learnt from per CPU second."""
    started = time.process_time()
    model.learn(rollouts * ROLLOUT, reset_num_timesteps=False)
    return rollouts * ROLLOUT / (time.process_time() - started)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bridge = learner(SatVecEnv(256, "WalkerOutage", "fractions"))
    dummy = learner(DummyVecEnv([lambda: SatEnv("WalkerOutage", "fractions") for _ in range(8)]))
    repeats = 1 if arguments.quick else 5
    pairs = [(steps_per_s(bridge, 1), steps_per_s(dummy, 1)) for _ in range(repeats)]
    figures = {
        "fps/bridge256": round(float(np.median([a for a, _ in pairs]))),
        "fps/dummy8": round(float(np.median([b for _, b in pairs]))),
        "bridge_over_dummy8": round(float(np.median([a / b for a, b in pairs])), 2),
    }
    if arguments.json:
        print(json.dumps(figures))
    else:
        Console().print(figures)


if __name__ == "__main__":
    main()
