"""What an observer knows of a world at a decision: the kernels that fill `Problems`.

Nothing here looks beyond now. Of a server that is still busy the observer knows what was expected of it when
its job was planned; of an outage, how old it is, and so how long such outages last on average.
"""

from __future__ import annotations

import math

import numpy as np

from sat_env.energy import allowed_mode, battery_step
from sat_env.kernels import kernel, part, small
from sat_env.network.ground import ka_rate_bps, rain_at_elevation_db
from sat_env.trace import fill


@kernel
def residual_outage_s(residual_s, step_s, age_s):  # type: ignore[no-untyped-def]
    """Return the mean time an outage of this age still lasts (table of `faults.OutageLaw`, and between its entries)."""
    last = residual_s.shape[0] - 1
    if age_s >= last * step_s:
        return residual_s[last]
    i = int(age_s / step_s)
    after = age_s / step_s - i
    # None outlasts the longest; the last entry is of outages older than any of the law.
    next_s = residual_s[i + 1] if i + 1 < last else 0.0
    return residual_s[i] + after * (next_s - residual_s[i])


@kernel
def outage_within_s(outages, age_s, limit_s):  # type: ignore[no-untyped-def]
    """Return the mean, over outages of this age, of what is left of them or the limit, whichever is less.

    That is the integral of the share of them that goes on so long; `limit_s` where the law has none so old.
    """
    reached = _at(outages.alive, age_s / outages.residual_step_s)
    if reached <= 1e-9:
        return limit_s
    left_s = _at(outages.left_s, age_s / outages.residual_step_s)
    beyond_s = _at(outages.left_s, (age_s + limit_s) / outages.residual_step_s)
    return min((left_s - beyond_s) / reached, limit_s)


@small
def _at(table, place):  # type: ignore[no-untyped-def]
    """Return a table's value between its entries; past the last, that."""
    last = table.shape[0] - 1
    if place >= last:
        return table[last]
    i = int(place)
    return table[i] + (place - i) * (table[i + 1] - table[i])


@small
def expected_wait_s(world, now, busy_s, expected_s):  # type: ignore[no-untyped-def]
    """Return how long a server seems busy to an observer who saw no future: 0 when it is free.

    One that is overdue is held up by an outage at least that old or, where there are none, by worse weather than was
    foreseen, for as long again as it has been; but no longer than the newest job that it may hold, released
    an epoch ago, has until its deadline.
    """
    if busy_s <= now:
        return 0.0
    if expected_s > now:
        return expected_s - now
    longest_s = max(0.0, world.deadline_s - world.epoch_s)
    if world.outages.up_mean_s > 0.0:
        return outage_within_s(world.outages, now - expected_s, longest_s)
    return min(now - expected_s, longest_s)


@part
def describe(world, trace, state, b, problems, row, hops):  # type: ignore[no-untyped-def]
    """Write what is knowable at the current epoch of world `b` into row `row` of `problems`.

    `hops` (see `problem.Hops`) is work space.
    """
    describe_slots(world, trace, state, b, problems, row)
    describe_hops(world, trace, state, b, problems, row, hops)
    if world.weights_from_neighbour:
        for k in range(world.chain.shape[1]):
            best = 0.0
            for i in range(k):
                best = max(best, problems.rate_bps[row, i, k] / 8.0)
            if best > 0.0:
                problems.load_bytes_per_s[row, k] = best


@kernel
def describe_worlds(world, trace, state, problems, over, hops):  # type: ignore[no-untyped-def]
    """Describe all worlds whose episode is not over; the others keep their last decision."""
    for b in range(over.shape[0]):
        if not over[b]:
            describe(world, trace, state, b, problems, b, hops)


