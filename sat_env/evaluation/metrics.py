"""What an episode cost: one number that ranks (J), and the raw columns beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

ACCURACY_LIMIT = 0.01
"""Share of accuracy that a plan may lose; above it the job counts as failed."""


OF_ARRIVED = ("latency_mean_s", "latency_p50_s", "latency_p95_s", "accuracy_drop")
"""Fields that are None where no job arrived."""


@dataclass(frozen=True)
class EpisodeMetrics:
    """Cost of one episode.

    Latency is that of jobs delivered within the accuracy limit, accuracy that of all delivered jobs; None where
    there was no such job. Bytes and joules are sums over all jobs, failed ones included: they were spent.
    """

    n_jobs: int
    n_dropped: int  # dropped or infeasible
    n_over_limit: int  # delivered, but losing more accuracy than allowed
    j_s: float  # J: mean over jobs of min(latency, deadline), a failed job counting as its deadline
    latency_mean_s: float | None
    latency_p50_s: float | None
    latency_p95_s: float | None
    accuracy_drop: float | None  # mean, as a share
    sent_bytes: float
    energy_j: float
    reload_bytes: float
    decision_p50_ms: float
    decision_p99_ms: float

    def __post_init__(self) -> None:
        """Refuse what no episode can have cost: a file may say anything."""
        if self.n_jobs < 1:
            raise ValueError(f"n_jobs is {self.n_jobs}; allowed: 1 or more")
        for field, most in (("n_dropped", self.n_jobs), ("n_over_limit", self.n_delivered)):
            if not 0 <= getattr(self, field) <= most:
                raise ValueError(f"{field} is {getattr(self, field)}; allowed: 0 to {most}")
        for field, value in vars(self).items():
            arrived = self.n_delivered if field == "accuracy_drop" else self.n_within_limit
            if (value is None) != (arrived == 0 and field in OF_ARRIVED):
                raise ValueError(f"{field} is {value}; allowed: null exactly where no such job arrived")
            if value is not None and not 0 <= value < np.inf:
                raise ValueError(f"{field} is {value}; allowed: a finite number, 0 or more")
        if self.accuracy_drop is not None and self.accuracy_drop > 1:
            raise ValueError(f"accuracy_drop is {self.accuracy_drop}; allowed: 0 to 1")
        if self.latency_p50_s is not None and self.latency_p95_s is not None:
            if self.latency_p50_s > self.latency_p95_s:
                raise ValueError(f"latency_p50_s is {self.latency_p50_s}; allowed: at most latency_p95_s")

    @property
    def n_delivered(self) -> int:
        """Jobs that reached their end, over the accuracy limit or not."""
        return self.n_jobs - self.n_dropped

    @property
    def n_within_limit(self) -> int:
        """Jobs delivered without losing more accuracy than allowed."""
        return self.n_delivered - self.n_over_limit

    @property
    def drop_share(self) -> float:
        """Share of jobs dropped or infeasible."""
        return self.n_dropped / self.n_jobs


def episode_metrics(
    *,
    latency_s: ArrayLike,
    deadline_s: ArrayLike,
    dropped: ArrayLike,
    accuracy_drop: ArrayLike,
    sent_bytes: ArrayLike,
    energy_j: ArrayLike,
    reload_bytes: ArrayLike,
    decision_ms: ArrayLike,
    accuracy_limit: float = ACCURACY_LIMIT,
) -> EpisodeMetrics:
    """Metrics of one episode from its jobs.

    Parameters
    ----------
    latency_s : (n_jobs,) array_like
        Seconds from release to result; counted only within the accuracy limit, not read where dropped.
    deadline_s : (n_jobs,) array_like
        Seconds from release, above 0.
    dropped : (n_jobs,) array_like of bool
        True for jobs dropped or infeasible.
    accuracy_drop : (n_jobs,) array_like
        Share of accuracy lost; not read where dropped.
    sent_bytes, energy_j, reload_bytes : (n_jobs,) array_like
        Spent on each job, 0 or more.
    decision_ms : (n_decisions,) array_like
        CPU milliseconds of each decision of the policy, 0 or more.
    accuracy_limit : float
        A job that loses more than this counts as failed.

    Raises
    ------
    ValueError
        If there is no job or decision, shapes differ, or a value is negative or not finite.
    """
    is_dropped = np.asarray(dropped, dtype=bool)
    if is_dropped.ndim != 1 or not is_dropped.size:
        raise ValueError(f"dropped has shape {is_dropped.shape}; allowed: (n_jobs,), one job or more")
    everyone, delivered = np.ones_like(is_dropped), ~is_dropped

    def column(field: str, values: ArrayLike, read: np.ndarray = everyone) -> np.ndarray:
        array = np.asarray(values, dtype=np.float64)
        if array.shape != read.shape:
            raise ValueError(f"{field} has shape {array.shape}; allowed: {read.shape}, as dropped has")
        bad = read & ~(np.isfinite(array) & (array >= 0))
        if bad.any():
            job = int(bad.argmax())
            raise ValueError(f"{field} of job {job} is {array[job]}; allowed: a finite number, 0 or more")
        return array

    latency = column("latency_s", latency_s, delivered)
    deadline = column("deadline_s", deadline_s)
    if (deadline == 0).any():
        raise ValueError("deadline_s holds 0; allowed: above 0")
    loss = column("accuracy_drop", accuracy_drop, delivered)
    thinking = np.asarray(decision_ms, dtype=np.float64)
    if thinking.ndim != 1 or not thinking.size or not (np.isfinite(thinking) & (thinking >= 0)).all():
        raise ValueError(f"decision_ms is {decision_ms!r}; allowed: one or more finite numbers, 0 or more")

    over_limit = delivered & (np.where(delivered, loss, 0.0) > accuracy_limit)
    within_limit = delivered & ~over_limit
    counted = np.where(within_limit, np.fmin(latency, deadline), deadline)
    arrived = latency[within_limit]
    median, p95 = np.percentile(arrived, [50, 95]).tolist() if arrived.size else (None, None)
    return EpisodeMetrics(
        n_jobs=is_dropped.size,
        n_dropped=int(is_dropped.sum()),
        n_over_limit=int(over_limit.sum()),
        j_s=float(counted.mean()),
        latency_mean_s=float(arrived.mean()) if arrived.size else None,
        latency_p50_s=median,
        latency_p95_s=p95,
        accuracy_drop=float(loss[delivered].mean()) if delivered.any() else None,
        sent_bytes=float(column("sent_bytes", sent_bytes).sum()),
        energy_j=float(column("energy_j", energy_j).sum()),
        reload_bytes=float(column("reload_bytes", reload_bytes).sum()),
        decision_p50_ms=float(np.percentile(thinking, 50)),
        decision_p99_ms=float(np.percentile(thinking, 99)),
    )
