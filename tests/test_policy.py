"""Everything that decides goes through one protocol and learns nothing of the trace."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import small

from baselines import NAMES, make
from sat_env import trace
from sat_env.evaluation.runner import episodes, evaluate, run_episode
from sat_env.kernels import kernel
from sat_env.plan import Plan
from sat_env.scenario import load_scenario
from sat_env.simulator import Simulator
from sat_env.trace import STREAM_ARRIVALS, stream_key
from sat_env.world import prepare


@pytest.fixture(scope="module")
def short():
    return small(load_scenario("WalkerOutage"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scenario", ["WalkerOutage", "PaperStatic"])
def test_every_planner_plays(name, scenario):
    tuned_for = load_scenario(scenario)
    played = small(tuned_for, episode_epochs=6)
    (row,) = evaluate([make(name, tuned_for)], played, 1, 0)
    assert row.entry == name and row.metrics.n_jobs == 6
    assert 0 < row.metrics.j_s <= played.jobs.deadline_s


def test_every_policy_meets_the_same_world(short):
    class Watcher:
        def __init__(self, plan):
            self.name, self.plan, self.seen = "watcher", plan, []

        def reset(self, spec, seed):
            self.seed = seed

        def act(self, problem):
            self.seen.append(
                (problem.problems.items[0], problem.problems.content[0], problem.problems.primary_up)
            )
            return self.plan

    spread = Watcher(Plan((2, 4, 6, 8, 10, 12), (0,) * 6))
    narrow = Watcher(Plan((4, 8, 12, 12, 12, 12), (1,) * 6))
    episode = episodes(short, "test", 1, 5)[0]
    for watcher in (spread, narrow):
        run_episode(watcher, prepare(short), episode, "test")
    for mine, theirs in zip(spread.seen, narrow.seen, strict=True):
        assert mine[:2] == theirs[:2] and np.array_equal(mine[2], theirs[2])


def test_the_trace_cannot_be_regenerated(short):
    # A policy that knows this code tries every number it is given, and its neighbours, as the trace's seed.
    uniform = kernel(trace.uniform.py_func)

    class Thief:
        name = "thief"

        def reset(self, spec, seed):
            self.numbers = {seed, seed >> 1, seed << 1 & (2**64 - 1)}
            self.numbers |= {seed ^ bit for bit in (1, 2**62, 2**63)} | set(range(2000))
            self.numbers |= {hash(field) & (2**64 - 1) for field in dataclasses.astuple(spec)}
            self.items = []

        def act(self, problem):
            self.items.append(float(problem.problems.items[0]))
            for field in problem.problems:
                self.numbers |= {
                    int(value) for value in field.ravel()[:50] if np.isfinite(value) and value >= 0
                }
            return Plan((2, 4, 6, 8, 10, 12), (0,) * 6)

        def regenerate(self, law):
            """Seeds whose arrivals are the ones seen."""
            found = []
            for number in self.numbers:
                for episode in (0, 1):
                    key = np.uint64(stream_key(np.uint64(number), episode, STREAM_ARRIVALS))
                    state = 1.0 if uniform(key, 0, 0) < 0.5 else -1.0
                    change = -0.5 * np.expm1(-2.0 * law.epoch_s / law.burst_mean_s)
                    drawn = []
                    for t in range(len(self.items)):
                        if uniform(key, 1, t) < change:
                            state = -state
                        drawn.append(round(law.items_mean * (1.0 + law.burst * state)))
                    if drawn == self.items:
                        found.append(number)
            return found

    busy = short.replace(**{"jobs.burst_mean_s": 20.0, "episode_epochs": 40})
    prepared = prepare(busy)
    thief = Thief()
    episode = episodes(busy, "test", 1, 12345)[0]
    run_episode(thief, prepared, episode, "test")
    assert thief.regenerate(prepared.world.law) == []
    # The attack itself works: given the true seed it succeeds.
    thief.numbers = {episode.seed}
    assert thief.regenerate(prepared.world.law) == [episode.seed]


def leaves(value):
    """Everything in nested tuples that is no tuple."""
    if isinstance(value, tuple):
        for part in value:
            yield from leaves(part)
    else:
        yield value


def test_a_policy_cannot_reach_the_simulator(short):
    sim = Simulator(prepare(short), 1, "test")
    sim.begin(seeds=np.array([1], np.uint64))
    problem = sim.problem()
    held = [*problem.problems, *(f for f in problem.costs if isinstance(f, np.ndarray))]
    live = [*sim.state, *sim.trace, *sim.problems]
    assert not any(np.shares_memory(mine, theirs) for mine in held for theirs in live)


def test_a_policy_is_not_shown_the_outages_of_a_log(short, tmp_path):
    names = prepare(short).contacts.names
    log = tmp_path / "log.csv"
    log.write_text(f"subject,a,b,start_s,end_s\nsatellite,{names[0]},,1234.5,2345.25\n")
    sim = Simulator(prepare(short.replace(**{"faults.outage_log": str(log)})), 1, "train")
    sim.begin(seeds=np.array([1], np.uint64))
    shown = sim.problem()
    told = np.concatenate([np.ravel(leaf) for leaf in leaves((shown.world, shown.problems, shown.costs))])
    assert not {1234.5, 2345.25} & set(told.tolist())


def test_a_policy_cannot_change_the_world(short):
    sim = Simulator(prepare(short), 1, "test")
    sim.begin(seeds=np.array([1], np.uint64))
    world = sim.problem().world
    with pytest.raises(ValueError, match="read-only"):
        world.block_flops[:] = 0.0
    assert not any(leaf.flags.writeable for leaf in leaves(world) if isinstance(leaf, np.ndarray))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (Plan((5, 4, 6, 8, 10, 12), (0,) * 6), r"cuts = \(5, 4, .*non-decreasing"),
        ("uniform", "act returned 'uniform'; must be a Plan or None"),
        (((1,) * 6, (0,) * 6), r"act returned \(\(1, .*; must be a Plan or None"),
    ],
)
def test_a_bad_plan_is_refused_with_policy_and_epoch(short, returned, message):
    class Wrong:
        name = "wrong"

        def reset(self, spec, seed):
            self.plans = iter((None, returned))

        def act(self, problem):
            return next(self.plans)

    with pytest.raises(ValueError, match=f"^policy 'wrong', epoch 1: {message}"):
        run_episode(Wrong(), prepare(short), episodes(short, "test", 1, 0)[0], "test")


def test_no_episodes_are_refused(short):
    with pytest.raises(ValueError, match="episodes = 0"):
        episodes(short, "test", 0, 0)


def test_no_trace_is_met_in_two_splits(short):
    """Arrivals, weather and outages that constants were tuned on must not come back in another window."""
    met = [{episode.seed for episode in episodes(short, split, 50, 3)} for split in ("train", "dev", "test")]
    assert len(set.union(*met)) == 150
