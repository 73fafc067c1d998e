"""The one way to evaluate: every policy meets the same episodes through the same protocol."""

from __future__ import annotations

import hashlib
import reprlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sat_env.evaluation.metrics import EpisodeMetrics, episode_metrics
from sat_env.evaluation.results import Row, World
from sat_env.plan import Ints, Plan
from sat_env.policy import Policy, PolicySpec
from sat_env.scenario import Scenario, ships
from sat_env.simulator import NO_PLAN, Simulator, Split, split_windows
from sat_env.world import Prepared, prepare


@runtime_checkable
class Reference(Protocol):
    """Decides with the future at hand: a yardstick, not a competitor. It is handed the simulator itself."""

    name: str

    def reset(self, spec: PolicySpec, seed: int) -> None:
        """Begin an episode."""

    def act_knowing(self, simulator: Simulator) -> Plan:
        """Return the plan of this epoch's job; the simulator, of one world, must not be changed."""


@dataclass(frozen=True)
class Episode:
    """Which episode: a window and the seed of its trace."""

    index: int
    window: int
    seed: int


def episodes(scenario: Scenario, split: Split, count: int, seed: int) -> list[Episode]:
    """Return `count` episodes of a split: its windows in turn, the seed of each derived from split and `seed`.

    Raises
    ------
    ValueError
        `count` below 1 or `seed` below 0.
    """
    if count < 1:
        raise ValueError(f"episodes = {count}: must be at least 1")
    if seed < 0:
        raise ValueError(f"seed = {seed}: must be at least 0")
    windows = split_windows(scenario.windows, split)
    # What was tuned on the arrivals and outages of a training trace must not meet them again in another window.
    purpose = "episode" if split == "train" else f"{split} episode"
    return [Episode(i, windows[i % len(windows)], _derive(seed, purpose, i)) for i in range(count)]


def run_episode(
    policy: Policy | Reference, prepared: Prepared, episode: Episode, split: Split
) -> EpisodeMetrics:
    """Play one episode with one policy and return what it cost."""
    simulator = Simulator(prepared, 1, split)
    simulator.begin(seeds=np.array([episode.seed], np.uint64), windows=np.array([episode.window], np.int64))
    scenario = prepared.scenario
    spec = PolicySpec(
        scenario.name, simulator.slots, simulator.blocks, simulator.levels, scenario.episode_epochs
    )
    policy.reset(spec, _derive(episode.seed, f"policy {policy.name}", 0))
    jobs = scenario.episode_epochs
    columns = {
        name: np.zeros(jobs) for name in ("latency", "dropped", "loss", "bytes", "joules", "loads", "ms")
    }
    for t in range(jobs):
        problem = simulator.problem()
        started = time.process_time_ns()
        plan = policy.act_knowing(simulator) if isinstance(policy, Reference) else policy.act(problem)
        columns["ms"][t] = (time.process_time_ns() - started) * 1e-6
        cuts, levels = _checked(plan, policy.name, t, simulator)
        simulator.step(cuts[None], levels[None])
        outcome = simulator.outcome
        columns["latency"][t] = outcome.latency_s[0]
        columns["dropped"][t] = max(outcome.dropped[0], outcome.infeasible[0])
        columns["loss"][t] = outcome.accuracy_drop[0]
        columns["bytes"][t] = outcome.bytes[0]
        columns["joules"][t] = outcome.energy_j[0]
        columns["loads"][t] = outcome.reload_bytes[0]
    return episode_metrics(
        latency_s=columns["latency"],
        deadline_s=np.full(jobs, scenario.jobs.deadline_s),
        dropped=columns["dropped"] > 0,
        accuracy_drop=columns["loss"],
        sent_bytes=columns["bytes"],
        energy_j=columns["joules"],
        reload_bytes=columns["loads"],
        decision_ms=columns["ms"],
        accuracy_limit=scenario.model.max_accuracy_drop * (1 + 1e-9),
    )


def _checked(plan: object, name: str, epoch: int, simulator: Simulator) -> tuple[Ints, Ints]:
    """Return the arrays of what a policy returned; refuse what is no plan of the simulator's worlds."""
    if plan is None:
        return np.full(simulator.slots, NO_PLAN), np.zeros(simulator.slots, np.int64)
    if not isinstance(plan, Plan):
        raise ValueError(
            f"policy {name!r}, epoch {epoch}: act returned {reprlib.repr(plan)}; must be a Plan or None"
        )
    try:
        plan.check(simulator.slots, simulator.blocks, simulator.levels)
    except ValueError as error:
        raise ValueError(f"policy {name!r}, epoch {epoch}: {error}") from None
    return plan.arrays()


def evaluate(
    policies: Iterable[Policy | Reference],
    scenario: Scenario,
    count: int,
    seed: int,
    split: Split = "test",
) -> Iterator[Row]:
    """Play the same `count` episodes with every policy; yield a row as each ends."""
    prepared = prepare(scenario)
    for policy in policies:
        for episode in episodes(scenario, split, count, seed):
            metrics = run_episode(policy, prepared, episode, split)
            yield Row(policy.name, scenario.name, seed, episode.index, 0, metrics)


def world_of(scenario: Scenario) -> World:
    """Return what identifies a scenario in a results file, with the hashes of a fixed trace and of a fixed play."""
    simulator = Simulator(prepare(scenario), 1, "test")
    simulator.begin(seeds=np.array([0], np.uint64))
    environment_id = f"sat_env/{scenario.name}-v0" if ships(scenario) else None
    trace = rounded_hash(simulator.trace)
    cuts = np.linspace(0, simulator.blocks, simulator.slots + 1)[1:].astype(np.int64)[None]
    levels = np.full_like(cuts, min(1, simulator.levels - 1))
    played = []
    while not simulator.over[0]:
        problems = [field.copy() for field in simulator.problems]
        simulator.step(cuts, levels)
        played += problems + [field.copy() for field in simulator.outcome]
    return World(environment_id, scenario.hash(), trace, rounded_hash(played))


def rounded_hash(fields: Iterable[NDArray[Any]]) -> str:
    """Return 12 hex digits over rounded arrays: equal on every machine."""
    digest = hashlib.sha256()
    for field in fields:
        finite = np.where(np.isfinite(field), field, -1.0).astype(np.float64)
        size = 10.0 ** np.floor(np.log10(np.maximum(np.abs(finite), 1e-3)))  # nine digits of large numbers
        digest.update((np.round(finite / size, 8) * size + 0.0).tobytes())
    return digest.hexdigest()[:12]


def _derive(seed: int, purpose: str, index: int) -> int:
    """Return a 63-bit seed that tells nothing of `seed` (BLAKE2b)."""
    text = f"{purpose}/{seed}/{index}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
