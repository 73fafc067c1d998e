"""Train a PPO agent and show it against the planners on test windows.

    python train.py
    python train.py --scenario WalkerOutage --elements iridium.tle --steps 4000
    python train.py --resume runs/WalkerOutage-0

Leaves a run folder: config.json, command.txt, model.zip, checkpoints, logs (CSV, TensorBoard), results.json.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from baselines import make
from sat_env.commands import describe_input, fail_cleanly, new_console, resolve, show_and_write
from sat_env.evaluation.runner import world_of
from sat_env.scenario import Scenario, scenario_from_dict

OPPONENTS = ("uniform", "ground-only", "single-satellite", "paper-astar", "static-astar", "replan-astar")


@dataclass(frozen=True)
class Args:
    """Train a PPO agent, then compare it with the planners."""

    scenario: str = "WalkerOutage"
    """Name of a scenario, or a TOML file."""
    elements: str | None = None
    """OMM (CSV, JSON, XML) or TLE file: puts the scenario on real satellites."""
    model: str | None = None
    """Model to split: vit-b, ..., llama-3.1-8b, or a Hugging Face style config.json."""
    steps: int = 400_000
    """Decisions to train on, over all worlds."""
    seed: int = 0
    """Seed of the training run."""
    episodes: int = 6
    """Test episodes of the table."""
    out: str | None = None
    """Run folder; default runs/SCENARIO-SEED."""
    resume: str | None = None
    """Run folder of an interrupted run: goes on from its checkpoint, with its configuration."""


def main(args: Args) -> None:
    """Train, evaluate, write the run folder."""
    for name in ("steps", "episodes"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name} = {getattr(args, name)}: must be at least 1")
    if args.seed < 0:
        raise ValueError(f"seed = {args.seed}: must be at least 0")
    # Bad input is refused above and in `resolve`, before the slow imports and any work.
    if args.resume is not None:
        folder = Path(args.resume)
        if not (folder / "config.json").is_file():
            raise ValueError(f"resume = {args.resume!r}: must be a run folder with a config.json")
        saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        scenario, seed, steps = scenario_from_dict(saved["scenario"]), saved["seed"], saved["steps"]
    else:
        scenario, seed, steps = resolve(args.scenario, args.elements, args.model), args.seed, args.steps
        folder = Path(args.out) if args.out else Path("runs") / f"{scenario.name}-{seed}"
    console = new_console()
    for line in describe_input(scenario):
        console.print(line)
    world = world_of(scenario)

    from agents import ppo
    from agents.saved import SavedPolicy

    config = ppo.PPOConfig()
    if args.resume is not None:
        model = ppo.load_checkpoint(folder, config, scenario, seed)
        console.print(f"resumed at step {model.num_timesteps}")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_config(folder, scenario, seed, steps, asdict(config), world.environment_id)
        model = ppo.new_model(config, scenario, seed)
    try:
        ppo.train(model, config, steps, folder)
    except KeyboardInterrupt:
        console.print(f"interrupted; go on with: python train.py --resume {folder}")
    ppo.save_policy(folder / "model.zip", model, config, scenario, seed)
    agent = SavedPolicy(folder / "model.zip")
    show_and_write(
        console,
        lambda name: [agent, *(make(opponent, name) for opponent in OPPONENTS)],
        [scenario],
        args.episodes,
        seed,
        folder / "results.json",
    )


def write_config(
    folder: Path, scenario: Scenario, seed: int, steps: int, ppo: dict[str, object], environment_id: str
) -> None:
    """Write what a run needs to be repeated or resumed."""
    config = {
        "environment_id": environment_id,
        "scenario_hash": scenario.hash(),
        "seed": seed,
        "steps": steps,
        "ppo": ppo,
        "scenario": scenario.to_dict(),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "command.txt").write_text(shlex.join(["python", *sys.argv]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    fail_cleanly(lambda: main(tyro.cli(Args)))
