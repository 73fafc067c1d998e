"""What an agent sees: the PlanningProblem as one flat dictionary of bounded float32 vectors.

Scaling is linear, inside the environment, so that a policy file alone suffices; all is in fixed units but the rates of
hops, which are shares of the best hop's of the moment.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import gymnasium
import numpy as np
from numpy.typing import NDArray

from sat_env.handles import Handle
from sat_env.kernels import kernel, part, small
from sat_env.problem import Problems, empty_hops
from sat_env.world import World

LATENCY_SCALE_S = 0.25  # a route of more delay than this reads 1


@dataclass(frozen=True)
class Entry:
    """One named vector of the observation, within [0, 1]."""

    name: str
    size: int
    meaning: str


@functools.lru_cache
def layout(slots: int) -> tuple[Entry, ...]:
    """Return the entries of a chain of K slots, in the order of the flat vector.

    Hops are the pairs i < j of slots and ground, row by row: (1,2), (1,3), ..., (1,ground), (2,3), ...
    """
    hops = slots * (slots + 1) // 2
    return (
        Entry("slot_speed", slots + 1, "FLOP/s of slot or ground, relative to the fastest"),
        Entry("slot_busy", slots + 1, "expected time until it is free, relative to the deadline"),
        Entry("slot_reboot", slots, "time left of a reboot, relative to a whole one"),
        Entry("slot_charge", slots, "state of charge"),
        Entry("slot_light", slots, "share of the panel's power this epoch"),
        Entry("slot_light_ahead", slots, "mean share over the forecast"),
        Entry("slot_resident_from", slots, "first block in memory, relative to the number of blocks"),
        Entry("slot_resident_to", slots, "one past the last block in memory, likewise"),
        Entry("hop_rate", hops, "rate of the route a transfer would take now, relative to the best hop"),
        Entry("hop_latency", hops, f"propagation delay, relative to {LATENCY_SCALE_S} s"),
        Entry("hop_wait", hops, "expected time until the hop carries bits, relative to the deadline"),
        Entry("hop_down", hops, "1: the primary route is down"),
        Entry("hop_age", hops, "time in that state, relative to ten deadlines"),
        Entry("hop_backup", hops, "rate of the backup route, relative to the best hop; 0: none"),
        Entry("job", 2, "size relative to twice the mean, content complexity relative to 4 times the mean"),
        Entry("recent_jobs", 3, "sizes of the jobs before, newest first, likewise"),
        Entry("previous_cuts", slots, "cuts of the plan before, relative to the number of blocks"),
        Entry("previous_levels", slots, "levels of the plan before, relative to the strongest"),
        Entry("chain_change", 1, "epochs until the chain changes, relative to the forecast"),
    )


def observation_space(slots: int) -> gymnasium.spaces.Dict:
    """Return the Dict space: every entry a Box in [0, 1], float32, 1-D."""
    # As pairs, which Gymnasium does not sort: `FlattenObservation` then gives the flat vector.
    return gymnasium.spaces.Dict(
        [(entry.name, gymnasium.spaces.Box(0.0, 1.0, (entry.size,), np.float32)) for entry in layout(slots)]
    )


@functools.lru_cache
def places(slots: int) -> tuple[tuple[str, slice], ...]:
    """Return where each entry lies in the flat vector."""
    ends = np.cumsum([entry.size for entry in layout(slots)]).tolist()
    return tuple(
        (entry.name, slice(end - entry.size, end)) for entry, end in zip(layout(slots), ends, strict=True)
    )


def vector_size(slots: int) -> int:
    """Return D, the length of the flat vector."""
    return int(places(slots)[-1][1].stop)


def split(flat: NDArray[np.float32], slots: int) -> dict[str, NDArray[np.float32]]:
    """Return the named views of a flat vector (..., D)."""
    return {name: flat[..., place] for name, place in places(slots)}


def encode(world: World, problems: Problems, forecast_epochs: int) -> NDArray[np.float32]:
    """Return the flat observations (B, D) of a batch of problems, freshly allocated."""
    worlds, slots = problems.rate_bps.shape[:2]
    flat = np.empty((worlds, vector_size(slots)), np.float32)
    encode_rows(Handle(world), Handle(problems), Handle(empty_hops(slots, 0)), forecast_epochs, flat)
    return flat


@small
def _unit(value):  # type: ignore[no-untyped-def]
    return min(max(value, 0.0), 1.0)


@part
def encode_row(world, problems, row, hops, forecast_epochs, out):  # type: ignore[no-untyped-def]
    """Write the observation of row `row` of a batch of problems into ``out`` (D,), in the order of `layout`.

    `hops` (see `problem.Hops`) is work space.
    """
    slots = problems.rate_bps.shape[1]
    p = 0
    for i in range(slots):
        for j in range(i + 1, slots + 1):
            hops.rate_bps[p] = problems.rate_bps[row, i, j]
            hops.latency_s[p] = problems.latency_s[row, i, j]
            hops.release_s[p] = problems.release_s[row, i, j]
            hops.primary_up[p] = problems.primary_up[row, i, j]
            hops.state_age_s[p] = problems.state_age_s[row, i, j]
            hops.backup_bps[p] = problems.backup_bps[row, i, j]
            p += 1
    encode_slots(world, problems, row, forecast_epochs, out)
    encode_hops(world, hops, out)


@part
def encode_slots(world, problems, row, forecast_epochs, out):  # type: ignore[no-untyped-def]
    """Write the entries of slots, job and plan before."""
    slots = problems.rate_bps.shape[1]
    blocks = world.block_flops.shape[0]
    levels = world.encode_entries_per_s.shape[0]
    modes = world.power.mode_flops_per_s
    per_block, per_level = 1.0 / blocks, 1.0 / max(levels - 1, 1)
    per_fastest = 1.0 / max(world.ground_flops_per_s, modes[modes.shape[0] - 1])
    per_reboot, per_deadline = 1.0 / max(world.reboot_s, 1e-9), 1.0 / world.deadline_s
    per_job = 0.5 / world.items_mean
    flops_per_s, busy_s, left_s = problems.flops_per_s[row], problems.busy_s[row], problems.reboot_s[row]
    charge, light, light_ahead = problems.charge[row], problems.light[row], problems.light_ahead[row]
    resident = problems.resident[row]
    for k in range(slots + 1):
        out[k] = _unit(flops_per_s[k] * per_fastest)
        out[slots + 1 + k] = _unit(busy_s[k] * per_deadline)
    at = 2 * (slots + 1)
    for k in range(slots):
        out[at + k] = _unit(left_s[k] * per_reboot)
        out[at + slots + k] = _unit(charge[k])
        out[at + 2 * slots + k] = _unit(light[k])
        out[at + 3 * slots + k] = _unit(light_ahead[k])
        out[at + 4 * slots + k] = resident[k, 0] * per_block
        out[at + 5 * slots + k] = resident[k, 1] * per_block
    at += 6 * slots + 6 * (slots * (slots + 1) // 2)
    out[at] = _unit(problems.items[row] * per_job)
    out[at + 1] = _unit(problems.content[row] / 4.0)
    for i in range(3):
        out[at + 2 + i] = _unit(problems.recent_items[row, i] * per_job)
    at += 5
    for k in range(slots):
        out[at + k] = problems.previous_cuts[row, k] * per_block
        out[at + slots + k] = problems.previous_levels[row, k] * per_level
    at += 2 * slots
    out[at] = _unit(problems.epochs_to_change[row] / forecast_epochs)


@part
def encode_hops(world, hops, out):  # type: ignore[no-untyped-def]
    """Write the entries of hops; plain loops, which vectorise."""
    slots = world.chain.shape[1]
    per_deadline = 1.0 / world.deadline_s
    rate_bps, latency_s, release_s = hops.rate_bps, hops.latency_s, hops.release_s
    primary_up, state_age_s, backup_bps = hops.primary_up, hops.state_age_s, hops.backup_bps
    count = rate_bps.shape[0]
    best = 1.0
    for p in range(count):
        best = max(best, rate_bps[p], backup_bps[p])
    per_best = 1.0 / best
    at = 2 * (slots + 1) + 6 * slots
    for p in range(count):
        out[at + p] = _unit(rate_bps[p] * per_best)
    at += count
    for p in range(count):
        out[at + p] = _unit(latency_s[p] / LATENCY_SCALE_S)
    at += count
    for p in range(count):
        out[at + p] = _unit(release_s[p] * per_deadline)
    at += count
    for p in range(count):
        out[at + p] = 1.0 - primary_up[p]
    at += count
    for p in range(count):
        out[at + p] = _unit(state_age_s[p] * per_deadline * 0.1)
    at += count
    for p in range(count):
        out[at + p] = _unit(backup_bps[p] * per_best)


@kernel
def encode_rows(world, problems, hops, forecast_epochs, flat):  # type: ignore[no-untyped-def]
    """Write the observations of a batch of problems into ``flat`` (B, D)."""
    for b in range(flat.shape[0]):
        encode_row(world, problems, b, hops, forecast_epochs, flat[b])
