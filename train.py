"""Train an agent and show it against the planners on test windows.

    python train.py
    python train.py --algo ppo --scenario WalkerOutage --elements iridium.tle --steps 4000
    python train.py --seeds 5 --scenario WalkerRush
    python train.py --resume runs/WalkerOutage-0
    python train.py --tune 20 --scenario WalkerRush
    python train.py --export runs/WalkerOutage-0

Leaves a run folder: config.json, command.txt, model.zip (best on development windows), last.zip, checkpoints,
evaluations.csv and curve.png, logs (CSV, TensorBoard), results.json. docs/agents.md explains the algorithms.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from agents.config import (
    ALGORITHMS,
    DEFAULT_ALGORITHM,
    DEFAULTS,
    Algorithm,
    Config,
    EvolutionConfig,
    PPOConfig,
    RolloutConfig,
    checked,
    default_config,
)
from agents.packages import Backend, check_backend, require_packages
from agents.planner import tuned_constants
from baselines import make
from baselines.priced import Constants, is_tuned, untuned_line
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

    algo: Algorithm = DEFAULT_ALGORITHM
    """What is learned: a choice among exact plans (rollouts), the planner's prices, a change of its plan, or plans."""
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
    backend: Backend = "loky"
    """Where several runs are computed: processes of this machine, or a Ray or Dask cluster."""
    episodes: int = 6
    """Test episodes of the table."""
    out: str | None = None
    """Run folder; default runs/SCENARIO-SEED, with the algorithm's name where it is not the default."""
    resume: tuple[str, ...] = ()
    """Run folders of interrupted runs: they go on from their checkpoints, with their configuration."""
    tune: int = 0
    """Trials of a search for hyper-parameters on training windows; the best go to agents/configs."""
    export: str | None = None
    """Run folder: writes its model.zip as model.onnx, checked against the network, and does nothing else."""
    config: Annotated[RolloutConfig, tyro.conf.arg(name="")] = field(default_factory=RolloutConfig)
    """Hyper-parameters; the defaults depend on algorithm and scenario."""


@dataclass(frozen=True)
class PPOArgs(Args):
    """Train an agent by PPO, then compare it with the planners."""

    config: Annotated[PPOConfig, tyro.conf.arg(name="")] = field(default_factory=PPOConfig)  # type: ignore[assignment]
    """Hyper-parameters; the defaults depend on algorithm and scenario."""


@dataclass(frozen=True)
class EvolutionArgs(Args):
    """Train an agent by evolution, then compare it with the planners."""

    config: Annotated[EvolutionConfig, tyro.conf.arg(name="")] = field(default_factory=EvolutionConfig)  # type: ignore[assignment]
    """Hyper-parameters; the defaults depend on algorithm and scenario."""


KINDS: dict[type[Config], type[Args]] = {
    PPOConfig: PPOArgs,
    RolloutConfig: Args,
    EvolutionConfig: EvolutionArgs,
}


def parse() -> Args:
    """Read the command line; which hyper-parameters there are, and their defaults, depends on the algorithm."""
    asked = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    asked.add_argument("--algo", default=DEFAULT_ALGORITHM)
    algo = asked.parse_known_args()[0].algo
    kind = KINDS[type(DEFAULTS[algo if algo in ALGORITHMS else DEFAULT_ALGORITHM])]
    first = tyro.cli(kind)
    # A search starts from the algorithm's defaults whatever an earlier one found: same command, same trials.
    config = DEFAULTS[first.algo] if first.tune else default_config(first.algo, Path(first.scenario).stem)
    return tyro.cli(kind, default=replace(kind(algo=first.algo), config=config))  # type: ignore[arg-type]


