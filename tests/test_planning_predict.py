"""`predict` is the pipeline recurrence: held against one written out micro-batch by micro-batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_instances import random_problem

from sat_env.planning import check_plan, costs_from_arrays, neutral_prices, objective, plan_error, predict


def recurrence(costs, load_weight, cuts, levels):
    """Makespan of a plan by the O(K M) recurrence C(m) = max(C(m-1), A(m)) + x; None if infeasible.

    Also returns (slot, seconds) of every stage and (from, to, seconds) of every hop, for a job's totals.
    """
    n_slots, (n_boundaries, _) = costs.rate_bps.shape[0], costs.error.shape
    n_blocks, m = n_boundaries - 1, costs.micro_batches
    held = [list(range(a, b)) for a, b in zip([0, *cuts], [*cuts, n_blocks], strict=True)]
    ground = len(held[-1])
    if (costs.ground_hosts == 0 and ground) or (costs.ground_hosts == 1 and 0 < ground < n_blocks):
        return None
    arrivals = [0.0] * m
    error, loop, token_services, stages, hops = 0.0, 0.0, [0.0], [], []

    def through(arrivals, service, release):
        done, out = release, []
        for arrival in arrivals:
            done = max(done, arrival) + service
            out.append(done)
        return out

    path = [k for k in range(n_slots) if held[k]] + [n_slots]
    if path[0] != 0:
        path.insert(0, 0)
    done_blocks = 0
    for i, k in enumerate(path):
        if i > 0:
            sender = path[i - 1]
            inner = 0 < done_blocks < n_blocks
            level = levels[sender] if inner else 0
            if inner:
                error += costs.error[done_blocks, level]
            if costs.rate_bps[sender, k] == 0.0:
                return None
            size, token = costs.boundary_bytes[done_blocks, level], costs.token_bytes[done_blocks, level]
            seconds = 8.0 * size / costs.rate_bps[sender, k]
            encode, decode = (
                costs.encode_s[sender, done_blocks, level],
                costs.decode_s[k, done_blocks, level],
            )
            arrivals = through(arrivals, encode, 0.0)
            arrivals = through(arrivals, seconds, costs.hop_release_s[sender, k])
            arrivals = [a + costs.latency_s[sender, k] for a in arrivals]
            arrivals = through(arrivals, decode, 0.0)
            services = [x * token / size for x in (encode, seconds, decode)]
            token_services += services
            hops.append((sender, k, m * seconds + costs.n_tokens * m * services[1]))
            if done_blocks < n_blocks:
                loop += sum(services) + costs.latency_s[sender, k]
        if held[k]:
            if sum(costs.memory_bytes[held[k]]) > costs.memory_free_bytes[k]:
                return None
            if np.isinf(costs.compute_s[k, held[k]]).any():
                return None
            release = costs.stage_release_s[k] + load_weight * costs.load_s[k, held[k]].sum()
            arrivals = through(arrivals, costs.compute_s[k, held[k]].sum(), release)
            token = costs.token_compute_s[k, held[k]].sum()
            token_services.append(token)
            stages.append((k, m * (costs.compute_s[k, held[k]].sum() + costs.n_tokens * token)))
            loop += token
            done_blocks += len(held[k])
            if done_blocks == n_blocks:
                loop += costs.return_s[k]
    if error > costs.error_budget:
        return None
    return arrivals[-1] + costs.n_tokens * max(loop, m * max(token_services)), stages, hops


@settings(deadline=None, derandomize=True, max_examples=400)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 6), st.integers(1, 3))
def test_predict_is_the_recurrence(seed, n_slots, n_blocks, n_levels):
    rng = np.random.default_rng(seed)
    costs, prices = random_problem(rng, n_slots, n_blocks, n_levels)
    for _ in range(5):
        cuts = np.sort(rng.integers(0, n_blocks + 1, n_slots))
        if rng.random() < 0.5:
            cuts[-1] = n_blocks
        levels = rng.integers(0, n_levels, n_slots)
        expected = recurrence(costs, 1.0, cuts, levels)
        weighed = recurrence(costs, prices.load_weight, cuts, levels)
        assert (expected is None) == np.isinf(predict(costs, cuts, levels))
        if expected is None:
            assert np.isinf(objective(costs, prices, cuts, levels))
            continue
        assert predict(costs, cuts, levels) == pytest.approx(expected[0], rel=1e-12)
        span, stages, hops = weighed
        busiest = max((seconds for k, seconds in stages if k < n_slots), default=0.0)
        priced = (
            span
            + prices.bottleneck * busiest
            + sum(prices.stage_price[k] * seconds for k, seconds in stages)
            + sum(prices.hop_price[i, j] * seconds + prices.hop_fixed_s[i, j] for i, j, seconds in hops)
        )
        assert objective(costs, prices, cuts, levels) == pytest.approx(priced, rel=1e-12)


def test_a_pipeline_worked_by_hand():
    """Three slots, 1, 1 and 3 blocks of 1 s, hops of 1 s: sum 8, bottleneck 3, four micro-batches."""
    costs = costs_from_arrays(np.ones((4, 5)), np.full((6, 2), 1e6), np.full((3, 4), 8e6), micro_batches=4)
    assert predict(costs, *check_plan(costs, [1, 2, 5], [0, 1, 0])) == 8.0 + 3 * 3.0


def test_only_levels_of_activations_count():
    rng = np.random.default_rng(4)
    costs, _ = random_problem(rng, 4, 5, 3, features=False)
    costs = costs._replace(ground_hosts=2, error_budget=np.inf)
    prices = neutral_prices(4)
    for cuts, free in ([0, 2, 2, 5], [0, 2, 3]), ([0, 0, 0, 0], [0, 1, 2, 3]), ([5, 5, 5, 5], [0, 1, 2, 3]):
        cuts, levels = check_plan(costs, cuts, [0, 0, 0, 0])
        before = objective(costs, prices, cuts, levels), plan_error(costs, cuts, levels)
        levels[free] = 2
        assert (objective(costs, prices, cuts, levels), plan_error(costs, cuts, levels)) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compute_s": np.ones(3)}, "compute_s has shape"),
        ({"compute_s": np.full((3, 4), np.nan)}, "compute_s holds nan"),
        ({"boundary_bytes": np.ones((4, 2))}, "boundary_bytes has shape"),
        ({"boundary_bytes": np.arange(10.0).reshape(5, 2)}, "boundary_bytes differs between levels"),
        ({"rate_bps": -np.ones((2, 3))}, "rate_bps holds -1.0"),
        ({"latency_s": np.inf}, "latency_s holds inf"),
        ({"error": np.ones((5, 2))}, "error is not zero in boundary rows"),
        ({"load_s": np.ones((2, 2, 2))}, "load_s has shape"),
        (
            {"compute_s": [[1.0, 1.0], [1.0]]},
            r"compute_s = \[\[1.0, 1.0\], \[1.0\]\]; needs numbers, in rows of one",
        ),
        ({"rate_bps": [[1.0], []]}, r"rate_bps = \[\[1.0\], \[\]\]; needs numbers"),
        ({"boundary_bytes": "many"}, "boundary_bytes = 'many'; needs numbers"),
        ({"micro_batches": 0}, "micro_batches = 0"),
        ({"micro_batches": np.inf}, "micro_batches = inf; allowed are integers 1"),
        ({"ground_hosts": "none"}, "ground_hosts = 'none'; allowed are integers 0..2"),
        ({"n_tokens": None}, "n_tokens = None"),
        ({"ground_hosts": 3}, "ground_hosts = 3"),
        ({"n_tokens": 1.5}, "n_tokens = 1.5"),
        ({"error_budget": -1.0}, "error_budget holds -1.0"),
    ],
)
def test_bad_problems_are_refused(change, message):
    fields = {"compute_s": np.ones((3, 4)), "boundary_bytes": np.ones((5, 2)), "rate_bps": np.ones((2, 3))}
    with pytest.raises(ValueError, match=message) as refusal:
        costs_from_arrays(**{**fields, **change})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("cuts", "levels", "message"),
    [
        ([0], [0, 0], r"cuts = \[0\]: must be 2 non-decreasing integers in 0..4"),
        (np.array([0, 5]), [0, 0], r"cuts = \[0, 5\]: must be 2"),
        ([2, 1], [0, 0], r"cuts = \[2, 1\]: must be 2"),
        ([1, 2], [0, 2], r"levels = \[0, 2\]: must be 2 integers in 0..1"),
        ([0.5, 2], [0, 0], r"cuts = \[0.5, 2\]: must be 2"),
        ([1, [2]], [0, 0], r"cuts = \[1, \[2\]\]: must be 2"),
    ],
)
def test_bad_plans_are_refused(cuts, levels, message):
    costs = costs_from_arrays(np.ones((3, 4)), np.ones((5, 2)), np.ones((2, 3)))
    with pytest.raises(ValueError, match=message):
        check_plan(costs, cuts, levels)
    for outcome in (predict, plan_error, lambda c, *plan: objective(c, neutral_prices(2), *plan)):
        with pytest.raises(ValueError, match=message):
            outcome(costs, cuts, levels)
        assert outcome(costs, [1, 4], [0, 0]) == outcome(costs, np.array([1, 4]), np.array([0, 0]))
