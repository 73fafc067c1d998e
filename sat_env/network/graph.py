"""The network at one instant: a networkx graph for export and analysis, and all ways to the ground."""

from __future__ import annotations

from collections.abc import Collection

import networkx as nx
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from sat_env import motion
from sat_env.motion.frames import Floats, latitude_longitude_deg
from sat_env.motion.sun import clearance_km
from sat_env.network.ground import look_angles
from sat_env.network.links import LIGHT_KM_S
from sat_env.network.routes import ContactPlan, downlink_rate, downlinks_of, look_at_sky
from sat_env.network.topology import Topology
from sat_env.scenario import Scenario

Ints = npt.NDArray[np.int32]


def epoch_graph(plan: ContactPlan, epoch: int, failed: Collection[int] = ()) -> nx.Graph:
    """Return the network at an epoch.

    Parameters
    ----------
    plan
        The scenario's contact plan.
    epoch
        0..E-1.
    failed
        Links (indices into ``plan.link_ends``) that are down for other reasons than the orbits.

    Returns
    -------
    Nodes 0..N-1 are satellites with ``name``, ``latitude_deg``, ``longitude_deg``, ``plane``, ``slot``
    (0-based place in the chain, or -1) and ``sunlit``; nodes N.. are stations with name and place. Edges are
    the links in sight, with ``link`` (index), ``range_km``, ``latency_s``, ``rate_bps`` (clear sky; 0 if not
    up), ``up`` (False while it is being acquired, or failed) and ``downlink``.

    Raises
    ------
    IndexError
        If the plan has no such epoch.
    """
    if not 0 <= epoch < len(plan.time_s):
        raise IndexError(f"epoch = {epoch}: must be in 0..{len(plan.time_s) - 1}")
    scenario, topology = plan.scenario, plan.topology
    mover = motion.build(scenario.motion)
    setup_s = max(scenario.links.acquisition_s, scenario.ground.handover_s)
    first = max(0, epoch - int(np.ceil(setup_s / scenario.epoch_s)))  # what was held before needs no memory
    sky = look_at_sky(scenario, mover, topology, plan.time_s[first : epoch + 1])
    at_once = scenario.replace(**{"links.acquisition_s": 0.0, "ground.handover_s": 0.0})
    in_sight = look_at_sky(at_once, mover, topology, plan.time_s[epoch : epoch + 1])
    positions = sky.positions_km[-1]
    sun = motion.sun_direction(mover.start, plan.time_s[epoch : epoch + 1])[0]

    graph = nx.Graph(scenario=scenario.name, epoch=epoch, time_s=float(plan.time_s[epoch]))
    latitudes, longitudes = latitude_longitude_deg(positions)
    slots = {int(node): slot for slot, node in enumerate(plan.chain[epoch])}
    for n, name in enumerate(plan.names):
        graph.add_node(
            n,
            name=name,
            latitude_deg=float(latitudes[n]),
            longitude_deg=float(longitudes[n]),
            plane=int(plan.plane[n]),
            slot=slots.get(n, -1),
            sunlit=bool(clearance_km(*positions[n], *sun) > 0),
        )
    ground = downlinks_of(scenario, positions)
    if ground.ideal_slot >= 0:
        graph.add_node(plan.n_nodes, name=plan.station_names[0])
        exit_node = int(plan.chain[epoch, ground.ideal_slot])
        link = topology.n_links + exit_node
        rate = 0.0 if link in failed else downlink_rate(ground, 90.0, ground.ideal_range_km)
        graph.add_edge(exit_node, plan.n_nodes, **_edge(link, ground.ideal_range_km, rate, downlink=True))
    else:
        for s, station in enumerate(scenario.ground.stations):
            east_deg = (station.longitude_deg + 180.0) % 360.0 - 180.0  # as those of satellites
            place = {"latitude_deg": station.latitude_deg, "longitude_deg": east_deg}
            graph.add_node(plan.n_nodes + s, name=station.name, **place)
    for link in np.flatnonzero(in_sight.rate_bps[0] > 0).tolist():
        a, b = (int(end) for end in plan.link_ends[link])
        range_km = float(np.linalg.norm(positions[a] - positions[b]))
        rate = 0.0 if link in failed else float(sky.rate_bps[-1, link])
        graph.add_edge(a, b, **_edge(link, range_km, rate, downlink=False))
    for n, s in np.argwhere(in_sight.in_contact[0]).tolist():
        link = topology.n_links + n * in_sight.in_contact.shape[2] + s
        angle, range_km = look_angles(positions[n], ground.places_km[s], ground.zeniths[s])
        up = sky.in_contact[-1, n, s] and link not in failed
        rate = float(downlink_rate(ground, angle, range_km)) if up else 0.0
        graph.add_edge(n, plan.n_nodes + s, **_edge(link, range_km, rate, downlink=True))
    return graph


def _edge(link: int, range_km: float, rate_bps: float, downlink: bool) -> dict[str, float | int | bool]:
    return {
        "link": link,
        "range_km": range_km,
        "latency_s": range_km / LIGHT_KM_S,
        "rate_bps": rate_bps,
        "up": rate_bps > 0,
        "downlink": downlink,
    }


def latencies_to_stations(
    scenario: Scenario, mover: motion.Mover, topology: Topology, time_s: float
) -> tuple[Floats, Ints]:
    """Return the shortest way from every node to every station at one instant, all links in sight being up.

    Returns
    -------
    latency_s : (S, N)
        Propagation, and `links.relay_s` in every satellite that relays; inf where there is no way.
    toward : (S, N)
        The next node on that way (N + s: the station itself; -1: none).
    """
    sky = look_at_sky(scenario, mover, topology, np.array([time_s]))
    positions, ground = sky.positions_km[0], downlinks_of(scenario, sky.positions_km[0])
    a, b = topology.link_ends[sky.rate_bps[0] > 0].T
    node, station = np.nonzero(sky.in_contact[0])
    between_s = np.linalg.norm(positions[a] - positions[b], axis=1) / LIGHT_KM_S + scenario.links.relay_s
    down_s = np.linalg.norm(positions[node] - ground.places_km[station], axis=1) / LIGHT_KM_S
    # Searched from the stations outward: no edge leads back into one, so that none relays.
    size = mover.n_nodes + len(ground.places_km)
    edges = (np.concatenate([a, b, mover.n_nodes + station]), np.concatenate([b, a, node]))
    weights = csr_array((np.concatenate([between_s, between_s, down_s]), edges), shape=(size, size))
    stations = np.arange(mover.n_nodes, size)
    latency, previous = dijkstra(weights, indices=stations, return_predecessors=True)
    nodes = slice(0, mover.n_nodes)
    return latency[:, nodes], np.maximum(previous[:, nodes], -1)
