"""The optimal plan of a problem: cuts and levels that minimise `objective`, proved.

Plans are paths in a small acyclic graph. Node In(k, l): slot k (or the ground) has decoded the activations of
boundary l. Node Out(k, l): slot k has finished block l - 1. An arc In -> Out chooses the blocks of a slot (memory
is a filter on it), an arc Out -> In the level and the next slot that holds blocks. The makespan is not additive
along a path and the error is a resource, so a node keeps a Pareto front of labels

    first, last   completion of micro-batches 1 and M (exact with release times, see `predict`)
    error         of the encodings so far
    price_s       additive prices so far
    busiest_s     compute seconds of the busiest satellite so far
    loop_s, slowest_s   of one decoded token so far

and the search is A* with admissible bounds, in topological order (every label of a node is known before one is
expanded). The bounds come from backward passes over the same graph. A pass weighs error by lambda >= 0 and
allows only servers whose *period* (what the server adds to the objective as its bottleneck) is at most `cap`;
passes with falling caps split the plans by their bottleneck, and for each part

    objective >= first + sum to go + lambda * (error to go - budget left) + bottleneck of the part.

The paths of the passes are plans: the best one is the incumbent that the bounds are held against. When no part
can beat it, it is optimal before a single label is made.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from sat_env.planning.costs import (
    F64,
    GROUND_ANY,
    GROUND_NONE,
    I64,
    Costs,
    Prices,
    make_canonical,
    neutral_prices,
)
from sat_env.planning.predict import objective, plan_error, predict, serve, token_ratio, transfer_s

IN, OUT = 0, 1  # the two kinds of node
MAX_PARTS = 24  # parts by bottleneck
TABLES_PER_PART = 6  # bounds kept for a part
SLACK = 1e-12  # relative: bounds are summed in another order than predictions


class Solution(NamedTuple):
    """An optimal plan, or the report that there is none.

    Attributes
    ----------
    cuts, levels
        (K,) int64, canonical; all zero if infeasible.
    objective
        What was minimised, s; inf if no plan is feasible.
    makespan_s
        `predict` of the plan, s; inf if no plan is feasible.
    error
        Sum of the plan's encoding errors.
    expansions
        Labels expanded; 0 when the bounds alone proved the plan.
    """

    cuts: I64
    levels: I64
    objective: float
    makespan_s: float
    error: float
    expansions: int


class Workspace(NamedTuple):
    """Memory of a search, reused between problems of one size (K, L, R)."""

    hop_sum_s: F64  # (K, L+1, K+1, R) [i, l, j, r] seconds and prices of the hop i -> j; inf: unusable
    hop_period_s: F64  # (K, L+1, K+1, R) what its slowest server adds as bottleneck
    hop_token_s: F64  # (K, L+1, K+1, R) tokens x loop seconds of one token
    reach: I64  # (K+1, L) slot k can hold blocks l..reach[k, l]
    pass_: F64  # (2, K+1, L+1) sum to go of the last backward pass, by kind of node
    table: F64  # (2, K+1, L+1, T) the passes kept as bounds
    floor: F64  # (2, K+1, L+1, 6) see FLOOR_*
    head: I64  # (2, K+1, L+1) first label of a node's front; -1: none


FLOOR_SERVICE, FLOOR_SLOWEST, FLOOR_BUSIEST, FLOOR_PERIOD, FLOOR_ERROR, FLOOR_RELEASE = range(6)
"""Least to go from a node, each on its own: largest service, largest token service, busiest satellite, largest
period, error, and completion that releases alone force."""

FIRST, LAST, ERROR, PRICE, BUSIEST, LOOP, SLOWEST = range(7)  # columns of a label's values
PARENT, SLOT, BLOCK, LEVEL, NEXT = range(5)  # columns of a label's links; LEVEL is -1 at Out nodes


def make_workspace(costs: Costs) -> Workspace:
    """Workspace for problems with the K, L and R of `costs`."""
    k, n, r = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    hops, nodes = (k, n + 1, k + 1, r), (2, k + 1, n + 1)
    return Workspace(
        hop_sum_s=np.empty(hops),
        hop_period_s=np.empty(hops),
        hop_token_s=np.empty(hops),
        reach=np.empty((k + 1, n), dtype=np.int64),
        pass_=np.empty(nodes),
        table=np.empty((*nodes, MAX_PARTS * TABLES_PER_PART)),
        floor=np.empty((*nodes, 6)),
        head=np.empty(nodes, dtype=np.int64),
    )


def solve(costs: Costs, prices: Prices | None = None, workspace: Workspace | None = None) -> Solution:
    """Find an optimal plan.

    Parameters
    ----------
    costs
        The problem.
    prices
        What to add to the makespan; None adds nothing.
    workspace
        Memory from `make_workspace` for the same K, L and R, to be reused; None allocates it.

    Returns
    -------
    Solution
        Optimal for `objective`; its ``objective`` is inf if no plan is feasible.
    """
    n_slots = costs.rate_bps.shape[0]
    cuts, levels = np.zeros(n_slots, dtype=np.int64), np.zeros(n_slots, dtype=np.int64)
    best, expansions = search(
        costs, prices or neutral_prices(n_slots), workspace or make_workspace(costs), cuts, levels
    )
    if best == np.inf:
        return Solution(cuts, levels, best, best, 0.0, expansions)
    return Solution(
        cuts, levels, best, predict(costs, cuts, levels), plan_error(costs, cuts, levels), expansions
    )


# --- arcs -----------------------------------------------------------------------------------------------------


@njit(cache=True)
def _prepare(costs: Costs, prices: Prices, ws: Workspace) -> None:
    """Fill the arc tables of `ws`."""
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    m, tokens = costs.micro_batches, costs.n_tokens
    ws.hop_sum_s[:] = np.inf
    for i in range(n_slots):
        for boundary in range(0 if i == 0 else 1, n_blocks + 1):
            for j in range(i + 1, n_slots + 1):
                if boundary == n_blocks and j < n_slots:
                    continue
                latency_s = costs.latency_s[i, j]
                for r in range(n_levels if 0 < boundary < n_blocks else 1):
                    send_s = transfer_s(costs, i, j, boundary, r)
                    if send_s == np.inf:
                        continue
                    encode_s, decode_s = costs.encode_s[i, boundary, r], costs.decode_s[j, boundary, r]
                    ratio = token_ratio(costs, boundary, r)
                    busy_s = encode_s + send_s + decode_s
                    ws.hop_sum_s[i, boundary, j, r] = (
                        busy_s
                        + latency_s
                        + prices.hop_price[i, j] * m * send_s * (1.0 + tokens * ratio)
                        + prices.hop_fixed_s[i, j]
                    )
                    ws.hop_period_s[i, boundary, j, r] = max(encode_s, send_s, decode_s) * (
                        (m - 1) + tokens * m * ratio
                    )
                    in_loop = tokens if boundary < n_blocks else 0
                    ws.hop_token_s[i, boundary, j, r] = in_loop * (ratio * busy_s + latency_s)
    for k in range(n_slots + 1):
        for start in range(n_blocks):
            memory, end = 0.0, start
            while end < n_blocks:
                memory += costs.memory_bytes[end]
                if memory > costs.memory_free_bytes[k] or costs.compute_s[k, end] == np.inf:
                    break
                end += 1
            ws.reach[k, start] = end
        if k == n_slots:  # the ground takes all the rest or nothing
            for start in range(n_blocks):
                allowed = costs.ground_hosts == GROUND_ANY or (costs.ground_hosts != GROUND_NONE and start == 0)
                if not allowed or ws.reach[k, start] < n_blocks:
                    ws.reach[k, start] = start


@njit(cache=True, inline="always")
def _stage_sum_s(
    costs: Costs, prices: Prices, k: int, end: int, theta: float, work_s: float, token_s: float
) -> float:
    """What blocks up to `end` on slot k add to a sum to go, `theta` of the token loop included."""
    tokens = costs.n_tokens
    loop_s = token_s + (costs.return_s[k] if end == costs.compute_s.shape[1] else 0.0)
    return (
        work_s
        + prices.stage_price[k] * costs.micro_batches * (work_s + tokens * token_s)
        + theta * tokens * loop_s
    )


@njit(cache=True, inline="always")
def _stage_period_s(costs: Costs, prices: Prices, k: int, work_s: float, token_s: float) -> float:
    """What a stage adds to the objective if it is the bottleneck."""
    m, tokens = costs.micro_batches, costs.n_tokens
    period_s = (m - 1) * work_s + tokens * m * token_s
    if k < costs.rate_bps.shape[0]:
        period_s += prices.bottleneck * m * (work_s + tokens * token_s)
    return period_s


# --- backward: bounds and plans -------------------------------------------------------------------------------


@njit(cache=True)
def _backward(
    costs: Costs, prices: Prices, ws: Workspace, weight: float, lam: float, cap: float, theta: float
) -> float:
    """Least ``weight * (sum + theta * loop) + lam * error`` to go over servers of period <= `cap`.

    Fills ``ws.pass_`` and returns the value at the source.
    """
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    h_in, h_out = ws.pass_[IN], ws.pass_[OUT]
    ws.pass_[:] = np.inf
    for k in range(n_slots, -1, -1):
        if k < n_slots:
            for boundary in range(0 if k == 0 else 1, n_blocks + 1):
                best = np.inf
                levels = n_levels if 0 < boundary < n_blocks else 1
                for j in range(n_slots if boundary == n_blocks else k + 1, n_slots + 1):
                    to_go = 0.0 if boundary == n_blocks else h_in[j, boundary]
                    if to_go >= best:
                        continue
                    for r in range(levels):
                        if ws.hop_period_s[k, boundary, j, r] <= cap:
                            hop_s = ws.hop_sum_s[k, boundary, j, r]
                            if theta > 0.0:
                                hop_s += theta * ws.hop_token_s[k, boundary, j, r]
                            best = min(best, weight * hop_s + lam * costs.error[boundary, r] + to_go)
                h_out[k, boundary] = best
        for start in range(n_blocks if k > 0 else 1):
            best = np.inf
            work_s, token_s = 0.0, 0.0
            for end in range(start + 1, ws.reach[k, start] + 1):
                work_s += costs.compute_s[k, end - 1]
                token_s += costs.token_compute_s[k, end - 1]
                if _stage_period_s(costs, prices, k, work_s, token_s) > cap:
                    break
                if k == n_slots:
                    if end == n_blocks:
                        best = weight * _stage_sum_s(costs, prices, k, end, theta, work_s, token_s)
                else:
                    to_go = h_out[k, end]
                    if to_go < best:
                        stage_s = _stage_sum_s(costs, prices, k, end, theta, work_s, token_s)
                        best = min(best, weight * stage_s + to_go)
            h_in[k, start] = best
    return min(h_in[0, 0], h_out[0, 0])


@njit(cache=True)
def _trace(
    costs: Costs,
    prices: Prices,
    ws: Workspace,
    weight: float,
    lam: float,
    cap: float,
    theta: float,
    cuts: I64,
    levels: I64,
) -> tuple[float, float, float]:
    """Write the plan of the last `_backward` (same arguments); return its (sum, error, largest period)."""
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    h_in, h_out = ws.pass_[IN], ws.pass_[OUT]
    cuts[:], levels[:] = 0, 0
    sum_s, error, period_s = 0.0, 0.0, 0.0
    k, boundary, at_out = 0, 0, h_out[0, 0] < h_in[0, 0]
    while True:
        if not at_out:
            best, best_end, best_stage_s, best_period_s = np.inf, n_blocks, 0.0, 0.0
            work_s, token_s = 0.0, 0.0
            for end in range(boundary + 1, ws.reach[k, boundary] + 1):
                work_s += costs.compute_s[k, end - 1]
                token_s += costs.token_compute_s[k, end - 1]
                stage_period_s = _stage_period_s(costs, prices, k, work_s, token_s)
                if stage_period_s > cap:
                    break
                if k == n_slots and end < n_blocks:
                    continue
                stage_s = _stage_sum_s(costs, prices, k, end, theta, work_s, token_s)
                value = weight * stage_s + (0.0 if k == n_slots else h_out[k, end])
                if value < best:
                    best, best_end, best_stage_s, best_period_s = value, end, stage_s, stage_period_s
            sum_s += best_stage_s
            period_s = max(period_s, best_period_s)
            boundary = best_end
            if k == n_slots:
                break
            cuts[k:] = boundary
        best, best_j, best_r = np.inf, n_slots, 0
        for j in range(n_slots if boundary == n_blocks else k + 1, n_slots + 1):
            to_go = 0.0 if boundary == n_blocks else h_in[j, boundary]
            for r in range(n_levels if 0 < boundary < n_blocks else 1):
                if ws.hop_period_s[k, boundary, j, r] <= cap:
                    hop_s = ws.hop_sum_s[k, boundary, j, r]
                    if theta > 0.0:
                        hop_s += theta * ws.hop_token_s[k, boundary, j, r]
                    value = weight * hop_s + lam * costs.error[boundary, r] + to_go
                    if value < best:
                        best, best_j, best_r = value, j, r
        sum_s += ws.hop_sum_s[k, boundary, best_j, best_r]
        if theta > 0.0:
            sum_s += theta * ws.hop_token_s[k, boundary, best_j, best_r]
        error += costs.error[boundary, best_r]
        period_s = max(period_s, ws.hop_period_s[k, boundary, best_j, best_r])
        levels[k] = best_r
        if boundary == n_blocks:
            break
        k, at_out = best_j, False
    return sum_s, error, period_s


@njit(cache=True)
def _floors(costs: Costs, prices: Prices, ws: Workspace) -> None:
    """Fill ``ws.floor``; needs the unweighted pass (weight 1, lambda 0, no cap, theta 0) in ``ws.pass_``."""
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    m, tokens = costs.micro_batches, costs.n_tokens
    floor = ws.floor
    floor[:] = np.inf
    done = np.zeros(6)
    for k in range(n_slots, -1, -1):
        if k < n_slots:
            for boundary in range(0 if k == 0 else 1, n_blocks + 1):
                here = floor[OUT, k, boundary]
                for j in range(n_slots if boundary == n_blocks else k + 1, n_slots + 1):
                    there = done if boundary == n_blocks else floor[IN, j, boundary]
                    to_go = 0.0 if boundary == n_blocks else ws.pass_[IN, j, boundary]
                    if there[FLOOR_ERROR] == np.inf:
                        continue
                    for r in range(n_levels if 0 < boundary < n_blocks else 1):
                        if ws.hop_sum_s[k, boundary, j, r] == np.inf:
                            continue
                        send_s = transfer_s(costs, k, j, boundary, r)
                        after_s = costs.decode_s[j, boundary, r]
                        busy_s = max(costs.encode_s[k, boundary, r], send_s, after_s)
                        ratio = token_ratio(costs, boundary, r)
                        here[FLOOR_SERVICE] = min(here[FLOOR_SERVICE], max(busy_s, there[FLOOR_SERVICE]))
                        here[FLOOR_SLOWEST] = min(here[FLOOR_SLOWEST], max(ratio * busy_s, there[FLOOR_SLOWEST]))
                        here[FLOOR_BUSIEST] = min(here[FLOOR_BUSIEST], there[FLOOR_BUSIEST])
                        here[FLOOR_PERIOD] = min(
                            here[FLOOR_PERIOD], max(ws.hop_period_s[k, boundary, j, r], there[FLOOR_PERIOD])
                        )
                        here[FLOOR_ERROR] = min(
                            here[FLOOR_ERROR], costs.error[boundary, r] + there[FLOOR_ERROR]
                        )
                        released_s = costs.hop_release_s[k, j] + m * send_s + costs.latency_s[k, j] + after_s
                        here[FLOOR_RELEASE] = min(
                            here[FLOOR_RELEASE], max(released_s + to_go, there[FLOOR_RELEASE])
                        )
        for start in range(n_blocks if k > 0 else 1):
            here = floor[IN, k, start]
            work_s, token_s, load_s = 0.0, 0.0, 0.0
            for end in range(start + 1, ws.reach[k, start] + 1):
                work_s += costs.compute_s[k, end - 1]
                token_s += costs.token_compute_s[k, end - 1]
                load_s += costs.load_s[k, end - 1]
                if k == n_slots and end < n_blocks:
                    continue
                there = done if k == n_slots else floor[OUT, k, end]
                to_go = 0.0 if k == n_slots else ws.pass_[OUT, k, end]
                if there[FLOOR_ERROR] == np.inf:
                    continue
                here[FLOOR_SERVICE] = min(here[FLOOR_SERVICE], max(work_s, there[FLOOR_SERVICE]))
                here[FLOOR_SLOWEST] = min(here[FLOOR_SLOWEST], max(token_s, there[FLOOR_SLOWEST]))
                job_s = m * (work_s + tokens * token_s) if k < n_slots else 0.0
                here[FLOOR_BUSIEST] = min(here[FLOOR_BUSIEST], max(job_s, there[FLOOR_BUSIEST]))
                period_s = _stage_period_s(costs, prices, k, work_s, token_s)
                here[FLOOR_PERIOD] = min(here[FLOOR_PERIOD], max(period_s, there[FLOOR_PERIOD]))
                here[FLOOR_ERROR] = min(here[FLOOR_ERROR], there[FLOOR_ERROR])
                released_s = costs.stage_release_s[k] + prices.load_weight * load_s + m * work_s
                here[FLOOR_RELEASE] = min(here[FLOOR_RELEASE], max(released_s + to_go, there[FLOOR_RELEASE]))


@njit(cache=True)
def _keep(ws: Workspace, t: int) -> None:
    """Keep the last pass as bound `t`."""
    ws.table[:, :, :, t] = ws.pass_


@njit(cache=True)
def _consider(
    costs: Costs, prices: Prices, cuts: I64, levels: I64, best: float, best_cuts: I64, best_levels: I64
) -> float:
    """Make a plan the incumbent if it is better; return the incumbent's objective."""
    value = objective(costs, prices, cuts, levels)
    if value < best:
        best_cuts[:], best_levels[:] = cuts, levels
        return value
    return best


