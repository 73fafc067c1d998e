"""A residual on the tuned planner: the agent moves each cut of its plan by -1, 0 or 1 block.

It starts at zero: nearly all first moves are none. How many plans differ from the planner's is logged as
``dev/changed``: an untrained residual is just the planner.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.interface import Flat, Ints, OneStep
from agents.planner import BatchPlanner
from baselines.priced import Constants
from sat_env import observation
from sat_env.planning.costs import GROUND_ANY
from sat_env.problem import Problems
from sat_env.simulator import NO_PLAN
from sat_env.world import World


class Residual(OneStep):
    """Moves of the planner's cuts; it observes what the environment shows, and the planner's plan.

    Parameters
    ----------
    world : World
    forecast_epochs : int
    constants : Constants
        Of the planner.
    """

    def __init__(self, world: World, forecast_epochs: int, constants: Constants) -> None:
        self.world, self.forecast_epochs = world, forecast_epochs
        self.planner = BatchPlanner(world, constants)
        self.slots, self.blocks = world.chain.shape[1], len(world.block_flops)
        size = observation.vector_size(self.slots) + 2 * self.slots
        self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Box(0.0, 1.0, (size,), np.float32)
        self.action_space: gymnasium.Space[Any] = gymnasium.spaces.MultiDiscrete([3] * self.slots)
        self.first_output: NDArray[np.float32] | None = np.tile(
            np.array([0.0, 4.0, 0.0], np.float32), self.slots
        )
        self._planned: tuple[Ints, Ints] | None = None

    def observe(self, problems: Problems) -> Flat:
        """Return the environment's observation and the planner's cuts and levels (B, D + 2 K), scaled."""
        cuts, levels = self._planned = self.planner.plans(problems)
        shown = observation.encode(self.world, problems, self.forecast_epochs)
        strongest = max(len(self.world.encode_entries_per_s) - 1, 1)
        plan = np.concatenate([cuts / self.blocks, levels / strongest], axis=1)
        return np.concatenate([shown, np.clip(plan, 0.0, 1.0).astype(np.float32)], axis=1)

    def plans(self, problems: Problems, actions: NDArray[Any]) -> tuple[Ints, Ints]:
        """Return the planner's plans (B, K), their cuts moved; `problems` are those observed last."""
        if self._planned is None or len(self._planned[0]) != len(actions):
            self._planned = self.planner.plans(problems)
        (cuts, levels), self._planned = self._planned, None
        moved = np.clip(cuts + np.asarray(actions, np.int64) - 1, 0, self.blocks)
        if self.world.ground_hosts != GROUND_ANY:  # the ground's share stays the planner's
            moved[:, -1] = cuts[:, -1]
            moved[cuts[:, -1] == 0] = 0
            moved = np.minimum(moved, cuts[:, -1:])
        moved = np.maximum.accumulate(moved, axis=1)
        moved[cuts[:, 0] == NO_PLAN] = NO_PLAN
        return moved, levels
