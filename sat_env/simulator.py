"""The state of B worlds, and one step of it.

A step of a world reads top to bottom in `step_world`: repair the plan, execute the job on the true trace,
book time and energy, move to the next epoch, describe the next problem. Times are seconds since the start
of the episode. Everything is a numba kernel over arrays; B = 1 is the single environment.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sat_env.energy import allowed_mode, battery_step
from sat_env.handles import handle_maker
from sat_env.network.ground import ka_rate_bps, rain_at_elevation_db
from sat_env.pipeline import COMPUTE_END, job_run, job_run_handle, run
from sat_env.plan import repair
from sat_env.planning.predict import serve
from sat_env.problem import (
    PlanningProblem,
    Problems,
    block_seconds,
    empty_problems,
    planning_problem,
    problems_handle,
)
from sat_env.trace import (
    INITIAL_INTERVALS,
    STREAM_LINKS,
    STREAM_WINDOW,
    Trace,
    draw_world,
    redraw_links,
    redraw_rest,
    stream_key,
    trace_handle,
    uniform,
)
from sat_env.world import Prepared, World, prepare, world_handle

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


Split = Literal["train", "dev", "test"]
NO_PLAN = -1  # a first cut of this declines the job
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


class State(NamedTuple):
    """What a world remembers. V satellites and W links of its window; H epochs a job may span."""

    start: Ints  # (B,) first epoch of the episode in the contact plan
    epoch: Ints  # (B,) current epoch in the contact plan
    battery_j: Array  # (B, V)
    battery_epoch: Ints  # (B, V) the battery is advanced up to the start of this epoch
    draw_j: Array  # (B, V, H) energy jobs draw, by epoch modulo H
    resident: Ints  # (B, V, 2) blocks first..last+1 in memory
    busy_s: Array  # (B, V) when the satellite is free
    expected_busy_s: Array  # (B, V) when it was expected to be, at the decisions so far
    resets_known_s: Array  # (B, V) resets up to here have had their effect
    link_busy_s: Array  # (B, W)
    expected_link_busy_s: Array  # (B, W)
    ground_busy_s: Array  # (B,)
    expected_ground_busy_s: Array  # (B,)
    energy_j: Array  # (B, 4) ledger since reset: stored in batteries, spilled, unserved, drawn by jobs


class Outcome(NamedTuple):
    """What came of the last job of each world."""

    latency_s: Array  # (B,) the deadline for a failed job
    failed: Array  # (B,) 1: dropped, infeasible or above the accuracy limit
    dropped: Array  # (B,) 1: missed its deadline
    infeasible: Array  # (B,) 1: no repair made it fit
    repaired: Array  # (B,) 1: the plan was changed to fit
    accuracy_drop: Array  # (B,) fraction
    bytes: Array  # (B,) put on all links, retransmissions included
    energy_j: Array  # (B,) drawn by the job
    reload_bytes: Array  # (B,)
    hop_bits: Array  # (B, K) put on the hop that leaves each slot


outcome_handle = handle_maker(Outcome)


state_handle = handle_maker(State)


def empty_state(world: World, worlds: int) -> State:
    """Return the state arrays of B worlds, to be filled by `begin_world`."""
    nodes, links = world.window_nodes.shape[1], world.window_links.shape[1]
    span = world.route_rate_bps.shape[1]

    def zeros(*shape: int) -> Array:
        return np.zeros((worlds, *shape))

    def ints(*shape: int) -> Ints:
        return np.zeros((worlds, *shape), np.int64)

    return State(
        start=ints(),
        epoch=ints(),
        battery_j=zeros(nodes),
        battery_epoch=ints(nodes),
        draw_j=zeros(nodes, span),
        resident=ints(nodes, 2),
        busy_s=zeros(nodes),
        expected_busy_s=zeros(nodes),
        resets_known_s=zeros(nodes),
        link_busy_s=zeros(links),
        expected_link_busy_s=zeros(links),
        ground_busy_s=zeros(),
        expected_ground_busy_s=zeros(),
        energy_j=zeros(4),
    )


def empty_outcome(worlds: int, slots: int) -> Outcome:
    """Return outcome arrays of B worlds."""
    fields = {name: np.zeros(worlds) for name in Outcome._fields}
    fields["hop_bits"] = np.zeros((worlds, slots))
    return Outcome(**fields)


@njit(cache=True)
def begin_world(world, trace, state, problems, b):  # type: ignore[no-untyped-def]
    """Put world `b` at the start of the episode whose trace was drawn, and describe its first problem."""
    start = trace.window[b] * world.episode_epochs
    state.start[b] = start
    state.epoch[b] = start
    for v in range(state.battery_j.shape[1]):
        state.battery_j[b, v] = trace.charge[b, v] * world.power.capacity_j
        state.battery_epoch[b, v] = start
        state.draw_j[b, v, :] = 0.0
        state.resident[b, v, :] = 0
        state.busy_s[b, v] = 0.0
        state.expected_busy_s[b, v] = 0.0
        state.resets_known_s[b, v] = 0.0
    state.link_busy_s[b, :] = 0.0
    state.expected_link_busy_s[b, :] = 0.0
    state.ground_busy_s[b] = 0.0
    state.expected_ground_busy_s[b] = 0.0
    state.energy_j[b, :] = 0.0
    problems.previous_cuts[b, :] = 0
    problems.previous_levels[b, :] = 0
    describe(world, trace, state, problems, b)


@njit(cache=True)
def advance_battery(battery_j, battery_epoch, draw_j, ledger_j, light, power, epoch_s, v, node, epoch):  # type: ignore[no-untyped-def]
    """Bring the battery of satellite `v` up to the start of `epoch`; arrays are those of one world."""
    span = draw_j.shape[1]
    for e in range(battery_epoch[v], epoch):
        job_j = draw_j[v, e % span]
        draw_j[v, e % span] = 0.0
        if power.enabled:
            in_j = light[e, node] * power.panel_w * epoch_s
            load_j = power.base_w * epoch_s + job_j
            battery_j[v], stored, spilled, unserved = battery_step(battery_j[v], in_j, load_j, power)
            ledger_j[0] += stored
            ledger_j[1] += spilled
            ledger_j[2] += unserved
    battery_epoch[v] = max(battery_epoch[v], epoch)


@njit(cache=True, inline="always")
def residual_outage_s(residual_s, step_s, age_s):  # type: ignore[no-untyped-def]
    """Return the mean time an outage of this age still lasts (table of `faults.OutageLaw`)."""
    return residual_s[min(int(age_s / step_s), residual_s.shape[0] - 1)]


@njit(cache=True, inline="always")
def expected_wait_s(residual_s, step_s, now, busy_s, expected_s):  # type: ignore[no-untyped-def]
    """Return how long a server seems busy to an observer who saw no future: 0 when it is free.

    One that is overdue is held up by an outage at least that old.
    """
    if busy_s <= now:
        return 0.0
    if expected_s > now:
        return expected_s - now
    return residual_outage_s(residual_s, step_s, now - expected_s)


@njit(cache=True, inline="always")
def meet_resets(reset_s, reboot_s, resident, busy_s, expected_busy_s, known_s, v, now):  # type: ignore[no-untyped-def]
    """Apply the resets of satellite `v` up to now that no job has met; return what is left of a reboot."""
    left_s = 0.0
    for i in range(reset_s.shape[1]):
        reset = reset_s[v, i]
        if reset > now:
            break
        back = reset + reboot_s
        left_s = max(left_s, back - now)
        if reset > known_s[v]:
            resident[v, 0] = 0
            resident[v, 1] = 0
            busy_s[v] = max(busy_s[v], back)
            expected_busy_s[v] = max(expected_busy_s[v], back)
            known_s[v] = reset
    return left_s


@njit(cache=True, inline="always")
def link_now(link, link_down_s, link_busy_s, expected_busy_s, residual_s, step_s, now, seen):  # type: ignore[no-untyped-def]
    """Write what an observer sees of a link into ``seen[link]``.

    ``seen`` (W, 2): the time it has been up (below 0: down for that long), and the expected time until it
    is up and free.
    """
    since_s = now
    wait_s = 0.0
    for n in range(link_down_s.shape[1]):
        start = link_down_s[link, n, 0]
        if start > now:
            break
        end = link_down_s[link, n, 1]
        if now < end:
            since_s = max(start, 0.0) - now
            wait_s = residual_outage_s(residual_s, step_s, -since_s)
            since_s = since_s if since_s < 0.0 else -1e-12
        else:
            since_s = now - end
    busy_s = expected_wait_s(residual_s, step_s, now, link_busy_s[link], expected_busy_s[link])
    seen[link, 0] = since_s
    seen[link, 1] = max(wait_s, busy_s)


@njit(cache=True, inline="always")
def route_now(links, q, i, j, seen):  # type: ignore[no-untyped-def]
    """Tell what an observer sees of route `q` from slot i to slot j; ``links`` (2, K, K+1, X) of the epoch.

    Returns
    -------
    up : bool
    age_s : float
        Time in that state: of the link last come up, or of the outage that is oldest.
    wait_s : float
        Expected time until the route is up and free.
    count : int
        Links of the route.
    """
    up_s = math.inf
    down_s = 0.0
    wait_s = 0.0
    count = 0
    for x in range(links.shape[3]):
        link = links[q, i, j, x]
        if link < 0:
            break
        count += 1
        since_s = seen[link, 0]
        if since_s < 0.0:
            down_s = max(down_s, -since_s)
        up_s = min(up_s, since_s)
        wait_s = max(wait_s, seen[link, 1])
    return up_s >= 0.0, (up_s if up_s >= 0.0 else down_s), wait_s, count


@njit(cache=True)
def describe(world, trace, state, problems, b):  # type: ignore[no-untyped-def]
    """Write what is knowable at the current epoch of world `b` into `problems`."""
    epoch = state.epoch[b]
    t = epoch - state.start[b]
    problems.epoch[b] = epoch
    problems.epochs_left[b] = world.episode_epochs - t
    problems.items[b] = trace.items[b, t]
    problems.content[b] = trace.content[b, t]
    for i in range(3):
        problems.recent_items[b, i] = trace.items[b, t - 1 - i] if t > i else world.items_mean
    problems.epochs_to_change[b] = world.epochs_to_change[epoch]
    describe_slots(world, trace, state, problems, b, epoch, t * world.epoch_s)
    describe_hops(world, trace, state, problems, b, epoch, t)
    if world.weights_from_neighbour:
        for k in range(world.chain.shape[1]):
            best = 0.0
            for i in range(k):
                best = max(best, problems.rate_bps[b, i, k] / 8.0)
            if best > 0.0:
                problems.load_bytes_per_s[b, k] = best


@njit(cache=True)
def describe_slots(world, trace, state, problems, b, epoch, now):  # type: ignore[no-untyped-def]
    """Write what is knowable of the slots and the ground."""
    # Fields are taken out of their handles once: each access counts references.
    slots = world.chain.shape[1]
    power = world.power
    residual_s, step_s = world.outages.residual_s, world.outages.residual_step_s
    chain, nodes = world.chain, world.window_nodes[trace.window[b]]
    light, light_ahead, slot_mode = world.light, world.light_ahead, world.slot_mode
    reset_s, lost_s = trace.reset_s[b], trace.lost_s[b]
    battery_j, resident = state.battery_j[b], state.resident[b]
    battery_epoch, draw_j, ledger_j = state.battery_epoch[b], state.draw_j[b], state.energy_j[b]
    busy_s, expected_busy_s, known_s = state.busy_s[b], state.expected_busy_s[b], state.resets_known_s[b]
    flops_per_s, bandwidth = problems.flops_per_s[b], problems.bandwidth_bytes_per_s[b]
    power_w, memory_free = problems.power_w[b], problems.memory_free_bytes[b]
    seen_reboot_s, seen_busy_s, charge = problems.reboot_s[b], problems.busy_s[b], problems.charge[b]
    seen_light, seen_ahead, seen_resident = problems.light[b], problems.light_ahead[b], problems.resident[b]
    load_bytes_per_s = problems.load_bytes_per_s[b]
    for k in range(slots):
        v = chain[epoch, k]
        node = nodes[v]
        if battery_epoch[v] < epoch:
            advance_battery(
                battery_j, battery_epoch, draw_j, ledger_j, light, power, world.epoch_s, v, node, epoch
            )
        reboot_s = meet_resets(reset_s, world.reboot_s, resident, busy_s, expected_busy_s, known_s, v, now)
        mode = slot_mode[k]
        if mode < 0:
            mode = allowed_mode(battery_j[v], power)
        works = mode >= 0 and (k > 0 or world.sensing_computes) and lost_s[v] > now
        flops_per_s[k] = power.mode_flops_per_s[mode] if works else 0.0
        bandwidth[k] = power.mode_bandwidth_bytes_per_s[max(mode, 0)]
        power_w[k] = power.mode_w[max(mode, 0)] - power.idle_w
        memory_free[k] = world.memory_bytes if works else 0.0
        seen_reboot_s[k] = reboot_s
        seen_busy_s[k] = max(
            reboot_s, expected_wait_s(residual_s, step_s, now, busy_s[v], expected_busy_s[v])
        )
        charge[k] = battery_j[v] / power.capacity_j if power.enabled else 1.0
        seen_light[k] = light[epoch, node]
        seen_ahead[k] = light_ahead[epoch, node]
        seen_resident[k, 0] = resident[v, 0]
        seen_resident[k, 1] = resident[v, 1]
        load_bytes_per_s[k] = world.storage_bytes_per_s
    flops_per_s[slots] = world.ground_flops_per_s
    bandwidth[slots] = world.ground_bandwidth_bytes_per_s
    memory_free[slots] = world.ground_memory_bytes
    seen_busy_s[slots] = expected_wait_s(
        residual_s, step_s, now, state.ground_busy_s[b], state.expected_ground_busy_s[b]
    )
    charge[slots] = 1.0
    load_bytes_per_s[slots] = math.inf


@njit(cache=True, inline="always")
def downlink_share(factor, rain_db, elevation_deg, range_km):  # type: ignore[no-untyped-def]
    """Return the share of the clear-sky rate a downlink gives: the fade of its slice, and rain on its way."""
    if rain_db <= 0.0:
        return factor
    attenuation_db = rain_at_elevation_db(rain_db, elevation_deg)
    clear_bps = ka_rate_bps(elevation_deg, range_km, 0.0)
    return factor * ka_rate_bps(elevation_deg, range_km, attenuation_db) / clear_bps


@njit(cache=True)
def describe_hops(world, trace, state, problems, b, epoch, t):  # type: ignore[no-untyped-def]
    """Write what is knowable of every hop from slot i to slot j > i."""
    now = t * world.epoch_s
    detect_s = world.detect_s
    residual_s, step_s = world.outages.residual_s, world.outages.residual_step_s
    route_bps, latency_s = world.route_rate_bps[epoch, 0], world.route_latency_s[epoch]
    links, station = world.route_links[epoch], world.route_station[epoch]
    link_down_s, factor, rain_db = trace.link_down_s[b], trace.downlink_factor[b, t], trace.rain_db[b, t]
    elevation, range_km = world.route_elevation_deg[epoch], world.route_range_km[epoch]
    link_busy_s, expected_busy_s = state.link_busy_s[b], state.expected_link_busy_s[b]
    rate_bps, seen_latency_s = problems.rate_bps[b], problems.latency_s[b]
    release_s, primary_up = problems.release_s[b], problems.primary_up[b]
    state_age_s, seen_backup_bps = problems.state_age_s[b], problems.backup_bps[b]
    route_hops = problems.route_hops[b]
    slots = links.shape[1]
    # Routes share links: each is looked at once.
    seen = np.empty((link_busy_s.shape[0], 2))
    is_seen = np.zeros(link_busy_s.shape[0], np.bool_)
    for q in range(2):
        for i in range(slots):
            for j in range(i + 1, slots + 1):
                for x in range(links.shape[3]):
                    link = links[q, i, j, x]
                    if link < 0:
                        break
                    if not is_seen[link]:
                        is_seen[link] = True
                        link_now(
                            link, link_down_s, link_busy_s, expected_busy_s, residual_s, step_s, now, seen
                        )
    for i in range(slots):
        for j in range(i + 1, slots + 1):
            primary_bps = route_bps[0, i, j]
            if station[0, i, j] >= 0:
                primary_bps *= downlink_share(
                    factor[station[0, i, j]], rain_db[station[0, i, j]], elevation[0, i, j], range_km[0, i, j]
                )
            up, age, wait, count = route_now(links, 0, i, j, seen)
            backup_bps = route_bps[1, i, j]
            backup_wait = 0.0
            if backup_bps > 0.0:
                if station[1, i, j] >= 0:
                    backup_bps *= downlink_share(
                        factor[station[1, i, j]],
                        rain_db[station[1, i, j]],
                        elevation[1, i, j],
                        range_km[1, i, j],
                    )
                backup_up, _, backup_wait, _ = route_now(links, 1, i, j, seen)
                if not backup_up:
                    backup_bps = 0.0
            takes_backup = backup_bps > 0.0 and (primary_bps <= 0.0 or not up)
            if takes_backup:
                noticed = 0.0 if primary_bps <= 0.0 else max(0.0, detect_s - age)
                wait = max(noticed, backup_wait)
            rate_bps[i, j] = backup_bps if takes_backup else primary_bps
            seen_latency_s[i, j] = latency_s[1 if takes_backup else 0, i, j]
            route_hops[i, j] = count
            release_s[i, j] = wait
            primary_up[i, j] = 1.0 if up and primary_bps > 0.0 else 0.0
            state_age_s[i, j] = age
            seen_backup_bps[i, j] = backup_bps


@njit(cache=True)
def assemble(world, trace, state, problems, job, b, cuts, levels, stage_slot, stage_end):  # type: ignore[no-untyped-def]
    """Turn a feasible plan into stages, and the servers between them, of `job`.

    Returns
    -------
    stages : int
        Stages in use: slot 0 (it senses), the slots that hold blocks, the ground. Their slots and the block
        each ends before are written to `stage_slot` and `stage_end`.
    reload_bytes : float
        Weights that are not yet resident.
    error : float
        Summed error of the encodings.
    """
    now = (state.epoch[b] - state.start[b]) * world.epoch_s
    slots = cuts.shape[0]
    blocks = world.block_flops.shape[0]
    size = problems.items[b] / world.micro_batches
    content = problems.content[b]
    tokens = world.tokens > 0.0
    chain = world.chain[state.epoch[b]]
    block_flops, block_bytes, token_flops = world.block_flops, world.block_bytes, world.token_flops
    boundary_bytes, boundary_entries = world.boundary_bytes, world.boundary_entries
    encode_entries_per_s, decode_entries_per_s = world.encode_entries_per_s, world.decode_entries_per_s
    token_bytes, token_entries, error_table = world.token_bytes, world.token_entries, world.error
    resident, flops_per_s = problems.resident[b], problems.flops_per_s[b]
    bandwidth, load_bytes_per_s = problems.bandwidth_bytes_per_s[b], problems.load_bytes_per_s[b]
    power_w, reboot_s = problems.power_w[b], problems.reboot_s[b]
    reset_s, lost_s = trace.reset_s[b], trace.lost_s[b]
    busy_s, known_s = state.busy_s[b], state.resets_known_s[b]
    compute_s, token_compute_s, load_j = job.compute_s, job.token_compute_s, job.load_j
    stage_release_s, reload_s = job.stage_release_s, job.reload_s
    job_reset_s, reset_from_s, job_lost_s = job.reset_s, job.reset_from_s, job.lost_s
    hop_bits, token_bits, encode_s, decode_s = job.hop_bits, job.token_bits, job.encode_s, job.decode_s
    token_encode_s, token_decode_s = job.token_encode_s, job.token_decode_s
    reload_bytes = 0.0
    error = 0.0
    stages = 0
    boundary = 0
    for k in range(slots + 1):
        end = blocks if k == slots else cuts[k]
        if end == boundary and 0 < k < slots:
            continue
        s = stages
        if s > 0:
            level = 0
            if 0 < boundary < blocks:
                level = levels[stage_slot[s - 1]]
                error += error_table[boundary, level] * content
            hop_bits[s - 1] = 8.0 * boundary_bytes[boundary, level] * size
            entries = boundary_entries[boundary] * size
            encode_s[s - 1] = entries / encode_entries_per_s[level]
            decode_s[s] = entries / decode_entries_per_s[level]
            if tokens:
                token_bits[s - 1] = 8.0 * token_bytes[boundary, level] * size
                entries = token_entries[boundary] * size
                token_encode_s[s - 1] = entries / encode_entries_per_s[level]
                token_decode_s[s - 1] = entries / decode_entries_per_s[level]
        seconds = 0.0
        token_seconds = 0.0
        weights = 0.0
        missing = 0.0
        for block in range(boundary, end):
            block_weights = block_bytes[block]
            seconds += block_seconds(block_flops[block], block_weights, size, flops_per_s[k], bandwidth[k])
            if tokens:
                token_seconds += block_seconds(
                    token_flops[block], block_weights, size, flops_per_s[k], bandwidth[k]
                )
            weights += block_weights
            if k < slots and (block < resident[k, 0] or block >= resident[k, 1]):
                missing += block_weights
        compute_s[s] = seconds
        token_compute_s[s] = token_seconds
        stage_release_s[s] = now
        reload_s[s] = 0.0
        load_j[s] = 0.0
        if k < slots:
            v = chain[k]
            for i in range(reset_s.shape[1]):
                job_reset_s[s, i] = reset_s[v, i]
            reset_from_s[s] = max(now, known_s[v])
            job_lost_s[s] = lost_s[v]
            stage_release_s[s] = now + reboot_s[k]
            if end > boundary:
                reload_s[s] = weights / load_bytes_per_s[k]
                load_j[s] = missing / load_bytes_per_s[k] * power_w[k]
                stage_release_s[s] = max(stage_release_s[s], busy_s[v]) + missing / load_bytes_per_s[k]
                reload_bytes += missing
        else:
            for i in range(reset_s.shape[1]):
                job_reset_s[s, i] = math.inf
            job_lost_s[s] = math.inf
            if end > boundary:
                stage_release_s[s] = max(now, state.ground_busy_s[b])
        stage_slot[s] = k
        stage_end[s] = end
        stages += 1
        boundary = end
    return stages, reload_bytes, error


@njit(cache=True)
def calm_hops(world, trace, state, job, b, stages, stage_slot):  # type: ignore[no-untyped-def]
    """Give every hop of a job the primary route as it is now.

    Returns
    -------
    until_s : float
        Until then no hop or stage of the job meets a fault or a change of rate; `now` if one is down.
    """
    epoch = state.epoch[b]
    t = epoch - state.start[b]
    now = t * world.epoch_s
    until = now + world.epoch_s
    station, links = world.route_station[epoch, 0], world.route_links[epoch, 0]
    route_bps, latency_s = world.route_rate_bps[epoch, 0, 0], world.route_latency_s[epoch, 0]
    factor, rain_db, link_down_s = trace.downlink_factor[b, t], trace.rain_db[b, t], trace.link_down_s[b]
    elevation, range_km = world.route_elevation_deg[epoch, 0], world.route_range_km[epoch, 0]
    link_busy_s = state.link_busy_s[b]
    job_rate_bps, job_latency_s = job.route_rate_bps, job.route_latency_s
    hop_release_s, job_reset_s, job_lost_s = job.hop_release_s, job.reset_s, job.lost_s
    for s in range(stages - 1):
        i = stage_slot[s]
        j = stage_slot[s + 1]
        rate = route_bps[i, j]
        if station[i, j] >= 0:
            rate *= downlink_share(
                factor[station[i, j]], rain_db[station[i, j]], elevation[i, j], range_km[i, j]
            )
        if rate <= 0.0:
            until = now
        job_rate_bps[s, 0, 0] = rate
        job_latency_s[s, 0] = latency_s[i, j]
        release = now
        for x in range(links.shape[2]):
            link = links[i, j, x]
            if link < 0:
                break
            release = max(release, link_busy_s[link])
            for n in range(link_down_s.shape[1]):
                if link_down_s[link, n, 1] > now:
                    until = min(until, max(now, link_down_s[link, n, 0]))
                    break
        hop_release_s[s] = release
    for s in range(stages):
        until = min(until, job_lost_s[s])
        for i in range(job_reset_s.shape[1]):
            if job_reset_s[s, i] > now:
                until = min(until, job_reset_s[s, i])
                break
    return until


@njit(cache=True)
def give_routes(world, trace, state, job, b, stages, stage_slot):  # type: ignore[no-untyped-def]
    """Give every hop of a job its two routes, over all the epochs it may span."""
    epoch = state.epoch[b]
    t = epoch - state.start[b]
    station, links = world.route_station[epoch], world.route_links[epoch]
    route_bps, latency_s = world.route_rate_bps[epoch], world.route_latency_s[epoch]
    factor, rain_db = trace.downlink_factor[b], trace.rain_db[b]
    elevation, range_km = world.route_elevation_deg[epoch], world.route_range_km[epoch]
    job_rate_bps, job_latency_s, job_links = job.route_rate_bps, job.route_latency_s, job.route_links
    for s in range(stages - 1):
        i = stage_slot[s]
        j = stage_slot[s + 1]
        for q in range(2):
            for h in range(job_rate_bps.shape[2]):
                rate = route_bps[h, q, i, j]
                if station[q, i, j] >= 0:
                    rate *= downlink_share(
                        factor[t + h, station[q, i, j]],
                        rain_db[t + h, station[q, i, j]],
                        elevation[q, i, j],
                        range_km[q, i, j],
                    )
                job_rate_bps[s, q, h] = rate
            job_latency_s[s, q] = latency_s[q, i, j]
            for x in range(job_links.shape[2]):
                job_links[s, q, x] = links[q, i, j, x]


@njit(cache=True)
def run_calm(job, stages, now, until_s, micro_batches):  # type: ignore[no-untyped-def]
    """Execute a job that meets nothing, by the exact end points of the pipeline (see `planning.predict`).

    Returns
    -------
    end_s : float
        As `pipeline.run`; inf when the job outlasts `until_s`, and then it must be run there.
    """
    compute_s, stage_release_s = job.compute_s, job.stage_release_s
    encode_s, decode_s = job.encode_s, job.decode_s
    hop_bits, hop_release_s = job.hop_bits, job.hop_release_s
    rate_bps, latency_s = job.route_rate_bps, job.route_latency_s
    wire_bits, busy_s, send_s = job.wire_bits, job.busy_s, job.send_s
    first = 0.0
    last = 0.0
    for s in range(stages):
        first, last = serve(first, last, compute_s[s], stage_release_s[s] - now, micro_batches)
        for h in range(busy_s.shape[1]):
            busy_s[s, h] = 0.0
            send_s[s, h] = 0.0
        busy_s[s, 0] = compute_s[s] * micro_batches
        if s < stages - 1:
            sending = hop_bits[s] / rate_bps[s, 0, 0]
            first, last = serve(first, last, encode_s[s], 0.0, micro_batches)
            first, last = serve(first, last, sending, hop_release_s[s] - now, micro_batches)
            first += latency_s[s, 0]
            last += latency_s[s, 0]
            first, last = serve(first, last, decode_s[s + 1], 0.0, micro_batches)
            send_s[s, 0] = sending * micro_batches
            wire_bits[s] = hop_bits[s] * micro_batches
    return now + last if now + last <= until_s else math.inf


@njit(cache=True)
def expect(world, state, problems, job, b, stages, stage_slot, stage_end):  # type: ignore[no-untyped-def]
    """Book when an observer at the decision expects every stage and hop to be free: the nominal pipeline."""
    slots = world.chain.shape[1]
    epoch = state.epoch[b]
    now = (epoch - state.start[b]) * world.epoch_s
    m = world.micro_batches
    first = 0.0
    last = 0.0
    loop = 0.0
    slowest = 0.0
    boundary = 0
    for s in range(stages):
        k = stage_slot[s]
        loop += job.token_compute_s[s]
        slowest = max(slowest, job.token_compute_s[s])
        if s > 0:
            sender = stage_slot[s - 1]
            rate = problems.rate_bps[b, sender, k]
            sending = job.hop_bits[s - 1] / rate if rate > 0.0 else world.deadline_s
            first, last = serve(first, last, job.encode_s[s - 1], 0.0, m)
            first, last = serve(first, last, sending, problems.release_s[b, sender, k], m)
            until = now + min(last, world.deadline_s)
            for x in range(world.route_links.shape[4]):
                link = world.route_links[epoch, 0, sender, k, x]
                if link < 0:
                    break
                state.expected_link_busy_s[b, link] = max(state.expected_link_busy_s[b, link], until)
            first += problems.latency_s[b, sender, k]
            last += problems.latency_s[b, sender, k]
            first, last = serve(first, last, job.decode_s[s], 0.0, m)
            if world.tokens > 0.0 and rate > 0.0:
                sending = job.token_bits[s - 1] / rate
                encode_s, decode_s = job.token_encode_s[s - 1], job.token_decode_s[s - 1]
                slowest = max(slowest, sending, encode_s, decode_s)
                if s < stages - 1 or job.token_compute_s[s] > 0.0:
                    loop += encode_s + sending + decode_s + problems.latency_s[b, sender, k]
        if stage_end[s] > boundary:
            missing_s = 0.0
            if k < slots:
                for block in range(boundary, stage_end[s]):
                    if block < problems.resident[b, k, 0] or block >= problems.resident[b, k, 1]:
                        missing_s += world.block_bytes[block] / problems.load_bytes_per_s[b, k]
            first, last = serve(first, last, job.compute_s[s], problems.busy_s[b, k] + missing_s, m)
            until = now + min(last, world.deadline_s)
            if k == slots:
                state.expected_ground_busy_s[b] = max(state.expected_ground_busy_s[b], until)
            else:
                v = world.chain[epoch, k]
                state.expected_busy_s[b, v] = max(state.expected_busy_s[b, v], until)
        boundary = stage_end[s]
    if world.tokens > 0.0:
        loop += return_latency_s(problems, b, stages, stage_slot, stage_end)
        until = now + min(last + world.tokens * max(loop, m * slowest), world.deadline_s)
        for s in range(stages - 1):
            v = world.chain[epoch, stage_slot[s]]
            if stage_end[s] > (stage_end[s - 1] if s > 0 else 0):
                state.expected_busy_s[b, v] = max(state.expected_busy_s[b, v], until)


@njit(cache=True)
def book_use(world, state, problems, job, outcome, b, stages, stage_slot, stage_end):  # type: ignore[no-untyped-def]
    """Book what the job sent, drew and left in memory. Bytes count once a link of the primary route."""
    epoch = state.epoch[b]
    slots = world.chain.shape[1]
    chain = world.chain[epoch]
    transmit_w = world.transmit_w
    power_w, route_hops = problems.power_w[b], problems.route_hops[b]
    draw_j, resident = state.draw_j[b], state.resident[b]
    wire_bits, busy_s, send_s, load_j = job.wire_bits, job.busy_s, job.send_s, job.load_j
    hop_bits = outcome.hop_bits[b]
    span = draw_j.shape[1]
    boundary = 0
    sent_bytes = 0.0
    drawn_j = 0.0
    for s in range(stages - 1):
        k = stage_slot[s]
        hop_bits[k] = wire_bits[s]
        sent_bytes += wire_bits[s] / 8.0 * route_hops[k, stage_slot[s + 1]]
        v = chain[k]
        for h in range(span):
            drawn = busy_s[s, h] * power_w[k] + send_s[s, h] * transmit_w
            if h == 0:
                drawn += load_j[s]
            if drawn > 0.0:
                draw_j[v, (epoch + h) % span] += drawn
                drawn_j += drawn
        if stage_end[s] > boundary and k < slots:
            resident[v, 0] = boundary
            resident[v, 1] = stage_end[s]
        boundary = stage_end[s]
    outcome.bytes[b] = sent_bytes
    outcome.energy_j[b] = drawn_j
    state.energy_j[b, 3] += drawn_j


@njit(cache=True)
def book_time(world, state, job, b, stages, stage_slot, stage_end, end_s):  # type: ignore[no-untyped-def]
    """Book until when stages and links of the primary routes are busy, and which resets the job has met."""
    slots = world.chain.shape[1]
    epoch = state.epoch[b]
    deadline_s = (epoch - state.start[b]) * world.epoch_s + world.deadline_s
    last_batch = world.micro_batches - 1
    boundary = 0
    for s in range(stages):
        k = stage_slot[s]
        if s + 1 < stages:
            for x in range(world.route_links.shape[4]):
                link = world.route_links[epoch, 0, k, stage_slot[s + 1], x]
                if link < 0:
                    break
                state.link_busy_s[b, link] = max(state.link_busy_s[b, link], job.hop_free_s[s])
        free_s = job.times_s[s, last_batch, COMPUTE_END]
        if world.tokens > 0.0:
            free_s = max(free_s, end_s)
        if stage_end[s] > boundary:
            if k == slots:
                state.ground_busy_s[b] = max(state.ground_busy_s[b], free_s)
            else:
                v = world.chain[epoch, k]
                state.busy_s[b, v] = max(state.busy_s[b, v], free_s)
                for i in range(job.resets_met[s]):
                    reset = job.reset_s[s, i]
                    if reset + world.reboot_s + job.reload_s[s] <= deadline_s:
                        state.resets_known_s[b, v] = max(state.resets_known_s[b, v], reset)
        boundary = stage_end[s]


@njit(cache=True)
def accuracy_drop(knots, error):  # type: ignore[no-untyped-def]
    """Map a summed error to an accuracy drop by ``knots`` (2, m); the last slope goes on, to at most 1."""
    i = 1
    while i < knots.shape[1] - 1 and error > knots[0, i]:
        i += 1
    slope = (knots[1, i] - knots[1, i - 1]) / (knots[0, i] - knots[0, i - 1])
    return min(1.0, knots[1, i - 1] + (error - knots[0, i - 1]) * slope)


@njit(cache=True)
def return_latency_s(problems, b, stages, stage_slot, stage_end):  # type: ignore[no-untyped-def]
    """Return the latency from the last stage that holds blocks back to slot 0, where the next token starts."""
    last = stages - 1
    while last > 0 and stage_end[last] == stage_end[last - 1]:
        last -= 1
    slot = stage_slot[last]
    return problems.latency_s[b, 0, slot] if slot > 0 else 0.0


@njit(cache=True)
def step_world(world, trace, state, problems, outcome, job, scratch, cuts, levels, b):  # type: ignore[no-untyped-def]
    """Take one step of world `b` under the plan (cuts, levels).

    `job` and `scratch` (2, K+1) are work space. The outcome of the job is written to `outcome`; `problems`
    then holds the next decision, unless the episode is over.

    Returns
    -------
    over : bool
        The window is used up.
    """
    now = (state.epoch[b] - state.start[b]) * world.epoch_s
    stage_slot = scratch[0]
    stage_end = scratch[1]
    outcome.bytes[b] = 0.0
    outcome.energy_j[b] = 0.0
    outcome.reload_bytes[b] = 0.0
    outcome.accuracy_drop[b] = 0.0
    outcome.hop_bits[b, :] = 0.0

    feasible, repaired = False, False
    if cuts[b, 0] != NO_PLAN:
        feasible, repaired = repair(
            cuts[b], world.block_memory_bytes, problems.memory_free_bytes[b], world.ground_hosts
        )
    end_s = now + world.deadline_s
    if feasible:
        stages, outcome.reload_bytes[b], error = assemble(
            world, trace, state, problems, job, b, cuts[b], levels[b], stage_slot, stage_end
        )
        outcome.accuracy_drop[b] = accuracy_drop(world.drop_knots, error)
        calm_until_s = calm_hops(world, trace, state, job, b, stages, stage_slot)
        end_s = math.inf
        if calm_until_s > now and world.tokens <= 0.0:
            end_s = run_calm(job, stages, now, min(calm_until_s, now + world.deadline_s), world.micro_batches)
        if end_s == math.inf:
            give_routes(world, trace, state, job, b, stages, stage_slot)
            # What ends before the next decision leaves nobody busy; only this needs the books of time.
            expect(world, state, problems, job, b, stages, stage_slot, stage_end)
            end_s = run(
                job,
                stages,
                now,
                now + world.deadline_s,
                world.epoch_s,
                world.reboot_s,
                world.detect_s,
                world.tokens,
                return_latency_s(problems, b, stages, stage_slot, stage_end),
                trace.link_down_s[b],
            )
            book_time(world, state, job, b, stages, stage_slot, stage_end, end_s)
        book_use(world, state, problems, job, outcome, b, stages, stage_slot, stage_end)
        problems.previous_cuts[b, :] = cuts[b]
        problems.previous_levels[b, :] = levels[b]
        over_limit = error > world.error_budget * (1.0 + 1e-12)
    else:
        over_limit = False
    dropped = feasible and end_s >= now + world.deadline_s
    failed = dropped or over_limit or not feasible
    outcome.latency_s[b] = world.deadline_s if failed else end_s - now
    outcome.failed[b] = 1.0 if failed else 0.0
    outcome.dropped[b] = 1.0 if dropped else 0.0
    outcome.infeasible[b] = 0.0 if feasible else 1.0
    outcome.repaired[b] = 1.0 if repaired else 0.0

    state.epoch[b] += 1
    over = state.epoch[b] - state.start[b] >= world.episode_epochs
    if over:
        for v in range(state.battery_j.shape[1]):
            node = world.window_nodes[trace.window[b], v]
            if node >= 0:
                advance_battery(
                    state.battery_j[b],
                    state.battery_epoch[b],
                    state.draw_j[b],
                    state.energy_j[b],
                    world.light,
                    world.power,
                    world.epoch_s,
                    v,
                    node,
                    state.epoch[b],
                )
    else:
        describe(world, trace, state, problems, b)
    return over


@njit(cache=True)
def step_worlds(world, trace, state, problems, outcome, job, scratch, cuts, levels, over):  # type: ignore[no-untyped-def]
    """Take one step of every world whose episode is not over."""
    for b in range(over.shape[0]):
        if not over[b]:
            over[b] = step_world(world, trace, state, problems, outcome, job, scratch, cuts, levels, b)


@njit(cache=True)
def begin_worlds(  # type: ignore[no-untyped-def]
    world,
    trace,
    state,
    problems,
    which,
    seeds,
    episodes,
    windows,
    link_ends,
    link_is_downlink,
    planes,
    anomaly,
):
    """Draw the traces of the worlds `which` and put them at their start.

    Returns
    -------
    outages, resets : int
        What the trace must have room for; when it has less, nothing is begun and the caller grows it.
    """
    outages = 0
    resets = 0
    for i in range(which.shape[0]):
        b = which[i]
        window = windows[b]
        first = window * world.episode_epochs
        found = draw_world(
            seeds[b],
            episodes[b],
            b,
            window,
            trace,
            world.law,
            world.outages,
            world.window_links[window],
            link_ends,
            link_is_downlink,
            world.window_nodes[window],
            planes,
            anomaly[first : first + world.episode_epochs],
        )
        outages = max(outages, found[0])
        resets = max(resets, found[1])
    if outages <= trace.link_down_s.shape[2] and resets <= trace.reset_s.shape[2]:
        for i in range(which.shape[0]):
            begin_world(world, trace, state, problems, which[i])
    return outages, resets


@njit(cache=True)
def draw_window(seed, episode, windows):  # type: ignore[no-untyped-def]
    """Return which of the split's windows an episode plays."""
    return int(uniform(stream_key(seed, episode, STREAM_WINDOW), 0, 0) * windows)


