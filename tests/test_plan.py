"""Plans and their repair."""

from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_env.plan import Plan, repair
from sat_env.planning.costs import GROUND_ALL_OR_NONE, GROUND_ANY, GROUND_NONE

check = settings(deadline=None, derandomize=True, max_examples=400)


def fits(cuts: np.ndarray, memory: np.ndarray, free: np.ndarray, ground_hosts: int) -> bool:
    bounds = [0, *cuts, len(memory)]
    held = [memory[low:high].sum() for low, high in pairwise(bounds)]
    on_ground = len(memory) - cuts[-1]
    if ground_hosts == GROUND_NONE and on_ground:
        return False
    if ground_hosts == GROUND_ALL_OR_NONE and 0 < on_ground < len(memory):
        return False
    return all(h <= f for h, f in zip(held, free, strict=True))


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Cuts, memory of blocks, free memory of slots and ground: small, and often tight or too small."""
    slots, blocks = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    cuts = draw(st.lists(st.integers(0, blocks), min_size=slots, max_size=slots))
    memory = draw(st.lists(st.integers(1, 4), min_size=blocks, max_size=blocks))
    free = draw(st.lists(st.integers(0, 10), min_size=slots + 1, max_size=slots + 1))
    rule = draw(st.sampled_from([GROUND_NONE, GROUND_ALL_OR_NONE, GROUND_ANY]))
    return np.sort(np.array(cuts, np.int64)), np.array(memory, float), np.array(free, float), rule


@given(case=cases())
@check
def test_repair_keeps_what_fits_and_finds_what_can(
    case: tuple[np.ndarray, np.ndarray, np.ndarray, int],
) -> None:
    cuts, memory, free, rule = case
    repaired = cuts.copy()
    feasible, changed = repair(repaired, memory, free, rule)
    if fits(cuts, memory, free, rule):
        assert (feasible, changed) == (True, False)
    everywhere = map(np.array, combinations_with_replacement(range(len(memory) + 1), len(cuts)))
    reachable = [other for other in everywhere if fits(other, memory, free, rule)]
    if rule == GROUND_ALL_OR_NONE:  # never from the ground to the satellites, nor the reverse
        reachable = [other for other in reachable if (other[-1] == 0) == (cuts[-1] == 0)]
    assert feasible == bool(reachable)
    if feasible:
        assert fits(repaired, memory, free, rule)
        assert (np.diff(repaired) >= 0).all()
        assert changed == (not np.array_equal(repaired, cuts))
        again = repaired.copy()
        assert repair(again, memory, free, rule) == (True, False)
        assert np.array_equal(again, repaired)


@pytest.mark.parametrize(
    ("cuts", "free", "rule", "expected"),
    [
        ([4, 4, 4], [2, 9, 9, 0], GROUND_NONE, [2, 4, 4]),  # to the next slot
        ([4, 4, 4], [2, 0, 9, 0], GROUND_NONE, [2, 2, 4]),  # over a full one
        ([0, 0, 4], [9, 9, 1, 0], GROUND_NONE, [0, 3, 4]),  # backward
        ([1, 2, 4], [9, 2, 1, 0], GROUND_NONE, [1, 3, 4]),
        ([0, 0, 0], [9, 9, 9, 9], GROUND_NONE, [0, 0, 4]),  # a ground that holds nothing
        ([2, 2, 2], [9, 9, 9, 1], GROUND_ANY, [2, 2, 3]),  # what the ground cannot hold comes back
        ([4, 4, 4], [1, 1, 1, 9], GROUND_ANY, [1, 2, 3]),  # the ground is the last to spill to
        ([2, 2, 2], [9, 9, 9, 9], GROUND_ALL_OR_NONE, [2, 2, 4]),  # part of a model is not for the ground
        ([0, 0, 0], [0, 0, 0, 9], GROUND_ALL_OR_NONE, [0, 0, 0]),
    ],
)
def test_where_blocks_go(cuts: list[int], free: list[float], rule: int, expected: list[int]) -> None:
    array = np.array(cuts, np.int64)
    assert repair(array, np.ones(4), np.array(free, float), rule)[0]
    assert array.tolist() == expected


def test_a_plan_for_the_ground_is_not_moved_to_the_satellites_nor_the_reverse() -> None:
    for cuts, free in (([0, 0], [9.0, 9.0, 1.0]), ([2, 4], [1.0, 1.0, 9.0])):
        assert not repair(np.array(cuts, np.int64), np.ones(4), np.array(free), GROUND_ALL_OR_NONE)[0]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan((2.5, 3, 3), (0, 0, 0)), r"cuts = \(2.5, 3, 3\): must be 3 non-decreasing integers in 0..8"),
        (Plan((1, 2, float("nan")), (0, 0, 0)), r"cuts = \(1, 2, nan\): must be 3"),
        (Plan(("1", "2", "3"), (0, 0, 0)), r"cuts = \('1', '2', '3'\): must be 3"),
        (Plan((1, 2, 3), (0, 0.5, 0)), r"levels = \(0, 0.5, 0\): must be 3 integers in 0..3"),
        (Plan((1, 2), (0, 0, 0)), r"cuts = \(1, 2\): must be 3 non-decreasing integers in 0..8"),
        (Plan((1, 3, 2), (0, 0, 0)), r"cuts = \(1, 3, 2\): must be 3"),
        (Plan((-1, 2, 3), (0, 0, 0)), r"cuts = \(-1, 2, 3\): must be 3"),
        (Plan((1, 2, 9), (0, 0, 0)), r"cuts = \(1, 2, 9\): must be 3"),
        (Plan((1, 2, 3), (0, 0)), r"levels = \(0, 0\): must be 3 integers in 0..3"),
        (Plan((1, 2, 3), (0, 4, 0)), r"levels = \(0, 4, 0\): must be 3 integers in 0..3"),
        (Plan((1, 2, 3), (0, -1, 0)), r"levels = \(0, -1, 0\): must be 3 integers in 0..3"),
    ],
)
def test_check_refuses_what_is_not_a_plan(plan: Plan, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan.check(slots=3, blocks=8, levels=4)


def test_check_accepts_every_legal_plan_and_arrays_are_int64() -> None:
    for cuts in combinations_with_replacement(range(4), 2):
        Plan(cuts, (0, 1)).check(slots=2, blocks=3, levels=2)
    cuts, levels = Plan((1, 3), (0, 1)).arrays()
    assert (cuts.dtype, levels.dtype) == (np.int64, np.int64)
    assert (cuts.tolist(), levels.tolist()) == ([1, 3], [0, 1])
