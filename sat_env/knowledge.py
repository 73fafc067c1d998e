"""What an observer knows of a world at a decision: the kernels that fill `Problems`.

Nothing here looks beyond now. Of a server that is still busy the observer knows what was expected of it when
its job was planned; of an outage, how old it is, and so how long such outages last on average.
"""

from __future__ import annotations

import math

from sat_env.energy import allowed_mode, battery_step
from sat_env.kernels import kernel, part, small
from sat_env.network.ground import ka_rate_bps, rain_at_elevation_db


@kernel
def residual_outage_s(residual_s, step_s, age_s):  # type: ignore[no-untyped-def]
    """Return the mean time an outage of this age still lasts (table of `faults.OutageLaw`)."""
    return residual_s[min(int(age_s / step_s), residual_s.shape[0] - 1)]


@small
def expected_wait_s(residual_s, step_s, longest_s, now, busy_s, expected_s):  # type: ignore[no-untyped-def]
    """Return how long a server seems busy to an observer who saw no future: 0 when it is free.

    One that is overdue is held up by an outage at least that old, but no longer than `longest_s`, the
    deadline of the newest job it may hold.
    """
    if busy_s <= now:
        return 0.0
    if expected_s > now:
        return expected_s - now
    return min(residual_outage_s(residual_s, step_s, now - expected_s), longest_s)


@part
def describe(world, trace, state, b, problems, row, link_now_s):  # type: ignore[no-untyped-def]
    """Write what is knowable at the current epoch of world `b` into row `row` of `problems`.

    ``link_now_s`` (U, 2) is work space: what is seen of the links of `World.epoch_links`.
    """
    describe_slots(world, trace, state, b, problems, row)
    describe_hops(world, trace, state, b, problems, row, link_now_s)
    if world.weights_from_neighbour:
        for k in range(world.chain.shape[1]):
            best = 0.0
            for i in range(k):
                best = max(best, problems.rate_bps[row, i, k] / 8.0)
            if best > 0.0:
                problems.load_bytes_per_s[row, k] = best


@kernel
def describe_worlds(world, trace, state, problems, over, link_now_s):  # type: ignore[no-untyped-def]
    """Describe all worlds whose episode is not over; the others keep their last decision."""
    for b in range(over.shape[0]):
        if not over[b]:
            describe(world, trace, state, b, problems, b, link_now_s)


@part
def describe_slots(world, trace, state, b, problems, row):  # type: ignore[no-untyped-def]
    """Write what is knowable of the job, the slots and the ground."""
    epoch = state.epoch[b]
    t = epoch - state.start[b]
    now = t * world.epoch_s
    problems.epoch[row] = epoch
    problems.epochs_left[row] = world.episode_epochs - t
    problems.items[row] = trace.items[b, t]
    problems.content[row] = trace.content[b, t]
    for i in range(3):
        problems.recent_items[row, i] = trace.items[b, t - 1 - i] if t > i else world.items_mean
    problems.epochs_to_change[row] = world.epochs_to_change[epoch]

    slots = world.chain.shape[1]
    power, chain, nodes = world.power, world.chain[epoch], world.window_nodes[trace.window[b]]
    residual_s, step_s = world.outages.residual_s, world.outages.residual_step_s
    battery_j, battery_epoch, resident = state.battery_j[b], state.battery_epoch[b], state.resident[b]
    busy_s, expected_busy_s = state.busy_s[b], state.expected_busy_s[b]
    for k in range(slots):
        v = chain[k]
        node = nodes[v]
        if battery_epoch[v] < epoch:
            advance_battery(world, state, b, v, node, epoch)
        reboot_s = meet_resets(world, trace, state, b, v, now)
        mode = world.slot_mode[k]
        if mode < 0:
            mode = allowed_mode(battery_j[v], power)
        works = mode >= 0 and (k > 0 or world.sensing_computes) and trace.lost_s[b, v] > now
        problems.flops_per_s[row, k] = power.mode_flops_per_s[mode] if works else 0.0
        problems.bandwidth_bytes_per_s[row, k] = power.mode_bandwidth_bytes_per_s[max(mode, 0)]
        problems.power_w[row, k] = power.mode_w[max(mode, 0)] - power.idle_w
        problems.memory_free_bytes[row, k] = world.memory_bytes if works else 0.0
        problems.reboot_s[row, k] = reboot_s
        problems.busy_s[row, k] = max(
            reboot_s,
            expected_wait_s(residual_s, step_s, world.deadline_s, now, busy_s[v], expected_busy_s[v]),
        )
        problems.charge[row, k] = battery_j[v] / power.capacity_j if power.enabled else 1.0
        problems.light[row, k] = world.slot_light[epoch, k]
        problems.light_ahead[row, k] = world.slot_light_ahead[epoch, k]
        problems.resident[row, k, 0] = resident[v, 0]
        problems.resident[row, k, 1] = resident[v, 1]
        problems.load_bytes_per_s[row, k] = world.storage_bytes_per_s
        problems.previous_cuts[row, k] = state.previous_cuts[b, k]
        problems.previous_levels[row, k] = state.previous_levels[b, k]
    problems.flops_per_s[row, slots] = world.ground_flops_per_s
    problems.bandwidth_bytes_per_s[row, slots] = world.ground_bandwidth_bytes_per_s
    problems.memory_free_bytes[row, slots] = world.ground_memory_bytes
    problems.busy_s[row, slots] = expected_wait_s(
        residual_s, step_s, world.deadline_s, now, state.ground_busy_s[b], state.expected_ground_busy_s[b]
    )
    problems.charge[row, slots] = 1.0
    problems.load_bytes_per_s[row, slots] = math.inf


