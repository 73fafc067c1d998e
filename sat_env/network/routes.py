"""The contact plan: everything that orbits determine about a scenario, computed once.

`contact_plan` is the only way in. Random faults select among what stands here; they never change it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sat_env import motion
from sat_env.kernels import allocating_kernel, inner
from sat_env.motion.frames import EARTH_RADIUS_KM, Floats, latitude_longitude_deg
from sat_env.motion.sun import light_share
from sat_env.network.chain import RULES, View, choose_slots, sensing_nodes
from sat_env.network.ground import contacts, ka_rate_bps, look_angles, station_positions_km
from sat_env.network.links import (
    LIGHT_KM_S,
    acquired,
    link_rates,
    links_in_sight,
    nearest_in_reach,
    radio_horizon_km,
)
from sat_env.network.paths import MAX_HOPS, Mesh, Tree, clear, grow, links_to, new_tree
from sat_env.network.topology import Topology, build_topology
from sat_env.scenario import Scenario, ScenarioError, Surface, require

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

ANOMALY_LATITUDE_DEG = (-45.0, -15.0)  # the South Atlantic Anomaly, as a box
ANOMALY_LONGITUDE_DEG = (-90.0, 40.0)
LIGHT_SAMPLE_S = 60.0  # the shadow's edge is interpolated between samples at most this far apart
PRIMARY, BACKUP = 0, 1


@dataclass(frozen=True)
class ContactPlan:
    """What orbits determine, for E epochs, K slots, H epochs ahead, N satellites, S stations and NL links.

    Pairs of slots are indexed (from, to), 0-based, with the ground in column K; only from < to is filled.
    Links 0..L-1 join satellites (`topology`); then comes a downlink for every satellite and station:
    link ``L + n * S + s``. With ``ground.contact = "always"`` there is one ideal station (S = 1).
    """

    scenario: Scenario
    topology: Topology
    start_utc: datetime
    names: tuple[str, ...]  # (N,) satellites
    station_names: tuple[str, ...]  # (S,)
    n_nodes: int  # N; station s is node N + s
    plane: Ints  # (N,)
    time_s: Floats  # (E,) of each epoch, after start_utc
    chain: Ints  # (E, K) satellite of each slot
    route_rate_bps: (
        Floats  # (E, H, 2, K, K+1) at epoch e+h, of the route chosen at e; slowest link, clear sky
    )
    relay_bps: Floats  # (E, H, 2, K) slowest link between satellites of the routes to the ground; inf: none
    downlink_bps: Floats  # (E, H, 2, K) their downlink under a clear sky
    route_latency_s: Floats  # (E, 2, K, K+1) propagation, and links.relay_s in every relay
    route_links: Ints  # (E, 2, K, K+1, X) from the slot onward, -1 padded
    route_station: Ints  # (E, 2, K, K+1) station of a route to the ground, else -1
    route_elevation_deg: npt.NDArray[np.float32]  # (E, 2, K, K+1) of the exit at its station, else 0
    route_range_km: npt.NDArray[np.float32]  # (E, 2, K, K+1) from the exit to its station, else 0
    link_ends: Ints  # (NL, 2) nodes
    link_is_downlink: Bools  # (NL,)
    light: npt.NDArray[np.float32]  # (E, N) mean share of energy.panel_w during the epoch
    anomaly: Bools  # (E, N) sub-point in the South Atlantic Anomaly


class Sky(NamedTuple):
    """Positions and what they allow at every epoch of the plan and of its horizon: T = E + H - 1."""

    positions_km: Floats  # (T, N, 3) Earth-fixed
    rate_bps: Floats  # (T, L) of the links between satellites, 0: carries nothing
    in_contact: Bools  # (T, N, S) downlinks that carry data


class Downlinks(NamedTuple):
    """The ground segment in numbers."""

    places_km: Floats  # (S, 3)
    zeniths: Floats  # (S, 3)
    fixed_bps: float  # rate in contact; 0: by the Ka budget
    share: float  # reserved slice of the Ka carrier
    ideal_slot: int  # slot that always sees the ground, 0-based; -1: contacts decide
    ideal_range_km: float  # slant range of an overhead pass


def contact_plan(scenario: Scenario) -> ContactPlan:
    """Compute chains, routes, rates, latencies and light for all epochs of a scenario.

    A route has the fewest hops, and among those the shortest propagation, up to `MAX_HOPS` links between
    satellites; it uses only links that have been in sight for `links.acquisition_s` (or since epoch 0). The
    ground is reached from the first satellite with a contact on that count; among several, the one that
    stands highest over its station. A backup shares no link with its primary.

    Raises
    ------
    ScenarioError
        The element file cannot be used, the downlink does not suit the motion, or at some epoch fewer
        satellites than slots can be reached from the sensing one.
    """
    _check(scenario)
    mover = motion.build(scenario.motion)
    require(
        scenario.chain.slots <= mover.n_nodes,
        "chain.slots",
        scenario.chain.slots,
        f"at most the {mover.n_nodes} nodes",
    )
    topology = build_topology(mover, scenario.links)
    epochs, horizon = scenario.total_epochs, int(np.ceil(scenario.jobs.deadline_s / scenario.epoch_s)) + 1
    time_s = scenario.epoch_s * np.arange(epochs + horizon - 1, dtype=np.float64)
    sky = look_at_sky(scenario, mover, topology, time_s)
    downlinks = downlinks_of(scenario, sky.positions_km[0])
    chain = _chains(scenario, mover, topology, sky, downlinks, epochs)
    routes = _all_routes(
        chain,
        topology.neighbours,
        topology.neighbour_links,
        sky,
        downlinks,
        horizon,
        scenario.links.relay_s,
        scenario.links.backup,
    )
    longest = max(int((routes.links >= 0).sum(axis=-1).max()), 1)
    stations = sky.in_contact.shape[2]
    downlink_ends = np.stack(
        [
            np.repeat(np.arange(mover.n_nodes), stations),
            mover.n_nodes + np.tile(np.arange(stations), mover.n_nodes),
        ],
        axis=1,
    )
    ends = np.concatenate([topology.link_ends, downlink_ends]).astype(np.int32)
    latitude, longitude = latitude_longitude_deg(sky.positions_km[:epochs])
    return ContactPlan(
        scenario=scenario,
        topology=topology,
        start_utc=mover.start,
        names=mover.names,
        station_names=tuple(s.name for s in scenario.ground.stations)
        if downlinks.ideal_slot < 0
        else ("ground",),
        n_nodes=mover.n_nodes,
        plane=mover.plane,
        time_s=time_s[:epochs],
        chain=chain,
        route_rate_bps=routes.rate_bps,
        relay_bps=routes.relay_bps,
        downlink_bps=routes.downlink_bps,
        route_latency_s=routes.latency_s,
        route_links=np.ascontiguousarray(routes.links[..., :longest]),
        route_station=routes.station,
        route_elevation_deg=routes.elevation_deg,
        route_range_km=routes.range_km,
        link_ends=ends,
        link_is_downlink=np.arange(len(ends)) >= topology.n_links,
        light=_light(scenario, mover, epochs),
        anomaly=(latitude >= ANOMALY_LATITUDE_DEG[0])
        & (latitude <= ANOMALY_LATITUDE_DEG[1])
        & (longitude >= ANOMALY_LONGITUDE_DEG[0])
        & (longitude <= ANOMALY_LONGITUDE_DEG[1]),
    )


def _check(scenario: Scenario) -> None:
    require(
        scenario.ground.downlink == "fixed" or not isinstance(scenario.motion, Surface),
        "ground.downlink",
        scenario.ground.downlink,
        '"fixed" for movers near the surface',
    )


def look_at_sky(scenario: Scenario, mover: motion.Mover, topology: Topology, time_s: Floats) -> Sky:
    """Work out positions, links and contacts at instants (T,) that are `epoch_s` apart."""
    links, ground = scenario.links, scenario.ground
    positions = mover.positions_km(time_s)
    if isinstance(scenario.motion, Surface):
        height = scenario.motion.altitude_km
        reach = min(links.max_range_km, radio_horizon_km(height, height))
        held = nearest_in_reach(positions, topology.link_ends, reach, links.terminals)
    else:
        held = links_in_sight(
            positions,
            motion.sun_direction(mover.start, time_s),
            topology.link_ends,
            topology.is_cross,
            links.max_range_km,
            links.grazing_height_km,
            links.cross_plane_max_latitude_deg,
            links.sun_exclusion_deg,
        )
    carries = acquired(held, int(np.ceil(links.acquisition_s / scenario.epoch_s)))
    rate = link_rates(
        positions, topology.link_ends, carries, links.rate_bps, links.reference_rate_bps, links.reference_km
    )
    in_contact: Bools = np.zeros((len(positions), mover.n_nodes, 1), np.bool_)
    if ground.contact == "visible":
        seen = contacts(scenario, positions)
        carrying = acquired(seen.reshape(len(seen), -1), int(np.ceil(ground.handover_s / scenario.epoch_s)))
        in_contact = carrying.reshape(seen.shape)
    return Sky(positions, rate, in_contact)


def downlinks_of(scenario: Scenario, positions_km: Floats) -> Downlinks:
    """Put the ground segment in numbers; positions (N, 3) of satellites give the height of an ideal overhead pass."""
    moves, ground, slots = scenario.motion, scenario.ground, scenario.chain.slots
    always = ground.contact == "always"
    places, zeniths = (
        station_positions_km(ground.stations) if not always else (np.zeros((1, 3)), np.zeros((1, 3)))
    )
    return Downlinks(
        places,
        zeniths,
        ground.rate_bps * ground.share if ground.downlink == "fixed" else 0.0,
        ground.share,
        (scenario.chain.exit_slot or slots) - 1 if always else -1,
        # Where movers fly, the ellipsoid may lie lower than the equator by more than their height.
        moves.altitude_km
        if isinstance(moves, Surface)
        else float(np.linalg.norm(positions_km, axis=-1).mean()) - EARTH_RADIUS_KM,
    )


def _chains(
    scenario: Scenario, mover: motion.Mover, topology: Topology, sky: Sky, downlinks: Downlinks, epochs: int
) -> Ints:
    """Apply the scenario's chain rule at every epoch: (E, K)."""
    slots = scenario.chain.slots
    if scenario.chain.fixed:
        return np.tile(np.arange(slots, dtype=np.int32), (epochs, 1))
    source = sensing_nodes(scenario.chain, sky.positions_km[:epochs])
    rule = RULES[scenario.chain.rule]
    nothing = np.zeros(topology.n_links, np.bool_), np.zeros(sky.positions_km.shape[1], np.bool_)
    tree = new_tree(sky.positions_km.shape[1])
    chain = np.empty((epochs, slots), np.int32)
    for e in range(epochs):
        mesh = Mesh(
            topology.neighbours,
            topology.neighbour_links,
            sky.rate_bps[e],
            sky.positions_km[e],
            scenario.links.relay_s,
        )
        count = grow(tree, mesh, source[e], *nothing)
        if count < slots:
            when = mover.start + timedelta(seconds=scenario.epoch_s * e)
            raise ScenarioError(
                f"chain.slots = {slots}: must be at most {count}, the satellites reachable from "
                f"{mover.names[source[e]]} at {when:%Y-%m-%dT%H:%M:%SZ} (epoch {e}); fewer slots, a longer "
                "links.max_range_km, more links.terminals, or more satellites of one shell change that"
            )
        reached = tree.order[:count].copy()
        clear(tree, count)
        elevation = _best_elevations(
            sky.positions_km[e], sky.in_contact[e], downlinks.places_km, downlinks.zeniths
        )
        view = View(topology, mesh, sky.in_contact[e].any(axis=1), elevation, reached)
        chain[e] = choose_slots(rule, view, int(source[e]), slots)
    return chain


