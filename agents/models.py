"""Models by algorithm: stable-baselines3's PPO (Schulman et al., arXiv 1707.06347) over the native engine."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, NamedTuple, cast

import gymnasium
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents.config import Algorithm, Config, EvolutionConfig, PPOConfig, check_fits
from agents.evolution import Evolution
from agents.imitation import clone_planner
from agents.interface import Learner
from agents.networks import ForesightPolicy, FusedPolicy, SlotTransformerPolicy
from agents.planner import BatchPlanner
from agents.rollouts import Rollouts
from agents.saved import make_interface
from agents.slotwise import SlotwiseWorlds
from agents.worlds import AgentWorlds
from baselines.priced import Constants
from sat_env.scenario import Scenario
from sat_env.world import prepare


class Run(NamedTuple):
    """One training run: what is learned, on what, and how."""

    algorithm: Algorithm
    scenario: Scenario
    config: Config
    constants: Constants  # of the planner it acts through, or is rewarded against
    seed: int

    def settled(self) -> str:
        """Return as text all that its outcome depends on: runs with the same text are the same run."""
        parts = [self.algorithm, self.scenario.hash(), asdict(self.config), asdict(self.constants), self.seed]
        return json.dumps(parts)


def make_worlds(run: Run) -> AgentWorlds:
    """Return the worlds of a run: training windows, the tuned planner beside them if it is the opponent."""
    assert isinstance(run.config, PPOConfig)
    prepared = prepare(run.scenario)
    interface = make_interface(run.algorithm, prepared.world, run.scenario.forecast_epochs, run.constants)
    config = run.config
    opponent = BatchPlanner(prepared.world, run.constants) if config.versus or config.foresight else None
    worlds = SlotwiseWorlds if run.algorithm == "maskable" else AgentWorlds
    return worlds(
        prepared,
        interface,
        config.num_envs,
        opponent,
        config.versus,
        config.foresight,
        config.traces,
        "train",
        first_seed(run),
    )


def first_seed(run: Run) -> int:
    """Return the seed of the first world; runs of other seeds meet other episodes."""
    return 1_000_003 * (run.seed + 1)


def new_learner(run: Run) -> Learner:
    """Return an untrained choice by rollouts, or an untrained rule."""
    assert not isinstance(run.config, PPOConfig)
    prepared, first = prepare(run.scenario), first_seed(run)
    if isinstance(run.config, EvolutionConfig):
        return Evolution(prepared, run.constants, run.config, run.seed, first)
    return Rollouts(prepared, run.constants, run.config, run.seed, first)


def new_model(run: Run) -> OnPolicyAlgorithm:
    """Return an untrained PPO; for imitation, one that was taught the planner's plans."""
    config = run.config
    assert isinstance(config, PPOConfig)
    check_fits(run.algorithm, config)
    env = make_worlds(run)
    continuous = isinstance(env.action_space, gymnasium.spaces.Box)
    policy_kwargs: dict[str, Any] = {"log_std_init": config.log_std_init} if continuous else {}
    policy: Any = "MlpPolicy"
    if run.algorithm == "ppo-transformer":
        policy = SlotTransformerPolicy
        policy_kwargs["width"] = config.hidden[0]
    else:
        policy_kwargs["net_arch"] = list(config.hidden)
        if isinstance(env.action_space, gymnasium.spaces.MultiDiscrete):
            policy = FusedPolicy
        elif config.foresight:
            policy = ForesightPolicy
            policy_kwargs["unseen"] = config.foresight
    kind = MaskablePPO if run.algorithm == "maskable" else PPO
    model: OnPolicyAlgorithm = kind(
        policy,
        env,
        learning_rate=Falling(config.learning_rate),
        n_steps=config.rollout_epochs,
        batch_size=config.batch_size,
        n_epochs=config.update_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        ent_coef=config.entropy,
        policy_kwargs=policy_kwargs,
        seed=run.seed,
        device="cpu",
    )
    env.seed(
        first_seed(run)
    )  # the model gave it its own seed: runs of neighbouring seeds met the same episodes
    if env.interface.first_output is not None and policy is not SlotTransformerPolicy:
        with torch.no_grad():
            last = cast(torch.nn.Linear, model.policy.action_net)
            last.bias.copy_(torch.as_tensor(env.interface.first_output))
    if run.algorithm == "imitation":
        prepared = prepare(run.scenario)
        planner = BatchPlanner(prepared.world, run.constants)
        clone_planner(model, prepared, env.interface, planner, first_seed(run) + 500_000)
    return model


class Falling:
    """A learning rate that falls linearly to a tenth."""

    def __init__(self, start: float) -> None:
        self.start = start

    def __call__(self, remaining: float) -> float:
        """Return the rate while this share of the training remains."""
        return self.start * (0.1 + 0.9 * remaining)
