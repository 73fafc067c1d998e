"""Plans one slot at a time, with exact masks: each sub-step says where a slot's blocks end, and its level.

A mask that sees the blocks placed so far can be exact where one over a whole plan cannot: allowed is what fits
the slot, leaves the rest a way to fit, and stays within the error budget.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numba import njit
from numpy.typing import NDArray

from agents.interface import Flat, Ints, Predict
from agents.worlds import AgentWorlds
from baselines.priced import Constants
from sat_env import observation
from sat_env.planning.costs import GROUND_ALL_OR_NONE, GROUND_ANY
from sat_env.problem import Problems
from sat_env.world import World

Masks = NDArray[np.bool_]


class Partial(NamedTuple):
    """Plans of B worlds up to slot `slot`."""

    slot: int
    cuts: Ints  # (B, K)
    levels: Ints  # (B, K)
    error: NDArray[np.float64]  # (B,) so far


class Slotwise:
    """One slot a sub-step: Discrete (L + 1) R, end of the slot's blocks times R, plus its level.

    Parameters
    ----------
    world : World
    forecast_epochs : int
    constants : Constants
        Not used: it plans from scratch.
    """

    first_output: NDArray[np.float32] | None = None

    def __init__(self, world: World, forecast_epochs: int, constants: Constants) -> None:
        self.world, self.forecast_epochs = world, forecast_epochs
        self.slots, self.blocks = world.chain.shape[1], len(world.block_flops)
        self.levels = len(world.encode_entries_per_s)
        size = observation.vector_size(self.slots) + self.slots + 2
        self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Box(0.0, 1.0, (size,), np.float32)
        self.action_space: gymnasium.Space[Any] = gymnasium.spaces.Discrete((self.blocks + 1) * self.levels)

    def start(self, worlds: int) -> Partial:
        """Return empty plans."""
        shape = (worlds, self.slots)
        return Partial(0, np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(worlds))

    def begins(self, partial: Partial) -> Ints:
        """Return where the blocks of the slot to decide begin (B,)."""
        return partial.cuts[:, partial.slot - 1] if partial.slot else np.zeros(len(partial.cuts), np.int64)

    def look(self, problems: Problems, partial: Partial) -> Flat:
        """Return the environment's observation, which slot is decided, blocks placed and error spent."""
        shown = observation.encode(self.world, problems, self.forecast_epochs)
        where = np.zeros((len(shown), self.slots + 2), np.float32)
        where[:, partial.slot] = 1.0
        where[:, self.slots] = self.begins(partial) / self.blocks
        where[:, self.slots + 1] = np.clip(partial.error / self.world.error_budget, 0.0, 1.0)
        return np.concatenate([shown, where], axis=1)

    def masks(self, problems: Problems, partial: Partial) -> Masks:
        """Return what is allowed (B, (L + 1) R); where no plan fits, only to leave the slot empty."""
        allowed = np.zeros((len(partial.cuts), self.blocks + 1, self.levels), np.bool_)
        _allow(
            partial.slot,
            self.begins(partial),
            partial.error,
            self.world.block_memory_bytes,
            problems.memory_free_bytes,
            self.world.ground_hosts,
            self.world.error,
            problems.content,
            self.world.error_budget * (1 + 1e-12),
            allowed,
        )
        return allowed.reshape(len(allowed), -1)

    def put(self, problems: Problems, partial: Partial, actions: NDArray[Any]) -> Partial:
        """Return the plans with one slot more."""
        ends, chosen = np.divmod(np.asarray(actions, np.int64), self.levels)
        begins = self.begins(partial)
        ends = np.maximum(ends, begins)
        cuts, levels = partial.cuts.copy(), partial.levels.copy()
        cuts[:, partial.slot], levels[:, partial.slot] = ends, chosen
        encoded = (ends > begins) & (ends < self.blocks)
        error = partial.error + np.where(encoded, self.world.error[ends, chosen] * problems.content, 0.0)
        return Partial(partial.slot + 1, cuts, levels, error)

    def decide(self, problems: Problems, predict: Predict) -> tuple[Ints, Ints]:
        """Return cuts and levels (B, K), slot by slot."""
        partial = self.start(len(problems.epoch))
        while partial.slot < self.slots:
            actions = predict(self.look(problems, partial), self.masks(problems, partial))
            partial = self.put(problems, partial, actions)
        return partial.cuts, partial.levels


@njit(cache=True)
def _allow(  # type: ignore[no-untyped-def]
    slot, begins, errors, memory_bytes, free_bytes, ground_hosts, error, content, budget, allowed
):
    """Write which ends and levels keep a feasible plan possible."""
    blocks, levels = memory_bytes.shape[0], error.shape[1]
    slots = free_bytes.shape[1] - 1
    fits = np.zeros(blocks + 1, np.bool_)  # the blocks from l on fit behind the slot
    before = np.zeros(blocks + 1, np.bool_)
    for b in range(begins.shape[0]):
        room = free_bytes[b, slots] if ground_hosts == GROUND_ANY else 0.0
        for end in range(blocks, -1, -1):
            if end < blocks:
                room -= memory_bytes[end]
            fits[end] = end == blocks or (ground_hosts == GROUND_ANY and room >= 0.0)
        if ground_hosts == GROUND_ALL_OR_NONE and begins[b] == 0:
            fits[0] = memory_bytes.sum() <= free_bytes[b, slots]
        for k in range(slots - 1, slot, -1):
            for begin in range(blocks + 1):
                before[begin] = fits[begin]
                room = free_bytes[b, k]
                for end in range(begin + 1, blocks + 1):
                    room -= memory_bytes[end - 1]
                    if room < 0.0:
                        break
                    before[begin] = before[begin] or fits[end]
            fits[:] = before
        begin = begins[b]
        room = free_bytes[b, slot]
        any_allowed = False
        for end in range(begin, blocks + 1):
            if end > begin:
                room -= memory_bytes[end - 1]
            if room < 0.0:
                break
            if not fits[end]:
                continue
            for level in range(levels):
                if end == begin or end == blocks:
                    good = level == 0
                else:
                    good = errors[b] + error[end, level] * content[b] <= budget
                allowed[b, end, level] = good
                any_allowed = any_allowed or good
        if not any_allowed:
            allowed[b, begin, 0] = True


class SlotwiseWorlds(AgentWorlds):
    """`AgentWorlds` in which a decision takes K sub-steps; all but the last are rewarded with 0."""

    interface: Slotwise

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.partial = self.interface.start(self.num_envs)

    def observe(self) -> Flat:
        """Return the observations of the sub-step to come."""
        return self.interface.look(self.simulator.problems, self.partial)

    def step_wait(self) -> Any:
        """Decide one slot in every world; run the jobs after the last slot."""
        self.partial = self.interface.put(self.simulator.problems, self.partial, self._actions)
        if self.partial.slot < self.interface.slots:
            nothing = np.zeros(self.num_envs, np.float32)
            return self.observe(), nothing, np.zeros(self.num_envs, np.bool_), [{} for _ in nothing]
        cuts, levels = self.partial.cuts, self.partial.levels
        self.partial = self.interface.start(self.num_envs)
        return self.run_jobs(cuts, levels)

    def action_masks(self, index: int) -> Masks:
        """Return what world `index` may do; sb3-contrib asks for every world in turn."""
        if index == 0:
            self._masks = self.interface.masks(self.simulator.problems, self.partial)
        return np.asarray(self._masks[index])

    def extra_state(self) -> Any:
        """Return the plans begun."""
        return self.partial

    def set_extra_state(self, state: Any) -> None:
        """Go on from plans begun."""
        self.partial = state
