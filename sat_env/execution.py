"""One job on one world: a plan becomes stages and hops, is executed, and is booked."""

from __future__ import annotations

import math

import numpy as np

from sat_env.kernels import part, small
from sat_env.knowledge import ground_bps, meet_outages
from sat_env.pipeline import COMPUTE_END, epoch_of
from sat_env.planning.predict import serve
from sat_env.problem import block_seconds
from sat_env.trace import fill


@part
def assemble(world, trace, state, problems, row, job, b, cuts, levels, stage_slot, stage_end):  # type: ignore[no-untyped-def]
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
    size = problems.items[row] / world.micro_batches
    content = problems.content[row]
    tokens = world.tokens > 0.0
    chain = world.chain[state.epoch[b]]
    block_flops, block_bytes, token_flops = world.block_flops, world.block_bytes, world.token_flops
    boundary_bytes, boundary_entries = world.boundary_bytes, world.boundary_entries
    encode_entries_per_s, decode_entries_per_s = world.encode_entries_per_s, world.decode_entries_per_s
    token_bytes, token_entries, error_table = world.token_bytes, world.token_entries, world.error
    resident, flops_per_s = problems.resident[row], problems.flops_per_s[row]
    bandwidth, load_bytes_per_s = problems.bandwidth_bytes_per_s[row], problems.load_bytes_per_s[row]
    power_w, reboot_s = problems.power_w[row], problems.reboot_s[row]
    reset_s, lost_s = trace.reset_s[b], trace.lost_s[b]
    busy_s, known_s = state.busy_s[b], state.resets_known_s[b]
    compute_s, token_compute_s, load_j = job.compute_s, job.token_compute_s, job.load_j
    stage_release_s, reload_s = job.stage_release_s, job.reload_s
    job_reset_s, reset_from_s, job_lost_s = job.reset_s, job.reset_from_s, job.lost_s
    hop_bits, token_bits, encode_s, decode_s = job.hop_bits, job.token_bits, job.encode_s, job.decode_s
    token_encode_s, token_decode_s = job.token_encode_s, job.token_decode_s
    any_fault, any_busy = state.first_fault_s[b] < math.inf, state.slots_free_s[b] > now
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
        fill(job_reset_s[s], math.inf)
        job_lost_s[s] = math.inf
        compute_s[s] = seconds
        token_compute_s[s] = token_seconds
        stage_release_s[s] = now
        reload_s[s] = 0.0
        load_j[s] = 0.0
        if k < slots:
            v = chain[k]
            if any_fault:
                for i in range(reset_s.shape[1]):
                    job_reset_s[s, i] = reset_s[v, i]
                reset_from_s[s] = max(now, known_s[v])
                job_lost_s[s] = lost_s[v]
            stage_release_s[s] = now + reboot_s[k]
            if end > boundary:
                reload_s[s] = weights / load_bytes_per_s[k]
                load_j[s] = missing / load_bytes_per_s[k] * power_w[k]
                free_s = max(stage_release_s[s], busy_s[v]) if any_busy else stage_release_s[s]
                stage_release_s[s] = free_s + missing / load_bytes_per_s[k]
                reload_bytes += missing
        elif end > boundary:
            stage_release_s[s] = max(now, state.ground_busy_s[b])
        stage_slot[s] = k
        stage_end[s] = end
        stages += 1
        boundary = end
    return stages, reload_bytes, error


@part
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
    up_s, next_s, link_busy_s = state.link_up_s[b], state.link_next_s[b], state.link_busy_s[b]
    any_busy = state.links_free_s[b] > now
    job_rate_bps, job_latency_s = job.route_rate_bps, job.route_latency_s
    hop_release_s, job_reset_s, job_lost_s = job.hop_release_s, job.reset_s, job.lost_s
    for s in range(stages - 1):
        i = stage_slot[s]
        j = stage_slot[s + 1]
        rate = route_bps[i, j]
        if station[i, j] >= 0:
            rate = ground_bps(world, trace, b, epoch, t, np.int64(0), np.int64(0), i)
        if rate <= 0.0:
            until = now
        job_rate_bps[s, 0, 0] = rate
        job_latency_s[s, 0] = latency_s[i, j]
        release = now
        for x in range(links.shape[2]):
            link = np.int64(links[i, j, x])
            if link < 0:
                break
            if any_busy:
                release = max(release, link_busy_s[link])
            if next_s[link] <= now:
                meet_outages(trace, state, b, link, now)
            until = min(until, next_s[link]) if up_s[link] <= now else now
        hop_release_s[s] = release
    for s in range(stages):
        until = min(until, job_lost_s[s])
        for i in range(job_reset_s.shape[1]):
            if job_reset_s[s, i] > now:
                until = min(until, job_reset_s[s, i])
                break
    return until


@part
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


