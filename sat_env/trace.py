"""The exogenous future of an episode, drawn at reset and never touched by actions.

Every draw is a pure function of (seed, episode, stream, subject, counter): a counter-based generator
(the SplitMix64 finaliser of Steele, Lea and Flood, OOPSLA 2014, applied to a mixed key). So an episode is
the same at any batch size, in any order and on any thread, and switching one stream off leaves all others
bit-identical. All times are seconds since the start of the episode.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sat_env.kernels import kernel, part, signed, small

Array = NDArray[np.float64]

(
    STREAM_WINDOW,
    STREAM_LINKS,
    STREAM_RESETS,
    STREAM_LOSS,
    STREAM_PLANE_LOSS,
    STREAM_WEATHER,
    STREAM_ARRIVALS,
    STREAM_CONTENT,
    STREAM_CHARGE,
    STREAM_RAIN,
) = range(10)

REDRAWS = 10_000  # an outage of a log may be a rounding short of the longest of the law
FAR_COUNTER = 1 << 40  # counters of the draws made by rejection, out of the way of the others
IMAGINED = -1  # the episode whose streams imagined futures are drawn from: none that is ever played
INITIAL_INTERVALS = 4  # outages kept per link before the arrays grow


class Trace(NamedTuple):
    """The futures of B worlds: T epochs, W window-local links, V window-local satellites, S stations."""

    window: NDArray[np.int64]  # (B,) index of the episode's window
    link_down_s: Array  # (B, W, n, 2) outages [start, end) in time order, padded with inf
    reset_s: Array  # (B, V, m) satellite resets in time order, padded with inf
    lost_s: Array  # (B, V) when a satellite is lost for good, inf: never
    items: Array  # (B, T) images or requests released at each epoch
    content: Array  # (B, T) content complexity of each job, mean 1
    downlink_factor: Array  # (B, T + H, S) share of the clear-sky rate a station's slice gives; 1: not met
    rain_db: Array  # (B, T + H, S) attenuation at 45 deg elevation; zeros, never written, without rain
    charge: Array  # (B, V) state of charge at the start, 0..1


class TraceLaw(NamedTuple):
    """What the draws need of a scenario."""

    epoch_s: float
    items_mean: float
    burst: float
    burst_mean_s: float
    content_sigma: float
    fade_sigma: float
    reset_mtbf_s: float
    anomaly_factor: float
    loss_mtbf_s: float
    plane_loss_mtbf_s: float
    charge_low: float
    charge_high: float
    rain: bool
    rain_log_mean: Array  # (S,) of the attenuation in dB at 45 deg, with the spread below
    rain_log_sigma: Array  # (S,)
    rain_keep: float  # correlation of the log-attenuation over one epoch
    # (n, 3) outages of a recorded log: link, start and end in seconds since the scenario's start; none in the world
    # that policies are shown
    logged: Array


@small
def mix(value):  # type: ignore[no-untyped-def]
    """Scramble 64 bits (SplitMix64 finaliser)."""
    value = np.uint64(value) + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@signed("uint64(uint64,int64,int64)")
def key_of_stream(seed, episode, stream):  # type: ignore[no-untyped-def]
    """Return the key of one stream of one episode."""
    return mix(mix(mix(np.uint64(seed)) ^ np.uint64(episode)) ^ np.uint64(stream))


stream_key = kernel(key_of_stream.py_func)
"""The same, called from Python."""


@signed("float64(uint64,int64,int64)")
def uniform(key, subject, counter):  # type: ignore[no-untyped-def]
    """Return the `counter`-th uniform draw in (0, 1) of `subject`."""
    bits = mix(mix(key ^ np.uint64(subject)) ^ np.uint64(counter))
    return (float(bits >> np.uint64(12)) + 0.5) * (1.0 / 4503599627370496.0)  # 52 bits: never rounds to 1


@signed("float64(uint64,int64,int64,float64)")
def exponential(key, subject, counter, mean):  # type: ignore[no-untyped-def]
    """Return an exponential draw."""
    return -mean * math.log(uniform(key, subject, counter))


@signed("float64(uint64,int64,int64)")
def normal(key, subject, counter):  # type: ignore[no-untyped-def]
    """Return a standard normal draw (Box and Muller); uses counters 2c and 2c + 1."""
    radius = math.sqrt(-2.0 * math.log(uniform(key, subject, 2 * counter)))
    return radius * math.cos(2.0 * math.pi * uniform(key, subject, 2 * counter + 1))


@signed("float64(uint64,int64,int64,float64)")
def log_normal(key, subject, counter, sigma):  # type: ignore[no-untyped-def]
    """Return a log-normal draw of mean 1; exactly 1 when `sigma` is 0."""
    if sigma == 0.0:
        return 1.0
    return math.exp(sigma * normal(key, subject, counter) - 0.5 * sigma * sigma)


@part
def down_time_s(law, key, subject, counter):  # type: ignore[no-untyped-def]
    """Draw the length of one outage; uses counters c and c + 1."""
    shape = uniform(key, subject, counter)
    u = uniform(key, subject, counter + 1)
    if shape < law.tail_share:
        return law.tail_low_s + u * (law.tail_high_s - law.tail_low_s)
    span = law.high_s - law.low_s
    return law.low_s - math.log1p(u * math.expm1(-law.body_rate_per_s * span)) / law.body_rate_per_s


@part
def running_outage_s(law, key, subject):  # type: ignore[no-untyped-def]
    """Draw the length of an outage met in progress: longer ones are likelier, so by rejection."""
    longest = max(law.high_s, law.tail_high_s if law.tail_share > 0.0 else 0.0)
    counter = np.int64(FAR_COUNTER)
    while True:
        length = down_time_s(law, key, subject, counter)
        if uniform(key, subject, counter + 2) * longest < length:
            return length
        counter += 3


@part
def draw_link(law, key, link, horizon_s, into, lost_s):  # type: ignore[no-untyped-def]
    """Draw the outages of one link over [0, horizon_s) into ``into`` (n, 2).

    The process starts stationary: down with its long-run share, the outage then already running. A link
    whose satellite is lost at `lost_s` stays down from there.

    Returns
    -------
    needed : int
        Intervals the link has; when more than n, the surplus was not written and the caller grows `into`.
    """
    capacity = into.shape[0]
    count = 0
    counter = np.int64(4)
    if law.up_mean_s > 0.0:
        t = 0.0
        down_share = law.down_mean_s / (law.down_mean_s + law.up_mean_s)
        running_s = 0.0
        if uniform(key, link, 0) < down_share:
            running_s = running_outage_s(law, key, link)
            t = -uniform(key, link, 1) * running_s
        else:
            t = exponential(key, link, 1, law.up_mean_s)
        while t < horizon_s and t < lost_s:
            end = t + (running_s if t < 0.0 else down_time_s(law, key, link, counter))
            if end > 0.0:
                if count < capacity:
                    into[count, 0] = t
                    into[count, 1] = end
                count += 1
            t = max(end, 0.0) + exponential(key, link, counter + 2, law.up_mean_s)
            counter += 3
    if lost_s < math.inf:
        if 0 < count <= capacity and into[count - 1, 1] >= lost_s:
            into[count - 1, 1] = math.inf
        else:
            if count < capacity:
                into[count, 0] = lost_s
                into[count, 1] = math.inf
            count += 1
    for i in range(min(count, capacity), capacity):
        into[i, 0] = math.inf
        into[i, 1] = math.inf
    return count


@part
def add_logged(logged, link, start_s, horizon_s, into, count):  # type: ignore[no-untyped-def]
    """Add the recorded outages of a link to the `count` drawn ones, in order and joined where they overlap.

    `start_s` is the episode's start on the log's clock. Returns the count needed, as `draw_link`.
    """
    needed = count
    for i in range(logged.shape[0]):
        start = logged[i, 1] - start_s
        end = logged[i, 2] - start_s
        if logged[i, 0] == link and end > 0.0 and start < horizon_s:
            if needed < into.shape[0]:
                place = needed
                while place > 0 and into[place - 1, 0] > start:
                    into[place, 0] = into[place - 1, 0]
                    into[place, 1] = into[place - 1, 1]
                    place -= 1
                into[place, 0] = start
                into[place, 1] = end
            needed += 1
    if needed > into.shape[0]:
        return needed
    kept = 0
    for i in range(1, needed):
        if into[i, 0] <= into[kept, 1]:
            into[kept, 1] = max(into[kept, 1], into[i, 1])
        else:
            kept += 1
            into[kept, 0] = into[i, 0]
            into[kept, 1] = into[i, 1]
    for i in range(kept + 1, needed):
        into[i, 0] = math.inf
        into[i, 1] = math.inf
    return needed


@part
def loss_time_s(key_loss, key_plane, law, node, plane, n_nodes):  # type: ignore[no-untyped-def]
    """Return when a satellite is lost, alone or with its plane; inf: not in this world."""
    lost = math.inf
    if law.loss_mtbf_s > 0.0 and node < n_nodes:
        lost = exponential(key_loss, node, 0, law.loss_mtbf_s)
    if law.plane_loss_mtbf_s > 0.0 and node < n_nodes:
        lost = min(lost, exponential(key_plane, plane, 0, law.plane_loss_mtbf_s))
    return lost


@part
def fill(values, value):  # type: ignore[no-untyped-def]
    """Set all of a 1-D array; a slice assignment takes numba a second to compile."""
    for i in range(values.shape[0]):
        values[i] = value


@part
def draw_trace(  # type: ignore[no-untyped-def]
    seed,
    episode,
    b,
    window,
    trace,
    law,
    outages,
    links,
    link_ends,
    link_is_downlink,
    nodes,
    planes,
    anomaly,
    downlinks,
):
    """Draw the whole trace of world `b`.

    Parameters
    ----------
    links, nodes : (W,), (V,) int
        Global ids of the window's links and satellites, -1 padded: draws are keyed by global ids, so they
        do not depend on which window-local place an id has.
    anomaly : (T, N) bool
        Whether each of all N satellites is in the South Atlantic Anomaly during the epoch.
    downlinks : (T + H, S) bool
        Whether a job may meet a station's downlink in an epoch: only there is its fade drawn, which is slow.

    Returns
    -------
    needed : int
        The largest number of outages of a link; above the capacity, grow `trace.link_down_s` and call again.
    resets_needed : int
        Likewise for `trace.reset_s`.
    """
    trace.window[b] = window
    n_nodes = planes.shape[0]
    n_epochs = trace.items.shape[1]
    horizon_s = trace.downlink_factor.shape[1] * law.epoch_s
    key_loss = key_of_stream(seed, episode, STREAM_LOSS)
    key_plane = key_of_stream(seed, episode, STREAM_PLANE_LOSS)

    key = key_of_stream(seed, episode, STREAM_LINKS)
    needed = 0
    for w in range(links.shape[0]):
        link = links[w]
        if link < 0 or link_is_downlink[link]:
            for n in range(trace.link_down_s.shape[2]):
                trace.link_down_s[b, w, n, 0] = math.inf
                trace.link_down_s[b, w, n, 1] = math.inf
        if link < 0:
            continue
        lost = math.inf
        for side in range(2):
            node = link_ends[link, side]
            if node < n_nodes:
                lost = min(lost, loss_time_s(key_loss, key_plane, law, node, planes[node], n_nodes))
        count = 0
        if not link_is_downlink[link]:
            count = draw_link(outages, key, link, horizon_s, trace.link_down_s[b, w], lost)
        elif lost < math.inf:
            trace.link_down_s[b, w, 0, 0] = lost
            count = 1
        if law.logged.shape[0] > 0:
            start_s = window * n_epochs * law.epoch_s
            count = add_logged(law.logged, link, start_s, horizon_s, trace.link_down_s[b, w], count)
        needed = max(needed, count)

    key = key_of_stream(seed, episode, STREAM_RESETS)
    resets_needed = 0
    for v in range(nodes.shape[0]):
        fill(trace.reset_s[b, v], math.inf)
        trace.lost_s[b, v] = math.inf
        node = nodes[v]
        if node < 0:
            continue
        trace.lost_s[b, v] = loss_time_s(key_loss, key_plane, law, node, planes[node], n_nodes)
        if law.reset_mtbf_s > 0.0:
            resets_needed = max(
                resets_needed, draw_resets(key, node, law, anomaly[:, node], horizon_s, trace.reset_s[b, v])
            )

    key = key_of_stream(seed, episode, STREAM_ARRIVALS)
    state = 1.0 if uniform(key, 0, 0) < 0.5 else -1.0
    # that a random telegraph signal has changed an odd number of times within an epoch
    change = -0.5 * math.expm1(-2.0 * law.epoch_s / law.burst_mean_s)
    for t in range(n_epochs):
        if uniform(key, 1, t) < change:
            state = -state
        trace.items[b, t] = max(1.0, round(law.items_mean * (1.0 + law.burst * state)))

    key = key_of_stream(seed, episode, STREAM_CONTENT)
    for t in range(n_epochs):
        trace.content[b, t] = log_normal(key, 0, t, law.content_sigma)

    key = key_of_stream(seed, episode, STREAM_WEATHER)
    for t in range(trace.downlink_factor.shape[1]):
        for s in range(trace.downlink_factor.shape[2]):
            trace.downlink_factor[b, t, s] = log_normal(key, s, t, law.fade_sigma) if downlinks[t, s] else 1.0
    if law.rain:
        draw_rain(key_of_stream(seed, episode, STREAM_RAIN), law, trace.rain_db[b])

    key = key_of_stream(seed, episode, STREAM_CHARGE)
    for v in range(nodes.shape[0]):
        if nodes[v] >= 0:
            share = uniform(key, nodes[v], 0)
            trace.charge[b, v] = law.charge_low + (law.charge_high - law.charge_low) * share
    return needed, resets_needed


draw_world = kernel(draw_trace.py_func)
"""The same, called from Python."""


@part
def draw_rain(key, law, rain_db):  # type: ignore[no-untyped-def]
    """Draw each station's attenuation (T + H, S): exp of a stationary Ornstein-Uhlenbeck process."""
    spread = math.sqrt(1.0 - law.rain_keep * law.rain_keep)
    for s in range(rain_db.shape[1]):
        x = normal(key, s, 0)
        for t in range(rain_db.shape[0]):
            if t > 0:
                x = law.rain_keep * x + spread * normal(key, s, t)
            rain_db[t, s] = math.exp(law.rain_log_mean[s] + law.rain_log_sigma[s] * x)


