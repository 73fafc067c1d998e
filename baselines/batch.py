"""Schedules over many worlds at once: what tuning and the studies run on, the same plans as the policies.

A **decider** maps the problems of B worlds to B plans; `play` lets one decide every job of many episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from baselines.priced import Constants, longest_s, prices
from sat_env.evaluation.runner import Episode
from sat_env.planning import Workspace, make_workspace, solve_batch
from sat_env.problem import Problems, tabulate
from sat_env.simulator import NO_PLAN, Simulator, Split
from sat_env.world import Prepared, World

Ints = NDArray[np.int64]
Array = NDArray[np.float64]
Plans = tuple[Ints, Ints]  # cuts and levels, both (B, K)
Decider = Callable[[World, Problems], Plans]


class Played(NamedTuple):
    """What B episodes of T jobs cost."""

    latency_s: Array  # (B, T) a failed job counts as its deadline
    dropped: Array  # (B, T) 1: missed its deadline, or infeasible

    @property
    def j_s(self) -> Array:
        """J of each episode, (B,)."""
        mean: Array = self.latency_s.mean(axis=1)
        return mean

    @property
    def drop_share(self) -> Array:
        """Share of jobs dropped in each episode, (B,)."""
        share: Array = self.dropped.mean(axis=1)
        return share


def play(prepared: Prepared, episodes: Sequence[Episode], split: Split, decide: Decider) -> Played:
    """Play the episodes side by side, every job under the plan of `decide`."""
    simulator = Simulator(prepared, len(episodes), split)
    simulator.begin(
        seeds=np.array([episode.seed for episode in episodes], np.uint64),
        windows=np.array([episode.window for episode in episodes], np.int64),
    )
    jobs = prepared.scenario.episode_epochs
    played = Played(np.empty((len(episodes), jobs)), np.empty((len(episodes), jobs)))
    for t in range(jobs):
        simulator.step(*decide(simulator.world, simulator.problems))
        outcome = simulator.outcome
        played.latency_s[:, t] = outcome.latency_s
        played.dropped[:, t] = np.maximum(outcome.dropped, outcome.infeasible)
    return played


def priced_plans(constants: Constants, prepared: Prepared) -> Decider:
    """Return the decider of exact A* under prices; it declines what is infeasible or hopeless."""
    world = prepared.world
    workspace = make_workspace(world.chain.shape[1], len(world.block_flops), len(prepared.levels))
    return lambda world, problems: plan_priced(constants, world, problems, workspace)


def plan_priced(constants: Constants, world: World, problems: Problems, workspace: Workspace) -> Plans:
    """Return the plans of B problems under prices; a declined job has `NO_PLAN` as its first cut."""
    found = solve_batch(tabulate(world, problems), prices(constants, world, problems), workspace)
    found.cuts[~(found.makespan_s <= longest_s(constants, world)), 0] = NO_PLAN
    return found.cuts, found.levels


def fixed_plans(cuts: Sequence[int], levels: Sequence[int]) -> Decider:
    """Return the decider that gives every job the same plan, repaired where it must."""

    def decide(world: World, problems: Problems) -> Plans:
        worlds = len(problems.epoch)
        return np.tile(np.asarray(cuts, np.int64), (worlds, 1)), np.tile(
            np.asarray(levels, np.int64), (worlds, 1)
        )

    return decide