@part
def give_routes(world, trace, state, job, b, stages, stage_slot):  # type: ignore[no-untyped-def]
    """Give every hop of a job its two routes, over all the epochs it may span."""
    epoch = state.epoch[b]
    t = epoch - state.start[b]
    station, links = world.route_station[epoch], world.route_links[epoch]
    route_bps, latency_s = world.route_rate_bps[epoch], world.route_latency_s[epoch]
    job_rate_bps, job_latency_s, job_links = job.route_rate_bps, job.route_latency_s, job.route_links
    for s in range(stages - 1):
        i = stage_slot[s]
        j = stage_slot[s + 1]
        for q in range(2):
            for h in range(job_rate_bps.shape[2]):
                rate = route_bps[h, q, i, j]
                if station[q, i, j] >= 0:
                    rate = ground_bps(world, trace, b, epoch, t, h, q, i)
                job_rate_bps[s, q, h] = rate
            job_latency_s[s, q] = latency_s[q, i, j]
            for x in range(job_links.shape[2]):
                job_links[s, q, x] = links[q, i, j, x]


@part
def expect(world, state, problems, row, job, b, stages, stage_slot, stage_end):  # type: ignore[no-untyped-def]
    """Book when an observer at the decision expects every stage and hop to be free: the nominal pipeline."""
    slots = world.chain.shape[1]
    epoch = state.epoch[b]
    now = (epoch - state.start[b]) * world.epoch_s
    m = world.micro_batches
    first = problems.reboot_s[row, 0]  # the sensing satellite hands nothing on before
    last = first
    loop = 0.0
    slowest = 0.0
    boundary = 0
    for s in range(stages):
        k = stage_slot[s]
        loop += job.token_compute_s[s]
        slowest = max(slowest, job.token_compute_s[s])
        if s > 0:
            sender = stage_slot[s - 1]
            rate = problems.rate_bps[row, sender, k]
            sending = job.hop_bits[s - 1] / rate if rate > 0.0 else world.deadline_s
            first, last = serve(first, last, job.encode_s[s - 1], 0.0, m)
            first, last = serve(first, last, sending, problems.release_s[row, sender, k], m)
            until = now + min(last, world.deadline_s)
            for x in range(world.route_links.shape[4]):
                link = world.route_links[epoch, 0, sender, k, x]
                if link < 0:
                    break
                state.expected_link_busy_s[b, link] = max(state.expected_link_busy_s[b, link], until)
            first += problems.latency_s[row, sender, k]
            last += problems.latency_s[row, sender, k]
            first, last = serve(first, last, job.decode_s[s], 0.0, m)
            if world.tokens > 0.0 and rate > 0.0:
                sending = job.token_bits[s - 1] / rate
                encode_s, decode_s = job.token_encode_s[s - 1], job.token_decode_s[s - 1]
                slowest = max(slowest, sending, encode_s, decode_s)
                if s < stages - 1 or job.token_compute_s[s] > 0.0:
                    loop += encode_s + sending + decode_s + problems.latency_s[row, sender, k]
        if stage_end[s] > boundary:
            missing_s = 0.0
            if k < slots:
                for block in range(boundary, stage_end[s]):
                    if block < problems.resident[row, k, 0] or block >= problems.resident[row, k, 1]:
                        missing_s += world.block_bytes[block] / problems.load_bytes_per_s[row, k]
            first, last = serve(first, last, job.compute_s[s], problems.busy_s[row, k] + missing_s, m)
            until = now + min(last, world.deadline_s)
            if k == slots:
                state.expected_ground_busy_s[b] = max(state.expected_ground_busy_s[b], until)
            else:
                v = world.chain[epoch, k]
                state.expected_busy_s[b, v] = max(state.expected_busy_s[b, v], until)
        boundary = stage_end[s]
    if world.tokens > 0.0:
        loop += return_latency_s(problems, row, stages, stage_slot, stage_end)
        until = now + min(last + world.tokens * max(loop, m * slowest), world.deadline_s)
        for s in range(stages):
            if stage_end[s] == (stage_end[s - 1] if s > 0 else 0):
                continue
            if stage_slot[s] == slots:
                state.expected_ground_busy_s[b] = max(state.expected_ground_busy_s[b], until)
            else:
                v = world.chain[epoch, stage_slot[s]]
                state.expected_busy_s[b, v] = max(state.expected_busy_s[b, v], until)


