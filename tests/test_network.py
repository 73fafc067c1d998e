"""Links, topology, ground, chains and routes: what must hold, and what others compute."""

from __future__ import annotations

import functools
from itertools import combinations, cycle, pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sat_env import motion
from sat_env.motion.frames import EARTH_RADIUS_KM, elevation_deg, latitude_longitude_deg
from sat_env.motion.presets import preset
from sat_env.network import chain as chains
from sat_env.network.graph import epoch_graph, latencies_to_stations
from sat_env.network.ground import (
    contacts,
    ka_rate_bps,
    rain_at_elevation_db,
    rain_keep,
    rain_parameters,
    slant_range_km,
)
from sat_env.network.links import (
    LIGHT_KM_S,
    acquired,
    isl_rate_bps,
    line_of_sight,
    links_in_sight,
    longest_sight_km,
    nearest_in_reach,
)
from sat_env.network.paths import MAX_HOPS
from sat_env.network.render import COLOURS, describe, draw, great_circle
from sat_env.network.routes import ContactPlan, contact_plan
from sat_env.network.topology import build_topology
from sat_env.scenario import (
    Elements,
    Ground,
    Links,
    Scenario,
    ScenarioError,
    Station,
    Surface,
    Walker,
    load_scenario,
)

properties = settings(deadline=None, derandomize=True, max_examples=30)
SHORT = {"windows": 5, "episode_epochs": 40}


def shared_data(name: str) -> Path:
    """Return an external file for checks, or skip."""
    root = Path(__file__).parents[1]
    for folder in (root / "../shared/data", root / "../../shared/data"):
        if (folder / name).exists():
            return (folder / name).resolve()
    pytest.skip(f"external data {name} is not here")


# Links


@properties
@given(st.integers(0, 2**32 - 1), st.floats(0, 150))
def test_all_pairs_line_of_sight_is_the_closest_point_test(seed, grazing_km):
    generator = np.random.default_rng(seed)
    directions = generator.normal(size=(40, 3))
    radii = EARTH_RADIUS_KM + generator.uniform(300, 2000, size=40)
    positions = directions / np.linalg.norm(directions, axis=1, keepdims=True) * radii[:, None]
    sees = line_of_sight(positions, grazing_km)
    for a, b in combinations(range(40), 2):
        along = positions[b] - positions[a]
        share = np.clip(-(positions[a] @ along) / (along @ along), 0, 1)
        closest = np.linalg.norm(positions[a] + share * along)
        assert sees[a, b] == sees[b, a] == (closest >= EARTH_RADIUS_KM + grazing_km)


def test_longest_links_of_known_altitudes():
    assert longest_sight_km(550, 80) == pytest.approx(5017, abs=1)
    assert longest_sight_km(780, 80) == pytest.approx(6175, abs=1)


@properties
@given(st.floats(100, 6000), st.floats(100, 6000))
def test_an_optical_link_is_capped_and_falls_with_the_square_of_range(near, far):
    near, far = sorted((near, far))
    slow, fast = isl_rate_bps(far, 2.5e9, 33e9, 3000.0), isl_rate_bps(near, 2.5e9, 33e9, 3000.0)
    assert slow <= fast <= 2.5e9
    free = isl_rate_bps(far, 1e15, 33e9, 3000.0)
    assert free == pytest.approx(33e9 * (3000 / far) ** 2)


@properties
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=30), st.integers(0, 4))
def test_a_new_link_carries_nothing_until_it_is_acquired(history, setup):
    held = np.array(history)
    carries = acquired(held, setup)
    for t in range(len(held)):
        for link in range(3):
            first = max(0, t - setup)
            assert carries[t, link] == held[first : t + 1, link].all()


