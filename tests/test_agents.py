"""Learned agents: what their actions mean, and that training resumes exactly."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import simulator, small

pytest.importorskip("stable_baselines3")

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import MultiCategoricalDistribution

from agents import training
from agents.buffer import LeanRolloutBuffer
from agents.choice import KEEP, SHIFTS, LearnedChoice
from agents.config import DEFAULTS, PPO_ALGORITHMS, default_config
from agents.imitation import clone_planner
from agents.models import Run, make_worlds, new_model
from agents.networks import FusedCategoricals, FusedPolicy, QuickTanh
from agents.planner import BatchPlanner
from agents.prices import FEATURES, LearnedPrices, features, shifted
from agents.residual import Residual
from agents.saved import SavedPolicy, resized
from agents.slotwise import Slotwise
from agents.tokens import Tokens, seconds
from agents.training import (
    decider,
    load_checkpoint,
    read_evaluations,
    save_checkpoint,
    save_policy,
    steps_done,
    train,
)
from baselines.batch import play, priced_plans
from baselines.priced import Constants
from sat_env.evaluation.runner import episodes, run_episode
from sat_env.plan import repair
from sat_env.planning.costs import Costs
from sat_env.planning.predict import plan_error
from sat_env.problem import tabulate
from sat_env.sb3 import SatVecEnv
from sat_env.scenario import load_scenario
from sat_env.world import prepare

CONSTANTS = Constants(horizon=4.0, bottleneck=0.3, downlink=0.1, energy=0.2, decline=0.5, backlog=0.5)
TRAINED = PPO_ALGORITHMS


def tiny(outage, algorithm="prices", seed=0, **changes) -> Run:
    config = dataclasses.replace(
        DEFAULTS[algorithm],
        **{"steps": 192, "num_envs": 4, "rollout_epochs": 8, "batch_size": 16, "update_epochs": 2,
           "dev_episodes": 2, "dev_every": 2, **changes},
    )  # fmt: skip
    return Run(algorithm, small(outage.scenario), config, CONSTANTS, seed)


def weights(model) -> list[np.ndarray]:
    return [tensor.detach().numpy().copy() for tensor in model.policy.state_dict().values()]


@pytest.fixture(scope="module")
def met(outage):
    """Four worlds after ten epochs of the tuned planner."""
    sim = simulator(outage, 4)
    planner = BatchPlanner(outage.world, CONSTANTS)
    for _ in range(10):
        sim.step(*planner.plans(sim.problems))
    return sim


def test_action_zero_is_the_tuned_planner(outage, met):
    expected = priced_plans(CONSTANTS, outage)(outage.world, met.problems)
    prices = LearnedPrices(outage.world, 8, CONSTANTS)
    choice = LearnedChoice(outage.world, 8, CONSTANTS)
    residual = Residual(outage.world, 8, CONSTANTS)
    residual.observe(met.problems)
    for found in (
        prices.plans(met.problems, np.zeros((4, 6), np.float32)),
        choice.plans(met.problems, np.zeros(4, np.int64)),
        residual.plans(met.problems, np.ones((4, 6), np.int64)),
    ):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_shifts_are_monotone_and_a_price_of_zero_can_rise(outage):
    values = np.array([4.0, 0.0, 0.1, 0.0, 1.0, 0.0])
    moved = [shifted(values, np.full((1, 6), a))[0] for a in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    np.testing.assert_array_equal(moved[2], np.maximum(values, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    assert (np.diff(moved, axis=0) >= 0).all() and (moved[4][:5] > values[:5]).all()
    assert all(row[0] >= 1.0 for row in moved)


def test_features_are_bounded_named_and_move(outage, met):
    seen = features(outage.world, met.problems, 8)
    assert seen.shape == (4, len(FEATURES)) and seen.dtype == np.float32
    assert np.isfinite(seen).all() and (np.abs(seen) <= 1.0).all()
    fresh = features(outage.world, simulator(outage, 4).problems, 8)
    resident = FEATURES.index("resident")
    assert (fresh[:, resident] == 0.0).all() and (seen[:, resident] > 0.5).all()


def test_keeping_the_plan(outage, met):
    choice = LearnedChoice(outage.world, 8, CONSTANTS)
    assert list(SHIFTS)[KEEP] == "keep the plan"
    ground_only = met.problems.previous_cuts.copy()
    ground_only[0] = 0
    problems = met.problems._replace(previous_cuts=ground_only)
    cuts, levels = choice.plans(problems, np.full(4, KEEP))
    np.testing.assert_array_equal(cuts, ground_only)
    np.testing.assert_array_equal(levels, met.problems.previous_levels)
    fresh = simulator(outage, 4).problems  # nothing was played: the planner plans
    np.testing.assert_array_equal(choice.plans(fresh, np.full(4, KEEP))[0], choice.planner.plans(fresh)[0])


def test_the_last_job_of_an_episode_is_the_last_that_counts(outage):
    env = new_model(tiny(outage)).env
    env.reset()
    for _ in range(env.simulator.world.episode_epochs):
        _, _, dones, infos = env.step(np.zeros((env.num_envs, *env.action_space.shape), np.float32))
    assert dones.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [False] * env.num_envs


@pytest.mark.parametrize("move", (0, 2))
def test_a_residual_moves_cuts_by_one_and_stays_a_plan(outage, met, move):
    residual = Residual(outage.world, 8, CONSTANTS)
    residual.observe(met.problems)
    cuts, levels = residual.plans(met.problems, np.full((4, 6), move))
    planned, planned_levels = priced_plans(CONSTANTS, outage)(outage.world, met.problems)
    assert (np.diff(cuts, axis=1) >= 0).all() and (cuts[:, -1] == planned[:, -1]).all()
    assert (np.abs(cuts - planned) <= 1).all() and (cuts != planned).any()
    np.testing.assert_array_equal(levels, planned_levels)


@pytest.mark.parametrize("traces", (0, 2))
def test_the_opponent_meets_the_same_trace_and_zero_actions_earn_nothing(outage, traces):
    worlds = make_worlds(tiny(outage, traces=traces))
    worlds.reset()
    total, rng, seen = 0.0, np.random.default_rng(0), []
    for t in range(70):  # over three ends of episodes
        _, rewards, dones, _ = worlds.step(np.zeros((4, 6), np.float32))
        assert (rewards == 0.0).all() and dones.all() == (t % 20 == 19)
        if t % 20 == 0:
            seen.append(worlds.simulator.trace.items.copy())
    assert np.array_equal(seen[0], seen[2]) == (traces == 2) and not np.array_equal(seen[0], seen[1])
    for _ in range(10):
        total += np.abs(worlds.step(rng.uniform(-1.0, 1.0, (4, 6)))[1]).sum()
    assert total > 0.0


def test_foresight_is_what_the_jobs_take_the_opponent_and_for_the_critic_alone(outage, tmp_path):
    run = tiny(outage, foresight=3, versus=False)
    env = make_worlds(run)
    blind = make_worlds(tiny(outage))
    seen, expected = env.reset(), blind.reset()
    zero = np.zeros((4, 6), np.float32)  # does as the opponent does
    deadline_s, reference_s = env.simulator.world.deadline_s, run.scenario.reference_latency_s
    for _ in range(45):
        np.testing.assert_array_equal(seen[:, :-3], expected)
        ahead_s = seen[:, -3] * deadline_s
        env.step_async(zero)
        blind.step_async(zero)
        (seen, rewards, dones, infos), (expected, *_) = env.step_wait(), blind.step_wait()
        np.testing.assert_allclose(ahead_s, env.simulator.outcome.latency_s, rtol=1e-5)
        np.testing.assert_allclose(rewards, 1.0 - ahead_s / reference_s, rtol=1e-4, atol=1e-6)
        for i in np.flatnonzero(dones):
            assert (infos[i]["terminal_observation"][-3:] == 0.0).all()  # no job follows
    model = new_model(run)
    flat = torch.as_tensor(seen)
    other = flat.clone()
    other[:, -3:] += 0.5
    with torch.no_grad():
        mine, theirs = (model.policy.get_distribution(x).distribution.mean for x in (flat, other))
        assert torch.equal(mine, theirs)
        assert not torch.equal(model.policy.predict_values(flat), model.policy.predict_values(other))
    save_policy(tmp_path / "model.zip", model, run)
    chosen = episodes(run.scenario, "test", 1, 0)
    batch = play(prepare(run.scenario), chosen, "test", decider(run, model))
    played = run_episode(SavedPolicy(tmp_path / "model.zip"), prepare(run.scenario), chosen[0], "test")
    assert played.j_s == pytest.approx(batch.j_s[0], rel=1e-12)
    for hidden in ((30,), (32, 64)):
        with pytest.raises(ValueError, match="must be one multiple of 4 for ppo-transformer"):
            new_model(tiny(outage, "ppo-transformer", hidden=hidden))
    with pytest.raises(ValueError, match="must be one width or more"):
        tiny(outage, hidden=())
    with pytest.raises(ValueError, match="foresight = 3: must be 0 for maskable"):
        new_model(tiny(outage, "maskable", foresight=3))


class Interrupt(BaseCallback):
    """Interrupts after some steps, in the middle of a rollout."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.at = steps

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.at:
            raise KeyboardInterrupt
        return True


