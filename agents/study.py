"""Train agents over seeds and compare them with the planners on the same test episodes, as a document table.

    python -m agents.study --scenarios WalkerRush --algos prices,choice,ppo
    python -m agents.study --scenarios WalkerRush,WalkerHarsh --algos prices --seeds 5 --options '[{}, {"gamma": 0.0}]'

Every run is kept under --out and is not trained again; one that was interrupted goes on, one of another configuration
is refused. A table a scenario: J on test episodes (mean over seeds), the paired difference to every planner with
its 95 % interval (below zero: better), which resamples episodes, and in how many of the scenario's few test windows
J is below both priced planners': orbits differ between windows only. --figure draws how the agents learned.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray

from agents.config import ALGORITHMS, Algorithm, checked, default_config
from agents.models import Run
from agents.planner import tuned_constants
from baselines.batch import play, priced_plans
from baselines.priced import load_constants
from sat_env.commands import fail_cleanly, resolve
from sat_env.evaluation.runner import episodes
from sat_env.evaluation.statistics import paired_difference
from sat_env.scenario import Scenario, require
from sat_env.world import prepare

Array = NDArray[np.float64]
TEST_SEED = 0
FIGURES = (".png", ".svg", ".pdf")
OPPONENTS = {"replan-astar": "replan", "priced": "priced", "priced-backlog": "backlog"}


@dataclass(frozen=True)
class Args:
    """Train and compare."""

    scenarios: str = "WalkerRush"
    """Names of scenarios and TOML files, separated by commas."""
    algos: str = "prices,choice"
    """Algorithms, separated by commas."""
    seeds: int = 1
    """Training runs of each."""
    episodes: int = 64
    """Test episodes; every run and planner plays the same ones."""
    jobs: int = 1
    """Training runs at once."""
    options: str = "{}"
    """Hyper-parameters that differ from the defaults, as JSON; a list of such: every one is a row."""
    out: str = "runs/study"
    """Folder of the runs."""
    figure: str = ""
    """Image of the learning curves, a panel a scenario."""


def main(args: Args) -> None:
    """Train what is missing, play, print the tables."""
    scenarios = [resolve(name.strip()) for name in args.scenarios.split(",")]
    names = [scenario.name for scenario in scenarios]
    require(len(set(names)) == len(names), "scenarios", names, "of different names")
    algorithms: list[Algorithm] = []
    for name in args.algos.split(","):
        if name not in ALGORITHMS:
            raise ValueError(f"algos = {name!r}: must be one of {', '.join(ALGORITHMS)}")
        algorithms.append(name)
    for name in ("seeds", "episodes", "jobs"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name} = {getattr(args, name)}: must be at least 1")
    if args.figure and (Path(args.figure).suffix not in FIGURES or not Path(args.figure).parent.is_dir()):
        raise ValueError(
            f"figure = {args.figure!r}: must be a {', '.join(FIGURES)} in a folder that is there"
        )
    runs = {
        (scenario.name, label(algorithm, options)): [
            new_run(scenario, algorithm, options, seed) for seed in range(args.seeds)
        ]
        for scenario in scenarios
        for algorithm in algorithms
        for options in read_options(args.options, algorithms)
    }
    keys = [(scenario, name, i) for (scenario, name), of_seeds in runs.items() for i in range(len(of_seeds))]
    folders = [Path(args.out) / f"{scenario}-{name.replace(' ', '-')}-{i}" for scenario, name, i in keys]
    for (scenario, name, i), folder in zip(keys, folders, strict=True):
        check_folder(folder, runs[scenario, name][i])
    found = Parallel(n_jobs=args.jobs)(
        delayed(one_run)(runs[scenario, name][i], folder, args.episodes)
        for (scenario, name, i), folder in zip(keys, folders, strict=True)
    )
    if args.figure:
        draw_curves(Path(args.figure), dict(zip(keys, folders, strict=True)))
    by_key = dict(zip(keys, found, strict=True))
    for scenario in scenarios:
        rows = {
            name: [by_key[scenario.name, name, i] for i in range(args.seeds)]
            for of, name in runs
            if of == scenario.name
        }
        print(table(scenario, rows, args.episodes))


def read_options(text: str, algorithms: list[Algorithm]) -> list[dict[str, Any]]:
    """Return the hyper-parameters of each row.

    Raises
    ------
    ValueError
        Not JSON, not an object or a list of objects, or a hyper-parameter that does not exist.
    """
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"options = {text!r}: must be JSON ({error})") from None
    rows = given if isinstance(given, list) else [given]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"options = {text!r}: must be a JSON object, or a list of them")
    for algorithm in algorithms:
        rows = [checked(row, algorithm) for row in rows]
    return rows


def label(algorithm: str, options: dict[str, Any]) -> str:
    """Return the name of a row: the algorithm, and what differs from its defaults."""
    return " ".join([algorithm, *(f"{name}={value}" for name, value in sorted(options.items()))])


def new_run(scenario: Scenario, algorithm: Algorithm, options: dict[str, Any], seed: int) -> Run:
    """Return a training run with the scenario's defaults but `options`."""
    config = replace(default_config(algorithm, scenario), **options)
    return Run(algorithm, scenario, config, tuned_constants(scenario), seed)


