"""Tune what a scenario's schedules leave open, by realised J on training windows with common random numbers.

    python -m baselines.tune --scenario WalkerRush --episodes 32 --seed 0

The families are nested: `replan` tunes only the horizon over which a load is spread; `priced` starts from it
and tunes every constant price; `backlog` starts from that and adds the slope of the backlog. What a search finds
is kept if it gains for sure on as many training episodes that the search has not seen; else the family is the one
before it. So each is at least as good as the one before on the training episodes, and constants that price nothing
are among the candidates of all. `static` is the best single (cuts, levels) found for every slot index. The result is
written to baselines/constants/SCENARIO.json, which the registry reads.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from baselines.batch import fixed_plans, play, priced_plans
from baselines.priced import CONSTANTS_DIR, Constants
from sat_env.commands import fail_cleanly, file_to_write, new_console
from sat_env.evaluation.runner import Episode, episodes
from sat_env.plan import Plan
from sat_env.scenario import Scenario, load_scenario, refuse_shipped_name
from sat_env.simulator import NO_PLAN, Simulator
from sat_env.world import Prepared, prepare

GRID = {
    "horizon": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
    "bottleneck": (0.0, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0),
    "downlink": (0.0, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0),
    "energy": (0.0, 0.1, 0.3, 1.0, 3.0, 10.0),
    "risk": (0.0, 0.25, 0.5, 1.0, 2.0, 4.0),
    "decline": (0.0, 0.5, 0.8, 1.0, 1.25),
    "backlog": (0.0, 0.5, 1.0, 2.0, 4.0, 8.0),
}
FAMILIES = {
    "replan": ("horizon",),
    "priced": ("horizon", "bottleneck", "downlink", "energy", "risk", "decline"),
    "backlog": ("horizon", "bottleneck", "downlink", "energy", "risk", "decline", "backlog"),
}
MIN_GAIN = 1e-4  # relative: a constant moves only for more than this


@dataclass(frozen=True)
class Tuned:
    """The constants of each family and the best static plan, with their J on the training episodes."""

    constants: dict[str, Constants]
    static: Plan
    j_s: dict[str, float]  # by family, and "static"


def tune(
    scenario: Scenario,
    count: int,
    seed: int,
    evaluations: int = 100,
    static_evaluations: int = 300,
    progress: Callable[[], None] = lambda: None,
) -> Tuned:
    """Tune the families and the static plan of a scenario.

    Parameters
    ----------
    count, seed
        Training episodes, and their seed; every candidate plays the same ones. As many others, of the seed after,
        say whether what is found is kept.
    evaluations
        Candidates of each of `priced` and `backlog`; `replan` tries every horizon of the grid.
    static_evaluations
        Candidates of the static plan.
    progress
        Called after each candidate: ``len(GRID["horizon"]) + 2 * evaluations + static_evaluations`` times.
    """
    if count < 2 or evaluations < 1 or static_evaluations < 1:
        raise ValueError(
            f"episodes, evaluations, static_evaluations = {count}, {evaluations}, {static_evaluations}: "
            "must be at least 2, 1, 1"
        )
    prepared = prepare(scenario)
    training = episodes(scenario, "train", count, seed)
    rng = np.random.default_rng(seed)
    cost: dict[Constants, float] = {}

    def j_of(constants: Constants) -> float:
        if constants not in cost:
            played = play(prepared, training, "train", priced_plans(constants, prepared))
            cost[constants] = float(played.j_s.mean())
        progress()
        return cost[constants]

    unseen = episodes(scenario, "train", count, seed + 1)
    constants: dict[str, Constants] = {}
    best = Constants()
    for family, names in FAMILIES.items():
        if family == "replan":
            best = min((Constants(horizon=h) for h in GRID["horizon"]), key=j_of)
        else:
            found = search(best, names, j_of, evaluations, rng)
            best = found if gains_for_sure(prepared, unseen, found, best) else best
        constants[family] = best
    static, static_j_s = best_static(prepared, training, static_evaluations, progress)
    return Tuned(constants, static, {**{f: cost[c] for f, c in constants.items()}, "static": static_j_s})


def gains_for_sure(prepared: Prepared, unseen: list[Episode], found: Constants, before: Constants) -> bool:
    """Return whether `found` is better by more than a standard error over episodes that no search has seen."""
    j_s = [play(prepared, unseen, "train", priced_plans(c, prepared)).j_s for c in (found, before)]
    beyond_s = j_s[0] - j_s[1]
    return bool(beyond_s.mean() + beyond_s.std(ddof=1) / math.sqrt(len(beyond_s)) < 0.0)


def search(
    start: Constants,
    names: tuple[str, ...],
    j_of: Callable[[Constants], float],
    evaluations: int,
    rng: np.random.Generator,
) -> Constants:
    """Seeded random search, then steps along one constant at a time; `start` stays unless it is beaten."""
    best, best_j = start, j_of(start)
    spent = 1

    def consider(candidate: Constants) -> bool:
        nonlocal best, best_j, spent
        spent += 1
        j = j_of(candidate)
        if j < best_j * (1 - MIN_GAIN):
            best, best_j = candidate, j
            return True
        return False

    for draw in range((evaluations - 1) * 2 // 5):
        # Half of the draws move away from `start` in one or two constants only: most prices do little.
        moved = list(names) if draw % 2 else list(rng.choice(names, min(2, len(names)), replace=False))
        consider(replace(start, **{name: float(rng.choice(GRID[name])) for name in moved}))
    while spent < evaluations:
        improved = False
        for name, value in _steps(best, names, rng):
            if spent >= evaluations:
                break
            improved = consider(replace(best, **{name: value})) or improved
        if not improved:  # look between the points of the grid, around the best
            for name in rng.permutation(names):
                value = getattr(best, name)
                if spent < evaluations and value > (1.0 if name == "horizon" else 0.0):
                    factor = math.sqrt(2) if rng.random() < 0.5 else 1 / math.sqrt(2)
                    consider(
                        replace(
                            best,
                            **{
                                str(name): max(1.0, round(value * factor, 3))
                                if name == "horizon"
                                else round(value * factor, 3)
                            },
                        )
                    )
                elif spent < evaluations:
                    consider(replace(best, **{str(name): float(rng.choice(GRID[name]))}))
    return best


def _steps(best: Constants, names: tuple[str, ...], rng: np.random.Generator) -> Iterator[tuple[str, float]]:
    """Yield each constant with its neighbours on the grid."""
    for name in rng.permutation(names):
        grid = np.array(GRID[name])
        value = getattr(best, name)
        for neighbour in (grid[grid > value][:1], grid[grid < value][-1:]):
            for other in neighbour:
                yield str(name), float(other)


def best_static(
    prepared: Prepared, training: list[Episode], evaluations: int, progress: Callable[[], None] = lambda: None
) -> tuple[Plan, float]:
    """Return the best plan found for every slot index, by realised J, and its J.

    Candidates: the equal split at every level, the exact plans of many training problems (the commonest
    first), then all single-cut and single-level moves around the best, until none helps or the count is spent.
    """
    cost: dict[Plan, float] = {}

    def j_of(plan: Plan) -> float:
        if plan not in cost:
            cost[plan] = float(
                play(prepared, training, "train", fixed_plans(plan.cuts, plan.levels)).j_s.mean()
            )
            progress()
        return cost[plan]

    for plan in _static_candidates(prepared, training):
        if len(cost) < max(1, evaluations // 2):
            j_of(plan)
    improved = True
    while improved and len(cost) < evaluations:
        best = min(cost, key=cost.__getitem__)
        for plan in _moves(best, len(prepared.world.block_flops), len(prepared.levels)):
            if len(cost) < evaluations:
                j_of(plan)
        improved = min(cost.values()) < cost[best] * (1 - MIN_GAIN)
    for _ in range(evaluations - len(cost)):
        progress()
    best = min(cost, key=cost.__getitem__)
    return best, cost[best]


def _static_candidates(prepared: Prepared, training: list[Episode]) -> Iterable[Plan]:
    slots, blocks = prepared.world.chain.shape[1], len(prepared.world.block_flops)
    for level in range(len(prepared.levels)):
        yield Plan(tuple(blocks * (i + 1) // slots for i in range(slots)), (level,) * slots)
    simulator = Simulator(prepared, len(training), "train")
    simulator.begin(
        seeds=np.array([episode.seed for episode in training], np.uint64),
        windows=np.array([episode.window for episode in training], np.int64),
    )
    decide = priced_plans(Constants(), prepared)
    seen: Counter[Plan] = Counter()
    for _ in range(min(40, prepared.scenario.episode_epochs)):
        cuts, levels = decide(simulator.world, simulator.problems)
        offered = cuts[:, 0] != NO_PLAN
        pairs = zip(cuts[offered].tolist(), levels[offered].tolist(), strict=True)
        seen.update(Plan(tuple(c), tuple(r)) for c, r in pairs)
        simulator.step(cuts, levels)
    yield from (plan for plan, _ in seen.most_common())


def _moves(plan: Plan, blocks: int, levels: int) -> Iterator[Plan]:
    """Yield the plans that differ in one cut, by one or two blocks, or in one level."""
    for i in range(len(plan.cuts)):
        for step in (-1, 1, -2, 2):
            cuts = list(plan.cuts)
            cuts[i] += step
            if cuts == sorted(cuts) and cuts[0] >= 0 and cuts[-1] <= blocks:
                yield Plan(tuple(cuts), plan.levels)
        for level in range(levels):
            if level != plan.levels[i]:
                yield Plan(plan.cuts, (*plan.levels[:i], level, *plan.levels[i + 1 :]))


@dataclass(frozen=True)
class Args:
    """Tune the schedules of a scenario on its training windows."""

    scenario: str
    """Name of a scenario, or a TOML file."""
    episodes: int = 32
    """Training episodes; every candidate plays the same ones, and as many others say whether what is found is kept."""
    seed: int = 0
    """Seed of the episodes and of the search."""
    evaluations: int = 100
    """Candidates of each family of constants."""
    static_evaluations: int = 300
    """Candidates of the static plan."""
    out: str | None = None
    """File to write; default baselines/constants/SCENARIO.json."""


def main(args: Args) -> None:
    """Tune, write the constants, print them."""
    if args.seed < 0:
        raise ValueError(f"seed = {args.seed}: must be at least 0")
    scenario = load_scenario(args.scenario)
    if args.out is None:
        refuse_shipped_name(scenario, "constants")
    out = CONSTANTS_DIR / f"{scenario.name}.json" if args.out is None else file_to_write(args.out)
    console = new_console()
    columns = (TextColumn("tuning"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(GRID["horizon"]) + 2 * args.evaluations + args.static_evaluations)
        tuned = tune(
            scenario,
            args.episodes,
            args.seed,
            args.evaluations,
            args.static_evaluations,
            lambda: bar.advance(task),
        )
    command = (
        f"python -m baselines.tune --scenario {args.scenario} --episodes {args.episodes} --seed {args.seed} "
        f"--evaluations {args.evaluations} --static-evaluations {args.static_evaluations}"
    )
    found: dict[str, object] = {
        "command": command,
        "scenario_hash": scenario.hash(),
        **{
            family: {"constants": asdict(constants), "j_s": round(tuned.j_s[family], 4)}
            for family, constants in tuned.constants.items()
        },
        "static": {
            "cuts": tuned.static.cuts,
            "levels": tuned.static.levels,
            "j_s": round(tuned.j_s["static"], 4),
        },
    }
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, j_s in tuned.j_s.items():
        console.print(f"{name:8} J {j_s:.3f} s on {args.episodes} training episodes")
    console.print(f"constants: {out}", soft_wrap=True)


if __name__ == "__main__":
    fail_cleanly(lambda: main(tyro.cli(Args)))