@part
def draw_resets(key, node, law, anomaly, horizon_s, into):  # type: ignore[no-untyped-def]
    """Draw a satellite's resets: a Poisson process, faster in the Anomaly (by thinning)."""
    count = 0
    counter = 0
    peak_mean_s = law.reset_mtbf_s / law.anomaly_factor
    t = exponential(key, node, counter, peak_mean_s)
    while t < horizon_s:
        epoch = min(int(t / law.epoch_s), anomaly.shape[0] - 1)
        if anomaly[epoch] or uniform(key, node, counter + 1) * law.anomaly_factor < 1.0:
            if count < into.shape[0]:
                into[count] = t
            count += 1
        counter += 2
        t += exponential(key, node, counter, peak_mean_s)
    return count


@part
def link_loss_s(key_loss, key_plane, law, link_ends, link, planes):  # type: ignore[no-untyped-def]
    """Return when the first satellite at an end of a link is lost; inf: never."""
    lost_s = math.inf
    for side in range(2):
        node = link_ends[link, side]
        if node < planes.shape[0]:
            lost_s = min(lost_s, loss_time_s(key_loss, key_plane, law, node, planes[node], planes.shape[0]))
    return lost_s


@part
def redraw_running(outages, key, link, age_s):  # type: ignore[no-untyped-def]
    """Draw the length of an outage that has lasted `age_s` so far: by rejection of shorter ones.

    One older than any of the law, out of a recorded log, goes on for as long as `residual_outage_s` says, and one
    that `REDRAWS` draws do not outlast ends now.
    """
    longest_s = max(outages.high_s, outages.tail_high_s if outages.tail_share > 0.0 else 0.0)
    if age_s >= longest_s:
        return age_s + longest_s
    counter = np.int64(FAR_COUNTER)
    for _ in range(REDRAWS):
        length_s = down_time_s(outages, key, link, counter)
        if length_s > age_s:
            return length_s
        counter += 2
    return age_s