@njit(cache=True)
def search(
    costs: Costs, prices: Prices, ws: Workspace, best_cuts: I64, best_levels: I64
) -> tuple[float, int]:
    """Write an optimal canonical plan; return its objective (inf: infeasible) and the labels expanded.

    The kernel under `solve`: `best_cuts` and `best_levels` (K,) are zeroed, then written; `ws` must fit.
    """
    n_slots, n_blocks = costs.rate_bps.shape[0], costs.compute_s.shape[1]
    m, tokens, budget = costs.micro_batches, costs.n_tokens, costs.error_budget
    best_cuts[:], best_levels[:] = 0, 0
    cuts, levels = np.zeros_like(best_cuts), np.zeros_like(best_levels)
    best = np.inf
    _prepare(costs, prices, ws)
    if _backward(costs, prices, ws, 1.0, 0.0, np.inf, 0.0) == np.inf:
        return best, 0
    _floors(costs, prices, ws)
    least_error = min(ws.floor[IN, 0, 0, FLOOR_ERROR], ws.floor[OUT, 0, 0, FLOOR_ERROR])
    if least_error > budget * (1.0 + SLACK):
        return best, 0

    # Parts by bottleneck: part g holds the plans whose largest period is in (part_low, part_cap].
    part_low, part_cap, part_bound = np.zeros(MAX_PARTS), np.zeros(MAX_PARTS), np.zeros(MAX_PARTS)
    part_peak = np.zeros(MAX_PARTS)  # largest period of the part's cheapest plan
    part_tables = np.zeros((MAX_PARTS, TABLES_PER_PART), dtype=np.int64)
    part_n_tables = np.zeros(MAX_PARTS, dtype=np.int64)
    table_lambda = np.zeros(MAX_PARTS * TABLES_PER_PART)
    table_theta = np.zeros(MAX_PARTS * TABLES_PER_PART)
    n_tables, n_parts = 0, 0
    n_thetas = 1 if tokens == 0 else 3
    lowest = min(ws.floor[IN, 0, 0, FLOOR_PERIOD], ws.floor[OUT, 0, 0, FLOOR_PERIOD])
    split = -1  # the part to split; -1: the first, of all plans
    cap = np.inf
    while n_parts < MAX_PARTS:
        g = n_parts
        part_cap[g] = cap
        part_low[g] = lowest if split < 0 else part_low[split]
        bound, peak = -np.inf, cap
        for step in range(n_thetas):
            theta = 0.0 if n_thetas == 1 else step / (n_thetas - 1)
            # Maximise the Lagrangian dual over lambda by the crossing of its two best lines.
            value = _backward(costs, prices, ws, 1.0, 0.0, cap, theta)
            if value == np.inf:
                bound = np.inf
                break
            lo_sum, lo_error, period_s = _trace(costs, prices, ws, 1.0, 0.0, cap, theta, cuts, levels)
            best = _consider(costs, prices, cuts, levels, best, best_cuts, best_levels)
            dual = value
            _keep(ws, n_tables)
            table_lambda[n_tables], table_theta[n_tables] = 0.0, theta
            part_tables[g, part_n_tables[g]] = n_tables
            part_n_tables[g] += 1
            n_tables += 1
            if lo_error > budget:
                _backward(costs, prices, ws, 0.0, 1.0, cap, theta)
                hi_sum, hi_error, _ = _trace(costs, prices, ws, 0.0, 1.0, cap, theta, cuts, levels)
                best = _consider(costs, prices, cuts, levels, best, best_cuts, best_levels)
                if hi_error > budget * (1.0 + SLACK):
                    bound = np.inf
                    break
                kept = False
                for _ in range(12):
                    if not (hi_error < lo_error and hi_sum > lo_sum):
                        break
                    lam = (hi_sum - lo_sum) / (lo_error - hi_error)
                    value = _backward(costs, prices, ws, 1.0, lam, cap, theta)
                    new_sum, new_error, new_period_s = _trace(
                        costs, prices, ws, 1.0, lam, cap, theta, cuts, levels
                    )
                    best = _consider(costs, prices, cuts, levels, best, best_cuts, best_levels)
                    if value - lam * budget > dual or not kept:
                        dual = max(dual, value - lam * budget)
                        period_s = new_period_s
                        _keep(ws, n_tables)
                        table_lambda[n_tables], table_theta[n_tables] = lam, theta
                        kept = True
                    if value >= (lo_sum + lam * lo_error) - 1e-9 * abs(value):
                        break
                    if new_error > budget:
                        lo_sum, lo_error = new_sum, new_error
                    else:
                        hi_sum, hi_error = new_sum, new_error
                if kept:
                    part_tables[g, part_n_tables[g]] = n_tables
                    part_n_tables[g] += 1
                    n_tables += 1
            if theta == 0.0:
                peak = period_s
                bound = max(bound, dual)
        part_bound[g], part_peak[g] = bound, peak
        n_parts += 1
        if split >= 0:
            part_low[split] = cap
        # Next: halve the most promising part, until its bottleneck is pinned or no part can win.
        split = -1
        for h in range(n_parts):
            top = min(part_cap[h], part_peak[h])
            value = part_bound[h] + part_low[h]
            if value < best and top > 1.01 * part_low[h] and (
                split < 0 or value < part_bound[split] + part_low[split]
            ):
                split = h
        if split < 0:
            break
        top = min(part_cap[split], part_peak[split])
        cap = np.sqrt(part_low[split] * top) if part_low[split] > 0.05 * top else 0.3 * top

    # The parts that can still win, the most promising first.
    order = np.argsort(part_bound[:n_parts] + part_low[:n_parts])
    margin = best - SLACK * abs(best) if best < np.inf else best
    n_live = 0
    while n_live < n_parts and part_bound[order[n_live]] + part_low[order[n_live]] < margin:
        n_live += 1
    expansions = 0
    if n_live == 0 or min(ws.floor[IN, 0, 0, FLOOR_RELEASE], ws.floor[OUT, 0, 0, FLOOR_RELEASE]) >= margin:
        make_canonical(n_blocks, best_cuts, best_levels)
        return best, expansions
    best, expansions = _labels(
        costs,
        prices,
        ws,
        order[:n_live],
        part_low,
        part_tables,
        part_n_tables,
        table_lambda,
        table_theta,
        best,
        best_cuts,
        best_levels,
    )
    make_canonical(n_blocks, best_cuts, best_levels)
    return best, expansions


