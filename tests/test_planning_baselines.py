"""The planners to compare with: legal plans, never better than exact; HiGHS agrees with exact."""

import numpy as np
import pytest
from planning_instances import canonical_plans, random_problem

from baselines import (
    edgeshard,
    greedy,
    ground_only,
    oracle,
    paper_astar,
    proportional,
    single_satellite,
    uniform,
)
from benchmarks.planners import realistic_costs
from sat_env.planning import check_plan, costs_from_arrays, predict, solve

PLANNERS = [edgeshard, greedy, ground_only, paper_astar, proportional, single_satellite, uniform]


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.__name__)
def test_no_planner_beats_exact(planner):
    rng = np.random.default_rng(11)
    plans = worse = 0
    for i in range(150):
        if i < 120:
            costs, _ = random_problem(rng, *[(2, 4, 3), (3, 5, 3), (4, 6, 2), (5, 8, 4)][i % 4])
        else:
            costs = realistic_costs(rng, 12, 5, 4, released=bool(i % 2))
        plan = planner.plan(costs)
        best_s = solve(costs).makespan_s
        if plan is None:
            continue
        cuts, levels = check_plan(costs, *plan)
        made_s = predict(costs, cuts, levels)
        assert best_s * (1 - 1e-12) <= made_s < np.inf
        plans += 1
        worse += made_s > best_s * (1 + 1e-9)
    assert plans >= 20 and worse >= 10  # it plans, and it is not exact in disguise


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.__name__)
def test_none_means_that_the_family_has_no_plan(planner):
    """Memory alone binds: every planner finds a plan whenever its family has one."""
    rng = np.random.default_rng(12)
    for _ in range(60):
        n_slots, n_blocks = int(rng.integers(2, 5)), int(rng.integers(2, 6))
        costs, _ = random_problem(rng, n_slots, n_blocks, 1, features=False)
        memory = rng.integers(1, 5, n_blocks).astype(float)
        free = rng.integers(0, 8, n_slots + 1).astype(float)
        costs = costs._replace(memory_bytes=memory, memory_free_bytes=free, error_budget=np.inf)

        def in_family(cuts, n_slots=n_slots, n_blocks=n_blocks):
            sizes = np.diff(cuts, prepend=0, append=n_blocks)
            if planner is ground_only:
                return sizes[n_slots] == n_blocks
            if planner is single_satellite:
                return (sizes[:n_slots] == n_blocks).any()
            return planner in (edgeshard, greedy) or sizes[n_slots] == 0

        possible = any(
            in_family(cuts) and predict(costs, cuts, levels) < np.inf
            for cuts, levels in canonical_plans(n_slots, n_blocks, 1)
        )
        assert (planner.plan(costs) is not None) == possible


def test_edgeshard_has_the_least_bottleneck():
    """With very many micro-batches only the bottleneck counts: its family's optimum is then the exact one."""
    rng = np.random.default_rng(13)
    for _ in range(40):
        costs, _ = random_problem(rng, 4, 6, 1, features=False)
        costs = costs._replace(micro_batches=10**9, error_budget=np.inf)
        assert predict(costs, *edgeshard.plan(costs)) == pytest.approx(solve(costs).makespan_s, rel=1e-6)


def test_uniform_and_proportional_shares():
    compute = np.repeat([[1.0], [2.0], [4.0], [9.0]], 7, axis=1)
    costs = costs_from_arrays(compute, np.ones(8), np.full((3, 4), 1e9))
    assert uniform.plan(costs)[0].tolist() in ([2, 4, 7], [2, 5, 7], [3, 5, 7])
    assert proportional.plan(costs)[0].tolist() == [4, 6, 7]


def same_as_highs(costs):
    plan = oracle.plan(costs)
    best_s = solve(costs).makespan_s
    if plan is None:
        return np.isinf(best_s)
    return predict(costs, *check_plan(costs, *plan)) == pytest.approx(best_s, rel=1e-6)


def test_highs_agrees_on_small_problems():
    rng = np.random.default_rng(14)
    for i in range(24):
        costs, _ = random_problem(rng, 1 + i % 4, 1 + i % 6, 1 + i % 3)
        zero = {name: getattr(costs, name) * 0 for name in ("stage_release_s", "hop_release_s", "load_s")}
        assert same_as_highs(costs._replace(n_tokens=0, **zero))
    for _ in range(2):
        assert same_as_highs(realistic_costs(rng, 10, 4, 3))
    with pytest.raises(ValueError, match="stage_release_s is not zero"):
        oracle.plan(realistic_costs(rng, 10, 4, 3, released=True))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_highs_agrees_at_32_blocks_and_8_slots(seed):
    assert same_as_highs(realistic_costs(np.random.default_rng(seed), 32, 8, 8))
