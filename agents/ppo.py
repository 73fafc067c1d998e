"""PPO (Schulman et al., arXiv 1707.06347) by stable-baselines3 over the native engine, with exact resume."""

from __future__ import annotations

import os
import pickle
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from agents.saved import Card, write_card
from sat_env import encodings
from sat_env.sb3 import SatVecEnv
from sat_env.scenario import Scenario


@dataclass(frozen=True)
class PPOConfig:
    """Hyper-parameters of PPO."""

    num_envs: int = 64  # worlds stepped at once
    rollout_epochs: int = 64  # decisions of each world between updates
    batch_size: int = 1024
    update_epochs: int = 4  # passes over a rollout
    learning_rate: float = 5e-4
    gamma: float = 0.9  # decisions last for the backlog and the loads: some ten epochs
    gae_lambda: float = 0.9
    entropy: float = 0.0
    hidden: tuple[int, ...] = (128, 128)
    action: encodings.Encoding = "fractions"
    log_std_init: float = -0.7
    checkpoint_every_s: float = 10.0


def new_model(config: PPOConfig, scenario: Scenario, seed: int) -> PPO:
    """Return an untrained PPO on `config.num_envs` worlds of the scenario's training windows."""
    env = SatVecEnv(config.num_envs, scenario, config.action, "train", seed=1_000_003 * (seed + 1))
    policy_kwargs: dict[str, Any] = {"net_arch": list(config.hidden)}
    if config.action == "fractions":
        policy_kwargs["log_std_init"] = config.log_std_init
    return PPO(
        "MultiInputPolicy",
        env,
        learning_rate=config.learning_rate,
        n_steps=config.rollout_epochs,
        batch_size=config.batch_size,
        n_epochs=config.update_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        ent_coef=config.entropy,
        policy_kwargs=policy_kwargs,
        seed=seed,
        device="cpu",
    )


def save_checkpoint(folder: Path, model: PPO) -> None:
    """Write all that training goes on from: network, optimiser, worlds, random states. Atomic."""
    env = model.get_env()
    assert isinstance(env, SatVecEnv)
    state = {
        "simulator": env.worlds.simulator.snapshot(),
        "returns": env.episode_totals(),
        "last_obs": model._last_obs,
        "last_episode_starts": model._last_episode_starts,
        "episode_infos": model.ep_info_buffer,
        "random": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - stable-baselines3 shuffles with it
        "torch": torch.get_rng_state(),
    }
    for name, write in (
        ("checkpoint.zip", lambda path: model.save(path)),
        ("checkpoint.pkl", lambda path: path.write_bytes(pickle.dumps(state))),
    ):
        temporary = folder / f".{name}"
        write(temporary)
        os.replace(temporary, folder / name)


def load_checkpoint(folder: Path, config: PPOConfig, scenario: Scenario, seed: int) -> PPO:
    """Return the model of a checkpoint, its worlds and random states where they were.

    Raises
    ------
    ValueError
        The folder holds no checkpoint.
    """
    if not (folder / "checkpoint.zip").is_file() or not (folder / "checkpoint.pkl").is_file():
        raise ValueError(
            f"resume = {str(folder)!r}: must be a run folder with checkpoint.zip and checkpoint.pkl"
        )
    env = SatVecEnv(config.num_envs, scenario, config.action, "train", seed=1_000_003 * (seed + 1))
    model = PPO.load(folder / "checkpoint.zip", env=env, device="cpu")
    state = pickle.loads((folder / "checkpoint.pkl").read_bytes())
    env.worlds.simulator.restore(state["simulator"])
    env.set_episode_totals(state["returns"])
    model._last_obs = state["last_obs"]
    model._last_episode_starts = state["last_episode_starts"]
    model.ep_info_buffer = state["episode_infos"]
    random.setstate(state["random"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    return model


class Checkpoint(BaseCallback):
    """Keep a checkpoint of the last update, and stop after `stop_at` steps of the whole run."""

    def __init__(self, folder: Path, every_s: float) -> None:
        super().__init__()
        self.folder = folder
        self.every_s = every_s
        self._saved_s = -np.inf

    def _on_rollout_start(self) -> None:
        # Between update and rollout nothing is in flight: what is saved here resumes exactly.
        if time.monotonic() - self._saved_s > self.every_s:
            save_checkpoint(self.folder, self.model)  # type: ignore[arg-type]
            self._saved_s = time.monotonic()

    def _on_step(self) -> bool:
        return True


def train(
    model: PPO, config: PPOConfig, steps: int, folder: Path, callbacks: list[BaseCallback] | None = None
) -> None:
    """Train up to `steps` steps in all, logging to CSV and TensorBoard under `folder`."""
    model.set_logger(configure(str(folder / "logs"), ["csv", "tensorboard"]))
    left = steps - model.num_timesteps
    if left > 0:
        model.learn(
            left,
            callback=[Checkpoint(folder, config.checkpoint_every_s), *(callbacks or [])],
            reset_num_timesteps=False,
            progress_bar=True,
        )
    save_checkpoint(folder, model)


def save_policy(path: Path, model: PPO, config: PPOConfig, scenario: Scenario, seed: int) -> None:
    """Save the policy with its card: everything another machine needs to play it."""
    temporary = path.with_name(f".{path.name}")
    model.save(temporary)
    card = Card(
        algorithm="ppo",
        action=config.action,
        scenario=scenario.name,
        scenario_hash=scenario.hash(),
        steps=model.num_timesteps,
        seed=seed,
    )
    write_card(temporary, card)
    os.replace(temporary, path)