# --- forward: labels ------------------------------------------------------------------------------------------


class Front(NamedTuple):
    """Labels and what is needed to judge one."""

    value: F64  # (N, 7)
    link: I64  # (N, 5)


@njit(cache=True)
def _hopeless(
    costs: Costs,
    prices: Prices,
    ws: Workspace,
    parts: I64,
    part_low: F64,
    part_tables: I64,
    part_n_tables: I64,
    table_lambda: F64,
    table_theta: F64,
    kind: int,
    slot: int,
    boundary: int,
    value: F64,
    margin: float,
) -> bool:
    """Whether no completion of a label at the node can come below `margin`."""
    m, tokens = costs.micro_batches, costs.n_tokens
    floor = ws.floor[kind, slot, boundary]
    slack = costs.error_budget - value[ERROR]
    if floor[FLOOR_ERROR] > slack + SLACK * costs.error_budget:
        return True
    busiest = value[PRICE] + prices.bottleneck * max(value[BUSIEST], floor[FLOOR_BUSIEST])
    slowest = tokens * m * max(value[SLOWEST], floor[FLOOR_SLOWEST])
    loop = tokens * value[LOOP]
    if floor[FLOOR_RELEASE] + busiest + slowest >= margin:
        return True
    ends = max(value[LAST], value[FIRST] + (m - 1) * floor[FLOOR_SERVICE]) + busiest
    to_go = ws.table[kind, slot, boundary]
    if ends + slowest + to_go[0] >= margin:
        return True
    for g in parts:
        period_s = value[FIRST] + value[PRICE] + max(part_low[g], floor[FLOOR_PERIOD])
        possible = True
        for n in range(part_n_tables[g]):
            t = part_tables[g, n]
            theta, lam = table_theta[t], table_lambda[t]
            so_far = ends + theta * loop + (1.0 - theta) * slowest
            if theta == 0.0:
                so_far = max(so_far, period_s)
            bound = so_far + to_go[t]
            if lam > 0.0:
                bound -= lam * slack
            if bound >= margin:
                possible = False
                break
        if possible:
            return False
    return True


