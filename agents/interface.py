"""How an agent sees a decision, and what its action means.

All that differs between algorithms in training and in play stands behind `Interface`; the same object serves
a batch of worlds and a single decision.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from sat_env import encodings, observation
from sat_env.problem import Problems
from sat_env.world import World

Flat = NDArray[np.float32]
Ints = NDArray[np.int64]


Predict = Callable[[Flat, NDArray[np.bool_] | None], NDArray[Any]]
"""A network's most likely actions: of observations (B, D), and masks where an interface has them."""


class Interface(Protocol):
    """Observations and actions of one kind of agent in the worlds of one scenario."""

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    first_output: NDArray[np.float32] | None  # bias the last layer starts with; None: 0

    def decide(self, problems: Problems, predict: Predict) -> tuple[Ints, Ints]:
        """Return the plans of a network, cuts and levels (B, K)."""


class Learner(Protocol):
    """What learns without stable-baselines3: played as its models are, and gone on with from a pickle, exactly."""

    logger: Any  # of stable-baselines3, while training

    @property
    def num_timesteps(self) -> int:
        """Decisions learned from so far."""

    @property
    def over(self) -> bool:
        """As many as were asked for."""

    def advance(self) -> bool:
        """Learn for a few seconds at most; return whether what is played changed."""

    def predict(self, flat: Flat, deterministic: bool = True) -> tuple[NDArray[np.float32], None]:
        """Return what is said of observations."""

    def save(self, path: Path) -> None:
        """Write what playing needs as a zip."""


class OneStep(Interface, Protocol):
    """An interface whose agent acts once a decision."""

    def observe(self, problems: Problems) -> Flat:
        """Return the observations (B, D), freshly allocated."""

    def plans(self, problems: Problems, actions: NDArray[Any]) -> tuple[Ints, Ints]:
        """Return cuts and levels (B, K) of one action a world."""

    def decide(self, problems: Problems, predict: Predict) -> tuple[Ints, Ints]:
        """Return the plans of a network, cuts and levels (B, K)."""
        return self.plans(problems, predict(self.observe(problems), None))


class Encoded(OneStep):
    """Plans from scratch: the environment's own observation, flat, and one of its action encodings.

    Parameters
    ----------
    world : World
    forecast_epochs : int
    action : {"plan", "fractions", "delta"}
    """

    def __init__(self, world: World, forecast_epochs: int, action: encodings.Encoding) -> None:
        self.world, self.forecast_epochs, self.action = world, forecast_epochs, action
        self.slots = world.chain.shape[1]
        size = observation.vector_size(self.slots)
        self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Box(0.0, 1.0, (size,), np.float32)
        self.action_space = encodings.action_space(world, action)
        self.first_output: NDArray[np.float32] | None = None
        if action == "fractions":
            # Even shares, and hardly any compression: a plan over the accuracy limit teaches nothing.
            self.first_output = np.zeros(2 * self.slots + 1, np.float32)
            self.first_output[self.slots + 1 :] = -0.8

    def observe(self, problems: Problems) -> Flat:
        """Return the environment's observations as flat vectors (B, D)."""
        return observation.encode(self.world, problems, self.forecast_epochs)

    def plans(self, problems: Problems, actions: NDArray[Any]) -> tuple[Ints, Ints]:
        """Return cuts and levels (B, K) of the encoded actions."""
        cuts = np.empty((len(actions), self.slots), np.int64)
        levels = np.empty_like(cuts)
        encodings.decode(self.world, self.action, actions, problems.previous_cuts, cuts, levels)
        return cuts, levels
