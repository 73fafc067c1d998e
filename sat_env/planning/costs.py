"""What the predicted outcome of a plan depends on, as plain arrays.

A chain has K satellite slots (index 0..K-1, slot 0 senses) and the ground (index K); a model has L blocks;
what leaves a slot is encoded at one of R levels; a job is M identical micro-batches.

A **plan** is two int64 arrays. ``cuts`` (K,) is non-decreasing in 0..L: slot i holds blocks
``cuts[i-1]..cuts[i]`` (``cuts[-1]`` stands for 0 here) and the ground holds the rest. ``levels`` (K,) says
how each slot encodes the activation it sends. A slot without blocks is skipped: the hop joins the last slot
that holds blocks (or slot 0, where the raw input is) to the next that does, or to the ground, which receives
the result even when it holds no block. A level counts only where an activation (boundary 0 < l < L) leaves a
slot that holds blocks; in a **canonical** plan all the others are 0.
"""

import reprlib
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sat_env.kernels import allocating_kernel, inner

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

GROUND_NONE, GROUND_ALL_OR_NONE, GROUND_ANY = 0, 1, 2
"""What the ground may hold: no block; all of them or none; any tail of the model."""


class Costs(NamedTuple):
    """One planning problem. Build it with `costs_from_arrays`, which checks it.

    Times are seconds for ONE micro-batch unless said otherwise; releases are relative to now. Boundary l is
    what enters block l: row 0 is the raw input, row L the result; in both rows all levels are alike and free
    of codec time and error.
    """

    compute_s: F64  # (K+1, L) block l on slot k; inf: cannot
    boundary_bytes: F64  # (L+1, R) what leaves at boundary l, encoded at level r
    encode_s: F64  # (K+1, L+1, R) on the sender's own codec, beside its accelerator
    decode_s: F64  # (K+1, L+1, R) on the receiver's
    rate_bps: F64  # (K, K+1) hop from slot i to slot j > i, upper triangle; 0: unusable
    latency_s: F64  # (K, K+1) delay that does not occupy the hop
    stage_release_s: F64  # (K+1,) when the slot is free
    hop_release_s: F64  # (K, K+1) when the hop is free
    load_s: F64  # (K+1, L) to load block l on slot k before its first micro-batch; 0: resident
    memory_bytes: F64  # (L,) what a block occupies
    memory_free_bytes: F64  # (K+1,)
    error: F64  # (L+1, R) error of encoding boundary l at level r
    error_budget: float  # the errors of a plan add up to at most this
    micro_batches: int  # M; in decoding, the groups in flight
    ground_hosts: int  # GROUND_NONE | GROUND_ALL_OR_NONE | GROUND_ANY
    n_tokens: int  # tokens each group generates after the prefill; 0: no decoding
    token_compute_s: F64  # (K+1, L) block l on slot k for one token-step of one group
    token_bytes: F64  # (L+1, R) as boundary_bytes, for one token-step of one group
    return_s: F64  # (K+1,) latency from the last stage back to slot 0, where the next token starts


class Prices(NamedTuple):
    """What a plan costs beyond its makespan, in seconds of makespan; `neutral_prices` prices nothing.

    Compute and transfer seconds are those of the whole job: M micro-batches and all their tokens.
    """

    load_weight: float  # multiplies load_s; 1: the true latency, below 1: spread over a horizon
    bottleneck: float  # x compute seconds of the busiest satellite
    stage_price: F64  # (K+1,) x compute seconds of the slot
    hop_price: F64  # (K, K+1) x transfer seconds of the hop
    hop_fixed_s: F64  # (K, K+1) for each hop used (its outage risk, say)


def neutral_prices(slots: int) -> Prices:
    """Prices under which the objective is the makespan, for a chain of K = `slots` satellite slots."""
    return prices_from_arrays(slots)


def prices_from_arrays(
    slots: int,
    *,
    load_weight: float = 1.0,
    bottleneck: float = 0.0,
    stage_price: npt.ArrayLike = 0.0,
    hop_price: npt.ArrayLike = 0.0,
    hop_fixed_s: npt.ArrayLike = 0.0,
) -> Prices:
    """Check prices and bring them to their shapes; scalars are broadcast.

    Parameters
    ----------
    slots
        K, satellite slots of the chain.
    load_weight, bottleneck, stage_price, hop_price, hop_fixed_s
        As in `Prices`; all finite and not negative.

    Raises
    ------
    ValueError
        A price is negative, not finite, or of the wrong shape.
    """
    k = slots
    return Prices(
        load_weight=float(_array("load_weight", load_weight, ())),
        bottleneck=float(_array("bottleneck", bottleneck, ())),
        stage_price=_array("stage_price", stage_price, (k + 1,)),
        hop_price=_array("hop_price", hop_price, (k, k + 1)),
        hop_fixed_s=_array("hop_fixed_s", hop_fixed_s, (k, k + 1)),
    )