class Full(Exception):
    """Stands for a full disk or a signal."""


def test_a_checkpoint_that_was_interrupted_is_the_last_one(outage, tmp_path, monkeypatch):
    run = tiny(outage)
    model = new_model(run)
    model.env.reset()
    assert steps_done(tmp_path) == 0  # not begun
    save_checkpoint(tmp_path, model)
    model.num_timesteps += 40

    def refuse(*args):
        raise Full

    with monkeypatch.context() as patch:
        patch.setattr(training, "pickle", SimpleNamespace(dumps=refuse))
        with pytest.raises(Full):
            save_checkpoint(tmp_path, model)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(Full):
            save_checkpoint(tmp_path, model)
    assert load_checkpoint(tmp_path, run).num_timesteps == steps_done(tmp_path) == 0
    save_checkpoint(tmp_path, model)
    assert load_checkpoint(tmp_path, run).num_timesteps == steps_done(tmp_path) == 40


def test_a_run_stopped_while_it_keeps_its_first_weights_has_them_when_it_went_on(
    outage, tmp_path, monkeypatch
):
    run = tiny(outage, steps=32, learning_rate=1e-15)  # nothing better comes

    def stop(path, *rest):
        if path.name == "model.zip":
            raise KeyboardInterrupt
        save_policy(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_policy", stop)
        with pytest.raises(KeyboardInterrupt):
            train(new_model(run), run, tmp_path, progress_bar=False)
    train(new_model(run), run, tmp_path, progress_bar=False)
    assert SavedPolicy(tmp_path / "model.zip").card.steps == 0


@pytest.mark.parametrize("broken", ["no zip", "older code"])
def test_a_checkpoint_that_nothing_can_go_on_from_is_refused(outage, tmp_path, broken):
    run = tiny(outage)
    if broken == "no zip":
        (tmp_path / "checkpoint.zip").write_bytes(b"no zip")
    else:
        new_model(run).save(tmp_path / "checkpoint.zip")  # its worlds stood in another file
    for read in (steps_done, lambda folder: load_checkpoint(folder, run)):
        with pytest.raises(ValueError, match=r"resume = .* this version") as refusal:
            read(tmp_path)
        assert "\n" not in str(refusal.value)


def test_checkpoints_are_of_every_update_unless_they_take_too_much_of_the_time(monkeypatch):
    now_s, saved = [0.0], []
    monkeypatch.setattr(training.time, "monotonic", lambda: now_s[0])

    def save(took_s):
        saved.append(now_s[0])
        now_s[0] += took_s

    for took_s, gap_s, expected in ((0.01, 0.3, 20), (1.0, 0.3, 1), (1.0, 30.0, 20)):
        saved.clear()
        saver = training.Saver(lambda took_s=took_s: save(took_s), 0.05)
        for _ in range(20):
            saver()
            now_s[0] += gap_s
        assert len(saved) == expected


def test_runs_of_neighbouring_seeds_meet_no_episode_twice(outage):
    met = []
    for seed in (0, 1):
        env = new_model(tiny(outage, seed=seed)).env
        env.reset()
        met += env.simulator.seeds.tolist()
    assert len(set(met)) == len(met)


@pytest.mark.parametrize("algorithm", TRAINED)
def test_interrupted_and_resumed_equals_uninterrupted(outage, tmp_path, algorithm):
    run = tiny(outage, algorithm)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    began_s = time.process_time()
    uninterrupted = new_model(run)
    train(uninterrupted, run, whole, progress_bar=False)
    at = int(np.random.default_rng(sum(map(ord, algorithm))).integers(40, 180))
    with pytest.raises(KeyboardInterrupt):
        train(new_model(run), run, parts, [Interrupt(at)], checkpoint_share=1.0, progress_bar=False)
    np.random.seed(1)  # noqa: NPY002 stands for whatever happened in between
    resumed = load_checkpoint(parts, run)
    assert 0 < resumed.num_timesteps <= at
    train(resumed, run, parts, progress_bar=False)
    for mine, theirs in zip(weights(resumed), weights(uninterrupted), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    seen = [[row[k] for k in ("steps", "j_s")] for row in read_evaluations(parts / "evaluations.csv")]
    expected = [[row[k] for k in ("steps", "j_s")] for row in read_evaluations(whole / "evaluations.csv")]
    assert seen == expected
    cpu_s = [row["cpu_s"] for row in read_evaluations(parts / "evaluations.csv")]
    assert cpu_s == sorted(cpu_s)
    assert cpu_s[-1] < time.process_time() - began_s  # nothing of what this process did before
    if algorithm not in ("choice", "maskable"):  # a discrete space that was pickled once is pickled otherwise
        for name in ("model.zip", "last.zip"):  # nothing of the clock: who trains the same enters the same
            assert (parts / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("algorithm", TRAINED)
def test_a_saved_policy_plays_as_the_model_it_was(outage, tmp_path, algorithm):
    run = tiny(outage, algorithm)
    model = new_model(run)
    save_policy(tmp_path / "model.zip", model, run)
    prepared = prepare(run.scenario)
    chosen = episodes(run.scenario, "test", 2, 0)
    batch = play(prepared, chosen, "test", decider(run, model))
    policy = SavedPolicy(tmp_path / "model.zip")
    for i, episode in enumerate(chosen):
        single = run_episode(policy, prepared, episode, "test")
        assert single.j_s == pytest.approx(batch.j_s[i], rel=1e-12)


def test_an_untrained_residual_is_the_planner(outage):
    run = tiny(outage, "residual")
    prepared = prepare(run.scenario)
    chosen = episodes(run.scenario, "dev", 2, 0)
    mine = play(prepared, chosen, "dev", decider(run, new_model(run)))
    planner = play(prepared, chosen, "dev", priced_plans(CONSTANTS, prepared))
    np.testing.assert_array_equal(mine.latency_s, planner.latency_s)


def test_a_policy_of_plans_refuses_another_chain(outage, tmp_path):
    run = tiny(outage, "ppo")
    save_policy(tmp_path / "model.zip", new_model(run), run)
    other = prepare(run.scenario.replace(**{"chain.slots": 5}))
    policy = SavedPolicy(tmp_path / "model.zip")
    with pytest.raises(ValueError, match="5 slots"):
        policy.interface(other.world, 8)
    prices = tiny(outage, "prices")
    save_policy(tmp_path / "prices.zip", new_model(prices), prices)
    SavedPolicy(tmp_path / "prices.zip").interface(other.world, 8)  # prices fit any chain


def test_unknown_hyper_parameters_are_refused(tmp_path, monkeypatch):
    scenario = load_scenario("WalkerOutage")
    found = {"prices": {"gama": 0.5}, "found": {"prices": {"scenario_hash": scenario.hash()}}}
    (tmp_path / "WalkerOutage.json").write_text(json.dumps(found))
    monkeypatch.setattr("agents.config.CONFIGS_DIR", tmp_path)
    with pytest.raises(ValueError, match="gama"):
        default_config("prices", scenario)


def test_a_transformer_plays_another_chain_and_model(outage, tmp_path):
    run = tiny(outage, "ppo-transformer")
    save_policy(tmp_path / "model.zip", new_model(run), run)
    policy = SavedPolicy(tmp_path / "model.zip")
    other = run.scenario.replace(**{"chain.slots": 5, "model.units": 10})
    for scenario in (run.scenario, other, run.scenario):
        (episode,) = episodes(scenario, "test", 1, 0)
        assert run_episode(policy, prepare(scenario), episode, "test").n_jobs == 20


def test_masks_allow_exactly_what_keeps_a_plan_possible(outage, met):
    slotwise = Slotwise(outage.world, 8, CONSTANTS)
    rng = np.random.default_rng(0)
    costs = tabulate(outage.world, met.problems)
    for _ in range(20):

        def draw(flat, masks):
            assert masks.any(axis=1).all() and slotwise.observation_space.contains(flat[0])
            return np.array([rng.choice(np.flatnonzero(row)) for row in masks])

        cuts, levels = slotwise.decide(met.problems, draw)
        for b in range(4):
            one = Costs(*(field[b] for field in costs))
            assert (np.diff(cuts[b]) >= 0).all() and cuts[b, -1] == slotwise.blocks
            assert plan_error(one, cuts[b], levels[b]) <= one.error_budget * (1 + 1e-9)
            fitted = cuts[b].copy()
            assert repair(fitted, one.memory_bytes, one.memory_free_bytes, one.ground_hosts) == (True, False)


def test_masks_allow_every_plan_that_fits(outage, met):
    slotwise = Slotwise(outage.world, 8, CONSTANTS)
    cuts, levels = priced_plans(CONSTANTS, outage)(outage.world, met.problems)

    def follow(flat, masks):
        slot = int(np.argmax(flat[0, -8:-2]))
        actions = cuts[:, slot] * slotwise.levels + levels[:, slot]
        assert masks[np.arange(4), actions].all()
        return actions

    np.testing.assert_array_equal(slotwise.decide(met.problems, follow)[0], cuts)


def test_cloning_learns_the_planner(outage):
    run = tiny(outage, "imitation")
    run = run._replace(scenario=run.scenario.replace(**{"episode_epochs": 40}))
    model = new_model(run)
    env = model.get_env()
    prepared = prepare(run.scenario)
    share = clone_planner(model, prepared, env.interface, BatchPlanner(prepared.world, CONSTANTS), 0)
    assert share > 0.7


def test_what_a_transformer_sees_is_finite_where_a_block_computes_nothing_on_a_satellite_that_is_off(outage):
    world = prepare(outage.scenario).world
    world = world._replace(
        block_flops=np.where(np.arange(len(world.block_flops)) == 0, 0.0, world.block_flops)
    )
    problems = simulator(outage, 4).problems
    problems.flops_per_s[:, 1] = 0.0
    shown = np.concatenate(seconds(world, problems), axis=1)
    assert np.isfinite(shown).all() and shown.min() >= 0.0 and shown.max() <= 1.0


def test_an_untrained_transformer_is_the_planner_whatever_the_chain_and_the_model(outage):
    run = tiny(outage, "ppo-transformer")
    trained_on = new_model(run).policy
    for changes in ({}, {"chain.slots": 5}, {"model.units": 10}):
        scenario = run.scenario.replace(**changes)
        prepared = prepare(scenario)
        tokens = Tokens(prepared.world, 8, CONSTANTS)
        policy = resized(trained_on, tokens)
        sim = simulator(prepared, 4)
        for _ in range(6):
            expected = priced_plans(CONSTANTS, prepared)(prepared.world, sim.problems)
            flat = tokens.observe(sim.problems)
            assert tokens.observation_space.contains(flat[0]) and np.isfinite(flat).all()
            found = tokens.plans(sim.problems, policy.predict(flat, deterministic=True)[0])
            declined = expected[0][:, :1] < 0
            np.testing.assert_array_equal(found[0], np.where(declined, found[0], expected[0]))
            assert ((found[0][:, :1] < 0) == declined).all()
            held = np.diff(expected[0], axis=1, prepend=0) > 0
            assert (found[1][held] == expected[1][held]).all()
            sim.step(*expected)


def test_the_fused_policy_over_shares_is_stable_baselines3s_own():
    from stable_baselines3.common.policies import ActorCriticPolicy

    env = SatVecEnv(4, "PaperStatic", "fractions", flat=True)
    torch.manual_seed(0)
    theirs = ActorCriticPolicy(env.observation_space, env.action_space, lambda _: 1e-3, log_std_init=-0.5)
    torch.manual_seed(0)
    mine = FusedPolicy(env.observation_space, env.action_space, lambda _: 1e-3, log_std_init=-0.5)
    for name, weights in theirs.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], weights, rtol=0.0, atol=0.0)
    seen = torch.as_tensor(env.reset())
    actions = torch.randn(4, *env.action_space.shape)
    both = [policy.evaluate_actions(seen, actions) for policy in (mine, theirs)]
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b)
    for found in both:
        sum(part.sum() for part in found).backward()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(mine(seen, deterministic=True), theirs(seen, deterministic=True))
    drawn = torch.stack([mine(seen)[0] for _ in range(4000)])
    mean, spread = mine(seen, deterministic=True)[0], float(np.exp(-0.5))
    torch.testing.assert_close(drawn.mean(dim=0), mean, atol=0.06, rtol=0.0)
    torch.testing.assert_close(drawn.std(dim=0), torch.full_like(mean, spread), atol=0.04, rtol=0.0)


