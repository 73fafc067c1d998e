"""Learned choice by rollouts: candidates, branched worlds, and a training that resumes exactly."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from conftest import small
from test_agents import CONSTANTS
from test_commands import run as command
from test_evolution import met, some_rule

pytest.importorskip("stable_baselines3")

from agents import tuning
from agents.candidates import BACKLOG_MAX, BUSIEST, DECLINED, LATE_MAKESPAN, MAKESPAN, MENU, CandidateMaker
from agents.config import EvolutionConfig, RolloutConfig, checked
from agents.export import compare, decisions, export
from agents.models import Run, new_learner
from agents.planner import BatchPlanner
from agents.regression import FOLDS, fit, nothing
from agents.rollouts import IMAGINED, PAIR, Chooser, LearnedRollouts, best_margin, chosen_gains_s
from agents.saved import SavedPolicy
from agents.training import decider, load_learner, read_evaluations, save_policy, train_learner
from baselines.batch import play, priced_plans
from baselines.imagination import Imagination
from sat_env.commands import swap_model
from sat_env.evaluation.runner import episodes, run_episode
from sat_env.planning import predict, solve
from sat_env.problem import Problems, tabulate
from sat_env.scenario import load_scenario
from sat_env.simulator import NO_PLAN
from sat_env.world import prepare

TINY = RolloutConfig(
    steps=160, num_envs=4, candidates=3, branch_epochs=2, value_epochs=4, width=8, passes=2, dev_episodes=2
)


@pytest.fixture(scope="module")
def rush():
    """A short Rush: there all kinds of candidates differ."""
    return prepare(small(load_scenario("WalkerRush")))


def run_of(prepared, seed=0, **changes) -> Run:
    return Run("rollouts", prepared.scenario, dataclasses.replace(TINY, **changes), CONSTANTS, seed)


def test_candidates_are_the_planners_plans_each_once_and_described_as_predicted(rush):
    sim = met(rush)
    found = CandidateMaker(rush.world, CONSTANTS).make(sim.problems)
    cuts, _ = BatchPlanner(rush.world, CONSTANTS).plans(sim.problems)
    np.testing.assert_array_equal(found.cuts[:, 0], cuts)
    assert found.offered[:, 0].all() and found.cuts.shape[1] == len(MENU) + 4
    batch = tabulate(rush.world, sim.problems)
    deadline_s, epoch_s = rush.world.deadline_s, rush.world.epoch_s
    for b in range(len(cuts)):
        costs = type(batch)._make(field[b] for field in batch)
        offered = np.flatnonzero(found.offered[b])
        plans = [
            (NO_PLAN,) if found.cuts[b, c, 0] == NO_PLAN else (*found.cuts[b, c], *found.levels[b, c])
            for c in offered
        ]
        assert len(set(plans)) == len(plans) >= 2 and plans.count((NO_PLAN,)) == 1
        shortest_s = solve(costs).makespan_s
        for c in offered:
            declined = found.cuts[b, c, 0] == NO_PLAN
            expected_s = deadline_s if declined else predict(costs, found.cuts[b, c], found.levels[b, c])
            assert expected_s >= shortest_s * (1 - 1e-9) or declined
            said = found.described[b, c]
            assert said[DECLINED] == declined
            assert said[MAKESPAN] == pytest.approx(min(expected_s, deadline_s) / epoch_s, rel=1e-5)
            assert said[LATE_MAKESPAN] == pytest.approx(min(expected_s, 2 * deadline_s) / epoch_s, rel=1e-5)


def test_an_untrained_choice_is_the_tuned_planner(rush):
    run = run_of(rush)
    chosen = episodes(rush.scenario, "dev", 2, 0)
    mine = play(rush, chosen, "dev", decider(run, new_learner(run)))
    planner = play(rush, chosen, "dev", priced_plans(CONSTANTS, rush))
    np.testing.assert_array_equal(mine.latency_s, planner.latency_s)


def test_the_best_candidate_is_taken(rush):
    sim = met(rush)
    interface = LearnedRollouts(rush.world, rush.scenario.forecast_epochs, CONSTANTS)
    found = interface.maker.make(sim.problems)
    cuts, _ = interface.decide(sim.problems, lambda flat, masks: np.where(flat[:, 22] == 1.0, -1.0, -0.5))
    assert (cuts[:, 0] == NO_PLAN).all()  # the one that declines, its first number says
    cuts, levels = interface.decide(sim.problems, lambda flat, masks: np.full(len(flat), 0.1))
    np.testing.assert_array_equal(cuts, found.cuts[:, 0])
    np.testing.assert_array_equal(levels, found.levels[:, 0])


@pytest.mark.parametrize("ruled", [False, True])
def test_one_that_never_departs_takes_the_first_candidate_unasked(rush, ruled):
    sim, rule = met(rush), some_rule() if ruled else None
    interface = LearnedRollouts(rush.world, rush.scenario.forecast_epochs, CONSTANTS, rule)
    asked = interface.decide(sim.problems, lambda flat, masks: np.full(len(flat), np.inf))
    interface.departs = False
    for mine, other in zip(interface.decide(sim.problems, None), asked, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_satellites_that_decode_are_busy_until_the_last_token():
    llm = prepare(small(swap_model(load_scenario("WalkerRush"), "llama-3.2-1b")))
    sim = met(llm)
    found = CandidateMaker(llm.world, CONSTANTS).make(sim.problems)
    batch = tabulate(llm.world, sim.problems)
    told = 0
    for b, c in zip(*np.nonzero(found.offered), strict=True):
        costs, cuts = type(batch)._make(field[b] for field in batch), found.cuts[b, c]
        span_s = np.inf if cuts[0] == NO_PLAN else predict(costs, cuts, found.levels[b, c])
        if not span_s < np.inf or cuts[-1] == 0:
            continue
        starts, told = np.r_[0, cuts[:-1]], told + 1
        token_s = max(
            costs.token_compute_s[k, i:j].sum() for k, (i, j) in enumerate(zip(starts, cuts, strict=True))
        )
        longest_s = max(span_s, costs.stage_release_s[: len(cuts)].max())
        epochs = llm.world.epoch_s
        assert found.described[b, c, BACKLOG_MAX] == pytest.approx(
            np.clip(longest_s / epochs - 1, 0, 8), rel=1e-5
        )
        decoding_s = costs.micro_batches * costs.n_tokens * token_s
        assert found.described[b, c, BUSIEST] > min(decoding_s / epochs, 7.9)
    assert told


def test_what_is_imagined_of_candidates_is_their_cost_beyond_the_first_and_tells_nothing_of_the_trace(rush):
    sim = met(rush)
    interface = LearnedRollouts(rush.world, rush.scenario.forecast_epochs, CONSTANTS)
    found = interface.candidates(sim.problems)
    said = interface.imagined(sim.problems, found)
    assert said.shape == (*found.offered.shape, len(IMAGINED))
    assert (said[:, 0] == 0).all() and (said[~found.offered] == 0).all() and (said != 0).any()
    b, c = (int(place) for place in np.argwhere(found.offered)[-1])  # the last: declined
    assert found.cuts[b, c, 0] == NO_PLAN
    plans = found.cuts[b, [0, c]], found.levels[b, [0, c]]
    latency_s = Imagination(rush.world).latencies_s(
        sim.problems, np.array([b, b]), plans, IMAGINED[-1], interface.follow
    )
    beyond_s = np.diff(np.cumsum(latency_s, axis=1), axis=0)[0, np.array(IMAGINED) - 1]
    expected = np.clip(beyond_s / rush.world.epoch_s, -8.0, 8.0)
    np.testing.assert_allclose(said[b, c], expected, rtol=1e-5)

    twin = copy.deepcopy(sim)
    now = int(twin.state.epoch[0] - twin.state.start[0])
    twin.trace.items[:, now + 1 :] = 1.0
    twin.trace.content[:, now + 1 :] = 3.0
    twin.trace.downlink_factor[:, now + 1 :] = 0.1
    np.testing.assert_array_equal(interface.pairs(twin.problems, interface.candidates(twin.problems)),
                                  interface.pairs(sim.problems, found))  # fmt: skip


def test_branches_cost_what_the_world_then_does_and_leave_it_alone(rush):
    """On the true trace, with a critic that says nothing, a branch is the sum of what comes."""
    learner = new_learner(run_of(rush, branch_epochs=3))
    sim = learner.simulator
    sim.begin(seeds=np.arange(4, dtype=np.uint64))
    planner = priced_plans(CONSTANTS, rush)
    for _ in range(5):
        sim.step(*planner(sim.world, sim.problems))
    learner.critic = nothing(22 + 4 * sim.slots + 1)
    before = sim.snapshot()
    cuts, levels = planner(sim.world, sim.problems)
    which = np.array([2, 0, 2, 1])
    declined = np.where(np.arange(4)[:, None] == 2, NO_PLAN, cuts[which])
    found = learner.futures_s(which, declined, levels[which])
    for part, now in zip(before[1:], sim.snapshot()[1:], strict=True):
        for old, new in zip(part, now, strict=True):
            np.testing.assert_array_equal(old, new)
    total = np.zeros(4)
    for _ in range(3):
        sim.step(*planner(sim.world, sim.problems))
        total += sim.outcome.latency_s
    assert found[0] == pytest.approx(total[2]) and found[1] == pytest.approx(total[0])
    assert found[3] == pytest.approx(total[1]) and found[2] != found[0]


def test_the_gain_counts_every_decision_and_takes_the_tuned_plan_where_nothing_is_better():
    decision, world = np.array([0, 0, 1, 1, 2]), np.array([0, 0, 0, 0, 7])
    cost_s = np.array([-1.0, -2.0, 0.5, -0.1, 3.0])
    advantage_s = np.array([5.0, -4.0, -9.0, 1.0, -9.0])
    assert chosen_gains_s(cost_s, advantage_s, decision, world).tolist() == [(-4.0 + 1.0) / 2, 0.0]
    assert chosen_gains_s(cost_s + 1.5, advantage_s, decision, world).tolist() == [-4.0 / 2, 0.0]


def test_the_margin_keeps_what_gains_for_sure():
    rng = np.random.default_rng(3)
    decision = np.arange(4000)
    world = decision % 40
    margins_s = np.array([0.0, 1.0, 3.0])
    luck_s = rng.normal(0.0, 1.0, 4000)
    # What is said to gain 2 s does, what is said to gain half a second costs one.
    cost_s = np.where(decision % 3 == 0, -2.0, -0.5)
    margin_s, gain_s = best_margin(
        cost_s, np.where(cost_s == -2.0, -2.0, 1.0) + luck_s, decision, world, margins_s
    )
    assert margin_s == 1.0 and gain_s == pytest.approx(-2.0 / 3, abs=0.05)
    # Nothing gains: the tuned plan stays, whatever is predicted.
    assert best_margin(cost_s, np.abs(luck_s), decision, world, margins_s) == (np.inf, 0.0)
    # One lucky world is not enough.
    lucky_s = np.where(world == 0, -5.0, 0.01)
    assert best_margin(cost_s, lucky_s, decision, world, margins_s)[0] == np.inf


def test_members_learn_from_all_but_their_fold():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 3)).astype(np.float32)
    y = 10.0 * x[:, 0].astype(np.float64)
    fold = np.arange(2000) % FOLDS
    y[fold == 1] *= -1.0  # nobody but member 1 is spared this
    said = fit(x, y, fold, 16, 150, 0).each(x)
    slopes = [np.polyfit(x[:, 0], each, 1)[0] for each in said]
    assert slopes[1] > 8.0 and all(slope < 0.8 * slopes[1] for f, slope in enumerate(slopes) if f != 1)


def weights(learner):
    return [
        np.asarray(part) for part in (*learner.chooser.ensemble, learner.chooser.margin_s, *learner.critic)
    ]


def test_interrupted_and_resumed_equals_uninterrupted(rush, tmp_path):
    run = run_of(rush)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    uninterrupted = new_learner(run)
    train_learner(uninterrupted, run, whole, progress_bar=False)
    at = int(np.random.default_rng(7).integers(4, 150))

    def interrupt(learner) -> None:
        if learner.num_timesteps >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_learner(new_learner(run), run, parts, interrupt, checkpoint_share=1.0, progress_bar=False)
    resumed = load_learner(parts)
    assert 0 <= resumed.num_timesteps <= at
    train_learner(resumed, run, parts, progress_bar=False)
    assert resumed.num_timesteps == 160
    for mine, theirs in zip(weights(resumed), weights(uninterrupted), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    seen = [[row[k] for k in ("steps", "j_s")] for row in read_evaluations(parts / "evaluations.csv")]
    expected = [[row[k] for k in ("steps", "j_s")] for row in read_evaluations(whole / "evaluations.csv")]
    assert seen == expected and [steps for steps, _ in seen] == [0, 80, 160]


def test_a_saved_policy_plays_as_the_learner_it_was_also_elsewhere(rush, tmp_path):
    run = run_of(rush, steps=80, passes=6)
    learner = new_learner(run)
    train_learner(learner, run, tmp_path, progress_bar=False)
    learner.chooser.margin_s = -200.0  # so that it departs from the planner
    save_policy(tmp_path / "other.zip", learner, run)
    chosen = episodes(rush.scenario, "test", 2, 0)
    batch = play(rush, chosen, "test", decider(run, learner))
    assert (batch.j_s != play(rush, chosen, "test", priced_plans(CONSTANTS, rush)).j_s).any()
    policy = SavedPolicy(tmp_path / "other.zip")
    for i, episode in enumerate(chosen):
        assert run_episode(policy, rush, episode, "test").j_s == pytest.approx(batch.j_s[i], rel=1e-12)
    shorter = prepare(rush.scenario.replace(**{"chain.slots": 5}))
    run_episode(policy, shorter, episodes(shorter.scenario, "test", 1, 0)[0], "test")
    assert SavedPolicy(tmp_path / "model.zip").name == "rollouts"


def test_a_policy_of_another_version_is_refused(tmp_path):
    Chooser(nothing(PAIR - 4), 0.0).save(tmp_path / "old.zip")
    with pytest.raises(ValueError, match=rf"^it knows {PAIR - 4} .* must know {PAIR}"):
        Chooser.load(tmp_path / "old.zip")


def ruled(prepared, **changes):
    """Return a run, and its learner at the end of the rule's evolution, with a rule that differs from the planner."""
    run = run_of(prepared, rule_steps=1, **changes)
    learner = new_learner(run)
    while not learner.evolution.over:
        learner.advance()
    learner.chooser = Chooser.untrained(some_rule())
    learner.interface.rule = learner.rule
    return run, learner


