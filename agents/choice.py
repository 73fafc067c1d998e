"""Learned choice: at every decision the agent picks one of eight planners; its plan is played.

Seven are exact A* under other prices, one keeps the plan before. Only the planner that was picked plans.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.interface import Flat, Ints, OneStep
from agents.planner import Array, BatchPlanner
from agents.prices import FEATURES, features, shifted
from baselines.priced import Constants
from sat_env.problem import Problems
from sat_env.world import World

KEEP = 7
SHIFTS = {
    "tuned": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "spare the bottleneck": (0.0, 0.6, 0.0, 0.0, 0.0, 0.0),
    "forget the bottleneck": (0.0, -1.0, 0.0, 0.0, 0.0, 0.0),
    "spare the downlink": (0.0, 0.0, 0.6, 0.0, 0.0, 0.0),
    "spare the batteries": (0.0, 0.0, 0.0, 0.6, 0.0, 0.0),
    "avoid risk": (0.0, 0.0, 0.0, 0.0, 0.6, 0.0),
    "decline a little earlier": (0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "keep the plan": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
}
"""Candidates: how each shifts the planner's constants (see `agents.prices.shifted`)."""


class LearnedChoice(OneStep):
    """A choice among planners; the first is the tuned one.

    Parameters
    ----------
    world : World
    forecast_epochs : int
    constants : Constants
        Of the tuned planner.
    """

    def __init__(self, world: World, forecast_epochs: int, constants: Constants) -> None:
        self.world, self.forecast_epochs = world, forecast_epochs
        self.planner = BatchPlanner(world, constants)
        self.values: Array = shifted(self.planner.values, np.array(list(SHIFTS.values())))  # (8, 6)
        self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Box(
            -1.0, 1.0, (len(FEATURES),), np.float32
        )
        self.action_space: gymnasium.Space[Any] = gymnasium.spaces.Discrete(len(SHIFTS))
        self.first_output: NDArray[np.float32] | None = np.zeros(len(SHIFTS), np.float32)
        self.first_output[0] = 2.0  # half of the first decisions are the tuned planner's

    def observe(self, problems: Problems) -> Flat:
        """Return the features (B, 22) of `agents.prices`."""
        return features(self.world, problems, self.forecast_epochs)

    def plans(self, problems: Problems, actions: NDArray[Any]) -> tuple[Ints, Ints]:
        """Return cuts and levels (B, K) of the planners picked; in an episode's first epoch, none is kept."""
        cuts, levels = self.planner.plans(problems, self.values[actions])
        keep = (actions == KEEP) & (problems.epochs_left < self.world.episode_epochs)
        cuts[keep] = problems.previous_cuts[keep]
        levels[keep] = problems.previous_levels[keep]
        return cuts, levels
