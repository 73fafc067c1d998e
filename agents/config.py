"""Hyper-parameters of training: dataclasses with a default an algorithm, and files where a scenario differs.

Importing this needs no torch, so that train.py can show its options and refuse bad ones at once.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from sat_env.scenario import Scenario

Algorithm = Literal[
    "prices", "choice", "ppo", "ppo-transformer", "maskable", "residual", "imitation", "rollouts", "evolution"
]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
DEFAULT_ALGORITHM: Algorithm = "rollouts"  # the one that wins most (docs/agents.md)
HEADS = 4  # of the transformer's attention
CONFIGS_DIR = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class PPOConfig:
    """Hyper-parameters of a training run."""

    steps: int = 80_000
    """Decisions to train on, over all worlds."""
    num_envs: int = 64
    """Worlds stepped at once."""
    rollout_epochs: int = 32
    """Decisions of each world between updates."""
    batch_size: int = 1024
    """Decisions of a minibatch."""
    update_epochs: int = 8
    """Passes over a rollout."""
    learning_rate: float = 1e-3
    """Of Adam, falling linearly to a tenth."""
    gamma: float = 0.9
    """Discount: decisions last for the backlog and the loads, some ten epochs."""
    gae_lambda: float = 0.9
    """Of the advantage estimate."""
    entropy: float = 0.0
    """Weight of the entropy bonus."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers; of a transformer, the width of a token, a multiple of four."""
    log_std_init: float = -0.7
    """Logarithm of the first standard deviation of continuous actions."""
    versus: bool = True
    """Reward against the tuned planner on the same trace; off: against the reference latency."""
    foresight: int = 0
    """Jobs of which the critic, and it alone, is told what they took the tuned planner on the same trace."""
    traces: int = 4
    """Episodes each world plays before they come again; 0: always new ones."""
    dev_episodes: int = 12
    """Development episodes played to choose the best weights."""
    dev_every: int = 5
    """Updates between two such evaluations."""

    def __post_init__(self) -> None:
        for name in ("steps", "num_envs", "rollout_epochs", "batch_size", "update_epochs", "dev_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.batch_size < 2:
            raise ValueError(f"batch_size = {self.batch_size}: must be at least 2")
        for name in ("learning_rate", "entropy", "log_std_init"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} = {getattr(self, name)}: must be a finite number")
        for name in ("traces", "foresight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 0")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden = {self.hidden}: must be one width or more, each at least 1")
        if self.dev_every < 1:
            raise ValueError(f"dev_every = {self.dev_every}: must be at least 1")
        if not 0 <= self.gamma <= 1 or not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"gamma, gae_lambda = {self.gamma}, {self.gae_lambda}: must be in 0..1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate = {self.learning_rate}: must be above 0")


@dataclass(frozen=True)
class RolloutConfig:
    """Hyper-parameters of learning a choice by rollouts (`agents.rollouts`)."""

    steps: int = 19_200
    """Decisions that are branched, in whole rounds: episodes of all worlds, each with a fit in the end."""
    rule_steps: int = 0
    """Decisions played before, to evolve the price rule that takes the tuned planner's place; 0: none."""
    num_envs: int = 64
    """Worlds side by side."""
    candidates: int = 5
    """Candidates tried of a decision, beside the tuned plan."""
    branch_epochs: int = 10
    """Jobs of a branch that are run; the critic values what follows."""
    value_epochs: int = 12
    """Jobs that the critic's value sums up."""
    explore: float = 0.1
    """Share of decisions in which the walk takes a candidate at random."""
    width: int = 64
    """Of the hidden layers."""
    passes: int = 15
    """Over the data, for each fit."""
    dev_episodes: int = 64
    """Development episodes played to choose the best weights."""

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 0 if field.name == "rule_steps" else 1
            if field.name != "explore" and getattr(self, field.name) < least:
                raise ValueError(f"{field.name} = {getattr(self, field.name)}: must be at least {least}")
        if self.num_envs < 4:
            raise ValueError(
                f"num_envs = {self.num_envs}: must be at least 4, one for each member of an ensemble"
            )
        if not 0 <= self.explore <= 1:
            raise ValueError(f"explore = {self.explore}: must be in 0..1")