def test_around_a_rule_the_first_candidate_is_the_rules_plan(rush):
    run, learner = ruled(rush)
    sim = met(rush)
    expected = decider(Run("evolution", rush.scenario, EvolutionConfig(), CONSTANTS, 0), some_rule())
    cuts, levels = expected(sim.world, sim.problems)
    tuned_cuts, _ = BatchPlanner(rush.world, CONSTANTS).plans(sim.problems)
    assert (cuts != tuned_cuts).any()
    found = learner.interface.candidates(sim.problems)
    np.testing.assert_array_equal(found.cuts[:, 0], cuts)
    for plans in (
        decider(run, learner)(sim.world, sim.problems),
        learner.interface.follow(sim.world, sim.problems),
    ):
        np.testing.assert_array_equal(plans[0], cuts)
        np.testing.assert_array_equal(plans[1], levels)


def test_the_last_rule_that_gained_for_sure_takes_the_planners_place(rush, monkeypatch):
    learner = new_learner(run_of(rush, rule_steps=10**6))
    learner.evolution.config = EvolutionConfig(10**6, worlds=4, dev_every=1)
    for standard_errors, gains in ((1e9, False), (-1e9, True), (1e9, False)):
        monkeypatch.setattr("agents.evolution.SURE", standard_errors)
        before = learner.rule
        assert learner.advance()
        assert (learner.evolution.offered is not None) == gains
        assert learner.rule is (learner.evolution.offered if gains else before)
        assert learner.interface.rule is learner.rule
    assert learner.rule is not None and learner.branched == 0 and not learner.over


