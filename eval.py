"""Play agents and planners on the same test episodes and print the leaderboard.

python eval.py --list
python eval.py --agents paper-astar,replan-astar,runs/WalkerOutage-0/model.zip --scenarios WalkerOutage
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from baselines import NAMES, describe, make
from sat_env.commands import fail_cleanly, new_console, resolve, show_and_write
from sat_env.policy import Policy
from sat_env.scenario import scenario_names


@dataclass(frozen=True)
class Args:
    """Compare agents and planners on paired episodes."""

    agents: str = "paper-astar,static-astar,replan-astar,uniform,ground-only,single-satellite"
    """Names of planners (see --list) and policy files, separated by commas."""
    scenarios: str = "WalkerOutage"
    """Names of scenarios and TOML files, separated by commas."""
    elements: str | None = None
    """OMM or TLE file: puts every scenario on real satellites."""
    model: str | None = None
    """Model to split."""
    episodes: int = 6
    """Test episodes of each scenario; every agent plays the same ones."""
    seed: int = 0
    """Seed of the episodes."""
    out: str | None = None
    """Results file (JSON) to write."""
    list: bool = False
    """List planners and scenarios, and stop."""


def main(args: Args) -> None:
    """Evaluate and print."""
    console = new_console()
    if args.list:
        for name in NAMES:
            console.print(f"[bold]{name}[/bold]  {describe(name)}", highlight=False)
        console.print("scenarios: " + ", ".join(scenario_names()), highlight=False)
        return
    if args.episodes < 1:
        raise ValueError(f"episodes = {args.episodes}: must be at least 1")
    if args.seed < 0:
        raise ValueError(f"seed = {args.seed}: must be at least 0")
    out = Path(args.out) if args.out else None
    if out is not None and not out.parent.is_dir():
        raise ValueError(f"out = {args.out!r}: must be a path in an existing folder")
    scenarios = [resolve(name.strip(), args.elements, args.model) for name in args.scenarios.split(",")]
    agents = [name.strip() for name in args.agents.split(",")]

    def policies_for(scenario: str) -> list[Policy]:
        return [load(name, scenario) for name in agents]

    show_and_write(console, policies_for, scenarios, args.episodes, args.seed, out)


def load(agent: str, scenario: str) -> Policy:
    """Return a planner by name, or a saved policy by path."""
    if agent.endswith(".zip"):
        from agents.saved import SavedPolicy

        return SavedPolicy(Path(agent))
    return make(agent, scenario)


if __name__ == "__main__":
    fail_cleanly(lambda: main(tyro.cli(Args)))