def _light(scenario: Scenario, mover: motion.Mover, epochs: int) -> npt.NDArray[np.float32]:
    """Average the light on every node over every epoch: (E, N)."""
    samples = int(np.ceil(scenario.epoch_s / LIGHT_SAMPLE_S))
    light = np.empty((epochs, mover.n_nodes), np.float32)
    for first in range(0, epochs, 512):  # bounds the memory
        last = min(first + 512, epochs)
        times = scenario.epoch_s / samples * np.arange(first * samples, last * samples + 1)
        sun = motion.sun_direction(mover.start, times)
        light[first:last] = light_share(mover.positions_km(times), sun, samples, scenario.energy.tracking)
    return light


@allocating_kernel
def _best_elevations(positions_km: Floats, in_contact: Bools, places: Floats, zeniths: Floats) -> Floats:
    best = np.full(positions_km.shape[0], -90.0)
    for n in range(positions_km.shape[0]):
        for s in range(places.shape[0]):
            if in_contact[n, s]:
                best[n] = max(best[n], look_angles(positions_km[n], places[s], zeniths[s])[0])
    return best


@allocating_kernel
def downlink_rate(downlinks: Downlinks, elevation_deg: float, range_km: float) -> float:
    """Return the clear-sky rate of a contact (bit/s)."""
    if downlinks.fixed_bps > 0:
        return downlinks.fixed_bps
    return float(downlinks.share * ka_rate_bps(elevation_deg, range_km, 0.0))