@kernel
def redraw_links(  # type: ignore[no-untyped-def]
    law,
    outages,
    true_seed,
    true_episode,
    seed,
    links,
    link_ends,
    link_is_downlink,
    planes,
    now,
    horizon_s,
    link_down_s,
):
    """Replace what ``link_down_s`` (W, n, 2) holds beyond `now` by a fresh draw, given what is seen now.

    An outage in progress goes on for a fresh length above its age; a link that is up stays up for an
    exponential time. Losses that have happened stay, and of the true trace (`true_seed`, `true_episode`) nothing
    but those is looked at; satellites that live are lost after a fresh time, and their links with them. Returns the
    intervals needed.
    """
    capacity = link_down_s.shape[1]
    true_loss = key_of_stream(true_seed, true_episode, STREAM_LOSS)
    true_plane = key_of_stream(true_seed, true_episode, STREAM_PLANE_LOSS)
    key_loss = key_of_stream(seed, IMAGINED, STREAM_LOSS)
    key_plane = key_of_stream(seed, IMAGINED, STREAM_PLANE_LOSS)
    key = key_of_stream(seed, IMAGINED, STREAM_LINKS)
    needed = 0
    for w in range(links.shape[0]):
        link = links[w]
        if link < 0:
            continue
        count = 0
        while count < capacity and link_down_s[w, count, 0] <= now:
            count += 1
        if link_loss_s(true_loss, true_plane, law, link_ends, link, planes) <= now:
            needed = max(needed, count)
            continue  # its last interval never ends
        lost_s = now + link_loss_s(key_loss, key_plane, law, link_ends, link, planes)
        t = now
        if count > 0 and link_down_s[w, count - 1, 1] > now:
            start = link_down_s[w, count - 1, 0]
            t = max(start + redraw_running(outages, key, link, now - start), now)
            link_down_s[w, count - 1, 1] = t if t < lost_s else math.inf
        random = not link_is_downlink[link] and outages.up_mean_s > 0.0
        counter = np.int64(0)
        t = t + exponential(key, link, counter, outages.up_mean_s) if random else math.inf
        while t < horizon_s and t < lost_s:
            end = t + down_time_s(outages, key, link, counter + 1)
            if count < capacity:
                link_down_s[w, count, 0] = t
                link_down_s[w, count, 1] = end if end < lost_s else math.inf
            count += 1
            counter += 3
            t = end + exponential(key, link, counter, outages.up_mean_s)
        if lost_s < math.inf and not (0 < count <= capacity and link_down_s[w, count - 1, 1] == math.inf):
            if count < capacity:
                link_down_s[w, count, 0] = lost_s
                link_down_s[w, count, 1] = math.inf
            count += 1
        for n in range(min(count, capacity), capacity):
            link_down_s[w, n, 0] = math.inf
            link_down_s[w, n, 1] = math.inf
        needed = max(needed, count)
    return needed


