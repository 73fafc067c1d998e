"""The codec: decoding gives what was quantised, to the bit; sizes near the entropy; foreign bytes refused."""

import dataclasses
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_env.compression.codec import (
    HEADER,
    RECIPES,
    CodecError,
    Recipe,
    calibrate,
    decode,
    encode,
    information_bits,
    magnitudes_of,
    n_kept,
    quantise,
    reconstruct,
)

deterministic = settings(deadline=None, derandomize=True, max_examples=60)
TOKENS, CHANNELS = 9, 16


def activations(n: int, seed: int, tokens: int = TOKENS, channels: int = CHANNELS) -> torch.Tensor:
    """Draw activations with the unequal channels and the outliers that transformers have."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, tokens, channels, generator=generator)
    size = torch.rand(channels, generator=generator).mul(3).exp()
    outlier = 1 + 20 * (torch.rand(x.shape, generator=generator) < 0.002)
    return x * size * outlier + torch.randn(tokens, channels, generator=generator)


def a_site(recipe: Recipe, seed: int = 0, static: bool = False):
    x = activations(200, seed)
    generator = torch.Generator().manual_seed(seed)
    bias = torch.randn(TOKENS, CHANNELS, generator=generator)
    weight = torch.zeros(TOKENS, CHANNELS) if static else torch.rand(TOKENS, CHANNELS, generator=generator)
    return calibrate(x, recipe, x.mean(0), bias, weight)


recipes = st.builds(
    Recipe,
    st.just("drawn"),
    keep=st.floats(2**-7, 1, width=32),
    number=st.just("int"),
    bits=st.integers(2, 8),
    entropy=st.booleans(),
    span=st.one_of(st.just(float("inf")), st.floats(1, 20)),
    per=st.sampled_from(["channel", "token"]),
) | st.builds(
    Recipe,
    st.just("drawn"),
    keep=st.floats(2**-7, 1, width=32),
    number=st.just("float"),
    bits=st.sampled_from([4, 6, 8]),
    entropy=st.booleans(),
    per=st.sampled_from(["channel", "token"]),
)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 9))


@deterministic
@given(recipe=recipes, shape=shapes, seed=st.integers(0, 9), zero=st.booleans())
def test_round_trip_of_any_recipe_and_shape(recipe, shape, seed, zero):
    x = activations(*[shape[0], seed], *shape[1:])
    if zero:
        x[:, 0] = 0.0
    assert torch.equal(decode(encode(x, recipe)), reconstruct(x, recipe))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("with_site", [False, True])
def test_round_trip_of_the_menu(recipe, with_site):
    site = a_site(recipe) if with_site and recipe.keep < 1 else None
    x = activations(20, seed=5)
    assert torch.equal(decode(encode(x, recipe, site), site), reconstruct(x, recipe, site))


@pytest.mark.parametrize("bits", [2, 8])
def test_an_all_zero_activation_survives(bits):
    x = torch.zeros(2, 3, 4)
    for entropy in (False, True):
        assert torch.equal(decode(encode(x, Recipe("z", bits=bits, entropy=entropy))), x)


def test_lossless_is_lossless():
    x = activations(3, seed=1)
    assert torch.equal(decode(encode(x, RECIPES["none"])), x)


@deterministic
@given(recipe=recipes, seed=st.integers(0, 9))
def test_quantising_twice_changes_nothing(recipe, seed):
    recipe = dataclasses.replace(recipe, keep=1.0, span=np.inf)
    once = reconstruct(activations(4, seed), recipe)
    torch.testing.assert_close(reconstruct(once, recipe), once, rtol=1e-5, atol=1e-6)


@deterministic
@given(bits=st.integers(3, 8), seed=st.integers(0, 9), per=st.sampled_from(["channel", "token"]))
def test_unclipped_integers_err_by_half_a_step(bits, seed, per):
    recipe = Recipe("int", bits=bits, per=per)
    x = activations(6, seed)
    step = quantise(x, recipe).scale
    assert ((reconstruct(x, recipe) - x).abs() <= step / 2 * (1 + 1e-5)).all()


@pytest.mark.parametrize("keep", [0.03, 0.125, 0.5, 1.0])
def test_each_sample_keeps_exactly_its_share(keep):
    x = activations(11, seed=2)
    for site in (None, a_site(Recipe("s", keep=keep))):
        kept = quantise(x, Recipe("s", keep=keep), site).kept
        assert (kept.flatten(1).sum(1) == n_kept(keep, TOKENS * CHANNELS)).all()


def test_without_a_site_the_largest_are_kept():
    x = activations(5, seed=3)
    kept = quantise(x, Recipe("k", keep=0.2)).kept
    for sample, mask in zip(x, kept, strict=True):
        assert sample[mask].abs().min() >= sample[~mask].abs().max()


def test_a_zero_weight_makes_the_mask_static_and_free():
    recipe = dataclasses.replace(RECIPES["mask12-int6-ec"], span=6.0)
    fixed, free = a_site(recipe, static=True), a_site(recipe)
    x = activations(64, seed=4)
    kept = quantise(x, recipe, fixed).kept
    assert (kept == kept[:1]).all()
    values_only = 0.125 * recipe.bits  # an upper bound without any mask
    assert 8 * len(encode(x, recipe, fixed)) / x.numel() < values_only
    assert (quantise(x, recipe, free).kept != kept).any()


def test_float8_and_float4_are_the_published_formats():
    e4m3 = (
        torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    )  # the 128th code is NaN there
    torch.testing.assert_close(magnitudes_of(RECIPES["float8"])[:127], e4m3, rtol=0, atol=0)
    e2m1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])  # OCP Microscaling Formats 1.0, table 5
    torch.testing.assert_close(magnitudes_of(RECIPES["float4"]), e2m1, rtol=0, atol=0)


def test_raw_sizes_reproduce_the_papers_chain():
    x = activations(200, seed=6, tokens=17, channels=64)
    sizes = {name: 32 * x.numel() / (8 * len(encode(x, RECIPES[name]))) for name in RECIPES}
    assert sizes["none"] == pytest.approx(1.0, rel=1e-3)
    assert sizes["mask22-float32"] == pytest.approx(3.96, rel=5e-3)
    assert sizes["mask22-int8"] == pytest.approx(11.55, rel=5e-3)


@pytest.mark.parametrize("name", ["mask22-int8-ec", "mask12-int6-ec", "mask06-int4-ec"])
def test_coded_size_is_within_two_percent_of_the_information(name):
    recipe = RECIPES[name]
    site = a_site(recipe)
    x = activations(512, seed=7)
    payload_bits = 8 * (len(encode(x, recipe, site)) - HEADER.size)
    assert payload_bits == pytest.approx(information_bits(x, recipe, site), rel=0.02)


@deterministic
@given(position=st.integers(0, 10**6), flip=st.integers(1, 255), name=st.sampled_from(sorted(RECIPES)))
def test_any_damaged_byte_is_noticed(position, flip, name):
    payload = bytearray(encode(activations(3, seed=8), RECIPES[name]))
    payload[position % len(payload)] ^= flip
    with pytest.raises(CodecError):
        decode(bytes(payload))


@deterministic
@given(junk=st.binary(max_size=200))
def test_foreign_bytes_are_refused(junk):
    with pytest.raises(CodecError, match="magic number"):
        decode(junk)


def test_cut_extended_and_mismatched_payloads_are_refused():
    recipe = RECIPES["mask12-int6-ec"]
    site, other = a_site(recipe, 0), a_site(recipe, 1)
    payload = encode(activations(3, seed=9), recipe, site)
    with pytest.raises(CodecError, match="cut or extended"):
        decode(payload[:-1], site)
    with pytest.raises(CodecError, match="cut or extended"):
        decode(payload + b"x", site)
    for wrong in (other, None):
        with pytest.raises(CodecError, match="another site"):
            decode(payload, wrong)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(5, 9), (6, 77), (7, 255), (12, 200), (13, 200), (20, 99)],
    ids=["number", "bits", "flags", "samples", "more samples", "channels"],
)
def test_a_header_that_no_encoder_writes_is_refused_though_its_checksum_fits(offset, value):
    payload = bytearray(encode(activations(2, seed=8), RECIPES["mask06-int4-ec"]))
    payload[offset] = value
    head, body = bytes(payload[: HEADER.size - 4]), bytes(payload[HEADER.size :])
    checksum = zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "little")
    with pytest.raises(CodecError, match="no encoder writes"):
        decode(head + checksum + body)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("size", [1e-45, 1e-44, 1e-40, 1e-37])
def test_the_smallest_numbers_there_are_make_the_round_trip(recipe, size):
    activation = torch.full((2, 3, 8), size)
    activation[0, 0, 0] = -size
    assert torch.equal(decode(encode(activation, recipe)), reconstruct(activation, recipe))
    assert (reconstruct(activation, recipe) - activation).abs().max() <= size


def sealed(payload: bytes, body: bytes, **header: int) -> bytes:
    """Return the payload with another body and other fields of the header, and a checksum that fits."""
    names = ("magic", "version", "number", "bits", "flags", "keep", "n", "tokens", "channels", "site", "size")
    fields = dict(zip((*names, "crc"), HEADER.unpack_from(payload), strict=True))
    head = HEADER.pack(*(fields | {"size": len(body), "crc": 0} | header).values())[:-4]
    return head + zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "little") + body


@pytest.mark.parametrize("name", ["none", "int8", "float4", "int4-ec", "mask22-float32", "mask22-int8"])
def test_bodies_that_no_encoder_writes_are_refused_though_their_checksum_fits(name):
    payload = encode(activations(2, seed=8), RECIPES[name])
    body = payload[HEADER.size :]
    assert torch.equal(decode(sealed(payload, body)), decode(payload))
    nan = np.float32("nan").tobytes()
    for crafted in (
        sealed(payload, body + bytes(64)),
        sealed(payload, body[:4]),
        sealed(payload, b""),
        sealed(payload, body, n=0),
        sealed(payload, body, n=4_000_000_000, tokens=4_000_000_000),
        sealed(payload, body, n=1000, tokens=1000, channels=1000),
        *([] if name.startswith("mask") else [sealed(payload, nan + body[4:])]),
    ):
        with pytest.raises(CodecError, match="no encoder writes"):
            decode(crafted)


def test_a_payload_of_another_shape_than_its_site_is_refused():
    recipe = RECIPES["mask22-int8-ec"]
    site = a_site(recipe)
    payload = encode(activations(2, seed=8), recipe, site)
    with pytest.raises(CodecError, match="allowed at this site"):
        decode(sealed(payload, payload[HEADER.size :], tokens=1), site)


@pytest.mark.parametrize(
    "recipe", [r for r in RECIPES.values() if r.keep < 1], ids=lambda recipe: recipe.name
)
@pytest.mark.parametrize("shape", [(2, 1, 64), (2, 17, 1), (2, 3, 64)])
def test_a_site_refuses_activations_of_another_shape(recipe, shape):
    with pytest.raises(ValueError, match="allowed at this site"):
        encode(torch.ones(shape), recipe, a_site(recipe))


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (torch.zeros(3, 4), "shape"),
        (torch.zeros(0, 3, 4), "shape"),
        (torch.zeros(1, 3, 4, dtype=torch.float64), "type"),
        (torch.full((1, 3, 4), float("nan")), "NaN"),
        (torch.full((1, 3, 4), float("inf")), "infinity"),
    ],
)
def test_bad_activations_are_refused(bad, what):
    with pytest.raises(ValueError, match=what):
        encode(bad, RECIPES["int8"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("keep", 0.0),
        ("keep", 1.5),
        ("keep", 1 - 1e-9),
        ("keep", 1e-46),
        ("bits", 9),
        ("number", "posit"),
        ("span", 0.0),
        ("per", "tensor"),
    ],
)
def test_bad_recipes_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(RECIPES["int8"], **{field: value})


def test_bits_of_the_small_floats_are_limited():
    with pytest.raises(ValueError, match="bits is 5"):
        Recipe("f", number="float", bits=5)
    with pytest.raises(ValueError, match="entropy coding of float32"):
        Recipe("f", number="float32", bits=32, entropy=True)