class Routes(NamedTuple):
    """Routes of every pair of slots; the fields are those of `ContactPlan`."""

    rate_bps: Floats  # (E, H, 2, K, K+1)
    relay_bps: Floats  # (E, H, 2, K)
    downlink_bps: Floats  # (E, H, 2, K)
    latency_s: Floats  # (E, 2, K, K+1)
    links: Ints  # (E, 2, K, K+1, MAX_HOPS + 1)
    station: Ints  # (E, 2, K, K+1)
    elevation_deg: npt.NDArray[np.float32]  # (E, 2, K, K+1)
    range_km: npt.NDArray[np.float32]  # (E, 2, K, K+1)


class Search(NamedTuple):
    """Work space of the search for routes."""

    tree: Tree
    barred: Bools  # (L,) links a backup must not use
    goal: Bools  # (N,) where a route between slots ends
    grounded: Bools  # (N,) nodes in contact


def _all_routes(
    chain: Ints,
    neighbours: Ints,
    neighbour_links: Ints,
    sky: Sky,
    downlinks: Downlinks,
    horizon: int,
    relay_s: float,
    backup: bool,
) -> Routes:
    """Find primary and backup of every pair of slots at every epoch, and follow their rates."""
    epochs, slots = chain.shape
    n_nodes, n_links = sky.in_contact.shape[1], sky.rate_bps.shape[1]
    shape = (epochs, 2, slots, slots + 1)
    routes = Routes(
        np.zeros((epochs, horizon, 2, slots, slots + 1)),
        np.zeros((epochs, horizon, 2, slots)),
        np.zeros((epochs, horizon, 2, slots)),
        np.zeros(shape),
        np.full((*shape, MAX_HOPS + 1), -1, np.int32),
        np.full(shape, -1, np.int32),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
    )
    search = Search(
        new_tree(n_nodes),
        np.zeros(n_links, np.bool_),
        np.zeros(n_nodes, np.bool_),
        np.zeros(n_nodes, np.bool_),
    )
    _find_routes(routes, search, chain, neighbours, neighbour_links, sky, downlinks, relay_s, backup)
    return routes


