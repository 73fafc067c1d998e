"""Train agents over seeds and compare them with the planners on the same test episodes, as a document table.

    python -m agents.study --scenario WalkerRush --algos prices,choice,ppo --seeds 1
    python -m agents.study --scenario WalkerRush --algos prices --seeds 5 --options '{"gamma": 0.0}'

Every run is kept under --out and is not trained again while its configuration stands.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from joblib import Parallel, delayed  # type: ignore[import-untyped]

from agents.config import ALGORITHMS, Algorithm, checked, default_config
from agents.planner import tuned_constants
from baselines.batch import play, priced_plans
from baselines.priced import load_constants
from sat_env.commands import fail_cleanly, resolve
from sat_env.evaluation.runner import episodes
from sat_env.evaluation.statistics import paired_difference
from sat_env.scenario import Scenario
from sat_env.world import prepare

OPPONENTS = {"replan-astar": "replan", "priced": "priced", "priced-backlog": "backlog"}


@dataclass(frozen=True)
class Args:
    """Train and compare."""

    scenario: str = "WalkerRush"
    """Name of a scenario, or a TOML file."""
    algos: str = "prices,choice"
    """Algorithms, separated by commas."""
    seeds: int = 1
    """Training runs of each."""
    episodes: int = 36
    """Test episodes; every run and planner plays the same ones."""
    jobs: int = 1
    """Training runs at once."""
    options: str = "{}"
    """Hyper-parameters that differ from the defaults, as JSON."""
    out: str = "runs/study"
    """Folder of the runs."""


def main(args: Args) -> None:
    """Train what is missing, play, print the table."""
    scenario = resolve(args.scenario)
    algorithms: list[Algorithm] = []
    for name in args.algos.split(","):
        if name not in ALGORITHMS:
            raise ValueError(f"algos = {name!r}: must be one of {', '.join(ALGORITHMS)}")
        algorithms.append(name)
    if args.seeds < 1 or args.episodes < 1 or args.jobs < 1:
        raise ValueError(
            f"seeds, episodes, jobs = {args.seeds}, {args.episodes}, {args.jobs}: must be at least 1"
        )
    options = checked(json.loads(args.options))
    pairs = [(algorithm, seed) for algorithm in algorithms for seed in range(args.seeds)]
    found = Parallel(n_jobs=args.jobs)(
        delayed(one_run)(scenario, algorithm, seed, options, args.episodes, args.out)
        for algorithm, seed in pairs
    )
    prepared = prepare(scenario)
    chosen = episodes(scenario, "test", args.episodes, 0)
    theirs = {
        name: play(
            prepared, chosen, "test", priced_plans(load_constants(scenario.name, family), prepared)
        ).j_s
        for name, family in OPPONENTS.items()
    }
    print(
        f"| {scenario.name} | J s | {' | '.join(f'to {name}' for name in theirs)} | seeds' J | CPU s a run |"
    )
    print("|---|---|" + "---|" * (len(theirs) + 2))
    for algorithm in algorithms:
        runs = [result for (name, _), result in zip(pairs, found, strict=True) if name == algorithm]
        by_seed = np.array([j_s for j_s, _ in runs])  # (seeds, episodes)
        mine = by_seed.mean(axis=0)
        cells = []
        for other in theirs.values():
            difference = paired_difference(mine, other)
            cells.append(f"{difference.mean:+.2f} ({difference.low:+.2f}, {difference.high:+.2f})")
        spread = f"{by_seed.mean(axis=1).min():.2f}-{by_seed.mean(axis=1).max():.2f}"
        cpu_s = np.mean([seconds for _, seconds in runs])
        print(f"| {algorithm} | {mine.mean():.2f} | {' | '.join(cells)} | {spread} | {cpu_s:.0f} |")
    for name, j_s in theirs.items():
        print(f"| {name} | {j_s.mean():.2f} |" + " |" * (len(theirs) + 2))


def one_run(
    scenario: Scenario,
    algorithm: Algorithm,
    seed: int,
    options: dict[str, object],
    count: int,
    out: str,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], float]:
    """Train one run if it is not there; return J of its best weights on the test episodes, and CPU seconds."""
    from agents.models import Run
    from agents.saved import load_model
    from agents.training import decider, read_evaluations, train_in

    config = replace(default_config(algorithm, scenario.name), **options)  # type: ignore[arg-type]
    run = Run(algorithm, scenario, config, tuned_constants(scenario.name), seed)
    changes = "".join(f"-{name}={value}" for name, value in sorted(options.items()))
    folder = Path(out) / f"{scenario.name}-{algorithm}{changes}-{seed}"
    settled = {"scenario": scenario.hash(), "config": asdict(config), "constants": asdict(run.constants)}
    text = json.dumps(settled, indent=1)
    done = folder / "done.json"
    if not (done.is_file() and done.read_text(encoding="utf-8") == text):
        folder.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        train_in(run, folder, resume=False, progress_bar=False)
        done.write_text(text, encoding="utf-8")
    decide = decider(run, load_model(folder / "model.zip", algorithm))
    played = play(prepare(scenario), episodes(scenario, "test", count, 0), "test", decide)
    rows = read_evaluations(folder / "evaluations.csv")
    return played.j_s, rows[-1]["cpu_s"] - rows[0]["cpu_s"]


if __name__ == "__main__":
    fail_cleanly(lambda: main(tyro.cli(Args)))