@njit(cache=True)
def _labels(
    costs: Costs,
    prices: Prices,
    ws: Workspace,
    parts: I64,
    part_low: F64,
    part_tables: I64,
    part_n_tables: I64,
    table_lambda: F64,
    table_theta: F64,
    best: float,
    best_cuts: I64,
    best_levels: I64,
) -> tuple[float, int]:
    """Search the graph forward for a plan below `best`; write it if there is one."""
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    m, tokens = costs.micro_batches, costs.n_tokens
    margin = best - SLACK * abs(best) if best < np.inf else best
    released = (
        costs.stage_release_s.max() > 0.0
        or costs.hop_release_s.max() > 0.0
        or prices.load_weight * costs.load_s.max() > 0.0
    )
    priced = (
        prices.stage_price.max() > 0.0 or prices.hop_price.max() > 0.0 or prices.hop_fixed_s.max() > 0.0
    ) and released
    values = np.empty((1024, 7))
    links = np.empty((1024, 5), dtype=np.int64)
    ws.head[:] = -1
    new = np.zeros(7)
    values[0] = 0.0
    links[0] = np.array([-1, 0, 0, -1, -1])
    ws.head[OUT, 0, 0] = 0
    values[1] = 0.0
    links[1] = np.array([-1, 0, 0, 0, -1])
    ws.head[IN, 0, 0] = 1
    n_labels = 2
    goal, goal_level = -1, 0
    expansions = 0
    for k in range(n_slots):
        for kind in range(2):
            for start in range(n_blocks + 1):
                label = ws.head[kind, k, start]
                while label >= 0:
                    old = values[label]
                    if _hopeless(
                        costs, prices, ws, parts, part_low, part_tables, part_n_tables, table_lambda,
                        table_theta, kind, k, start, old, margin,
                    ):  # fmt: skip
                        label = links[label, NEXT]
                        continue
                    expansions += 1
                    n_arcs = 0
                    if kind == IN:
                        n_arcs = ws.reach[k, start] - start
                        work_s, token_s, load_s = 0.0, 0.0, 0.0
                    elif start == n_blocks:
                        n_arcs = 1
                    else:
                        n_arcs = (n_slots - k) * (n_levels if start > 0 else 1)
                    for arc in range(n_arcs):
                        old = values[label]  # values may have moved
                        new[:] = old
                        if kind == IN:
                            end, slot, level = start + arc + 1, k, -1
                            work_s += costs.compute_s[k, end - 1]
                            token_s += costs.token_compute_s[k, end - 1]
                            load_s += costs.load_s[k, end - 1]
                            _compute(costs, prices, k, end, work_s, token_s, load_s, new)
                        else:
                            end = start
                            if start == n_blocks:
                                slot, level = n_slots, 0
                            elif start == 0:
                                slot, level = k + 1 + arc, 0
                            else:
                                slot, level = k + 1 + arc // n_levels, arc % n_levels
                            if ws.hop_sum_s[k, start, slot, level] == np.inf:
                                continue
                            if start < n_blocks and ws.reach[slot, start] == start:
                                continue
                            _send(costs, prices, k, slot, start, level, new)
                        if slot == n_slots:
                            if end < n_blocks:
                                work_s, token_s, load_s = 0.0, 0.0, 0.0
                                for block in range(end, n_blocks):
                                    work_s += costs.compute_s[slot, block]
                                    token_s += costs.token_compute_s[slot, block]
                                    load_s += costs.load_s[slot, block]
                                _compute(costs, prices, slot, n_blocks, work_s, token_s, load_s, new)
                            total = (
                                new[LAST]
                                + new[PRICE]
                                + prices.bottleneck * new[BUSIEST]
                                + tokens * max(new[LOOP], m * new[SLOWEST])
                            )
                            if total < margin and new[ERROR] <= costs.error_budget:
                                margin, goal, goal_level = total, label, level
                            continue
                        to_kind = OUT if kind == IN else IN
                        if _hopeless(
                            costs, prices, ws, parts, part_low, part_tables, part_n_tables, table_lambda,
                            table_theta, to_kind, slot, end, new, margin,
                        ):  # fmt: skip
                            continue
                        if n_labels == len(values):
                            values = np.concatenate((values, np.empty_like(values)))
                            links = np.concatenate((links, np.empty_like(links)))
                        values[n_labels] = new
                        if _insert(costs, prices, ws, values, links, n_labels, to_kind, slot, end, released, priced):
                            links[n_labels, PARENT] = label
                            links[n_labels, SLOT] = slot
                            links[n_labels, BLOCK] = end
                            links[n_labels, LEVEL] = level
                            n_labels += 1
                    label = links[label, NEXT]
    if goal >= 0:
        best_cuts[:], best_levels[:] = 0, 0
        level = goal_level
        label = goal
        while label >= 0:
            if links[label, LEVEL] < 0:  # Out: the slot's last block, and the level it sends at
                best_levels[links[label, SLOT]] = level
                best_cuts[links[label, SLOT]] = links[label, BLOCK]
            else:
                level = links[label, LEVEL]
            label = links[label, PARENT]
        for k in range(1, n_slots):
            best_cuts[k] = max(best_cuts[k], best_cuts[k - 1])
        best = objective(costs, prices, best_cuts, best_levels)
    return best, expansions


