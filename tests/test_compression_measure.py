"""Pooling, plan drawing, the drop map and the complexity measure."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_env.compression import measure
from sat_env.compression.network import digits

deterministic = settings(deadline=None, derandomize=True, max_examples=40)


def test_folds_are_put_back_in_the_order_of_the_images_and_averaged_over_seeds():
    parts = [np.array(rows) for rows in ([2, 0], [1, 3], [0, 1], [3, 2])]
    values = [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])]
    assert measure.by_image(parts, values).tolist() == [[0.5, 0.0, 1.0, 1.0]]


def test_the_standard_error_is_that_of_a_mean():
    draws = np.random.default_rng(0).normal(size=(2000, 50))
    mean, error = measure.mean_and_error(draws)
    assert np.mean(np.abs(mean) < 1.96 * error) == pytest.approx(0.95, abs=0.02)


def test_more_networks_remove_their_share_of_the_error_only():
    rng = np.random.default_rng(0)
    of_image = rng.normal(0, 1, 40_000)
    values = of_image + rng.normal(0, 2, (2, 40_000))
    # A mean over k networks errs by sqrt((1 + 4 / k) / n): 0.01 at k = 4 / 3, the images alone by 0.005.
    assert measure.cross_validations_needed(values, 0.01) == 2
    assert measure.cross_validations_needed(values, 0.0052) > 20
    assert measure.cross_validations_needed(values, 0.0045) is None


def test_random_plans_have_1_to_7_cuts_and_lossy_levels():
    plans = np.array(measure.random_plans(300, seed=0))
    assert set((plans > 0).sum(1)) == set(range(1, 8))
    assert set(plans.ravel()) == set(range(len(measure.MENU)))
    assert (
        measure.random_plans(5, seed=0) == measure.random_plans(5, seed=0) != measure.random_plans(5, seed=1)
    )


def test_random_plans_leave_out_what_they_are_told_to():
    known = measure.single_plans()
    plans = measure.random_plans(200, seed=2, without=known)
    assert len(plans) == 200 and not set(plans) & set(known)
    assert plans == [plan for plan in measure.random_plans(400, seed=2) if plan not in known][:200]


def test_single_errors_stand_by_cut_and_level():
    plans = measure.single_plans()
    errors = measure.single_errors(plans, np.arange(1.0, len(plans) + 1))
    assert (errors[:, 0] == 0).all()
    assert [errors[np.flatnonzero(plan)[0], max(plan)] for plan in plans] == list(range(1, len(plans) + 1))


def test_single_plans_visit_every_lossy_level_of_every_cut():
    plans = np.array(measure.single_plans())
    assert len(set(map(tuple, plans))) == 7 * (len(measure.MENU) - 1)
    assert ((plans > 0).sum(1) == 1).all()


def test_the_predicted_error_is_a_sum_over_cuts():
    errors = np.arange(42.0).reshape(7, 6)
    errors[:, 0] = 0
    assert measure.predicted_error(errors, (0, 2, 0, 0, 5, 0, 0)) == errors[1, 2] + errors[4, 5]


@deterministic
@given(seed=st.integers(0, 99), noise=st.floats(0, 0.01))
def test_the_drop_map_rises_from_zero_and_finds_a_smooth_curve(seed, noise):
    rng = np.random.default_rng(seed)
    error = rng.exponential(0.3, 200)
    truth = 1 - np.exp(-error)
    knots = measure.fit_drop(error, truth + noise * rng.normal(size=200))
    assert knots[:, 0].tolist() == [0.0, 0.0]
    assert (np.diff(knots[0]) > 0).all() and (np.diff(knots[1]) >= 0).all() and knots[1, -1] > knots[1, -2]
    inside = error < knots[0, -1]
    assert np.abs(np.interp(error, *knots) - truth)[inside].mean() < 0.01 + noise


def test_complexity_is_one_on_average_and_lowest_at_a_prototype():
    images, labels = digits()
    content = measure.fit_complexity(images, labels)
    complexity = content.of(images)
    assert complexity.mean() == pytest.approx(1.0)
    prototypes = torch.tensor(content.prototypes, dtype=torch.float32).view(10, 8, 8)
    np.testing.assert_allclose(content.of(prototypes), 0.0, atol=1e-9)
    assert complexity.max() <= 1 / content.scale  # two prototypes equally near
