"""Worlds as one imagines them who knows their problems only: for everything that looks ahead, one or many at a time.

What orbits determine (chain, contacts, light) is as it will be. Of everything random only what is known now is
used: outages under way last as long as outages of their age do on average, no other fault happens, the burst
decays to the mean, content is average and the sky clear. Of satellites off the chain nothing is known but what is
remembered, or else the mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from baselines.batch import Decider, Plans
from baselines.branches import futures
from sat_env.handles import Handle
from sat_env.knowledge import residual_outage_s
from sat_env.problem import Problems
from sat_env.state import State, empty_state
from sat_env.trace import Trace
from sat_env.world import World

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def unseen_states(world: World, now: Problems) -> State:
    """Return what is expected of N worlds of which nothing was seen yet: the mean charge, empty memories."""
    state = empty_state(world, len(now.epoch))
    state.start[:] = now.epoch - (world.episode_epochs - now.epochs_left)
    state.battery_j[:] = 0.5 * (world.power.initial_low + world.power.initial_high) * world.power.capacity_j
    state.battery_epoch[:] = state.start[:, None]
    return state


def know(world: World, now: Problems, state: State) -> None:
    """Write what N problems tell of the chains' satellites and links over what was expected of them."""
    each = np.arange(len(now.epoch))[:, None]
    now_s = ((now.epoch - state.start) * world.epoch_s)[:, None]
    state.epoch[:] = now.epoch
    chain, slots = world.chain[now.epoch], world.chain.shape[1]
    state.battery_j[each, chain] = now.charge[:, :slots] * world.power.capacity_j
    state.battery_epoch[each, chain] = now.epoch[:, None]
    state.resident[each, chain] = now.resident[:, :slots]
    state.busy_s[each, chain] = now_s + np.maximum(now.busy_s[:, :slots], now.reboot_s[:, :slots])
    state.ground_busy_s[:] = now_s[:, 0] + now.busy_s[:, slots]
    nothing_s = np.full(now.release_s.shape, np.inf)
    backlog_s = np.where(now.primary_up > 0.0, now.release_s, nothing_s)  # what an outage says is no backlog
    state.link_busy_s[:] = now_s + by_link(world, now, backlog_s, nothing_s)
    state.link_next_s[:] = now_s
    state.slots_free_s[:] = np.maximum(state.busy_s.max(axis=1), state.ground_busy_s)
    state.links_free_s[:] = state.link_busy_s.max(axis=1)
    state.expected_busy_s[:] = state.busy_s
    state.expected_ground_busy_s[:] = state.ground_busy_s
    state.expected_link_busy_s[:] = state.link_busy_s
    state.previous_cuts[:] = now.previous_cuts
    state.previous_levels[:] = now.previous_levels


