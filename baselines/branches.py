"""What-if: plans tried side by side, each followed by the same rule for some jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from baselines.batch import Decider, Plans, plan_priced
from baselines.priced import Constants, prices
from sat_env.handles import Handle
from sat_env.knowledge import describe_worlds
from sat_env.plan import Plan
from sat_env.planning import make_workspace, solve_batch
from sat_env.planning.costs import Costs, Prices
from sat_env.problem import Problems
from sat_env.reward import TERMS
from sat_env.simulator import NO_PLAN, Handles, copy_arrays, job_for, make_scratch, play_worlds
from sat_env.state import State, empty_outcome
from sat_env.trace import Trace
from sat_env.world import World

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


class Rolled(NamedTuple):
    """What came of C branches."""

    latency_s: Array  # (C, H) of each job, 0 past the end of the episode
    after: State  # C worlds one epoch on: their job is run, nothing follows yet


def futures(
    world: World,
    handle: Handle,
    trace: Trace,
    state: State,
    problems: Problems,
    plans: Plans,
    jobs: int,
    follow: Decider,
) -> Iterator[Array]:
    """Run the current job of F worlds, then those that follow; yield the latencies (F,) of each job.

    A latency is 0 past the end of an episode.

    Parameters
    ----------
    world : World
    handle : Handle
        Of `world`.
    trace, state, problems
        Of F worlds; state and problems are written over.
    plans : cuts and levels (F, K)
        Of the current job; a first cut of `NO_PLAN` declines.
    jobs : int
        This one included.
    follow : Decider
        Decides every job after the first.
    """
    count = len(problems.epoch)
    outcome = empty_outcome(count, world.chain.shape[1])
    scratch = make_scratch(world, job_for(world, trace))
    handles = Handles(
        world=handle,
        trace=Handle(trace),
        state=Handle(state),
        problems=Handle(problems),
        outcome=Handle(outcome),
        scratch=Handle(scratch),
    )
    over = np.zeros(count, np.bool_)
    terms, unseen = np.zeros((count, len(TERMS) + 1)), np.zeros((0, 0), np.float32)
    for h in range(jobs):
        running = ~over
        if not running.any():
            break
        cuts, levels = plans if h == 0 else follow(world, problems)
        play_worlds(
            handles.world,
            handles.trace,
            handles.state,
            handles.problems,
            True,
            handles.outcome,
            handles.scratch,
            np.flatnonzero(running),
            running,
            cuts,
            levels,
            over,
            terms,
            1,
            unseen,
        )
        describe_worlds(handles.world, handles.trace, handles.state, handles.problems, over, scratch.hops)
        yield np.where(running, outcome.latency_s, 0.0)


class Branches:
    """Futures of one world under several plans, the priced planner following.

    Parameters
    ----------
    world : World
    follow : Constants
        Prices of the planner that decides every job after the first.
    """

    def __init__(self, world: World, follow: Constants) -> None:
        slots, blocks = world.chain.shape[1], len(world.block_flops)
        self.world = world
        self.follow = follow
        self.workspace = make_workspace(slots, blocks, len(world.encode_entries_per_s))
        self._handle = Handle(world)

    def plans(self, costs: Costs, problems: Problems, menu: Sequence[Constants]) -> list[Plan]:
        """Return the exact plan of one problem under each of several prices, without repetitions."""
        batch = Costs._make(np.repeat(np.asarray(field)[None], len(menu), axis=0) for field in costs)
        rows = [prices(constants, self.world, problems) for constants in menu]
        stacked = Prices._make(np.concatenate(fields) for fields in zip(*rows, strict=True))
        found = solve_batch(batch, stacked, self.workspace)
        feasible = np.isfinite(found.objective)
        pairs = zip(found.cuts[feasible].tolist(), found.levels[feasible].tolist(), strict=True)
        return list(dict.fromkeys(Plan(tuple(cuts), tuple(levels)) for cuts, levels in pairs))

    def roll(
        self, trace: Trace, state: State, problems: Problems, plans: Sequence[Plan | None], epochs: int
    ) -> Rolled:
        """Run the current job under each plan, and the jobs of the next ``epochs - 1`` as `follow` decides.

        `trace` (the true one, or one that is imagined), `state` and `problems` are of one world (B = 1); they are
        not changed.
        """
        count = len(plans)
        cuts = np.zeros((count, self.world.chain.shape[1]), np.int64)
        levels = np.zeros_like(cuts)
        for c, plan in enumerate(plans):
            if plan is None:
                cuts[c] = NO_PLAN
            else:
                plan.check(cuts.shape[1], len(self.world.block_flops), len(self.world.encode_entries_per_s))
                cuts[c], levels[c] = plan.arrays()
        each_trace = Trace._make(np.repeat(field, count, axis=0) for field in trace)
        each_state = State._make(np.repeat(field, count, axis=0) for field in state)
        each_problem = Problems._make(np.repeat(field, count, axis=0) for field in problems)
        latency_s = np.zeros((count, epochs))
        after = each_state
        jobs = futures(
            self.world,
            self._handle,
            each_trace,
            each_state,
            each_problem,
            (cuts, levels),
            epochs,
            lambda world, now: plan_priced(self.follow, world, now, self.workspace),
        )
        for h, each_s in enumerate(jobs):
            latency_s[:, h] = each_s
            if h == 0:
                after = copy_arrays(each_state)
        return Rolled(latency_s, after)


def best(rolled: Rolled) -> int:
    """Return the index of the plan with the least summed latency; the first of equals."""
    total = rolled.latency_s.sum(axis=1)
    return int(np.argmax(total <= total.min() * (1 + 1e-9)))


def menu(tuned: Sequence[Constants]) -> tuple[Constants, ...]:
    """Return the prices under which candidate plans are made: the tuned ones first, then others around."""
    others = (
        Constants(horizon=1.0),
        Constants(horizon=32.0),
        Constants(bottleneck=0.25),
        Constants(bottleneck=1.0),
        Constants(bottleneck=4.0),
        Constants(downlink=1.0),
        Constants(bottleneck=1.0, downlink=1.0),
        Constants(energy=1.0),
        Constants(energy=10.0),
        Constants(risk=1.0),
    )
    return tuple(dict.fromkeys((*tuned, *others)))
