"""What-if: several plans of one decision, each followed by the same rule for some epochs, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from baselines.batch import Plans, plan_priced
from baselines.priced import Constants, prices
from sat_env.handles import Handle
from sat_env.knowledge import describe_worlds
from sat_env.plan import Plan
from sat_env.planning import make_workspace, solve_batch
from sat_env.planning.costs import Costs, Prices
from sat_env.problem import Problems, empty_problems
from sat_env.reward import TERMS
from sat_env.simulator import NO_PLAN, Handles, copy_arrays, job_for, make_scratch, play_worlds
from sat_env.state import State, empty_outcome, empty_state
from sat_env.trace import Trace
from sat_env.world import World

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


class Rolled(NamedTuple):
    """What came of C branches."""

    latency_s: Array  # (C, H) of each job, 0 past the end of the episode
    after: State  # C worlds one epoch on: their job is run, nothing follows yet


class Branches:
    """Up to C futures of one world: one state and one trace to start from, C plans, then the priced planner.

    Parameters
    ----------
    world : World
    trace : Trace
        Of one world (B = 1): the true one, or one that is imagined.
    branches : int
        C.
    follow : Constants
        Prices of the planner that decides every job after the first.
    """

    def __init__(self, world: World, trace: Trace, branches: int, follow: Constants) -> None:
        slots, blocks = world.chain.shape[1], len(world.block_flops)
        self.world = world
        self.follow = follow
        self.trace = Trace._make(np.repeat(field, branches, axis=0) for field in trace)
        self.state = empty_state(world, branches)
        self.problems = empty_problems(branches, slots)
        self.outcome = empty_outcome(branches, slots)
        self.job = job_for(world, self.trace)
        self.scratch = make_scratch(world, self.job)
        self._terms = np.zeros((branches, len(TERMS) + 1))
        self._unseen = np.zeros((0, 0), np.float32)
        self.workspace = make_workspace(slots, blocks, len(world.encode_entries_per_s))
        self.handles = Handles(
            world=Handle(self.world),
            trace=Handle(self.trace),
            state=Handle(self.state),
            problems=Handle(self.problems),
            outcome=Handle(self.outcome),
            scratch=Handle(self.scratch),
        )

    def set_trace(self, trace: Trace) -> None:
        """Give all branches another future, of the same shape."""
        for mine, other in zip(self.trace, trace, strict=True):
            mine[...] = other

    def plans(self, costs: Costs, problems: Problems, menu: Sequence[Constants]) -> list[Plan]:
        """Return the exact plan of one problem under each of several prices, without repetitions."""
        batch = Costs._make(np.repeat(np.asarray(field)[None], len(menu), axis=0) for field in costs)
        rows = [prices(constants, self.world, problems) for constants in menu]
        stacked = Prices._make(np.concatenate(fields) for fields in zip(*rows, strict=True))
        found = solve_batch(batch, stacked, self.workspace)
        feasible = np.isfinite(found.objective)
        pairs = zip(found.cuts[feasible].tolist(), found.levels[feasible].tolist(), strict=True)
        return list(dict.fromkeys(Plan(tuple(cuts), tuple(levels)) for cuts, levels in pairs))

    def roll(self, state: State, problems: Problems, plans: Sequence[Plan | None], epochs: int) -> Rolled:
        """Run the current job under each plan, and the jobs of the next ``epochs - 1`` as `follow` decides.

        `state` and `problems` are of one world (B = 1); they are not changed.
        """
        count = len(plans)
        for mine, now in zip((*self.state, *self.problems), (*state, *problems), strict=True):
            mine[:count] = now
        over = np.ones(len(self.state.epoch), np.bool_)
        over[:count] = False
        cuts = np.zeros((len(over), self.world.chain.shape[1]), np.int64)
        levels = np.zeros_like(cuts)
        for c, plan in enumerate(plans):
            if plan is None:
                cuts[c] = NO_PLAN
            else:
                plan.check(cuts.shape[1], len(self.world.block_flops), len(self.world.encode_entries_per_s))
                cuts[c], levels[c] = plan.arrays()
        latency_s = np.zeros((count, epochs))
        after = self.state
        for h in range(epochs):
            if h > 0:
                cuts[:count], levels[:count] = self._follow(count)
            running = ~over[:count]
            self._step(cuts, levels, over)
            latency_s[running, h] = self.outcome.latency_s[:count][running]
            if h == 0:
                after = copy_arrays(self.state)
            if over.all():
                break
        return Rolled(latency_s, after)

    def _step(self, cuts: Ints, levels: Ints, over: NDArray[np.bool_]) -> None:
        """Take one step of every branch that is not over, and describe what follows."""
        handles = self.handles
        play_worlds(
            handles.world,
            handles.trace,
            handles.state,
            handles.problems,
            True,
            handles.outcome,
            handles.scratch,
            np.flatnonzero(~over),
            ~over,
            cuts,
            levels,
            over,
            self._terms,
            1,
            self._unseen,
        )
        describe_worlds(
            handles.world, handles.trace, handles.state, handles.problems, over, self.scratch.hops
        )

    def _follow(self, count: int) -> Plans:
        now = Problems._make(field[:count] for field in self.problems)
        return plan_priced(self.follow, self.world, now, self.workspace)


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