@njit(cache=True)
def _compute(
    costs: Costs, prices: Prices, k: int, end: int, work_s: float, token_s: float, load_s: float, label: F64
) -> None:
    """Extend a label, in place, by the blocks of slot k up to `end`."""
    m, n_slots = costs.micro_batches, costs.rate_bps.shape[0]
    release_s = costs.stage_release_s[k] + prices.load_weight * load_s
    label[FIRST], label[LAST] = serve(label[FIRST], label[LAST], work_s, release_s, m)
    job_s = m * (work_s + costs.n_tokens * token_s)
    label[PRICE] += prices.stage_price[k] * job_s
    if k < n_slots:
        label[BUSIEST] = max(label[BUSIEST], job_s)
    label[LOOP] += token_s + (costs.return_s[k] if end == costs.compute_s.shape[1] else 0.0)
    label[SLOWEST] = max(label[SLOWEST], token_s)


@njit(cache=True)
def _send(costs: Costs, prices: Prices, i: int, j: int, boundary: int, level: int, label: F64) -> None:
    """Extend a label, in place, by the hop i -> j with its codecs."""
    m = costs.micro_batches
    encode_s, decode_s = costs.encode_s[i, boundary, level], costs.decode_s[j, boundary, level]
    send_s, latency_s = transfer_s(costs, i, j, boundary, level), costs.latency_s[i, j]
    first, last = serve(label[FIRST], label[LAST], encode_s, 0.0, m)
    first, last = serve(first, last, send_s, costs.hop_release_s[i, j], m)
    label[FIRST], label[LAST] = serve(first + latency_s, last + latency_s, decode_s, 0.0, m)
    label[ERROR] += costs.error[boundary, level]
    ratio = token_ratio(costs, boundary, level)
    label[PRICE] += (
        prices.hop_price[i, j] * m * send_s * (1.0 + costs.n_tokens * ratio) + prices.hop_fixed_s[i, j]
    )
    if boundary < costs.compute_s.shape[1]:
        label[LOOP] += ratio * (encode_s + send_s + decode_s) + latency_s
    label[SLOWEST] = max(label[SLOWEST], ratio * max(encode_s, send_s, decode_s))