@part
def describe_slots(world, trace, state, b, problems, row):  # type: ignore[no-untyped-def]
    """Write what is knowable of the job, the slots and the ground."""
    describe_job(world, trace, state, b, problems, row)
    epoch = state.epoch[b]
    t = epoch - state.start[b]
    problems.epoch[row] = epoch
    problems.epochs_left[row] = world.episode_epochs - t
    for i in range(3):
        problems.recent_items[row, i] = trace.items[b, t - 1 - i] if t > i else world.items_mean
    problems.epochs_to_change[row] = world.epochs_to_change[epoch]
    slots = world.chain.shape[1]
    light, light_ahead = problems.light[row], problems.light_ahead[row]
    cuts, levels = problems.previous_cuts[row], problems.previous_levels[row]
    for k in range(slots):
        light[k] = world.slot_light[epoch, k]
        light_ahead[k] = world.slot_light_ahead[epoch, k]
        cuts[k] = state.previous_cuts[b, k]
        levels[k] = state.previous_levels[b, k]


@part
def describe_job(world, trace, state, b, problems, row):  # type: ignore[no-untyped-def]
    """Write what running the job takes of that: its size, and what slots and ground can do."""
    epoch = state.epoch[b]
    t = epoch - state.start[b]
    now = t * world.epoch_s
    problems.items[row] = trace.items[b, t]
    problems.content[row] = trace.content[b, t]
    slots = world.chain.shape[1]
    power, chain, nodes = world.power, world.chain[epoch], world.window_nodes[trace.window[b]]
    battery_j, battery_epoch, resident = state.battery_j[b], state.battery_epoch[b], state.resident[b]
    flops_per_s, bandwidth = problems.flops_per_s[row], problems.bandwidth_bytes_per_s[row]
    power_w, free_bytes = problems.power_w[row], problems.memory_free_bytes[row]
    busy_s, left_s, charge = problems.busy_s[row], problems.reboot_s[row], problems.charge[row]
    seen_resident, load_bytes_per_s = problems.resident[row], problems.load_bytes_per_s[row]
    any_fault, any_busy = state.first_fault_s[b] <= now, state.slots_free_s[b] > now
    for k in range(slots):
        v = chain[k]
        if battery_epoch[v] < epoch:
            advance_battery(world, state, b, v, nodes[v], epoch)
        reboot_s = 0.0
        works = k > 0 or world.sensing_computes
        if any_fault:
            reboot_s = meet_resets(world, trace, state, b, v, now)
            works = works and trace.lost_s[b, v] > now
        mode = world.slot_mode[k]
        if mode < 0:
            mode = allowed_mode(battery_j[v], power)
        works = works and mode >= 0
        mode = max(mode, 0)
        flops_per_s[k] = power.mode_flops_per_s[mode] if works else 0.0
        bandwidth[k] = power.mode_bandwidth_bytes_per_s[mode]
        power_w[k] = power.mode_w[mode] - power.idle_w
        free_bytes[k] = world.memory_bytes if works else 0.0
        left_s[k] = reboot_s
        busy_s[k] = max(reboot_s, slot_wait_s(world, state, b, v, now)) if any_busy else reboot_s
        charge[k] = battery_j[v] / power.capacity_j if power.enabled else 1.0
        seen_resident[k, 0] = resident[v, 0]
        seen_resident[k, 1] = resident[v, 1]
        load_bytes_per_s[k] = world.storage_bytes_per_s
    flops_per_s[slots] = world.ground_flops_per_s
    bandwidth[slots] = world.ground_bandwidth_bytes_per_s
    free_bytes[slots] = world.ground_memory_bytes
    busy_s[slots] = expected_wait_s(world, now, state.ground_busy_s[b], state.expected_ground_busy_s[b])
    charge[slots] = 1.0
    load_bytes_per_s[slots] = math.inf


@part
def slot_wait_s(world, state, b, v, now):  # type: ignore[no-untyped-def]
    """Return how long satellite `v` of world `b` seems busy."""
    return expected_wait_s(world, now, state.busy_s[b, v], state.expected_busy_s[b, v])


