"""Models by algorithm: stable-baselines3's PPO (Schulman et al., arXiv 1707.06347) over the native engine."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents.config import Algorithm, PPOConfig
from agents.planner import BatchPlanner
from agents.saved import make_interface
from agents.worlds import AgentWorlds
from baselines.priced import Constants
from sat_env.scenario import Scenario
from sat_env.world import prepare


class Run(NamedTuple):
    """One training run: what is learned, on what, and how."""

    algorithm: Algorithm
    scenario: Scenario
    config: PPOConfig
    constants: Constants  # of the planner it acts through, or is rewarded against
    seed: int


def make_worlds(run: Run) -> AgentWorlds:
    """Return the worlds of a run: training windows, the tuned planner beside them."""
    prepared = prepare(run.scenario)
    interface = make_interface(run.algorithm, prepared.world, run.scenario.forecast_epochs, run.constants)
    opponent = BatchPlanner(prepared.world, run.constants) if run.config.versus else None
    seed = 1_000_003 * (run.seed + 1)
    return AgentWorlds(prepared, interface, run.config.num_envs, opponent, "train", seed)


def new_model(run: Run) -> OnPolicyAlgorithm:
    """Return an untrained PPO."""
    config = run.config
    env = make_worlds(run)
    policy_kwargs: dict[str, Any] = {"net_arch": list(config.hidden)}
    if hasattr(env.action_space, "low"):
        policy_kwargs["log_std_init"] = config.log_std_init
    model = PPO(
        "MlpPolicy",
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
    if env.interface.first_output is not None:
        with torch.no_grad():
            last = cast(torch.nn.Linear, model.policy.action_net)
            last.bias.copy_(torch.as_tensor(env.interface.first_output))
    return model


class Falling:
    """A learning rate that falls linearly to a tenth."""

    def __init__(self, start: float) -> None:
        self.start = start

    def __call__(self, remaining: float) -> float:
        """Return the rate while this share of the training remains."""
        return self.start * (0.1 + 0.9 * remaining)