@kernel
def redraw_rest(law, seed, now, t, nodes, planes, anomaly, trace, b, fresh):  # type: ignore[no-untyped-def]
    """Replace the resets, losses, jobs and weather of world `b` beyond `now` (epoch `t`) by a fresh draw.

    ``fresh`` (m + 8,) is work space for the m resets a satellite of the trace has room for.
    Returns the resets a satellite needs room for.
    """
    horizon_s = trace.downlink_factor.shape[1] * law.epoch_s
    needed = 0
    key_loss = key_of_stream(seed, IMAGINED, STREAM_LOSS)
    key_plane = key_of_stream(seed, IMAGINED, STREAM_PLANE_LOSS)
    key = key_of_stream(seed, IMAGINED, STREAM_RESETS)
    for v in range(nodes.shape[0]):
        if nodes[v] >= 0 and trace.lost_s[b, v] > now:
            fresh_s = loss_time_s(key_loss, key_plane, law, nodes[v], planes[nodes[v]], planes.shape[0])
            trace.lost_s[b, v] = now + fresh_s
        count = 0
        while count < trace.reset_s.shape[2] and trace.reset_s[b, v, count] <= now:
            count += 1
        if nodes[v] >= 0 and law.reset_mtbf_s > 0.0:
            fill(fresh, math.inf)
            drawn = draw_resets(key, nodes[v], law, anomaly[:, nodes[v]], horizon_s, fresh)
            if drawn > fresh.shape[0]:
                needed = max(needed, drawn)  # the last ones did not fit: drawn again with more room
            for i in range(fresh.shape[0]):
                if now < fresh[i] < math.inf:
                    if count < trace.reset_s.shape[2]:
                        trace.reset_s[b, v, count] = fresh[i]
                    count += 1
        for i in range(min(count, trace.reset_s.shape[2]), trace.reset_s.shape[2]):
            trace.reset_s[b, v, i] = math.inf
        needed = max(needed, count)
    key = key_of_stream(seed, IMAGINED, STREAM_ARRIVALS)
    content = key_of_stream(seed, IMAGINED, STREAM_CONTENT)
    change = -0.5 * math.expm1(-2.0 * law.epoch_s / law.burst_mean_s)
    state = 1.0 if trace.items[b, t] >= law.items_mean else -1.0
    for e in range(t + 1, trace.items.shape[1]):
        if uniform(key, 1, e) < change:
            state = -state
        trace.items[b, e] = max(1.0, round(law.items_mean * (1.0 + law.burst * state)))
        trace.content[b, e] = log_normal(content, 0, e, law.content_sigma)
    weather = key_of_stream(seed, IMAGINED, STREAM_WEATHER)
    rain = key_of_stream(seed, IMAGINED, STREAM_RAIN)
    spread = math.sqrt(1.0 - law.rain_keep * law.rain_keep)
    for s in range(trace.downlink_factor.shape[2]):
        for e in range(t + 1, trace.downlink_factor.shape[1]):
            trace.downlink_factor[b, e, s] = log_normal(weather, s, e, law.fade_sigma)
            if law.rain:
                x = (math.log(trace.rain_db[b, e - 1, s]) - law.rain_log_mean[s]) / law.rain_log_sigma[s]
                x = law.rain_keep * x + spread * normal(rain, s, e)
                trace.rain_db[b, e, s] = math.exp(law.rain_log_mean[s] + law.rain_log_sigma[s] * x)
    return needed
