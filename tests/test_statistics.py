"""Statistics agree with scipy and keep the promises of paired comparison."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sat_env.evaluation.statistics import iqm, mean_interval, paired_difference

finite = st.floats(-1e6, 1e6)
quick = settings(deadline=None, derandomize=True, max_examples=50)


@given(x=st.lists(finite, min_size=4, max_size=40))
@quick
def test_iqm_is_the_mean_of_the_middle(x: list[float]) -> None:
    cut = len(x) // 4
    assert iqm(x) == pytest.approx(np.mean(sorted(x)[cut : len(x) - cut]), rel=1e-12, abs=1e-9)
    # what the best and the worst quarter cost does not matter
    spoilt = sorted(x)
    spoilt[:cut], spoilt[len(x) - cut :] = [-1e9] * cut, [1e9] * cut
    assert iqm(spoilt) == pytest.approx(iqm(x), rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_interval_agrees_with_scipy(statistic: str) -> None:
    rng = np.random.default_rng(7)
    a = rng.gamma(2.0, 3.0, 60)
    b = a + rng.normal(0.5, 0.4, 60)

    def difference(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        take = np.mean if statistic == "mean" else (lambda v, axis: stats.trim_mean(v, 0.25, axis=axis))
        return take(x, axis=axis) - take(y, axis=axis)

    ours = paired_difference(a, b, 20000, 1, statistic=statistic)
    theirs = stats.bootstrap(
        (a, b), difference, paired=True, method="percentile", n_resamples=20000, rng=np.random.default_rng(2)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.mean == pytest.approx(difference(a, b))
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_mean_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    intervals = [mean_interval(rng.normal(1.0, 1.0, 50), 500, seed) for seed in range(400)]
    covered = np.mean([one.low <= 1.0 <= one.high for one in intervals])
    assert 0.91 <= covered <= 0.98


@given(data=st.data(), n=st.integers(2, 30), shift=st.floats(-10, 10), seed=st.integers(0, 2**32 - 1))
@quick
def test_pairing_removes_what_policies_share(data: st.DataObject, n: int, shift: float, seed: int) -> None:
    """A constant difference on the same traces is known exactly, however the traces vary."""
    b = np.array(data.draw(st.lists(st.floats(-1e3, 1e3), min_size=n, max_size=n)))
    for statistic in ("mean", "iqm"):
        assert paired_difference(b + shift, b, 50, seed, statistic=statistic) == pytest.approx(
            (shift, shift, shift), abs=1e-9
        )


@given(data=st.data(), n=st.integers(2, 20), seed=st.integers(0, 2**32 - 1))
@quick
def test_interval_is_reproducible_antisymmetric_and_holds_the_mean_of_extremes(
    data: st.DataObject, n: int, seed: int
) -> None:
    values = st.lists(st.floats(-1e3, 1e3), min_size=n, max_size=n)
    a, b = np.array(data.draw(values)), np.array(data.draw(values))
    one = paired_difference(a, b, 100, seed)
    assert one == paired_difference(a, b, 100, seed)
    assert one == pytest.approx(
        [-x for x in (paired_difference(b, a, 100, seed)[i] for i in (0, 2, 1))], abs=1e-9
    )
    assert (a - b).min() - 1e-9 <= one.low <= one.high <= (a - b).max() + 1e-9
    wider = paired_difference(a, b, 100, seed, confidence=0.99)
    assert wider.low <= one.low and one.high <= wider.high


def test_one_episode_tells_nothing_of_how_sure_it_is() -> None:
    assert paired_difference([3.0], [1.0]) == (2.0, -np.inf, np.inf)
    assert mean_interval([3.0, 4.0, 5.0], strata=["calm", "calm", "harsh"]) == (4.0, -np.inf, np.inf)


def test_strata_keep_their_share() -> None:
    """Two scenarios without spread inside: stratified resamples all have one mean, plain ones differ."""
    a = np.array([1.0] * 5 + [9.0] * 5)
    b = np.zeros(10)
    assert paired_difference(a, b, 200, 0, strata=["calm"] * 5 + ["harsh"] * 5) == (5.0, 5.0, 5.0)
    plain = paired_difference(a, b, 200, 0)
    assert plain.low < 5 < plain.high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iqm([]), "x is empty"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), r"a, b have shapes \(2,\), \(1,\); allowed: the same"),
        (
            lambda: paired_difference([1.0], [1.0], strata=["a", "b"]),
            r"strata has shape \(2,\); allowed: \(1,\)",
        ),
        (lambda: paired_difference([1.0], [1.0], 0), "n_boot is 0; allowed: 1 or more"),
        (lambda: paired_difference([1.0], [1.0], confidence=95), "confidence is 95; allowed: above 0"),
        (
            lambda: paired_difference([1.0], [1.0], statistic="mode"),
            "statistic is 'mode'; allowed: mean, iqm",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)
