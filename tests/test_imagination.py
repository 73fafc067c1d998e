"""Imagined worlds: they show the problem they were made from, foretell a calm world, and know no trace."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from conftest import calm, small

from baselines.batch import plan_priced, priced_plans
from baselines.imagination import Imagination, by_link, imagined_traces, know, unseen_states
from baselines.priced import Constants
from sat_env.planning import make_workspace
from sat_env.problem import Problems
from sat_env.scenario import load_scenario
from sat_env.simulator import NO_PLAN, Simulator
from sat_env.world import prepare

FOLLOW = Constants(horizon=4.0, bottleneck=0.25, decline=1.0)


def met(prepared, worlds=8, epochs=7) -> Simulator:
    """Return worlds in the midst of their episodes, under plans of the priced planner."""
    sim = Simulator(prepared, worlds)
    sim.begin(seeds=np.arange(worlds, dtype=np.uint64))
    planner = priced_plans(FOLLOW, prepared)
    for _ in range(epochs):
        sim.step(*planner(sim.world, sim.problems))
    return sim


@pytest.fixture(scope="module", params=[False, True], ids=["routes", "backups"])
def stormy(request):
    """A short Rush with outages and resets: backlog, reboots, links that are down; without backups and with."""
    return prepare(
        small(
            load_scenario("WalkerRush"),
            **{"faults.link_up_mean_s": 300.0, "faults.reset_mtbf_s": 5_000.0, "links.backup": request.param},
        )
    )


def imagined(sim: Simulator) -> Simulator:
    """Return worlds made of the problems of others, and of nothing else."""
    now = Problems._make(field.copy() for field in sim.problems)
    states = unseen_states(sim.world, now)
    know(sim.world, now, states)
    twin = Simulator(sim.prepared, sim.worlds)
    snapshot = sim.snapshot()._replace(trace=imagined_traces(sim.world, now), state=states)
    twin.restore(snapshot)
    twin._described = False  # so that it is told from trace and state
    return twin


def test_an_imagined_world_shows_the_problem_it_was_made_from(stormy):
    sim = met(stormy, 200, 9)
    now = sim.problems
    twin = imagined(sim).problems
    assert (now.busy_s > 0).any() and (now.primary_up == 0).any() and (now.reboot_s > 0).any()
    up, backup, slots = now.primary_up > 0, now.backup_bps > 0, sim.slots
    assert (~up & backup).any() == sim.world.has_backups.any()
    for name in Problems._fields:
        mine, theirs = getattr(twin, name), getattr(now, name)
        if name == "reboot_s":
            continue  # of what is past only what matters from here on is imagined
        if name == "state_age_s":  # of outages; how long a route has been up does not matter
            mine, theirs = mine[~up], theirs[~up]
        if name in ("rate_bps", "latency_s", "release_s"):  # of what carries bits now
            mine, theirs = mine[up | backup], theirs[up | backup]
        if name == "backup_bps":  # of one that is down only what primary routes tell is known
            mine, theirs = mine[backup], theirs[backup]
        if name == "load_bytes_per_s":
            mine, theirs = mine[:, :slots], theirs[:, :slots]
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-6, err_msg=name)


def test_waits_of_links_are_the_least_of_their_routes(stormy):
    sim = met(stormy, 3)
    world, now = sim.world, sim.problems
    told_s = np.random.default_rng(0).uniform(1.0, 9.0, (2, *now.release_s.shape))
    told_s[told_s > 7.0] = np.inf  # nothing
    found = by_link(world, now, *told_s)
    for b in range(3):
        least_s: dict[int, float] = {}
        for i in range(sim.slots):
            for j in range(i + 1, sim.slots + 1):
                for way in range(2):
                    for link in world.route_links[now.epoch[b], way, i, j].tolist():
                        if link >= 0 and np.isfinite(told_s[way, b, i, j]):
                            least_s[link] = min(least_s.get(link, np.inf), told_s[way, b, i, j])
        assert {link: found[b, link] for link in least_s} == least_s
        assert found[b].sum() == pytest.approx(sum(least_s.values()))


def test_it_foretells_a_calm_world():
    prepared = calm()
    sim = met(prepared, 3)
    planner = priced_plans(FOLLOW, prepared)
    cuts, levels = planner(sim.world, sim.problems)
    rows = np.array([2, 0, 1, 2])
    tried = cuts[rows].copy()
    tried[3, 0] = NO_PLAN
    told = Imagination(prepared.world).latencies_s(sim.problems, rows, (tried, levels[rows]), 6, planner)
    for f, row in enumerate(rows):
        twin = copy.deepcopy(sim)
        for h in range(6):
            plans = planner(twin.world, twin.problems)
            if h == 0:
                plans[0][row] = tried[f]
            twin.step(*plans)
            assert told[f, h] == pytest.approx(twin.outcome.latency_s[row], rel=0.02)


def test_a_batch_is_its_rows_and_problems_stay_as_they_are(stormy):
    sim = met(stormy)
    world, imagination = sim.world, Imagination(stormy.world)
    workspace = make_workspace(sim.slots, sim.blocks, sim.levels)

    def follow(of, problems):
        return plan_priced(FOLLOW, of, problems, workspace)

    now = Problems._make(field.copy() for field in sim.problems)
    cuts, levels = follow(world, now)
    together = imagination.latencies_s(now, np.arange(8), (cuts, levels), 20, follow)
    assert (together[:, :13] > 0).all() and (together[:, 13:] == 0).all()  # the episode ends
    for b in range(8):
        row = Problems._make(field[b : b + 1] for field in now)
        alone = imagination.latencies_s(
            row, np.zeros(1, np.int64), (cuts[b : b + 1], levels[b : b + 1]), 20, follow
        )
        np.testing.assert_array_equal(alone[0], together[b])
    for old, new in zip(sim.problems, now, strict=True):
        np.testing.assert_array_equal(old, new)
