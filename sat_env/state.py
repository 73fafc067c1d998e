"""What a world remembers between decisions, and what came of its last job."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sat_env.world import World

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


class State(NamedTuple):
    """What a world remembers. V satellites and W links of its window; H epochs a job may span."""

    start: Ints  # (B,) first epoch of the episode in the contact plan
    epoch: Ints  # (B,) current epoch in the contact plan
    battery_j: Array  # (B, V)
    battery_epoch: Ints  # (B, V) the battery is advanced up to the start of this epoch
    draw_j: Array  # (B, V, H) energy jobs draw, by epoch modulo H
    resident: Ints  # (B, V, 2) blocks first..last+1 in memory
    busy_s: Array  # (B, V) when the satellite is free
    expected_busy_s: Array  # (B, V) when it was expected to be, at the decisions so far
    resets_known_s: Array  # (B, V) resets up to here have had their effect
    first_fault_s: Array  # (B,) before, no satellite of the window resets or is lost
    link_up_s: Array  # (B, W) end of the last outage that has begun; above now: the link is down
    link_next_s: Array  # (B, W) start of the next outage; once it is past, both are looked up again
    link_busy_s: Array  # (B, W)
    expected_link_busy_s: Array  # (B, W)
    links_free_s: Array  # (B,) when the last of the links is free
    ground_busy_s: Array  # (B,)
    expected_ground_busy_s: Array  # (B,)
    slots_free_s: Array  # (B,) when the last of the satellites and the ground is free
    energy_j: Array  # (B, 4) ledger since reset: stored in batteries, spilled, unserved, drawn by jobs
    previous_cuts: Ints  # (B, K) the plan before, as executed
    previous_levels: Ints  # (B, K)


class Outcome(NamedTuple):
    """What came of the last job of each world."""

    latency_s: Array  # (B,) the deadline for a failed job
    failed: Array  # (B,) 1: dropped, infeasible or above the accuracy limit
    dropped: Array  # (B,) 1: missed its deadline
    infeasible: Array  # (B,) 1: no repair made it fit
    repaired: Array  # (B,) 1: the plan was changed to fit
    accuracy_drop: Array  # (B,) fraction
    bytes: Array  # (B,) put on all links, retransmissions included
    energy_j: Array  # (B,) drawn by the job
    reload_bytes: Array  # (B,)
    hop_bits: Array  # (B, K) put on the hop that leaves each slot
    slot_j: Array  # (B, K) drawn by the job on each slot: loading, computing, sending


def empty_state(world: World, worlds: int) -> State:
    """Return the state arrays of B worlds, to be filled by `begin_world`."""
    nodes, links = world.window_nodes.shape[1], world.window_links.shape[1]
    slots, span = world.chain.shape[1], world.route_rate_bps.shape[1]

    def zeros(*shape: int) -> Array:
        return np.zeros((worlds, *shape))

    def ints(*shape: int) -> Ints:
        return np.zeros((worlds, *shape), np.int64)

    return State(
        start=ints(),
        epoch=ints(),
        battery_j=zeros(nodes),
        battery_epoch=ints(nodes),
        draw_j=zeros(nodes, span),
        resident=ints(nodes, 2),
        busy_s=zeros(nodes),
        expected_busy_s=zeros(nodes),
        resets_known_s=zeros(nodes),
        first_fault_s=zeros(),
        link_up_s=zeros(links),
        link_next_s=zeros(links),
        link_busy_s=zeros(links),
        expected_link_busy_s=zeros(links),
        links_free_s=zeros(),
        ground_busy_s=zeros(),
        expected_ground_busy_s=zeros(),
        slots_free_s=zeros(),
        energy_j=zeros(4),
        previous_cuts=ints(slots),
        previous_levels=ints(slots),
    )


def empty_outcome(worlds: int, slots: int) -> Outcome:
    """Return outcome arrays of B worlds."""
    fields = {name: np.zeros(worlds) for name in Outcome._fields}
    fields["hop_bits"] = np.zeros((worlds, slots))
    fields["slot_j"] = np.zeros((worlds, slots))
    return Outcome(**fields)