def test_a_terminal_is_blind_while_it_looks_into_the_sun():
    shell = motion.build(Walker(start_utc="2026-03-20T00:00:00Z"))
    topology = build_topology(shell, Links())
    times = np.arange(0, 43200.0, 30.0)
    positions, sun = shell.positions_km(times), motion.sun_direction(shell.start, times)
    shape = (topology.link_ends, topology.is_cross, 6000.0, 80.0, 90.0)
    free = links_in_sight(positions, sun, *shape, 0.0)
    limited = links_in_sight(positions, sun, *shape, 4.0)
    a, b = (positions[:, topology.link_ends[:, k]] for k in (0, 1))
    boresight = (b - a) / np.linalg.norm(b - a, axis=-1, keepdims=True)
    cosine = np.einsum("tlk,tk->tl", boresight, sun)
    looks_into = np.abs(cosine) > np.cos(np.deg2rad(4.0))
    receiver = np.where((cosine > 0)[..., None], a, b)  # the end whose telescope points at the sun
    along = np.einsum("tlk,tk->tl", receiver, sun)
    lit = (along > 0) | (np.sqrt((receiver**2).sum(axis=-1) - along**2) > EARTH_RADIUS_KM)
    np.testing.assert_array_equal(limited, free & ~(looks_into & lit))
    assert 0 < (free & ~limited).mean() < 0.01


@properties
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.floats(1, 12))
def test_surface_links_respect_reach_and_terminals(seed, terminals, reach):
    positions = np.random.default_rng(seed).uniform(-5, 5, size=(2, 9, 3))
    ends = np.stack(np.triu_indices(9, 1), axis=1).astype(np.int32)
    held = nearest_in_reach(positions, ends, reach, terminals)
    length = np.linalg.norm(positions[:, ends[:, 0]] - positions[:, ends[:, 1]], axis=-1)
    for t in range(2):
        degree = np.bincount(ends[held[t]].ravel(), minlength=9)
        assert degree.max() <= terminals
        assert (length[t][held[t]] <= reach).all()
        for link in np.flatnonzero(~held[t] & (length[t] <= reach)):
            assert degree[ends[link]].max() == terminals  # refused only for want of a terminal


# Topology


def degrees(topology) -> np.ndarray:
    return (topology.neighbours >= 0).sum(axis=1)


@pytest.mark.parametrize("terminals", [2, 3, 4])
def test_every_satellite_of_a_delta_shell_uses_all_its_terminals(terminals):
    topology = build_topology(motion.build(Walker()), Links(terminals=terminals))
    assert (degrees(topology) == terminals).all()
    assert topology.n_links == 80 * terminals // 2


def test_three_terminals_join_even_planes_to_the_next():
    shell = motion.build(Walker(planes=5, phasing=0))
    topology = build_topology(shell, Links(terminals=3))
    joined = {tuple(shell.plane[ends].tolist()) for ends in topology.link_ends[topology.is_cross]}
    assert joined == {(0, 1), (2, 3)}
    assert (degrees(topology)[shell.plane == 4] == 2).all()


def test_adjacency_lists_are_the_link_table():
    topology = build_topology(motion.build(preset("kuiper-1")), Links())
    for n in (0, 500, 1155):
        for neighbour, link in zip(topology.neighbours[n], topology.neighbour_links[n], strict=True):
            assert set(topology.link_ends[link].tolist()) == {n, neighbour}
    assert len({tuple(sorted(ends)) for ends in topology.link_ends.tolist()}) == topology.n_links


def test_cross_plane_neighbours_of_a_dense_shell_stay_close():
    shell = motion.build(preset("starlink-1"))
    topology = build_topology(shell, Links())
    positions = shell.positions_km(np.arange(0, 6000.0, 60.0))
    ends = topology.link_ends[topology.is_cross]
    ranges = np.linalg.norm(positions[:, ends[:, 0]] - positions[:, ends[:, 1]], axis=-1)
    assert ranges.max() < 1512


def test_a_star_shell_has_no_links_over_its_seam():
    shell = motion.build(preset("iridium"))
    topology = build_topology(shell, Links())
    planes = shell.plane[topology.link_ends]
    assert (np.abs(planes[:, 0] - planes[:, 1]) <= 1).all()
    assert (degrees(topology) == np.where(np.isin(shell.plane, (0, 5)), 3, 4)).all()


def assert_polar_rule(mover, topology):
    times = np.arange(0, 6100.0, 30.0)
    positions, sun = mover.positions_km(times), motion.sun_direction(mover.start, times)
    held = links_in_sight(positions, sun, topology.link_ends, topology.is_cross, 6000.0, 80.0, 68.0, 0.0)
    sine = positions[..., 2] / np.linalg.norm(positions, axis=-1)
    latitude = np.rad2deg(np.arcsin(np.abs(sine)))[:, topology.link_ends].max(axis=-1)
    assert not held[:, topology.is_cross][latitude[:, topology.is_cross] > 68].any()
    assert held[:, topology.is_cross][latitude[:, topology.is_cross] < 60].mean() > 0.98
    assert held[:, ~topology.is_cross][latitude[:, ~topology.is_cross] > 68].all()