@njit(cache=True)
def _insert(
    costs: Costs,
    prices: Prices,
    ws: Workspace,
    values: F64,
    links: I64,
    new: int,
    kind: int,
    slot: int,
    boundary: int,
    released: bool,
    priced: bool,
) -> bool:
    """Put label `new` into its node's front unless another is at least as good; drop those it beats.

    A front is a list by rising (first + price). A label beats another if it is no worse in every quantity that
    a completion can make count: a later bottleneck is at least the node's floor, and price alone counts only if
    a later release can hide the completion.
    """
    m, tokens = costs.micro_batches, costs.n_tokens
    floor = ws.floor[kind, slot, boundary]
    least_s = (m - 1) * floor[FLOOR_SERVICE]
    a = values[new]
    a_first = a[FIRST] + a[PRICE]
    a_last = max(a[LAST], a[FIRST] + least_s) + a[PRICE]
    a_busiest = max(a[BUSIEST], floor[FLOOR_BUSIEST])
    a_slowest = max(a[SLOWEST], floor[FLOOR_SLOWEST])
    busy, decoding = prices.bottleneck > 0.0, tokens > 0
    before, here = -1, ws.head[kind, slot, boundary]
    while here >= 0:
        b = values[here]
        b_first = b[FIRST] + b[PRICE]
        if b_first > a_first:
            break
        if (
            b[ERROR] <= a[ERROR]
            and max(b[LAST], b[FIRST] + least_s) + b[PRICE] <= a_last
            and (not priced or b[PRICE] <= a[PRICE])
            and (not busy or b[BUSIEST] <= a_busiest)
            and (not decoding or (b[LOOP] <= a[LOOP] and b[SLOWEST] <= a_slowest))
        ):
            return False
        before, here = here, links[here, NEXT]
    links[new, NEXT] = here
    if before < 0:
        ws.head[kind, slot, boundary] = new
    else:
        links[before, NEXT] = new
    before = new
    while here >= 0:
        b = values[here]
        if (
            a[ERROR] <= b[ERROR]
            and a_last <= max(b[LAST], b[FIRST] + least_s) + b[PRICE]
            and (not priced or a[PRICE] <= b[PRICE])
            and (not busy or a[BUSIEST] <= max(b[BUSIEST], floor[FLOOR_BUSIEST]))
            and (
                not decoding
                or (a[LOOP] <= b[LOOP] and a[SLOWEST] <= max(b[SLOWEST], floor[FLOOR_SLOWEST]))
            )
        ):
            links[before, NEXT] = links[here, NEXT]
        else:
            before = here
        here = links[here, NEXT]
    return True
