"""Pipelined execution of one job over stages and hops: the recurrence, and the closed form that tests it.

Stage s computes micro-batch m, encodes it, and hop s carries it to stage s + 1, which decodes it::

    start of compute(s, m) = max(stage free, arrival(s, m), slot at the sender free)
    start of send(s, m)    = max(hop free, encoded(s, m), slot at the receiver free + credit)
    arrival(s + 1, m)      = decoded(end of send(s, m) + latency of the route)

Encoder and decoder are servers of their own (the CPU beside the accelerator). On the true trace a rate is
piecewise constant; a route goes down in mid-transfer, and the transfer waits or, `detect_s` after the
break, moves to the backup; what was sent within the last round trip was not acknowledged and is sent
again. A reset loses the micro-batch in flight; the stage takes it again after reboot and reload.
The last stage is the ground; with no blocks there it computes for 0 s and receives the result.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sat_env.handles import handle_maker

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

COMPUTE_START, COMPUTE_END, SEND_START, SEND_END = range(4)


class JobRun(NamedTuple):
    """One job on S stages: what it meets (filled by the caller) and what came of it (filled by `run`).

    Arrays have room for the longest chain and M micro-batches; hop s leaves stage s.
    """

    # what it meets
    scale: Array  # (M,) size of each micro-batch relative to the nominal one
    compute_s: Array  # (S,)
    encode_s: Array  # (S,) at the sender of hop s
    decode_s: Array  # (S,) at stage s, of what hop s - 1 brought
    stage_release_s: Array  # (S,) absolute time from which the stage may compute
    reload_s: Array  # (S,) to load the stage's blocks again after a reset
    load_j: Array  # (S,) energy of the first loading
    reset_s: Array  # (S, m) resets of the stage's satellite, padded with inf
    reset_from_s: Array  # (S,) resets at or before this are history
    lost_s: Array  # (S,) loss of the satellite
    hop_bits: Array  # (S,) of one micro-batch
    hop_release_s: Array  # (S,)
    route_rate_bps: Array  # (S, 2, H) primary and backup, by epoch since the release of the job
    route_latency_s: Array  # (S, 2)
    route_links: Ints  # (S, 2, X) rows of `link_down_s`, -1 padded
    slots_in: Ints  # (S,) buffer slots at the receiver, 0: unlimited
    slots_out: Ints  # (S,) buffer slots at the sender, 0: unlimited
    credit_s: Array  # (S,) time until a freed receiver slot is known to the sender of hop s
    # decoding of tokens, after the prefill
    token_compute_s: Array  # (S,) of one group
    token_encode_s: Array  # (S,) at s
    token_decode_s: Array  # (S,) at s + 1, of what hop s brings
    token_bits: Array  # (S,)
    # what came of it
    times_s: Array  # (S, M, 4) compute start and end, send start and end
    encoder_free_s: Array  # (S,)
    decoder_free_s: Array  # (S,)
    hop_free_s: Array  # (S,)
    wire_bits: Array  # (S,) all that was put on each hop, retransmissions included
    busy_s: Array  # (S, H) seconds of computing within each epoch since the release
    send_s: Array  # (S, H) seconds of sending within each epoch
    resets_met: Ints  # (S,) index of the first reset not yet met


job_run_handle = handle_maker(JobRun)


def job_run(stages: int, micro_batches: int, epochs: int, links: int, resets: int) -> JobRun:
    """Return an empty `JobRun` with room for the given sizes."""

    def zeros(*shape: int) -> Array:
        return np.zeros(shape)

    def ints(*shape: int) -> Ints:
        return np.zeros(shape, np.int64)

    return JobRun(
        scale=np.ones(micro_batches),
        compute_s=zeros(stages),
        encode_s=zeros(stages),
        decode_s=zeros(stages),
        stage_release_s=zeros(stages),
        reload_s=zeros(stages),
        load_j=zeros(stages),
        reset_s=np.full((stages, resets), np.inf),
        reset_from_s=zeros(stages),
        lost_s=np.full(stages, np.inf),
        hop_bits=zeros(stages),
        hop_release_s=zeros(stages),
        route_rate_bps=zeros(stages, 2, epochs),
        route_latency_s=zeros(stages, 2),
        route_links=np.full((stages, 2, links), -1, np.int64),
        slots_in=ints(stages),
        slots_out=ints(stages),
        credit_s=zeros(stages),
        token_compute_s=zeros(stages),
        token_encode_s=zeros(stages),
        token_decode_s=zeros(stages),
        token_bits=zeros(stages),
        times_s=zeros(stages, micro_batches, 4),
        encoder_free_s=zeros(stages),
        decoder_free_s=zeros(stages),
        hop_free_s=zeros(stages),
        wire_bits=zeros(stages),
        busy_s=zeros(stages, epochs),
        send_s=zeros(stages, epochs),
        resets_met=ints(stages),
    )


@njit(cache=True)  # type: ignore[untyped-decorator]
def route_state(job, hop, route, t, release_s, epoch_s, link_down_s):  # type: ignore[no-untyped-def]
    """Tell whether a route carries bits at time `t`.

    Returns
    -------
    up : bool
    until_s : float
        Up: when it next changes (goes down, or a new epoch changes its rate). Down: not up before this.
    since_s : float
        Down: since when.
    rate_bps : float
    breaks : bool
        Up: whether the change at `until_s` is a break.
    """
    n_rates = job.route_rate_bps.shape[2]
    piece = min(max(int((t - release_s) / epoch_s), 0), n_rates - 1)
    while piece < n_rates - 1 and release_s + (piece + 1) * epoch_s <= t:
        piece += 1
    rate = job.route_rate_bps[hop, route, piece]
    up = rate > 0.0
    breaks = False
    since = math.inf
    until = math.inf
    if up:
        if piece < n_rates - 1:
            until = release_s + (piece + 1) * epoch_s
            breaks = job.route_rate_bps[hop, route, piece + 1] <= 0.0
    else:
        first = piece
        while first > 0 and job.route_rate_bps[hop, route, first - 1] <= 0.0:
            first -= 1
        since = release_s + first * epoch_s
        following = piece + 1
        while following < n_rates and job.route_rate_bps[hop, route, following] <= 0.0:
            following += 1
        if following < n_rates:
            until = release_s + following * epoch_s
    recover = -math.inf
    for x in range(job.route_links.shape[2]):
        link = job.route_links[hop, route, x]
        if link < 0:
            break
        for n in range(link_down_s.shape[1]):
            start = link_down_s[link, n, 0]
            end = link_down_s[link, n, 1]
            if t < start:
                if up and start <= until:
                    until = start
                    breaks = True
                break
            if t < end:
                if up:
                    up = False
                    until = end
                    since = start
                else:
                    since = min(since, start)
                recover = max(recover, end)
                break
    if not up:
        until = max(until, recover) if recover > -math.inf else until
    return up, until, since, rate, breaks


@njit(cache=True)  # type: ignore[untyped-decorator]
def unacknowledged_bits(job, hop, route, run_start_s, break_s, release_s, epoch_s):  # type: ignore[no-untyped-def]
    """Return the bits sent within the last round trip before a break (and since `run_start_s`)."""
    n_rates = job.route_rate_bps.shape[2]
    t = max(run_start_s, break_s - 2.0 * job.route_latency_s[hop, route])
    bits = 0.0
    while t < break_s:
        piece = min(max(int((t - release_s) / epoch_s), 0), n_rates - 1)
        while piece < n_rates - 1 and release_s + (piece + 1) * epoch_s <= t:
            piece += 1
        end = release_s + (piece + 1) * epoch_s if piece < n_rates - 1 else break_s
        end = min(end, break_s)
        bits += (end - t) * job.route_rate_bps[hop, route, piece]
        t = end
    return bits


@njit(cache=True)  # type: ignore[untyped-decorator]
def send(job, hop, start_s, bits, release_s, deadline_s, epoch_s, detect_s, link_down_s):  # type: ignore[no-untyped-def]
    """Carry one micro-batch over a hop on the true trace.

    Returns
    -------
    end_s : float
        When the last bit left the sender (the deadline, if it never does).
    latency_s : float
        Of the route that carried the last bit.
    """
    left = bits
    t = start_s
    route = 0
    run_start = t
    run_bits = 0.0
    latency = job.route_latency_s[hop, 0]
    while t < deadline_s:
        up, until, since, rate, breaks = route_state(job, hop, route, t, release_s, epoch_s, link_down_s)
        if not up:
            other = 1 - route
            ready_other = math.inf
            noticed = max(t, since + detect_s)
            if job.route_links[hop, other, 0] >= 0 and noticed < until:
                up_other, until_other, _, _, _ = route_state(
                    job, hop, other, noticed, release_s, epoch_s, link_down_s
                )
                ready_other = noticed if up_other else until_other
            if ready_other < until:
                route = other
                t = ready_other
                latency = job.route_latency_s[hop, route]
            else:
                t = until
            run_start = t
            run_bits = 0.0
            continue
        end = t + left / rate
        if end <= until:
            job.wire_bits[hop] += left if end <= deadline_s else (deadline_s - t) * rate
            return min(end, deadline_s), latency
        until = min(until, deadline_s)
        sent = (until - t) * rate
        job.wire_bits[hop] += sent
        left -= sent
        run_bits += sent
        if breaks and until < deadline_s:
            back = unacknowledged_bits(job, hop, route, run_start, until, release_s, epoch_s)
            left += min(run_bits, back)
            run_bits = 0.0
        t = until
    return deadline_s, latency


@njit(cache=True)  # type: ignore[untyped-decorator]
def add_interval(bins, start_s, end_s, release_s, epoch_s):  # type: ignore[no-untyped-def]
    """Add the seconds of [start, end) to the epochs since the release they fall in."""
    last = bins.shape[0] - 1
    piece = min(max(int((start_s - release_s) / epoch_s), 0), last)
    while start_s < end_s:
        edge = release_s + (piece + 1) * epoch_s
        stop = end_s if piece == last else min(edge, end_s)
        if stop > start_s:
            bins[piece] += stop - start_s
            start_s = stop
        piece = min(piece + 1, last)


@njit(cache=True)  # type: ignore[untyped-decorator]
def compute_slot(job, s, start_s, length_s, reboot_s, release_s, deadline_s, epoch_s):  # type: ignore[no-untyped-def]
    """Compute once on stage `s`, taking the micro-batch again after each reset; return start and end."""
    i = job.resets_met[s]
    while i < job.reset_s.shape[1] and job.reset_s[s, i] < min(start_s + length_s, deadline_s):
        reset = job.reset_s[s, i]
        if reset > start_s:
            add_interval(job.busy_s[s], start_s, reset, release_s, epoch_s)
        start_s = max(start_s, reset + reboot_s + job.reload_s[s])
        i += 1
    job.resets_met[s] = i
    start_s = min(start_s, deadline_s)
    end_s = start_s + length_s
    if job.lost_s[s] < end_s:
        end_s = math.inf
        start_s = min(start_s, max(job.lost_s[s], release_s))
    end_s = min(end_s, deadline_s)
    if length_s > 0.0:
        add_interval(job.busy_s[s], start_s, min(end_s, job.lost_s[s]), release_s, epoch_s)
    return start_s, end_s


@njit(cache=True)  # type: ignore[untyped-decorator]
def run(job, stages, release_s, deadline_s, epoch_s, reboot_s, detect_s, tokens, return_s, link_down_s):  # type: ignore[no-untyped-def]
    """Execute one job on the true trace.

    Parameters
    ----------
    job : JobRun
    stages : int
        Stages in use, the ground last.
    release_s, deadline_s : float
        Absolute; all activity stops at the deadline, which is also the returned time of a job that misses it.
    tokens : float
        Tokens to generate after the prefill (0 for images).
    return_s : float
        Latency from the last stage back to the first, closing the loop of a token.
    link_down_s : (W, n, 2)

    Returns
    -------
    end_s : float
        Completion of the last micro-batch (or token) on the ground.
    """
    micro_batches = job.scale.shape[0]
    for s in range(stages):
        job.wire_bits[s] = 0.0
        job.busy_s[s, :] = 0.0
        job.send_s[s, :] = 0.0
        job.encoder_free_s[s] = release_s
        job.decoder_free_s[s] = release_s
        job.hop_free_s[s] = job.hop_release_s[s]
        job.resets_met[s] = 0
        while (
            job.resets_met[s] < job.reset_s.shape[1]
            and job.reset_s[s, job.resets_met[s]] <= job.reset_from_s[s]
        ):
            job.resets_met[s] += 1
    for m in range(micro_batches):
        scale = job.scale[m]
        arrival = release_s
        for s in range(stages):
            start = max(arrival, job.stage_release_s[s])
            if m > 0:
                start = max(start, job.times_s[s, m - 1, COMPUTE_END])
            if job.slots_out[s] > 0 and m >= job.slots_out[s]:
                start = max(start, job.times_s[s, m - job.slots_out[s], SEND_END])
            start, end = compute_slot(
                job,
                s,
                min(start, deadline_s),
                job.compute_s[s] * scale,
                reboot_s,
                release_s,
                deadline_s,
                epoch_s,
            )
            job.times_s[s, m, COMPUTE_START] = start
            job.times_s[s, m, COMPUTE_END] = end
            if s == stages - 1:
                break
            job.encoder_free_s[s] = max(end, job.encoder_free_s[s]) + job.encode_s[s] * scale
            begin = max(job.encoder_free_s[s], job.hop_free_s[s])
            if job.slots_in[s] > 0 and m >= job.slots_in[s]:
                begin = max(begin, job.times_s[s + 1, m - job.slots_in[s], COMPUTE_END] + job.credit_s[s])
            begin = min(begin, deadline_s)
            sent, latency = send(
                job, s, begin, job.hop_bits[s] * scale, release_s, deadline_s, epoch_s, detect_s, link_down_s
            )
            add_interval(job.send_s[s], begin, sent, release_s, epoch_s)
            job.hop_free_s[s] = sent
            job.times_s[s, m, SEND_START] = begin
            job.times_s[s, m, SEND_END] = sent
            arrival = max(sent + latency, job.decoder_free_s[s + 1]) + job.decode_s[s + 1] * scale
            job.decoder_free_s[s + 1] = arrival
    end_s = job.times_s[stages - 1, micro_batches - 1, COMPUTE_END]
    if tokens > 0.0 and end_s < deadline_s:
        end_s = generate(
            job,
            stages,
            end_s,
            release_s,
            deadline_s,
            epoch_s,
            reboot_s,
            detect_s,
            tokens,
            return_s,
            link_down_s,
        )
    return end_s


@njit(cache=True)  # type: ignore[untyped-decorator]
def generate(  # type: ignore[no-untyped-def]
    job, stages, start_s, release_s, deadline_s, epoch_s, reboot_s, detect_s, tokens, return_s, link_down_s
):
    """Generate tokens after the prefill: M groups in flight around a closed loop.

    A group's token takes max(loop, M * slowest server) seconds, loop = all computing, codec, sending and
    latency once around (as in `planning.predict`). The rates are those of the moment; a hop that is down
    with no backup up, a rebooting stage or a lost satellite stops the loop until it is back.

    Returns
    -------
    end_s : float
        Completion of the last token; the deadline if it is missed.
    """
    groups = job.scale.shape[0]
    left = tokens
    t = start_s
    while left > 0.0 and t < deadline_s:
        until = deadline_s
        loop = return_s
        slowest = 0.0
        stopped_until = t
        for s in range(stages):
            i = job.resets_met[s]
            if i < job.reset_s.shape[1]:
                if job.reset_s[s, i] <= t:
                    stopped_until = max(stopped_until, job.reset_s[s, i] + reboot_s + job.reload_s[s])
                    job.resets_met[s] = i + 1
                else:
                    until = min(until, job.reset_s[s, i])
            if job.lost_s[s] <= t:
                stopped_until = deadline_s
            else:
                until = min(until, job.lost_s[s])
            loop += job.token_compute_s[s]
            slowest = max(slowest, job.token_compute_s[s])
            if s == stages - 1:
                break
            route = 0
            up, change, since, rate, _ = route_state(job, s, 0, t, release_s, epoch_s, link_down_s)
            if not up and job.route_links[s, 1, 0] >= 0:
                noticed = max(t, since + detect_s)
                up, change_other, _, rate, _ = route_state(
                    job, s, 1, noticed, release_s, epoch_s, link_down_s
                )
                if up and noticed > t:
                    stopped_until = max(stopped_until, min(noticed, change))
                change = min(change, change_other)
                route = 1
            if not up:
                stopped_until = max(stopped_until, change)
                continue
            until = min(until, change)
            sending = job.token_bits[s] / rate
            slowest = max(slowest, sending, job.token_encode_s[s], job.token_decode_s[s])
            if s + 1 < stages - 1 or job.token_compute_s[s + 1] > 0.0:
                # The result is streamed to the ground beside the loop.
                loop += (
                    job.token_encode_s[s] + sending + job.token_decode_s[s] + job.route_latency_s[s, route]
                )
        if stopped_until > t:
            t = min(stopped_until, deadline_s)
            continue
        token_s = max(loop, groups * slowest)
        done = min(left, (until - t) / token_s)
        end = t + done * token_s if done < left else min(t + left * token_s, deadline_s)
        for s in range(stages):
            add_interval(job.busy_s[s], t, t + done * groups * job.token_compute_s[s], release_s, epoch_s)
            if s < stages - 1:
                job.wire_bits[s] += done * groups * job.token_bits[s]
        left -= done
        t = max(end, until) if done == 0.0 else end
    return min(t, deadline_s)


@njit(cache=True)  # type: ignore[untyped-decorator]
def closed_form_s(service_s, latency_s, micro_batches):  # type: ignore[no-untyped-def]
    """Return sum(service + latency) + (M - 1) * max(service).

    Exact with identical micro-batches, unlimited buffers, no release times and constant rates; then it is
    the makespan of `run` (GPipe's and PipeEdge's pipeline formula).

    Parameters
    ----------
    service_s : (n,)
        Seconds of every server on the way of one micro-batch: stages, codecs, hops.
    latency_s : (n,)
    """
    total = 0.0
    slowest = 0.0
    for i in range(service_s.shape[0]):
        total += service_s[i] + latency_s[i]
        slowest = max(slowest, service_s[i])
    return total + (micro_batches - 1) * slowest