def test_cross_plane_links_are_dropped_near_the_poles():
    shell = motion.build(preset("iridium"))
    assert_polar_rule(shell, build_topology(shell, Links()))


def test_iridium_from_its_file():
    path = shared_data("orbits/iridium_next_2026-05-07.tle")
    mover = motion.build(Elements(file=str(path)))
    topology = build_topology(mover, Links())
    pairs = {tuple(sorted(planes)) for planes in mover.plane[topology.link_ends[topology.is_cross]].tolist()}
    assert len(pairs) == 5
    for a, b in pairs:  # neighbours 31.6 deg apart; the seam, where planes meet head-on, is 158 deg wide
        nodes = [np.rad2deg(mover.orbits.node_rad[mover.plane == plane][0]) for plane in (a, b)]
        assert abs((nodes[1] - nodes[0] + 180) % 360 - 180) < 35
    assert_polar_rule(mover, topology)


def test_starlink_from_its_file_is_a_grid():
    path = shared_data("orbits/starlink_shell1_2024-05-20.omm.csv")
    mover = motion.build(Elements(file=str(path), altitude_km=550.0))
    assert mover.plane.max() + 1 == 72
    topology = build_topology(mover, Links())
    times = np.array([0.0, 2000.0])
    held = links_in_sight(
        mover.positions_km(times),
        motion.sun_direction(mover.start, times),
        topology.link_ends,
        topology.is_cross,
        5017.0,
        80.0,
        90.0,
        0.0,
    )
    for t in range(2):
        degree = np.bincount(topology.link_ends[held[t]].ravel(), minlength=mover.n_nodes)
        assert (degree == 4).mean() >= 0.95


# Ground


def test_the_ka_budget_of_a_550_km_pass():
    # Published figures for this terminal and gateway; the modes are those of ETSI EN 302 307-1 table 13.
    for elevation, slant, clear in ((10, 1816, 810), (25, 1123, 1498), (40, 812, 1619), (90, 550, 1619)):
        assert slant_range_km(elevation, 550.0) == pytest.approx(slant, abs=1)
        assert ka_rate_bps(elevation, slant_range_km(elevation, 550.0), 0.0) / 1e6 == pytest.approx(
            clear, abs=1
        )


@properties
@given(st.floats(5, 90), st.floats(400, 1400), st.floats(0, 30), st.floats(0, 30))
def test_rain_never_helps_and_height_above_the_horizon_never_hurts(elevation, altitude, light, heavy):
    light, heavy = sorted((light, heavy))
    range_km = slant_range_km(elevation, altitude)
    assert ka_rate_bps(elevation, range_km, heavy) <= ka_rate_bps(elevation, range_km, light)
    assert ka_rate_bps(elevation, range_km, light) <= ka_rate_bps(90.0, altitude, light)
    assert rain_at_elevation_db(heavy, elevation) >= rain_at_elevation_db(light, elevation)


def test_rain_follows_the_stations_two_figures():
    station = Station("Singapore", 1.35, 103.82, rain_1pct_db=7.7, rain_01pct_db=24.4)
    mu, sigma = rain_parameters(station)
    keep = rain_keep(20_000.0)
    spread = sigma * np.sqrt(1.0 - keep**2)
    generator = np.random.default_rng(0)
    logs = mu + sigma * generator.normal(size=200_000)
    for _ in range(3):  # the law is kept by the process
        logs = mu + keep * (logs - mu) + spread * generator.normal(size=200_000)
    attenuation = np.exp(logs)
    assert (attenuation > 7.7).mean() == pytest.approx(0.01, abs=0.001)
    assert (attenuation > 24.4).mean() == pytest.approx(0.001, abs=0.0003)
    assert rain_at_elevation_db(7.7, 45.0) == pytest.approx(7.7)


# Routes


