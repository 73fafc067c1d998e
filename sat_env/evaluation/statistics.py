"""How sure a comparison is: interquartile means and paired bootstrap intervals.

References
----------
Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021:
interquartile mean and stratified bootstrap. Efron and Tibshirani, "An Introduction to the Bootstrap", 1993:
percentile interval.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import trim_mean

FloatArray: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Literal["mean", "iqm"]


class Interval(NamedTuple):
    """An estimate and its confidence interval, in the unit of the data."""

    mean: float  # or interquartile mean
    low: float
    high: float


def iqm(x: ArrayLike) -> float:
    """Interquartile mean: the mean of what is left without the lowest and the highest quarter (rounded down).

    Parameters
    ----------
    x : array_like
        Any shape, pooled.
    """
    return float(trim_mean(_finite("x", x), 0.25, axis=None))


def mean_interval(
    x: ArrayLike,
    n_boot: int = 2000,
    rng_seed: int = 0,
    *,
    statistic: Statistic = "mean",
    strata: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Bootstrap interval of a policy's mean or interquartile mean; parameters as in `paired_difference`."""
    values = _finite("x", x)
    return paired_difference(
        values,
        np.zeros_like(values),
        n_boot,
        rng_seed,
        statistic=statistic,
        strata=strata,
        confidence=confidence,
    )


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    n_boot: int = 2000,
    rng_seed: int = 0,
    *,
    statistic: Statistic = "mean",
    strata: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Difference a - b of two policies on the same episodes, with a stratified, paired bootstrap interval.

    Episodes are drawn with replacement within each stratum, the same ones for both policies, and the
    statistic of each policy is taken over all strata pooled. The interval is the percentile one; where a stratum
    has one row only, nothing tells how it scatters, and the interval is infinite.

    Parameters
    ----------
    a, b : (n_rows,) array_like
        Row i of both is the same (scenario, seed, episode): the same trace. Rows of a stratum must be
        independent, so average over what they share (several training seeds on one trace, say) first.
    n_boot : int
        Number of resamples.
    rng_seed : int
        Seed of the resampling; the same seed gives the same interval.
    statistic : {"mean", "iqm"}
        Statistic of each policy.
    strata : (n_rows,) array_like, optional
        Label of the stratum of each row, usually its scenario. Default: one stratum.
    confidence : float
        Coverage of the interval, in (0, 1).

    Raises
    ------
    ValueError
        If shapes differ, a value is not finite, or a parameter is out of range.
    """
    first, second = _finite("a", a), _finite("b", b)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"a, b have shapes {first.shape}, {second.shape}; allowed: the same (n_rows,)")
    labels = np.zeros(first.size, dtype=int) if strata is None else np.asarray(strata)
    if labels.shape != first.shape:
        raise ValueError(f"strata has shape {labels.shape}; allowed: {first.shape}, a label a row")
    if n_boot < 1:
        raise ValueError(f"n_boot is {n_boot}; allowed: 1 or more")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; allowed: above 0 and below 1")
    if statistic not in STATISTICS:
        raise ValueError(f"statistic is {statistic!r}; allowed: {', '.join(STATISTICS)}")
    take = STATISTICS[statistic]

    rng = np.random.default_rng(rng_seed)
    rows_of = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    estimate = float(take(first) - take(second))
    if min(rows.size for rows in rows_of) < 2:
        return Interval(estimate, -np.inf, np.inf)
    drawn = np.concatenate([rng.choice(rows, (n_boot, rows.size)) for rows in rows_of], axis=1)
    differences = take(first[drawn]) - take(second[drawn])  # (n_boot,)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(differences, [tail, 100 - tail])
    return Interval(estimate, float(low), float(high))


def _mean(x: FloatArray) -> FloatArray:
    return np.asarray(x.mean(axis=-1))


def _iqm(x: FloatArray) -> FloatArray:
    return np.asarray(trim_mean(x, 0.25, axis=-1))


STATISTICS: dict[str, Callable[[FloatArray], FloatArray]] = {"mean": _mean, "iqm": _iqm}


def _finite(field: str, values: ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise ValueError(f"{field} is empty or holds a number that is not finite; allowed: finite numbers")
    return array