def imagined_traces(world: World, now: Problems) -> Trace:
    """Return the futures of N worlds without faults beyond those under way."""
    n, t = len(now.epoch), world.episode_epochs - now.epochs_left
    each, now_s = np.arange(n), t * world.epoch_s
    nodes, links = world.window_nodes.shape[1], world.window_links.shape[1]
    span, slots = world.route_rate_bps.shape[1], world.chain.shape[1]
    stations = max(1, int(world.route_station.max()) + 1)
    trace = Trace(
        window=now.epoch // world.episode_epochs,
        link_down_s=np.full((n, links, 1, 2), np.inf),
        reset_s=np.full((n, nodes, 1), np.inf),
        lost_s=np.full((n, nodes), np.inf),
        items=np.full((n, world.episode_epochs), world.items_mean),
        content=np.ones((n, world.episode_epochs)),
        downlink_factor=np.ones((n, world.episode_epochs + span, stations)),
        rain_db=np.zeros((n, world.episode_epochs + span, stations)),
        charge=np.ones((n, nodes)),
    )
    for i in range(now.recent_items.shape[1]):
        past = t > i
        trace.items[each[past], t[past] - 1 - i] = now.recent_items[past, i]
    ahead = np.arange(world.episode_epochs) - t[:, None]
    # A random telegraph signal forgets at twice its rate of change.
    decay = np.exp(-2.0 * np.maximum(ahead, 0) * world.epoch_s / world.law.burst_mean_s)
    burst = (now.items - world.items_mean)[:, None]
    trace.items[ahead >= 0] = (world.items_mean + burst * decay)[ahead >= 0]
    trace.content[each, t] = now.content
    # The weather now, as far as a route of this epoch shows it: at least so good, where another link is slower.
    best = np.zeros((n, stations))
    for way, seen_bps in enumerate((np.where(now.primary_up > 0.0, now.rate_bps, 0.0), now.backup_bps)):
        station = world.route_station[now.epoch, way, :, slots]  # (N, K)
        clear_bps = world.downlink_bps[now.epoch, 0, way]
        rows, senders = np.nonzero((station >= 0) & (clear_bps > 0) & (seen_bps[:, :, slots] > 0))
        share = seen_bps[rows, senders, slots] / clear_bps[rows, senders]
        np.maximum.at(best, (rows, station[rows, senders]), share)
    trace.downlink_factor[each, t] = np.where(best > 0.0, best, 1.0)
    # A link is down no longer than the route on it that went down last; on a route or a backup that is up it is up.
    known_up_s = np.where(now.backup_bps > 0.0, 0.0, np.inf)
    left_s = by_link(world, now, outages_left_s(world, now), known_up_s)
    age_s = by_link(world, now, np.where(now.primary_up > 0.0, 0.0, now.state_age_s), known_up_s)
    down = left_s > 0.0
    trace.link_down_s[down, 0, 0] = (now_s[:, None] - age_s)[down]
    trace.link_down_s[down, 0, 1] = (now_s[:, None] + left_s)[down]
    lost = (now.memory_free_bytes[:, :slots] <= 0.0) & (now.charge[:, :slots] > 0.0)
    if world.power.enabled:
        lost &= now.charge[:, :slots] >= world.power.mode_min_charge[0]
    lost &= (np.arange(slots) > 0) | world.sensing_computes
    rows, places = np.nonzero(lost)
    trace.lost_s[rows, world.chain[now.epoch][rows, places]] = now_s[rows]
    return trace


def outages_left_s(world: World, now: Problems) -> Array:
    """Return (N, K, K+1) the mean time the outage of each primary route still lasts; 0 where it is up."""
    table, step_s = world.outages.residual_s, world.outages.residual_step_s
    down = now.primary_up == 0.0
    left_s = np.zeros(down.shape)
    left_s[down] = [residual_outage_s(table, step_s, age_s) for age_s in now.state_age_s[down]]
    return left_s


def by_link(world: World, now: Problems, primary_s: Array, backup_s: Array) -> Array:
    """Attribute to each link (N, W) the least of what is told of the routes over it.

    Parameters
    ----------
    world : World
    now : Problems
        Of N worlds.
    primary_s, backup_s : (N, K, K+1) float64
        Told of each primary route and of each backup; infinite: nothing.

    Returns
    -------
    (N, W) float64
        Of every link of the window; 0 where nothing is told.
    """
    n, slots = primary_s.shape[:2]
    links = world.window_links.shape[1]
    least_s = np.full((n, links + 1), np.inf)  # the last for the padding of routes
    first, last = np.triu_indices(slots, 1, slots + 1)
    for way, told_s in enumerate((primary_s, backup_s)):
        on_way = world.route_links[now.epoch, way][:, first, last].astype(np.int64)  # (N, P, X) -1 padded
        each = np.arange(n)[:, None, None]
        np.minimum.at(least_s, (each, on_way), told_s[:, first, last][:, :, None])
    found = least_s[:, :links]
    return np.where(np.isfinite(found), found, 0.0)


class Imagination:
    """Plans tried in imagined worlds; see the module.

    Parameters
    ----------
    world : World
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._handle = Handle(world)

    def latencies_s(self, now: Problems, rows: Ints, plans: Plans, jobs: int, follow: Decider) -> Array:
        """Return (F, jobs) what the current job and those that follow take; 0 past the end of an episode.

        Parameters
        ----------
        now : Problems
            Of N worlds; not changed.
        rows : (F,) int64
            In which of them each plan is tried.
        plans : cuts and levels (F, K)
            A first cut of `NO_PLAN` declines.
        jobs : int
            This one included.
        follow : Decider
            Decides every job after the first.
        """
        world, latency_s = self.world, np.zeros((len(rows), jobs))
        states = unseen_states(world, now)
        know(world, now, states)
        state = State._make(field[rows] for field in states)
        trace = Trace._make(field[rows] for field in imagined_traces(world, now))
        problems = Problems._make(field[rows] for field in now)
        told = futures(world, self._handle, trace, state, problems, plans, jobs, follow)
        for h, each_s in enumerate(told):
            latency_s[:, h] = each_s
        return latency_s
