"""Play many episodes at once: the same episodes as `sat_env.evaluation.runner`, to the bit, in one batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sat_env.evaluation.runner import episodes
from sat_env.problem import Problems
from sat_env.simulator import Simulator, Split
from sat_env.world import Prepared

Ints = NDArray[np.int64]


def play(
    prepared: Prepared, decide: Callable[[Problems], tuple[Ints, Ints]], split: Split, count: int, seed: int
) -> NDArray[np.float64]:
    """Return J of each of `count` episodes (count,), in seconds; `decide` gives cuts and levels (B, K)."""
    chosen = episodes(prepared.scenario, split, count, seed)
    simulator = Simulator(prepared, count, split)
    simulator.begin(
        seeds=np.array([episode.seed for episode in chosen], np.uint64),
        windows=np.array([episode.window for episode in chosen], np.int64),
    )
    total_s = np.zeros(count)
    for _ in range(prepared.scenario.episode_epochs):
        simulator.step(*decide(simulator.problems))
        total_s += simulator.outcome.latency_s
    mean: NDArray[np.float64] = total_s / prepared.scenario.episode_epochs
    return mean