def main(args: Args) -> None:
    """Train, evaluate, write the run folder."""
    for name in ("episodes", "seeds", "jobs"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name} = {getattr(args, name)}: must be at least 1")
    for name in ("seed", "tune"):
        if getattr(args, name) < 0:
            raise ValueError(f"{name} = {getattr(args, name)}: must be at least 0")
    if (args.tune > 0) + (args.export is not None) + bool(args.resume) > 1:
        raise ValueError("tune, export, resume: must be at most one of them")
    check_backend(args.backend)
    # Bad input is refused above and here, before the slow imports and any work.
    if args.export is not None:
        return export(Path(args.export))
    if args.resume:
        folders = [Path(folder) for folder in args.resume]
        algo, scenario, config, constants, seed = read_config(folders[0])
        seeds = [seed]
        for folder in folders[1:]:
            *same, other = read_config(folder)
            if same != [algo, scenario, config, constants]:
                raise ValueError(
                    f"resume = {str(folder)!r}: must differ from {str(folders[0])!r} in its seed only"
                )
            seeds.append(other)
    else:
        scenario = resolve(args.scenario, args.elements, args.model)
        algo, config, seed = args.algo, args.config, args.seed
        constants = tuned_constants(scenario)
        seeds = [seed + i for i in range(args.seeds)]
        if args.tune:
            return tune(args, scenario, constants)
        folders = [run_folder(args, scenario.name, one) for one in seeds]
    console = new_console()
    opponents = [name for name in OPPONENTS if name != "best-static" or is_tuned(scenario)]
    if not is_tuned(scenario):
        console.print(untuned_line(scenario), highlight=False, soft_wrap=True)
    for line in describe_input(scenario):
        console.print(line)
    world = world_of(scenario)

    from agents import training
    from agents.models import Run
    from agents.saved import SavedPolicy

    runs = [Run(algo, scenario, config, constants, one) for one in seeds]
    if not args.resume:
        for run, folder in zip(runs, folders, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            write_config(folder, run, world.environment_id)
    else:
        done = ", ".join(str(training.steps_done(folder)) for folder in folders)
        console.print(f"resumed at step {done}")
    try:
        training.train_all(runs, folders, bool(args.resume), args.jobs, args.backend, console)
    except KeyboardInterrupt:
        console.print(f"interrupted; go on with: python train.py --resume {' '.join(map(str, folders))}")
    agents: list[Policy | Reference] = [
        SavedPolicy(folder / "model.zip", None if len(folders) == 1 else f"{algo}-{run.seed}")
        for run, folder in zip(runs, folders, strict=True)
        if (folder / "model.zip").is_file()
    ]
    for folder in folders:
        training.draw_curve(folder)
    show_and_write(
        console,
        lambda scenario: [*agents, *(make(opponent, scenario) for opponent in opponents)],
        [scenario],
        args.episodes,
        seed,
        folders[0] / "results.json",
    )


def tune(args: Args, scenario: Scenario, constants: Constants) -> None:
    """Search hyper-parameters on training windows; write those that beat the defaults."""
    install = "python -m pip install -c constraints.txt -e '.[train,tune]'"
    require_packages("tune", ("optuna",), install)
    if args.elements or args.model:
        raise ValueError(f"tune = {args.tune}: must be of a scenario as it is, without elements or model")
    console = new_console()
    for line in describe_input(scenario):
        console.print(line)

    from agents import tuning
    from agents.models import Run

    run = Run(args.algo, scenario, args.config, constants, args.seed)
    folder = Path(args.out) if args.out else Path("runs") / f"tune-{scenario.name}-{args.algo}-{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = tuning.tune(run, args.tune, folder, lambda line: console.print(line, highlight=False))
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on")
        return
    console.print(
        f"best J {found.j_s:.3f} s, defaults {found.default_j_s:.3f} s, on {args.config.dev_episodes} held-out "
        f"traces of training windows; {found.trials} trials, {found.pruned} of them pruned"
    )
    if found.config == args.config:
        console.print("the defaults stay")
    path = tuning.write_config(run, found, shlex.join(["python", "train.py", *sys.argv[1:]]))
    console.print(f"hyper-parameters: {path}")


def export(folder: Path) -> None:
    """Write the policy of a run folder as ONNX beside it, and say how it compares."""
    install = "python -m pip install -c constraints.txt -e '.[train,export]'"
    require_packages("export", ("onnx", "onnxruntime", "onnxscript"), install)
    _, scenario, *_ = read_config(folder)

    from agents import export as onnx

    found = onnx.export(folder / "model.zip", scenario, folder / "model.onnx")
    console = new_console()
    console.print(
        f"{folder / 'model.onnx'}: {(folder / 'model.onnx').stat().st_size / 1e3:.0f} kB", highlight=False
    )
    console.print(
        f"largest difference to the network {found.largest:.1e} on {found.observations} observations; "
        f"one takes {found.onnx_us:.0f} us with ONNX Runtime, {found.here_us:.0f} us here",
        highlight=False,
    )


def run_folder(args: Args, scenario: str, seed: int) -> Path:
    """Return the folder of one run."""
    if args.out is not None:
        return Path(args.out) if args.seeds == 1 else Path(args.out) / str(seed)
    algo = "" if args.algo == DEFAULT_ALGORITHM else f"-{args.algo}"
    return Path("runs") / f"{scenario}{algo}-{seed}"


def read_config(folder: Path) -> tuple[Algorithm, Scenario, Config, Constants, int]:
    """Return what a run folder was started with.

    Raises
    ------
    ValueError
        Not a run folder, or one of an algorithm that does not exist.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"resume, export = {str(folder)!r}: must be a run folder with a config.json")
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if saved.get("algo") not in ALGORITHMS:
        raise ValueError(f"algo = {saved.get('algo')!r}: must be one of {', '.join(ALGORITHMS)}")
    config = type(DEFAULTS[saved["algo"]])(**checked(saved["config"], saved["algo"]))
    constants = Constants(**saved["constants"])
    return saved["algo"], scenario_from_dict(saved["scenario"]), config, constants, saved["seed"]


def write_config(folder: Path, run: Run, environment_id: str | None) -> None:
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