@allocating_kernel
def _find_routes(
    routes: Routes,
    search: Search,
    chain: Ints,
    neighbours: Ints,
    neighbour_links: Ints,
    sky: Sky,
    downlinks: Downlinks,
    relay_s: float,
    backup: bool,
) -> None:
    epochs, horizon, _, slots, _ = routes.rate_bps.shape
    n_nodes = sky.in_contact.shape[1]
    for e in range(epochs):
        mesh = Mesh(neighbours, neighbour_links, sky.rate_bps[e], sky.positions_km[e], relay_s)
        for n in range(n_nodes):
            search.grounded[n] = False
            for station in range(sky.in_contact.shape[2]):
                search.grounded[n] |= sky.in_contact[e, n, station]
        if downlinks.ideal_slot >= 0:
            search.grounded[chain[e, downlinks.ideal_slot]] = True
        for i in range(slots):
            for j in range(i + 1, slots + 1):
                for which in range(2 if backup else 1):
                    at = (e, which, i, j)
                    if j < slots:
                        _route_between(routes, at, chain[e, i], chain[e, j], mesh, search)
                    else:
                        _route_to_ground(routes, at, chain[e, i], sky, downlinks, mesh, search)
                    found = routes.links[at]
                    if found[0] < 0:
                        break
                    for h in range(horizon):
                        relay_bps, downlink_bps = _route_rates(found, sky, e + h, downlinks)
                        routes.rate_bps[e, h, which, i, j] = min(relay_bps, downlink_bps)
                        if j == slots:
                            routes.relay_bps[e, h, which, i] = relay_bps
                            routes.downlink_bps[e, h, which, i] = downlink_bps
                    _bar(search.barred, found, np.bool_(True))
                for which in range(2):
                    _bar(search.barred, routes.links[e, which, i, j], np.bool_(False))


@inner
def _bar(barred: Bools, links: Ints, value: bool) -> None:
    for link in links:
        if 0 <= link < len(barred):  # downlinks are told apart at the exit
            barred[link] = value


