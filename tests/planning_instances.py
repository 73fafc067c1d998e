"""Random planning problems and a brute-force planner, shared by the planning tests."""

from collections.abc import Iterator
from itertools import combinations_with_replacement, product

import numpy as np

from sat_env.planning.costs import Costs, Prices, costs_from_arrays, neutral_prices, prices_from_arrays
from sat_env.planning.predict import trusted_objective


def random_problem(
    rng: np.random.Generator, n_slots: int, n_blocks: int, n_levels: int, *, features: bool = True
) -> tuple[Costs, Prices]:
    """A problem with a random subset of every feature switched on (none but levels if not `features`)."""
    k, n, r = n_slots, n_blocks, n_levels

    def on() -> bool:
        return features and rng.random() < 0.5

    ratio = np.sort(rng.uniform(0.05, 1.0, (n + 1, r)), axis=1)[:, ::-1]
    ratio[[0, n]] = 1.0
    sent = rng.uniform(1e6, 2e7, (n + 1, 1)) * ratio
    error = np.sort(rng.uniform(0.0, 1.0, (n + 1, r)), axis=1)
    error[[0, n]] = 0.0
    codec = np.where((np.arange(n + 1) % n == 0)[:, None], 0.0, rng.uniform(0.0, 0.2, (k + 1, n + 1, r)))
    compute = rng.uniform(0.05, 0.4, (k + 1, n))
    compute[rng.random((k + 1, n)) < 0.05 * on()] = np.inf
    rate = rng.uniform(2e7, 5e8, (k, k + 1))
    rate[rng.random((k, k + 1)) < 0.2 * on()] = 0.0
    decoding = on()
    memory = rng.integers(1, 5, n).astype(float)
    free = rng.integers(0, int(2.2 * memory.sum() / k) + 2, k + 1).astype(float)
    free[k] *= 2
    costs = costs_from_arrays(
        compute,
        sent,
        rate,
        micro_batches=int(rng.integers(1, 9)),
        ground_hosts=int(rng.integers(0, 3)),
        latency_s=rng.uniform(0.0, 0.3, (k, k + 1)) * on(),
        encode_s=codec * on(),
        decode_s=codec[:, :, ::-1] * on(),
        stage_release_s=rng.uniform(0.0, 4.0, k + 1) * (rng.random(k + 1) < 0.5) * on(),
        hop_release_s=rng.uniform(0.0, 4.0, (k, k + 1)) * (rng.random((k, k + 1)) < 0.5) * on(),
        load_s=rng.uniform(0.0, 2.0, (k + 1, n)) * (rng.random((k + 1, n)) < 0.5) * on(),
        memory_bytes=memory if on() else 0.0,
        memory_free_bytes=free,
        error=error,
        error_budget=float(rng.uniform(0.0, 0.4 * min(k, n))) if rng.random() < 0.7 else np.inf,
        n_tokens=int(rng.integers(1, 20)) if decoding else 0,
        token_compute_s=rng.uniform(0.01, 0.1, (k + 1, n)),
        token_bytes=sent / 16,
        return_s=rng.uniform(0.0, 0.2, k + 1),
    )
    if not on():
        return costs, neutral_prices(k)
    return costs, prices_from_arrays(
        k,
        load_weight=float(rng.choice([0.0, 0.3, 1.0, 2.0])),
        bottleneck=float(rng.choice([0.0, 0.5])),
        stage_price=rng.uniform(0.0, 1.0, k + 1) * on(),
        hop_price=rng.uniform(0.0, 1.0, (k, k + 1)) * on(),
        hop_fixed_s=rng.uniform(0.0, 1.0, (k, k + 1)) * on(),
    )


def canonical_plans(n_slots: int, n_blocks: int, n_levels: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every canonical plan, as (cuts, levels)."""
    for cuts in combinations_with_replacement(range(n_blocks + 1), n_slots):
        starts = (0, *cuts[:-1])
        choices = [
            range(n_levels) if start < cut < n_blocks else (0,)
            for start, cut in zip(starts, cuts, strict=True)
        ]
        for levels in product(*choices):
            yield np.array(cuts), np.array(levels)


def brute_force(costs: Costs, prices: Prices) -> float:
    """The least objective over every canonical plan; inf if none is feasible."""
    (n_slots, _), (n_boundaries, n_levels) = costs.rate_bps.shape, costs.error.shape
    return min(
        trusted_objective(costs, prices, cuts, levels)
        for cuts, levels in canonical_plans(n_slots, n_boundaries - 1, n_levels)
    )
