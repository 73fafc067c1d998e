"""The event simulation that the recurrence is checked against is itself right where the answer is known."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.pipeline_events import FOREVER, Hop, Route, Stage, Timeline, random_pipeline, simulate

check = settings(deadline=None, derandomize=True, max_examples=60)
# quarters add up without rounding
quarters = st.integers(0, 40).map(lambda n: n / 4)


def times(n: int) -> st.SearchStrategy[list[float]]:
    return st.lists(quarters, min_size=n, max_size=n)


def uniform(
    compute_s: list[float], send_s: list[float], n_batches: int, **hop: object
) -> tuple[list[Stage], list[Hop]]:
    """Identical micro-batches over links of 1 bit/s."""
    latency_s = hop.pop("latency_s", 0.0)
    return (
        [Stage(np.full(n_batches, c)) for c in compute_s],
        [Hop(np.full(n_batches, s), Route(np.ones(1), latency_s=latency_s), **hop) for s in send_s],
    )


@given(data=st.data(), n_stages=st.integers(1, 5), n_batches=st.integers(1, 8), latency_s=quarters)
@check
def test_unlimited_slots_meet_the_closed_form(
    data: st.DataObject, n_stages: int, n_batches: int, latency_s: float
) -> None:
    compute_s, send_s = data.draw(times(n_stages)), data.draw(times(n_stages - 1))
    timeline = simulate(*uniform(compute_s, send_s, n_batches, latency_s=latency_s))
    total = sum(compute_s) + sum(send_s) + latency_s * (n_stages - 1)
    assert timeline.makespan_s == total + (n_batches - 1) * max(compute_s + send_s)


@given(data=st.data(), n_stages=st.integers(2, 5), n_batches=st.integers(1, 8))
@check
def test_two_slots_without_propagation_meet_the_closed_form(
    data: st.DataObject, n_stages: int, n_batches: int
) -> None:
    compute_s, send_s = data.draw(times(n_stages)), data.draw(times(n_stages - 1))
    timeline = simulate(*uniform(compute_s, send_s, n_batches, out_slots=2, in_slots=2))
    assert timeline.makespan_s == sum(compute_s) + sum(send_s) + (n_batches - 1) * max(compute_s + send_s)


def test_one_slot_a_side_serialises_compute_and_send() -> None:
    stages, hops = uniform([1.0, 2.0], [3.0], 3, out_slots=1, in_slots=1)
    timeline = simulate(stages, hops)
    # the receiver's slot is held for send + compute, 5 s, longer than the sender's compute + send, 4 s
    assert timeline.transfer_start_s.tolist() == [[1.0, 6.0, 11.0]]
    # the sender computes again when its slot is free, and not before
    assert timeline.compute_start_s[0].tolist() == [0.0, 4.0, 9.0]
    assert timeline.makespan_s == 16.0


def test_credit_returns_late() -> None:
    stages, hops = uniform([0.0, 1.0], [1.0], 3, in_slots=1, credit_s=0.5)
    assert simulate(stages, hops).transfer_start_s.tolist() == [[0.0, 2.5, 5.0]]


def test_releases_hold_back_stage_and_hop() -> None:
    stages, hops = uniform([1.0, 1.0], [1.0], 2)
    timeline = simulate([replace(stages[0], release_s=2.0), stages[1]], [replace(hops[0], release_s=7.0)])
    assert timeline.compute_end_s[0].tolist() == [3.0, 4.0]
    assert timeline.transfer_start_s.tolist() == [[7.0, 8.0]]
    assert timeline.makespan_s == 10.0


def one_transfer(bits: float, primary: Route, backup: Route | None = None, **hop: float) -> Timeline:
    hops = [Hop(np.array([bits]), primary, backup, **hop)]
    return simulate([Stage(np.zeros(1)), Stage(np.zeros(1))], hops)


def route(rate: float = 1.0, down: list[tuple[float, float]] | None = None, latency_s: float = 0.0) -> Route:
    return Route(np.array([rate]), latency_s=latency_s, down_s=np.array(down or []).reshape(-1, 2))


def test_rate_changes_in_mid_transfer() -> None:
    varying = Route(np.array([1.0, 0.0, 2.0]), np.array([0.0, 2.0, 5.0]), latency_s=0.5)
    timeline = one_transfer(6.0, varying)
    assert (timeline.transfer_end_s[0, 0], timeline.arrival_s[0, 0]) == (7.0, 7.5)
    assert timeline.sent_bits.tolist() == [[6.0, 0.0]]  # a stall is no break


@pytest.mark.parametrize(
    ("latency_s", "end_s", "sent"),
    [
        (0.0, 7.0, 4.0),  # pauses, loses nothing
        (0.5, 8.0, 5.0),  # the last second is not acknowledged
        (1.0, 9.0, 6.0),  # nothing sent before the break is
        (9.0, 9.0, 6.0),
    ],
)
def test_a_break_repeats_what_was_not_acknowledged(latency_s: float, end_s: float, sent: float) -> None:
    timeline = one_transfer(4.0, route(down=[(2.0, 5.0)], latency_s=latency_s))
    assert (timeline.transfer_end_s[0, 0], timeline.sent_bits[0, 0]) == (end_s, sent)


def test_a_second_break_repeats_only_its_own_part() -> None:
    # 2 bits, 1 of them lost; then 0.5 bits, all lost; then the other 3
    timeline = one_transfer(4.0, route(down=[(2.0, 5.0), (5.5, 6.0)], latency_s=0.5))
    assert (timeline.transfer_end_s[0, 0], timeline.sent_bits[0, 0]) == (9.0, 5.5)


@pytest.mark.parametrize(("down", "end_s"), [((4.0, 6.0), 4.0), ((0.0, 2.0), 6.0), ((3.75, 6.0), 6.25)])
def test_intervals_are_half_open(down: tuple[float, float], end_s: float) -> None:
    assert one_transfer(4.0, route(down=[down])).transfer_end_s[0, 0] == end_s


def test_a_transfer_moves_to_the_backup_and_stays() -> None:
    primary, backup = route(1.0, [(2.0, 5.0)]), route(0.5, latency_s=1.5)
    hops = [Hop(np.array([4.0, 1.0]), primary, backup, detect_s=1.0)]
    timeline = simulate([Stage(np.zeros(2)), Stage(np.zeros(2))], hops)
    # 2 bits by 2 s, detection until 3 s, 2 bits at half the rate until 7 s; the next one takes the primary
    assert timeline.transfer_end_s.tolist() == [[7.0, 8.0]]
    assert timeline.arrival_s.tolist() == [[8.5, 8.0]]
    assert timeline.compute_end_s[1].tolist() == [8.5, 8.5]  # in order
    assert timeline.sent_bits.tolist() == [[3.0, 2.0]]


@pytest.mark.parametrize(
    ("primary_down", "backup_down", "detect_s", "end_s", "on_backup"),
    [
        ((2.0, 3.0), None, 1.0, 5.0, 0.0),  # up at the instant of detection: it stays
        ((2.0, 3.5), None, 1.0, 5.0, 2.0),
        ((2.0, 9.0), (0.0, 5.0), 1.0, 7.0, 2.0),  # the backup comes up first
        ((2.0, 5.0), (0.0, 9.0), 1.0, 7.0, 0.0),  # the primary does
        ((2.0, 5.0), (0.0, 5.0), 1.0, 7.0, 0.0),  # both at once
        ((0.0, 9.0), None, 1.0, 5.0, 4.0),  # down at the start: detection counts from 0
        ((2.0, 5.0), (4.0, 9.0), 1.0, 6.0, 1.0),  # the backup breaks at 4, is left at 5 for the primary
        ((2.0, inf), (4.0, 6.0), 1.0, 7.0, 2.0),  # waits for the backup, as the primary stays down
    ],
)
def test_which_route_is_taken(
    primary_down: tuple[float, float],
    backup_down: tuple[float, float] | None,
    detect_s: float,
    end_s: float,
    on_backup: float,
) -> None:
    backup = route(down=[backup_down] if backup_down else [])
    timeline = one_transfer(4.0, route(down=[primary_down]), backup, detect_s=detect_s)
    assert (timeline.transfer_end_s[0, 0], timeline.sent_bits[0].tolist()) == (
        end_s,
        [4.0 - on_backup, on_backup],
    )


def test_detection_counts_from_the_break_even_before_the_transfer() -> None:
    hops = [Hop(np.array([4.0]), route(down=[(2.0, 50.0)]), route(), detect_s=3.0)]
    early, late = (simulate([Stage(np.array([c])), Stage(np.zeros(1))], hops) for c in (4.0, 6.0))
    assert (early.transfer_start_s[0, 0], early.transfer_end_s[0, 0]) == (
        4.0,
        9.0,
    )  # takes the hop, waits until 5 s
    assert (late.transfer_start_s[0, 0], late.transfer_end_s[0, 0]) == (6.0, 10.0)


@pytest.mark.parametrize(
    ("resets", "start_s", "end_s", "busy_s"),
    [
        ([2.0], [5.0, 8.0], [8.0, 12.0], 8.0),  # lost after 1 s of 3
        ([1.0], [4.0, 7.0], [7.0, 11.0], 7.0),  # would start at the instant of the reset
        ([4.0], [1.0, 7.0], [4.0, 11.0], 7.0),  # ends at the instant of the reset
        ([0.0], [3.0, 6.0], [6.0, 10.0], 7.0),  # an idle stage is unavailable too
        ([0.0, 2.0], [5.0, 8.0], [8.0, 12.0], 7.0),  # windows overlap
        ([2.0, 6.0], [9.0, 12.0], [12.0, 16.0], 9.0),  # lost twice
    ],
)
def test_resets(resets: list[float], start_s: list[float], end_s: list[float], busy_s: float) -> None:
    prone = Stage(np.array([3.0, 4.0]), resets_s=np.array(resets), reboot_s=2.0, reload_s=1.0)
    timeline = simulate([Stage(np.array([1.0, 4.0])), prone], [Hop(np.zeros(2), route())])
    assert timeline.compute_start_s[1].tolist() == start_s
    assert timeline.compute_end_s[1].tolist() == end_s
    assert timeline.busy_s.tolist() == [5.0, busy_s]


def test_what_never_happens_has_time_inf() -> None:
    lost_link = one_transfer(4.0, route(down=[(2.0, inf)]))
    assert lost_link.makespan_s == lost_link.transfer_end_s[0, 0] == inf
    assert (lost_link.transfer_start_s[0, 0], lost_link.sent_bits[0, 0]) == (0.0, 2.0)
    lost_satellite = simulate([Stage(np.ones(2), resets_s=np.array([1.5]), reboot_s=inf)], [])
    assert lost_satellite.compute_end_s.tolist() == [[1.0, inf]]


@given(seed=st.integers(0, 2**32 - 1))
@check
def test_any_pipeline_keeps_order_slots_and_bits(seed: int) -> None:
    stages, hops = random_pipeline(np.random.default_rng(seed))
    timeline = simulate(stages, hops)
    assert np.isfinite(timeline.makespan_s)
    assert (timeline.compute_start_s[:, 1:] >= timeline.compute_end_s[:, :-1]).all()
    assert (timeline.transfer_start_s[:, 1:] >= timeline.transfer_end_s[:, :-1]).all()
    assert (timeline.transfer_start_s >= timeline.compute_end_s[:-1]).all()
    assert (timeline.compute_start_s[1:] >= timeline.arrival_s).all()
    for k, hop in enumerate(hops):
        for start, end, slots in (
            (timeline.compute_start_s[k], timeline.transfer_end_s[k], hop.out_slots),
            (timeline.transfer_start_s[k], timeline.compute_end_s[k + 1], hop.in_slots),
        ):
            held = [(start <= t) & (t < end) for t in start]
            assert max(map(np.sum, held)) <= slots
        unbroken = all(route is None or len(route.down_s) == 0 for route in (hop.primary, hop.backup))
        assert timeline.sent_bits[k].sum() >= hop.bits.sum() * (1 - 1e-12)
        if unbroken or all(route is None or route.latency_s == 0 for route in (hop.primary, hop.backup)):
            assert timeline.sent_bits[k].sum() == pytest.approx(hop.bits.sum())
    for k, stage in enumerate(stages):
        assert timeline.busy_s[k] >= stage.compute_s.sum() * (1 - 1e-12)
        if not len(stage.resets_s):
            assert timeline.busy_s[k] == pytest.approx(stage.compute_s.sum())
        for start, end in zip(timeline.compute_start_s[k], timeline.compute_end_s[k], strict=True):
            assert not any(start < reset < end for reset in stage.resets_s)


@given(seed=st.integers(0, 2**32 - 1))
@check
def test_more_slots_never_delay_an_unbroken_pipeline(seed: int) -> None:
    stages, hops = random_pipeline(np.random.default_rng(seed))
    hops = [replace(hop, primary=replace(hop.primary, down_s=np.zeros((0, 2))), backup=None) for hop in hops]
    roomy = [replace(hop, out_slots=FOREVER, in_slots=FOREVER) for hop in hops]
    tight, free = simulate(stages, hops), simulate(stages, roomy)
    assert (free.compute_end_s <= tight.compute_end_s + 1e-9).all()