def table(scenario: Scenario, rows: dict[str, list[tuple[Array, float]]], count: int) -> str:
    """Return the Markdown table of a scenario: `rows` hold, a seed, J of each test episode and CPU seconds."""
    prepared = prepare(scenario)
    chosen = episodes(scenario, "test", count, TEST_SEED)
    theirs = {
        name: play(prepared, chosen, "test", priced_plans(load_constants(scenario, family), prepared)).j_s
        for name, family in OPPONENTS.items()
    }
    means = {name: np.mean([j_s for j_s, _ in of_seeds], axis=0) for name, of_seeds in rows.items()}
    others = dict(theirs)
    if len(rows) > 1:  # what the options change, against the first row
        others[next(iter(rows))] = next(iter(means.values()))
    lines = [
        f"| {scenario.name} ({scenario.hash()}) | J s | "
        f"{' | '.join(f'to {name}' for name in others)} | windows won | seeds' J | CPU s a run |",
        "|---|" + "---:|" * (len(others) + 4),
    ]
    windows = np.array([episode.window for episode in chosen])
    priced = [theirs["priced"], theirs["priced-backlog"]]
    for name, of_seeds in rows.items():
        cells = [difference(means[name], other) if name != of else "" for of, other in others.items()]
        by_seed = [float(j_s.mean()) for j_s, _ in of_seeds]
        cpu_s = np.mean([seconds for _, seconds in of_seeds])
        lines.append(
            f"| {name} | {means[name].mean():.3f} | {' | '.join(cells)} | {won(means[name], priced, windows)} | "
            f"{min(by_seed):.3f} to {max(by_seed):.3f} | {cpu_s:.0f} |"
        )
    for name, j_s in theirs.items():
        cells = [difference(j_s, other) if name != of else "" for of, other in others.items()]
        lines.append(f"| {name} | {j_s.mean():.3f} | {' | '.join(cells)} | | | |")
    return "\n".join(lines) + "\n"


def difference(mine: Array, other: Array) -> str:
    """Return the paired difference of two policies on the same episodes, with its interval, for a table."""
    found = paired_difference(mine, other)
    return f"{found.mean:+.3f} ({found.low:+.3f}, {found.high:+.3f})"


def won(mine: Array, others: list[Array], windows: NDArray[np.int64]) -> str:
    """Return in how many windows the mean of `mine` is below that of every other, of how many."""
    found = [
        all((mine - other)[windows == w].mean() < -1e-9 for other in others)  # by more than the mean rounds
        for w in np.unique(windows)
    ]
    return f"{sum(found)} of {len(found)}"


def check_folder(folder: Path, run: Run) -> None:
    """Refuse a folder that holds a run of another configuration."""
    for path in (folder / "begun.json", folder / "done.json"):
        if path.is_file() and not _holds(path, run.settled()):
            raise ValueError(
                f"out = {str(folder.parent)!r}: {folder.name} is of another configuration; "
                "must be a new folder, or one of a study of these very runs"
            )


def one_run(run: Run, folder: Path, count: int) -> tuple[Array, float]:
    """Train one run unless it is there; return J of its best weights on the test episodes, and CPU seconds."""
    from agents.saved import load_model
    from agents.training import decider, read_evaluations, train_in

    settled = run.settled()
    begun, done = folder / "begun.json", folder / "done.json"
    if not _holds(done, settled):
        folder.mkdir(parents=True, exist_ok=True)
        begun.write_text(settled, encoding="utf-8")
        train_in(run, folder, progress_bar=False)
        begun.rename(done)
    decide = decider(run, load_model(folder / "model.zip", run.algorithm))
    chosen = episodes(run.scenario, "test", count, TEST_SEED)
    played = play(prepare(run.scenario), chosen, "test", decide)
    rows = read_evaluations(folder / "evaluations.csv")
    return played.j_s, cpu_s(rows)


def draw_curves(path: Path, folders: dict[tuple[str, str, int], Path]) -> None:
    """Draw J on development episodes beside the tuned planner's on the same, over CPU time, of runs by their keys.

    A thin line is a training seed; its dot is where the best weights are: the first of the least J, as training keeps.
    """
    from matplotlib.figure import Figure

    from agents.training import read_evaluations

    scenarios = list(dict.fromkeys(scenario for scenario, _, _ in folders))
    names = list(dict.fromkeys(name for _, name, _ in folders))
    figure = Figure(figsize=(3.2 * len(scenarios), 3.4), layout="constrained", dpi=110)
    panels = figure.subplots(1, len(scenarios), squeeze=False)[0]
    for panel, scenario in zip(panels, scenarios, strict=True):
        panel.axhline(0.0, color="black", linewidth=0.8)
        for (of, name, seed), folder in folders.items():
            if of != scenario:
                continue
            rows = read_evaluations(folder / "evaluations.csv")
            minutes = np.array([row["cpu_s"] - rows[0]["cpu_s"] for row in rows]) / 60
            gain_s = np.array([row["j_s"] - row["tuned_j_s"] for row in rows])
            best = int(gain_s.argmin())
            color = f"C{names.index(name)}"
            panel.plot(minutes, gain_s, color=color, linewidth=0.9, label=name if seed == 0 else None)
            panel.plot(minutes[best], gain_s[best], "o", color=color, markersize=4)
        panel.set(title=scenario, xlabel="CPU minutes")
    panels[0].set_ylabel("J beside the tuned planner's (s)")
    panels[0].legend(fontsize="small")
    figure.savefig(path)


def cpu_s(rows: list[dict[str, float]]) -> float:
    """Return the CPU seconds of a training from its evaluations, the first of which is of before it."""
    return rows[-1]["cpu_s"] - rows[0]["cpu_s"]


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    fail_cleanly(lambda: main(tyro.cli(Args)))
