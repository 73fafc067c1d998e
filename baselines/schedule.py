"""Schedules: when a planner is asked again. Every schedule pays the reloads its plans cause."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sat_env.plan import Plan
from sat_env.policy import PolicySpec
from sat_env.problem import PlanningProblem

Planner = Callable[[PlanningProblem], Plan | None]


class Schedule:
    """A planner, and the plan of it that is kept.

    Parameters
    ----------
    name : str
    planner : callable
    settings : object
        What the planner was built with: see `sat_env.policy.Policy`.
    """

    def __init__(self, name: str, planner: Planner, settings: object = None) -> None:
        self.name = name
        self.planner = planner
        self.settings = settings
        self._plan: Plan | None = None

    def reset(self, spec: PolicySpec, seed: int) -> None:
        """Forget the plan."""
        self._plan = None


class EveryEpoch(Schedule):
    """Ask the planner anew for every job."""

    def act(self, problem: PlanningProblem) -> Plan | None:
        """Return the planner's plan of this problem."""
        return self.planner(problem)


class Static(Schedule):
    """Keep the plan of the episode's first problem: one (cuts, levels) per slot, repaired where it must."""

    def act(self, problem: PlanningProblem) -> Plan | None:
        """Return the first plan."""
        if self._plan is None:
            self._plan = self.planner(problem)  # again next epoch, while there is none
        return self._plan


class Periodic(Schedule):
    """Ask the planner every `PERIOD` epochs and keep its plan in between."""

    PERIOD = 10
    _age = 0

    def act(self, problem: PlanningProblem) -> Plan | None:
        """Return the current plan, a new one when it is `PERIOD` epochs old."""
        if self._plan is None or self._age >= self.PERIOD:
            self._plan = self.planner(problem)
            self._age = 0
        self._age += 1
        return self._plan


class OnEvent(Schedule):
    """Ask the planner when something it planned with has changed: the chain, a link's state, a reboot, a mode."""

    _seen: tuple[bytes, ...] = ()

    def act(self, problem: PlanningProblem) -> Plan | None:
        """Return the current plan, a new one after an event."""
        now = problem.problems
        assert now is not None, "a schedule runs on an environment's problems"
        seen = (
            problem.forecast().chain[0].tobytes(),
            now.primary_up.tobytes(),
            (now.reboot_s > 0).tobytes(),
            now.flops_per_s.tobytes(),
        )
        if self._plan is None or seen != self._seen:
            self._plan = self.planner(problem)
        self._seen = seen
        return self._plan


class Random:
    """Draw cuts and levels uniformly: the floor of every table."""

    name = "random"
    settings = None

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def reset(self, spec: PolicySpec, seed: int) -> None:
        """Seed the draws of the episode."""
        self._rng = np.random.default_rng(seed)

    def act(self, problem: PlanningProblem) -> Plan | None:
        """Return a random plan; where the ground may hold nothing, the last cut ends the model."""
        cuts = np.sort(self._rng.integers(0, problem.blocks + 1, problem.slots))
        if problem.costs.ground_hosts == 0:
            cuts[-1] = problem.blocks
        levels = self._rng.integers(0, problem.levels, problem.slots)
        return Plan(tuple(cuts.tolist()), tuple(levels.tolist()))
