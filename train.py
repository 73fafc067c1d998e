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
import contextlib
import itertools
import json
import shlex
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    check_fits,
    checked,
    default_config,
)
from agents.packages import Backend, check_backend, require_packages
from agents.planner import tuned_constants
from baselines import make
from baselines.priced import Constants, is_tuned, untuned_line
from sat_env.commands import chosen, describe_input, fail_cleanly, new_console, resolve, show_and_write
from sat_env.evaluation.runner import Reference, world_of
from sat_env.policy import Policy
from sat_env.scenario import Scenario, refuse_shipped_name, scenario_from_dict

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
    """New folder (of several seeds OUT-SEED); default runs/SCENARIO[-ALGO]-SEED, or with the next free number."""
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

BESIDE: dict[str, tuple[str, ...]] = {
    "resume": ("backend", "episodes", "jobs"),
    "export": (),
    "tune": ("algo", "scenario", "seed", "out", "hyper-parameters"),
}
"""What may be given beside an option that does something else than a new run."""


def parse() -> Args:
    """Read the command line; hyper-parameters and their defaults depend on the algorithm and the scenario."""
    asked = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--algo", "--scenario", "--elements", "--model", "--tune"):
        asked.add_argument(option, nargs="?")  # a value that is missing is for tyro to say
    asked.add_argument("--resume", nargs="*")
    given = {name: value for name, value in vars(asked.parse_known_args()[0]).items() if value is not None}
    if given.pop("resume", None) == []:  # to tyro as good as not asked for
        raise ValueError("resume = []: must be a run folder, or several")
    if given.get("tune") == "0":
        del given["tune"]
    if given.setdefault("algo", DEFAULT_ALGORITHM) not in ALGORITHMS:
        tyro.cli(Args)  # says so
    return tyro.cli(KINDS[type(DEFAULTS[given["algo"]])], default=usual(replace(Args(), **given)))


def usual(args: Args) -> Args:
    """Return the defaults of all options, given algorithm and scenario."""
    # A search starts from the algorithm's defaults whatever an earlier one found: same command, same trials.
    config = DEFAULTS[args.algo]
    if not args.tune:
        config = default_config(args.algo, chosen(args.scenario, args.elements, args.model))
    return replace(KINDS[type(config)](algo=args.algo), config=config)  # type: ignore[arg-type]


