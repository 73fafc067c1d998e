"""Price rules: the tuned planner's prices as functions of what is known at a decision, twenty-seven numbers in all.

Each price is its tuned constant times the exponential of a weighted sum of a few features. The price of energy
differs between slots, by charge and light, and compute on a slot that is busy may cost extra. A rule of zeros is
the tuned planner itself.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.interface import Flat, Ints, OneStep
from agents.planner import Array, BatchPlanner, SlotPrices
from agents.prices import FEATURES, FLOOR, situation
from baselines.priced import Constants
from sat_env.problem import Problems
from sat_env.world import World

WEIGHTS = "weights.npz"
MOST = 4.0  # of the logarithm of a factor

# Price, feature (None: always 1), and what a weight of 1 adds to the logarithm of the price's factor for a feature
# of 1. When to decline is a sharp edge: hence its short reach.
PRICE_TERMS = (
    ("horizon", None, 1.0),
    ("horizon", "chain_change", 2.0),
    ("bottleneck", None, 1.0),
    ("bottleneck", "backlog_mean", 2.0),
    ("bottleneck", "recent_items", 2.0),
    ("bottleneck", "items", 2.0),
    ("bottleneck", "chain_change", 2.0),
    ("downlink", None, 1.0),
    ("downlink", "ground_busy", 2.0),
    ("downlink", "exit_rate_ahead", 2.0),
    ("downlink", "backlog_mean", 2.0),
    ("energy", None, 1.0),
    ("risk", None, 1.0),
    ("risk", "calm_age", 2.0),
    ("decline", None, 0.2),
    ("decline", "backlog_mean", 0.3),
    ("decline", "recent_items", 0.3),
    ("decline", "items", 0.3),
)
CHARGES = np.array([0.2, 0.4, 0.5, 0.6, 0.7, 0.85])  # between which the energy price is interpolated
SLOT_TERMS = (
    *(f"energy at charge {charge:g}" for charge in CHARGES),
    "energy in light ahead",
    "energy in light",
)
BUSY_REACH = 0.3  # price of compute per epoch that the slot is busy
NAMES = (
    *(price if feature is None else f"{price} by {feature}" for price, feature, _ in PRICE_TERMS),
    *SLOT_TERMS,
    "busy slot",
)
"""What the weights of a rule belong to."""

_COLUMN = [len(FEATURES) if feature is None else FEATURES.index(feature) for _, feature, _ in PRICE_TERMS]
_PRICE = [BatchPlanner.PRICES.index(price) for price, _, _ in PRICE_TERMS]
_PULL = np.zeros((len(PRICE_TERMS), len(FEATURES) + 1, len(BatchPlanner.PRICES)))  # term, feature, price
_PULL[np.arange(len(PRICE_TERMS)), _COLUMN, _PRICE] = [reach for *_, reach in PRICE_TERMS]


def slots_of(inputs: int) -> int:
    """Return K of an observation of `RuledPrices` that has so many numbers."""
    return (inputs - len(FEATURES) - 1) // 4


class PriceRule:
    """A rule, played as a stable-baselines3 model is.

    Parameters
    ----------
    weights : (len(NAMES),) float64
        In the order of `NAMES`.
    """

    def __init__(self, weights: Array) -> None:
        if weights.shape != (len(NAMES),) or not np.isfinite(weights).all():
            raise ValueError(f"weights = {weights.tolist()}: must be {len(NAMES)} finite numbers")
        self.weights = weights
        self.observation_space: gymnasium.Space[Any] | None = None  # those of the chain it plays
        self.action_space: gymnasium.Space[Any] | None = None

    @classmethod
    def untrained(cls) -> PriceRule:
        """Return the rule that is the tuned planner."""
        return cls(np.zeros(len(NAMES)))

    def predict(self, flat: Flat, deterministic: bool = True) -> tuple[NDArray[np.float32], None]:
        """Return the actions (B, 6 + 2 K) for observations (B, 22 + 4 K + 1) of `RuledPrices`."""
        slots = slots_of(flat.shape[1])
        features, busy, charge, light, ahead = np.split(
            flat, len(FEATURES) + np.cumsum([0, slots + 1, slots, slots]), axis=1
        )
        by_ahead, by_light, by_busy = self.weights[-3:]
        pull = self.pull()
        prices = features @ pull[:-1] + pull[-1]
        energy = np.interp(charge, CHARGES, self.charge_nodes()) + by_ahead * ahead + by_light * light
        compute = max(BUSY_REACH * by_busy, 0.0) * busy[:, :slots]
        return np.concatenate([prices, energy, compute], axis=1).astype(np.float32), None

    def pull(self) -> Array:
        """Return what each feature, and always, adds to the logarithm of each price's factor: (22 + 1, 6)."""
        pull: Array = np.tensordot(self.weights[: len(PRICE_TERMS)], _PULL, 1)
        return pull

    def charge_nodes(self) -> Array:
        """Return what the charges `CHARGES` add to the logarithm of the energy price's factor."""
        return self.weights[len(PRICE_TERMS) : len(PRICE_TERMS) + len(CHARGES)]

    def save(self, path: Path) -> None:
        """Write the weights as a zip that needs nothing beside it."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(WEIGHTS, "w") as file:
            np.savez(file, weights=self.weights)

    @classmethod
    def load(cls, path: Path) -> PriceRule:
        """Read what `save` wrote."""
        with zipfile.ZipFile(path) as archive, archive.open(WEIGHTS) as file:
            return cls(np.load(io.BytesIO(file.read()), allow_pickle=False)["weights"])


class RuledPrices(OneStep):
    """Prices as actions: six logarithms of factors on tuned constants, one of energy and a price for each slot.

    Parameters
    ----------
    world : World
    forecast_epochs : int
    constants : Constants
        What an action of zeros means.
    """

    def __init__(self, world: World, forecast_epochs: int, constants: Constants) -> None:
        self.world, self.forecast_epochs = world, forecast_epochs
        self.planner = BatchPlanner(world, constants)
        self.slots = world.chain.shape[1]
        size = len(FEATURES) + 4 * self.slots + 1
        actions = len(BatchPlanner.PRICES) + 2 * self.slots
        self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Box(-1.0, 8.0, (size,), np.float32)
        self.action_space: gymnasium.Space[Any] = gymnasium.spaces.Box(
            -np.inf, np.inf, (actions,), np.float32
        )
        self.first_output: NDArray[np.float32] | None = None

    def observe(self, problems: Problems) -> Flat:
        """Return the observations (B, 22 + 4 K + 1)."""
        return situation(self.world, problems, self.forecast_epochs)

    def plans(self, problems: Problems, actions: NDArray[Any]) -> tuple[Ints, Ints]:
        """Return the planner's cuts and levels (B, K) under the prices of the actions."""
        return self.planner.plans(problems, *self.prices(actions))

    def plans_of(self, rule: PriceRule, problems: Problems) -> tuple[Ints, Ints]:
        """Return the planner's cuts and levels (B, K) under the prices of a rule."""
        return self.planner.plans(problems, *self.prices_of(rule, problems))

    def prices_of(self, rule: PriceRule, problems: Problems) -> tuple[Array, SlotPrices]:
        """Return the prices of a rule, as `prices` does of actions."""
        return self.prices(rule.predict(self.observe(problems))[0])

    def prices(self, actions: NDArray[Any]) -> tuple[Array, SlotPrices]:
        """Return the prices of the actions, as `BatchPlanner.plans` takes them; of zeros the tuned ones, exactly."""
        count = len(BatchPlanner.PRICES)
        factors = np.exp(np.clip(actions[:, : count + self.slots].astype(np.float64), -MOST, MOST))
        values = self.planner.values * factors[:, :count] + FLOOR * (factors[:, :count] - 1.0)
        values = np.maximum(values, 0.0)
        values[:, 0] = np.maximum(values[:, 0], 1.0)
        return values, SlotPrices(factors[:, count:], actions[:, count + self.slots :].astype(np.float64))
