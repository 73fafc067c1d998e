"""The priced planner on a batch of decisions: what agents that act through a planner plan with."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from baselines.priced import MAX_S, Constants, load_constants, longest_s, prices
from sat_env.planning import Workspace, make_workspace
from sat_env.planning.batch import BatchSolution, solve_batch
from sat_env.planning.costs import Prices
from sat_env.problem import Problems, tabulate
from sat_env.scenario import Scenario
from sat_env.simulator import NO_PLAN
from sat_env.world import World

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

FAMILIES = ("backlog", "priced", "replan")  # of tuned constants, the richest first


def tuned_constants(scenario: Scenario) -> Constants:
    """Return the richest jointly tuned constants of a scenario, or the defaults where nothing was tuned."""
    for family in FAMILIES:
        found = load_constants(scenario, family)
        if found != Constants():
            return found
    return Constants()


class SlotPrices(NamedTuple):
    """What differs between the slots of B decisions."""

    energy_factor: Array  # (B, K) on the price of energy
    compute: Array  # (B, K) seconds of makespan per compute second


class BatchPlanner:
    """The priced planner under `constants`, or under others for each world.

    Parameters
    ----------
    world : World
    constants : Constants
    """

    PRICES = ("horizon", "bottleneck", "downlink", "energy", "risk", "decline")

    def __init__(self, world: World, constants: Constants) -> None:
        self.world = world
        self.constants = constants
        self.values = np.array([getattr(constants, name) for name in self.PRICES])  # (6,)
        self._ones = replace(constants, horizon=1.0, bottleneck=1.0, downlink=1.0, energy=1.0, risk=1.0)
        self._workspace: Workspace | None = None

    def plans(
        self, problems: Problems, values: Array | None = None, slots: SlotPrices | None = None
    ) -> tuple[Ints, Ints]:
        """Return cuts and levels (B, K) of each problem's plan; NO_PLAN as first cut declines the job.

        Parameters
        ----------
        problems : Problems
        values : (B, 6), optional
            What `PRICES` names, for each world (the horizon at least 1); default: the constants.
        slots : SlotPrices, optional
            What differs between slots; only with `values`.
        """
        found = self.solve(problems, values, slots)
        found.cuts[~(found.makespan_s <= self.longest_s(values)), 0] = NO_PLAN
        return found.cuts, found.levels

    def longest_s(self, values: Array | None = None) -> Array | float:
        """Return the makespan above which a job is declined, finite: for each world of `values` (B, 6)."""
        if values is None:
            return longest_s(self.constants, self.world)
        with np.errstate(divide="ignore"):
            return np.minimum(self.world.deadline_s / values[:, 5], MAX_S)

    def solve(
        self, problems: Problems, values: Array | None = None, slots: SlotPrices | None = None
    ) -> BatchSolution:
        """Return each problem's plan whatever its makespan; parameters as in `plans`."""
        costs = tabulate(self.world, problems)
        if self._workspace is None:
            self._workspace = make_workspace(
                problems.rate_bps.shape[1], costs.compute_s.shape[2], costs.error.shape[2]
            )
        return solve_batch(costs, self._prices(problems, values, slots), self._workspace)

    def _prices(self, problems: Problems, values: Array | None, slots: SlotPrices | None) -> Prices:
        if values is None:
            return prices(self.constants, self.world, problems)
        # Every term is linear in its constant (the load's weight in one over the horizon).
        unit = prices(self._ones, self.world, problems)
        horizon, bottleneck, downlink, energy, risk, _ = values.T
        stage_price = unit.stage_price * energy[:, None]
        if slots is not None:
            stage_price[:, :-1] *= slots.energy_factor
            stage_price[:, :-1] += slots.compute
        return Prices(
            load_weight=unit.load_weight / horizon,
            bottleneck=unit.bottleneck * bottleneck,
            stage_price=stage_price,
            hop_price=unit.hop_price * downlink[:, None, None],
            hop_fixed_s=unit.hop_fixed_s * risk[:, None, None],
        )
