"""What the slot transformer sees and does: the environment's observation in units of time, beside a planner's plan.

The environment scales by what a scenario fixes, so that one number means another time under another model. Here
every slot also says how long the job would take on it and how much of the model it holds, every hop how long the
job's activations and its tokens' round trips would take over it: as shares of the deadline, on a logarithmic scale
that another model moves along instead of leaving. The tuned planner's plan is shown in the units of the action:
the network's action is that plan plus what it learned to change of it, nothing at first (but an empty slot still
weighs a little, which of a model cut into 48 may round to a block).
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.interface import Encoded, Flat, Ints
from agents.planner import Array, BatchPlanner
from baselines.priced import Constants
from sat_env import observation
from sat_env.encodings import SHARE_SHARPNESS
from sat_env.observation import Entry
from sat_env.problem import Problems
from sat_env.simulator import NO_PLAN
from sat_env.world import World

DECADES = 4.0  # of the logarithmic scale: 0 is a hundredth of a deadline, 1 a hundred deadlines


@functools.lru_cache
def layout(slots: int) -> tuple[Entry, ...]:
    """Return what is added to the environment's observation of a chain of K slots, in order."""
    hops = slots * (slots + 1) // 2
    scale = "relative to the deadline, logarithm"
    return (
        Entry("slot_job", slots + 1, f"seconds of the whole job on it, {scale}"),
        Entry("slot_room", slots + 1, "share of the model it can hold"),
        Entry("slot_load", slots, f"seconds to load the whole model, {scale}"),
        Entry("slot_share", slots + 1, "the planner's share of blocks, as an action"),
        Entry("slot_level", slots, "the planner's level, as an action"),
        Entry("hop_job", hops, f"seconds to send the job's activations uncompressed, {scale}"),
        Entry("hop_loop", hops, f"seconds of its tokens' propagation delays, {scale}"),
    )


@functools.lru_cache
def places(slots: int) -> dict[str, slice]:
    """Return where each entry, of the environment or of `layout`, lies in the flat vector."""
    found = dict(observation.places(slots))
    at = observation.vector_size(slots)
    for entry in layout(slots):
        found[entry.name] = slice(at, at + entry.size)
        at += entry.size
    return found


def vector_size(slots: int) -> int:
    """Return the length of the flat vector."""
    return observation.vector_size(slots) + sum(entry.size for entry in layout(slots))


class Tokens(Encoded):
    """Shares of the blocks and levels, seen and moved relative to the tuned planner's.

    Parameters
    ----------
    world : World
    forecast_epochs : int
    constants : Constants
        Of the planner.
    """

    def __init__(self, world: World, forecast_epochs: int, constants: Constants) -> None:
        super().__init__(world, forecast_epochs, "fractions")
        self.planner = BatchPlanner(world, constants)
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (vector_size(self.slots),), np.float32)
        self._declined: NDArray[np.bool_] | None = None

    def observe(self, problems: Problems) -> Flat:
        """Return the observations (B, D), the planner's plan among them."""
        cuts, levels = self.planner.plans(problems)
        self._declined = cuts[:, 0] == NO_PLAN
        added = np.concatenate(
            [*seconds(self.world, problems), 0.5 * (self.as_actions(cuts, levels) + 1.0)], axis=1
        )
        slots = self.slots
        ends = np.cumsum([slots + 1, slots + 1, slots, slots * (slots + 1) // 2, slots * (slots + 1) // 2])
        job, room, load, hop_job, hop_loop, plan = np.split(added, ends, axis=1)
        ordered = np.concatenate([job, room, load, plan, hop_job, hop_loop], axis=1)
        shown = observation.encode(self.world, problems, self.forecast_epochs)
        return np.concatenate([shown, ordered.astype(np.float32)], axis=1)

    def as_actions(self, cuts: Ints, levels: Ints) -> Array:
        """Return the actions (B, 2 K + 1) of the encoding that decode to these plans."""
        ends = np.clip(cuts, 0, len(self.world.block_flops))
        blocks = np.diff(ends, axis=1, prepend=0, append=len(self.world.block_flops))
        most = np.maximum(blocks.max(axis=1, keepdims=True), 1)
        with np.errstate(divide="ignore"):
            shares = np.maximum(1.0 + np.log(blocks / most) / SHARE_SHARPNESS, -1.0)
        middle = (levels + 0.5) / len(self.world.encode_entries_per_s)
        return np.concatenate([shares, 2.0 * middle - 1.0], axis=1)

    def plans(self, problems: Problems, actions: NDArray[Any]) -> tuple[Ints, Ints]:
        """Return cuts and levels (B, K); a job the planner declines is declined. `problems`: those observed last."""
        cuts, levels = super().plans(problems, actions)
        if self._declined is None or len(self._declined) != len(cuts):
            self._declined = self.planner.plans(problems)[0][:, 0] == NO_PLAN
        cuts[self._declined] = NO_PLAN
        self._declined = None
        return cuts, levels


def seconds(world: World, problems: Problems) -> tuple[Array, Array, Array, Array, Array]:
    """Return `slot_job`, `slot_room`, `slot_load`, `hop_job` and `hop_loop` of `layout`, a row a world.

    A block on a micro-batch takes the longer of arithmetic and reading its weights, as in `sat_env.problem`.
    """
    slots, m = problems.rate_bps.shape[1], world.micro_batches
    size = problems.items[:, None, None] / m  # (B, 1, 1)
    rows, columns = np.triu_indices(slots, 1, slots + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        flops_per_s = problems.flops_per_s[:, :, None]  # (B, K+1, 1)
        reading_s = world.block_bytes / problems.bandwidth_bytes_per_s[:, :, None]
        off = flops_per_s == 0.0  # takes for ever, also for a block of no arithmetic
        block_s = np.where(off, np.inf, size * world.block_flops / flops_per_s)
        work_s = np.maximum(block_s, reading_s).sum(axis=2) * m
        if world.tokens > 0.0:
            token_s = np.where(off, np.inf, size * world.token_flops / flops_per_s)
            work_s = work_s + world.tokens * np.maximum(token_s, reading_s).sum(axis=2) * m
        load_s = world.block_bytes.sum() / problems.load_bytes_per_s[:, :slots]
        item_bytes = world.boundary_bytes[1:-1, 0].mean() + world.tokens * world.token_bytes[1:-1, 0].mean()
        send_s = problems.items[:, None] * item_bytes * 8.0 / problems.rate_bps[:, rows, columns]
    room = problems.memory_free_bytes / world.block_memory_bytes.sum()
    loop_s = world.tokens * problems.latency_s[:, rows, columns]
    return (
        _scaled(work_s / world.deadline_s),
        np.clip(room, 0.0, 1.0),
        _scaled(load_s / world.deadline_s),
        _scaled(send_s / world.deadline_s),
        _scaled(loop_s / world.deadline_s),
    )


def _scaled(deadlines: Array) -> Array:
    """Return times in deadlines on the logarithmic scale, in [0, 1]; what can never be is 1."""
    with np.errstate(divide="ignore"):
        scaled: Array = np.clip(0.5 + np.log10(deadlines) / DECADES, 0.0, 1.0)
    return scaled