@small
def advance_battery(world, state, b, v, node, epoch):  # type: ignore[no-untyped-def]
    """Bring the battery of satellite `v` of world `b` up to the start of `epoch`."""
    power, epoch_s = world.power, world.epoch_s
    draw_j, ledger_j = state.draw_j[b, v], state.energy_j[b]
    span = draw_j.shape[0]
    first = state.battery_epoch[b, v]
    place = first % span
    battery_j = state.battery_j[b, v]
    stored_j, spilled_j, unserved_j = ledger_j[0], ledger_j[1], ledger_j[2]
    for e in range(first, epoch):
        job_j = draw_j[place]
        draw_j[place] = 0.0
        place = place + 1 if place + 1 < span else 0
        if power.enabled:
            in_j = world.light[e, node] * power.panel_w * epoch_s
            load_j = power.base_w * epoch_s + job_j
            battery_j, stored, spilled, unserved = battery_step(battery_j, in_j, load_j, power)
            stored_j += stored
            spilled_j += spilled
            unserved_j += unserved
    state.battery_j[b, v] = battery_j
    ledger_j[0], ledger_j[1], ledger_j[2] = stored_j, spilled_j, unserved_j
    state.battery_epoch[b, v] = max(first, epoch)


@part
def meet_resets(world, trace, state, b, v, now):  # type: ignore[no-untyped-def]
    """Apply the resets of satellite `v` up to now that no job has met; return what is left of a reboot."""
    left_s = 0.0
    for i in range(trace.reset_s.shape[2]):
        reset = trace.reset_s[b, v, i]
        if reset > now:
            break
        back = reset + world.reboot_s
        left_s = max(left_s, back - now)
        if reset > state.resets_known_s[b, v]:
            state.resident[b, v, 0] = 0
            state.resident[b, v, 1] = 0
            state.busy_s[b, v] = max(state.busy_s[b, v], back)
            state.expected_busy_s[b, v] = max(state.expected_busy_s[b, v], back)
            state.resets_known_s[b, v] = reset
            state.slots_free_s[b] = max(state.slots_free_s[b], back)
    return left_s


@part
def describe_hops(world, trace, state, b, problems, row, hops):  # type: ignore[no-untyped-def]
    """Write what is knowable of every hop from slot i to slot j > i."""
    see_hops(world, trace, state, b, hops)
    places = world.route_places[state.epoch[b], 0]
    slots = world.chain.shape[1]
    p = 0
    for i in range(slots):
        for j in range(i + 1, slots + 1):
            problems.rate_bps[row, i, j] = hops.rate_bps[p]
            problems.latency_s[row, i, j] = hops.latency_s[p]
            problems.release_s[row, i, j] = hops.release_s[p]
            problems.primary_up[row, i, j] = hops.primary_up[p]
            problems.state_age_s[row, i, j] = hops.state_age_s[p]
            problems.backup_bps[row, i, j] = hops.backup_bps[p]
            count = 0
            while count < places.shape[1] and places[p, count] < world.epoch_links.shape[1]:
                count += 1
            problems.route_hops[row, i, j] = count
            p += 1


@part
def see_hops(world, trace, state, b, hops):  # type: ignore[no-untyped-def]
    """Write into `hops` what is seen of world `b`: most of a step's work, so without branches where it can be."""
    epoch = state.epoch[b]
    t = epoch - state.start[b]
    see_links(world, trace, state, b, hops)
    since_s, wait_s = hops.link_since_s, hops.link_wait_s
    clear_bps, latency_s = world.hop_rate_bps[epoch], world.hop_latency_s[epoch]
    station, places = world.route_station[epoch, 0], world.route_places[epoch, 0]
    longest = world.longest_route[epoch, 0]
    rate_bps, seen_latency_s, release_s = hops.rate_bps, hops.latency_s, hops.release_s
    primary_up, state_age_s, backup_bps = hops.primary_up, hops.state_age_s, hops.backup_bps
    slots = world.chain.shape[1]
    for p in range(rate_bps.shape[0]):
        rate_bps[p] = clear_bps[p]
    for p in range(rate_bps.shape[0]):
        seen_latency_s[p] = latency_s[p]
    p = -1
    for i in range(slots):
        p += slots - i  # the hop to the ground is the last of a row
        if station[i, slots] >= 0:
            rate_bps[p] = ground_bps(world, trace, b, epoch, t, np.int64(0), np.int64(0), i)
    for p in range(rate_bps.shape[0]):
        # Down for longer is further below 0: the least of all links is what counts.
        up_s = math.inf
        wait = 0.0
        for x in range(longest):
            up_s = min(up_s, since_s[places[p, x]])
            wait = max(wait, wait_s[places[p, x]])
        release_s[p] = wait
        primary_up[p] = 1.0 if up_s >= 0.0 and rate_bps[p] > 0.0 else 0.0
        state_age_s[p] = abs(up_s)
        backup_bps[p] = 0.0
    if world.has_backups[epoch]:
        see_backups(world, trace, state, b, hops)


