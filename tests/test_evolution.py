"""Price rules by evolution: a rule of zeros is the tuned planner, and a training resumes exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import small
from test_agents import CONSTANTS
from test_commands import run as command

pytest.importorskip("stable_baselines3")

from agents import tuning
from agents.config import EvolutionConfig, checked
from agents.export import compare, decisions, export
from agents.models import Run, new_learner
from agents.planner import BatchPlanner, SlotPrices
from agents.rules import CHARGES, NAMES, PriceRule, RuledPrices
from agents.saved import SavedPolicy
from agents.training import decider, load_learner, read_evaluations, save_policy, train_learner
from baselines.batch import play, priced_plans
from sat_env.evaluation.runner import episodes, run_episode
from sat_env.scenario import load_scenario
from sat_env.simulator import Simulator
from sat_env.world import prepare

TINY = EvolutionConfig(steps=6 * 2 * 20 * 4, population=4, worlds=2, dev_every=2, dev_episodes=2)


@pytest.fixture(scope="module")
def eclipse():
    """A short Eclipse: charge, light and backlog all differ between slots."""
    return prepare(small(load_scenario("WalkerEclipse")))


def run_of(prepared, seed=0, **changes) -> Run:
    return Run("evolution", prepared.scenario, dataclasses.replace(TINY, **changes), CONSTANTS, seed)


def some_rule(seed=0) -> PriceRule:
    return PriceRule(np.random.default_rng(seed).normal(size=len(NAMES)))


def met(prepared, worlds=6, epochs=8) -> Simulator:
    sim = Simulator(prepared, worlds)
    sim.begin(seeds=np.arange(worlds, dtype=np.uint64))
    planner = BatchPlanner(prepared.world, CONSTANTS)
    for _ in range(epochs):
        sim.step(*planner.plans(sim.problems))
    return sim


def test_a_rule_of_zeros_is_the_tuned_planner(eclipse):
    interface = RuledPrices(eclipse.world, eclipse.scenario.forecast_epochs, CONSTANTS)
    chosen = episodes(eclipse.scenario, "train", 4, 0)
    rule = PriceRule.untrained()
    mine = play(
        eclipse, chosen, "train", lambda _, p: interface.decide(p, lambda flat, masks: rule.predict(flat)[0])
    )
    np.testing.assert_array_equal(
        mine.latency_s, play(eclipse, chosen, "train", priced_plans(CONSTANTS, eclipse)).latency_s
    )


def test_a_rule_of_zeros_leaves_every_constant_as_it_is(eclipse):
    for bottleneck in (0.06, 0.12, 0.25, 0.424):  # adding 0.1 and taking it off moves the last two
        constants = dataclasses.replace(CONSTANTS, bottleneck=bottleneck)
        interface = RuledPrices(eclipse.world, eclipse.scenario.forecast_epochs, constants)
        values, slots = interface.prices(np.zeros((2, interface.action_space.shape[0]), np.float32))
        np.testing.assert_array_equal(values, np.tile(interface.planner.values, (2, 1)))
        assert (slots.energy_factor == 1.0).all() and not slots.compute.any()


@pytest.mark.parametrize("name", NAMES)
def test_each_weight_moves_what_it_names_and_nothing_else(eclipse, name):
    interface = RuledPrices(eclipse.world, eclipse.scenario.forecast_epochs, CONSTANTS)
    size = interface.observation_space.shape[0]
    flat = np.random.default_rng(0).uniform(0.1, 1.0, (40, size)).astype(np.float32)
    said = PriceRule((np.array(NAMES) == name).astype(float)).predict(flat)[0]
    moved = np.zeros(said.shape[1], bool)
    if name == "busy slot":
        moved[-interface.slots :] = True
    elif name.startswith("energy ") and name != "energy":
        moved[6 : 6 + interface.slots] = True
    else:
        moved[BatchPlanner.PRICES.index(name.split()[0])] = True
    assert said[:, moved].any() and not said[:, ~moved].any()


def test_the_energy_price_of_a_slot_follows_its_own_charge(eclipse):
    sim = met(eclipse)
    interface = RuledPrices(eclipse.world, eclipse.scenario.forecast_epochs, CONSTANTS)
    weights = np.zeros(len(NAMES))
    weights[[NAMES.index(f"energy at charge {charge:g}") for charge in CHARGES]] = CHARGES
    said = PriceRule(weights).predict(interface.observe(sim.problems))[0]
    charge = sim.problems.charge[:, : interface.slots]
    expected = np.clip(charge, CHARGES[0], CHARGES[-1])
    np.testing.assert_allclose(said[:, 6 : 6 + interface.slots], expected, rtol=1e-6)


def test_a_slot_whose_compute_costs_much_gets_none(eclipse):
    sim = met(eclipse)
    planner = BatchPlanner(eclipse.world, CONSTANTS)
    values = np.tile(planner.values, (len(sim.problems.epoch), 1))
    slots = sim.problems.rate_bps.shape[1]
    used = planner.plans(sim.problems)[0]
    compute = np.zeros((len(used), slots))
    compute[:, 2] = 1e3
    cuts, _ = planner.plans(sim.problems, values, SlotPrices(np.ones_like(compute), compute))
    assert (used[:, 2] > used[:, 1]).any() and (cuts[:, 2] == cuts[:, 1]).all()


def test_the_last_generation_is_judged_however_few_there_were(eclipse):
    learner = new_learner(run_of(eclipse, dev_every=5))
    judged = []
    while not learner.over:
        judged.append(learner.advance())
    assert judged == [False, False, False, True]
    assert len(learner.gains_s) == 4


def test_interrupted_and_resumed_equals_uninterrupted(eclipse, tmp_path):
    run = run_of(eclipse)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    uninterrupted = new_learner(run)
    train_learner(uninterrupted, run, whole, progress_bar=False)
    at = int(np.random.default_rng(7).integers(1, run.config.steps))

    def interrupt(learner) -> None:
        if learner.num_timesteps >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_learner(new_learner(run), run, parts, interrupt, checkpoint_share=1.0, progress_bar=False)
    assert (parts / "checkpoint.zip").stat().st_size < 100_000  # the scenario, not what is computed from it
    resumed = load_learner(parts)
    train_learner(resumed, run, parts, progress_bar=False)
    assert resumed.num_timesteps == uninterrupted.num_timesteps == run.config.steps
    np.testing.assert_array_equal(resumed.search.mean, uninterrupted.search.mean)
    np.testing.assert_array_equal(resumed.rule.weights, uninterrupted.rule.weights)
    assert np.abs(resumed.search.mean).min() > 0.0
    seen, expected = (
        [[row[k] for k in ("steps", "j_s")] for row in read_evaluations(folder / "evaluations.csv")]
        for folder in (parts, whole)
    )
    assert seen == expected and len(seen) == 3


def test_evolution_finds_what_tuning_left_and_offers_nothing_else(eclipse):
    dear = dataclasses.replace(CONSTANTS, energy=50.0)  # a planner that saves far too much
    config = dataclasses.replace(TINY, population=10, worlds=8, sigma=0.5, dev_every=3, steps=10**9)
    learner = new_learner(Run("evolution", eclipse.scenario, config, dear, 0))
    for _ in range(9):
        learner.advance()
    chosen = episodes(eclipse.scenario, "train", 16, 5)
    run = Run("evolution", eclipse.scenario, config, dear, 0)
    gain_s = (
        play(eclipse, chosen, "train", decider(run, learner)).j_s
        - play(eclipse, chosen, "train", priced_plans(dear, eclipse)).j_s
    )
    assert gain_s.mean() < -0.1
    learner.gains_s = [np.abs(gain) for gain in learner.gains_s]  # had it lost, the planner would stay
    learner.config = dataclasses.replace(config, dev_every=1)
    learner.j_s = lambda rules: np.stack([np.zeros(8), *[np.ones(8) * i for i in range(1, len(rules))]])
    assert learner.advance() and not learner.rule.weights.any()


def test_a_saved_rule_plays_as_it_did_and_on_other_chains(eclipse, tmp_path):
    run = run_of(eclipse)
    learner = new_learner(run)
    learner.offered = some_rule()
    save_policy(tmp_path / "model.zip", learner, run)
    chosen = episodes(eclipse.scenario, "test", 2, 0)
    batch = play(eclipse, chosen, "test", decider(run, learner))
    assert (batch.j_s != play(eclipse, chosen, "test", priced_plans(CONSTANTS, eclipse)).j_s).any()
    policy = SavedPolicy(tmp_path / "model.zip")
    assert policy.name == "evolution" and (tmp_path / "model.zip").stat().st_size < 3000
    for i, episode in enumerate(chosen):
        assert run_episode(policy, eclipse, episode, "test").j_s == pytest.approx(batch.j_s[i], rel=1e-12)
    shorter = prepare(eclipse.scenario.replace(**{"chain.slots": 5}))
    run_episode(policy, shorter, episodes(shorter.scenario, "test", 1, 0)[0], "test")


def test_an_exported_rule_says_what_the_policy_says(eclipse, tmp_path):
    run = run_of(eclipse)
    learner = new_learner(run)
    for seed in (0, 1):
        learner.offered = some_rule(seed)
        save_policy(tmp_path / f"{seed}.zip", learner, run)
    assert export(tmp_path / "0.zip", eclipse.scenario, tmp_path / "model.onnx").largest <= 1e-4
    other = SavedPolicy(tmp_path / "1.zip")
    with pytest.raises(ValueError, match="differ by"):
        compare(other, decisions(other, eclipse.scenario), tmp_path / "model.onnx")


def test_bad_hyper_parameters_are_refused(tmp_path):
    with pytest.raises(ValueError, match="sigma = 0"):
        dataclasses.replace(TINY, sigma=0)
    with pytest.raises(ValueError, match="population = 1"):
        dataclasses.replace(TINY, population=1)
    with pytest.raises(ValueError, match="gamma"):
        checked({"gamma": 0.5}, "evolution")
    ran = command("train.py", "--algo", "evolution", "--worlds", "1", "--out", str(tmp_path / "run"))
    assert ran.returncode == 2 and "worlds = 1" in ran.stderr


def test_a_search_starts_from_the_defaults(eclipse, tmp_path):
    found = tuning.tune(run_of(eclipse), 2, tmp_path)
    assert found.trials == 2 and found.j_s <= found.default_j_s and isinstance(found.config, EvolutionConfig)
