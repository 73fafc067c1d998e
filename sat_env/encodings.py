"""Action encodings: pure batched functions from what an agent emits to plans. Every action is legal.

Where the ground may hold nothing, the last cut is the end of the model whatever the action says; where it
holds all or nothing, the ground's share is rounded to that.
"""

from __future__ import annotations

from typing import Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from sat_env.kernels import kernel, part
from sat_env.planning.costs import GROUND_ALL_OR_NONE, GROUND_NONE
from sat_env.world import World

Encoding = Literal["plan", "fractions", "delta"]
ENCODINGS: tuple[Encoding, ...] = ("plan", "fractions", "delta")
DELTA_CHOICES = 5  # a cut moves by -2..2
SHARE_SHARPNESS = 3.0  # an action of +-1 weighs a slot by e^+-3
Ints = NDArray[np.int64]


def action_space(world: World, encoding: Encoding) -> gymnasium.Space:  # type: ignore[type-arg]
    """Return the action space of an encoding.

    ``"plan"``: MultiDiscrete, K cuts in 0..L (sorted on entry), then K levels.
    ``"fractions"``: Box in [-1, 1]: K + 1 shares of the blocks (slots, then ground; softmax), then K levels.
    ``"delta"``: MultiDiscrete, the change of each cut of the plan before by -2..2, then K levels.

    Raises
    ------
    ValueError
        Unknown encoding.
    """
    slots, blocks = world.chain.shape[1], len(world.block_flops)
    levels = len(world.encode_entries_per_s)
    if encoding == "plan":
        return gymnasium.spaces.MultiDiscrete([blocks + 1] * slots + [levels] * slots)
    if encoding == "fractions":
        return gymnasium.spaces.Box(-1.0, 1.0, (2 * slots + 1,), np.float32)
    if encoding == "delta":
        return gymnasium.spaces.MultiDiscrete([DELTA_CHOICES] * slots + [levels] * slots)
    raise ValueError(f"action = {encoding!r}: must be one of {', '.join(map(repr, ENCODINGS))}")


def decode(
    world: World,
    encoding: Encoding,
    actions: NDArray[np.generic],
    previous_cuts: Ints,
    cuts: Ints,
    levels: Ints,
) -> None:
    """Turn actions into plans.

    Parameters
    ----------
    actions : (B, A)
        One row of `action_space` a world.
    previous_cuts : (B, K)
        The plans before (`Problems.previous_cuts`).
    cuts, levels : (B, K) int64
        Written.

    Raises
    ------
    ValueError
        Actions of another shape, an integer outside the space, or a share that is not a number. Shares
        beyond -1 and 1 count as these: a Gaussian policy emits such.
    """
    slots = cuts.shape[1]
    blocks = len(world.block_flops)
    n_levels = len(world.encode_entries_per_s)
    length = 2 * slots + (1 if encoding == "fractions" else 0)
    if actions.shape != (len(cuts), length):
        raise ValueError(f"action has shape {actions.shape}: must be {(len(cuts), length)}, a row a world")
    if encoding == "fractions":
        shares = np.ascontiguousarray(actions, np.float64)
        bad = _decode_fractions(
            shares, blocks, n_levels, world.ground_hosts, world.sensing_computes, slots, cuts, levels
        )
        allowed = "numbers"
    else:
        if actions.dtype.kind not in "iu":
            raise ValueError(f"action is of type {actions.dtype}: must be of integers")
        choices = blocks + 1 if encoding == "plan" else DELTA_CHOICES
        origin = np.zeros_like(previous_cuts) if encoding == "plan" else previous_cuts
        offset = 0 if encoding == "plan" else DELTA_CHOICES // 2
        bad = _decode_cuts(
            actions, origin, offset, choices, n_levels, blocks, world.ground_hosts, cuts, levels
        )
        allowed = f"{slots} integers in 0..{choices - 1}, then {slots} in 0..{n_levels - 1}"
    if bad >= 0:
        raise ValueError(f"action = {actions[bad].tolist()}: must be {allowed}")


@part
def _ground_rule(cuts, blocks, ground_hosts):  # type: ignore[no-untyped-def]
    last = cuts.shape[0] - 1
    if ground_hosts == GROUND_NONE:
        cuts[last] = blocks
    elif ground_hosts == GROUND_ALL_OR_NONE:
        if 2 * cuts[last] < blocks:
            cuts[:] = 0
        else:
            cuts[last] = blocks


@kernel
def _decode_cuts(actions, origin, offset, choices, n_levels, blocks, ground_hosts, cuts, levels):  # type: ignore[no-untyped-def]
    """Decode integers; return the first world whose action is outside the space, -1: none."""
    slots = cuts.shape[1]
    for b in range(cuts.shape[0]):
        for k in range(slots):
            if not (0 <= actions[b, k] < choices and 0 <= actions[b, slots + k] < n_levels):
                return b
            cut = min(max(origin[b, k] + np.int64(actions[b, k]) - offset, 0), blocks)
            place = k
            while place > 0 and cuts[b, place - 1] > cut:
                cuts[b, place] = cuts[b, place - 1]
                place -= 1
            cuts[b, place] = cut
            levels[b, k] = np.int64(actions[b, slots + k])
        _ground_rule(cuts[b], blocks, ground_hosts)
    return -1


@kernel
def _decode_fractions(  # type: ignore[no-untyped-def]
    actions, blocks, n_levels, ground_hosts, sensing_computes, slots, cuts, levels
):
    """Decode shares; return the first world whose action holds a NaN, -1: none."""
    for b in range(cuts.shape[0]):
        for i in range(actions.shape[1]):
            if np.isnan(actions[b, i]):
                return b
        total = 0.0
        for k in range(slots + 1):
            if (k == 0 and not sensing_computes) or (k == slots and ground_hosts == GROUND_NONE):
                continue
            total += np.exp(SHARE_SHARPNESS * min(max(actions[b, k], -1.0), 1.0))
        running = 0.0
        for k in range(slots):
            if k > 0 or sensing_computes:
                running += np.exp(SHARE_SHARPNESS * min(max(actions[b, k], -1.0), 1.0))
            cuts[b, k] = min(max(int(np.floor(running / total * blocks + 0.5)), 0), blocks)
            share = 0.5 * (min(max(actions[b, slots + 1 + k], -1.0), 1.0) + 1.0)
            levels[b, k] = min(int(share * n_levels), n_levels - 1)
        _ground_rule(cuts[b], blocks, ground_hosts)
    return -1