def costs_from_arrays(
    compute_s: npt.ArrayLike,
    boundary_bytes: npt.ArrayLike,
    rate_bps: npt.ArrayLike,
    *,
    micro_batches: int = 1,
    ground_hosts: int = GROUND_ANY,
    latency_s: npt.ArrayLike = 0.0,
    encode_s: npt.ArrayLike = 0.0,
    decode_s: npt.ArrayLike = 0.0,
    stage_release_s: npt.ArrayLike = 0.0,
    hop_release_s: npt.ArrayLike = 0.0,
    load_s: npt.ArrayLike = 0.0,
    memory_bytes: npt.ArrayLike = 0.0,
    memory_free_bytes: npt.ArrayLike = np.inf,
    error: npt.ArrayLike = 0.0,
    error_budget: float = np.inf,
    n_tokens: int = 0,
    token_compute_s: npt.ArrayLike = 0.0,
    token_bytes: npt.ArrayLike = 0.0,
    return_s: npt.ArrayLike = 0.0,
) -> Costs:
    """Check a planning problem and bring its arrays to their shapes.

    Parameters
    ----------
    compute_s
        (K+1, L); its shape sets K and L.
    boundary_bytes
        (L+1, R), or (L+1,) for a single level.
    rate_bps
        (K, K+1); entries on and below the diagonal are never read.
    micro_batches, ground_hosts, latency_s, ..., return_s
        As in `Costs`. Scalars and trailing shapes are broadcast; the defaults switch each feature off. A
        scalar `encode_s`, `decode_s` or `error` is set to zero in rows 0 and L, where nothing is encoded.

    Raises
    ------
    ValueError
        One line naming the field, its value and what is allowed.
    """
    compute = _numbers("compute_s", compute_s)
    if compute.ndim != 2 or compute.shape[0] < 2 or compute.shape[1] < 1:
        raise ValueError(f"compute_s has shape {compute.shape}; needs (K+1, L) with K >= 1 and L >= 1")
    k, n = compute.shape[0] - 1, compute.shape[1]
    sent = _numbers("boundary_bytes", boundary_bytes)
    sent = sent[:, None] if sent.ndim == 1 else sent
    if sent.ndim != 2 or sent.shape[0] != n + 1 or sent.shape[1] < 1:
        raise ValueError(f"boundary_bytes has shape {sent.shape}; needs (L+1, R) with L = {n} and R >= 1")
    r = sent.shape[1]

    def inner(name: str, value: npt.ArrayLike, shape: tuple[int, ...]) -> F64:
        """Rows 0 and L of the boundary axis (last but one) are free; a scalar means the rows between."""
        array = _array(name, value, shape)
        if np.ndim(value) == 0:
            array[..., 0, :] = array[..., n, :] = 0.0
        if np.any(array[..., 0, :] != 0.0) or np.any(array[..., n, :] != 0.0):
            raise ValueError(f"{name} is not zero in boundary rows 0 and L = {n}; nothing is encoded there")
        return array

    costs = Costs(
        compute_s=_array("compute_s", compute, (k + 1, n), allow_inf=True),
        boundary_bytes=_array("boundary_bytes", sent, (n + 1, r)),
        encode_s=inner("encode_s", encode_s, (k + 1, n + 1, r)),
        decode_s=inner("decode_s", decode_s, (k + 1, n + 1, r)),
        rate_bps=_array("rate_bps", rate_bps, (k, k + 1)),
        latency_s=_array("latency_s", latency_s, (k, k + 1)),
        stage_release_s=_array("stage_release_s", stage_release_s, (k + 1,)),
        hop_release_s=_array("hop_release_s", hop_release_s, (k, k + 1)),
        load_s=_array("load_s", load_s, (k + 1, n)),
        memory_bytes=_array("memory_bytes", memory_bytes, (n,)),
        memory_free_bytes=_array("memory_free_bytes", memory_free_bytes, (k + 1,), allow_inf=True),
        error=inner("error", error, (n + 1, r)),
        error_budget=float(_array("error_budget", error_budget, (), allow_inf=True)),
        micro_batches=_integer("micro_batches", micro_batches, 1, None),
        ground_hosts=_integer("ground_hosts", ground_hosts, GROUND_NONE, GROUND_ANY),
        n_tokens=_integer("n_tokens", n_tokens, 0, None),
        token_compute_s=_array("token_compute_s", token_compute_s, (k + 1, n)),
        token_bytes=_array("token_bytes", token_bytes, (n + 1, r)),
        return_s=_array("return_s", return_s, (k + 1,)),
    )
    for name in ("boundary_bytes", "token_bytes"):
        table = getattr(costs, name)
        if np.any(table[[0, n]] != table[[0, n], :1]):
            raise ValueError(f"{name} differs between levels in row 0 or L = {n}; nothing is encoded there")
    return costs


