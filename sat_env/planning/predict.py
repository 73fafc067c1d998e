r"""The predicted outcome of a plan: the pipeline recurrence with unlimited buffers and the rates known now.

Every resource on the way of a micro-batch (a slot's accelerator, its codecs, a hop) is a server that takes
the micro-batches in order. A server with service time x, free from time r on, turns the completion curve A(m)
of the server before it into

    C(0) = r,   C(m) = max(C(m-1), A(m)) + x,   m = 1..M
         = max(r + m x, max_{j<=m} A(j) + (m - j + 1) x).

If A is convex in m, so is A(j) - j x in j, and a convex function on 1..m is largest at an end:

    C(m) = max(r + m x, A(1) + m x, A(m) + x),

which is convex in m again, as a maximum of convex functions. The source, A(m) = 0, is convex, and a latency
only shifts the curve. So for identical micro-batches the whole curve need never be carried: its two ends are
exact through any number of servers,

    first' = max(r, first) + x,   last' = max(r + M x, first + M x, last + x).

Without releases this is the known sum + (M-1) * bottleneck of a linear pipeline. Micro-batches that differ,
or slots of finite size, need the full recurrence of `sat_env.pipeline`.
"""

import numpy as np
import numpy.typing as npt

from sat_env.kernels import allocating_kernel, part
from sat_env.planning.costs import (
    GROUND_ALL_OR_NONE,
    GROUND_NONE,
    I64,
    Costs,
    Prices,
    check_plan,
    check_prices,
)


@part
def serve(first: float, last: float, service_s: float, release_s: float, m: int) -> tuple[float, float]:
    """Completion of micro-batches 1 and `m` (the last) after one more server; see the module."""
    return (
        max(release_s, first) + service_s,
        max(release_s + m * service_s, first + m * service_s, last + service_s),
    )


@part
def transfer_s(costs: Costs, i: int, j: int, boundary: int, level: int) -> float:
    """Seconds one micro-batch occupies the hop i -> j; inf where the hop is unusable."""
    rate = costs.rate_bps[i, j]
    return 8.0 * costs.boundary_bytes[boundary, level] / rate if rate > 0.0 else np.inf


@part
def token_ratio(costs: Costs, boundary: int, level: int) -> float:
    """Bytes of one token-step per byte of a micro-batch: transfer and codec seconds scale with it."""
    whole = costs.boundary_bytes[boundary, level]
    return costs.token_bytes[boundary, level] / whole if whole > 0.0 else 0.0


@part
def summed_error(costs: Costs, cuts: I64, levels: I64) -> float:
    """Return `plan_error`."""
    total = 0.0
    start = 0
    for k in range(len(cuts)):
        if cuts[k] > start and cuts[k] < costs.compute_s.shape[1]:
            total += costs.error[cuts[k], levels[k]]
        start = cuts[k]
    return total


@allocating_kernel
def trusted_error(costs: Costs, cuts: I64, levels: I64) -> float:
    """Return `plan_error` of a plan that is one."""
    total: float = summed_error(costs, cuts, levels)
    return total


@part
def makespan(costs: Costs, load_weight: float, cuts: I64, levels: I64) -> float:
    """Seconds from now until the last result is on the ground, loads weighed by `load_weight`.

    See `predict`, which is this with the true loads.
    """
    n_slots = costs.rate_bps.shape[0]
    n_blocks = costs.compute_s.shape[1]
    m = costs.micro_batches
    on_ground = n_blocks - cuts[n_slots - 1]
    if on_ground > 0 and costs.ground_hosts == GROUND_NONE:
        return np.inf
    if 0 < on_ground < n_blocks and costs.ground_hosts == GROUND_ALL_OR_NONE:
        return np.inf
    if not summed_error(costs, cuts, levels) <= costs.error_budget:
        return np.inf

    first, last = 0.0, 0.0
    loop_s, slowest_s = 0.0, 0.0  # of one token: the way round, and its slowest server
    sender, boundary = 0, 0  # slot 0 senses: it sends the raw input if it holds no block
    for k in range(n_slots + 1):
        end = n_blocks if k == n_slots else cuts[k]
        if end == boundary and k < n_slots:
            continue
        if k != 0:  # the hop sender -> k; to a ground without blocks it carries the result
            level = levels[sender] if 0 < boundary < n_blocks else 0
            sending_s = transfer_s(costs, sender, k, boundary, level)
            if sending_s == np.inf:
                return np.inf
            encode_s, decode_s = costs.encode_s[sender, boundary, level], costs.decode_s[k, boundary, level]
            first, last = serve(first, last, encode_s, 0.0, m)
            first, last = serve(first, last, sending_s, costs.hop_release_s[sender, k], m)
            first += costs.latency_s[sender, k]
            last += costs.latency_s[sender, k]
            first, last = serve(first, last, decode_s, 0.0, m)
            ratio = token_ratio(costs, boundary, level)
            slowest_s = max(slowest_s, ratio * max(encode_s, sending_s, decode_s))
            if boundary < n_blocks:  # the result is streamed to the ground beside the loop
                loop_s += ratio * (encode_s + sending_s + decode_s) + costs.latency_s[sender, k]
        if end > boundary:
            work_s, token_s, load_s, memory = 0.0, 0.0, 0.0, 0.0
            for block in range(boundary, end):
                work_s += costs.compute_s[k, block]
                token_s += costs.token_compute_s[k, block]
                load_s += costs.load_s[k, block]
                memory += costs.memory_bytes[block]
            if memory > costs.memory_free_bytes[k] or work_s == np.inf:
                return np.inf
            first, last = serve(first, last, work_s, costs.stage_release_s[k] + load_weight * load_s, m)
            loop_s += token_s
            slowest_s = max(slowest_s, token_s)
            if end == n_blocks:
                loop_s += costs.return_s[k]
            sender, boundary = k, end
    return last + costs.n_tokens * max(loop_s, m * slowest_s)


