"""A plan: where the model is cut, and how what leaves each slot is encoded. And its repair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sat_env.kernels import kernel, part
from sat_env.planning.costs import GROUND_ALL_OR_NONE, GROUND_ANY, checked_plan

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """Cut points and compression levels of one job.

    Attributes
    ----------
    cuts : tuple of K int
        Non-decreasing block indices in 0..L: slot i holds blocks ``cuts[i-1]..cuts[i]``, the ground the rest.
    levels : tuple of K int
        Level of what each satellite slot sends; ignored for an empty slot, raw input and the result.
    """

    cuts: tuple[int, ...]
    levels: tuple[int, ...]

    def check(self, slots: int, blocks: int, levels: int) -> None:
        """Refuse a plan that is not one of a chain of `slots`, a model of `blocks`, a menu of `levels`."""
        checked_plan(self.cuts, self.levels, slots, blocks, levels)

    def arrays(self) -> tuple[Ints, Ints]:
        """Return (cuts, levels) as int64 arrays (K,)."""
        return np.array(self.cuts, np.int64), np.array(self.levels, np.int64)


@part
def fit(cuts, memory_bytes, memory_free_bytes, ground_hosts):  # type: ignore[no-untyped-def]
    """Make a plan fit the memories, in place: blocks spill to the next slot with room, then backward.

    A plan that fits is kept. One that does not is moved as little as its blocks need, and always to a plan
    that fits if there is one, with one exception: under GROUND_ALL_OR_NONE a plan for the ground is not
    moved to the satellites, nor the reverse.

    Parameters
    ----------
    cuts : (K,) int64
        Non-decreasing, in 0..L.
    memory_bytes : (L,)
        What each block occupies.
    memory_free_bytes : (K+1,)
        Room of each slot and the ground.
    ground_hosts : int
        GROUND_NONE, GROUND_ALL_OR_NONE or GROUND_ANY.

    Returns
    -------
    feasible : bool
        False: the model does not fit this way; `cuts` is then meaningless and the job is dropped.
    changed : bool
    """
    slots = cuts.shape[0]
    blocks = memory_bytes.shape[0]
    changed = False
    if ground_hosts == GROUND_ALL_OR_NONE and cuts[slots - 1] == 0:
        needed = 0.0
        for block in range(blocks):
            needed += memory_bytes[block]
        return needed <= memory_free_bytes[slots], False
    begin = 0
    for k in range(slots):
        room = memory_free_bytes[k]
        end = begin
        while end < cuts[k] and memory_bytes[end] <= room:
            room -= memory_bytes[end]
            end += 1
        if end != cuts[k]:
            changed = True
            cuts[k] = end
        begin = end
    if ground_hosts == GROUND_ANY:
        # Only the tail may stay on the ground, and only as much as fits; the rest goes back to satellites.
        room = memory_free_bytes[slots]
        tail = blocks
        while tail > begin and memory_bytes[tail - 1] <= room:
            tail -= 1
            room -= memory_bytes[tail]
    else:
        tail = blocks
    if tail == begin:
        return True, changed
    changed = True
    end = tail
    for k in range(slots - 1, -1, -1):
        start = cuts[k - 1] if k > 0 else 0
        room = memory_free_bytes[k]
        begin = end
        while begin > start and memory_bytes[begin - 1] <= room:
            begin -= 1
            room -= memory_bytes[begin]
        cuts[k] = end
        end = begin
        if k > 0 and end <= cuts[k - 1]:
            return True, changed
    return end == 0, changed


repair = kernel(fit.py_func)
"""The same, called from Python."""
