"""Play agents and planners on the same test episodes and print the leaderboard.

python eval.py --list
python eval.py --agents paper-astar,replan-astar,runs/WalkerOutage-0/model.zip --scenarios WalkerOutage
python eval.py --agents zoo:prices,priced --scenarios WalkerRush,WalkerHarsh
"""

from __future__ import annotations

import importlib
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from agents import zoo
from baselines import NAMES, describe, make
from baselines.priced import is_tuned, untuned_line
from sat_env.commands import describe_input, fail_cleanly, file_to_write, new_console, resolve, show_and_write
from sat_env.evaluation.runner import Reference
from sat_env.policy import Policy
from sat_env.scenario import Scenario, scenario_names, ships
from sat_env.world import prepare


@dataclass(frozen=True)
class Args:
    """Compare agents and planners on paired episodes."""

    agents: str = "paper-astar,static-astar,replan-astar,uniform,ground-only,single-satellite"
    """Names of planners (see --list), policy files, zoo:ALGORITHM, and classes of yours (module:Class), by commas."""
    scenarios: str = "WalkerOutage"
    """Names of scenarios and TOML files, separated by commas."""
    elements: str | None = None
    """OMM or TLE file: puts every scenario on real satellites."""
    model: str | None = None
    """Model to split: vit-b, ..., llama-3.1-8b, or a Hugging Face style config.json."""
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
            console.print(f"[bold]{name}[/bold]  {describe(name)}", markup=True)
        console.print("scenarios: " + ", ".join(scenario_names()))
        console.print("zoo: " + (", ".join(zoo.listed()) or "empty"))
        return
    if args.episodes < 1:
        raise ValueError(f"episodes = {args.episodes}: must be at least 1")
    if args.seed < 0:
        raise ValueError(f"seed = {args.seed}: must be at least 0")
    out = None if args.out is None else file_to_write(args.out)
    scenarios = [resolve(name.strip(), args.elements, args.model) for name in args.scenarios.split(",")]
    agents = [name.strip() for name in args.agents.split(",")]

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    for scenario in scenarios:
        if not ships(scenario):
            for line in describe_input(scenario):
                say(line)
        if not is_tuned(scenario) and any(name in NAMES for name in agents):
            say(untuned_line(scenario))

    def policies_for(scenario: Scenario) -> list[Policy]:
        policies = [load(name, scenario) for name in agents]
        for policy in policies:
            card = getattr(policy, "card", None)
            if card is not None:
                policy.interface(prepare(scenario).world, scenario.forecast_epochs)  # type: ignore[attr-defined]
            if card is not None and card.scenario_hash != scenario.hash():
                say(
                    f"{policy.name} was trained on {card.scenario} ({card.scenario_hash}), "
                    f"not on this {scenario.name} ({scenario.hash()})"
                )
        return policies

    show_and_write(console, policies_for, scenarios, args.episodes, args.seed, out)


def load(agent: str, scenario: Scenario) -> Policy:
    """Return a planner by name, a saved policy by path or from the zoo, or a policy class of yours as module:Class.

    Raises
    ------
    ValueError
        Unknown name, a file that is no policy, or a module or class that cannot be found.
    """
    if agent.startswith("zoo:"):
        from agents.saved import SavedPolicy

        return SavedPolicy(zoo.find(agent.removeprefix("zoo:"), scenario.name), agent)
    if agent.endswith(".zip"):
        from agents.saved import SavedPolicy

        path = Path(agent)
        policy = SavedPolicy(path)
        if path.stem == "model":
            policy.name = f"{policy.name} ({path.resolve().parent.name})"
        return policy
    if ":" in agent:
        return load_class(agent)
    return make(agent, scenario)


def load_class(agent: str) -> Policy:
    """Return an instance of ``module:Class``, found from the current folder."""
    module_name, _, class_name = agent.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise ValueError(f"agent = {agent!r}: must be module:Class")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):  # what the module imports: with its traceback
            raise
        raise ValueError(f"agent = {agent!r}: must name an importable module ({error})") from None
    kind = getattr(module, class_name, None)
    if not isinstance(kind, type):
        raise ValueError(f"agent = {agent!r}: must name a class of {module_name}")
    try:
        inspect.signature(kind).bind()
    except TypeError as error:
        raise ValueError(f"agent = {agent!r}: must be a class made without arguments ({error})") from None
    policy: Policy = kind()
    for member in ("name", "reset", "act"):
        if not hasattr(policy, member):
            raise ValueError(f"agent = {agent!r}: must have {member} (see sat_env/policy.py)")
    if not isinstance(policy.name, str) or not policy.name.strip():
        raise ValueError(f"agent = {agent!r}, name = {policy.name!r}: must be text that is not empty")
    if isinstance(policy, Reference):
        raise ValueError(f"agent = {agent!r}: must not be a reference, which sees the future")
    return policy


if __name__ == "__main__":
    fail_cleanly(lambda: main(tyro.cli(Args)))
