"""The recurrence equals the event simulation; the closed form and the planners' prediction equal the recurrence."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.pipeline_events import FOREVER, Hop, Route, Stage, random_pipeline, simulate
from planning_instances import canonical_plans, random_problem

from sat_env.pipeline import JobRun, closed_form_s, job_run, run
from sat_env.planning.costs import Costs
from sat_env.planning.predict import predict

check = settings(deadline=None, derandomize=True, max_examples=100)

RELEASE_S = 40.0
EPOCH_S = 2.0
EPOCHS = 8
NEVER_S = 1e6

Links = list[list[list[np.ndarray]]]


def on_grid(rng: np.random.Generator, route: Route, gaps: bool) -> Route:
    """The route with rates that change only between epochs, on request with gaps."""
    starts = np.arange(EPOCHS) * EPOCH_S
    rates = np.array([route.rate(t)[0] for t in starts])
    if gaps:
        rates[:-1][rng.random(EPOCHS - 1) < 0.25] = 0.0
    return replace(route, rate_bps=rates, rate_start_s=starts)


def draw_case(rng: np.random.Generator) -> tuple[list[Stage], list[Hop], np.ndarray, Links]:
    """A random pipeline of the kind the kernel runs: one scale (M,) for all servers, one detect and reboot time.

    Returns
    -------
    stages, hops, scale
    links : of each hop, the outages (d, 2) of each link of its primary and of its backup, in turn
    """
    stages, hops = random_pipeline(rng)
    scale = stages[0].compute_s / stages[0].compute_s.mean()
    gaps, meshed = rng.random(2) < 0.5
    detect_s, reboot_s = rng.uniform(0.0, 1.5) * (rng.random() < 0.7), rng.uniform(0.0, 2.0)
    stages = [replace(s, compute_s=s.compute_s.mean() * scale, reboot_s=reboot_s) for s in stages]
    links: Links = []

    def adapted(hop: Hop) -> Hop:
        routes = [route for route in (hop.primary, hop.backup) if route is not None]
        links.append([])
        for q, route in enumerate(routes):
            downs = [route.down_s]
            if meshed:  # a second link, whose outages overlap those of the first
                downs.append(np.sort(rng.uniform(0.0, 15.0, 4)).reshape(-1, 2))
            links[-1].append(downs)
            routes[q] = replace(on_grid(rng, route, gaps), down_s=np.concatenate(downs))
        primary, backup = (*routes, None)[:2]
        return replace(hop, bits=hop.bits.mean() * scale, primary=primary, backup=backup, detect_s=detect_s)

    return stages, [adapted(hop) for hop in hops], scale, links


def to_job(
    stages: list[Stage], hops: list[Hop], scale: np.ndarray, links: Links
) -> tuple[JobRun, np.ndarray]:
    """The same case as the kernel takes it, and its `link_down_s`."""
    job = job_run(len(stages), len(scale), EPOCHS, 2, 3)
    job.scale[:] = scale
    job.stage_release_s[:] = RELEASE_S
    job.hop_release_s[:] = RELEASE_S
    for s, stage in enumerate(stages):
        job.compute_s[s] = stage.compute_s[0] / scale[0]
        job.stage_release_s[s] += stage.release_s
        job.reload_s[s] = stage.reload_s
        job.reset_s[s, : len(stage.resets_s)] = RELEASE_S + stage.resets_s
    downs: list[np.ndarray] = []
    for s, hop in enumerate(hops):
        job.hop_bits[s] = hop.bits[0] / scale[0]
        job.hop_release_s[s] += hop.release_s
        job.credit_s[s] = hop.credit_s
        job.slots_out[s] = hop.out_slots % FOREVER
        job.slots_in[s] = hop.in_slots % FOREVER
        for q, route in enumerate((hop.primary, hop.backup)):
            if route is not None:
                job.route_rate_bps[s, q] = route.rate_bps
                job.route_latency_s[s, q] = route.latency_s
                for x, down in enumerate(links[s][q]):
                    job.route_links[s, q, x] = len(downs)
                    downs.append(down + RELEASE_S)
    link_down_s = np.full((max(len(downs), 1), 3, 2), np.inf)
    for w, down in enumerate(downs):
        link_down_s[w, : len(down)] = down
    return job, link_down_s


def run_case(
    job: JobRun, stages: list[Stage], hops: list[Hop], link_down_s: np.ndarray, deadline_s: float = NEVER_S
) -> float:
    """`run`, in seconds since the release."""
    detect_s = hops[0].detect_s if hops else 0.0
    end_s = run(
        job,
        len(stages),
        RELEASE_S,
        RELEASE_S + deadline_s,
        EPOCH_S,
        stages[0].reboot_s,
        detect_s,
        0.0,
        0.0,
        link_down_s,
    )
    return float(end_s) - RELEASE_S


def test_equals_the_event_simulation() -> None:
    rng = np.random.default_rng(0)
    for _ in range(400):
        stages, hops, scale, links = draw_case(rng)
        timeline = simulate(stages, hops)
        job, link_down_s = to_job(stages, hops, scale, links)
        end_s = run_case(job, stages, hops, link_down_s)
        assert end_s == pytest.approx(timeline.makespan_s, abs=1e-9)
        times_s = job.times_s - RELEASE_S
        for computed, expected in (
            (times_s[:, :, 0], timeline.compute_start_s),
            (times_s[:, :, 1], timeline.compute_end_s),
            (times_s[:-1, :, 2], timeline.transfer_start_s),
            (times_s[:-1, :, 3], timeline.transfer_end_s),
            (job.wire_bits[:-1], timeline.sent_bits.sum(axis=1)),
            (job.busy_s.sum(axis=1), timeline.busy_s),
        ):
            np.testing.assert_allclose(computed, expected, rtol=0, atol=1e-9)


def test_codecs_are_servers_of_their_own() -> None:
    """With unlimited slots a codec is a stage more, joined by a hop that takes no time."""
    rng = np.random.default_rng(1)
    for _ in range(60):
        stages, hops, scale, links = draw_case(rng)
        hops = [replace(hop, in_slots=FOREVER, out_slots=FOREVER) for hop in hops]
        job, link_down_s = to_job(stages, hops, scale, links)
        wire = Hop(np.zeros(len(scale)), Route(np.ones(1)))
        chain, joints = [stages[0]], []
        for s, hop in enumerate(hops):
            job.encode_s[s], job.decode_s[s + 1] = rng.uniform(0.0, 1.5, 2)
            chain += [Stage(job.encode_s[s] * scale), Stage(job.decode_s[s + 1] * scale), stages[s + 1]]
            joints += [wire, hop, wire]
        timeline = simulate(chain, joints)
        assert run_case(job, stages, hops, link_down_s) == pytest.approx(timeline.makespan_s, abs=1e-9)
        np.testing.assert_allclose(job.times_s[:, :, 1] - RELEASE_S, timeline.compute_end_s[::3], atol=1e-9)


def test_a_deadline_cuts_and_changes_nothing_before_it() -> None:
    rng = np.random.default_rng(2)
    for _ in range(100):
        stages, hops, scale, links = draw_case(rng)
        job, link_down_s = to_job(stages, hops, scale, links)
        makespan_s = run_case(job, stages, hops, link_down_s)
        whole, wire_bits = job.times_s.copy(), job.wire_bits.copy()
        wire_before = np.zeros(len(stages))
        for deadline_s in [*np.sort(rng.uniform(0.0, 1.2 * makespan_s, 5)), makespan_s + 1.0]:
            end_s = run_case(job, stages, hops, link_down_s, deadline_s)
            until_s = RELEASE_S + deadline_s
            assert end_s == pytest.approx(min(deadline_s, makespan_s))
            cut = np.minimum(whole, until_s)
            np.testing.assert_allclose(job.times_s[:, :, 1:], cut[:, :, 1:], rtol=0, atol=1e-9)
            # the attempt that the deadline cuts is not always the one that would have been completed
            assert (job.times_s[:, :, 0] <= cut[:, :, 0] + 1e-9).all()
            assert (job.hop_free_s[:-1] <= np.maximum(until_s, job.hop_release_s[:-1])).all()
            assert (wire_before <= job.wire_bits + 1e-9).all()
            assert (job.wire_bits <= wire_bits + 1e-9).all()
            wire_before = job.wire_bits.copy()
            computing_s = (job.times_s[:, :, 1] - job.times_s[:, :, 0]).sum(axis=1)
            assert (job.busy_s.sum(axis=1) >= computing_s - 1e-9).all()
            for booked in (job.busy_s, job.send_s):  # nothing in an epoch after the deadline
                room = np.append(np.full(EPOCHS - 1, EPOCH_S), np.inf)
                ahead = deadline_s - EPOCH_S * np.arange(EPOCHS)
                assert (booked <= np.minimum(room, ahead).clip(0) + 1e-9).all()
            sending_s = (job.times_s[:, :, 3] - job.times_s[:, :, 2]).sum(axis=1)
            np.testing.assert_allclose(job.send_s.sum(axis=1)[:-1], sending_s[:-1], rtol=0, atol=1e-9)
        np.testing.assert_allclose(wire_before, wire_bits, rtol=0, atol=1e-9)


def test_without_propagation_every_bit_is_on_the_wire_once() -> None:
    rng = np.random.default_rng(3)
    for _ in range(100):
        stages, hops, scale, links = draw_case(rng)
        job, link_down_s = to_job(stages, hops, scale, links)
        job.route_latency_s[:] = 0.0
        deadline_s = rng.uniform(0.0, 1.2) * run_case(job, stages, hops, link_down_s)
        np.testing.assert_allclose(
            job.wire_bits[:-1], job.hop_bits[:-1] * scale.sum(), rtol=1e-12, atol=1e-12
        )
        run_case(job, stages, hops, link_down_s, deadline_s)
        bits = job.hop_bits[:, None] * scale
        begun = (bits * (job.times_s[:, :, 2] < RELEASE_S + deadline_s)).sum(axis=1)[:-1]
        done = (bits * (job.times_s[:, :, 3] < RELEASE_S + deadline_s)).sum(axis=1)[:-1]
        assert (done <= job.wire_bits[:-1] + 1e-9).all()
        assert (job.wire_bits[:-1] <= begun + 1e-9).all()


def test_seconds_are_booked_in_the_epoch_they_fall_in() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        stages, hops, scale, links = draw_case(rng)
        stages = [replace(stage, resets_s=np.zeros(0)) for stage in stages]
        job, link_down_s = to_job(stages, hops, scale, links)
        run_case(job, stages, hops, link_down_s)
        edges = RELEASE_S + EPOCH_S * np.append(np.arange(EPOCHS), np.inf)
        for booked, start, end in (
            (job.busy_s, job.times_s[:, :, 0], job.times_s[:, :, 1]),
            (job.send_s[:-1], job.times_s[:-1, :, 2], job.times_s[:-1, :, 3]),
        ):
            for i, (low, high) in enumerate(pairwise(edges)):
                inside = np.minimum(end, high) - np.maximum(start, low)
                np.testing.assert_allclose(booked[:, i], inside.clip(0).sum(axis=1), rtol=0, atol=1e-9)


def test_a_lost_satellite_fails_the_job_and_stops_working() -> None:
    stages, hops = [Stage(np.full(4, 1.0))] * 2, [Hop(np.zeros(4), Route(np.ones(EPOCHS)))]
    job, link_down_s = to_job(stages, hops, np.ones(4), [[[]]])
    job.lost_s[1] = RELEASE_S + 2.5
    job.reset_s[1, 0] = RELEASE_S + 3.0  # a satellite that is gone has no resets
    assert run_case(job, stages, hops, link_down_s, 9.0) == 9.0
    assert (job.times_s[1, :, 1] - RELEASE_S).tolist() == [2.0, 9.0, 9.0, 9.0]
    assert job.busy_s.sum(axis=1).tolist() == [4.0, 1.5]


seconds = st.floats(0.0, 5.0)


@given(data=st.data(), n_stages=st.integers(1, 6), n_batches=st.integers(1, 10))
@check
def test_closed_form(data: st.DataObject, n_stages: int, n_batches: int) -> None:
    def draw(n: int) -> np.ndarray:
        return np.array(data.draw(st.lists(seconds, min_size=n, max_size=n)))

    job = job_run(n_stages, n_batches, 1, 1, 1)
    compute_s, encode_s, send_s, decode_s, latency_s = (draw(n_stages) for _ in range(5))
    job.compute_s[:], job.hop_bits[:], job.route_rate_bps[:, 0] = compute_s, 8.0 * send_s, 8.0
    job.encode_s[:], job.decode_s[1:], job.route_latency_s[:, 0] = encode_s, decode_s[:-1], latency_s
    end_s = run(job, n_stages, 0.0, NEVER_S, 60.0, 0.0, 0.0, 0.0, 0.0, np.zeros((1, 0, 2)))
    service_s = np.concatenate([compute_s, encode_s[:-1], send_s[:-1], decode_s[:-1]])
    expected_s = closed_form_s(
        service_s, np.append(latency_s[:-1], np.zeros(len(service_s) - n_stages + 1)), n_batches
    )
    assert end_s == pytest.approx(expected_s, rel=1e-12)


def job_of(costs: Costs, cuts: np.ndarray, levels: np.ndarray) -> tuple[JobRun, int, float]:
    """A nominal job under a feasible plan: its stages are slot 0, the slots that hold blocks, and the ground."""
    n_blocks = costs.compute_s.shape[1]
    ends = [*cuts, n_blocks]
    slots = [k for k in range(len(ends)) if k in (0, len(ends) - 1) or ends[k] > ends[k - 1]]
    job = job_run(len(slots), costs.micro_batches, 1, 1, 1)
    return_s = 0.0
    for s, k in enumerate(slots):
        blocks = range(ends[slots[s - 1]] if s else 0, ends[k])
        job.compute_s[s] = costs.compute_s[k, blocks].sum()
        job.token_compute_s[s] = costs.token_compute_s[k, blocks].sum()
        if blocks:
            job.stage_release_s[s] = costs.stage_release_s[k] + costs.load_s[k, blocks].sum()
            if ends[k] == n_blocks:
                return_s = costs.return_s[k]
        if k == slots[-1]:
            break
        to, cut = slots[s + 1], ends[k]
        level = levels[k] if 0 < cut < n_blocks else 0
        ratio = costs.token_bytes[cut, level] / costs.boundary_bytes[cut, level]
        job.hop_bits[s] = 8.0 * costs.boundary_bytes[cut, level]
        job.encode_s[s], job.decode_s[s + 1] = costs.encode_s[k, cut, level], costs.decode_s[to, cut, level]
        job.token_bits[s] = ratio * job.hop_bits[s]
        job.token_encode_s[s], job.token_decode_s[s] = ratio * job.encode_s[s], ratio * job.decode_s[s + 1]
        job.route_rate_bps[s, 0] = costs.rate_bps[k, to]
        job.route_latency_s[s, 0] = costs.latency_s[k, to]
        job.hop_release_s[s] = costs.hop_release_s[k, to]
    return job, len(slots), return_s


def test_nominal_execution_is_what_the_planners_predict() -> None:
    rng = np.random.default_rng(5)
    feasible = 0
    for _ in range(80):
        n_slots, n_blocks = int(rng.integers(1, 5)), int(rng.integers(1, 7))
        costs, _ = random_problem(rng, n_slots, n_blocks, 2)
        for cuts, levels in canonical_plans(n_slots, n_blocks, 2):
            predicted_s = predict(costs, cuts, levels)
            if not np.isfinite(predicted_s) or rng.random() < 0.8:
                continue
            feasible += 1
            job, stages, return_s = job_of(costs, cuts, levels)
            tokens = float(costs.n_tokens)
            end_s = run(job, stages, 0.0, NEVER_S, 60.0, 0.0, 0.0, tokens, return_s, np.zeros((1, 0, 2)))
            assert end_s == pytest.approx(predicted_s, rel=1e-12)
    assert feasible > 150


def generation() -> tuple[JobRun, float]:
    """Two groups generate 10 tokens on two stages and a silent ground; returns the job and seconds a token."""
    job = job_run(3, 2, 4, 1, 2)
    job.token_compute_s[:] = 0.3, 0.4, 0.0
    job.token_bits[:2] = 1.0
    job.route_rate_bps[:2, 0] = 10.0
    job.route_latency_s[:2, 0] = 0.25
    job.route_links[0, 0, 0] = 0
    return job, 0.3 + 0.1 + 0.25 + 0.4 + 0.05


def generate_with(
    job: JobRun, down: tuple[float, float] = (np.inf, np.inf), deadline_s: float = NEVER_S
) -> float:
    link_down_s = np.full((2, 1, 2), np.inf)
    link_down_s[0, 0] = down
    return float(run(job, 3, 0.0, deadline_s, 5.0, 2.0, 1.0, 10.0, 0.05, link_down_s))


def test_generation_waits_for_routes_and_satellites() -> None:
    job, token_s = generation()
    prefill_s = 0.5  # latencies only
    nominal_s = prefill_s + 10 * token_s
    assert generate_with(job) == pytest.approx(nominal_s)
    assert job.wire_bits[:2] == pytest.approx([20.0, 20.0])
    assert job.busy_s.sum(axis=1) == pytest.approx([6.0, 8.0, 0.0])
    assert job.send_s.sum(axis=1)[:2] == pytest.approx([2.0, 2.0])
    assert generate_with(job, down=(3.0, 7.5)) == pytest.approx(nominal_s + 4.5)
    assert generate_with(job, down=(3.0, np.inf), deadline_s=50.0) == 50.0
    assert job.wire_bits[0] == pytest.approx(20.0 * (3.0 - prefill_s) / (10 * token_s))
    job.reset_s[1, 0], job.reload_s[1] = 4.0, 0.5
    assert generate_with(job) == pytest.approx(nominal_s + 2.5)
    job.reset_s[1, :] = 3.5, 4.0  # the second while the satellite reboots
    assert generate_with(job) == pytest.approx(nominal_s + 3.0)


def test_generation_moves_to_the_backup_and_returns() -> None:
    job, token_s = generation()
    job.route_rate_bps[0, 1], job.route_latency_s[0, 1], job.route_links[0, 1, 0] = 5.0, 0.75, 1
    slow_s = token_s + 0.1 + 0.5
    # detection takes 1 s; then (7.5 - 4) s at the pace of the backup
    late_s = 1.0 + 3.5 * (1 - token_s / slow_s)
    assert generate_with(job, down=(3.0, 7.5)) == pytest.approx(0.5 + 10 * token_s + late_s)
