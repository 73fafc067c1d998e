"""The named worlds are what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.batch import play, priced_plans
from baselines.priced import load_constants, load_static
from sat_env.evaluation.runner import episodes
from sat_env.scenario import Surface, load_scenario, scenario_names
from sat_env.world import prepare


def test_names():
    assert set(scenario_names()) == {
        "PaperStatic",
        "WalkerDynamic",
        "WalkerOutage",
        "WalkerEclipse",
        "WalkerRush",
        "WalkerHarsh",
        "StarlinkLLM",
        "DroneSwarm",
        "ShipFleet",
    }


@pytest.mark.parametrize("name", scenario_names())
def test_priced_planner_lives_near_the_reference_latency(name):
    scenario = load_scenario(name)
    assert scenario.description
    prepared = prepare(scenario)
    chosen = episodes(scenario, "dev", 2, 0)
    played = play(prepared, chosen, "dev", priced_plans(load_constants(scenario, "priced"), prepared))
    assert 0.5 < played.j_s.mean() / scenario.reference_latency_s < 2.0
    assert played.drop_share.mean() < 0.25


@pytest.mark.parametrize("name", scenario_names())
def test_constants_were_tuned_for_the_scenario_as_it_is(name):
    prepared = prepare(load_scenario(name))
    slots = prepared.world.chain.shape[1]
    load_static(prepared.scenario).check(slots, len(prepared.world.block_flops), len(prepared.levels))


def test_dynamic_is_outage_without_random_faults():
    dynamic, outage = load_scenario("WalkerDynamic"), load_scenario("WalkerOutage")
    assert dynamic.faults.link_up_mean_s == dynamic.faults.reset_mtbf_s == 0.0
    same = {"name": "same", "description": "", "reference_latency_s": 1.0, "faults": outage.faults}
    assert dynamic.replace(**same) == outage.replace(**same)


def test_eclipse_spans_two_orbits_and_its_batteries_bind():
    scenario = load_scenario("WalkerEclipse")
    prepared = prepare(scenario)
    orbit_s = 2 * np.pi * np.sqrt((6378.137 + 780.0) ** 3 / 398600.4418)
    assert scenario.episode_epochs * scenario.epoch_s >= 1.9 * orbit_s
    assert 0.5 < prepared.world.light.mean() < 0.8  # about a third of the orbit is dark
    mean_w = scenario.energy.panel_w * prepared.world.light.mean()
    busy_w = mean_w - scenario.energy.bus_w - scenario.energy.idle_w  # left for computing
    share = busy_w / (scenario.payload.modes[-1].power_w - scenario.energy.idle_w)
    speed = scenario.payload.modes[-1].flops_per_s * scenario.payload.efficiency
    supply = share * speed * scenario.chain.slots * scenario.epoch_s / prepared.world.block_flops.sum()
    assert 0.7 < scenario.jobs.items / supply < 1.3


def test_rush_is_near_the_capacity_of_its_satellites():
    scenario = load_scenario("WalkerRush")
    world = prepare(scenario).world
    capacity = (
        world.power.mode_flops_per_s[-1] * scenario.chain.slots * scenario.epoch_s / world.block_flops.sum()
    )
    assert scenario.jobs.items < capacity < scenario.jobs.items * (1 + scenario.jobs.burst)


@pytest.mark.parametrize("name", ["DroneSwarm", "ShipFleet"])
def test_worlds_outside_space_move_near_the_surface(name):
    scenario = load_scenario(name)
    prepared = prepare(scenario)
    assert isinstance(scenario.motion, Surface) and scenario.motion.altitude_km < 1
    rates = prepared.world.route_rate_bps[:, 0, 0, 0, 1]
    assert rates.std() > 0  # radio: the rate follows the range


def test_starlink_generates_tokens_on_more_satellites_than_one():
    prepared = prepare(load_scenario("StarlinkLLM"))
    assert prepared.contacts.n_nodes == 1584 and prepared.world.tokens > 0
    assert prepared.world.block_bytes.sum() > 3 * prepared.world.memory_bytes
    assert (prepared.world.boundary_bytes[-1] == 4.0).all()  # a request's prefill yields one token id
