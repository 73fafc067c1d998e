"""The exact planner: never beaten, honest about infeasible problems, monotone in what a chain has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_instances import brute_force, random_problem

from sat_env.planning import (
    check_plan,
    costs_from_arrays,
    make_workspace,
    neutral_prices,
    objective,
    plan_error,
    predict,
    solve,
    solve_batch,
    stack_costs,
    stack_prices,
)

SIZES = [(1, 1, 1), (1, 5, 3), (2, 4, 3), (3, 5, 3), (3, 4, 2), (4, 5, 2), (4, 4, 3)]


def test_exact_is_brute_force_on_every_feature():
    """Over 300 instances: empty slots, memory, budgets, ground rules, releases, loads, prices, decoding."""
    rng = np.random.default_rng(2024)
    infeasible = searched = 0
    for i in range(420):
        costs, prices = random_problem(rng, *SIZES[i % len(SIZES)])
        best = brute_force(costs, prices)
        solution = solve(costs, prices)
        if np.isinf(best):
            infeasible += 1
            assert np.isinf(solution.objective) and np.isinf(solution.makespan_s)
            assert not solution.cuts.any() and not solution.levels.any()
            continue
        assert solution.objective == pytest.approx(best, rel=1e-11), f"instance {i}"
        cuts, levels = check_plan(costs, solution.cuts, solution.levels)
        assert solution.objective == objective(costs, prices, cuts, levels)
        assert solution.makespan_s == predict(costs, cuts, levels)
        assert solution.error == plan_error(costs, cuts, levels) <= costs.error_budget
        starts = np.concatenate(([0], cuts[:-1]))
        assert not levels[(cuts == starts) | (cuts == costs.compute_s.shape[1])].any()  # canonical
        searched += solution.expansions > 0
    assert infeasible >= 30 and searched >= 100  # both kinds were there


def test_a_batch_is_the_same_plans():
    rng = np.random.default_rng(7)
    problems = [random_problem(rng, 3, 5, 3) for _ in range(40)]
    costs, prices = zip(*problems, strict=True)
    batch = solve_batch(stack_costs(costs), stack_prices(prices))
    for b, (one_costs, one_prices) in enumerate(problems):
        one = solve(one_costs, one_prices)
        for name in one._fields:
            assert np.array_equal(getattr(one, name), getattr(batch, name)[b]), (b, name)
    with pytest.raises(ValueError, match="load_weight has 39 rows"):
        solve_batch(stack_costs(costs), stack_prices(prices[1:]))
    with pytest.raises(ValueError, match="workspace is for K, L, R = 2, 5, 3"):
        solve(costs[0], workspace=make_workspace(2, 5, 3))
    with pytest.raises(ValueError, match="a batch needs one"):
        stack_costs([costs[0], random_problem(rng, 2, 5, 3)[0]])


def test_prices_for_another_chain_are_refused():
    costs, prices = random_problem(np.random.default_rng(3), 3, 5, 3)
    plan = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for slots in (2, 4):
        other = neutral_prices(slots)
        for call in (
            lambda other=other: solve(costs, other),
            lambda other=other: objective(costs, other, *plan),
            lambda other=other: solve_batch(stack_costs([costs]), stack_prices([other])),
        ):
            with pytest.raises(
                ValueError, match=r"^prices.stage_price has shape .*; needs \(4,\), of a chain of 3"
            ):
                call()
    with pytest.raises(ValueError, match=r"^prices.hop_fixed_s has shape \(3, 3\); needs \(3, 4\)"):
        solve(costs, prices._replace(hop_fixed_s=np.zeros((3, 3))))


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 8), st.integers(1, 4))
def test_more_never_worsens_the_optimum(seed, n_slots, n_blocks, n_levels):
    """A higher rate, more memory, faster blocks, a larger budget, an earlier release, more ground."""
    rng = np.random.default_rng(seed)
    costs, prices = random_problem(rng, n_slots, n_blocks, n_levels)

    def grown(array):
        return array * np.where(rng.random(array.shape) < 0.5, 1.0, rng.uniform(1.0, 2.0, array.shape))

    def shrunk(array):
        return array * np.where(rng.random(array.shape) < 0.5, 1.0, rng.uniform(0.5, 1.0, array.shape))

    better = [
        costs._replace(rate_bps=grown(costs.rate_bps)),
        costs._replace(memory_free_bytes=grown(costs.memory_free_bytes)),
        costs._replace(compute_s=shrunk(costs.compute_s), token_compute_s=shrunk(costs.token_compute_s)),
        costs._replace(error_budget=costs.error_budget * 1.5),
        costs._replace(stage_release_s=shrunk(costs.stage_release_s), load_s=shrunk(costs.load_s)),
        costs._replace(latency_s=shrunk(costs.latency_s), return_s=shrunk(costs.return_s)),
        costs._replace(ground_hosts=2),
    ]
    before = solve(costs, prices).objective
    for change in better:
        after = solve(change, prices).objective
        assert after <= before * (1 + 1e-12) or np.isinf(before)


def test_one_label_a_node_would_be_wrong():
    """The cheapest way to a node need not be on the best plan: its bottleneck is paid M - 1 times.

    Slot 0 can do block 0 in 1 s and send it in 4 s, or do both blocks in 6 s; slot 1 does block 1 in 4 s.
    """
    costs = costs_from_arrays(
        [[1.0, 5.0], [9.0, 4.0], [np.inf, np.inf]],
        [1.0, 1.0, 0.0],
        [[8.0, 2.0, 8.0], [8.0, 8.0, 8.0]],
        micro_batches=10,
        ground_hosts=0,
    )
    assert solve(costs).cuts.tolist() == [1, 2]
    assert solve(costs).makespan_s == 1.0 + 4.0 + 4.0 + 9 * 4.0
    assert solve(costs._replace(micro_batches=1)).cuts.tolist() == [2, 2]


def test_a_busy_slot_is_waited_for_only_if_that_pays():
    """Two equal slots; the second is busy. Below 4 s of backlog sharing wins, above it slot 0 does all."""

    def cuts(release_s):
        costs = costs_from_arrays(
            np.array([[1.0, 1.0], [1.0, 1.0], [np.inf, np.inf]]),
            [1.0, 0.0, 0.0],
            np.full((2, 3), 1e9),
            micro_batches=4,
            stage_release_s=[0.0, release_s, 0.0],
        )
        return solve(costs).cuts.tolist()

    assert cuts(0.0) == cuts(3.9) == [1, 2]
    assert cuts(4.1) == [2, 2]


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_a_budget_brackets_the_optimum(seed, max_expansions):
    """What is found lies above the optimum, the bound below it; proved means both are the optimum."""
    rng = np.random.default_rng(seed)
    costs, prices = random_problem(rng, 4, 8, 3)
    optimum = solve(costs, prices)
    found = solve(costs, prices, max_expansions=max_expansions)
    assert optimum.proved and optimum.bound_s == optimum.objective
    assert found.expansions <= max_expansions
    assert found.bound_s <= optimum.objective * (1 + 1e-9) or np.isinf(optimum.objective)
    assert found.objective >= optimum.objective * (1 - 1e-12)
    if found.proved:
        assert found.objective == pytest.approx(optimum.objective, rel=1e-11) or np.isinf(optimum.objective)
    if np.isfinite(found.objective):
        assert found.objective == objective(costs, prices, found.cuts, found.levels)


def test_a_search_that_runs_out_says_so():
    """Long chains with much that is busy: a small budget leaves a gap, a larger one closes it."""
    rng = np.random.default_rng(3)
    gaps = []
    for _ in range(20):
        costs, _ = random_problem(rng, 6, 12, 4, features=False)
        costs = costs._replace(
            stage_release_s=rng.uniform(0.0, 4.0, 7), hop_release_s=rng.uniform(0.0, 4.0, (6, 7))
        )
        short, whole = solve(costs, max_expansions=1), solve(costs)
        assert whole.proved
        assert short.bound_s <= whole.objective <= short.objective
        gaps.append(short.objective / short.bound_s - 1.0)
        batch = solve_batch(stack_costs([costs, costs]), max_expansions=1)
        assert batch.bound_s.tolist() == [short.bound_s] * 2
        assert batch.objective.tolist() == [short.objective] * 2
    assert max(gaps) > 0.01 and not solve(costs, max_expansions=0).expansions


@pytest.mark.parametrize("budget", [-1, 0.5, True])
def test_a_budget_is_a_count(budget):
    costs, _ = random_problem(np.random.default_rng(0), 2, 3, 2)
    with pytest.raises(ValueError, match=r"max_expansions = .*; allowed are None and integers from 0"):
        solve(costs, max_expansions=budget)


@pytest.mark.parametrize("seed", (11, 20))
def test_a_search_that_outgrows_its_memory_starts_again_in_more(seed):
    costs, prices = random_problem(np.random.default_rng(seed), 6, 40, 5)
    found = solve(costs, prices)
    assert found.expansions > 1024  # labels of the first room
    assert objective(costs, prices, found.cuts, found.levels) == found.objective
    for k in range(6):  # no single move is better
        for step in (-1, 1):
            for row in range(2):
                moved = [found.cuts.copy(), found.levels.copy()]
                moved[row][k] += step
                legal = (np.diff(moved[0], prepend=0, append=40) >= 0).all() and 0 <= moved[1][k] < 5
                if legal:
                    assert objective(costs, prices, *moved) >= found.objective * (1 - 1e-12)