def main(args: Args) -> None:
    """Train, evaluate, write the run folder."""
    for name in ("episodes", "seeds", "jobs"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name} = {getattr(args, name)}: must be at least 1")
    for name in ("seed", "tune"):
        if getattr(args, name) < 0:
            raise ValueError(f"{name} = {getattr(args, name)}: must be at least 0")
    if args.seed + args.seeds > 2**32:
        raise ValueError(f"seed = {args.seed}: must be below 2**32")
    if (args.tune > 0) + (args.export is not None) + bool(args.resume) > 1:
        raise ValueError("tune, export, resume: must be at most one of them")
    refuse_what_has_no_effect(args)
    check_backend(args.backend)
    # Bad input is refused above and here, before the slow imports and any work.
    if args.export is not None:
        return export(Path(args.export))
    if args.resume:
        folders = [Path(folder) for folder in args.resume]
        algo, scenario, config, constants, seed = read_config(folders[0], "resume")
        seeds = [seed]
        for folder in folders[1:]:
            *same, other = read_config(folder, "resume")
            if same != [algo, scenario, config, constants] or other in seeds:
                raise ValueError(
                    f"resume = {str(folder)!r}: must differ from {str(folders[0])!r} in its seed, and only there"
                )
            seeds.append(other)
    else:
        scenario = resolve(args.scenario, args.elements, args.model)
        algo, config, seed = args.algo, args.config, args.seed
        constants = tuned_constants(scenario)
        seeds = [seed + i for i in range(args.seeds)]
        if args.tune:
            return tune(args, scenario, constants)
        check_fits(algo, config)
        if args.out is not None:
            for one in seeds:
                check_new(out_folder(args.out, args.seeds, one))
        folders = []
    console = new_console()
    opponents = [name for name in OPPONENTS if name != "best-static" or is_tuned(scenario)]
    if not is_tuned(scenario):
        console.print(untuned_line(scenario), soft_wrap=True)
    for line in describe_input(scenario):
        console.print(line, soft_wrap=True)
    world = world_of(scenario)

    from agents import training
    from agents.models import Run
    from agents.saved import SavedPolicy

    runs = [Run(algo, scenario, config, constants, one) for one in seeds]
    if args.resume:
        done = ", ".join(str(training.steps_done(folder)) for folder in folders)
        console.print(f"resumed at step {done}")
    for run in runs[len(folders) :]:
        folders.append(make_folder(args, scenario.name, run.seed))
        write_config(folders[-1], run, world.environment_id)
    words = list(map(str, folders))
    console.print(f"run folder: {', '.join(words)}", soft_wrap=True)
    interrupted = False
    try:
        training.train_all(runs, folders, args.jobs, args.backend, console)
    except KeyboardInterrupt:
        interrupted = True
        command = shlex.join(["python", "train.py", "--resume", *words])
        console.print(f"interrupted; go on with: {command}", soft_wrap=True)
    agents: list[Policy | Reference] = [
        SavedPolicy(folder / "model.zip", None if len(folders) == 1 else f"{algo}-{run.seed}")
        for run, folder in zip(runs, folders, strict=True)
        if (folder / "model.zip").is_file()
    ]
    for folder in folders:
        if not (folder / "model.zip").is_file():
            console.print(
                f"{folder}: stopped before its first evaluation, so no weights are played", soft_wrap=True
            )
        training.draw_curve(folder)
    show_and_write(
        console,
        lambda scenario: [*agents, *(make(opponent, scenario) for opponent in opponents)],
        [scenario],
        args.episodes,
        seed,
        folders[0] / "results.json",
    )
    if interrupted:
        raise KeyboardInterrupt  # for the exit code


def tune(args: Args, scenario: Scenario, constants: Constants) -> None:
    """Search hyper-parameters on training windows; write those that beat the defaults."""
    install = "python -m pip install -c constraints.txt -e '.[train,tune]'"
    require_packages("tune", ("optuna",), install)
    folder = Path(args.out) if args.out else Path("runs") / f"tune-{scenario.name}-{args.algo}-{args.seed}"
    check_path(folder)
    refuse_shipped_name(scenario, "hyper-parameters")
    console = new_console()
    for line in describe_input(scenario):
        console.print(line, soft_wrap=True)

    from agents import tuning
    from agents.models import Run

    run = Run(args.algo, scenario, args.config, constants, args.seed)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = tuning.tune(run, args.tune, folder, console.print)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on")
        return
    console.print(
        f"best J {found.j_s:.3f} s, defaults {found.default_j_s:.3f} s, on {args.config.dev_episodes} held-out "
        f"traces of training windows; {found.trials} trials, {found.pruned} of them pruned"
    )
    if found.config == args.config:
        console.print("nothing beats the defaults")
    path = tuning.write_config(run, found, shlex.join(["python", "train.py", *sys.argv[1:]]))
    console.print(f"hyper-parameters: {path}", soft_wrap=True)


def export(folder: Path) -> None:
    """Write the policy of a run folder as ONNX beside it, and say how it compares."""
    _, scenario, *_ = read_config(folder, "export")
    install = "python -m pip install -c constraints.txt -e '.[train,export]'"
    require_packages("export", ("onnx", "onnxruntime", "onnxscript"), install)

    from agents import export as onnx

    found = onnx.export(folder / "model.zip", scenario, folder / "model.onnx")
    console = new_console()
    console.print(
        f"{folder / 'model.onnx'}: {(folder / 'model.onnx').stat().st_size / 1e3:.0f} kB", soft_wrap=True
    )
    console.print(
        f"largest difference to the network {found.largest:.1e} on {found.observations} observations; "
        f"one takes {found.onnx_us:.0f} us with ONNX Runtime, {found.here_us:.0f} us here"
    )


