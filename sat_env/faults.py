"""Random faults: how long links stay down, and what a scheduler may expect of an outage that lasts.

Distributions only; the draws of an episode are in `sat_env.trace`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from sat_env.scenario import Faults

Array = NDArray[np.float64]

RESIDUAL_STEPS = 512


class OutageLaw(NamedTuple):
    """Law of one link's outages: exponential up times; down times as described in `scenario.Faults`.

    ``body_rate_per_s`` is the rate of the exponential cut to [low, high], found so that its mean is the
    scenario's `link_down_mean_s`. ``residual_s`` tabulates the mean time an outage still lasts at age
    ``i * residual_step_s``; past the longest outage of the law, that longest length. ``alive`` is the share of
    outages that reach that age, ``left_s`` the mean over all outages of what is left of them then.
    """

    up_mean_s: float  # 0 switches outages off
    low_s: float
    high_s: float
    body_rate_per_s: float
    tail_share: float
    tail_low_s: float
    tail_high_s: float
    down_mean_s: float  # mean over body and tail
    residual_step_s: float
    residual_s: Array  # (RESIDUAL_STEPS + 1,)
    alive: Array  # (RESIDUAL_STEPS + 1,) within 0..1
    left_s: Array  # (RESIDUAL_STEPS + 1,)


def outage_law(faults: Faults) -> OutageLaw:
    """Return the outage law of a scenario's fault fields."""
    low, high = faults.link_down_min_s, faults.link_down_max_s
    rate = _cut_exponential_rate(low, high, faults.link_down_mean_s)
    tail_mean = 0.5 * (faults.link_tail_min_s + faults.link_tail_max_s)
    share = faults.link_tail_share
    longest = max(high, faults.link_tail_max_s if share > 0 else 0.0)
    step = longest / RESIDUAL_STEPS
    ages = np.arange(RESIDUAL_STEPS + 1, dtype=np.float64) * step
    body_alive, body_left = _body_survival(ages, low, high, rate)
    tail_alive, tail_left = _uniform_survival(ages, faults.link_tail_min_s, faults.link_tail_max_s)
    alive = (1 - share) * body_alive + share * tail_alive
    left = (1 - share) * body_left + share * tail_left
    return OutageLaw(
        up_mean_s=faults.link_up_mean_s,
        low_s=low,
        high_s=high,
        body_rate_per_s=rate,
        tail_share=share,
        tail_low_s=faults.link_tail_min_s,
        tail_high_s=faults.link_tail_max_s,
        down_mean_s=(1 - share) * faults.link_down_mean_s + share * tail_mean,
        residual_step_s=step,
        residual_s=np.where(alive > 1e-9, left / np.maximum(alive, 1e-9), longest),
        alive=alive,
        left_s=left,
    )


def _cut_exponential_rate(low: float, high: float, mean: float) -> float:
    """Return the rate of an exponential cut to [low, high] whose mean is `mean` (< the middle)."""
    span = high - low
    place = (mean - low) / span
    if place < 1 / 500:  # the cut is nowhere near
        return 1 / (mean - low)
    if place > 0.4999:  # 1 / x - 1 / expm1(x) = 1/2 - x/12 + x**3/720 ...; and not so flat that digits cancel
        return max(12 * (0.5 - place), 1e-4) / span

    def excess(x: float) -> float:
        return 1 / x - 1 / math.expm1(x) - place

    return float(brentq(excess, 1e-4, 500.0)) / span


def _body_survival(ages: Array, low: float, high: float, rate: float) -> tuple[Array, Array]:
    """Return P(D > a) and E[(D - a)+] of the exponential cut to [low, high]."""
    norm = -math.expm1(-rate * (high - low))
    inside = np.clip(ages, low, high)
    alive = (np.exp(-rate * (inside - low)) - math.exp(-rate * (high - low))) / norm
    left = (
        (np.exp(-rate * (inside - low)) - math.exp(-rate * (high - low))) / rate
        - (high - inside) * math.exp(-rate * (high - low))
    ) / norm
    return np.where(ages < low, 1.0, alive), left + np.maximum(low - ages, 0.0)


def _uniform_survival(ages: Array, low: float, high: float) -> tuple[Array, Array]:
    """Return P(D > a) and E[(D - a)+] of the uniform law on [low, high]."""
    if high <= low:
        return (ages < low).astype(float), np.maximum(low - ages, 0.0)
    inside = np.clip(ages, low, high)
    alive = np.where(ages < low, 1.0, (high - inside) / (high - low))
    return alive, (high - inside) ** 2 / (2 * (high - low)) + np.maximum(low - ages, 0.0)