def split_windows(windows: int, split: Split) -> range:
    """Return the windows of a split: the first 60 % train, then 20 % dev, then 20 % test."""
    edges = {"train": (0.0, 0.6), "dev": (0.6, 0.8), "test": (0.8, 1.0)}
    if split not in edges:
        raise ValueError(f"split = {split!r}: must be one of {', '.join(map(repr, edges))}")
    low, high = (round(windows * share) for share in edges[split])
    return range(low, high)


class Snapshot(NamedTuple):
    """A copy of a simulator's worlds."""

    trace: Trace
    state: State
    problems: Problems
    seeds: NDArray[np.uint64]
    episodes: Ints
    over: NDArray[np.bool_]


ArraysT = TypeVar("ArraysT", Trace, State, Problems)


def copy_arrays(arrays: ArraysT) -> ArraysT:
    """Return the same NamedTuple over copies of its arrays."""
    return type(arrays)._make(field.copy() for field in arrays)


@njit(cache=True)
def forget_future(world, trace, state, b):  # type: ignore[no-untyped-def]
    """Put in place of the true busy times of world `b` what an observer expects of them."""
    now = (state.epoch[b] - state.start[b]) * world.epoch_s
    residual_s, step_s = world.outages.residual_s, world.outages.residual_step_s
    for v in range(state.busy_s.shape[1]):
        wait = expected_wait_s(residual_s, step_s, now, state.busy_s[b, v], state.expected_busy_s[b, v])
        state.busy_s[b, v] = now + wait
        state.expected_busy_s[b, v] = now + wait
        state.resets_known_s[b, v] = min(state.resets_known_s[b, v], now)
    for w in range(state.link_busy_s.shape[1]):
        wait = expected_wait_s(
            residual_s, step_s, now, state.link_busy_s[b, w], state.expected_link_busy_s[b, w]
        )
        state.link_busy_s[b, w] = now + wait
        state.expected_link_busy_s[b, w] = now + wait
    wait = expected_wait_s(residual_s, step_s, now, state.ground_busy_s[b], state.expected_ground_busy_s[b])
    state.ground_busy_s[b] = now + wait
    state.expected_ground_busy_s[b] = now + wait


