"""PPO through the bridge against PPO through 8 of stable-baselines3's own environments.

    python benchmarks/ppo_speed.py [--json] [--quick]

Same network (64, 64), same rollout of 16,384 decisions, minibatch 2,048 and 4 epochs, one thread, one process;
steps per CPU second of `learn`, in turns, medians.

* ``dummy8``: 8 `SatEnv` in a `DummyVecEnv`, everything else as stable-baselines3 has it.
* ``plain256``: 256 worlds behind `SatVecEnv`, everything else likewise.
* ``bridge1024``: 1,024 worlds behind ``SatVecEnv(flat=True)``, so one array where the others have a dictionary of
  19; the same Gaussian by its formulas (`agents.networks.FusedPolicy`), the same tangent by numpy's code
  (`QuickTanh`), the same minibatches copied once (`agents.buffer.LeanRolloutBuffer`), torch's checks of every
  distribution off, and its fused Adam.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch.distributions import Distribution

sys.path.insert(0, str(Path(__file__).parents[1]))

from agents.buffer import LeanRolloutBuffer
from agents.networks import FusedPolicy, QuickTanh
from sat_env.env import SatEnv
from sat_env.sb3 import SatVecEnv

ROLLOUT = 16_384
MINIBATCH = 2_048


def learner(env: VecEnv, policy: Any, buffer: Any = None, **options: Any) -> PPO:
    """Return the same PPO over any environment."""
    return PPO(
        policy,
        env,
        n_steps=ROLLOUT // env.num_envs,
        batch_size=MINIBATCH,
        n_epochs=4,
        rollout_buffer_class=buffer,
        policy_kwargs={"net_arch": [64, 64], **options},
        seed=0,
        device="cpu",
    )


def steps_per_s(model: PPO, checked: bool) -> float:
    """Return decisions learnt from per CPU second; `checked`: torch checks the arguments of distributions."""
    Distribution.set_default_validate_args(checked)
    started = time.process_time()
    model.learn(ROLLOUT, reset_num_timesteps=False)
    return ROLLOUT / (time.process_time() - started)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dummy = learner(
        DummyVecEnv([lambda: SatEnv("WalkerOutage", "fractions") for _ in range(8)]), "MultiInputPolicy"
    )
    plain = learner(SatVecEnv(256, "WalkerOutage", "fractions"), "MultiInputPolicy")
    bridge = learner(
        SatVecEnv(1024, "WalkerOutage", "fractions", flat=True),
        FusedPolicy,
        LeanRolloutBuffer,
        activation_fn=QuickTanh,
        optimizer_kwargs={"fused": True},
    )
    runs = [
        (steps_per_s(dummy, True), steps_per_s(plain, True), steps_per_s(bridge, False))
        for _ in range(2 if arguments.quick else 8)
    ]
    rates = np.array(runs[1:])  # the first warms up
    figures = {
        "fps/dummy8": round(float(np.median(rates[:, 0]))),
        "fps/plain256": round(float(np.median(rates[:, 1]))),
        "fps/bridge1024": round(float(np.median(rates[:, 2]))),
        "plain_bridge_over_dummy8": round(float(np.median(rates[:, 1] / rates[:, 0])), 2),
        "bridge_over_dummy8": round(float(np.median(rates[:, 2] / rates[:, 0])), 2),
    }
    if arguments.json:
        print(json.dumps(figures))
    else:
        Console().print(figures)


if __name__ == "__main__":
    main()