@part
def advance_battery(world, state, b, v, node, epoch):  # type: ignore[no-untyped-def]
    """Bring the battery of satellite `v` of world `b` up to the start of `epoch`."""
    power, epoch_s = world.power, world.epoch_s
    draw_j, ledger_j = state.draw_j[b, v], state.energy_j[b]
    span = draw_j.shape[0]
    first = state.battery_epoch[b, v]
    place = first % span
    for e in range(first, epoch):
        job_j = draw_j[place]
        draw_j[place] = 0.0
        place = place + 1 if place + 1 < span else 0
        if power.enabled:
            in_j = world.light[e, node] * power.panel_w * epoch_s
            load_j = power.base_w * epoch_s + job_j
            state.battery_j[b, v], stored, spilled, unserved = battery_step(
                state.battery_j[b, v], in_j, load_j, power
            )
            ledger_j[0] += stored
            ledger_j[1] += spilled
            ledger_j[2] += unserved
    state.battery_epoch[b, v] = max(first, epoch)


@small
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
    return left_s


@part
def describe_hops(world, trace, state, b, problems, row, link_now_s):  # type: ignore[no-untyped-def]
    """Write what is knowable of every hop from slot i to slot j > i."""
    epoch = state.epoch[b]
    t = epoch - state.start[b]
    now = t * world.epoch_s
    route_bps, latency_s = world.route_rate_bps[epoch, 0], world.route_latency_s[epoch]
    places, station = world.route_places[epoch], world.route_station[epoch]
    rate_bps, seen_latency_s = problems.rate_bps[row], problems.latency_s[row]
    release_s, primary_up = problems.release_s[row], problems.primary_up[row]
    state_age_s, seen_backup_bps = problems.state_age_s[row], problems.backup_bps[row]
    route_hops = problems.route_hops[row]
    has_backups = world.has_backups[epoch]
    slots = places.shape[1]
    # Routes share links: each is looked at once.
    any_busy = state.links_free_s[b] > now
    for n in range(world.epoch_links.shape[1]):
        link = world.epoch_links[epoch, n]
        if link < 0:
            break
        look_at_link(world, trace, state, b, link, now, any_busy, link_now_s[n])
    for i in range(slots):
        for j in range(i + 1, slots + 1):
            primary_bps = route_bps[0, i, j]
            if station[0, i, j] >= 0:
                primary_bps *= downlink_share(world, trace, b, epoch, t, 0, i, j)
            up, age, wait, count = route_now(places[0, i, j], link_now_s)
            backup_bps = 0.0
            takes_backup = False
            if has_backups and route_bps[1, i, j] > 0.0:
                backup_up, _, backup_wait, _ = route_now(places[1, i, j], link_now_s)
                if backup_up:
                    backup_bps = route_bps[1, i, j]
                    if station[1, i, j] >= 0:
                        backup_bps *= downlink_share(world, trace, b, epoch, t, 1, i, j)
                takes_backup = backup_bps > 0.0 and (primary_bps <= 0.0 or not up)
                if takes_backup:
                    noticed = 0.0 if primary_bps <= 0.0 else max(0.0, world.detect_s - age)
                    wait = max(noticed, backup_wait)
            rate_bps[i, j] = backup_bps if takes_backup else primary_bps
            seen_latency_s[i, j] = latency_s[1 if takes_backup else 0, i, j]
            route_hops[i, j] = count
            release_s[i, j] = wait
            primary_up[i, j] = 1.0 if up and primary_bps > 0.0 else 0.0
            state_age_s[i, j] = age
            seen_backup_bps[i, j] = backup_bps


