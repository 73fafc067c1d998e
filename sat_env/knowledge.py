"""What an observer knows of a world at a decision: the kernels that fill `Problems`.

Nothing here looks beyond now. Of a server that is still busy the observer knows what was expected of it when
its job was planned; of an outage, how old it is, and so how long such outages last on average.
"""

from __future__ import annotations

import math

import numpy as np

from sat_env.energy import allowed_mode, battery_step
from sat_env.kernels import kernel, small
from sat_env.network.ground import ka_rate_bps, rain_at_elevation_db


@small
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


@kernel
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


@kernel
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
            reboot_s,
            expected_wait_s(residual_s, step_s, world.deadline_s, now, busy_s[v], expected_busy_s[v]),
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
        residual_s, step_s, world.deadline_s, now, state.ground_busy_s[b], state.expected_ground_busy_s[b]
    )
    charge[slots] = 1.0
    load_bytes_per_s[slots] = math.inf


@kernel
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


@small
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


@kernel
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
                            link,
                            link_down_s,
                            link_busy_s,
                            expected_busy_s,
                            residual_s,
                            step_s,
                            world.deadline_s,
                            now,
                            seen,
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


@small
def link_now(link, link_down_s, link_busy_s, expected_busy_s, residual_s, step_s, longest_s, now, seen):  # type: ignore[no-untyped-def]
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
    busy_s = expected_wait_s(residual_s, step_s, longest_s, now, link_busy_s[link], expected_busy_s[link])
    seen[link, 0] = since_s
    seen[link, 1] = max(wait_s, busy_s)


@small
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


@small
def downlink_share(factor, rain_db, elevation_deg, range_km):  # type: ignore[no-untyped-def]
    """Return the share of the clear-sky rate a downlink gives: the fade of its slice, and rain on its way."""
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
    wait = expected_wait_s(
        residual_s, step_s, world.deadline_s, now, state.ground_busy_s[b], state.expected_ground_busy_s[b]
    )
    state.ground_busy_s[b] = now + wait
    state.expected_ground_busy_s[b] = now + wait