def test_the_quick_tangent_is_torchs():
    x = torch.cat([torch.linspace(-12.0, 12.0, 100_001), torch.logspace(-30, -1, 1000)])
    both = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    found, expected = QuickTanh()(both[0]), torch.tanh(both[1])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)
    weights = torch.rand(len(x))
    for values in (found, expected):
        (weights * values).sum().backward()
    torch.testing.assert_close(both[0].grad, both[1].grad, rtol=1e-5, atol=1e-6)
    traced = torch.export.export(QuickTanh(), (x[:3],)).module()
    torch.testing.assert_close(traced(x[7:10]), torch.tanh(x[7:10]), rtol=0.0, atol=0.0)


def test_the_lean_buffer_gives_stable_baselines3s_minibatches():
    def learnt(**options):
        env = SatVecEnv(4, "PaperStatic", "fractions", flat=True)
        options.update(n_steps=8, batch_size=8, n_epochs=2, seed=3, device="cpu")
        return PPO(FusedPolicy, env, **options).learn(64).policy.state_dict()

    theirs, mine = learnt(), learnt(rollout_buffer_class=LeanRolloutBuffer)
    for name, weights in theirs.items():
        torch.testing.assert_close(mine[name], weights, rtol=0.0, atol=0.0)


def test_a_quick_policy_is_saved_and_loaded(tmp_path):
    env = SatVecEnv(4, "PaperStatic", "fractions", flat=True)
    quick = {"activation_fn": QuickTanh, "optimizer_kwargs": {"fused": True}}
    model = PPO(
        FusedPolicy, env, n_steps=8, batch_size=8, device="cpu", seed=0, policy_kwargs=quick,
        rollout_buffer_class=LeanRolloutBuffer,
    ).learn(32)  # fmt: skip
    model.save(tmp_path / "quick")
    seen = env.reset()
    actions, _ = PPO.load(tmp_path / "quick", device="cpu").predict(seen, deterministic=True)
    np.testing.assert_array_equal(actions, model.predict(seen, deterministic=True)[0])
    plain = PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu")
    plain.policy.load_state_dict(model.policy.state_dict())
    np.testing.assert_allclose(plain.predict(seen, deterministic=True)[0], actions, rtol=0.0, atol=1e-5)


def test_fused_actions_are_those_of_separate_distributions():
    choices, generator = [3, 7, 2], torch.Generator().manual_seed(0)
    logits = torch.randn(4, 12, generator=generator, requires_grad=True)
    actions = torch.stack([torch.randint(n, (4,), generator=generator) for n in choices], dim=1)
    fused = FusedCategoricals(choices).proba_distribution(logits)
    apart = MultiCategoricalDistribution(choices).proba_distribution(logits)
    for mine, theirs in (
        (fused.log_prob(actions), apart.log_prob(actions)),
        (fused.entropy(), apart.entropy()),
        (fused.mode(), apart.mode()),
    ):
        torch.testing.assert_close(mine, theirs)
        if mine.requires_grad:
            gradients = [torch.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (mine, theirs)]
            torch.testing.assert_close(*gradients)
    torch.manual_seed(0)
    many = FusedCategoricals(choices).proba_distribution(logits[:1].expand(20_000, 12))
    drawn = many.sample()
    for i, n in enumerate(choices):
        shares = torch.bincount(drawn[:, i], minlength=n) / len(drawn)
        torch.testing.assert_close(shares, many.log_p[0, i, :n].exp(), atol=0.015, rtol=0.0)
