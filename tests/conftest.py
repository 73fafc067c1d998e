"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sat_env.scenario import Scenario, load_scenario
from sat_env.simulator import Simulator, Split
from sat_env.world import Prepared, prepare

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of external data, used for checks only and never shipped; skips where it is absent."""
    candidates = [ROOT / "../shared/data", ROOT / "../../shared/data"]
    if "SAT_ENV_SHARED_DATA" in os.environ:
        candidates.insert(0, Path(os.environ["SAT_ENV_SHARED_DATA"]))
    for folder in candidates:
        if folder.is_dir():
            return folder
    pytest.skip("external data (../shared/data) is absent")


@pytest.fixture(scope="session")
def outage() -> Prepared:
    """The flagship scenario, prepared."""
    return prepare(load_scenario("WalkerOutage"))


def small(scenario: Scenario, **changes: object) -> Scenario:
    """Return a short variant of a scenario: five windows of 20 epochs."""
    return scenario.replace(**{"episode_epochs": 20, "windows": 5, **changes})


def calm() -> Prepared:
    """Return a short Rush in which nothing is left to chance."""
    changes = {"ground.fade_sigma": 0.0, "jobs.burst": 0.0, "jobs.content_sigma": 0.0}
    return prepare(small(load_scenario("WalkerRush"), **changes, **{"energy.initial_charge": (0.8, 0.8)}))


def simulator(prepared: Prepared, worlds: int = 1, seed: int = 0, split: Split = "train") -> Simulator:
    """Return a simulator at the start of an episode; world i has seed + i."""
    found = Simulator(prepared, worlds, split)
    found.begin(seeds=np.arange(seed, seed + worlds, dtype=np.uint64))
    return found


def random_plans(sim: Simulator, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a random plan for every world (the ground holds nothing)."""
    cuts = np.sort(rng.integers(0, sim.blocks + 1, (sim.worlds, sim.slots)), axis=1)
    cuts[:, -1] = sim.blocks
    return cuts, rng.integers(0, sim.levels, (sim.worlds, sim.slots))
