"""Planners and schedules: every name plays, what is tuned is used, what is batched is the same."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from conftest import calm, small

from agents.planner import tuned_constants
from baselines import NAMES, make
from baselines.batch import fixed_plans, play, priced_plans
from baselines.branches import Branches, best, menu
from baselines.clairvoyant import Clairvoyant
from baselines.imagination import imagined_traces, know, unseen_states
from baselines.lookahead import LookAhead
from baselines.priced import Constants, is_tuned, load_constants, load_static
from baselines.registry import COMPETITORS, exact_planner, make_policy
from baselines.risk import mean_wait_s, risk_prices
from baselines.schedule import EveryEpoch, Static
from baselines.tune import best_static, gains_for_sure, tune
from sat_env.commands import entry_hash
from sat_env.evaluation.runner import Reference, episodes, run_episode
from sat_env.faults import outage_law
from sat_env.plan import Plan
from sat_env.problem import Problems
from sat_env.scenario import Faults, load_scenario
from sat_env.simulator import Simulator
from sat_env.state import State
from sat_env.trace import Trace
from sat_env.world import prepare


def busy(**changes):
    """A short rush on a mesh with frequent outages and resets: everything a schedule can meet."""
    return small(
        load_scenario("WalkerRush"),
        **{"faults.link_up_mean_s": 600.0, "faults.reset_mtbf_s": 20_000.0, **changes},
    )


@pytest.fixture(scope="module")
def rush():
    return prepare(busy())


@pytest.mark.parametrize("name", NAMES)
def test_every_name_plays(name):
    scenario = small(load_scenario("WalkerOutage"), episode_epochs=4)
    policy = make(name, load_scenario("WalkerOutage"))
    assert policy.name == name
    assert isinstance(policy, Reference) == name.startswith("clairvoyant")
    metrics = run_episode(policy, prepare(scenario), episodes(scenario, "test", 1, 0)[0], "test")
    assert 0 < metrics.j_s <= scenario.jobs.deadline_s


def test_unknown_names_and_references_are_refused():
    with pytest.raises(ValueError, match="agent = 'clever'"):
        make("clever", load_scenario("WalkerOutage"))
    with pytest.raises(ValueError, match="agent = 'clairvoyant': a reference"):
        make_policy("clairvoyant", load_scenario("WalkerOutage"))


@pytest.mark.parametrize(
    "change", [{"name": "Nowhere"}, {"model.profile": "vit-l"}, {"motion.altitude_km": 700.0}]
)
def test_what_was_tuned_for_another_world_is_not_used(change):
    rush = load_scenario("WalkerRush")
    assert is_tuned(rush) and load_constants(rush, "priced") != Constants()
    other = rush.replace(**change)
    assert not is_tuned(other)
    assert load_constants(other, "priced") == tuned_constants(other) == Constants()
    with pytest.raises(
        ValueError, match=r"^agent = 'best-static': nothing is tuned for this .*baselines\.tune"
    ):
        make("best-static", other)
    for name in set(NAMES) - {"best-static"}:
        make(name, other)


def test_a_policy_says_what_it_was_built_with():
    outage, rush = load_scenario("WalkerOutage"), load_scenario("WalkerRush")
    told = {name: entry_hash(make(name, rush)) for name in NAMES}
    assert len(set(told.values())) == len(NAMES)
    assert told == {name: entry_hash(make(name, rush)) for name in NAMES}
    for name in ("priced", "best-static", "lookahead", "clairvoyant"):
        assert told[name] != entry_hash(make(name, outage)), name
    assert told["uniform"] == entry_hash(make("uniform", outage))


@pytest.mark.parametrize(
    "constants",
    [Constants(), Constants(horizon=2, bottleneck=0.5, downlink=0.3, energy=1, risk=1, decline=1)],
)
def test_worlds_side_by_side_play_as_one_policy_does(rush, constants):
    chosen = episodes(rush.scenario, "test", 2, 5)
    together = play(rush, chosen, "test", priced_plans(constants, rush))
    policy = EveryEpoch("exact", exact_planner(constants))
    alone = [run_episode(policy, rush, episode, "test") for episode in chosen]
    assert together.j_s.tolist() == [metrics.j_s for metrics in alone]
    assert together.drop_share.tolist() == [metrics.drop_share for metrics in alone]
    fixed = Plan((2, 4, 6, 8, 10, 12), (1,) * 6)
    together = play(rush, chosen, "test", fixed_plans(fixed.cuts, fixed.levels))
    alone = [run_episode(Static("s", lambda problem: fixed), rush, episode, "test") for episode in chosen]
    assert together.j_s.tolist() == [metrics.j_s for metrics in alone]


def test_tuning_nests_and_repeats():
    scenario = busy(**{"episode_epochs": 10})
    prepared = prepare(scenario)
    plan, j_s = best_static(prepared, episodes(scenario, "train", 2, 0), 1)
    assert plan.cuts[-1] == len(prepared.world.block_flops) and np.isfinite(j_s)
    first = tune(scenario, 2, seed=3, evaluations=6, static_evaluations=20)
    assert first == tune(scenario, 2, seed=3, evaluations=6, static_evaluations=20)
    # Each family holds the one before it, and the plan that prices nothing.
    assert first.j_s["backlog"] <= first.j_s["priced"] <= first.j_s["replan"]
    assert first.constants["replan"] == Constants(horizon=first.constants["replan"].horizon)
    prepared, chosen = prepare(scenario), episodes(scenario, "train", 2, 3)
    assert (
        first.j_s["replan"] <= play(prepared, chosen, "train", priced_plans(Constants(), prepared)).j_s.mean()
    )
    replayed = play(prepared, chosen, "train", fixed_plans(first.static.cuts, first.static.levels)).j_s.mean()
    assert first.j_s["static"] == replayed
    equal = play(prepared, chosen, "train", fixed_plans([2, 4, 6, 8, 10, 12], [0] * 6)).j_s.mean()
    assert replayed <= equal


def test_what_does_not_gain_for_sure_is_not_kept():
    scenario = busy(**{"episode_epochs": 10})
    prepared, unseen = prepare(scenario), episodes(scenario, "train", 4, 1)
    plain, declines_all = Constants(), Constants(decline=1e9)
    assert gains_for_sure(prepared, unseen, plain, declines_all)
    assert not gains_for_sure(prepared, unseen, declines_all, plain)
    assert not gains_for_sure(prepared, unseen, plain, plain)


def test_tuned_constants_are_read():
    for name in ("WalkerOutage", "WalkerRush"):
        assert load_constants(load_scenario(name), "replan").bottleneck == 0.0
        load_static(load_scenario(name)).check(6, 12, 6)
    with pytest.raises(ValueError, match=r"horizon = 0\.5"):
        Constants(horizon=0.5)
    with pytest.raises(ValueError, match=r"decline = -1"):
        Constants(decline=-1)


def test_branches_foretell_the_true_simulator(rush):
    sim = Simulator(rush, 1, "test")
    sim.begin(seeds=np.array([9], np.uint64))
    follow = Constants(horizon=2.0, bottleneck=0.5)
    branches = Branches(sim.world, follow)
    decide = priced_plans(follow, rush)
    for _ in range(5):
        problem = sim.problem()
        plans = branches.plans(problem.costs, Problems(*sim.problems), menu((follow,)))[:3]
        before = copy.deepcopy(sim.snapshot())
        now = State(*sim.state), Problems(*sim.problems)
        rolled = branches.roll(Trace(*sim.trace), *now, [*plans, None], 4)
        for mine, theirs in zip((*before.state, *before.problems), (*sim.state, *sim.problems), strict=True):
            assert np.array_equal(mine, theirs)
        for c, plan in enumerate(plans):
            twin = copy.deepcopy(sim)
            twin.step(*(part[None] for part in plan.arrays()))
            told = [twin.outcome.latency_s[0]]
            for _ in range(3):
                twin.step(*decide(twin.world, twin.problems))
                told.append(twin.outcome.latency_s[0])
            assert rolled.latency_s[c].tolist() == told
        assert rolled.latency_s[-1, 0] == rush.scenario.jobs.deadline_s
        assert best(rolled) == int(np.argmin(rolled.latency_s.sum(axis=1)))
        sim.step(*(part[None] for part in plans[0].arrays()))


def test_the_clairvoyant_is_never_beaten_on_the_job_it_sees(rush):
    # Asked at every epoch along its own way: no competitor's plan would have ended this job sooner.
    names = [name for name in COMPETITORS if name != "lookahead"]
    tuned_for = load_scenario("WalkerRush")
    competitors = [make_policy(name, tuned_for) for name in names]
    one_job = Clairvoyant("one-job", (Constants(),), competitors, epochs=1)
    episode = episodes(rush.scenario, "test", 1, 2)[0]
    sim = Simulator(rush, 1, "test")
    sim.begin(seeds=np.array([episode.seed], np.uint64), windows=np.array([episode.window]))
    asked = [make_policy(name, tuned_for) for name in names]
    for _ in range(10):
        problem = sim.problem()
        chosen = one_job.act_knowing(sim)
        others = [policy.act(problem) for policy in asked]
        latencies = []
        for plan in (chosen, *others):
            twin = copy.deepcopy(sim)
            if plan is not None:
                twin.step(*(part[None] for part in plan.arrays()))
                latencies.append(twin.outcome.latency_s[0])
        assert chosen is None or latencies[0] <= min(latencies) * (1 + 1e-9)
        assert chosen is not None or min(latencies, default=np.inf) >= rush.scenario.jobs.deadline_s
        step = chosen or Plan((0,) * 6, (0,) * 6)
        sim.step(*(part[None] for part in step.arrays()))


def test_look_ahead_foretells_a_world_without_chance():
    prepared = calm()
    sim = Simulator(prepared, 1, "test")
    sim.begin(seeds=np.array([1], np.uint64))
    world, follow = sim.world, Constants()
    decide = priced_plans(follow, prepared)
    state = None
    for _ in range(4):
        now = Problems(*(field.copy() for field in sim.problems))
        state = unseen_states(world, now) if state is None else state
        know(world, now, state)
        branches = Branches(world, follow)
        plan = branches.plans(sim.problem().costs, now, (follow,))
        rolled = branches.roll(imagined_traces(world, now), state, now, plan, 6)
        twin = copy.deepcopy(sim)
        told = []
        for _ in range(6):
            twin.step(*decide(world, twin.problems))
            told.append(twin.outcome.latency_s[0])
        assert rolled.latency_s[0] == pytest.approx(told, rel=0.02)
        state = rolled.after
        sim.step(*decide(world, sim.problems))


def test_look_ahead_learns_nothing_of_the_trace(rush):
    sim = Simulator(rush, 1, "test")
    sim.begin(seeds=np.array([4], np.uint64))
    twin = copy.deepcopy(sim)
    twin.trace.link_down_s[twin.trace.link_down_s > 0] = np.inf  # another future
    twin.trace.items[0, 1:] = 1.0
    twin.trace.downlink_factor[0, 1:] = 0.1
    policies = [LookAhead("lookahead", (Constants(),)) for _ in range(2)]
    assert policies[0].act(sim.problem()) == policies[1].act(twin.problem())
    with pytest.raises(ValueError, match="epochs = 0"):
        LookAhead("lookahead", (Constants(),), epochs=0)


def test_expected_wait_of_an_outage():
    law = outage_law(Faults(link_tail_share=0.05))
    assert mean_wait_s(law, 1e9) == pytest.approx(law.down_mean_s, rel=0.01)
    assert mean_wait_s(law, 5.0) == pytest.approx(5.0)  # shorter than any outage
    assert 12.0 < mean_wait_s(law, 30.0) < 30.0


def test_risk_charges_long_routes_more_and_nothing_without_outages(outage):
    sim = Simulator(outage, 1, "train")
    sim.begin(seeds=np.array([0], np.uint64))
    problem = sim.problem()
    charged = risk_prices(Constants(), problem).hop_fixed_s
    hops = problem.problems.route_hops[0]
    assert (charged[hops > 0] > 0).all()
    per_link = charged[hops > 0] / hops[hops > 0]
    assert per_link == pytest.approx(np.full(per_link.shape, per_link[0]))
    calm = replace(
        problem, world=problem.world._replace(outages=problem.world.outages._replace(up_mean_s=0.0))
    )
    assert not risk_prices(Constants(), calm).hop_fixed_s.any()
