"""From an activation to bytes and back: choose entries, quantise them, code them near their entropy.

    activation -> select -> quantise -> entropy-code -> bytes          encode
    bytes -> entropy-decode -> dequantise, fill what was dropped -> activation     decode

A `Recipe` says how. A `Site` is what both ends learned about one cut of one network; without it the same
chain runs on any activation, keeps the largest entries, and carries its scales and statistics in the payload.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import constriction
import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
NUMBERS = ("float32", "float", "int")
# Exponent bits of the small floats: E4M3 and E2M1 as in the OCP formats, E3M2 between them.
EXPONENT_BITS = {8: 4, 6: 3, 4: 2}


class CodecError(ValueError):
    """Bytes that are no payload of this codec, are damaged, or were made with another site."""


@dataclass(frozen=True)
class Recipe:
    """How to encode an activation.

    Attributes
    ----------
    name : str
    keep : float
        Fraction of the entries of each sample that is kept, in (0, 1]: 1, or what 32 bits tell from 0 and 1.
    number : "float32", "float" or "int"
        Number format of a kept entry: untouched, small float (`EXPONENT_BITS`), or evenly spaced.
    bits : int
        Bits of that format: 32; 4, 6 or 8; 2 to 8.
    entropy : bool
        Range-code mask and values; else a mask takes 1 bit an entry and a value its `bits`.
    span : float
        Range of the integer format in root mean squares of what it codes; beyond, values are clipped.
    per : "channel" or "token"
        What shares a scale where there is no site.
    """

    name: str
    keep: float = 1.0
    number: Literal["float32", "float", "int"] = "int"
    bits: int = 8
    entropy: bool = False
    span: float = np.inf
    per: Literal["channel", "token"] = "channel"

    def __post_init__(self) -> None:
        """Refuse what the codec cannot do."""
        allowed = {"float32": (32,), "float": tuple(EXPONENT_BITS), "int": tuple(range(2, 9))}
        if self.number not in allowed:
            raise ValueError(f"recipe {self.name!r}: number is {self.number!r}, allowed are {NUMBERS}")
        if self.bits not in allowed[self.number]:
            raise ValueError(
                f"recipe {self.name!r}: bits is {self.bits}, allowed for {self.number} are "
                f"{allowed[self.number]}"
            )
        if not 0 < np.float32(self.keep) < 1 and self.keep != 1:  # a payload carries it in 32 bits
            raise ValueError(
                f"recipe {self.name!r}: keep is {self.keep}, allowed is (0, 1], told from 0 and 1"
            )
        if not self.span > 0:
            raise ValueError(f"recipe {self.name!r}: span is {self.span}, allowed is > 0")
        if self.entropy and self.number == "float32":
            raise ValueError(f"recipe {self.name!r}: entropy coding of float32 is not supported")
        if self.per not in ("channel", "token"):
            raise ValueError(f"recipe {self.name!r}: per is {self.per!r}, allowed are 'channel', 'token'")


# The chain of arXiv 2604.04654 is mask22-float32, mask22-int8, mask22-int8-ec: 3.96x, 11.56x, 25.8x.
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("none", number="float32", bits=32),
        Recipe("float8", number="float", bits=8),
        Recipe("float4", number="float", bits=4),
        Recipe("int8", bits=8),
        Recipe("int4-ec", bits=4, entropy=True, span=3.5),
        Recipe("mask22-float32", keep=0.221, number="float32", bits=32),
        Recipe("mask22-int8", keep=0.221, bits=8, span=46.0),
        Recipe("mask22-int8-ec", keep=0.221, bits=8, entropy=True, span=46.0),
        Recipe("mask12-int6-ec", keep=0.125, bits=6, entropy=True, span=12.0),
        Recipe("mask06-int4-ec", keep=0.0625, bits=4, entropy=True, span=3.0),
    )
}


class Statistics(NamedTuple):
    """What the entropy coder expects of an entry; arrays broadcast against (n, tokens, channels), float64."""

    kept: Array  # probability that it is kept
    negative: Array  # probability that a kept, non-zero one is negative
    magnitude: Array  # mean |symbol| of a kept one
    spread: Array  # standard deviation of that


@dataclass(frozen=True)
class Site:
    """What both ends know about one cut at one level.

    Attributes
    ----------
    centre : (tokens, channels) float32
        Subtracted before coding; the value a dropped entry decodes to.
    bias, weight : (tokens, channels) float32
        An entry's score is bias + weight |value - centre|; the highest scores are kept. A zero weight makes
        the mask static.
    step : float
        Width of a quantiser step.
    statistics : Statistics
        For the entropy coder.
    """

    centre: Tensor
    bias: Tensor
    weight: Tensor
    step: float
    statistics: Statistics

    def fingerprint(self) -> int:
        """Return a checksum that a payload carries, so that it is not decoded with another site."""
        arrays = [self.centre.numpy(), np.float64(self.step), *self.statistics]
        crc = 0
        for array in arrays:
            crc = zlib.crc32(np.ascontiguousarray(array).tobytes(), crc)
        return crc or 1  # 0 stands for no site


class Quantised(NamedTuple):
    """An activation after selection and rounding; all that travels."""

    kept: Tensor  # (n, tokens, channels) bool
    symbols: Tensor  # (n, tokens, channels) int16, index into the number format with a sign, 0 where dropped
    scale: Tensor  # float32, broadcasts against the activation


def quantise(activation: Tensor, recipe: Recipe, site: Site | None = None) -> Quantised:
    """Select and round.

    Parameters
    ----------
    activation : (n, tokens, channels) float32
        Finite.
    recipe : Recipe
        Any but float32 numbers.
    site : Site, optional
        Learned scores, centre and step; without it the largest entries are kept.
    """
    deviation = activation if site is None else activation - site.centre
    kept = select(deviation, recipe.keep, site)
    scale = torch.tensor([[[site.step]]]) if site else _scale(deviation * kept, recipe)
    return _rounded(deviation, kept, scale, recipe)


def dequantise(quantised: Quantised, recipe: Recipe, site: Site | None = None) -> Tensor:
    """Return the activation (n, tokens, channels) float32 that the receiver works with."""
    symbols = quantised.symbols.int()
    values = magnitudes_of(recipe)[symbols.abs()] * symbols.sign() * quantised.scale
    return values if site is None else values + site.centre


def reconstruct(activation: Tensor, recipe: Recipe, site: Site | None = None) -> Tensor:
    """Return what ``decode(encode(activation))`` gives, to the bit, without making bytes."""
    if recipe.number == "float32":
        kept = select(activation if site is None else activation - site.centre, recipe.keep, site)
        return torch.where(kept, activation, torch.zeros(()) if site is None else site.centre)
    return dequantise(quantise(activation, recipe, site), recipe, site)


def select(deviation: Tensor, keep: float, site: Site | None) -> Tensor:
    """Return which entries (n, tokens, channels) are kept: in each sample those with the highest scores."""
    n, tokens, channels = deviation.shape
    count = n_kept(keep, tokens * channels)
    if count == tokens * channels:
        return torch.ones_like(deviation, dtype=torch.bool)
    scores = deviation.abs() if site is None else site.bias + site.weight * deviation.abs()
    highest = scores.flatten(1).topk(count, dim=1, sorted=False).indices
    return torch.zeros(n, tokens * channels, dtype=torch.bool).scatter_(1, highest, True).view_as(deviation)


def n_kept(keep: float, n_entries: int) -> int:
    """Return how many of the entries of a sample are kept, at least one."""
    return max(1, round(keep * n_entries))


def magnitudes_of(recipe: Recipe) -> Tensor:
    """Return the non-negative values of a number format, increasing, (2 ** (bits - 1),) float32."""
    if recipe.number == "int":
        return torch.arange(2 ** (recipe.bits - 1), dtype=torch.float32)
    exponent_bits = EXPONENT_BITS[recipe.bits]
    mantissa_bits = recipe.bits - 1 - exponent_bits
    code = torch.arange(2 ** (recipe.bits - 1))
    exponent, mantissa = code >> mantissa_bits, code & (2**mantissa_bits - 1)
    fraction = mantissa / 2**mantissa_bits + (exponent > 0)  # subnormal where the exponent is 0
    magnitudes: Tensor = fraction * 2.0 ** (exponent.clamp(min=1) - 2 ** (exponent_bits - 1) + 1)
    return magnitudes


def calibrate(activation: Tensor, recipe: Recipe, centre: Tensor, bias: Tensor, weight: Tensor) -> Site:
    """Learn step and statistics of a site from activations (n, tokens, channels) of the training set."""
    plain = Statistics(*(np.zeros(0),) * 4)
    site = Site(centre, bias, weight, 1.0, plain)
    if recipe.number == "float32":
        return site
    deviation = activation - centre
    kept = select(deviation, recipe.keep, site)
    size = float(deviation[kept].square().mean().sqrt())
    largest = float(magnitudes_of(recipe)[-1])
    span = recipe.span * size if np.isfinite(recipe.span) else float(deviation[kept].abs().max())
    # The step goes through float32 as the payload's scales do.
    step = float(np.float32(span / largest))
    quantised = _rounded(deviation, kept, torch.tensor([[[step]]]), recipe)
    return Site(centre, bias, weight, step, _statistics(quantised, axis=(0,)))


MAX_ENTRIES = 2**26  # of a payload; what decoding one may allocate is bounded by it
MAGIC = b"SATC"
VERSION = 1
HEADER = struct.Struct("<4sBBBBfIIIIII")  # .. keep, n, tokens, channels, site, body bytes, checksum


def encode(activation: Tensor, recipe: Recipe, site: Site | None = None) -> bytes:
    """Encode an activation.

    Parameters
    ----------
    activation : (n, tokens, channels) float32
        At least one entry and at most `MAX_ENTRIES`, all finite.
    recipe : Recipe
    site : Site, optional
        What the receiver knows too; it needs the same one to decode.

    Returns
    -------
    bytes
        Header with shape and checksum, then mask, scales and values.

    Raises
    ------
    ValueError
        If the activation has another shape or type (a site's is given), or is not finite.
    """
    if activation.ndim != 3 or activation.dtype != torch.float32:
        raise ValueError(
            f"activation has shape {tuple(activation.shape)} and type {activation.dtype}, "
            "allowed is (n, tokens, channels) float32"
        )
    _check_shape(tuple(activation.shape), site)
    if not torch.isfinite(activation).all():
        raise ValueError("activation holds NaN or infinity, allowed are finite values")
    activation = activation.detach()
    if recipe.number == "float32":
        kept = select(activation if site is None else activation - site.centre, recipe.keep, site).numpy()
        body = _packed_mask(kept, recipe) + activation.numpy()[kept].tobytes()
    else:
        body = _body(quantise(activation, recipe, site), recipe, site)
    head = HEADER.pack(
        MAGIC,
        VERSION,
        NUMBERS.index(recipe.number),
        recipe.bits,
        recipe.entropy + 2 * (recipe.per == "token"),
        recipe.keep,
        *activation.shape,
        site.fingerprint() if site else 0,
        len(body),
        0,
    )
    checksum = zlib.crc32(body, zlib.crc32(head[:-4]))
    return b"".join([head[:-4], struct.pack("<I", checksum), body])


def _check_shape(shape: tuple[int, ...], site: Site | None) -> None:
    if not 1 <= math.prod(shape) <= MAX_ENTRIES:
        raise ValueError(
            f"activation has shape {shape}, allowed are 1 to {MAX_ENTRIES} entries: split the batch"
        )
    if site is not None and shape[1:] != site.centre.shape:
        raise ValueError(
            f"activation has shape {shape}, allowed at this site is (n, {', '.join(map(str, site.centre.shape))})"
        )


def decode(payload: bytes, site: Site | None = None) -> Tensor:
    """Decode what `encode` made, to the activation (n, tokens, channels) float32.

    Raises
    ------
    CodecError
        If the bytes are foreign, damaged, or need another site than the one given.
    """
    if len(payload) < HEADER.size or payload[:4] != MAGIC:
        raise CodecError("these bytes are no activation payload: the magic number is missing")
    _, version, number, bits, flags, keep, n, tokens, channels, fingerprint, n_body, crc = HEADER.unpack_from(
        payload
    )
    if version != VERSION:
        raise CodecError(f"payload version is {version}, allowed is {VERSION}")
    body = payload[HEADER.size :]
    if len(body) != n_body:
        raise CodecError(f"payload is cut or extended: {len(body)} bytes of body, {n_body} announced")
    if zlib.crc32(body, zlib.crc32(payload[: HEADER.size - 4])) != crc:
        raise CodecError("payload is damaged: its checksum does not fit")
    if fingerprint != (site.fingerprint() if site else 0):
        raise CodecError("payload was encoded with another site than the one given to decode it")
    shape = (n, tokens, channels)
    try:
        if flags > 3:
            raise ValueError(f"flags is {flags}, allowed are 0 to 3")
        recipe = Recipe(
            "received",
            keep=keep,
            number=NUMBERS[number],  # type: ignore[arg-type]
            bits=bits,
            entropy=bool(flags & 1),
            per="token" if flags & 2 else "channel",
        )
        return _decoded(body, shape, recipe, site)
    except (ValueError, IndexError, AssertionError) as error:  # the last is the entropy coder's
        raise CodecError(f"payload says what no encoder writes: {error}") from error


def _decoded(body: bytes, shape: tuple[int, int, int], recipe: Recipe, site: Site | None) -> Tensor:
    """Return the activation of this shape that a payload's body holds; ValueError if it holds none."""
    _check_shape(shape, site)
    if recipe.number == "float32":
        kept, rest = _unpacked_mask(body, shape, recipe)
        values = (
            np.zeros(shape, np.float32) if site is None else np.tile(site.centre.numpy(), (shape[0], 1, 1))
        )
        sent = np.frombuffer(rest, np.float32)
        if len(sent) != kept.sum() or not np.isfinite(sent).all():
            raise ValueError(f"{len(sent)} values, allowed are {kept.sum()} finite ones")
        values[kept] = sent
        return torch.from_numpy(values)
    return dequantise(_quantised(body, shape, recipe, site), recipe, site)


def information_bits(activation: Tensor, recipe: Recipe, site: Site) -> float:
    """Return the information (bits) of an activation's mask and values under the site's statistics.

    This is -log2 of their probability, the least that any coder with these statistics needs on average.
    """
    quantised = quantise(activation, recipe, site)
    kept = quantised.kept.numpy()
    statistics = Statistics(*(np.broadcast_to(array, kept.shape) for array in site.statistics))
    size = np.abs(quantised.symbols.numpy())
    bits = -np.log2(np.where(kept, statistics.kept, 1 - statistics.kept)).sum() if recipe.keep < 1 else 0.0
    mean, spread, x = statistics.magnitude[kept], statistics.spread[kept], size[kept]
    top = 2 ** (recipe.bits - 1) - 1
    lower = np.where(x == 0, 0.0, ndtr((x - 0.5 - mean) / spread))
    upper = np.where(x == top, 1.0, ndtr((x + 0.5 - mean) / spread))
    # The coder works with 24-bit probabilities and gives every symbol at least one unit.
    bits -= np.log2(np.maximum(upper - lower, 2.0**-24)).sum()
    signed = kept & (size > 0)
    negative = quantised.symbols.numpy()[signed] < 0
    p = statistics.negative[signed]
    return float(bits - np.log2(np.where(negative, p, 1 - p)).sum())


def _rounded(deviation: Tensor, kept: Tensor, scale: Tensor, recipe: Recipe) -> Quantised:
    """Round what is kept of the deviations (n, tokens, channels) to the number format."""
    magnitudes = magnitudes_of(recipe)
    size = deviation.abs() / scale
    if recipe.number == "int":
        index = size.round().clamp(max=float(magnitudes[-1]))
    else:
        index = torch.bucketize(size, (magnitudes[1:] + magnitudes[:-1]) / 2)
    return Quantised(kept, (index * deviation.sign() * kept).to(torch.int16), scale)


def _scale(deviation: Tensor, recipe: Recipe) -> Tensor:
    """Scale (1, 1, channels) or (n, tokens, 1) that maps the largest entry, or the span, to the top."""
    axes = (0, 1) if recipe.per == "channel" else (2,)
    largest = deviation.abs().amax(axes, keepdim=True)
    if recipe.number == "int" and np.isfinite(recipe.span):
        count = (deviation != 0).sum(axes, keepdim=True).clamp(min=1)
        rms = (deviation.square().sum(axes, keepdim=True) / count).sqrt()
        largest = torch.minimum(largest, recipe.span * rms)
    scale = largest / magnitudes_of(recipe)[-1]
    return torch.where(
        scale > 0, scale, torch.ones(())
    )  # 0 also where the largest is too small to be divided


def _statistics(quantised: Quantised, axis: tuple[int, ...]) -> Statistics:
    """Statistics over the given axes, drawn a little towards their average where little was seen."""
    kept = quantised.kept.numpy()
    symbols = quantised.symbols.numpy()  # 0 where dropped
    n = kept.sum(axis, keepdims=True)
    total = kept.size / n.size
    size = np.abs(symbols).sum(axis, keepdims=True, dtype=np.float64)
    square = np.square(symbols).sum(axis, keepdims=True, dtype=np.float64)  # at most 127^2: int16 holds it
    prior = 2.0  # observations
    n_all = n.sum()
    mean_all = size.sum() / n_all
    variance_all = square.sum() / n_all - mean_all**2
    mean = (size + prior * mean_all) / (n + prior)
    deviation = square - 2 * mean * size + n * mean**2  # sum of (size - mean)^2 over the kept
    spread = np.sqrt(np.maximum(deviation + prior * variance_all, 0.0) / (n + prior))
    n_signed = (symbols != 0).sum(axis, keepdims=True)
    negative = ((symbols < 0).sum(axis, keepdims=True) + 0.5) / (n_signed + 1.0)
    chance = np.clip((n + 0.02) / (total + 0.04), 2**-11, 1 - 2**-11)  # float16 knows nothing nearer to 1
    statistics = Statistics(chance, negative, mean, np.maximum(spread, 0.2))
    return Statistics(*(np.asarray(array, np.float16).astype(np.float64) for array in statistics))


def _body(quantised: Quantised, recipe: Recipe, site: Site | None) -> bytes:
    kept, symbols = quantised.kept.numpy(), quantised.symbols.numpy()
    scales = b"" if site else quantised.scale.numpy().tobytes()
    if not recipe.entropy:
        return _packed_mask(kept, recipe) + scales + _packed(symbols[kept], recipe.bits)
    statistics = site.statistics if site else _statistics(quantised, axis=(0, 1))
    sent = b"" if site else b"".join(array.astype(np.float16).tobytes() for array in statistics)
    coder = constriction.stream.queue.RangeEncoder()
    if recipe.keep < 1:
        coder.encode(kept.ravel().astype(np.int32), BERNOULLI, _at(statistics.kept, np.ones_like(kept)))
    size = np.abs(symbols)
    coder.encode(
        size[kept].astype(np.int32),
        _gaussian(recipe),
        _at(statistics.magnitude, kept),
        _at(statistics.spread, kept),
    )
    signed = kept & (size > 0)
    coder.encode((symbols[signed] < 0).astype(np.int32), BERNOULLI, _at(statistics.negative, signed))
    return b"".join([scales, sent, coder.get_compressed().astype("<u4").tobytes()])


def _quantised(body: bytes, shape: tuple[int, int, int], recipe: Recipe, site: Site | None) -> Quantised:
    n, tokens, channels = shape
    if not recipe.entropy:
        kept, body = _unpacked_mask(body, shape, recipe)
    if site is None:
        scale_shape = (1, 1, channels) if recipe.per == "channel" else (n, tokens, 1)
        n_scales = int(np.prod(scale_shape))
        scale = torch.from_numpy(np.frombuffer(body, np.float32, n_scales).reshape(scale_shape).copy())
        if not (torch.isfinite(scale) & (scale > 0)).all():
            raise ValueError("a scale is not finite or not above 0")
        body = body[4 * n_scales :]
    else:
        scale = torch.tensor([[[site.step]]])
    symbols = np.zeros(shape, np.int16)
    if not recipe.entropy:
        symbols[kept] = _unpacked(body, int(kept.sum()), recipe.bits)
        return Quantised(torch.from_numpy(kept), torch.from_numpy(symbols), scale)
    if site is None:
        sent = np.frombuffer(body, np.float16, 4 * channels).astype(np.float64)
        statistics = Statistics(*sent.reshape(4, 1, 1, channels))
        chances = np.stack([statistics.kept, statistics.negative])
        # The coder does not refuse these: it panics.
        if not (
            np.isfinite(sent).all() and (statistics.spread > 0).all() and (abs(chances - 0.5) <= 0.5).all()
        ):
            raise ValueError("statistics are no probabilities, means and spreads")
        body = body[8 * channels :]
    else:
        statistics = site.statistics
    coder = constriction.stream.queue.RangeDecoder(np.frombuffer(body, "<u4").astype(np.uint32))
    kept = np.ones(shape, bool)
    if recipe.keep < 1:
        kept = coder.decode(BERNOULLI, _at(statistics.kept, kept)).reshape(shape).astype(bool)
    symbols[kept] = coder.decode(
        _gaussian(recipe), _at(statistics.magnitude, kept), _at(statistics.spread, kept)
    )
    signed = kept & (symbols > 0)
    symbols[signed] *= 1 - 2 * coder.decode(BERNOULLI, _at(statistics.negative, signed)).astype(np.int16)
    if not coder.maybe_exhausted():
        raise ValueError("more bytes than the entries take")
    return Quantised(torch.from_numpy(kept), torch.from_numpy(symbols), scale)


BERNOULLI = constriction.stream.model.Bernoulli(perfect=False)


def _gaussian(recipe: Recipe) -> Any:
    return constriction.stream.model.QuantizedGaussian(0, 2 ** (recipe.bits - 1) - 1)


def _at(parameter: Array, where: Array) -> Array:
    """Return the parameter of each entry that is coded, in order."""
    return np.broadcast_to(parameter, where.shape)[where]


def _packed_mask(kept: Array, recipe: Recipe) -> bytes:
    return np.packbits(kept).tobytes() if recipe.keep < 1 else b""


def _unpacked_mask(body: bytes, shape: tuple[int, int, int], recipe: Recipe) -> tuple[Array, bytes]:
    if recipe.keep == 1:
        return np.ones(shape, bool), body
    n_entries = int(np.prod(shape))
    n_bytes = -(-n_entries // 8)
    bits = np.unpackbits(np.frombuffer(body, np.uint8, n_bytes), count=n_entries)
    return bits.reshape(shape).astype(bool), body[n_bytes:]


def _packed(symbols: Array, bits: int) -> bytes:
    """Pack symbols at `bits` each, as unsigned offsets."""
    codes = (symbols + 2 ** (bits - 1)).astype(np.uint8)
    if bits < 8:
        codes = np.packbits(codes[:, None] >> np.arange(bits, dtype=np.uint8) & 1)
    return bytes(codes)


def _unpacked(body: bytes, count: int, bits: int) -> Array:
    if len(body) != -(-count * bits // 8):
        raise ValueError(f"{len(body)} bytes of values, allowed are {-(-count * bits // 8)}")
    raw: Array = np.frombuffer(body, np.uint8)
    if bits < 8:
        planes = np.unpackbits(raw, count=count * bits).reshape(count, bits)
        raw = (planes << np.arange(bits, dtype=np.uint8)).sum(1)
    symbols: Array = raw.astype(np.int16) - 2 ** (bits - 1)
    return symbols