@part
def book_use(world, state, problems, row, job, outcome, b, stages, stage_slot, stage_end):  # type: ignore[no-untyped-def]
    """Book what the job sent, drew and left in memory. Bytes count once a link of the primary route.

    What a reset made it load again is drawn in the epoch in which the load ends: before, nobody knows that no other
    reset comes between.
    """
    epoch = state.epoch[b]
    slots = world.chain.shape[1]
    chain = world.chain[epoch]
    transmit_w = world.transmit_w
    power_w = problems.power_w[row]
    draw_j, resident = state.draw_j[b], state.resident[b]
    wire_bits, busy_s, send_s, load_j = job.wire_bits, job.busy_s, job.send_s, job.load_j
    hop_bits, slot_j = outcome.hop_bits[b], outcome.slot_j[b]
    span = draw_j.shape[1]
    first = epoch % span
    now = (epoch - state.start[b]) * world.epoch_s
    any_fault = job.extent[1] == 0 and state.first_fault_s[b] < now + world.deadline_s
    boundary = 0
    sent_bytes = 0.0
    drawn_j = 0.0
    for s in range(stages - 1):
        k = stage_slot[s]
        hop_bits[k] = wire_bits[s]
        sent_bytes += wire_bits[s] / 8.0 * links_of_route(world.route_links[epoch, 0, k, stage_slot[s + 1]])
        v = chain[k]
        if any_fault and stage_end[s] > boundary:
            for i in range(job.resets_met[s]):
                if loaded_again(job, s, i, world.reboot_s, now + world.deadline_s):
                    outcome.reload_bytes[b] += job.reload_s[s] * problems.load_bytes_per_s[row, k]
                    drawn = job.reload_s[s] * power_w[k]
                    loaded_s = job.reset_s[s, i] + world.reboot_s + job.reload_s[s]
                    h = epoch_of(loaded_s, now, world.epoch_s, span)
                    draw_j[v, first + h if first + h < span else first + h - span] += drawn
                    slot_j[k] += drawn
                    drawn_j += drawn
        for h in range(span):
            drawn = busy_s[s, h] * power_w[k] + send_s[s, h] * transmit_w
            if h == 0:
                drawn += load_j[s]
            if drawn > 0.0:
                draw_j[v, first + h if first + h < span else first + h - span] += drawn
                slot_j[k] += drawn
                drawn_j += drawn
        if stage_end[s] > boundary and k < slots:
            resident[v, 0] = boundary
            resident[v, 1] = stage_end[s]
        boundary = stage_end[s]
    outcome.bytes[b] = sent_bytes
    outcome.energy_j[b] = drawn_j
    state.energy_j[b, 3] += drawn_j


@part
def loaded_again(job, s, i, reboot_s, deadline_s):  # type: ignore[no-untyped-def]
    """Tell whether stage `s` of a job loaded its blocks again after reset `i`, before the next one and the deadline."""
    reset = job.reset_s[s, i]
    loaded = reset + reboot_s + job.reload_s[s]
    interrupted = i + 1 < job.resets_met[s] and job.reset_s[s, i + 1] < loaded
    return reset > job.reset_from_s[s] and loaded <= deadline_s and not interrupted


@small
def links_of_route(links):  # type: ignore[no-untyped-def]
    """Return how many links a route has; ``links`` (X,) is -1 padded."""
    count = 0
    while count < links.shape[0] and links[count] >= 0:
        count += 1
    return count


@part
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
                state.links_free_s[b] = max(state.links_free_s[b], job.hop_free_s[s])
        free_s = job.times_s[s, last_batch, COMPUTE_END]
        if world.tokens > 0.0:
            free_s = max(free_s, end_s)
        if stage_end[s] > boundary:
            if k == slots:
                state.ground_busy_s[b] = max(state.ground_busy_s[b], free_s)
                state.slots_free_s[b] = max(state.slots_free_s[b], free_s)
            else:
                v = world.chain[epoch, k]
                state.busy_s[b, v] = max(state.busy_s[b, v], free_s)
                state.slots_free_s[b] = max(state.slots_free_s[b], free_s)
                for i in range(job.resets_met[s]):
                    reset = job.reset_s[s, i]
                    if reset + world.reboot_s + job.reload_s[s] <= deadline_s:
                        state.resets_known_s[b, v] = max(state.resets_known_s[b, v], reset)
        boundary = stage_end[s]


@part
def accuracy_drop(knots, error):  # type: ignore[no-untyped-def]
    """Map a summed error to an accuracy drop by ``knots`` (2, m); the last slope goes on, to at most 1."""
    i = 1
    while i < knots.shape[1] - 1 and error > knots[0, i]:
        i += 1
    slope = (knots[1, i] - knots[1, i - 1]) / (knots[0, i] - knots[0, i - 1])
    return min(1.0, knots[1, i - 1] + (error - knots[0, i - 1]) * slope)


@part
def return_latency_s(problems, row, stages, stage_slot, stage_end):  # type: ignore[no-untyped-def]
    """Return the latency from the last stage that holds blocks back to slot 0, where the next token starts."""
    last = stages - 1
    while last > 0 and stage_end[last] == stage_end[last - 1]:
        last -= 1
    slot = stage_slot[last]
    return problems.latency_s[row, 0, slot] if slot > 0 else 0.0
