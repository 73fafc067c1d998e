"""The outage law: its mean is the one asked for, and what it says of an outage's rest is what draws do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from sat_env.faults import RESIDUAL_STEPS, OutageLaw, outage_law
from sat_env.knowledge import outage_within_s, residual_outage_s
from sat_env.scenario import Faults
from sat_env.trace import STREAM_LINKS, down_time_s, stream_key

check = settings(deadline=None, derandomize=True, max_examples=200)

LAWS = {
    "body": Faults(),
    "tail": Faults(link_tail_share=0.1),
    "tail only": Faults(link_tail_share=1.0),
    "fixed tail": Faults(link_tail_share=0.3, link_tail_min_s=200.0, link_tail_max_s=200.0),
    "tail below the body": Faults(link_tail_share=0.5, link_tail_min_s=0.0, link_tail_max_s=60.0),
    "from zero": Faults(link_down_min_s=0.0, link_down_mean_s=20.0),
}


@njit
def draws(law: OutageLaw, n: int) -> np.ndarray:
    key = stream_key(7, 0, STREAM_LINKS)
    lengths = np.empty(n)
    for i in range(n):
        lengths[i] = down_time_s(law, key, i, 0)
    return lengths


@given(low=st.floats(0.0, 100.0), span=st.floats(0.1, 1000.0), place=st.floats(1e-6, 0.4999999))
@check
def test_the_cut_exponential_has_the_mean_asked_for(low: float, span: float, place: float) -> None:
    mean = low + place * span
    if not low < mean < low + span / 2:
        return  # rounded onto an end, which a scenario refuses
    law = outage_law(Faults(link_down_min_s=low, link_down_max_s=low + span, link_down_mean_s=mean))
    x = law.body_rate_per_s * span
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    lengths = low - np.log1p(quantiles * np.expm1(-x)) / law.body_rate_per_s
    assert lengths.min() >= low
    assert lengths.max() <= low + span * (1 + 1e-9)
    assert lengths.mean() == pytest.approx(mean, abs=1e-4 * span)
    assert law.down_mean_s == mean


@pytest.mark.parametrize("faults", LAWS.values(), ids=LAWS)
def test_draws_meet_mean_support_and_residual_life(faults: Faults) -> None:
    law = outage_law(faults)
    lengths = draws(law, 200_000)

    def within(sample: np.ndarray, mean: float) -> bool:
        return abs(sample.mean() - mean) <= 4 * sample.std() / np.sqrt(len(sample)) + 1e-9

    assert within(lengths, law.down_mean_s)
    longest = law.residual_step_s * RESIDUAL_STEPS
    assert lengths.max() <= longest
    for i in np.arange(0, RESIDUAL_STEPS, 15.7):  # between entries of the table too
        age = i * law.residual_step_s
        rest = lengths[lengths > age] - age
        if len(rest) > 100:
            assert within(rest, residual_outage_s(law.residual_s, law.residual_step_s, age)), age
            for limit_s in (0.0, 0.1 * longest, 0.5 * longest, 2.0 * longest):
                assert within(np.minimum(rest, limit_s), outage_within_s(law, age, limit_s)), (age, limit_s)
    assert residual_outage_s(law.residual_s, law.residual_step_s, longest * (1 - 1e-6)) < 1e-3 * longest
    assert residual_outage_s(law.residual_s, law.residual_step_s, longest) == longest
    assert outage_within_s(law, longest, 7.0) == 7.0
    assert np.isfinite(law.residual_s).all()
    assert (law.residual_s >= 0).all()


def test_the_tail_is_drawn_with_its_share() -> None:
    lengths = draws(outage_law(LAWS["tail"]), 200_000)
    in_tail = lengths >= 300.0
    assert abs(in_tail.mean() - 0.1) < 4 * np.sqrt(0.09 / 200_000)
    assert not ((lengths > 100.0) & ~in_tail).any()
    assert abs(lengths[in_tail].mean() - 1050.0) < 4 * 1500.0 / np.sqrt(12 * in_tail.sum())
