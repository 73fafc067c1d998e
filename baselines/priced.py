"""The priced planner: exact A* whose objective also charges what a plan leaves to later jobs.

objective = predicted makespan, with
    loads spread over `horizon` epochs,
    + bottleneck * compute seconds of the busiest satellite,
    + downlink * seconds on the downlink,
    + energy * compute seconds, each satellite weighed by how empty its battery is,
    + risk * expected outage of every link on the way.

A job predicted to take longer than deadline / `decline` is declined: what is lost anyway delays no other.

It optimises each job exactly under these prices and ignores everything a constant price cannot say: what
the next jobs are, when the chain changes. With all constants tuned jointly on training windows it is the
honest opponent of every learned agent; `backlog` makes the bottleneck's price follow the backlog.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sat_env.plan import Plan
from sat_env.planning.costs import Prices
from sat_env.problem import Problems
from sat_env.scenario import Scenario
from sat_env.world import World

CONSTANTS_DIR = Path(__file__).parent / "constants"
HOW_TO_TUNE = "python -m baselines.tune --scenario FILE.toml (the world as a file, under a name of its own)"
MAX_S = sys.float_info.max


@dataclass(frozen=True)
class Constants:
    """Constants of the priced planner. The defaults price nothing and spread loads over 4 epochs."""

    horizon: float = 4.0  # epochs a load is spread over, at least 1
    bottleneck: float = 0.0  # seconds of makespan per compute second of the busiest satellite
    downlink: float = 0.0  # per second of the downlink
    energy: float = 0.0  # per compute second of a satellite with an empty battery
    risk: float = 0.0  # per expected second of outage
    decline: float = 0.0  # deadlines per predicted makespan from which a job is tried; 0: always
    backlog: float = 0.0  # growth of the bottleneck's price per epoch of mean backlog

    def __post_init__(self) -> None:
        if not self.horizon >= 1:
            raise ValueError(f"horizon = {self.horizon}: must be at least 1 epoch")
        for name in ("bottleneck", "downlink", "energy", "risk", "decline", "backlog"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 0")


def _tuned(scenario: Scenario) -> dict[str, Any]:
    """Return what `baselines.tune` found for this very scenario, by name and hash; empty where it was not run."""
    path = CONSTANTS_DIR / f"{scenario.name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if found.get("scenario_hash") == scenario.hash() else {}


def load_constants(scenario: Scenario, variant: str) -> Constants:
    """Return the constants tuned for a scenario, or the defaults where nothing was tuned.

    Parameters
    ----------
    variant : {"replan", "priced", "backlog"}
        Which family was tuned: only the horizon, all constant prices, or all with the backlog's slope.
    """
    found = _tuned(scenario)
    return Constants(**found[variant]["constants"]) if variant in found else Constants()


def is_tuned(scenario: Scenario) -> bool:
    """Tell whether `baselines.tune` was run for a scenario as it is."""
    return bool(_tuned(scenario))


def untuned_line(scenario: Scenario) -> str:
    """Return the line that says what planners do in a world that nothing was tuned for."""
    return (
        f"nothing is tuned for this {scenario.name} ({scenario.hash()}): prices are the defaults, there is no "
        f"best-static; {HOW_TO_TUNE} changes that"
    )


def load_static(scenario: Scenario) -> Plan:
    """Return the best static plan tuned for a scenario.

    Raises
    ------
    ValueError
        Nothing was tuned for it.
    """
    found = _tuned(scenario).get("static")
    if found is None:
        raise ValueError(
            f"agent = 'best-static': nothing is tuned for this {scenario.name} ({scenario.hash()}); must be of a "
            f"world after {HOW_TO_TUNE}"
        )
    return Plan(tuple(found["cuts"]), tuple(found["levels"]))


def longest_s(constants: Constants, world: World) -> float:
    """Return the predicted makespan above which a job is declined; finite, as that of a job without a plan is not."""
    return min(world.deadline_s / constants.decline, MAX_S) if constants.decline > 0.0 else MAX_S


def prices(constants: Constants, world: World, problems: Problems) -> Prices:
    """Return the prices of a batch of problems: every field has a leading axis (B,)."""
    worlds, slots = problems.busy_s.shape[0], problems.rate_bps.shape[1]
    backlog_epochs = problems.busy_s[:, :slots].mean(axis=1) / world.epoch_s
    emptiness = (1.0 - problems.charge) * (1.0 - 0.5 * problems.light_ahead)
    emptiness[:, slots] = 0.0
    hop_price = np.zeros_like(problems.rate_bps)
    hop_price[:, :, slots] = constants.downlink
    outages = world.outages
    outage_s = 0.0  # expected outage a link causes a job
    if outages.up_mean_s > 0:
        outage_s = min(outages.down_mean_s, world.deadline_s) * world.epoch_s / outages.up_mean_s
    return Prices(
        load_weight=np.full(worlds, 1.0 / constants.horizon),
        bottleneck=constants.bottleneck * (1.0 + constants.backlog * backlog_epochs),
        stage_price=constants.energy * emptiness,
        hop_price=hop_price,
        hop_fixed_s=constants.risk * outage_s * problems.route_hops,
    )