def variants() -> dict[str, Scenario]:
    outage = load_scenario("WalkerOutage").replace(**SHORT)
    sea = Ground(stations=(Station("port", 54.0, 8.0, 30.0),))
    return {
        "ladder": outage,
        "grid": outage.replace(
            **{
                "links.terminals": 4,
                "links.backup": True,
                "chain.rule": "exit",
                "ground.downlink": "ka",
                "ground.handover_s": 50.0,
            }
        ),
        "line": outage.replace(
            **{"links.terminals": 2, "chain.rule": "line", "ground.elevation_mask_deg": 35.0}
        ),
        "polar": outage.replace(
            motion=preset("iridium"), **{"links.cross_plane_max_latitude_deg": 60.0, "links.backup": True}
        ),
        "paper": load_scenario("PaperStatic").replace(**{"links.backup": True}, **SHORT),
        "ships": outage.replace(
            motion=Surface(mover="ship", movers=12, radius_km=40.0, altitude_km=0.03, speed_m_s=8.0),
            ground=sea,
            **{
                "links.terminals": 4,
                "links.max_range_km": 30.0,
                "links.acquisition_s": 0.0,
                "chain.targets": ((54.1, 8.1),),
            },
        ),
    }


@functools.cache
def prepared(world: str) -> ContactPlan:
    return contact_plan(variants()[world])


@pytest.fixture(params=sorted(variants()))
def plan(request) -> ContactPlan:
    return prepared(request.param)


@pytest.fixture(params=["grid", "ladder", "line", "polar"])
def plan_with_passes(request) -> ContactPlan:
    """Return a world whose contacts come and go with the elevation."""
    return prepared(request.param)


def walk(plan: ContactPlan, links: np.ndarray, node: int) -> list[int]:
    """Follow links from a node; return the nodes visited."""
    nodes = [node]
    for link in links[links >= 0]:
        a, b = plan.link_ends[link]
        assert nodes[-1] in (a, b)
        nodes.append(int(b if nodes[-1] == a else a))
    return nodes


def each_route(plan: ContactPlan, epochs=range(0, 200, 7)):
    slots = plan.chain.shape[1]
    for e in epochs:
        for i in range(slots):
            for j in range(i + 1, slots + 1):
                for which in (0, 1):
                    yield e, which, i, j, plan.route_links[e, which, i, j]


def test_shapes_and_ranges(plan):
    scenario = plan.scenario
    epochs, slots = 200, scenario.chain.slots
    horizon = int(np.ceil(scenario.jobs.deadline_s / scenario.epoch_s)) + 1
    assert plan.chain.shape == (epochs, slots)
    assert plan.route_rate_bps.shape == (epochs, horizon, 2, slots, slots + 1)
    assert plan.route_links.shape[:4] == (epochs, 2, slots, slots + 1)
    assert (plan.route_links[..., -1] >= 0).any()  # X is as small as possible
    assert plan.route_links.max() < len(plan.link_ends) == len(plan.link_is_downlink)
    assert plan.light.shape == plan.anomaly.shape == (epochs, plan.n_nodes)
    assert (plan.light >= 0).all() and (plan.light <= 1).all()
    lower = np.tril_indices(slots)
    assert not plan.route_rate_bps[:, :, :, lower[0], lower[1]].any()
    for e in range(0, epochs, 11):
        assert len(set(plan.chain[e].tolist())) == slots
    assert not plan.route_rate_bps[:, :, 1].any() or scenario.links.backup


def test_routes_are_simple_end_where_they_should_and_backups_share_no_link(plan):
    slots = plan.chain.shape[1]
    for e, which, i, j, links in each_route(plan):
        if links[0] < 0:
            continue
        nodes = walk(plan, links, int(plan.chain[e, i]))
        assert len(set(nodes)) == len(nodes)
        assert len(nodes) - 1 <= MAX_HOPS + (j == slots)
        if j < slots:
            assert nodes[-1] == plan.chain[e, j]
        else:
            assert nodes[-1] == plan.n_nodes + max(plan.route_station[e, which, i, j], 0)
        if which == 1:
            primary = plan.route_links[e, 0, i, j]
            assert not set(links[links >= 0]) & set(primary[primary >= 0])
            assert len(links[links >= 0]) >= len(primary[primary >= 0])


