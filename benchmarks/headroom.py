"""What a choice among candidate plans could win at all, of what can be known at a decision.

    python benchmarks/headroom.py [--scenarios WalkerRush,WalkerOutage] [--json]

The tuned planner plays training windows. At some of its decisions each candidate plan of `agents.candidates` is run
in imagined futures (`Simulator.imagine`: drawn from what is known then, telling nothing of the true trace), the tuned
planner following. One half of the futures chooses a candidate, if it beats the tuned plan by more than the standard
error; the other half, and the true trace, say what that wins a decision. An agent that picks among these candidates,
decision by decision, can hardly be expected to win more. What luck decides is in `hindsight_s`, the best candidate on
the true trace, and nobody's to win.

Keys, per scenario: ``knowable_s`` and ``true_trace_s`` (negative: better; with ``..._se_s``, worlds being the
independent draws), ``hindsight_s``, ``departs`` (share of decisions in which another candidate is chosen), ``j_s``.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # agents and baselines are not in the wheel

from agents.candidates import CandidateMaker
from agents.planner import tuned_constants
from agents.rollouts import rows_of
from baselines.batch import Plans, priced_plans
from baselines.branches import futures
from sat_env.commands import fail_cleanly, new_console
from sat_env.handles import Handle
from sat_env.scenario import load_scenario
from sat_env.simulator import Simulator, Snapshot
from sat_env.world import prepare

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Args:
    """Measure how much a choice could win."""

    scenarios: str = "WalkerRush,WalkerHarsh,WalkerOutage,WalkerEclipse"
    """Names, separated by commas."""
    worlds: int = 48
    """Episodes of training windows."""
    decisions: int = 12
    """Of each episode, evenly spaced, that are looked at."""
    futures: int = 16
    """Imagined futures of a decision."""
    jobs_ahead: int = 12
    """Jobs that are run in each, this one first."""
    json: bool = False
    """Print JSON."""


def main(args: Args) -> None:
    """Measure and print."""
    for name in ("worlds", "decisions", "futures", "jobs_ahead"):
        # half of the futures choose, by their standard error
        least = {"worlds": 2, "futures": 4}.get(name, 1)
        if getattr(args, name) < least:
            raise ValueError(f"{name} = {getattr(args, name)}: must be at least {least}")
    found = {name: measure(name, args) for name in args.scenarios.split(",")}
    if args.json:
        print(json.dumps(found))
        return
    table = Table("scenario", "knowable, s a job", "on the true trace", "in hindsight", "departs %", "J s")
    for name, figures in found.items():
        table.add_row(
            name,
            f"{figures['knowable_s']:+.3f} ± {figures['knowable_se_s']:.3f}",
            f"{figures['true_trace_s']:+.3f} ± {figures['true_trace_se_s']:.3f}",
            f"{figures['hindsight_s']:+.3f}",
            f"{100 * figures['departs']:.1f}",
            f"{figures['j_s']:.2f}",
        )
    new_console().print(table)


def measure(name: str, args: Args) -> dict[str, float]:
    """Return the figures of one scenario."""
    prepared = prepare(load_scenario(name))
    constants = tuned_constants(prepared.scenario)
    follow = priced_plans(constants, prepared)
    maker, handle = CandidateMaker(prepared.world, constants), Handle(prepared.world)
    simulator = Simulator(prepared, args.worlds, "train")
    simulator.begin(seeds=np.arange(args.worlds, dtype=np.uint64) + np.uint64(7_000_000))
    epochs = prepared.scenario.episode_epochs
    looked = np.linspace(0, epochs - 1, args.decisions + 2)[1:-1].round().astype(int)
    knowable, true_trace, hindsight, departs, latency_s = [], [], [], [], []
    for t in track(range(epochs), name, transient=True, disable=args.json):
        if t in looked:
            candidates = maker.make(simulator.problems)
            rows, columns = np.nonzero(candidates.offered)
            plans = candidates.cuts[rows, columns], candidates.levels[rows, columns]

            def beyond_tuned(snapshot: Snapshot, rows: Any = rows, columns: Any = columns, plans: Plans = plans,
                             shape: Any = candidates.offered.shape) -> Array:  # fmt: skip
                """Return (N, C) what candidates cost beyond the tuned plan; infinite where not offered."""
                start, cost_s = rows_of(snapshot, rows), np.full(shape, np.inf)
                cost_s[rows, columns] = sum(
                    futures(
                        prepared.world,
                        handle,
                        start.trace,
                        start.state,
                        start.problems,
                        plans,
                        args.jobs_ahead,
                        follow,
                    )
                )
                return cost_s - cost_s[:, :1]

            imagined = np.stack([
                beyond_tuned(simulator.imagine((t * args.futures + m) * args.worlds).snapshot())
                for m in range(args.futures)
            ])  # fmt: skip
            truly = beyond_tuned(simulator.snapshot())
            for judge, choose in ((imagined[::2], imagined[1::2]), (imagined[1::2], imagined[::2])):
                chosen = surely_best(choose)
                each = np.arange(len(chosen))
                knowable.append(judge.mean(axis=0)[each, chosen])
                true_trace.append(truly[each, chosen])
                departs.append(chosen > 0)
            hindsight.append(truly.min(axis=1))
        simulator.step(*follow(simulator.world, simulator.problems))
        latency_s.append(simulator.outcome.latency_s.copy())
    return {
        **mean_and_error("knowable", np.stack(knowable)),
        **mean_and_error("true_trace", np.stack(true_trace)),
        "hindsight_s": float(np.mean(hindsight)),
        "departs": float(np.mean(departs)),
        "j_s": float(np.mean(latency_s)),
    }


def surely_best(beyond_s: Array) -> NDArray[np.int64]:
    """Return the candidate (N,) with the least mean over futures (M, N, C), 0 unless it gains for sure."""
    with np.errstate(invalid="ignore"):
        mean_s = beyond_s.mean(axis=0)
        error_s = beyond_s.std(axis=0, ddof=1) / np.sqrt(len(beyond_s))
        sure = mean_s + error_s < 0.0
    best: NDArray[np.int64] = np.where(sure, mean_s, np.inf).argmin(axis=1)
    return np.where(sure[np.arange(len(best)), best], best, 0)


def mean_and_error(name: str, values: Array) -> dict[str, float]:
    """Return the mean of (n, worlds) and its standard error."""
    of_world = values.mean(axis=0)
    return {
        f"{name}_s": float(of_world.mean()),
        f"{name}_se_s": float(of_world.std(ddof=1) / np.sqrt(len(of_world))),
    }


if __name__ == "__main__":
    fail_cleanly(lambda: main(tyro.cli(Args, description=__doc__)))