@part
def see_backups(world, trace, state, b, hops):  # type: ignore[no-untyped-def]
    """Put the backup in place of a primary route that does not carry bits."""
    epoch = state.epoch[b]
    t = epoch - state.start[b]
    route_bps, latency_s = world.route_rate_bps[epoch, 0, 1], world.route_latency_s[epoch, 1]
    station, places = world.route_station[epoch, 1], world.route_places[epoch, 1]
    since_s, wait_s, longest = hops.link_since_s, hops.link_wait_s, world.longest_route[epoch, 1]
    slots = route_bps.shape[0]
    p = -1
    for i in range(slots):
        for j in range(i + 1, slots + 1):
            p += 1
            if route_bps[i, j] <= 0.0:
                continue
            up_s = math.inf
            for x in range(longest):
                up_s = min(up_s, since_s[places[p, x]])
            if up_s < 0.0:
                continue
            rate = route_bps[i, j]
            if station[i, j] >= 0:
                rate = ground_bps(world, trace, b, epoch, t, np.int64(0), np.int64(1), i)
            hops.backup_bps[p] = rate
            if rate > 0.0 and hops.primary_up[p] == 0.0:
                wait = 0.0
                for x in range(longest):
                    wait = max(wait, wait_s[places[p, x]])
                noticed = 0.0 if hops.rate_bps[p] <= 0.0 else max(0.0, world.detect_s - hops.state_age_s[p])
                hops.release_s[p] = max(noticed, wait)
                hops.rate_bps[p] = rate
                hops.latency_s[p] = latency_s[i, j]


@part
def see_links(world, trace, state, b, hops):  # type: ignore[no-untyped-def]
    """Write into `hops` what is seen of the links of the current epoch: routes share them."""
    epoch = state.epoch[b]
    now = (epoch - state.start[b]) * world.epoch_s
    links = world.epoch_links[epoch]
    up_s, next_s = state.link_up_s[b], state.link_next_s[b]
    since_s, wait_s = hops.link_since_s, hops.link_wait_s
    any_busy = state.links_free_s[b] > now
    for n in range(links.shape[0]):
        link = np.int64(links[n])
        if link < 0:
            break
        if next_s[link] <= now:
            meet_outages(trace, state, b, link, now)
        since_s[n] = now - up_s[link]
        wait_s[n] = 0.0
        if since_s[n] < 0.0:
            see_outage(world, trace, b, link, now, n, hops)
        if any_busy:
            wait_s[n] = max(
                wait_s[n],
                expected_wait_s(world, now, state.link_busy_s[b, link], state.expected_link_busy_s[b, link]),
            )


@part
def meet_outages(trace, state, b, link, now):  # type: ignore[no-untyped-def]
    """Bring `link_up_s` and `link_next_s` of a link up to now."""
    up_s = 0.0
    next_s = math.inf
    for n in range(trace.link_down_s.shape[2]):
        if trace.link_down_s[b, link, n, 0] > now:
            next_s = trace.link_down_s[b, link, n, 0]
            break
        up_s = trace.link_down_s[b, link, n, 1]
    state.link_up_s[b, link] = up_s
    state.link_next_s[b, link] = next_s


