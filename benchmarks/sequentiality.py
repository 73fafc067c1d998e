"""Where decisions last: static, re-planned, priced, look-ahead and clairvoyant schedules in J, per scenario.

python benchmarks/sequentiality.py --json            # every scenario; minutes
python benchmarks/sequentiality.py --json --quick    # two scenarios, few episodes
python benchmarks/sequentiality.py --sweep outages   # one mechanism at a time (see SWEEPS)

Everything is measured on test windows with fresh seeds; what is tuned was tuned on training windows. Ratios
are of mean J; their intervals are paired bootstrap intervals of the difference over the mean J below the line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is loaded

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from baselines import uniform
from baselines.batch import fixed_plans, play, priced_plans
from baselines.branches import menu
from baselines.clairvoyant import Clairvoyant
from baselines.lookahead import LookAhead
from baselines.priced import Constants, load_constants, load_static
from baselines.registry import on_costs
from baselines.schedule import EveryEpoch, Static
from baselines.tune import GRID, best_static
from sat_env.evaluation.runner import Reference, episodes, run_episode
from sat_env.evaluation.statistics import Interval, mean_interval, paired_difference
from sat_env.plan import Plan
from sat_env.policy import Policy
from sat_env.scenario import Scenario, load_scenario, scenario_names
from sat_env.world import prepare

QUICK = ("WalkerOutage", "WalkerRush")
SEED = 1000
ROLES = ("uniform", "static", "every_epoch", "priced", "backlog", "lookahead", "one_job", "clairvoyant")
ROLLING = ("uniform", "lookahead", "one_job", "clairvoyant")  # policies, played one episode at a time

Variant = tuple[str, dict[str, object]]
SWEEPS: dict[str, tuple[str, tuple[Variant, ...]]] = {
    "outages": (
        "WalkerOutage",
        (
            ("none", {"faults.link_up_mean_s": 0.0}),
            ("up 8751 s", {"faults.link_up_mean_s": 8751.0}),
            ("up 2917 s (as is)", {}),
            ("up 972 s", {"faults.link_up_mean_s": 972.0}),
            ("tail 0", {"faults.link_tail_share": 0.0}),
            ("tail 2 %", {"faults.link_tail_share": 0.02}),
            ("tail 10 %", {"faults.link_tail_share": 0.1}),
        ),
    ),
    "mesh": (
        "WalkerOutage",
        (
            ("line", {"links.terminals": 2, "chain.rule": "line"}),
            ("ladder (as is)", {}),
            ("+Grid", {"links.terminals": 4}),
            ("ladder, backup", {"links.backup": True}),
            ("+Grid, backup", {"links.terminals": 4, "links.backup": True}),
        ),
    ),
    "clock": (
        "WalkerOutage",
        (
            ("epoch 10 s", {"epoch_s": 10.0, "episode_epochs": 300}),
            ("epoch 40 s", {"epoch_s": 40.0, "episode_epochs": 75}),
            ("deadline 20 s", {"jobs.deadline_s": 20.0}),
            ("deadline 180 s", {"jobs.deadline_s": 180.0}),
            ("storage 0.2 GB/s", {"payload.storage_bytes_per_s": 0.2e9}),
            ("weights from a neighbour", {"payload.weight_source": "neighbour"}),
        ),
    ),
    "load": (
        "WalkerRush",
        tuple(
            (f"{items:.0f} images, {rate / 1e6:.0f} Mbit/s", {"jobs.items": items, "ground.rate_bps": rate})
            for items in (400.0, 600.0, 800.0, 1000.0)
            for rate in (10e6, 20e6, 50e6)
        ),
    ),
    "battery": (
        "WalkerEclipse",
        tuple(
            (f"{items:.0f} images, {battery:.0f} Wh", {"jobs.items": items, "energy.battery_wh": battery})
            for items in (500.0, 650.0, 750.0)
            for battery in (20.0, 40.0, 80.0)
        ),
    ),
}


@dataclass(frozen=True)
class Schedules:
    """What is tuned of a scenario."""

    replan: Constants
    priced: Constants
    backlog: Constants
    static: Plan


@dataclass(frozen=True)
class Task:
    """One role on the test episodes of one scenario (or variant of one)."""

    label: str
    scenario: Scenario
    role: str
    episodes: int
    seed: int
    schedules: Schedules


Played = tuple[str, str, NDArray[np.float64], NDArray[np.float64]]  # label, role, J and drop share by episode


def tuned(name: str) -> Schedules:
    """Return what `baselines.tune` found for a named scenario."""
    scenario = load_scenario(name)
    found = {variant: load_constants(scenario, variant) for variant in ("replan", "priced", "backlog")}
    return Schedules(static=load_static(scenario), **found)


def tuned_anew(scenario: Scenario, count: int) -> Schedules:
    """Tune a variant in short, on its own training windows: from a menu of prices, and the static plan in full.

    The prices tuned for the scenario it is a variant of, and prices of nothing, are on the menu.
    """
    base = tuned(scenario.name)
    prepared, training = prepare(scenario), episodes(scenario, "train", count, 0)

    def j_s(constants: Constants) -> float:
        return float(play(prepared, training, "train", priced_plans(constants, prepared)).j_s.mean())

    replan = min((Constants(horizon=h) for h in GRID["horizon"][::2]), key=j_s)
    priced = min(menu((replan, base.priced, base.backlog)), key=j_s)
    return Schedules(replan, priced, priced, best_static(prepared, training, 150)[0])


def without_outages(scenario: Scenario) -> Scenario:
    """Return the scenario with link outages switched off: every other draw stays as it is."""
    return scenario.replace(**{"faults.link_up_mean_s": 0.0, "faults.outage_log": ""})


def run(task: Task) -> Played:
    """Play one role."""
    prepared = prepare(task.scenario)
    chosen = episodes(task.scenario, "test", task.episodes, task.seed)
    if task.role in ROLLING:
        policy = rolling_policy(task.role, task.schedules)
        rows = [run_episode(policy, prepared, episode, "test") for episode in chosen]
        return task.label, task.role, np.array([r.j_s for r in rows]), np.array([r.drop_share for r in rows])
    plans = task.schedules
    if task.role == "static":
        decide = fixed_plans(plans.static.cuts, plans.static.levels)
    else:
        constants = {"every_epoch": plans.replan, "priced": plans.priced, "backlog": plans.backlog}[task.role]
        decide = priced_plans(constants, prepared)
    played = play(prepared, chosen, "test", decide)
    return task.label, task.role, played.j_s, played.drop_share


def rolling_policy(role: str, plans: Schedules) -> Policy | Reference:
    """Return a role that is no batched schedule."""
    if role == "uniform":
        return EveryEpoch(role, on_costs(uniform.plan))
    prices = (plans.priced, plans.backlog, plans.replan)
    lookahead = LookAhead("lookahead", prices, (plans.static,))
    if role == "lookahead":
        return lookahead
    competitors = (Static("static", lambda problem: plans.static), lookahead)
    return Clairvoyant(role, prices, competitors, 1 if role == "one_job" else 8)


def ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> Interval:
    """Return mean(a) / mean(b) on the same episodes (the first of the longer one), with its interval."""
    n = min(len(a), len(b))
    difference = paired_difference(a[:n], b[:n])
    return Interval(*(1 + value / float(b[:n].mean()) for value in difference))


def measure(tasks: list[Task], jobs: int) -> dict[str, dict[str, Played]]:
    """Run all tasks; the long ones first. Returns by label and role."""
    tasks = sorted(tasks, key=lambda task: -ROLES.index(task.role))
    results = Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(run)(task) for task in tasks)
    by_label: dict[str, dict[str, Played]] = {}
    for played in tqdm(results, total=len(tasks), file=sys.stderr):
        by_label.setdefault(played[0], {})[played[1]] = played
    for found in by_label.values():
        if "clairvoyant" in found:
            found["clairvoyant"] = best_known(found)
    return by_label


def best_known(found: dict[str, Played]) -> Played:
    """Return, for each episode, the best schedule of all roles: who knows the trace may follow any of them.

    Eight epochs do not see the next eclipse, so the rolling clairvoyant alone can lose to constant prices.
    """
    count = len(found["clairvoyant"][2])
    j_s = np.array([played[2][:count] for played in found.values() if len(played[2]) >= count])
    drops = np.array([played[3][:count] for played in found.values() if len(played[2]) >= count])
    best = j_s.argmin(axis=0), np.arange(count)
    return found["clairvoyant"][0], "clairvoyant", j_s[best], drops[best]


def figures(found: dict[str, Played], calm: dict[str, Played] | None) -> dict[str, object]:
    """Return the ratios of one scenario, each as [mean, low, high]."""
    j = {role: played[2] for role, played in found.items()}
    keys = {
        "static_over_priced": ("static", "priced"),
        "every_epoch_over_priced": ("every_epoch", "priced"),
        "backlog_over_priced": ("backlog", "priced"),
        "priced_over_lookahead": ("priced", "lookahead"),
        "priced_over_one_job": ("priced", "one_job"),
        "priced_over_clairvoyant": ("priced", "clairvoyant"),
    }
    result: dict[str, object] = {
        key: [round(value, 4) for value in ratio(j[a], j[b])]
        for key, (a, b) in keys.items()
        if a in j and b in j
    }
    result["static_drop_share"] = [round(value, 4) for value in mean_interval(found["static"][3])]
    quiet = calm if calm is not None else found
    result["gap_without_outages"] = [
        round(value - 1, 4) for value in ratio(quiet["static"][2], quiet["priced"][2])
    ]
    return result


def table(by_label: dict[str, dict[str, Played]], title: str) -> str:
    """Return a Markdown table: J with its interval, and the drop share in percent."""
    roles = [role for role in ROLES if any(role in found for found in by_label.values())]
    lines = [f"| {title} | " + " | ".join(roles) + " |", "|---" * (len(roles) + 1) + "|"]
    for label, found in by_label.items():
        cells = []
        for role in roles:
            mean, low, high = mean_interval(found[role][2])
            cells.append(f"{mean:.2f} [{low:.2f}, {high:.2f}] / {100 * found[role][3].mean():.1f}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def study(names: list[str], count: int, rolling: int, jobs: int) -> dict[str, dict[str, object]]:
    """Measure the named scenarios, print the table, return the figures."""
    scenarios = {name: load_scenario(name) for name in names}
    schedules = {name: tuned(name) for name in names}
    tasks = [
        Task(name, scenario, role, rolling if role in ROLLING else count, SEED, schedules[name])
        for name, scenario in scenarios.items()
        for role in ROLES
    ]
    calm_tasks = []
    for name, scenario in scenarios.items():
        if scenario.faults.link_up_mean_s > 0:
            calm = without_outages(scenario)
            prepared = prepare(calm)
            training = episodes(calm, "train", 8, 0)
            static = best_static(prepared, training, 150)[0]
            kept = schedules[name]
            plans = Schedules(kept.replan, kept.priced, kept.backlog, static)
            calm_tasks += [Task(name, calm, role, count, SEED, plans) for role in ("static", "priced")]
    by_label = measure(tasks, jobs)
    calm_found = measure(calm_tasks, jobs) if calm_tasks else {}
    by_label = {name: by_label[name] for name in names}
    print(table(by_label, "J in s [95 %] / drops in %"), file=sys.stderr)
    return {name: figures(found, calm_found.get(name)) for name, found in by_label.items()}


def sweep(name: str, count: int, rolling: int, jobs: int) -> dict[str, dict[str, object]]:
    """Measure the variants of a sweep, print the table, return the figures."""
    base, variants = SWEEPS[name]
    scenarios = {label: load_scenario(base).replace(**changes) for label, changes in variants}
    fitted = Parallel(n_jobs=jobs)(delayed(tuned_anew)(scenario, 6) for scenario in scenarios.values())
    roles = ["static", "every_epoch", "priced"] + (["clairvoyant"] if rolling else [])
    tasks = [
        Task(label, scenario, role, rolling if role in ROLLING else count, SEED, plans)
        for (label, scenario), plans in zip(scenarios.items(), fitted, strict=True)
        for role in roles
    ]
    by_label = measure(tasks, jobs)
    by_label = {label: by_label[label] for label in scenarios}
    print(table(by_label, f"{base}: J in s [95 %] / drops in %"), file=sys.stderr)
    return {label: figures(found, None) for label, found in by_label.items()}


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)} with few episodes")
    parser.add_argument("--scenarios", help="names, separated by commas; default all")
    parser.add_argument("--sweep", choices=sorted(SWEEPS), help="vary one mechanism")
    parser.add_argument("--episodes", type=int, default=24, help="test episodes of the batched schedules")
    parser.add_argument("--rolling", type=int, default=6, help="test episodes of look-ahead and references")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    if args.quick:
        args.episodes, args.rolling = 4, 2
    for name, least in (("episodes", 2), ("rolling", 0 if args.sweep else 2), ("jobs", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name} {getattr(args, name)}: must be at least {least}")
    if args.sweep:
        result = sweep(args.sweep, args.episodes, args.rolling, args.jobs)
    else:
        names = (
            args.scenarios.split(",") if args.scenarios else list(QUICK if args.quick else scenario_names())
        )
        result = study(names, args.episodes, args.rolling, args.jobs)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        for label, keys in result.items():
            print(label, *(f"{key} {value}" for key, value in keys.items()), sep="\n  ")


if __name__ == "__main__":
    main()
