"""Every planner and schedule by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from baselines import edgeshard, greedy, ground_only, paper_astar, proportional, single_satellite, uniform
from baselines.clairvoyant import Clairvoyant
from baselines.lookahead import LookAhead
from baselines.priced import Constants, is_tuned, load_constants, load_static, longest_s, prices
from baselines.risk import risk_prices
from baselines.schedule import EveryEpoch, OnEvent, Periodic, Planner, Random, Schedule, Static
from sat_env.evaluation.runner import Reference
from sat_env.plan import Plan
from sat_env.planning.costs import I64, Costs, Prices
from sat_env.planning.exact import solve
from sat_env.policy import Policy
from sat_env.problem import PlanningProblem
from sat_env.scenario import Scenario


def on_costs(plan: Callable[[Costs], tuple[I64, I64] | None]) -> Planner:
    """Return a planner of problems out of a function of their costs."""

    def planner(problem: PlanningProblem) -> Plan | None:
        found = plan(problem.costs)
        return None if found is None else Plan(tuple(found[0].tolist()), tuple(found[1].tolist()))

    return planner


def tuned_prices(constants: Constants, problem: PlanningProblem) -> Prices:
    """Return the prices of one problem."""
    assert problem.problems is not None and problem.world is not None
    return Prices(*(field[0] for field in prices(constants, problem.world, problem.problems)))


def exact_planner(
    constants: Constants, prices_of: Callable[[Constants, PlanningProblem], Prices] = tuned_prices
) -> Planner:
    """Return exact A* under the prices of each problem; `constants` say what is declined."""

    def planner(problem: PlanningProblem) -> Plan | None:
        solution = solve(problem.costs, prices_of(constants, problem))
        assert problem.world is not None, "a tuned planner runs on an environment's problems"
        if not solution.makespan_s <= longest_s(constants, problem.world):
            return None
        return Plan(tuple(solution.cuts.tolist()), tuple(solution.levels.tolist()))

    return planner


def astar(schedule: type[Schedule], name: str, scenario: Scenario, variant: str = "replan") -> Policy:
    """Return a schedule of exact A* under the constants tuned for a scenario."""
    constants = load_constants(scenario, variant)
    return schedule(name, exact_planner(constants), constants)


def _every_epoch(plan: Callable[[Costs], tuple[I64, I64] | None], name: str, scenario: Scenario) -> Policy:
    return EveryEpoch(name, on_costs(plan))


def best_static(name: str, scenario: Scenario) -> Policy:
    """Return the schedule that keeps the plan tuned on training windows."""
    plan = load_static(scenario)
    return Static(name, lambda problem: plan, plan)


def risk_aware(name: str, scenario: Scenario) -> Policy:
    """Return exact A* that charges the outages still to come, under the prices tuned for a scenario."""
    constants = load_constants(scenario, "priced")
    return EveryEpoch(name, exact_planner(constants, risk_prices), constants)


def tuned(scenario: Scenario) -> tuple[Constants, ...]:
    """Return the constants tuned for a scenario, the priced planner's first."""
    return tuple(load_constants(scenario, variant) for variant in ("priced", "backlog", "replan"))


def lookahead(name: str, scenario: Scenario) -> Policy:
    """Return look-ahead over the forecast; the best static plan, where one was tuned, is a candidate."""
    return LookAhead(name, tuned(scenario), (load_static(scenario),) if is_tuned(scenario) else ())


COMPETITORS = (
    "best-static",
    "static-astar",
    "event-astar",
    "replan-astar",
    "priced",
    "priced-backlog",
    "lookahead",
)


def clairvoyant(name: str, scenario: Scenario, epochs: int) -> Reference:
    """Return the clairvoyant over the plans of all `COMPETITORS` (best-static only where one was tuned)."""
    names = [other for other in COMPETITORS if other != "best-static" or is_tuned(scenario)]
    competitors = [make_policy(other, scenario) for other in names]
    return Clairvoyant(name, tuned(scenario), competitors, epochs)


ENTRIES: dict[str, tuple[str, Callable[[str, Scenario], Policy | Reference]]] = {
    "random": ("random cuts and levels: the floor", lambda name, scenario: Random()),
    **{
        name: (text, partial(_every_epoch, plan))
        for name, text, plan in (
            ("uniform", "the same number of blocks on every satellite, every epoch", uniform.plan),
            ("proportional", "blocks in proportion to speed: the paper's heuristic", proportional.plan),
            ("greedy", "block by block to the satellite that is done with it first", greedy.plan),
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
        partial(astar, Static),
    ),
    "periodic-astar": (
        "exact A* every 10 epochs",
        partial(astar, Periodic),
    ),
    "event-astar": (
        "exact A* when the chain, a link, a reboot or a power mode changed",
        partial(astar, OnEvent),
    ),
    "replan-astar": (
        "exact A* every epoch, loads spread over a tuned horizon",
        partial(astar, EveryEpoch),
    ),
    "priced": (
        "exact A* every epoch under constant prices, tuned jointly on training windows",
        partial(astar, EveryEpoch, variant="priced"),
    ),
    "priced-backlog": (
        "as priced, the bottleneck's price following the backlog",
        partial(astar, EveryEpoch, variant="backlog"),
    ),
    "best-static": (
        "one plan for every slot index, the best found by realised J on training windows",
        best_static,
    ),
    "risk-aware": (
        "as priced, and the expected delay by outages still to come in the objective",
        risk_aware,
    ),
    "lookahead": (
        "candidate plans simulated over the next 8 epochs on the forecast, without faults to come",
        lookahead,
    ),
    "clairvoyant": (
        "reference: candidate plans, those of other schedules among them, simulated over 8 epochs on the true trace",
        lambda name, scenario: clairvoyant(name, scenario, 8),
    ),
    "clairvoyant-one-job": (
        "reference: as clairvoyant, but it knows the fate of the current job only",
        lambda name, scenario: clairvoyant(name, scenario, 1),
    ),
}
NAMES = tuple(ENTRIES)


def make_policy(name: str, scenario: Scenario) -> Policy:
    """Build a competitor: as `make`, but references are refused."""
    policy = make(name, scenario)
    if isinstance(policy, Reference):
        raise ValueError(f"agent = {name!r}: a reference, which sees the future; must be a competitor")
    return policy


def make(name: str, scenario: Scenario) -> Policy | Reference:
    """Build a planner or schedule by name, with the constants tuned for a scenario.

    Raises
    ------
    ValueError
        Unknown name, or best-static where nothing was tuned for the scenario.
    """
    if name not in ENTRIES:
        raise ValueError(
            f"agent = {name!r}: must be one of {', '.join(NAMES)}, the path of a .zip, zoo:ALGORITHM or module:Class"
        )
    return ENTRIES[name][1](name, scenario)


def describe(name: str) -> str:
    """Return the one-line description of a name."""
    return ENTRIES[name][0]