def test_routes_are_the_shortest_of_the_graph_and_carry_its_slowest_rate(plan):
    slots, relay_s = plan.chain.shape[1], plan.scenario.links.relay_s
    for e in (0, 57, 130, 199):
        graph = epoch_graph(plan, e)
        up = nx.Graph((a, b, data) for a, b, data in graph.edges(data=True) if data["up"])
        up.add_nodes_from(range(plan.n_nodes))
        mesh = nx.subgraph_view(up, filter_node=lambda n: n < plan.n_nodes)
        leaving = {n for a, b, data in up.edges(data=True) if data["downlink"] for n in (min(a, b),)}
        for _, which, i, j, links in each_route(plan, [e]):
            source = int(plan.chain[e, i])
            hops = nx.single_source_shortest_path_length(mesh, source, cutoff=MAX_HOPS)
            goals = leaving if j == slots else {int(plan.chain[e, j])}
            reachable = goals & set(hops)
            if which == 0:
                assert (links[0] >= 0) == bool(reachable)
            if links[0] < 0:
                assert plan.route_rate_bps[e, 0, which, i, j] == 0
                continue
            nodes = walk(plan, links, source)
            edges = [up.edges[pair] for pair in pairwise(nodes)]
            rate = min(edge["rate_bps"] for edge in edges)
            latency = sum(edge["latency_s"] for edge in edges) + relay_s * (len(edges) - 1)
            assert plan.route_rate_bps[e, 0, which, i, j] == pytest.approx(rate)
            assert plan.route_latency_s[e, which, i, j] == pytest.approx(latency)
            if which == 0:
                fewest = min(hops[goal] for goal in reachable)
                assert len(nodes) - 1 == fewest + (j == slots)
                if j < slots:  # among equal hops, the shortest propagation
                    paths = nx.all_shortest_paths(mesh, source, nodes[-1])
                    best = min(sum(mesh.edges[pair]["latency_s"] for pair in pairwise(p)) for p in paths)
                    assert latency - relay_s * (len(edges) - 1) == pytest.approx(best)


def test_routes_to_the_ground_leave_above_the_mask(plan_with_passes):
    plan = plan_with_passes
    scenario, slots = plan.scenario, plan.chain.shape[1]
    positions = motion.build(scenario.motion).positions_km(plan.time_s)
    seen = 0
    for e, which, i, j, links in each_route(plan):
        if j < slots or links[0] < 0:
            continue
        node = walk(plan, links, int(plan.chain[e, i]))[-2]
        station = scenario.ground.stations[plan.route_station[e, which, i, j]]
        elevation = elevation_deg(
            positions[e, node], station.latitude_deg, station.longitude_deg, station.altitude_m / 1000
        )
        assert elevation >= scenario.ground.elevation_mask_deg - 1e-9
        assert plan.route_elevation_deg[e, which, i, j] == pytest.approx(float(elevation), abs=1e-4)
        seen += 1
    assert seen > 0


def test_the_forecast_is_what_then_happens(plan):
    rate, links = plan.route_rate_bps, plan.route_links
    horizon = rate.shape[1]
    same = changed = 0
    for e in range(0, 200 - horizon):
        for h in range(1, horizon):
            kept = (links[e, 0] == links[e + h, 0]).all(axis=-1) & (plan.chain[e] == plan.chain[e + h]).all()
            np.testing.assert_allclose(rate[e, h, 0][kept], rate[e + h, 0, 0][kept])
            same += kept.sum()
            changed += (~kept).sum()
    assert same > 1000


@pytest.mark.parametrize("world", ["grid", "ladder", "polar"])
def test_the_exit_is_the_contact_highest_over_its_station_among_the_nearest(world):
    plan = prepared(world)
    slots = plan.chain.shape[1]
    positions = motion.build(plan.scenario.motion).positions_km(plan.time_s)
    choices = 0
    for e in range(0, 200, 20):
        graph = epoch_graph(plan, e)
        mesh = nx.Graph((a, b) for a, b, d in graph.edges(data=True) if d["up"] and not d["downlink"])
        down = [sorted((a, b)) for a, b, d in graph.edges(data=True) if d["up"] and d["downlink"]]
        for i in range(slots):
            if plan.route_links[e, 0, i, slots, 0] < 0:
                continue
            hops = nx.single_source_shortest_path_length(mesh, int(plan.chain[e, i]), cutoff=MAX_HOPS)
            fewest = min(hops[n] for n, _ in down if n in hops)
            angles = []
            for n, node in down:
                if hops.get(n) == fewest:
                    place = plan.scenario.ground.stations[node - plan.n_nodes]
                    angles.append(elevation_deg(positions[e, n], place.latitude_deg, place.longitude_deg))
            assert plan.route_elevation_deg[e, 0, i, slots] == pytest.approx(max(angles), abs=1e-4)
            choices += len(angles) > 1
    assert choices > 0