@part
def price_terms(costs: Costs, prices: Prices, cuts: I64, levels: I64) -> float:
    """Return what `prices` adds to the makespan of a feasible plan."""
    n_slots = costs.rate_bps.shape[0]
    n_blocks = costs.compute_s.shape[1]
    m, tokens = costs.micro_batches, costs.n_tokens
    total, busiest_s = 0.0, 0.0
    sender, boundary = 0, 0
    for k in range(n_slots + 1):
        end = n_blocks if k == n_slots else cuts[k]
        if end == boundary and k < n_slots:
            continue
        if k != 0:
            level = levels[sender] if 0 < boundary < n_blocks else 0
            sending_s = transfer_s(costs, sender, k, boundary, level)
            job_s = m * sending_s * (1.0 + tokens * token_ratio(costs, boundary, level))
            total += prices.hop_price[sender, k] * job_s + prices.hop_fixed_s[sender, k]
        if end > boundary:
            work_s, token_s = 0.0, 0.0
            for block in range(boundary, end):
                work_s += costs.compute_s[k, block]
                token_s += costs.token_compute_s[k, block]
            job_s = m * (work_s + tokens * token_s)
            total += prices.stage_price[k] * job_s
            if k < n_slots:
                busiest_s = max(busiest_s, job_s)
            sender, boundary = k, end
    return total + prices.bottleneck * busiest_s


@allocating_kernel
def trusted_predict(costs: Costs, cuts: I64, levels: I64) -> float:
    """Return `predict` of a plan that is one: int64, checked or made by a planner."""
    span_s: float = makespan(costs, 1.0, cuts, levels)
    return span_s


@allocating_kernel
def trusted_objective(costs: Costs, prices: Prices, cuts: I64, levels: I64) -> float:
    """Return `objective` of a plan that is one."""
    value: float = priced_span_s(costs, prices, cuts, levels)
    return value


def predict(costs: Costs, cuts: npt.ArrayLike, levels: npt.ArrayLike) -> float:
    """Predicted makespan of a plan.

    Parameters
    ----------
    costs
        The problem.
    cuts, levels
        (K,) a plan, as the module `sat_env.planning.costs` says.

    Returns
    -------
    float
        Seconds from now until the last micro-batch's result is on the ground; with decoding, plus
        ``n_tokens * max(loop, M * slowest)``: the time of one token of a group, which is the way round the
        loop or, when the M groups in flight fill it, M times its slowest server. inf for a plan that breaks
        memory, the error budget or the ground rule, or that needs an unusable hop or an impossible block.

    Raises
    ------
    ValueError
        As `check_plan`.

    Notes
    -----
    O(K + L), independent of M. Exact for identical micro-batches, unlimited buffers and constant rates.
    """
    return float(trusted_predict(costs, *check_plan(costs, cuts, levels)))


def objective(costs: Costs, prices: Prices, cuts: npt.ArrayLike, levels: npt.ArrayLike) -> float:
    """Return what planners minimise: makespan (loads weighed) plus price terms; inf and ValueError as in `predict`.

    Prices for a chain of another length are refused too.
    """
    check_prices(costs, prices)
    return float(trusted_objective(costs, prices, *check_plan(costs, cuts, levels)))


def plan_error(costs: Costs, cuts: npt.ArrayLike, levels: npt.ArrayLike) -> float:
    """Error of a plan: the sum over the activations that leave a slot; ValueError as in `predict`."""
    return float(trusted_error(costs, *check_plan(costs, cuts, levels)))


@part
def priced_span_s(costs: Costs, prices: Prices, cuts: I64, levels: I64) -> float:
    """Return `objective`."""
    span_s = makespan(costs, prices.load_weight, cuts, levels)
    return span_s + price_terms(costs, prices, cuts, levels) if span_s < np.inf else np.inf