def check_plan(costs: Costs, cuts: npt.ArrayLike, levels: npt.ArrayLike) -> tuple[I64, I64]:
    """Check a plan and bring it to int64: the kernels of this package trust what they are given.

    Parameters
    ----------
    costs
        The problem.
    cuts, levels
        (K,) as the module says.

    Returns
    -------
    cuts, levels
        (K,) int64 copies.

    Raises
    ------
    ValueError
        A wrong shape, cuts that decrease or leave 0..L, levels outside 0..R-1.
    """
    return checked_plan(cuts, levels, costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1])


def checked_plan(
    cuts: npt.ArrayLike, levels: npt.ArrayLike, n_slots: int, n_blocks: int, n_levels: int
) -> tuple[I64, I64]:
    """Do what `check_plan` does where there is no problem: K slots, L blocks, R levels."""
    checked = []
    for name, value, high in (("cuts", cuts, n_blocks), ("levels", levels, n_levels - 1)):
        try:
            array = np.asarray(value)
        except ValueError:  # lists of different lengths
            array = np.empty(0)
        whole = array.shape == (n_slots,) and array.dtype.kind in "iuf" and np.all(array == np.floor(array))
        if (
            not whole
            or array.min() < 0
            or array.max() > high
            or (name == "cuts" and np.any(array[1:] < array[:-1]))
        ):
            shown = value.tolist() if isinstance(value, np.ndarray) else value
            order = "non-decreasing " if name == "cuts" else ""
            raise ValueError(f"{name} = {shown}: must be {n_slots} {order}integers in 0..{high}")
        checked.append(array.astype(np.int64))
    return checked[0], checked[1]


def check_prices(costs: Costs, prices: Prices) -> None:
    """Refuse prices for a chain of another length, of one problem or of a batch: kernels trust their shapes.

    Raises
    ------
    ValueError
        A field of another shape.
    """
    k = costs.rate_bps.shape[-2]
    for name, shape in (("stage_price", (k + 1,)), ("hop_price", (k, k + 1)), ("hop_fixed_s", (k, k + 1))):
        found = np.shape(getattr(prices, name))
        if found[-len(shape) :] != shape:
            raise ValueError(f"prices.{name} has shape {found}; needs {shape}, of a chain of {k} slots")


@inner
def costs_row(costs: Any, b: int) -> Costs:
    """Return problem b of a batch: the same tuple with a leading axis B on every field."""
    return Costs(
        costs.compute_s[b],
        costs.boundary_bytes[b],
        costs.encode_s[b],
        costs.decode_s[b],
        costs.rate_bps[b],
        costs.latency_s[b],
        costs.stage_release_s[b],
        costs.hop_release_s[b],
        costs.load_s[b],
        costs.memory_bytes[b],
        costs.memory_free_bytes[b],
        costs.error[b],
        costs.error_budget[b],
        costs.micro_batches[b],
        costs.ground_hosts[b],
        costs.n_tokens[b],
        costs.token_compute_s[b],
        costs.token_bytes[b],
        costs.return_s[b],
    )


@inner
def prices_row(prices: Any, b: int) -> Prices:
    """Return the prices of problem b of a batch."""
    return Prices(
        prices.load_weight[b],
        prices.bottleneck[b],
        prices.stage_price[b],
        prices.hop_price[b],
        prices.hop_fixed_s[b],
    )


@allocating_kernel
def make_canonical(n_blocks: int, cuts: I64, levels: I64) -> None:
    """Set to 0, in place, every level that has no effect."""
    start = 0
    for k in range(len(cuts)):
        if cuts[k] == start or cuts[k] == n_blocks:
            levels[k] = 0
        start = cuts[k]


def _numbers(name: str, value: npt.ArrayLike) -> F64:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} = {reprlib.repr(value)}; needs numbers, in rows of one length") from None


def _array(name: str, value: Any, shape: tuple[int, ...], *, allow_inf: bool = False) -> F64:
    """Make a fresh C-contiguous float64 array of `shape`, without nan or negative entries."""
    numbers = _numbers(name, value)
    try:
        array = np.array(np.broadcast_to(numbers, shape), order="C")
    except ValueError:
        raise ValueError(f"{name} has shape {numbers.shape}; needs numbers of shape {shape}") from None
    bad = np.isnan(array) | (array < 0.0) | (np.isinf(array) & (not allow_inf))
    if np.any(bad):
        allowed = "non-negative numbers or inf" if allow_inf else "finite non-negative numbers"
        raise ValueError(f"{name} holds {array[bad].flat[0]}; allowed are {allowed}")
    return array


def _integer(name: str, value: int, low: int, high: int | None) -> int:
    whole = isinstance(value, Real) and not isinstance(value, bool) and np.floor(value) == value < np.inf
    if not whole or value < low or (high is not None and value > high):
        raise ValueError(f"{name} = {value!r}; allowed are integers {low}..{'' if high is None else high}")
    return int(value)