@part
def see_outage(world, trace, b, link, now, n, hops):  # type: ignore[no-untyped-def]
    """Write into row `n` of the links of `hops` what is seen of a link that is down."""
    start_s = 0.0
    for i in range(trace.link_down_s.shape[2]):
        if trace.link_down_s[b, link, i, 0] > now:
            break
        start_s = trace.link_down_s[b, link, i, 0]  # below 0 where it was there before the episode
    age_s = now - start_s
    hops.link_wait_s[n] = residual_outage_s(world.outages.residual_s, world.outages.residual_step_s, age_s)
    hops.link_since_s[n] = -age_s if age_s > 0.0 else -1e-12


@small
def ground_bps(world, trace, b, epoch, t, h, q, i):  # type: ignore[no-untyped-def]
    """Return the rate `h` epochs after `t` of a route (of `epoch`) from slot `i` to a station.

    Fade and rain take from its downlink; the links between satellites on its way carry no more for a good one.
    """
    slots = world.chain.shape[1]
    station = world.route_station[epoch, q, i, slots]
    share = trace.downlink_factor[b, t + h, station]
    if world.law.rain:
        elevation_deg = world.route_elevation_deg[epoch, q, i, slots]
        range_km = world.route_range_km[epoch, q, i, slots]
        share = rained_on(share, trace.rain_db[b, t + h, station], elevation_deg, range_km)
    return min(world.relay_bps[epoch, h, q, i], world.downlink_bps[epoch, h, q, i] * share)


@part
def rained_on(factor, rain_db, elevation_deg, range_km):  # type: ignore[no-untyped-def]
    """Return what rain of `rain_db` at 45 degrees leaves of a downlink's share of its clear-sky rate."""
    if rain_db <= 0.0:
        return factor
    attenuation_db = rain_at_elevation_db(rain_db, elevation_deg)
    clear_bps = ka_rate_bps(elevation_deg, range_km, 0.0)
    if clear_bps <= 0.0:  # so low that not even a clear sky lets bits through
        return 0.0
    return factor * ka_rate_bps(elevation_deg, range_km, attenuation_db) / clear_bps


@kernel
def forget_future(world, trace, state, b):  # type: ignore[no-untyped-def]
    """Put in place of the true busy times of world `b` what an observer expects of them.

    What running jobs will still draw is forgotten too: how long they run is not known.
    """
    now = (state.epoch[b] - state.start[b]) * world.epoch_s
    fill(state.link_next_s[b], now)
    state.first_fault_s[b] = 0.0
    state.slots_free_s[b] = now
    for v in range(state.busy_s.shape[1]):
        wait = expected_wait_s(world, now, state.busy_s[b, v], state.expected_busy_s[b, v])
        state.busy_s[b, v] = now + wait
        state.expected_busy_s[b, v] = now + wait
        state.resets_known_s[b, v] = min(state.resets_known_s[b, v], now)
        booked, span = state.battery_epoch[b, v], state.draw_j.shape[2]
        for epoch in range(max(state.epoch[b], booked), booked + span):
            state.draw_j[b, v, epoch % span] = 0.0
        state.slots_free_s[b] = max(state.slots_free_s[b], now + wait)
    state.links_free_s[b] = now
    for w in range(state.link_busy_s.shape[1]):
        wait = expected_wait_s(world, now, state.link_busy_s[b, w], state.expected_link_busy_s[b, w])
        state.link_busy_s[b, w] = now + wait
        state.expected_link_busy_s[b, w] = now + wait
        state.links_free_s[b] = max(state.links_free_s[b], now + wait)
    wait = expected_wait_s(world, now, state.ground_busy_s[b], state.expected_ground_busy_s[b])
    state.ground_busy_s[b] = now + wait
    state.expected_ground_busy_s[b] = now + wait
    state.slots_free_s[b] = max(state.slots_free_s[b], now + wait)
