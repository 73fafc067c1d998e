"""Learned prices: the agent sets the priced planner's constants anew at every decision; the planner plans.

The action is low-dimensional and smooth, every plan is optimal under some prices, and action zero is the
jointly tuned planner itself: learning starts where the honest opponent stands.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.interface import Flat, Ints, OneStep
from agents.planner import Array, BatchPlanner
from baselines.priced import Constants
from sat_env.problem import Problems
from sat_env.world import World

# An action of +-1 multiplies or divides by this. When to decline is a sharp edge: noise of the size that explores
# the prices well costs seconds of J there.
REACH = np.log([8.0, 8.0, 8.0, 8.0, 8.0, 1.15])
FLOOR = np.array(
    [0.0, 0.1, 0.1, 0.1, 0.1, 0.2]
)  # added before and taken off after, so that a price of 0 can rise

FEATURES = (
    "backlog_mean",
    "backlog_max",
    "ground_busy",
    "link_wait",
    "exit_wait",
    "items",
    "recent_items",
    "content",
    "exit_rate",
    "exit_rate_ahead",
    "speed",
    "slots_off",
    "charge_mean",
    "charge_min",
    "light",
    "light_ahead",
    "links_down",
    "outage_age",
    "calm_age",
    "reboot",
    "chain_change",
    "resident",
)
"""What the agent sees of a decision: global, so that a policy fits chains of any length and any model."""


def shifted(values: Array, actions: NDArray[Any]) -> Array:
    """Return what `BatchPlanner.PRICES` names (B, 6) under actions in [-1, 1]; 0 returns `values`, to the bit.

    Either of `values` and `actions` may be a single row (6,).
    """
    more = np.expm1(REACH * np.clip(actions.astype(np.float64), -1.0, 1.0))
    moved: Array = np.maximum(values + (values + FLOOR) * more, 0.0)
    moved[:, 0] = np.maximum(moved[:, 0], 1.0)
    return moved


def features(world: World, problems: Problems, forecast_epochs: int) -> Flat:
    """Return the features (B, 22) of a batch of problems, within [-1, 1], in the order of `FEATURES`."""
    slots, blocks = problems.rate_bps.shape[1], len(world.block_flops)
    upper = np.triu(np.ones((slots, slots + 1), np.bool_), 1)
    busy = problems.busy_s / world.epoch_s
    wait = problems.release_s[:, upper] / world.epoch_s
    down = problems.primary_up[:, upper] == 0.0
    age = np.log1p(problems.state_age_s[:, upper] / world.epoch_s) / 4.0
    exits = problems.rate_bps[:, :, slots]
    ahead = problems.epoch[:, None] + np.minimum(
        np.arange(1, forecast_epochs + 1), problems.epochs_left[:, None] - 1
    )
    now_bps = world.route_rate_bps[problems.epoch, 0, 0, :, slots].max(axis=1)
    ahead_bps = world.route_rate_bps[ahead, 0, 0, :, slots].max(axis=2).mean(axis=1)
    fastest = world.power.mode_flops_per_s[-1]
    held = np.minimum(problems.resident[:, :slots, 1], problems.previous_cuts) - np.maximum(
        problems.resident[:, :slots, 0],
        np.concatenate([np.zeros((len(busy), 1), np.int64), problems.previous_cuts[:, :-1]], axis=1),
    )
    columns = (
        busy[:, :slots].mean(axis=1) / 2.0,
        busy[:, :slots].max(axis=1) / 4.0,
        busy[:, slots] / 4.0,
        wait.mean(axis=1) / 2.0,
        problems.release_s[:, :, slots].min(axis=1) / world.epoch_s,
        problems.items / world.items_mean - 1.0,
        problems.recent_items.mean(axis=1) / world.items_mean - 1.0,
        problems.content - 1.0,
        np.log(np.maximum(exits.max(axis=1), 1e5) / 1e8) / 4.0,
        np.log(np.maximum(ahead_bps, 1e5) / np.maximum(now_bps, 1e5)) / 2.0,
        problems.flops_per_s[:, :slots].mean(axis=1) / fastest,
        (problems.flops_per_s[:, :slots] <= 0.0).mean(axis=1),
        problems.charge[:, :slots].mean(axis=1),
        problems.charge[:, :slots].min(axis=1),
        problems.light[:, :slots].mean(axis=1),
        problems.light_ahead[:, :slots].mean(axis=1),
        down.mean(axis=1),
        np.where(down, age, 0.0).max(axis=1),
        np.where(down, 1.0, age).min(axis=1),
        problems.reboot_s.max(axis=1) / max(world.reboot_s, 1.0),
        problems.epochs_to_change / forecast_epochs,
        np.maximum(held, 0).sum(axis=1) / blocks,
    )
    flat: Flat = np.clip(np.stack(columns, axis=1), -1.0, 1.0).astype(np.float32)
    return flat


def situation(world: World, problems: Problems, forecast_epochs: int) -> Flat:
    """Return the features of N decisions, and their slots one by one: (N, 22 + 4 K + 1)."""
    slots = problems.rate_bps.shape[1]
    return np.concatenate(
        [
            features(world, problems, forecast_epochs),
            np.minimum(problems.busy_s / world.epoch_s, 8.0),
            problems.charge[:, :slots],
            problems.light[:, :slots],
            problems.light_ahead[:, :slots],
        ],
        axis=1,
    ).astype(np.float32)


class LearnedPrices(OneStep):
    """Prices as actions: six numbers in [-1, 1], each the logarithm of a factor on a tuned constant.

    Parameters
    ----------
    world : World
    forecast_epochs : int
    constants : Constants
        What action zero means.
    """

    def __init__(self, world: World, forecast_epochs: int, constants: Constants) -> None:
        self.world, self.forecast_epochs = world, forecast_epochs
        self.planner = BatchPlanner(world, constants)
        self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Box(
            -1.0, 1.0, (len(FEATURES),), np.float32
        )
        self.action_space: gymnasium.Space[Any] = gymnasium.spaces.Box(
            -1.0, 1.0, (len(BatchPlanner.PRICES),), np.float32
        )
        self.first_output: NDArray[np.float32] | None = None

    def observe(self, problems: Problems) -> Flat:
        """Return the features (B, 22)."""
        return features(self.world, problems, self.forecast_epochs)

    def plans(self, problems: Problems, actions: NDArray[Any]) -> tuple[Ints, Ints]:
        """Return the planner's cuts and levels (B, K) under the prices of the actions."""
        return self.planner.plans(problems, shifted(self.planner.values, actions))