def test_a_route_uses_only_links_that_were_acquired(plan_with_passes):
    plan = plan_with_passes
    scenario = plan.scenario
    mover = motion.build(scenario.motion)
    topology = plan.topology
    held = links_in_sight(
        mover.positions_km(plan.time_s),
        motion.sun_direction(mover.start, plan.time_s),
        topology.link_ends,
        topology.is_cross,
        scenario.links.max_range_km,
        scenario.links.grazing_height_km,
        scenario.links.cross_plane_max_latitude_deg,
        0.0,
    )
    seen = contacts(scenario, mover.positions_km(plan.time_s)).reshape(200, -1)
    wait = int(np.ceil(scenario.links.acquisition_s / scenario.epoch_s))
    handover = int(np.ceil(scenario.ground.handover_s / scenario.epoch_s))
    for e, _, _, _, links in each_route(plan, range(200)):
        between = links[(links >= 0) & (links < topology.n_links)]
        assert held[max(0, e - wait) : e + 1, between].all()
        down = links[links >= topology.n_links] - topology.n_links
        assert seen[max(0, e - handover) : e + 1, down].all()


def test_light_travels_at_the_speed_of_light(plan):
    for e, which, i, j, links in each_route(plan, [0, 100]):
        if links[0] < 0 or j == plan.chain.shape[1]:
            continue
        positions = motion.build(plan.scenario.motion).positions_km(plan.time_s[e : e + 1])[0]
        straight = np.linalg.norm(positions[plan.chain[e, i]] - positions[plan.chain[e, j]])
        assert plan.route_latency_s[e, which, i, j] >= straight / LIGHT_KM_S - 1e-12


def test_the_same_scenario_gives_the_same_plan(plan):
    again = contact_plan(plan.scenario)
    for name in ("chain", "route_rate_bps", "route_latency_s", "route_links", "light", "anomaly"):
        np.testing.assert_array_equal(getattr(plan, name), getattr(again, name))


def test_a_backup_route_leaves_the_primary_as_it_was():
    scenario = load_scenario("WalkerOutage").replace(**SHORT)
    without, with_backup = contact_plan(scenario), contact_plan(scenario.replace(**{"links.backup": True}))
    np.testing.assert_array_equal(without.link_ends, with_backup.link_ends)
    np.testing.assert_array_equal(without.route_rate_bps[:, :, 0], with_backup.route_rate_bps[:, :, 0])
    assert (with_backup.route_rate_bps[:, 0, 1, 0, 1:] > 0).mean() > 0.9


def test_the_papers_chain_is_a_line_with_its_downlink_at_slot_4():
    plan = contact_plan(load_scenario("PaperStatic").replace(**SHORT))
    assert (plan.chain == np.arange(5)).all()
    hops = (plan.route_links[0, 0] >= 0).sum(axis=-1)
    assert hops[0].tolist() == [0, 1, 2, 3, 4, 4]
    assert hops[:, 5].tolist() == [4, 3, 2, 1, 2]
    assert plan.route_rate_bps[0, 0, 0, 3, 5] == 0.8e9
    assert plan.route_rate_bps[0, 0, 0, 4, 5] == plan.route_rate_bps[0, 0, 0, 0, 1] == 0.5e9
    assert plan.route_latency_s[0, 0, 0, 1] == pytest.approx(3560.4 / LIGHT_KM_S, rel=1e-4)
    assert plan.route_latency_s[0, 0, 3, 5] == pytest.approx(500 / LIGHT_KM_S)
    assert (plan.route_station == -1).all()


# Chains


def test_the_ideal_downlink_of_movers_is_as_long_as_they_are_high():
    """Also far from the equator, where the ground is nearer to the Earth's centre."""
    ships = variants()["ships"].replace(**{"ground.contact": "always", "ground.stations": ()})
    plan = contact_plan(ships)
    assert plan.route_range_km[:, 0, :, -1] == pytest.approx(0.03)
    assert (plan.route_latency_s >= 0).all()