def refuse_what_has_no_effect(args: Args) -> None:
    """Refuse options that --resume, --export or --tune would ignore, where they differ from their defaults."""
    given, default = values_of(args), {**values_of(usual(args)), "algo": DEFAULT_ALGORITHM}
    for option, kept in BESIDE.items():
        if given[option] == default[option]:
            continue
        vain = [
            name
            for name in given
            if given[name] != default[name] and name not in (option, *kept)
            if name not in vars(args.config) or "hyper-parameters" not in kept
        ]
        if vain:
            raise ValueError(
                f"{', '.join(vain)} = {', '.join(repr(given[name]) for name in vain)}: must not be given with "
                f"--{option}, beside which {', '.join(kept) or 'nothing'} may be given"
            )


def values_of(args: Args) -> dict[str, Any]:
    """Return the values of all options by name, hyper-parameters among them."""
    values = {**vars(args), **vars(args.config)}
    del values["config"]
    return values


def out_folder(out: str, seeds: int, seed: int) -> Path:
    """Return the folder that was asked for, of one of several seeds OUT-SEED."""
    return Path(out if seeds == 1 else f"{out}-{seed}")


def make_folder(args: Args, scenario: str, seed: int) -> Path:
    """Make the folder of one run; by default the first of runs/SCENARIO-SEED, ...-2, ...-3 that is not there."""
    if args.out is not None:
        folder = out_folder(args.out, args.seeds, seed)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    algo = "" if args.algo == DEFAULT_ALGORITHM else f"-{args.algo}"
    for number in itertools.count(1):
        again = "" if number == 1 else f"-{number}"
        folder = Path("runs") / f"{scenario}{algo}-{seed}{again}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder


def check_path(folder: Path) -> None:
    """Refuse a folder where a file is."""
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"out = {str(folder)!r}: must be a folder, but {str(path)!r} is a file")


def check_new(folder: Path) -> None:
    """Refuse a folder that holds anything: nothing of an old run shall lie beside a new one."""
    check_path(folder)
    if (folder / "config.json").is_file():
        raise ValueError(
            f"out = {str(folder)!r}: holds a run already; must be another folder, "
            f"or go on with: {shlex.join(['python', 'train.py', '--resume', str(folder)])}"
        )
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"out = {str(folder)!r}: must be a new or empty folder")


def read_config(folder: Path, option: str) -> tuple[Algorithm, Scenario, Config, Constants, int]:
    """Return what a run folder was started with.

    Raises
    ------
    ValueError
        Not a run folder, one whose config.json train.py did not write, or, to resume, one of a world that is
        another by now: of newer elements, say.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{option} = {str(folder)!r}: must be a run folder with a config.json")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        algorithm, seed = saved["algo"], saved["seed"]
        if algorithm not in ALGORITHMS:
            raise ValueError(f"algo = {algorithm!r}, must be one of {', '.join(ALGORITHMS)}")
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed = {seed!r}, must be an integer, at least 0")
        config = type(DEFAULTS[algorithm])(**checked(saved["config"], algorithm))
        scenario, constants = scenario_from_dict(saved["scenario"]), Constants(**saved["constants"])
        begun_in, now = saved["scenario_hash"], scenario.hash()
    except KeyError as error:
        reason = f"{error} is missing"
    except (AttributeError, TypeError, ValueError) as error:  # among them what is no JSON
        reason = str(error)
    else:
        if option == "resume" and begun_in != now:
            raise ValueError(
                f"resume = {str(folder)!r}: its files make {scenario.name} another world ({now}) than it was "
                f"begun in; must be as they were ({begun_in})"
            )
        return algorithm, scenario, config, constants, seed
    raise ValueError(f"{option} = {str(folder)!r}: config.json must be as train.py wrote it ({reason})")


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
