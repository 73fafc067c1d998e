"""Look-ahead: candidate plans tried on the forecast, this job and the next ones, before one is chosen.

Every epoch the exact plans under a menu of prices, the plan before, the best static one and declining the
job are simulated through this job and the next ``epochs - 1``, later jobs under the priced planner. What
orbits determine (chain, contacts, light) is as it will be. Of everything random only what is known now is
used: outages under way last as long as outages of their age do on average, no other fault happens, the burst
decays to the mean, content and weather are average. Reloads, backlog, batteries and coming chain changes are
thereby accounted for; luck is not. What became of satellites that left the chain is remembered from this
policy's own plans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from baselines.branches import Branches, best, menu
from baselines.priced import Constants
from sat_env.knowledge import residual_outage_s
from sat_env.plan import Plan
from sat_env.policy import PolicySpec
from sat_env.problem import PlanningProblem, Problems
from sat_env.state import State, empty_state
from sat_env.trace import Trace
from sat_env.world import World


class LookAhead:
    """See the module.

    Parameters
    ----------
    tuned : sequence of Constants
        Prices the candidates are made under, the first also for the jobs that follow.
    also : sequence of Plan
        Further candidates of every epoch; one that is no plan of the problem (another model's) is left out.
    epochs : int
        How many jobs are simulated, this one included; at most what the problem forecasts is used.
    """

    def __init__(self, name: str, tuned: Sequence[Constants], also: Sequence[Plan] = (), epochs: int = 8):
        if epochs < 1:
            raise ValueError(f"epochs = {epochs}: must be at least 1")
        self.name = name
        self.epochs = epochs
        self._menu = menu(tuned)
        self._also = tuple(also)
        self._suited: tuple[Plan, ...] = ()
        self._branches: Branches | None = None
        self._state: State | None = None

    def reset(self, spec: PolicySpec, seed: int) -> None:
        """Forget the episode before."""
        self._state = None
        self._branches = None

    def act(self, problem: PlanningProblem) -> Plan | None:
        """Return the candidate with the least mean latency on the forecast."""
        world, now = problem.world, problem.problems
        assert world is not None and now is not None, "look-ahead needs the orbits behind a problem"
        if self._state is None:
            self._state = unseen_state(world, now)
        know(world, now, self._state)
        trace = imagined_trace(world, now)
        if self._branches is None:
            self._suited = tuple(plan for plan in self._also if _suits(plan, problem))
            count = len(self._menu) + len(self._also) + 2
            self._branches = Branches(world, trace, count, self._menu[0])
        self._branches.set_trace(trace)
        plans = self._branches.plans(problem.costs, now, self._menu)
        previous = Plan(tuple(now.previous_cuts[0].tolist()), tuple(now.previous_levels[0].tolist()))
        candidates: list[Plan | None] = list(dict.fromkeys((*plans, previous, *self._suited, None)))
        rolled = self._branches.roll(self._state, now, candidates, min(self.epochs, problem.forecast_epochs))
        chosen = best(rolled)
        self._state = State._make(field[chosen : chosen + 1].copy() for field in rolled.after)
        return candidates[chosen]


def _suits(plan: Plan, problem: PlanningProblem) -> bool:
    try:
        plan.check(problem.slots, problem.blocks, problem.levels)
    except ValueError:
        return False
    return True


def unseen_state(world: World, now: Problems) -> State:
    """Return what is expected of satellites that were not seen yet: the mean charge, empty memories."""
    state = empty_state(world, 1)
    state.start[:] = now.epoch - (world.episode_epochs - now.epochs_left)
    state.battery_j[:] = 0.5 * (world.power.initial_low + world.power.initial_high) * world.power.capacity_j
    state.battery_epoch[:] = state.start[:, None]
    return state


def know(world: World, now: Problems, state: State) -> None:
    """Write what a problem tells of the chain's satellites and links over what was expected of them."""
    epoch = int(now.epoch[0])
    now_s = (epoch - int(state.start[0])) * world.epoch_s
    state.epoch[:] = epoch
    chain, slots = world.chain[epoch], world.chain.shape[1]
    state.battery_j[0, chain] = now.charge[0, :slots] * world.power.capacity_j
    state.battery_epoch[0, chain] = epoch
    state.resident[0, chain] = now.resident[0, :slots]
    state.busy_s[0, chain] = now_s + np.maximum(now.busy_s[0, :slots], now.reboot_s[0, :slots])
    state.ground_busy_s[:] = now_s + now.busy_s[0, slots]
    state.link_next_s[:] = now_s
    state.link_busy_s[:] = 0.0
    for link, wait_s in _by_link(world, now, _backlog_s(world, now)).items():
        state.link_busy_s[0, link] = now_s + wait_s
    state.slots_free_s[:] = max(state.busy_s.max(), state.ground_busy_s.max())
    state.expected_busy_s[:] = state.busy_s
    state.expected_ground_busy_s[:] = state.ground_busy_s
    state.expected_link_busy_s[:] = state.link_busy_s
    state.links_free_s[:] = state.link_busy_s.max()


def imagined_trace(world: World, now: Problems) -> Trace:
    """Return the future without faults beyond those under way (B = 1)."""
    epoch, t = int(now.epoch[0]), world.episode_epochs - int(now.epochs_left[0])
    now_s = t * world.epoch_s
    nodes, links = world.window_nodes.shape[1], world.window_links.shape[1]
    span = world.route_rate_bps.shape[1]
    slots = world.chain.shape[1]
    stations = int(world.route_station.max()) + 1
    trace = Trace(
        window=np.array([epoch // world.episode_epochs]),
        link_down_s=np.full((1, links, 1, 2), np.inf),
        reset_s=np.full((1, nodes, 1), np.inf),
        lost_s=np.full((1, nodes), np.inf),
        items=np.full((1, world.episode_epochs), world.items_mean),
        content=np.ones((1, world.episode_epochs)),
        downlink_factor=np.ones((1, world.episode_epochs + span, max(1, stations))),
        rain_db=np.zeros((1, world.episode_epochs + span, max(1, stations))),
        charge=np.ones((1, nodes)),
    )
    ahead = np.arange(world.episode_epochs - t)
    burst = now.items[0] - world.items_mean  # a random telegraph signal forgets at twice its rate of change
    trace.items[0, t:] += burst * np.exp(-2.0 * ahead * world.epoch_s / world.law.burst_mean_s)
    trace.content[0, t] = now.content[0]
    for i in range(slots):  # the weather now, as far as a route of this epoch shows it
        station, clear_bps = (
            world.route_station[epoch, 0, i, slots],
            world.route_rate_bps[epoch, 0, 0, i, slots],
        )
        if station >= 0 and clear_bps > 0 and now.primary_up[0, i, slots] > 0:
            trace.downlink_factor[0, t, station] = now.rate_bps[0, i, slots] / clear_bps
    for link, left_s in _by_link(world, now, _outage_s(world, now)).items():
        if left_s > 0.0:
            trace.link_down_s[0, link, 0] = (now_s, now_s + left_s)
    lost = (now.memory_free_bytes[0, :slots] <= 0.0) & (now.charge[0, :slots] > 0.0)
    if world.power.enabled:
        lost &= now.charge[0, :slots] >= world.power.mode_min_charge[0]
    lost &= (np.arange(slots) > 0) | world.sensing_computes
    trace.lost_s[0, world.chain[epoch][lost]] = now_s
    return trace


def _outage_s(world: World, now: Problems) -> np.ndarray:
    """Return (K, K+1) the mean time the outage of each primary route still lasts; 0 where it is up."""
    law = world.outages
    left = np.zeros(now.primary_up.shape[1:])
    for i, j in zip(*np.nonzero(now.primary_up[0] == 0.0), strict=True):
        left[i, j] = residual_outage_s(law.residual_s, law.residual_step_s, now.state_age_s[0, i, j])
    return left


def _backlog_s(world: World, now: Problems) -> np.ndarray:
    """Return (K, K+1) how long each primary route is busy with earlier jobs; 0 where an outage says it all."""
    return np.where(now.primary_up[0] > 0.0, now.release_s[0], 0.0)


def _by_link(world: World, now: Problems, route_s: np.ndarray) -> dict[int, float]:
    """Attribute to each link of the primary routes the least of what its routes wait for."""
    epoch = int(now.epoch[0])
    slots = world.chain.shape[1]
    wait: dict[int, float] = {}
    for i in range(slots):
        for j in range(i + 1, slots + 1):
            for link in world.route_links[epoch, 0, i, j].tolist():
                if link < 0:
                    break
                wait[link] = min(wait.get(link, math.inf), float(route_s[i, j]))
    return wait