def test_the_sensing_satellite_is_kept_while_it_sees_the_target():
    scenario = load_scenario("WalkerOutage").replace(**SHORT)
    plan = contact_plan(scenario)
    positions = motion.build(scenario.motion).positions_km(plan.time_s)
    for e in range(200):
        target = scenario.chain.targets[e // 25 % 6]
        elevation = elevation_deg(positions[e], *target)
        source = plan.chain[e, 0]
        fresh = e % 25 == 0 or elevation[plan.chain[e - 1, 0]] <= 0
        assert source == (elevation.argmax() if fresh else plan.chain[e - 1, 0])


def test_the_ladder_is_the_source_its_neighbours_and_their_partners():
    plan = prepared("ladder")
    topology = plan.topology
    for source, front, back, *partners in plan.chain[::10]:
        assert (front, back) == (topology.ahead[source], topology.behind[source])
        assert partners == topology.across[[source, front, back]].tolist()


def test_the_exit_path_ends_at_a_contact():
    scenario = load_scenario("WalkerOutage").replace(
        **SHORT, **{"chain.rule": "exit", "chain.slots": 4, "ground.elevation_mask_deg": 40.0}
    )
    plan = contact_plan(scenario)
    lengths = set()
    for e in range(200):
        hops = (plan.route_links[e, 0, :, 4] >= 0).sum(axis=-1)  # to the ground
        if 1 <= hops[0] <= 4:
            assert hops[: hops[0]].tolist() == list(range(hops[0], 0, -1))
            lengths.add(int(hops[0]))
    assert len(lengths) > 1


def test_a_rule_of_ones_own(monkeypatch):
    monkeypatch.setitem(chains.RULES, "line", lambda view, source: iter([source, source, -1]))
    plan = contact_plan(load_scenario("WalkerOutage").replace(**SHORT, **{"chain.rule": "line"}))
    near = plan.topology.neighbours[plan.chain[0, 0]]
    assert set(plan.chain[0, 1:4]) == set(near[near >= 0])  # padded with the nearest


def test_a_rule_that_names_the_same_for_ever_is_padded_like_one_that_names_too_few(monkeypatch):
    monkeypatch.setitem(chains.RULES, "line", lambda view, source: cycle([source]))
    plan = contact_plan(load_scenario("WalkerOutage").replace(**SHORT, **{"chain.rule": "line"}))
    assert all(len(set(slots)) == plan.chain.shape[1] for slots in plan.chain.tolist())


def test_slots_that_cannot_be_filled_are_refused_with_the_epoch():
    scenario = load_scenario("WalkerOutage").replace(**SHORT, **{"links.terminals": 2, "chain.slots": 11})
    with pytest.raises(
        ScenarioError, match=r"chain\.slots = 11: must be at most 10.* \(epoch 0\)"
    ) as refusal:
        contact_plan(scenario)
    for told in ("from P0", "at 2026-01-01T00:00:00Z", "links.max_range_km", "links.terminals"):
        assert told in str(refusal.value)


def test_a_ka_downlink_between_ships_and_shore_is_refused():
    with pytest.raises(ScenarioError, match=r"ground\.downlink = 'ka'"):
        contact_plan(variants()["ships"].replace(**{"ground.downlink": "ka"}))


def test_the_anomaly_is_its_box():
    plan = prepared("ladder")
    latitude, longitude = latitude_longitude_deg(motion.build(plan.scenario.motion).positions_km(plan.time_s))
    inside = (latitude >= -45) & (latitude <= -15) & (longitude >= -90) & (longitude <= 40)
    np.testing.assert_array_equal(plan.anomaly, inside)
    assert 0.03 < inside.mean() < 0.2


# The graph face


def test_the_graph_knows_slots_failures_and_its_bounds():
    plan = prepared("grid")
    graph = epoch_graph(plan, 60)
    assert [graph.nodes[int(n)]["slot"] for n in plan.chain[60]] == list(range(6))
    assert graph.number_of_nodes() == plan.n_nodes + len(plan.station_names)
    link = int(plan.route_links[60, 0, 0, 1, 0])
    assert graph.edges[tuple(plan.link_ends[link].tolist())]["up"]
    broken = epoch_graph(plan, 60, failed=[link])
    assert not broken.edges[tuple(plan.link_ends[link].tolist())]["up"]
    waiting = [data for _, _, data in graph.edges(data=True) if not data["up"]]
    assert all(data["rate_bps"] == 0 for data in waiting)
    with pytest.raises(IndexError, match=r"epoch = 200: must be in 0\.\.199"):
        epoch_graph(plan, 200)


def test_stations_east_of_180_degrees_are_west_of_greenwich_in_the_graph():
    stations = [{"name": name, "latitude_deg": 19.0, "longitude_deg": east} for name, east in
                (("Hawaii", 204.34), ("again", -155.66), ("date line", 180.0), ("London", 359.9))]  # fmt: skip
    plan = contact_plan(variants()["ladder"].replace(**{"ground.stations": stations}))
    graph = epoch_graph(plan, 0)
    found = [graph.nodes[plan.n_nodes + s]["longitude_deg"] for s in range(4)]
    assert found == pytest.approx([-155.66, -155.66, -180.0, -0.1])


def test_ways_to_the_stations_are_those_of_networkx():
    scenario = variants()["ladder"]
    plan = contact_plan(scenario)
    mover = motion.build(scenario.motion)
    latency, toward = latencies_to_stations(scenario, mover, plan.topology, 0.0)
    graph = epoch_graph(plan, 0)
    for s in range(3):
        outward = nx.DiGraph()  # stations do not relay
        for a, b, data in graph.edges(data=True):
            sat, other = sorted((a, b))
            if other < plan.n_nodes:
                weight = data["latency_s"] + scenario.links.relay_s
                outward.add_weighted_edges_from([(sat, other, weight), (other, sat, weight)])
            else:
                outward.add_edge(other, sat, weight=data["latency_s"])
        reached = (
            nx.single_source_dijkstra_path_length(outward, plan.n_nodes + s)
            if plan.n_nodes + s in outward
            else {}
        )
        for n in range(plan.n_nodes):
            assert latency[s, n] == pytest.approx(reached.get(n, np.inf))
            assert (toward[s, n] >= 0) == (n in reached)


# Drawing


def has_colour(image: np.ndarray, colour: str) -> bool:
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return bool((image == rgb).all(axis=-1).any())


@pytest.mark.parametrize("world", ["polar", "paper", "ships"])
def test_the_map_shows_chain_stations_and_failures(world):
    pytest.importorskip("matplotlib")
    plan = prepared(world)
    failed = plan.route_links[60, 0, 0, 1, :1].tolist()
    image = draw(plan, 60, width_px=600, height_px=400)
    broken = draw(
        plan, 60, charge=np.linspace(0, 1, plan.n_nodes), failed=failed, width_px=600, height_px=400
    )
    assert image.shape == broken.shape == (400, 600, 3)
    assert image.dtype == np.uint8
    assert has_colour(image, COLOURS["chain"])
    assert has_colour(image, COLOURS["station"])
    assert (image != broken).any()
    np.testing.assert_array_equal(image, draw(plan, 60, width_px=600, height_px=400))


def test_the_text_names_every_slot():
    plan = prepared("ladder")
    lines = describe(plan, 60).splitlines()
    assert len(lines) == 7
    for line, node in zip(lines[1:], plan.chain[60], strict=True):
        assert plan.names[node] in line
        assert "Mbit/s" in line


@properties
@given(*[st.floats(-85, 85)] * 2, *[st.floats(-179, 179)] * 2)
def test_great_circles_join_their_ends_and_stop_at_the_edge_of_the_map(lat_a, lat_b, lon_a, lon_b):
    assume(abs(abs(lon_a - lon_b) - 180) > 1)
    parts = great_circle(
        *({"latitude_deg": a, "longitude_deg": b} for a, b in ((lat_a, lon_a), (lat_b, lon_b)))
    )
    assert sum(len(part) for part in parts) >= 15  # a lone point beyond the edge is not drawn
    for part in parts:
        assert np.abs(np.diff(part[:, 0])).max() <= 180
    if len(parts) == 1 and len(parts[0]) == 17:
        np.testing.assert_allclose(parts[0][[0, -1]], [(lon_a, lat_a), (lon_b, lat_b)], atol=1e-9)
    straight = abs(lon_a - lon_b) < 170
    assert (len(parts) == 1 and len(parts[0]) == 17) or not straight