@dataclass(frozen=True)
class EvolutionConfig:
    """Hyper-parameters of learning a price rule by evolution (`agents.evolution`)."""

    steps: int = 2_000_000
    """Decisions that are played, in whole generations."""
    population: int = 14
    """Rules drawn in a generation."""
    worlds: int = 32
    """New episodes that each of them plays."""
    sigma: float = 0.25
    """First standard deviation of a weight."""
    dev_every: int = 5
    """Generations between two evaluations; so many say whether the rule is better for sure. The last is one too."""
    dev_episodes: int = 64
    """Development episodes played to choose the best rule."""

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 2 if field.name in ("population", "worlds") else 1
            if field.name != "sigma" and getattr(self, field.name) < least:
                raise ValueError(f"{field.name} = {getattr(self, field.name)}: must be at least {least}")
        if not self.sigma > 0:
            raise ValueError(f"sigma = {self.sigma}: must be above 0")


_SCRATCH = PPOConfig(
    steps=600_000,
    num_envs=128,
    rollout_epochs=32,
    update_epochs=4,
    gamma=0.5,
    hidden=(128, 128),
    versus=False,
    traces=0,
)
Config = PPOConfig | RolloutConfig | EvolutionConfig
DEFAULTS: dict[Algorithm, Config] = {
    "rollouts": RolloutConfig(),
    "evolution": EvolutionConfig(),
    "prices": PPOConfig(),
    "choice": PPOConfig(),
    "residual": PPOConfig(hidden=(128, 128)),
    "ppo": _SCRATCH,
    "ppo-transformer": PPOConfig(hidden=(32,), log_std_init=-2.0, learning_rate=5e-4),
    "maskable": replace(_SCRATCH, gamma=0.9),  # a sub-step of six
    "imitation": replace(_SCRATCH, steps=400_000, learning_rate=3e-4),
}
FORESIGHT_ALGORITHMS: tuple[Algorithm, ...] = ("prices", "choice", "ppo")
"""Those whose networks are stable-baselines3's own."""
PPO_ALGORITHMS = tuple(name for name in ALGORITHMS if isinstance(DEFAULTS[name], PPOConfig))


def decisions_of(config: Config) -> int:
    """Return how many decisions a training counts until it is over."""
    return config.steps + (config.rule_steps if isinstance(config, RolloutConfig) else 0)


def check_fits(algorithm: Algorithm, config: Config) -> None:
    """Refuse foresight and widths that the algorithm's network has no place for."""
    if isinstance(config, PPOConfig) and config.foresight and algorithm not in FORESIGHT_ALGORITHMS:
        raise ValueError(
            f"foresight = {config.foresight}: must be 0 for {algorithm}, "
            f"above only for {', '.join(FORESIGHT_ALGORITHMS)}"
        )
    if algorithm == "ppo-transformer" and isinstance(config, PPOConfig):
        if len(config.hidden) != 1 or config.hidden[0] % HEADS:
            raise ValueError(f"hidden = {config.hidden}: must be one multiple of {HEADS} for {algorithm}")


def default_config(algorithm: Algorithm, scenario: Scenario) -> Config:
    """Return the hyper-parameters of an algorithm, with what was found for this very scenario, by name and hash.

    That stands in ``configs/SCENARIO.json``.

    Raises
    ------
    ValueError
        The file names a hyper-parameter that does not exist.
    """
    path = CONFIGS_DIR / f"{scenario.name}.json"
    saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    changes = saved.get(algorithm, {}) if is_found(saved, algorithm, scenario) else {}
    return replace(DEFAULTS[algorithm], **checked(changes, algorithm))


def is_found(saved: dict[str, Any], algorithm: Algorithm, scenario: Scenario) -> bool:
    """Tell whether the content of a file of ``configs`` holds what was found for an algorithm on this very scenario."""
    found: dict[str, Any] = saved.get("found", {}).get(algorithm, {})
    return found.get("scenario_hash") == scenario.hash()


TYPES: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((float, int), "a number"),
    tuple: ((int,), "a list of whole numbers"),
}
"""Of what types the value of a hyper-parameter is, or its items, by that of its default."""


def checked(values: dict[str, Any], algorithm: Algorithm) -> dict[str, Any]:
    """Return plain data as hyper-parameters of an algorithm; refuses a name or a type that is none of its."""
    known = asdict(DEFAULTS[algorithm])
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{name} = {value!r}: must be one of {', '.join(sorted(known))}")
        allowed, words = TYPES[type(known[name])]
        many = isinstance(value, list | tuple)
        items = value if many else [value]
        if many != isinstance(known[name], tuple) or any(type(item) not in allowed for item in items):
            raise ValueError(f"{name} = {value!r}: must be {words}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
