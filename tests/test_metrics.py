"""Metrics of an episode follow from its jobs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_env.evaluation.metrics import episode_metrics

JOBS = {
    "latency_s": [1.0, 2.0, np.nan, 4.0, 30.0],
    "deadline_s": [10.0, 10.0, 10.0, 10.0, 20.0],
    "dropped": [False, False, True, False, False],
    "accuracy_drop": [0.0, 0.01, np.nan, 0.05, 0.0],
    "sent_bytes": [5.0, 5.0, 1.0, 5.0, 5.0],
    "energy_j": [2.0, 2.0, 1.0, 2.0, 2.0],
    "reload_bytes": [7.0, 0.0, 0.0, 0.0, 0.0],
    "decision_ms": [1.0, 1.0, 3.0],
}


def test_five_jobs() -> None:
    metrics = episode_metrics(**JOBS)
    # in time, at the accuracy limit, dropped, over the limit, late
    assert metrics.j_s == pytest.approx((1 + 2 + 10 + 10 + 20) / 5)
    assert (metrics.n_jobs, metrics.n_dropped, metrics.n_over_limit) == (5, 1, 1)
    assert (metrics.n_delivered, metrics.n_within_limit, metrics.drop_share) == (4, 3, 0.2)
    # What is over the limit failed: the time it took is nobody's latency.
    assert metrics.latency_mean_s == pytest.approx((1 + 2 + 30) / 3)
    assert metrics.latency_p50_s == 2.0
    assert metrics.latency_p95_s == pytest.approx(np.percentile([1, 2, 30], 95))
    assert metrics.accuracy_drop == pytest.approx(0.06 / 4)
    assert (metrics.sent_bytes, metrics.energy_j, metrics.reload_bytes) == (21, 9, 7)
    assert metrics.decision_p50_ms == 1.0
    assert metrics.decision_p99_ms == pytest.approx(2.96)


def test_all_dropped_is_the_deadline() -> None:
    metrics = episode_metrics(**{**JOBS, "dropped": [True] * 5})
    assert metrics.j_s == pytest.approx(12.0)
    assert (
        metrics.latency_mean_s
        is metrics.latency_p50_s
        is metrics.latency_p95_s
        is metrics.accuracy_drop
        is None
    )


def test_all_over_the_limit_have_no_latency_but_an_accuracy() -> None:
    metrics = episode_metrics(
        **{**JOBS, "dropped": [False] * 5, "latency_s": [1.0] * 5, "accuracy_drop": [0.3] * 5}
    )
    assert (metrics.n_delivered, metrics.n_over_limit, metrics.j_s) == (5, 5, 12.0)
    assert metrics.latency_mean_s is metrics.latency_p50_s is metrics.latency_p95_s is None
    assert metrics.accuracy_drop == pytest.approx(0.3)


@given(
    jobs=st.lists(
        st.tuples(st.floats(0, 100), st.floats(0.1, 50), st.booleans(), st.floats(0, 0.05)),
        min_size=1,
        max_size=30,
    ),
    limit=st.floats(0, 0.05),
)
@settings(deadline=None, derandomize=True)
def test_j_is_bounded_and_failing_never_pays(
    jobs: list[tuple[float, float, bool, float]], limit: float
) -> None:
    latency, deadline, dropped, loss = map(np.array, zip(*jobs, strict=True))
    zeros = np.zeros(len(jobs))

    def j_s(dropped: np.ndarray, limit: float) -> float:
        return episode_metrics(
            latency_s=latency,
            deadline_s=deadline,
            dropped=dropped,
            accuracy_drop=loss,
            sent_bytes=zeros,
            energy_j=zeros,
            reload_bytes=zeros,
            decision_ms=[0.0],
            accuracy_limit=limit,
        ).j_s

    ours = j_s(dropped, limit)
    assert 0 <= ours <= deadline.mean() * (1 + 1e-12)
    one_more = dropped.copy()
    one_more[0] = True
    assert j_s(one_more, limit) >= ours
    assert j_s(dropped, 0.0) >= ours


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropped": []}, r"dropped has shape \(0,\); allowed: \(n_jobs,\), one job or more"),
        ({"latency_s": [1.0]}, r"latency_s has shape \(1,\); allowed: \(5,\), as dropped has"),
        ({"latency_s": [np.inf] * 5}, "latency_s of job 0 is inf; allowed: a finite number, 0 or more"),
        ({"deadline_s": [1.0, 1.0, 1.0, 1.0, 0.0]}, "deadline_s holds 0; allowed: above 0"),
        ({"deadline_s": [1.0, 1.0, np.nan, 1.0, 1.0]}, "deadline_s of job 2 is nan"),
        ({"energy_j": [1.0, -1.0, 1.0, 1.0, 1.0]}, "energy_j of job 1 is -1.0"),
        ({"decision_ms": []}, r"decision_ms is \[\]; allowed: one or more"),
    ],
)
def test_bad_jobs_are_refused_in_one_line(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        episode_metrics(**{**JOBS, **change})
    assert "\n" not in str(refusal.value)
