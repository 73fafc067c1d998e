"""Train an agent and show it against the planners on test windows.

    python train.py
    python train.py --algo ppo --scenario WalkerOutage --elements iridium.tle --steps 4000
    python train.py --seeds 5 --scenario WalkerRush
    python train.py --resume runs/WalkerOutage-0

Leaves a run folder: config.json, command.txt, model.zip (best on development windows), last.zip, checkpoints,
evaluations.csv and curve.png, logs (CSV, TensorBoard), results.json. docs/agents.md explains the algorithms.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from agents.config import ALGORITHMS, Algorithm, PPOConfig, checked, default_config
from agents.planner import tuned_constants
from baselines import make
from baselines.priced import Constants, is_tuned
from sat_env.commands import describe_input, fail_cleanly, new_console, resolve, show_and_write
from sat_env.evaluation.runner import Reference, world_of
from sat_env.policy import Policy
from sat_env.scenario import Scenario, scenario_from_dict

if TYPE_CHECKING:
    from agents.models import Run

OPPONENTS = (
    "uniform",
    "ground-only",
    "single-satellite",
    "paper-astar",
    "static-astar",
    "best-static",
    "replan-astar",
    "priced",
)


@dataclass(frozen=True)
class Args:
    """Train an agent, then compare it with the planners."""

    algo: Algorithm = "prices"
    """What is learned: the planner's prices, a choice among its plans, a change of its plan, or plans."""
    scenario: str = "WalkerOutage"
    """Name of a scenario, or a TOML file."""
    elements: str | None = None
    """OMM (CSV, JSON, XML) or TLE file: puts the scenario on real satellites."""
    model: str | None = None
    """Model to split: vit-b, ..., llama-3.1-8b, or a Hugging Face style config.json."""
    seed: int = 0
    """Seed of the (first) training run."""
    seeds: int = 1
    """Training runs, with seeds from `seed` on, several at once."""
    jobs: int = 2
    """Processes that several runs share."""
    episodes: int = 6
    """Test episodes of the table."""
    out: str | None = None
    """Run folder; default runs/SCENARIO-SEED, with the algorithm's name where it is not the default."""
    resume: str | None = None
    """Run folder of an interrupted run: goes on from its checkpoint, with its configuration."""
    config: Annotated[PPOConfig, tyro.conf.arg(name="")] = field(default_factory=PPOConfig)
    """Hyper-parameters; the defaults depend on algorithm and scenario."""


def parse() -> Args:
    """Read the command line; hyper-parameters default to those of the algorithm and the scenario."""
    first = tyro.cli(Args)
    config = default_config(first.algo, Path(first.scenario).stem)
    return tyro.cli(Args, default=replace(Args(), config=config))


def main(args: Args) -> None:
    """Train, evaluate, write the run folder."""
    for name in ("episodes", "seeds", "jobs"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name} = {getattr(args, name)}: must be at least 1")
    if args.seed < 0:
        raise ValueError(f"seed = {args.seed}: must be at least 0")
    # Bad input is refused above and here, before the slow imports and any work.
    if args.resume is not None:
        folders = [Path(args.resume)]
        algo, scenario, config, constants, seed = read_config(folders[0])
    else:
        scenario = resolve(args.scenario, args.elements, args.model)
        algo, config, seed = args.algo, args.config, args.seed
        constants = tuned_constants(scenario.name)
        folders = [run_folder(args, scenario.name, seed + i) for i in range(args.seeds)]
    console = new_console()
    opponents = [name for name in OPPONENTS if name != "best-static" or is_tuned(scenario.name)]
    if len(opponents) < len(OPPONENTS):
        console.print(
            f"best-static left out: tune it with python -m baselines.tune --scenario {scenario.name}"
        )
    for line in describe_input(scenario):
        console.print(line)
    world = world_of(scenario)

    from agents import training
    from agents.models import Run
    from agents.saved import SavedPolicy

    runs = [Run(algo, scenario, config, constants, seed + i) for i in range(len(folders))]
    if args.resume is None:
        for run, folder in zip(runs, folders, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            write_config(folder, run, world.environment_id)
    else:
        console.print(f"resumed at step {training.steps_done(folders[0])}")
    try:
        training.train_all(runs, folders, args.resume is not None, args.jobs)
    except KeyboardInterrupt:
        console.print(f"interrupted; go on with: python train.py --resume {folders[0]}")
    agents: list[Policy | Reference] = [
        SavedPolicy(folder / "model.zip", None if len(folders) == 1 else f"ppo-{algo}-{run.seed}")
        for run, folder in zip(runs, folders, strict=True)
        if (folder / "model.zip").is_file()
    ]
    for folder in folders:
        training.draw_curve(folder)
    show_and_write(
        console,
        lambda name: [*agents, *(make(opponent, name) for opponent in opponents)],
        [scenario],
        args.episodes,
        seed,
        folders[0] / "results.json",
    )


def run_folder(args: Args, scenario: str, seed: int) -> Path:
    """Return the folder of one run."""
    if args.out is not None:
        return Path(args.out) if args.seeds == 1 else Path(args.out) / str(seed)
    algo = "" if args.algo == "prices" else f"-{args.algo}"
    return Path("runs") / f"{scenario}{algo}-{seed}"


def read_config(folder: Path) -> tuple[Algorithm, Scenario, PPOConfig, Constants, int]:
    """Return what a run folder was started with.

    Raises
    ------
    ValueError
        Not a run folder, or one of an algorithm that does not exist.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"resume = {str(folder)!r}: must be a run folder with a config.json")
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if saved.get("algo") not in ALGORITHMS:
        raise ValueError(f"algo = {saved.get('algo')!r}: must be one of {', '.join(ALGORITHMS)}")
    config = PPOConfig(**checked(saved["config"]))
    constants = Constants(**saved["constants"])
    return saved["algo"], scenario_from_dict(saved["scenario"]), config, constants, saved["seed"]


def write_config(folder: Path, run: Run, environment_id: str) -> None:
    """Write what a run needs to be repeated or resumed."""
    text = {
        "environment_id": environment_id,
        "scenario_hash": run.scenario.hash(),
        "algo": run.algorithm,
        "seed": run.seed,
        "config": asdict(run.config),
        "constants": asdict(run.constants),
        "scenario": run.scenario.to_dict(),
    }
    (folder / "config.json").write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    (folder / "command.txt").write_text(shlex.join(["python", *sys.argv]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    fail_cleanly(lambda: main(parse()))
