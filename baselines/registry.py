"""Every planner and schedule by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from baselines import edgeshard, greedy, ground_only, paper_astar, proportional, single_satellite, uniform
from baselines.priced import load_constants, prices
from baselines.schedule import EveryEpoch, OnEvent, Periodic, Planner, Random, Static
from sat_env.plan import Plan
from sat_env.planning.costs import I64, Costs, Prices
from sat_env.planning.exact import solve
from sat_env.policy import Policy
from sat_env.problem import PlanningProblem


def on_costs(plan: Callable[[Costs], tuple[I64, I64] | None]) -> Planner:
    """Return a planner of problems out of a function of their costs."""

    def planner(problem: PlanningProblem) -> Plan | None:
        found = plan(problem.costs)
        return None if found is None else Plan(tuple(found[0].tolist()), tuple(found[1].tolist()))

    return planner


def exact_planner(prices_of: Callable[[PlanningProblem], Prices]) -> Planner:
    """Return exact A* under the prices of each problem."""

    def planner(problem: PlanningProblem) -> Plan | None:
        solution = solve(problem.costs, prices_of(problem))
        if solution.objective == float("inf"):
            return None
        return Plan(tuple(solution.cuts.tolist()), tuple(solution.levels.tolist()))

    return planner


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


def _every_epoch(plan: Callable[[Costs], tuple[I64, I64] | None], name: str, scenario: str) -> Policy:
    return EveryEpoch(name, on_costs(plan))


ENTRIES: dict[str, tuple[str, Callable[..., Policy]]] = {
    "random": ("random cuts and levels: the floor", lambda name, scenario: Random()),
    **{
        name: (text, partial(_every_epoch, plan))
        for name, text, plan in (
            ("uniform", "the same number of blocks on every satellite, every epoch", uniform.plan),
            ("proportional", "blocks in proportion to speed: the paper's heuristic", proportional.plan),
            ("greedy", "fills the fastest satellites first", greedy.plan),
            ("ground-only", "raw input down, the whole model on the ground", ground_only.plan),
            (
                "single-satellite",
                "the whole model on the best satellite that holds it",
                single_satellite.plan,
            ),
            ("edgeshard", "EdgeShard's dynamic programme (arXiv 2405.14371)", edgeshard.plan),
            ("paper-astar", "the paper's A*, read literally, every epoch", paper_astar.plan),
        )
    },
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