@inner
def _route_between(
    routes: Routes, at: tuple[int, int, int, int], source: int, target: int, mesh: Mesh, search: Search
) -> None:
    """Enter the shortest route between two satellites, if there is one."""
    search.goal[target] = True
    count = grow(search.tree, mesh, source, search.barred, search.goal)
    search.goal[target] = False
    if search.tree.hops[target] > 0:
        links_to(search.tree, np.int64(target), routes.links[at])
        routes.latency_s[at] = search.tree.latency_s[target]
    clear(search.tree, count)


@inner
def _route_to_ground(
    routes: Routes,
    at: tuple[int, int, int, int],
    source: int,
    sky: Sky,
    downlinks: Downlinks,
    mesh: Mesh,
    search: Search,
) -> None:
    """Enter the route to the nearest exit by the best contact, if there is one; a backup by another downlink."""
    e, which, i, j = at
    n_links, stations = sky.rate_bps.shape[1], sky.in_contact.shape[2]
    spent = _last_link(routes.links[e, PRIMARY, i, j]) if which == BACKUP else -1
    count = grow(search.tree, mesh, source, search.barred, search.grounded)
    exit_node, station, angle, length = _best_exit(search, count, sky, e, downlinks, spent)
    if exit_node < 0 and spent >= 0:  # the nearest exit has only the primary's downlink: look past it
        clear(search.tree, count)
        taken = (spent - n_links) // stations
        search.grounded[taken] = False
        count = grow(search.tree, mesh, source, search.barred, search.grounded)
        exit_node, station, angle, length = _best_exit(search, count, sky, e, downlinks, spent)
        search.grounded[taken] = True
    if exit_node >= 0:
        hops = links_to(search.tree, np.int64(exit_node), routes.links[at])
        routes.links[at][hops] = n_links + exit_node * stations + station
        relay_s = mesh.relay_s if hops > 0 else 0.0
        routes.latency_s[at] = search.tree.latency_s[exit_node] + relay_s + length / LIGHT_KM_S
        routes.station[at] = station if downlinks.ideal_slot < 0 else -1
        routes.elevation_deg[at], routes.range_km[at] = angle, length
    clear(search.tree, count)


@inner
def _last_link(links: Ints) -> int:
    last = -1
    for link in links:
        if link >= 0:
            last = link
    return last


@inner
def _best_exit(
    search: Search, count: int, sky: Sky, e: int, downlinks: Downlinks, spent: int
) -> tuple[int, int, float, float]:
    """Return node, station, elevation and range of the best contact in a tree of `count` nodes; node -1: none.

    The downlink `spent` does not count.
    """
    best_node, best_station, best_angle, best_range = -1, -1, -90.0, 0.0
    n_links, stations = sky.rate_bps.shape[1], sky.in_contact.shape[2]
    for n in search.tree.order[:count]:
        if not search.grounded[n]:
            continue
        for s in range(stations):
            if spent == n_links + n * stations + s:
                continue
            if downlinks.ideal_slot >= 0:
                return n, 0, 90.0, downlinks.ideal_range_km
            if sky.in_contact[e, n, s]:
                angle, length = look_angles(
                    sky.positions_km[e, n], downlinks.places_km[s], downlinks.zeniths[s]
                )
                if angle > best_angle:
                    best_node, best_station, best_angle, best_range = n, s, angle, length
    return best_node, best_station, best_angle, best_range


@inner
def _route_rates(links: Ints, sky: Sky, t: int, downlinks: Downlinks) -> tuple[float, float]:
    """Return the rate at epoch `t` of a route's slowest link between satellites, and of its downlink.

    0 once one is gone, inf where there is none.
    """
    n_links, stations = sky.rate_bps.shape[1], sky.in_contact.shape[2]
    relay_bps, downlink_bps = np.inf, np.inf
    for link in links:
        if link < 0:
            break
        if link < n_links:
            relay_bps = min(relay_bps, sky.rate_bps[t, link])
            continue
        n, s = (link - n_links) // stations, (link - n_links) % stations
        if downlinks.ideal_slot >= 0:
            downlink_bps = downlink_rate(downlinks, 90.0, downlinks.ideal_range_km)
        elif not sky.in_contact[t, n, s]:
            downlink_bps = 0.0
        else:
            angle, length = look_angles(sky.positions_km[t, n], downlinks.places_km[s], downlinks.zeniths[s])
            downlink_bps = downlink_rate(downlinks, angle, length)
    return relay_bps, downlink_bps
