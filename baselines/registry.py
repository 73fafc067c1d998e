"""Every planner and schedule by name."""

from __future__ import annotations

from collections.abc import Callable

from baselines.priced import load_constants, prices
from baselines.schedule import EveryEpoch, OnEvent, Periodic, Planner, Random, Static
from sat_env.plan import Plan
from sat_env.planning.costs import Prices
from sat_env.planning.exact import solve
from sat_env.policy import Policy
from sat_env.problem import PlanningProblem


def as_plan(found: tuple[object, object] | None, problem: PlanningProblem) -> Plan:
    """Return a planner's arrays as a Plan; without a feasible one, the equal split (the job then fails)."""
    if found is None:
        k, blocks = problem.slots, problem.blocks
        return Plan(tuple(blocks * (i + 1) // k for i in range(k)), (0,) * k)
    cuts, levels = found
    return Plan(tuple(int(c) for c in cuts), tuple(int(r) for r in levels))  # type: ignore[attr-defined]


def exact_planner(prices: Callable[[PlanningProblem], Prices]) -> Planner:
    """Return exact A* under the prices of each problem."""

    def plan(problem: PlanningProblem) -> Plan:
        solution = solve(problem.costs, prices(problem))
        feasible = solution.objective < float("inf")
        return as_plan((solution.cuts, solution.levels) if feasible else None, problem)

    return plan


def tuned_prices(variant: str, scenario: str) -> Callable[[PlanningProblem], Prices]:
    """Return the prices of a tuned variant for each problem of a scenario."""
    constants = load_constants(scenario, variant)

    def of(problem: PlanningProblem) -> Prices:
        assert problem.problems is not None and problem.world is not None
        batch = prices(constants, problem.world, problem.problems)
        return Prices(*(field[0] for field in batch))

    return of


def astar(scenario: str, variant: str = "replan") -> Planner:
    """Return exact A* under the constants tuned for a scenario."""
    return exact_planner(tuned_prices(variant, scenario))


ENTRIES: dict[str, tuple[str, Callable[[str, str], Policy]]] = {
    "random": ("random cuts and levels: the floor", lambda name, scenario: Random()),
    "static-astar": (
        "exact A* once, on the first problem of the episode; kept",
        lambda name, scenario: Static(name, astar(scenario)),
    ),
    "periodic-astar": (
        "exact A* every 10 epochs",
        lambda name, scenario: Periodic(name, astar(scenario), 10),
    ),
    "event-astar": (
        "exact A* when the chain, a link, a reboot or a power mode changed",
        lambda name, scenario: OnEvent(name, astar(scenario)),
    ),
    "replan-astar": (
        "exact A* every epoch, loads spread over a tuned horizon",
        lambda name, scenario: EveryEpoch(name, astar(scenario)),
    ),
    "priced": (
        "exact A* every epoch under constant prices, tuned jointly on training windows",
        lambda name, scenario: EveryEpoch(name, astar(scenario, "priced")),
    ),
    "priced-backlog": (
        "as priced, the bottleneck's price following the backlog",
        lambda name, scenario: EveryEpoch(name, astar(scenario, "backlog")),
    ),
}
NAMES = tuple(ENTRIES)


def make(name: str, scenario: str) -> Policy:
    """Build a planner or schedule by name, with the constants tuned for a scenario.

    Raises
    ------
    ValueError
        Unknown name.
    """
    if name not in ENTRIES:
        raise ValueError(f"agent = {name!r}: must be one of {', '.join(NAMES)}, or the path of a .zip")
    return ENTRIES[name][1](name, scenario)


def describe(name: str) -> str:
    """Return the one-line description of a name."""
    return ENTRIES[name][0]