def test_around_a_rule_training_resumes_exactly_and_the_policy_carries_the_rule(rush, tmp_path):
    run, uninterrupted = ruled(rush, steps=80, passes=6)
    resumed = pickle.loads(pickle.dumps(uninterrupted))
    while not uninterrupted.over:
        uninterrupted.advance()
    while not resumed.over:
        resumed = pickle.loads(pickle.dumps(resumed))
        resumed.advance()
    for mine, theirs in zip(weights(resumed), weights(uninterrupted), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert resumed.num_timesteps == resumed.branched + resumed.evolution.num_timesteps > resumed.branched > 0
    resumed.chooser.margin_s = -200.0  # so that it departs from the rule
    save_policy(tmp_path / "model.zip", resumed, run)
    policy = SavedPolicy(tmp_path / "model.zip")
    np.testing.assert_array_equal(policy.model.rule.weights, some_rule().weights)
    chosen = episodes(rush.scenario, "test", 2, 0)
    batch = play(rush, chosen, "test", decider(run, resumed))
    for i, episode in enumerate(chosen):
        assert run_episode(policy, rush, episode, "test").j_s == pytest.approx(batch.j_s[i], rel=1e-12)


def test_bad_hyper_parameters_are_refused(rush, tmp_path):
    with pytest.raises(ValueError, match=r"^value_epochs = 40: must be below 40, twice the epochs"):
        new_learner(run_of(rush, value_epochs=40))
    with pytest.raises(ValueError, match="explore = 2"):
        dataclasses.replace(TINY, explore=2)
    with pytest.raises(ValueError, match="num_envs = 3"):
        dataclasses.replace(TINY, num_envs=3)
    with pytest.raises(ValueError, match="rule_steps = -1"):
        dataclasses.replace(TINY, rule_steps=-1)
    with pytest.raises(ValueError, match="candidates = 0"):
        dataclasses.replace(TINY, candidates=0)
    with pytest.raises(ValueError, match="gamma"):
        checked({"gamma": 0.5}, "rollouts")
    ran = command("train.py", "--branch-epochs", "0", "--out", str(tmp_path / "run"))
    assert ran.returncode == 2 and "branch_epochs = 0" in ran.stderr
    ran = command("train.py", "--gamma", "0.5", "--out", str(tmp_path / "run"))
    assert ran.returncode == 2 and "gamma" in ran.stderr  # of PPO, and rollouts are the default


def test_an_exported_choice_says_what_the_policy_says(rush, tmp_path):
    import onnxruntime

    run = run_of(rush, steps=80, passes=6)
    learner = new_learner(run)
    train_learner(learner, run, tmp_path, progress_bar=False)
    for name, margin_s in (("finite.zip", 0.5), ("never.zip", np.inf)):
        learner.chooser.margin_s = margin_s
        save_policy(tmp_path / name, learner, run)
        found = export(tmp_path / name, rush.scenario, tmp_path / "model.onnx")
        assert found.largest <= 1e-4 and found.observations >= 80
        policy = SavedPolicy(tmp_path / name)
        flat = decisions(policy, rush.scenario).observations[:9]
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        for said in session.run(None, {"observation": flat}):
            np.testing.assert_allclose(said, policy.model.predict(flat)[0], atol=1e-4)
    learner.chooser.margin_s = 0.501
    save_policy(tmp_path / "other.zip", learner, run)
    export(tmp_path / "finite.zip", rush.scenario, tmp_path / "model.onnx")
    other = SavedPolicy(tmp_path / "other.zip")
    with pytest.raises(ValueError, match="differ by"):
        compare(other, decisions(other, rush.scenario), tmp_path / "model.onnx")


def test_a_search_starts_from_the_defaults(rush, tmp_path):
    run = run_of(rush, steps=80)
    found = tuning.tune(run, 2, tmp_path)
    assert found.trials == 2 and found.j_s <= found.default_j_s
    assert isinstance(found.config, RolloutConfig) and found.config.steps == 80


def test_problems_are_not_changed_by_making_candidates(rush):
    sim = met(rush, 2, 3)
    before = Problems._make(field.copy() for field in sim.problems)
    CandidateMaker(rush.world, CONSTANTS).make(sim.problems)
    for old, new in zip(before, sim.problems, strict=True):
        np.testing.assert_array_equal(old, new)