class Handles(NamedTuple):
    """The simulator's arrays as the kernels take them (see `sat_env.handles`)."""

    world: Any
    trace: Any
    state: Any
    problems: Any
    outcome: Any
    job: Any


class Simulator:
    """B worlds of one scenario: the arrays of `State`, `Trace` and `Problems`, and the kernels over them.

    Parameters
    ----------
    prepared : Prepared
        From `sat_env.world.prepare`.
    worlds : int
        B, at least 1.
    split : {"train", "dev", "test"}
        Which windows episodes are drawn from.
    """

    def __init__(self, prepared: Prepared, worlds: int = 1, split: Split = "train") -> None:
        if worlds < 1:
            raise ValueError(f"worlds = {worlds}: must be at least 1")
        self.prepared = prepared
        self.world = prepared.world
        self.worlds = worlds
        self.split = split
        self.windows = split_windows(prepared.scenario.windows, split)
        world = self.world
        slots, levels = world.chain.shape[1], len(world.encode_entries_per_s)
        span = world.route_rate_bps.shape[1]
        self.slots, self.blocks, self.levels = slots, len(world.block_flops), levels
        self.seeds = np.zeros(worlds, np.uint64)
        self.episodes = np.zeros(worlds, np.int64)
        self.state = empty_state(world, worlds)
        self.problems = empty_problems(worlds, slots)
        self.outcome = empty_outcome(worlds, slots)
        self.over = np.ones(worlds, np.bool_)
        self.cuts = np.zeros((worlds, slots), np.int64)
        self.plan_levels = np.zeros((worlds, slots), np.int64)
        self.trace = self._empty_trace(INITIAL_INTERVALS, 1)
        self.job = job_run(slots + 1, world.micro_batches, span, world.route_links.shape[4], 1)
        self.scratch = np.zeros((2, slots + 1), np.int64)
        self._point()

    def _point(self) -> None:
        """Make the handles the kernels take; again whenever an array is replaced."""
        self.handles = Handles(
            world=world_handle(self.world),
            trace=trace_handle(self.trace),
            state=state_handle(self.state),
            problems=problems_handle(self.problems),
            outcome=outcome_handle(self.outcome),
            job=job_run_handle(self.job),
        )

    def _empty_trace(self, outages: int, resets: int) -> Trace:
        world, worlds = self.world, self.worlds
        nodes, links = world.window_nodes.shape[1], world.window_links.shape[1]
        epochs, span = world.episode_epochs, world.route_rate_bps.shape[1]
        stations = max(1, len(self.prepared.scenario.ground.stations))
        return Trace(
            window=np.zeros(worlds, np.int64),
            link_down_s=np.full((worlds, links, outages, 2), np.inf),
            reset_s=np.full((worlds, nodes, resets), np.inf),
            lost_s=np.full((worlds, nodes), np.inf),
            items=np.ones((worlds, epochs)),
            content=np.ones((worlds, epochs)),
            downlink_factor=np.ones((worlds, epochs + span, stations)),
            rain_db=np.zeros((worlds, epochs + span, stations)),
            charge=np.ones((worlds, nodes)),
        )

    def _grow_trace(self, outages: int, resets: int) -> None:
        old = self.trace
        outages = max(outages, old.link_down_s.shape[2])
        resets = max(resets, old.reset_s.shape[2])
        new = self._empty_trace(outages, resets)
        for name in Trace._fields:
            if name not in ("link_down_s", "reset_s"):
                getattr(new, name)[...] = getattr(old, name)
        new.link_down_s[:, :, : old.link_down_s.shape[2]] = old.link_down_s
        new.reset_s[:, :, : old.reset_s.shape[2]] = old.reset_s
        self.trace = new
        span = self.world.route_rate_bps.shape[1]
        self.job = job_run(
            self.slots + 1, self.world.micro_batches, span, self.world.route_links.shape[4], resets
        )
        self._point()

    def begin(
        self,
        which: Ints | None = None,
        seeds: NDArray[np.uint64] | None = None,
        windows: Ints | None = None,
    ) -> None:
        """Start an episode in the worlds `which` (default all).

        Parameters
        ----------
        which : (n,) int64
        seeds : (n,) uint64, optional
            New seeds; the episode count starts again from 0. Without them, the next episode of the old seed.
        windows : (n,) int64, optional
            The windows to play; default: drawn from the split by the seed.
        """
        if which is None:
            which = np.arange(self.worlds)
        if seeds is not None:
            self.seeds[which] = seeds
            self.episodes[which] = 0
        chosen = np.array(self.trace.window)
        if windows is None:
            for b in which:
                drawn = draw_window(self.seeds[b], self.episodes[b], len(self.windows))
                chosen[b] = self.windows[drawn]
        else:
            for window in np.atleast_1d(windows):
                if window not in self.windows:
                    raise ValueError(
                        f"window = {window}: must be in {self.windows.start}..{self.windows.stop - 1}, "
                        f"the {self.split} windows"
                    )
            chosen[which] = windows
        while True:
            contacts = self.prepared.contacts
            outages, resets = begin_worlds(
                self.handles.world,
                self.handles.trace,
                self.handles.state,
                self.handles.problems,
                which,
                self.seeds,
                self.episodes,
                chosen,
                contacts.link_ends,
                contacts.link_is_downlink,
                contacts.plane,
                contacts.anomaly,
            )
            if outages <= self.trace.link_down_s.shape[2] and resets <= self.trace.reset_s.shape[2]:
                break
            self._grow_trace(outages, resets)
        self.episodes[which] += 1
        self.over[which] = False

    def step(self, cuts: Ints, levels: Ints) -> None:
        """Take one step of every running world.

        Parameters
        ----------
        cuts, levels : (B, K) int64
            Plans; trusted to be in range (encodings guarantee it, `Plan.check` checks it). A first cut of
            `NO_PLAN` declines the job.
        """
        self.cuts[...] = cuts
        self.plan_levels[...] = levels
        step_worlds(
            self.handles.world,
            self.handles.trace,
            self.handles.state,
            self.handles.problems,
            self.handles.outcome,
            self.handles.job,
            self.scratch,
            self.cuts,
            self.plan_levels,
            self.over,
        )

    def snapshot(self) -> Snapshot:
        """Return a copy of everything the worlds will ever depend on; plain arrays, so it can be pickled."""
        return Snapshot(
            trace=copy_arrays(self.trace),
            state=copy_arrays(self.state),
            problems=copy_arrays(self.problems),
            seeds=self.seeds.copy(),
            episodes=self.episodes.copy(),
            over=self.over.copy(),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Put the worlds back where `snapshot` was taken.

        Raises
        ------
        ValueError
            The snapshot is of another number of worlds, or of another scenario.
        """
        if snapshot.state.battery_j.shape != self.state.battery_j.shape:
            raise ValueError(
                f"snapshot = {snapshot.state.battery_j.shape[0]} worlds of "
                f"{snapshot.state.battery_j.shape[1]} satellites: must be of the same scenario and "
                f"{self.worlds} worlds"
            )
        self._grow_trace(snapshot.trace.link_down_s.shape[2], snapshot.trace.reset_s.shape[2])
        self.trace = copy_arrays(snapshot.trace)
        self.state = copy_arrays(snapshot.state)
        self.problems = copy_arrays(snapshot.problems)
        self.seeds[...] = snapshot.seeds
        self.episodes[...] = snapshot.episodes
        self.over[...] = snapshot.over
        self._point()

    def imagine(self, seed: int) -> Simulator:
        """Return a copy of the worlds whose future is drawn afresh: for agents that look ahead.

        The copy starts from what is known now; faults, weather and jobs after now are drawn from `seed`
        alone, so the copy tells nothing of the true trace.

        Raises
        ------
        ValueError
            An episode is over, or `seed` is negative.
        """
        if seed < 0:
            raise ValueError(f"seed = {seed}: must be at least 0")
        if self.over.any():
            raise ValueError("imagine: the episode of a world is over; begin it first")
        copy = Simulator(self.prepared, self.worlds, self.split)
        copy.restore(self.snapshot())
        contacts, law, outages = self.prepared.contacts, self.world.law, self.world.outages
        for b in range(self.worlds):
            window = int(self.trace.window[b])
            t = int(self.state.epoch[b] - self.state.start[b])
            now = t * self.world.epoch_s
            forget_future(copy.handles.world, copy.handles.trace, copy.handles.state, b)
            links, nodes = self.world.window_links[window], self.world.window_nodes[window]
            first = int(self.state.start[b])
            anomaly = contacts.anomaly[first : first + self.world.episode_epochs]
            key = np.uint64(stream_key(np.uint64(seed + b), 0, STREAM_LINKS))
            while True:
                horizon_s = copy.trace.downlink_factor.shape[1] * self.world.epoch_s
                intervals = redraw_links(
                    law,
                    outages,
                    key,
                    links,
                    contacts.link_is_downlink,
                    now,
                    horizon_s,
                    copy.trace.link_down_s[b],
                )
                resets = redraw_rest(law, np.uint64(seed + b), now, t, nodes, anomaly, copy.handles.trace, b)
                if intervals <= copy.trace.link_down_s.shape[2] and resets <= copy.trace.reset_s.shape[2]:
                    break
                copy._grow_trace(intervals, resets)
        return copy

    def __getstate__(self) -> tuple[Any, ...]:
        return self.prepared.scenario, self.worlds, self.split, self.snapshot()

    def __setstate__(self, saved: tuple[Any, ...]) -> None:
        scenario, worlds, split, snapshot = saved
        self.__init__(prepare(scenario), worlds, split)  # type: ignore[misc]
        self.restore(snapshot)

    def problem(self, b: int = 0) -> PlanningProblem:
        """Return the PlanningProblem of world `b`."""
        return planning_problem(self.world, self.problems, b, self.prepared.scenario.forecast_epochs)