@small
def look_at_link(world, trace, state, b, link, now, any_busy, seen_s):  # type: ignore[no-untyped-def]
    """Write what an observer sees of a link into ``seen_s`` (2,).

    That is the time it has been up (below 0: down for that long), and the expected time until it is up and
    free.
    """
    residual_s, step_s = world.outages.residual_s, world.outages.residual_step_s
    since_s = now
    wait_s = 0.0
    for n in range(trace.link_down_s.shape[2]):
        start = trace.link_down_s[b, link, n, 0]
        if start > now:
            break
        end = trace.link_down_s[b, link, n, 1]
        if now < end:
            since_s = max(start, 0.0) - now
            wait_s = residual_outage_s(residual_s, step_s, -since_s)
            since_s = since_s if since_s < 0.0 else -1e-12
        else:
            since_s = now - end
    if any_busy:
        busy_s, expected_s = state.link_busy_s[b, link], state.expected_link_busy_s[b, link]
        wait_s = max(wait_s, expected_wait_s(residual_s, step_s, world.deadline_s, now, busy_s, expected_s))
    seen_s[0] = since_s
    seen_s[1] = wait_s


@small
def route_now(places, link_now_s):  # type: ignore[no-untyped-def]
    """Tell what an observer sees of a route whose links stand at ``places`` (X,) of ``link_now_s``.

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
    wait_s = 0.0
    count = 0
    while count < places.shape[0] and places[count] >= 0:
        up_s = min(up_s, link_now_s[places[count], 0])
        wait_s = max(wait_s, link_now_s[places[count], 1])
        count += 1
    # Down for longer is further below 0: the least of both is what counts.
    return up_s >= 0.0, abs(up_s), wait_s, count


@small
def downlink_share(world, trace, b, epoch, t, q, i, j):  # type: ignore[no-untyped-def]
    """Return the share of the clear-sky rate that the downlink of a route (of `epoch`) gives at epoch `t`.

    That is the fade of its slice, and rain on its way.
    """
    station = world.route_station[epoch, q, i, j]
    factor = trace.downlink_factor[b, t, station]
    if not world.law.rain:
        return factor
    elevation_deg, range_km = world.route_elevation_deg[epoch, q, i, j], world.route_range_km[epoch, q, i, j]
    return rained_on(factor, trace.rain_db[b, t, station], elevation_deg, range_km)


@part
def rained_on(factor, rain_db, elevation_deg, range_km):  # type: ignore[no-untyped-def]
    """Return what rain of `rain_db` at 45 degrees leaves of a downlink's share of its clear-sky rate."""
    if rain_db <= 0.0:
        return factor
    attenuation_db = rain_at_elevation_db(rain_db, elevation_deg)
    clear_bps = ka_rate_bps(elevation_deg, range_km, 0.0)
    return factor * ka_rate_bps(elevation_deg, range_km, attenuation_db) / clear_bps


@kernel
def forget_future(world, trace, state, b):  # type: ignore[no-untyped-def]
    """Put in place of the true busy times of world `b` what an observer expects of them."""
    now = (state.epoch[b] - state.start[b]) * world.epoch_s
    residual_s, step_s = world.outages.residual_s, world.outages.residual_step_s
    for v in range(state.busy_s.shape[1]):
        wait = expected_wait_s(
            residual_s, step_s, world.deadline_s, now, state.busy_s[b, v], state.expected_busy_s[b, v]
        )
        state.busy_s[b, v] = now + wait
        state.expected_busy_s[b, v] = now + wait
        state.resets_known_s[b, v] = min(state.resets_known_s[b, v], now)
    state.links_free_s[b] = now
    for w in range(state.link_busy_s.shape[1]):
        wait = expected_wait_s(
            residual_s,
            step_s,
            world.deadline_s,
            now,
            state.link_busy_s[b, w],
            state.expected_link_busy_s[b, w],
        )
        state.link_busy_s[b, w] = now + wait
        state.expected_link_busy_s[b, w] = now + wait
        state.links_free_s[b] = max(state.links_free_s[b], now + wait)
    wait = expected_wait_s(
        residual_s, step_s, world.deadline_s, now, state.ground_busy_s[b], state.expected_ground_busy_s[b]
    )
    state.ground_busy_s[b] = now + wait
    state.expected_ground_busy_s[b] = now + wait
