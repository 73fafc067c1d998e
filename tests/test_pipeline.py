"""The recurrence equals the event simulation; the closed form and the planners' prediction equal the recurrence."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.pipeline_events import FOREVER, Hop, Route, Stage, random_pipeline, simulate

from sat_env.pipeline import JobRun, closed_form_s, job_run, run
from sat_env.planning.costs import GROUND_ANY, costs_from_arrays
from sat_env.planning.predict import predict

check = settings(deadline=None, derandomize=True, max_examples=100)

RELEASE_S = 40.0
EPOCH_S = 2.0
EPOCHS = 8
NEVER_S = 1e6


def on_grid(rng: np.random.Generator, route: Route, gaps: bool) -> Route:
    """The route with rates that change only between epochs, some with gaps; and overlapping outages."""
    starts = np.arange(EPOCHS) * EPOCH_S
    rates = np.array([route.rate(t)[0] for t in starts])
    if gaps:
        rates[:-1][rng.random(EPOCHS - 1) < 0.25] = 0.0
    return replace(route, rate_bps=rates, rate_start_s=starts)


def draw_case(rng: np.random.Generator) -> tuple[list[Stage], list[Hop], np.ndarray, list[list[np.ndarray]]]:
    """A random pipeline of the kind the kernel runs: one scale (M,) for all servers, one detect and reboot time.

    Returns
    -------
    stages, hops, scale
    links : of each hop, the outages (d, 2) of each link of its primary and of its backup, in turn
    """
    stages, hops = random_pipeline(rng)
    n_batches = len(stages[0].compute_s)
    scale = stages[0].compute_s / stages[0].compute_s.mean()
    gaps, meshed = rng.random(2) < 0.5
    detect_s, reboot_s = rng.uniform(0.0, 1.5) * (rng.random() < 0.7), rng.uniform(0.0, 2.0)
    stages = [replace(s, compute_s=s.compute_s.mean() * scale, reboot_s=reboot_s) for s in stages]
    cases, links = [], []
    for hop in hops:
        routes: list[Route | None] = []
        links.append([])
        for route in (hop.primary, hop.backup):
            if route is None:
                routes.append(None)
                continue
            downs = [route.down_s]
            if meshed:  # a second link, whose outages overlap those of the first
                downs.append(np.sort(rng.uniform(0.0, 15.0, 4)).reshape(-1, 2))
            links[-1].append(downs)
            routes.append(replace(on_grid(rng, route, gaps), down_s=np.concatenate(downs)))
        cases.append(
            replace(
                hop, bits=hop.bits.mean() * scale, primary=routes[0], backup=routes[1], detect_s=detect_s
            )
        )
    assert n_batches == len(scale)
    return stages, cases, scale, links


def to_job(
    stages: list[Stage], hops: list[Hop], scale: np.ndarray, links: list[list[np.ndarray]]
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
