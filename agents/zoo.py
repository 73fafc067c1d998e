"""Trained agents that ship: one small policy file a scenario and algorithm, each with the command that trains it.

    python -m agents.zoo runs/study/WalkerRush-prices-*
    python eval.py --agents zoo:prices,priced --scenarios WalkerRush,WalkerHarsh

Of several runs of a scenario and an algorithm the one with the best J on development windows is kept.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sat_env.commands import fail_cleanly
from sat_env.scenario import load_scenario, scenario_names

if TYPE_CHECKING:
    from agents.saved import Card

ZOO_DIR = Path(__file__).parent / "zoo"
MOST_BYTES = 2_000_000  # of all files together


@dataclass(frozen=True)
class Args:
    """Copy the best policies of run folders into the zoo."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run folders of train.py or agents.study."""
    out: str = str(ZOO_DIR)
    """Folder of the zoo."""


def main(args: Args) -> None:
    """Choose, check, copy, and list what the zoo holds."""
    from agents.saved import read_card
    from agents.training import EVALUATIONS, read_evaluations

    best: dict[str, tuple[float, Path]] = {}
    for run in map(Path, args.runs):
        card = read_card(run / "model.zip")
        check(run, card)
        j_s = min(row["j_s"] for row in read_evaluations(run / EVALUATIONS))
        key = file_name(card.scenario, card.algorithm)
        if key not in best or j_s < best[key][0]:
            best[key] = (j_s, run / "model.zip")
    out = Path(args.out)
    stay = {path.name: path.stat().st_size for path in out.glob("*.zip")}
    total = sum({**stay, **{key: path.stat().st_size for key, (_, path) in best.items()}}.values())
    if total > MOST_BYTES:
        raise ValueError(f"zoo = {total} bytes in all: must be at most {MOST_BYTES}")
    out.mkdir(exist_ok=True)
    for key, (_, path) in best.items():
        if (out / key).is_file() and (out / key).read_bytes() != path.read_bytes():
            print(f"{key}: replaced by {path}; their J on development windows were not compared")
        shutil.copyfile(path, out / key)
    for path in sorted(out.glob("*.zip")):
        card = read_card(path)
        print(f"{path.name} ({path.stat().st_size / 1e3:.0f} kB, world {card.scenario_hash}): {card.command}")


def check(run: Path, card: Card) -> None:
    """Refuse a run that cannot be repeated by the command in its card."""
    if card.scenario not in scenario_names() or load_scenario(card.scenario).hash() != card.scenario_hash:
        raise ValueError(
            f"runs = {str(run)!r}: trained on {card.scenario} ({card.scenario_hash}); "
            "must be a scenario that ships, as it is now"
        )
    if not card.command or not (run / "evaluations.csv").is_file():
        raise ValueError(f"runs = {str(run)!r}: must hold a policy with its command, and evaluations.csv")


def file_name(scenario: str, algorithm: str) -> str:
    """Return the name of a policy file of the zoo."""
    return f"{scenario}-{algorithm}.zip"


def listed() -> list[str]:
    """Return the names of the policies the zoo holds, without their ending."""
    return sorted(path.stem for path in ZOO_DIR.glob("*.zip"))


def find(algorithm: str, scenario: str) -> Path:
    """Return the policy file of an algorithm trained on a scenario.

    Raises
    ------
    ValueError
        The zoo holds none.
    """
    path = ZOO_DIR / file_name(scenario, algorithm)
    if not path.is_file():
        held = ", ".join(listed()) or "nothing"
        raise ValueError(f"agent = 'zoo:{algorithm}': none for {scenario}; the zoo holds {held}")
    return path


if __name__ == "__main__":
    fail_cleanly(lambda: main(tyro.cli(Args)))
