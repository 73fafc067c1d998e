"""Pipelined execution of one job over stages and hops: the recurrence, and the closed form that tests it.

Stage s computes micro-batch m, encodes it, and hop s carries it to stage s + 1, which decodes it::

    start of compute(s, m) = max(stage free, arrival(s, m), slot at the sender free)
    start of send(s, m)    = max(hop free, encoded(s, m), slot at the receiver free + credit)
    arrival(s + 1, m)      = decoded(end of send(s, m) + latency of the route)

Encoder and decoder are servers of their own (the CPU beside the accelerator). A slot at the sender is taken
from the start of compute to the end of the send, one at the receiver from the start of the send to the end of
compute there.

On the true trace a rate is piecewise constant. A route is down while one of its links is, and while its rate
is 0: a gap of its contact. What overlaps or touches is one outage. The sender notices it `detect_s` after it
starts, but a gap, which the contact plan foretells, as it starts. A transfer takes its hop and starts on the
primary, up or not. It changes route when the outage of the one it is on has been noticed and the other is up
sooner; it does not return because the primary recovers, but the next micro-batch starts on the primary again.
When an outage of a link breaks a transfer, what was sent within the last round trip was not acknowledged and
is sent again; the end of a contact loses nothing.

A reset makes its stage unavailable until the reboot and the reload of its blocks are over. It loses the
micro-batch that is being computed, which starts again from its beginning; those that have arrived, or wait to
be sent, are in storage and kept. A lost satellite never completes.

The last stage is the ground; with no blocks there it computes for 0 s and receives the result.
`tests/oracles/pipeline_events.py` says the same as a discrete-event simulation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sat_env.kernels import kernel, part

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
    extent: Ints  # (2,) stages in use; 1 where only the end points were computed and `times_s` was not
    calm_until_s: Array  # (S,) no reset or loss of the stage's satellite before this, nor the deadline
    clear_rate_bps: Array  # (S,) what the primary carries ...
    clear_until_s: Array  # (S,) ... until then


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
        extent=ints(2),
        calm_until_s=zeros(stages),
        clear_rate_bps=zeros(stages),
        clear_until_s=zeros(stages),
    )


@part
def epoch_of(t, release_s, epoch_s, epochs):  # type: ignore[no-untyped-def]
    """Return which epoch since the release `t` lies in; the first and the last one have no outer end."""
    i = min(max(int((t - release_s) / epoch_s), 0), epochs - 1)
    while i > 0 and release_s + i * epoch_s > t:
        i -= 1
    while i < epochs - 1 and release_s + (i + 1) * epoch_s <= t:
        i += 1
    return i


@part
def carries(rate_bps, links, t, release_s, epoch_s, link_down_s):  # type: ignore[no-untyped-def]
    """Tell what one route, `rate_bps` (H,) over `links` (X,), carries from `t` on.

    Returns
    -------
    rate_bps : float
        0 while it is down.
    until_s : float
        Up: how long at this rate.
    breaks : bool
        Up: whether an outage ends it, and not a change of the rate or the end of the contact.
    """
    epochs = rate_bps.shape[0]
    now = epoch_of(t, release_s, epoch_s, epochs)
    rate = rate_bps[now]
    until = math.inf
    breaks = False
    for i in range(now + 1, epochs):
        if rate_bps[i] != rate:
            until = release_s + i * epoch_s
            break
    for x in range(links.shape[0]):
        link = links[x]
        if link < 0:
            break
        for n in range(link_down_s.shape[1]):
            if link_down_s[link, n, 1] > t:
                start = link_down_s[link, n, 0]
                if start <= t:
                    return 0.0, t, False
                if start <= until:
                    until = start
                    breaks = True
                break
    return rate, until, breaks


@part
def outage(rate_bps, links, t, release_s, epoch_s, detect_s, link_down_s):  # type: ignore[no-untyped-def]
    """Return when the outage of one route at `t` is noticed, and when it is over (`t`: there is none).

    Outages of its links and gaps of its contact that overlap or touch are one outage; it is noticed
    `detect_s` after the first of them, or as a gap starts.
    """
    noticed = math.inf
    first = t
    last = t
    grows = True
    while grows:
        grows = False
        for i in range(rate_bps.shape[0]):
            if rate_bps[i] <= 0.0:
                start = release_s + i * epoch_s if i > 0 else -math.inf
                end = release_s + (i + 1) * epoch_s if i < rate_bps.shape[0] - 1 else math.inf
                if start <= last and end >= first:
                    noticed = min(noticed, start)
                    grows = grows or start < first or end > last
                    first = min(first, start)
                    last = max(last, end)
        for x in range(links.shape[0]):
            link = links[x]
            if link < 0:
                break
            for n in range(link_down_s.shape[1]):
                start = link_down_s[link, n, 0]
                end = link_down_s[link, n, 1]
                if start > last:
                    break
                if end >= first:
                    noticed = min(noticed, start + detect_s)
                    grows = grows or start < first or end > last
                    first = min(first, start)
                    last = max(last, end)
    return noticed, last


@part
def take_route(rate_bps, links, on, t, release_s, epoch_s, detect_s, link_down_s):  # type: ignore[no-untyped-def]
    """Return which of a hop's two routes carries next and from when, for a transfer that is on route `on`.

    It stays where it is unless the outage there is noticed and the other route is up before this one is.
    """
    noticed, back = outage(rate_bps[on], links[on], t, release_s, epoch_s, detect_s, link_down_s)
    leave = max(t, noticed)
    if leave < back:
        other = 1 - on
        _, ready = outage(rate_bps[other], links[other], leave, release_s, epoch_s, detect_s, link_down_s)
        if ready < back:
            return other, ready
    return on, back


@part
def sent_bits(rate_bps, start_s, end_s, release_s, epoch_s):  # type: ignore[no-untyped-def]
    """Return the bits a route that is up takes in [start, end)."""
    epochs = rate_bps.shape[0]
    bits = 0.0
    while start_s < end_s:
        i = epoch_of(start_s, release_s, epoch_s, epochs)
        stop = min(release_s + (i + 1) * epoch_s, end_s) if i < epochs - 1 else end_s
        bits += (stop - start_s) * rate_bps[i]
        start_s = stop
    return bits


@part
def send(  # type: ignore[no-untyped-def]
    rate_bps, latency_s, links, start_s, bits, release_s, deadline_s, epoch_s, detect_s, link_down_s
):
    """Carry one micro-batch over a hop of two routes: `rate_bps` (2, H), `latency_s` (2,), `links` (2, X).

    Returns
    -------
    end_s : float
        When the last bit left the sender (the deadline, if it never does).
    latency_s : float
        Of the route that carried the last bit.
    wire_bits : float
        Put on the hop until then.
    """
    left = bits
    wire = 0.0
    route = np.int64(0)
    t = start_s
    unbroken_from = t
    while t < deadline_s:
        rate, until, breaks = carries(rate_bps[route], links[route], t, release_s, epoch_s, link_down_s)
        if rate <= 0.0:
            route, t = take_route(rate_bps, links, route, t, release_s, epoch_s, detect_s, link_down_s)
            unbroken_from = t
            continue
        end = t + left / rate
        until = min(until, deadline_s)
        if end <= until:
            return end, latency_s[route], wire + left
        sent = (until - t) * rate
        wire += sent
        left = max(left - sent, 0.0)
        if breaks and until < deadline_s:
            acknowledged = max(unbroken_from, until - 2.0 * latency_s[route])
            left += sent_bits(rate_bps[route], acknowledged, until, release_s, epoch_s)
        t = until
    return deadline_s, latency_s[route], wire


@part
def add_interval(bins, start_s, end_s, release_s, epoch_s):  # type: ignore[no-untyped-def]
    """Add the seconds of [start, end) to the epochs since the release they fall in."""
    add_share(bins, 1.0, start_s, end_s, release_s, epoch_s)


@part
def add_share(bins, share, start_s, end_s, release_s, epoch_s):  # type: ignore[no-untyped-def]
    """Add a share of the seconds of [start, end) to the epochs since the release they fall in."""
    last = bins.shape[0] - 1
    i = min(max(int((start_s - release_s) / epoch_s), 0), last)
    while start_s < end_s:
        stop = min(release_s + (i + 1) * epoch_s, end_s) if i < last else end_s
        if stop > start_s:
            bins[i] += share * (stop - start_s)
            start_s = stop
        i += 1


@part
def compute(  # type: ignore[no-untyped-def]
    reset_s, met, lost_s, reload_s, busy_s, start_s, length_s, reboot_s, release_s, deadline_s, epoch_s
):
    """Compute once on a stage, again after each of its resets (m,) from index `met` on.

    Returns
    -------
    start_s, end_s : float
        Of the attempt that was completed.
    met : int
        Index of the first reset not yet met.
    """
    stop_s = min(deadline_s, lost_s)
    while met < reset_s.shape[0] and reset_s[met] < min(start_s + length_s, stop_s):
        add_interval(busy_s, start_s, reset_s[met], release_s, epoch_s)
        start_s = max(start_s, reset_s[met] + reboot_s + reload_s)
        met += 1
    end_s = start_s + length_s
    add_interval(busy_s, start_s, min(end_s, stop_s), release_s, epoch_s)
    if end_s > lost_s:
        end_s = deadline_s
    return min(start_s, deadline_s), min(end_s, deadline_s), met


@part
def calm_until(reset_s, met, lost_s, deadline_s):  # type: ignore[no-untyped-def]
    """Return until when a stage computes undisturbed: to its next reset, loss or the deadline."""
    calm_s = min(deadline_s, lost_s)
    return min(calm_s, reset_s[met]) if met < reset_s.shape[0] else calm_s


@part
def run_job(job, stages, release_s, deadline_s, epoch_s, reboot_s, detect_s, tokens, return_s, link_down_s):  # type: ignore[no-untyped-def]
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
    times_s = job.times_s
    for s in range(stages):
        job.wire_bits[s] = 0.0
        for h in range(job.busy_s.shape[1]):
            job.busy_s[s, h] = 0.0
            job.send_s[s, h] = 0.0
        job.encoder_free_s[s] = release_s
        job.decoder_free_s[s] = release_s
        job.hop_free_s[s] = job.hop_release_s[s]
        job.clear_until_s[s] = -math.inf
        met = 0
        while met < job.reset_s.shape[1] and job.reset_s[s, met] <= job.reset_from_s[s]:
            met += 1
        job.resets_met[s] = met
        job.calm_until_s[s] = calm_until(job.reset_s[s], met, job.lost_s[s], deadline_s)
    for m in range(micro_batches):
        scale = job.scale[m]
        arrival = release_s
        for s in range(stages):
            start = max(arrival, job.stage_release_s[s])
            if m > 0:
                start = max(start, times_s[s, m - 1, COMPUTE_END])
            if s < stages - 1 and 0 < job.slots_out[s] <= m:
                start = max(start, times_s[s, m - job.slots_out[s], SEND_END])
            length = job.compute_s[s] * scale
            end = start + length
            if end <= job.calm_until_s[s]:
                if length > 0.0:
                    add_interval(job.busy_s[s], start, end, release_s, epoch_s)
            else:
                start, end, met = compute(
                    job.reset_s[s],
                    job.resets_met[s],
                    job.lost_s[s],
                    job.reload_s[s],
                    job.busy_s[s],
                    start,
                    length,
                    reboot_s,
                    release_s,
                    deadline_s,
                    epoch_s,
                )
                job.resets_met[s] = met
                job.calm_until_s[s] = calm_until(job.reset_s[s], met, job.lost_s[s], deadline_s)
            times_s[s, m, COMPUTE_START] = start
            times_s[s, m, COMPUTE_END] = end
            if s == stages - 1:
                break
            encoded = max(end, job.encoder_free_s[s]) + job.encode_s[s] * scale
            job.encoder_free_s[s] = encoded
            begin = max(encoded, job.hop_free_s[s])
            if 0 < job.slots_in[s] <= m:
                begin = max(begin, times_s[s + 1, m - job.slots_in[s], COMPUTE_END] + job.credit_s[s])
            begin = min(begin, deadline_s)
            bits = job.hop_bits[s] * scale
            if begin >= job.clear_until_s[s] and begin < deadline_s:
                rate, until, _ = carries(
                    job.route_rate_bps[s, 0], job.route_links[s, 0], begin, release_s, epoch_s, link_down_s
                )
                job.clear_rate_bps[s] = rate
                job.clear_until_s[s] = min(until, deadline_s)
            sent = begin + bits / job.clear_rate_bps[s] if job.clear_rate_bps[s] > 0.0 else math.inf
            if sent <= job.clear_until_s[s]:
                latency = job.route_latency_s[s, 0]
                job.wire_bits[s] += bits
            else:
                sent, latency, wire = send(
                    job.route_rate_bps[s],
                    job.route_latency_s[s],
                    job.route_links[s],
                    begin,
                    bits,
                    release_s,
                    deadline_s,
                    epoch_s,
                    detect_s,
                    link_down_s,
                )
                job.wire_bits[s] += wire
            add_interval(job.send_s[s], begin, sent, release_s, epoch_s)
            job.hop_free_s[s] = sent
            times_s[s, m, SEND_START] = begin
            times_s[s, m, SEND_END] = sent
            arrival = max(sent + latency, job.decoder_free_s[s + 1]) + job.decode_s[s + 1] * scale
            job.decoder_free_s[s + 1] = arrival
    end_s = times_s[stages - 1, micro_batches - 1, COMPUTE_END]
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


run = kernel(run_job.py_func)
"""The same, called from Python."""


@part
def generate(  # type: ignore[no-untyped-def]
    job, stages, start_s, release_s, deadline_s, epoch_s, reboot_s, detect_s, tokens, return_s, link_down_s
):
    """Generate tokens after the prefill: M groups in flight around a closed loop.

    A group's token takes max(loop, M * slowest server) seconds, loop = all computing, codec, sending and
    latency once around (as in `planning.predict`). The rates are those of the moment; a hop that is down
    with no backup up, a rebooting stage or a lost satellite stops the loop until it is back. A stage that was reset
    has lost its keys and values: it computes the prompt again before the loop goes on. What a break makes a hop send
    again is left out: a token is small. Servers are busy evenly through the time that the loop goes round.

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
            while job.resets_met[s] < job.reset_s.shape[1] and job.reset_s[s, job.resets_met[s]] <= t:
                reset = job.reset_s[s, job.resets_met[s]]
                job.resets_met[s] += 1
                loaded = reset + reboot_s + job.reload_s[s]
                rebuilt = loaded + groups * job.compute_s[s]
                stopped_until = max(stopped_until, rebuilt)
                if job.resets_met[s] < job.reset_s.shape[1]:
                    rebuilt = min(rebuilt, job.reset_s[s, job.resets_met[s]])
                add_interval(job.busy_s[s], loaded, min(rebuilt, deadline_s), release_s, epoch_s)
            if job.resets_met[s] < job.reset_s.shape[1]:
                until = min(until, job.reset_s[s, job.resets_met[s]])
            if job.lost_s[s] <= t:
                stopped_until = deadline_s
            else:
                until = min(until, job.lost_s[s])
            loop += job.token_compute_s[s]
            slowest = max(slowest, job.token_compute_s[s])
            if s == stages - 1:
                break
            rates = job.route_rate_bps[s]
            links = job.route_links[s]
            route = 0
            rate, change, _ = carries(rates[0], links[0], t, release_s, epoch_s, link_down_s)
            if rate <= 0.0:
                route, ready = take_route(
                    rates, links, np.int64(0), t, release_s, epoch_s, detect_s, link_down_s
                )
                if ready > t:
                    stopped_until = max(stopped_until, ready)
                    continue
                rate, change, _ = carries(rates[1], links[1], t, release_s, epoch_s, link_down_s)
                _, back = outage(rates[0], links[0], t, release_s, epoch_s, detect_s, link_down_s)
                change = min(change, back)
            until = min(until, change)
            job.clear_rate_bps[s] = rate
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
        round_ends = t + done * token_s
        for s in range(stages):
            share = groups * job.token_compute_s[s] / token_s
            add_share(job.busy_s[s], share, t, round_ends, release_s, epoch_s)
            if s < stages - 1:
                bits = groups * job.token_bits[s]
                job.wire_bits[s] += done * bits
                share = bits / job.clear_rate_bps[s] / token_s
                add_share(job.send_s[s], share, t, round_ends, release_s, epoch_s)
        if done == left:
            return t + left * token_s
        left -= done
        t = until
    return min(t, deadline_s)


@kernel
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
