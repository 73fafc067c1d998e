"""Learned masks on a hardly trained network: the choice is hard, the gradient passes, training helps."""

import numpy as np
import pytest
import torch

from sat_env.compression import measure
from sat_env.compression.codec import RECIPES, Recipe, n_kept, select
from sat_env.compression.measure import MENU
from sat_env.compression.network import augment, digits, folds, train_network
from sat_env.compression.sparsifier import (
    KEEPS,
    N_CUTS,
    Masks,
    any_cuts,
    divergence,
    masked_streams_of,
    one_of,
    single_cuts,
    streams_of,
    these_cuts,
    train_masks,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums over threads come in any order; training runs in processes of one thread too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network(one_thread):
    images, labels = digits()
    return train_network(images[:192], labels[:192], epochs=4, seed=0, batch=16).requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    return digits()[0][:96]


@pytest.fixture(scope="module")
def fold(network, images):
    masks = Masks(streams_of(network, images)).requires_grad_(False)
    labels = digits()[1][:96]
    return measure.prepare(network, masks, images, labels, np.arange(64), np.arange(64, 96))


@pytest.mark.parametrize("rank", range(1, len(KEEPS) + 1))
def test_a_mask_is_what_the_codec_selects(network, images, rank):
    masks = Masks(streams_of(network, images))
    stream = streams_of(network, images)[2]
    with torch.no_grad():
        masked = masks(stream, 2, torch.full((96,), rank), 1.0, None)
    recipe = next(r for r in RECIPES.values() if r.keep == KEEPS[rank - 1])
    site = masks.site(stream, 2, recipe)
    kept = select(stream - site.centre, recipe.keep, site)
    differing = (masked - torch.where(kept, stream, site.centre)).abs() > 1e-5
    assert differing.float().mean() < 1e-4  # near ties fall to either side by the last bit of a score


def test_masks_of_other_kept_fractions_keep_as_much(network, images):
    streams = streams_of(network, images)
    masks = Masks(streams, keeps=(0.5, 0.25, 0.03125))
    with torch.no_grad():
        masked = masks(streams[2], 2, torch.full((96,), 3), 1.0, None)
    site = masks.site(streams[2], 2, Recipe("sparse", keep=0.03125, number="float32", bits=32))
    assert ((masked != site.centre).flatten(1).sum(1) == n_kept(0.03125, streams[2, 0].numel())).all()
    with pytest.raises(ValueError, match="must be 3 kept fractions"):
        Masks(streams, keeps=(0.5,))


def test_rank_0_leaves_a_sample_alone(network, images):
    masks = Masks(streams_of(network, images))
    stream = streams_of(network, images)[0]
    ranks = torch.arange(96) % 2
    masked = masks(stream, 0, ranks, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(masked[::2], stream[::2])
    assert (masked[1::2] != stream[1::2]).any()


def test_the_gradient_reaches_scores_and_centres(network, images):
    masks = Masks(streams_of(network, images))
    stream = streams_of(network, images)[1]
    masks(
        stream, 1, torch.ones(96, dtype=torch.int64), 0.3, torch.Generator().manual_seed(0)
    ).square().sum().backward()
    for parameter in (masks.bias, masks.weight, masks.centre):
        assert parameter.grad[1, 0].abs().sum() > 0
        assert parameter.grad[0].abs().sum() == 0


def test_drawn_plans_have_the_cuts_they_promise():
    generator = torch.Generator().manual_seed(0)
    assert ((single_cuts(500, generator) > 0).sum(1) == 1).all()
    n_active = (any_cuts(500, generator) > 0).sum(1)
    assert set(n_active.tolist()) == set(range(1, N_CUTS + 1))
    ranks = these_cuts((2, 6))(500, generator)
    assert ((ranks > 0) == torch.tensor([False, True, False, False, False, True, False])).all()
    assert ranks.max() == len(KEEPS)
    ranks = one_of((2, 6))(500, generator)
    assert ((ranks > 0).sum(1) == 1).all()
    assert 200 < (ranks[:, 1] > 0).sum() < 300
    assert (ranks[:, 1] > 0).sum() + (ranks[:, 5] > 0).sum() == 500


def test_training_lowers_the_divergence_and_follows_its_seed(network, images):
    def loss(masks):
        ranks = these_cuts((3,))(96, torch.Generator().manual_seed(1))
        streams = masked_streams_of(network, images, masks, ranks)
        output = network.head(network.blocks[7](streams[6])).log_softmax(-1)
        return float(divergence(network(images).log_softmax(-1), output).mean())

    def trained(seed):
        masks = Masks(streams_of(network, images))
        return train_masks(network, images, masks, these_cuts((3,)), epochs=8, seed=seed, batch=32)

    first, again, other = trained(0), trained(0), trained(1)
    assert loss(first) < 0.8 * loss(Masks(streams_of(network, images)))
    assert torch.equal(first.bias, again.bias) and not torch.equal(first.bias, other.bias)


def test_static_masks_do_not_look_at_the_input(network, images):
    masks = Masks(streams_of(network, images), static=True)
    train_masks(network, images, masks, single_cuts, epochs=1, seed=0, batch=32)
    assert not masks.weight.any()


def test_a_plan_through_bytes_is_the_plan(fold):
    plan = (0, 3, 0, 5, 1, 0, 4)
    assert torch.equal(measure.run_plan(fold, plan, through_bytes=True), measure.run_plan(fold, plan))


def test_an_empty_plan_changes_nothing(fold):
    outcome = measure.judge(fold, [measure.run_plan(fold, (0,) * 7)])
    assert (outcome.correct[0] == fold.correct).all()
    assert not outcome.error.any()


def test_streams_lead_to_the_networks_output(network, images, fold):
    resumed = measure.run(fold, [None, None, lambda stream: stream, None, None, None, None])
    torch.testing.assert_close(resumed, fold.output, atol=1e-5, rtol=1e-5)


def test_coarser_levels_err_more(fold):
    strengths = [
        MENU.index(name) for name in ("float8", "mask22-int8-ec", "mask12-int6-ec", "mask06-int4-ec")
    ]
    outputs = [measure.run_plan(fold, (0, 0, 0, level, 0, 0, 0)) for level in strengths]
    errors = measure.judge(fold, outputs).error.mean(1)
    assert (np.diff(errors) > 0).all()


def test_real_bytes_are_counted(fold):
    raw = measure.coded_bits(fold, RECIPES["mask22-int8"], 3)
    assert raw == pytest.approx(1 + 0.221 * 8, rel=0.01)
    assert measure.coded_bits(fold, RECIPES["mask22-int8-ec"], 3) < raw
    assert min(measure.throughput(fold, RECIPES["int8"])) > 0


def test_folds_cover_every_image_once():
    parts = folds(5, seed=3)
    assert sorted(np.concatenate([test for _, test in parts])) == list(range(1797))
    assert all(not set(train) & set(test) for train, test in parts)


def test_augmentation_keeps_pixels_in_range(images):
    turned = augment(images, torch.Generator().manual_seed(0))
    assert turned.shape == images.shape and turned.min() >= 0 and turned.max() <= 1 + 1e-6
    unchanged = (turned == images).flatten(1).all(1).float().mean()
    assert 0.1 < unchanged < 0.4


def test_a_network_follows_its_seed():
    images, labels = digits()
    runs = [train_network(images[:64], labels[:64], epochs=1, seed=s)(images[:4]) for s in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
