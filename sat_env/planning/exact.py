"""The optimal plan of a problem: cuts and levels that minimise `objective`, proved.

Plans are paths in a small acyclic graph. Node In(k, l): slot k (or the ground) has decoded the activations of
boundary l. Node Out(k, l): slot k has finished block l - 1. An arc In -> Out chooses the blocks of a slot
(memory is a filter on it), an arc Out -> In the level and the next slot that holds blocks. The makespan is
not additive along a path and the error is a resource, so a node keeps a Pareto front of labels

    first, last   completion of micro-batches 1 and M (exact with release times, see `predict`)
    error         of the encodings so far
    price_s       additive prices so far
    busiest_s     compute seconds of the busiest satellite so far
    loop_s, slowest_s   of one decoded token so far

and the search is A* with admissible bounds, in topological order (every label of a node is known before one
is expanded). The bounds come from backward passes over the same graph. A pass weighs error by lambda >= 0 and
allows only servers whose *period* (what the server adds to the objective as its bottleneck) is at most `cap`;
passes with falling caps split the plans by their bottleneck, and for each part

    objective >= first + sum to go + lambda * (error to go - budget left) + bottleneck of the part.

A pass leaves out what is released too late to beat the best plan so far. The paths of the passes are plans
themselves: the best one, polished, is what the bounds are held against. When no part can beat it, it is
optimal before a single label is made.

A search may be given a budget of expansions. One that runs out returns the best plan it knows, and the least
bound of the parts it could not close: how far from optimal that plan can be at most.
"""

from typing import Any, NamedTuple, cast

import numpy as np

from sat_env.kernels import allocating_kernel, borrow, inner, part
from sat_env.planning.costs import (
    F64,
    GROUND_ANY,
    GROUND_NONE,
    I64,
    Costs,
    Prices,
    costs_row,
    make_canonical,
    neutral_prices,
    prices_row,
)
from sat_env.planning.predict import (
    makespan,
    priced_span_s,
    serve,
    summed_error,
    token_ratio,
    transfer_s,
)

IN, OUT = 0, 1  # the two kinds of node
CUTS, LEVELS = 0, 1  # rows of a plan
MAX_PARTS = 24  # parts by bottleneck
THETAS = 3  # shares of the token loop that bounds are made for, when decoding: 0, 1/2, 1
SLACK = 1e-12  # relative: bounds are summed in another order than predictions
UNLIMITED = np.int64(np.iinfo(np.int64).max)  # expansions
EASY = np.int64(2000)  # expansions after which a beam for a better plan pays
WIDTH = np.int64(32)  # labels a node of the first such beam


class Solution(NamedTuple):
    """An optimal plan, or the report that there is none; with a budget, the best plan found within it.

    Attributes
    ----------
    cuts, levels
        (K,) int64, canonical; all zero if infeasible.
    objective
        What was minimised, s; inf if no plan is feasible (or none was found within the budget).
    makespan_s
        `predict` of the plan, s; inf as the objective.
    error
        Sum of the plan's encoding errors.
    bound_s
        No plan's objective is below this, s; the objective itself when the plan is proved optimal.
    expansions
        Labels expanded; 0 when the bounds alone proved the plan.
    """

    cuts: I64
    levels: I64
    objective: float
    makespan_s: float
    error: float
    bound_s: float
    expansions: int

    @property
    def proved(self) -> bool:
        """Whether the plan is proved optimal, or the problem proved infeasible."""
        return self.bound_s >= self.objective


class Parts(NamedTuple):
    """Parts of the plan space by bottleneck, P = MAX_PARTS, and the backward passes kept as their bounds.

    Bound t = 2 (g THETAS + i) + j belongs to part g and share i of the token loop; j = 0: lambda = 0, j = 1:
    the lambda that is best at the source (-1 where there is none).
    """

    low_s: F64  # (P,) the part's plans have their largest period above this
    cap_s: F64  # (P,) and at most at this
    peak_s: F64  # (P,) largest period of the part's cheapest plan
    dual_s: F64  # (P, THETAS) bound at the source without the bottleneck
    lam: F64  # (2 THETAS P,) seconds per error; -1: no such bound
    order: I64  # (P,) parts that can still win, the most promising first


class Workspace(NamedTuple):
    """Memory of a search, reused between problems of one size (K, L, R)."""

    hop_sum_s: F64  # (K, L+1, K+1, R) [i, l, j, r] seconds and prices of the hop i -> j; inf: unusable
    hop_period_s: F64  # (K, L+1, K+1, R) what its slowest server adds as bottleneck
    hop_token_s: F64  # (K, L+1, K+1, R) tokens x loop seconds of one token
    hop_late_s: F64  # (K, L+1, K+1, R) how far its release puts the job beyond hop_sum_s
    reach: I64  # (K+1, L) slot k can hold blocks l..reach[k, l]
    pass_: F64  # (2, K+1, L+1) to go, of the last backward pass, by kind of node
    choice: I64  # (2, K+1, L+1) its arcs: last block + 1 at In, j R + r at Out
    table: F64  # (2, K+1, L+1, 2 THETAS P) passes kept as bounds
    floor: F64  # (2, K+1, L+1, 6) see FLOOR_*
    wait: F64  # (2, K+1, L+1, 2) see WAIT_*
    head: I64  # (2, K+1, L+1) first label of a node's front; -1: none
    parts: Parts
    trial: I64  # (2, K) cuts and levels of a plan to consider
    best: I64  # (2, K) of the best plan so far
    best_s: F64  # (1,) its objective
    bound_s: F64  # (1,) no plan's objective is below this


FLOOR_SERVICE, FLOOR_SLOWEST, FLOOR_BUSIEST, FLOOR_PERIOD, FLOOR_ERROR, FLOOR_LOOP = range(6)
"""Least to go from a node, each on its own: largest service, largest token service, busiest satellite,
largest period, error, and token loop."""

WAIT_FIRST, WAIT_LAST = range(2)
"""Completions of micro-batches 1 and M before which no plan gains anything, since what is still busy ahead
makes it wait at least as long."""

FIRST, LAST, ERROR, PRICE, BUSIEST, LOOP, SLOWEST, PEAK, ESTIMATE = range(9)
"""Columns of a label's values; see the module. PEAK is the largest period so far, ESTIMATE serves the
beam."""

PARENT, SLOT, BLOCK, LEVEL, NEXT = range(5)  # columns of a label's links; LEVEL is -1 at Out nodes


def make_workspace(n_slots: int, n_blocks: int, n_levels: int) -> Workspace:
    """Workspace for problems of K, L and R = `n_slots`, `n_blocks` and `n_levels`."""
    k, n, r, p = n_slots, n_blocks, n_levels, MAX_PARTS
    hops, nodes = (k, n + 1, k + 1, r), (2, k + 1, n + 1)
    return Workspace(
        hop_sum_s=np.empty(hops),
        hop_period_s=np.empty(hops),
        hop_token_s=np.empty(hops),
        hop_late_s=np.empty(hops),
        reach=np.empty((k + 1, n), dtype=np.int64),
        pass_=np.empty(nodes),
        choice=np.empty(nodes, dtype=np.int64),
        table=np.empty((*nodes, 2 * THETAS * p)),
        floor=np.empty((*nodes, 6)),
        wait=np.empty((*nodes, 2)),
        head=np.empty(nodes, dtype=np.int64),
        parts=Parts(
            low_s=np.empty(p),
            cap_s=np.empty(p),
            peak_s=np.empty(p),
            dual_s=np.empty((p, THETAS)),
            lam=np.empty(2 * THETAS * p),
            order=np.empty(p, dtype=np.int64),
        ),
        trial=np.empty((2, k), dtype=np.int64),
        best=np.empty((2, k), dtype=np.int64),
        best_s=np.empty(1),
        bound_s=np.empty(1),
    )


def fitting_workspace(workspace: Workspace | None, n_slots: int, n_blocks: int, n_levels: int) -> Workspace:
    """Return the workspace, or a new one for None; raise ValueError if it is of another size."""
    if workspace is None:
        return make_workspace(n_slots, n_blocks, n_levels)
    k, boundaries, _, r = workspace.hop_sum_s.shape
    if (k, boundaries - 1, r) != (n_slots, n_blocks, n_levels):
        size = f"K, L, R = {k}, {boundaries - 1}, {r}"
        raise ValueError(f"workspace is for {size}; the problem has {n_slots}, {n_blocks}, {n_levels}")
    return workspace


def checked_budget(max_expansions: int | None) -> int:
    """Return a budget of expansions for the kernels, `UNLIMITED` for None; refuse one that is no budget."""
    if max_expansions is None:
        return int(UNLIMITED)
    if isinstance(max_expansions, bool) or int(max_expansions) != max_expansions or max_expansions < 0:
        raise ValueError(f"max_expansions = {max_expansions!r}; allowed are None and integers from 0")
    return int(max_expansions)


def solve(
    costs: Costs,
    prices: Prices | None = None,
    workspace: Workspace | None = None,
    max_expansions: int | None = None,
) -> Solution:
    """Find an optimal plan.

    Parameters
    ----------
    costs
        The problem.
    prices
        What to add to the makespan; None adds nothing.
    workspace
        Memory from `make_workspace` for the same K, L and R, to be reused; None allocates it.
    max_expansions
        Budget of label expansions; None searches until the plan is proved.

    Returns
    -------
    Solution
        Optimal for `objective` if ``proved``, as it always is without a budget; its ``objective`` is inf if no
        plan is feasible.

    Raises
    ------
    ValueError
        A workspace of another size, or a negative budget.

    Notes
    -----
    Without a budget nothing bounds the time of a search: fronts of labels grow where releases, prices and
    decoding come together on long chains. `benchmarks/planners.py` prints what it takes.
    """
    n_slots = costs.rate_bps.shape[0]
    ws = fitting_workspace(workspace, n_slots, costs.compute_s.shape[1], costs.error.shape[1])
    plans, outcomes = np.empty((1, 2, n_slots), dtype=np.int64), np.empty((1, 4))
    expansions = np.empty(1, dtype=np.int64)
    one_costs = Costs(*cast(Any, (np.asarray(field)[None] for field in costs)))
    one_prices = Prices(*cast(Any, (np.asarray(field)[None] for field in prices or neutral_prices(n_slots))))
    search_each(one_costs, one_prices, ws, checked_budget(max_expansions), plans, outcomes, expansions)
    best_s, makespan_s, error, bound_s = outcomes[0].tolist()
    return Solution(plans[0, CUTS], plans[0, LEVELS], best_s, makespan_s, error, bound_s, int(expansions[0]))


@allocating_kernel
def search_each(
    costs: Costs,
    prices: Prices,
    ws: Workspace,
    max_expansions: int,
    plans: I64,
    outcomes: F64,
    expansions: I64,
) -> None:
    """Solve B problems of one size, one after another.

    Parameters
    ----------
    costs, prices
        With a leading axis B on every field, scalars included.
    ws
        Workspace of that size.
    max_expansions
        Budget of each problem; `UNLIMITED`.
    plans
        (B, 2, K) out: cuts and levels, canonical; zeros where infeasible.
    outcomes
        (B, 4) out: objective, makespan (both s, inf where infeasible), error, bound on the objective (s).
    expansions
        (B,) out.
    """
    costs, prices, ws = borrow(costs), borrow(prices), borrow(ws)  # the caller keeps them
    for b in range(len(plans)):
        row = costs_row(costs, b)
        expansions[b] = search(row, prices_row(prices, b), ws, max_expansions)
        _copy(ws.best, plans[b])
        outcomes[b, 0] = ws.best_s[0]
        feasible = ws.best_s[0] < np.inf
        outcomes[b, 1] = makespan(row, 1.0, ws.best[CUTS], ws.best[LEVELS]) if feasible else np.inf
        outcomes[b, 2] = summed_error(row, ws.best[CUTS], ws.best[LEVELS]) if feasible else 0.0
        outcomes[b, 3] = ws.bound_s[0]


@inner
def search(costs: Costs, prices: Prices, ws: Workspace, max_expansions: int) -> int:
    """Leave an optimal canonical plan in ``ws.best``, its objective in ``ws.best_s``; return the expansions.

    To be called from compiled code. An infeasible problem leaves zeros and inf. When the budget runs out the
    plan is the best one known, and ``ws.bound_s`` is below its objective.
    """
    n_blocks = costs.compute_s.shape[1]
    ws.best.fill(0)
    ws.best_s[0] = ws.bound_s[0] = np.inf
    _prepare(costs, prices, ws)
    if _backward(costs, prices, ws, 1.0, 0.0, np.inf, 0.0, np.inf) == np.inf:
        return 0
    _floors(costs, prices, ws)
    if _source(ws, FLOOR_ERROR) > costs.error_budget * (1.0 + SLACK):
        return 0
    n_live = _bound(costs, prices, ws)
    share, width, left = EASY, WIDTH, np.int64(max_expansions)
    closed = n_live == 0
    while not closed and left > 0:
        allowed = min(share, left)
        needed = _expand(costs, prices, ws, n_live, UNLIMITED, allowed)
        closed = needed <= allowed
        left -= min(needed, allowed)
        if not closed:  # a better plan to hold the bounds against is worth more than the labels it costs
            _expand(costs, prices, ws, n_live, width, UNLIMITED)
            _polish(costs, prices, ws)
            share, width = 10 * share, 4 * width
    if closed:
        ws.bound_s[0] = ws.best_s[0]
    else:
        _tighten(costs, prices, ws)
    make_canonical(n_blocks, ws.best[CUTS], ws.best[LEVELS])
    return int(max_expansions - left)


# --- arcs -----------------------------------------------------------------------------------------


@part
def _prepare(costs: Costs, prices: Prices, ws: Workspace) -> None:
    """Fill the arc tables of `ws`."""
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    m, tokens = costs.micro_batches, costs.n_tokens
    ws.hop_sum_s.fill(np.inf)
    ws.hop_period_s.fill(np.inf)
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
                    ws.hop_late_s[i, boundary, j, r] = costs.hop_release_s[i, j] + (m - 1) * send_s - encode_s
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
                allowed = costs.ground_hosts == GROUND_ANY or (
                    costs.ground_hosts != GROUND_NONE and start == 0
                )
                if not allowed or ws.reach[k, start] < n_blocks:
                    ws.reach[k, start] = start


@part
def _stage_sum_s(
    costs: Costs, prices: Prices, k: int, end: int, theta: float, work_s: float, token_s: float
) -> float:
    """Return what blocks up to `end` on slot k add to a sum to go, `theta` of the token loop included."""
    tokens = costs.n_tokens
    loop_s = token_s + (costs.return_s[k] if end == costs.compute_s.shape[1] else 0.0)
    sum_s: float = (
        work_s
        + prices.stage_price[k] * costs.micro_batches * (work_s + tokens * token_s)
        + theta * tokens * loop_s
    )
    return sum_s


@part
def _stage_period_s(costs: Costs, prices: Prices, k: int, work_s: float, token_s: float) -> float:
    """Return what a stage adds to the objective if it is the bottleneck."""
    m, tokens = costs.micro_batches, costs.n_tokens
    period_s = (m - 1) * work_s + tokens * m * token_s
    if k < costs.rate_bps.shape[0]:
        period_s += prices.bottleneck * m * (work_s + tokens * token_s)
    return period_s


# --- backward: bounds and plans -------------------------------------------------------------------


@part
def _backward(
    costs: Costs,
    prices: Prices,
    ws: Workspace,
    weight: float,
    lam: float,
    cap_s: float,
    theta: float,
    deadline_s: float,
) -> float:
    """Least ``weight * (sum + theta * loop) + lam * error`` to go over servers of period <= `cap_s`.

    Leaves out every server that is released too late for `deadline_s`: whatever came before it, the objective
    is at least its release + M services + the rest of the way. Fills ``ws.pass_`` and ``ws.choice``; returns
    the value at the source.
    """
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    m = costs.micro_batches
    h_in, h_out = ws.pass_[IN], ws.pass_[OUT]
    ws.pass_.fill(np.inf)
    late_s = deadline_s + lam * costs.error_budget if lam > 0.0 else deadline_s
    for k in range(n_slots, -1, -1):
        if k < n_slots:
            for boundary in range(0 if k == 0 else 1, n_blocks + 1):
                best, choice = np.inf, -1
                for j in range(n_slots if boundary == n_blocks else k + 1, n_slots + 1):
                    to_go = 0.0 if boundary == n_blocks else h_in[j, boundary]
                    if to_go >= best:
                        continue
                    for r in range(n_levels if 0 < boundary < n_blocks else 1):
                        if ws.hop_period_s[k, boundary, j, r] <= cap_s:
                            hop_s = ws.hop_sum_s[k, boundary, j, r]
                            if theta > 0.0:
                                hop_s += theta * ws.hop_token_s[k, boundary, j, r]
                            value = weight * hop_s + lam * costs.error[boundary, r] + to_go
                            if value < best and value + ws.hop_late_s[k, boundary, j, r] < late_s:
                                best, choice = value, j * n_levels + r
                h_out[k, boundary] = best
                ws.choice[OUT, k, boundary] = choice
        for start in range(n_blocks if k > 0 else 1):
            best, choice = np.inf, -1
            work_s, token_s, load_s = 0.0, 0.0, 0.0
            for end in range(start + 1, ws.reach[k, start] + 1):
                work_s += costs.compute_s[k, end - 1]
                token_s += costs.token_compute_s[k, end - 1]
                load_s += costs.load_s[k, end - 1]
                if _stage_period_s(costs, prices, k, work_s, token_s) > cap_s:
                    break
                if k == n_slots and end < n_blocks:
                    continue
                to_go = 0.0 if k == n_slots else h_out[k, end]
                if to_go < best:
                    value = weight * _stage_sum_s(costs, prices, k, end, theta, work_s, token_s) + to_go
                    release_s = costs.stage_release_s[k] + prices.load_weight * load_s
                    if value < best and value + release_s + (m - 1) * work_s < late_s:
                        best, choice = value, end
            h_in[k, start] = best
            ws.choice[IN, k, start] = choice
    at_source: float = min(h_in[0, 0], h_out[0, 0])
    return at_source


@part
def _trace(costs: Costs, prices: Prices, ws: Workspace, theta: float) -> tuple[float, float, float]:
    """Consider the plan of the last `_backward`; return its sum (`theta` of the loop), error and period."""
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    ws.trial.fill(0)
    sum_s, error, period_s = 0.0, 0.0, 0.0
    k, boundary, at_out = 0, 0, ws.pass_[OUT, 0, 0] < ws.pass_[IN, 0, 0]
    while True:
        if not at_out:
            work_s, token_s = 0.0, 0.0
            end = ws.choice[IN, k, boundary]
            for block in range(boundary, end):
                work_s += costs.compute_s[k, block]
                token_s += costs.token_compute_s[k, block]
            sum_s += _stage_sum_s(costs, prices, k, end, theta, work_s, token_s)
            period_s = max(period_s, _stage_period_s(costs, prices, k, work_s, token_s))
            boundary = end
            if k == n_slots:
                break
            for i in range(k, n_slots):
                ws.trial[CUTS, i] = boundary
        j, r = divmod(ws.choice[OUT, k, boundary], n_levels)
        sum_s += ws.hop_sum_s[k, boundary, j, r] + theta * ws.hop_token_s[k, boundary, j, r]
        period_s = max(period_s, ws.hop_period_s[k, boundary, j, r])
        error += costs.error[boundary, r]
        ws.trial[LEVELS, k] = r
        if boundary == n_blocks:
            break
        k, at_out = j, False
    _consider(costs, prices, ws)
    return sum_s, error, period_s


@part
def _copy(source: I64, target: I64) -> None:
    """Copy a plan."""
    for row in range(2):
        for k in range(source.shape[1]):
            target[row, k] = source[row, k]


@part
def _consider(costs: Costs, prices: Prices, ws: Workspace) -> bool:
    """Make ``ws.trial`` the best plan if it is better; say whether it is."""
    value = priced_span_s(costs, prices, ws.trial[CUTS], ws.trial[LEVELS])
    better: bool = value < ws.best_s[0]
    if better:
        _copy(ws.trial, ws.best)
        ws.best_s[0] = value
    return better


@part
def _polish(costs: Costs, prices: Prices, ws: Workspace) -> None:
    """Improve the best plan by single moves: a cut or a level by one, a slot emptied."""
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    improved = ws.best_s[0] < np.inf
    while improved:
        improved = False
        for k in range(n_slots):
            for move in range(6):
                _copy(ws.best, ws.trial)
                cut = ws.trial[CUTS, k]
                if move < 4:
                    if move == 0:
                        cut += 1
                    elif move == 1:
                        cut -= 1
                    elif move == 2:
                        cut = 0 if k == 0 else ws.trial[CUTS, k - 1]
                    elif k < n_slots - 1:
                        cut = ws.trial[CUTS, k + 1]
                    if cut == ws.trial[CUTS, k] or not 0 <= cut <= n_blocks:
                        continue
                    for i in range(k):
                        ws.trial[CUTS, i] = min(ws.trial[CUTS, i], cut)
                    for i in range(k, n_slots):
                        ws.trial[CUTS, i] = cut if i == k else max(ws.trial[CUTS, i], cut)
                else:
                    level = ws.trial[LEVELS, k] + (1 if move == 4 else -1)
                    if not 0 <= level < n_levels or not 0 < cut < n_blocks:
                        continue
                    ws.trial[LEVELS, k] = level
                if _consider(costs, prices, ws):
                    improved = True


@inner
def _floors(costs: Costs, prices: Prices, ws: Workspace) -> None:
    """Fill ``ws.floor``."""
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    m, tokens = costs.micro_batches, costs.n_tokens
    floor = ws.floor
    floor.fill(np.inf)
    done = np.zeros(6)
    for k in range(n_slots, -1, -1):
        if k < n_slots:
            for boundary in range(0 if k == 0 else 1, n_blocks + 1):
                here = floor[OUT, k, boundary]
                for j in range(n_slots if boundary == n_blocks else k + 1, n_slots + 1):
                    there = done if boundary == n_blocks else floor[IN, j, boundary]
                    if there[FLOOR_ERROR] == np.inf:
                        continue
                    for r in range(n_levels if 0 < boundary < n_blocks else 1):
                        if ws.hop_sum_s[k, boundary, j, r] == np.inf:
                            continue
                        send_s = transfer_s(costs, k, j, boundary, r)
                        busy_s = max(costs.encode_s[k, boundary, r], send_s, costs.decode_s[j, boundary, r])
                        ratio = token_ratio(costs, boundary, r)
                        here[FLOOR_SERVICE] = min(here[FLOOR_SERVICE], max(busy_s, there[FLOOR_SERVICE]))
                        here[FLOOR_SLOWEST] = min(
                            here[FLOOR_SLOWEST], max(ratio * busy_s, there[FLOOR_SLOWEST])
                        )
                        here[FLOOR_BUSIEST] = min(here[FLOOR_BUSIEST], there[FLOOR_BUSIEST])
                        here[FLOOR_PERIOD] = min(
                            here[FLOOR_PERIOD], max(ws.hop_period_s[k, boundary, j, r], there[FLOOR_PERIOD])
                        )
                        here[FLOOR_ERROR] = min(
                            here[FLOOR_ERROR], costs.error[boundary, r] + there[FLOOR_ERROR]
                        )
                        loop_s = ws.hop_token_s[k, boundary, j, r] + there[FLOOR_LOOP]
                        here[FLOOR_LOOP] = min(here[FLOOR_LOOP], loop_s)
        for start in range(n_blocks if k > 0 else 1):
            here = floor[IN, k, start]
            work_s, token_s = 0.0, 0.0
            for end in range(start + 1, ws.reach[k, start] + 1):
                work_s += costs.compute_s[k, end - 1]
                token_s += costs.token_compute_s[k, end - 1]
                if k == n_slots and end < n_blocks:
                    continue
                there = done if k == n_slots else floor[OUT, k, end]
                if there[FLOOR_ERROR] == np.inf:
                    continue
                here[FLOOR_SERVICE] = min(here[FLOOR_SERVICE], max(work_s, there[FLOOR_SERVICE]))
                here[FLOOR_SLOWEST] = min(here[FLOOR_SLOWEST], max(token_s, there[FLOOR_SLOWEST]))
                job_s = m * (work_s + tokens * token_s) if k < n_slots else 0.0
                here[FLOOR_BUSIEST] = min(here[FLOOR_BUSIEST], max(job_s, there[FLOOR_BUSIEST]))
                period_s = _stage_period_s(costs, prices, k, work_s, token_s)
                here[FLOOR_PERIOD] = min(here[FLOOR_PERIOD], max(period_s, there[FLOOR_PERIOD]))
                here[FLOOR_ERROR] = min(here[FLOOR_ERROR], there[FLOOR_ERROR])
                loop_s = token_s + (costs.return_s[k] if end == n_blocks else 0.0)
                here[FLOOR_LOOP] = min(here[FLOOR_LOOP], tokens * loop_s + there[FLOOR_LOOP])


@part
def _wait_before(
    wait_first: float, wait_last: float, floor_s: float, service_s: float, release_s: float, m: int
) -> tuple[float, float, float]:
    """Return waits and largest service to go before a server, from those after it; see `_waits`."""
    first = wait_first - service_s - (m - 1) * max(0.0, service_s - floor_s)
    floor_s = max(floor_s, service_s)
    return max(release_s, first), max(release_s + (m - 1) * floor_s, wait_last - service_s), floor_s


@part
def _waits(costs: Costs, prices: Prices, ws: Workspace, deadline_s: float) -> None:
    """Fill ``ws.wait``.

    The pipeline is linear in (max, +): with S the sum and X the largest of the services to go on a path, and
    R what its releases alone make of it, a label ends at

        max(last + S, first + S + (M - 1) X, R),   R = max over servers j of r_j + S_j + (M - 1) X_j,

    S_j and X_j from j on. So `last` counts only beyond R - S, and `first` beyond R - S - (M - 1) X; the least
    of these over all paths that can still end before `deadline_s` comes from a backward pass.
    """
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    m = costs.micro_batches
    _backward(costs, prices, ws, 1.0, 0.0, np.inf, 0.0, deadline_s)
    h_in, h_out = ws.pass_[IN], ws.pass_[OUT]
    wait, floor = ws.wait, ws.floor
    wait.fill(np.inf)
    for k in range(n_slots, -1, -1):
        if k < n_slots:
            for boundary in range(0 if k == 0 else 1, n_blocks + 1):
                here = wait[OUT, k, boundary]
                for j in range(n_slots if boundary == n_blocks else k + 1, n_slots + 1):
                    done = boundary == n_blocks
                    to_go = 0.0 if done else h_in[j, boundary]
                    if to_go == np.inf:
                        continue
                    after_first = -np.inf if done else wait[IN, j, boundary, WAIT_FIRST]
                    after_last = -np.inf if done else wait[IN, j, boundary, WAIT_LAST]
                    after_s = 0.0 if done else floor[IN, j, boundary, FLOOR_SERVICE]
                    for r in range(n_levels if 0 < boundary < n_blocks else 1):
                        hop_s = ws.hop_sum_s[k, boundary, j, r]
                        if not hop_s + to_go + ws.hop_late_s[k, boundary, j, r] < deadline_s:
                            continue
                        encode_s, decode_s = costs.encode_s[k, boundary, r], costs.decode_s[j, boundary, r]
                        send_s, latency_s = transfer_s(costs, k, j, boundary, r), costs.latency_s[k, j]
                        release_s = costs.hop_release_s[k, j]
                        first, last, floor_s = _wait_before(
                            after_first, after_last, after_s, decode_s, 0.0, m
                        )
                        first, last = first - latency_s, last - latency_s
                        first, last, floor_s = _wait_before(first, last, floor_s, send_s, release_s, m)
                        first, last, floor_s = _wait_before(first, last, floor_s, encode_s, 0.0, m)
                        here[WAIT_FIRST] = min(here[WAIT_FIRST], first)
                        here[WAIT_LAST] = min(here[WAIT_LAST], last)
        for start in range(n_blocks if k > 0 else 1):
            here = wait[IN, k, start]
            work_s, token_s, load_s = 0.0, 0.0, 0.0
            for end in range(start + 1, ws.reach[k, start] + 1):
                work_s += costs.compute_s[k, end - 1]
                token_s += costs.token_compute_s[k, end - 1]
                load_s += costs.load_s[k, end - 1]
                done = k == n_slots
                if done and end < n_blocks:
                    continue
                to_go = 0.0 if done else h_out[k, end]
                sum_s = _stage_sum_s(costs, prices, k, end, 0.0, work_s, token_s) + to_go
                release_s = costs.stage_release_s[k] + prices.load_weight * load_s
                if not sum_s + release_s + (m - 1) * work_s < deadline_s:
                    continue
                first, last, _ = _wait_before(
                    -np.inf if done else wait[OUT, k, end, WAIT_FIRST],
                    -np.inf if done else wait[OUT, k, end, WAIT_LAST],
                    0.0 if done else floor[OUT, k, end, FLOOR_SERVICE],
                    work_s,
                    release_s,
                    m,
                )
                here[WAIT_FIRST] = min(here[WAIT_FIRST], first)
                here[WAIT_LAST] = min(here[WAIT_LAST], last)


@part
def _source(ws: Workspace, floor: int) -> float:
    """Return a floor at the source."""
    at_source: float = min(ws.floor[IN, 0, 0, floor], ws.floor[OUT, 0, 0, floor])
    return at_source


@part
def _keep(ws: Workspace, t: int, lam: float) -> None:
    """Keep the last pass as bound `t`."""
    kinds, slots, boundaries = ws.pass_.shape
    for kind in range(kinds):
        for slot in range(slots):
            for boundary in range(boundaries):
                ws.table[kind, slot, boundary, t] = ws.pass_[kind, slot, boundary]
    ws.parts.lam[t] = lam


@part
def _part_bound_s(ws: Workspace, g: int, n_thetas: int) -> float:
    """Return a bound on the objective of the plans of part g."""
    bound_s: float = ws.parts.dual_s[g, 0] + ws.parts.low_s[g]
    for i in range(1, n_thetas):
        share = 1.0 - i / (n_thetas - 1)
        bound_s = max(bound_s, ws.parts.dual_s[g, i] + share * ws.parts.low_s[g])
    return bound_s


@part
def _dual(costs: Costs, prices: Prices, ws: Workspace, g: int, i: int, theta: float) -> None:
    """Bound part g: maximise the Lagrangian dual over lambda, by the crossing of its two best lines.

    Keeps the passes with lambda = 0 and with the best lambda, and considers every plan on the way.
    """
    budget, cap_s = costs.error_budget, ws.parts.cap_s[g]
    t = 2 * (g * THETAS + i)
    ws.parts.lam[t] = ws.parts.lam[t + 1] = -1.0
    ws.parts.dual_s[g, i] = np.inf
    dual_s = _backward(costs, prices, ws, 1.0, 0.0, cap_s, theta, ws.best_s[0])
    if dual_s == np.inf:
        return
    low_sum_s, low_error, peak_s = _trace(costs, prices, ws, theta)
    _keep(ws, t, 0.0)
    if low_error > budget:
        _backward(costs, prices, ws, 0.0, 1.0, cap_s, theta, np.inf)
        high_sum_s, high_error, _ = _trace(costs, prices, ws, theta)
        if high_error > budget * (1.0 + SLACK):
            return
        for _ in range(12):
            if not (high_error < low_error and high_sum_s > low_sum_s):
                break
            lam = (high_sum_s - low_sum_s) / (low_error - high_error)
            value = _backward(costs, prices, ws, 1.0, lam, cap_s, theta, ws.best_s[0])
            if value == np.inf:  # nothing here beats the best plan
                return
            sum_s, error, period_s = _trace(costs, prices, ws, theta)
            if value - lam * budget > dual_s or ws.parts.lam[t + 1] < 0.0:
                dual_s = max(dual_s, value - lam * budget)
                peak_s = period_s
                _keep(ws, t + 1, lam)
            if value >= low_sum_s + lam * low_error - 1e-9 * abs(value):
                break
            if error > budget:
                low_sum_s, low_error = sum_s, error
            else:
                high_sum_s, high_error = sum_s, error
    ws.parts.dual_s[g, i] = dual_s
    if i == 0:
        ws.parts.peak_s[g] = peak_s


@inner
def _is_released(costs: Costs, prices: Prices) -> bool:
    """Whether anything is busy, or has to be loaded, at first."""
    released: bool = (
        costs.stage_release_s.max() > 0.0
        or costs.hop_release_s.max() > 0.0
        or prices.load_weight * costs.load_s.max() > 0.0
    )
    return released


@inner
def _bound(costs: Costs, prices: Prices, ws: Workspace) -> int:
    """Split the plans by bottleneck, bound each part, find a good plan; return how many can still win.

    Leaves the least bound of these in ``ws.bound_s``.
    """
    parts = ws.parts
    n_thetas = THETAS if costs.n_tokens > 0 else 1
    released = _is_released(costs, prices)
    # A pass costs as much as many labels: parts pay on large problems, and little where releases rule.
    most_parts = min(MAX_PARTS, 2 + costs.compute_s.shape[1] // (16 if released else 4))
    n_parts, split = 0, -1  # the part to split; -1: none yet
    while n_parts < most_parts:
        g: Any = np.int64(n_parts)
        if split < 0:
            # A part is open below, and a plan may well have the least bottleneck of all.
            parts.low_s[g], parts.cap_s[g] = _source(ws, FLOOR_PERIOD) * (1.0 - SLACK), np.inf
        else:  # the lower half becomes a part of its own
            top_s, low_s = min(parts.cap_s[split], parts.peak_s[split]), parts.low_s[split]
            middle_s = np.sqrt(low_s * top_s) if low_s > 0.05 * top_s else 0.3 * top_s
            parts.low_s[g], parts.cap_s[g] = low_s, middle_s
            parts.low_s[split] = middle_s
        parts.peak_s[g] = parts.cap_s[g]
        for i in range(n_thetas):
            _dual(costs, prices, ws, g, i, i / max(1, n_thetas - 1))
            if parts.dual_s[g, i] == np.inf:
                parts.dual_s[g, 0] = np.inf
                break
        n_parts += 1
        if g == 0:
            _polish(costs, prices, ws)
            if (released or n_thetas > 1) and _part_bound_s(ws, g, n_thetas) < ws.best_s[0]:
                parts.order[0] = 0
                _expand(costs, prices, ws, np.int64(1), np.int64(1), UNLIMITED)
                _polish(costs, prices, ws)
        split = -1
        least_s = ws.best_s[0]
        for h in range(n_parts):
            top_s = min(parts.cap_s[h], parts.peak_s[h])
            bound_s = _part_bound_s(ws, h, n_thetas)
            if bound_s < least_s and top_s > 1.01 * parts.low_s[h]:
                split, least_s = h, bound_s
        if split < 0:
            break
    _polish(costs, prices, ws)

    margin_s = ws.best_s[0] - SLACK * ws.best_s[0] if ws.best_s[0] < np.inf else np.inf
    bounds_s = np.empty(n_parts)
    for g in range(n_parts):
        bounds_s[g] = _part_bound_s(ws, g, n_thetas)
        if released and bounds_s[g] < margin_s:  # passes made before the best plan was known
            for i in range(n_thetas):
                for t in range(2 * (g * THETAS + i), 2 * (g * THETAS + i) + 2):
                    lam = parts.lam[t]
                    if lam >= 0.0:
                        theta = i / max(1, n_thetas - 1)
                        value = _backward(costs, prices, ws, 1.0, lam, parts.cap_s[g], theta, margin_s)
                        _keep(ws, t, lam)
                        dual_s = value - (lam * costs.error_budget if lam > 0.0 else 0.0)
                        bounds_s[g] = max(bounds_s[g], dual_s + (1.0 - theta) * parts.low_s[g])
    n_live = 0
    for g in range(n_parts):
        if bounds_s[g] < margin_s:
            at = n_live
            while at > 0 and bounds_s[parts.order[at - 1]] > bounds_s[g]:
                parts.order[at] = parts.order[at - 1]
                at -= 1
            parts.order[at] = g
            n_live += 1
    ws.bound_s[0] = bounds_s[parts.order[0]] if n_live > 0 else ws.best_s[0]
    return n_live


@part
def _tighten(costs: Costs, prices: Prices, ws: Workspace) -> None:
    """Raise ``ws.bound_s`` by what is released too late.

    A plan that ends before t takes at least the sum of a pass without all that cannot end before t; so no plan
    ends before both.
    """
    low_s, high_s = ws.bound_s[0], ws.best_s[0]
    for _ in range(20):
        if not low_s < high_s < np.inf:
            break
        middle_s = 0.5 * (low_s + high_s)
        bound_s = min(middle_s, _backward(costs, prices, ws, 1.0, 0.0, np.inf, 0.0, middle_s))
        ws.bound_s[0] = max(ws.bound_s[0], bound_s)
        if bound_s == middle_s:
            low_s = middle_s
        else:
            high_s = middle_s


# --- forward: labels ------------------------------------------------------------------------------


@part
def _hopeless(
    costs: Costs,
    prices: Prices,
    ws: Workspace,
    n_live: int,
    kind: int,
    slot: int,
    boundary: int,
    value: F64,
    released: bool,
    margin_s: float,
) -> bool:
    """Whether no completion of a label at the node can come below `margin_s`.

    Without releases the bottleneck of a plan is paid wherever it is. With them a queue hides the periods
    before it: only a bottleneck still to come is sure to be paid.
    """
    m, tokens = costs.micro_batches, costs.n_tokens
    n_thetas = THETAS if tokens > 0 else 1
    floor = ws.floor[kind, slot, boundary]
    slack = costs.error_budget - value[ERROR]
    if floor[FLOOR_ERROR] > slack + SLACK * costs.error_budget:
        return True
    loop_s = tokens * value[LOOP]
    decode_s = max(loop_s + floor[FLOOR_LOOP], tokens * m * max(value[SLOWEST], floor[FLOOR_SLOWEST]))
    price_s = value[PRICE] + prices.bottleneck * max(value[BUSIEST], floor[FLOOR_BUSIEST])
    ends_s = max(value[LAST], value[FIRST] + (m - 1) * floor[FLOOR_SERVICE]) + price_s
    to_go = ws.table[kind, slot, boundary]
    if ends_s + decode_s + to_go[0] >= margin_s:
        return True
    for n in range(n_live):
        g = ws.parts.order[n]
        if value[PEAK] > ws.parts.cap_s[g]:
            continue  # not a plan of this part
        period_s = floor[FLOOR_PERIOD]
        if value[PEAK] <= ws.parts.low_s[g]:
            period_s = max(period_s, ws.parts.low_s[g])
        elif not released:
            period_s = max(period_s, value[PEAK])
        possible = True
        for i in range(n_thetas):
            theta = i / max(1, n_thetas - 1)
            so_far_s = max(
                ends_s + theta * loop_s + (1.0 - theta) * decode_s,
                value[FIRST] + value[PRICE] + theta * loop_s + (1.0 - theta) * period_s,
            )
            for t in range(2 * (g * THETAS + i), 2 * (g * THETAS + i) + 2):
                lam = ws.parts.lam[t]
                if lam >= 0.0:
                    bound_s = so_far_s + to_go[t]
                    if lam > 0.0:
                        bound_s -= lam * slack
                    possible = possible and bound_s < margin_s
            if not possible:
                break
        if possible:
            return False
    return True


@part
def _write(values: F64, at: int, new: F64) -> None:
    """Store a label's values."""
    for column in range(9):
        values[at, column] = new[column]


@part
def _estimate_s(
    costs: Costs, prices: Prices, ws: Workspace, kind: int, slot: int, boundary: int, value: F64
) -> float:
    """Guess the objective a label leads to, from the bounds of the part of all plans."""
    m, tokens = costs.micro_batches, costs.n_tokens
    n_thetas = THETAS if tokens > 0 else 1
    floor = ws.floor[kind, slot, boundary]
    loop_s = tokens * value[LOOP]
    decode_s = max(loop_s + floor[FLOOR_LOOP], tokens * m * max(value[SLOWEST], floor[FLOOR_SLOWEST]))
    price_s = value[PRICE] + prices.bottleneck * max(value[BUSIEST], floor[FLOOR_BUSIEST])
    ends_s = max(value[LAST], value[FIRST] + (m - 1) * floor[FLOOR_SERVICE]) + price_s
    estimate_s = -np.inf
    for i in range(n_thetas):
        theta = i / max(1, n_thetas - 1)
        for t in (2 * i, 2 * i + 1):
            lam = ws.parts.lam[t]
            if lam >= 0.0:
                bound_s = (
                    ends_s + theta * loop_s + (1.0 - theta) * decode_s + ws.table[kind, slot, boundary, t]
                )
                if lam > 0.0:
                    bound_s -= lam * (costs.error_budget - value[ERROR])
                estimate_s = max(estimate_s, bound_s)
    return estimate_s


@inner
def _expand(costs: Costs, prices: Prices, ws: Workspace, n_live: int, width: int, max_expansions: int) -> int:
    """Search the graph forward for a plan better than ``ws.best``; return the labels expanded.

    A node keeps the `width` labels of least estimate: fast, and not exact unless it is `UNLIMITED`. A result
    of more than `max_expansions` says that the budget ran out.
    """
    released = _is_released(costs, prices)
    priced = (
        prices.stage_price.max() > 0.0 or prices.hop_price.max() > 0.0 or prices.hop_fixed_s.max() > 0.0
    ) and released
    room: Any = np.int64(1024)
    expansions: Any = np.int64(-1)
    while expansions < 0:
        owned = np.empty((room, 9)), np.empty((room, 5), dtype=np.int64), np.empty(9)
        values, links, new = borrow(owned)
        expansions = _expand_in(
            costs, prices, ws, n_live, width, max_expansions, released, priced, values, links, new
        )
        room = np.int64(4 * len(owned[0]))  # what is borrowed lives until here
    return int(expansions)


@part
def _expand_in(
    costs: Costs,
    prices: Prices,
    ws: Workspace,
    n_live: int,
    width: int,
    max_expansions: int,
    released: bool,
    priced: bool,
    values: F64,
    links: I64,
    new: F64,
) -> int:
    """Expand in this room for labels; return -1, nothing changed, where it does not suffice."""
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    m, tokens = costs.micro_batches, costs.n_tokens
    margin_s = ws.best_s[0] - SLACK * ws.best_s[0] if ws.best_s[0] < np.inf else np.inf
    if released:
        _waits(costs, prices, ws, margin_s)
    ws.head.fill(-1)
    ws.head[OUT, 0, 0], ws.head[IN, 0, 0] = 0, 1  # slot 0 has the raw input; it computes, or only sends it
    for root in range(2):
        for column in range(9):
            values[root, column] = 0.0
        for column in range(5):
            links[root, column] = 0
        links[root, PARENT] = links[root, NEXT] = -1
    links[0, LEVEL] = -1
    n_labels = np.int64(2)
    goal, goal_level = -1, 0
    expansions = 0
    for k in range(n_slots):
        for kind in range(2):
            for start in range(n_blocks + 1):
                label = ws.head[kind, k, start]
                while label >= 0:
                    old = values[label]
                    if _hopeless(costs, prices, ws, n_live, kind, k, start, old, released, margin_s):
                        label = links[label, NEXT]
                        continue
                    expansions += 1
                    if expansions > max_expansions:
                        break
                    n_arcs = 0
                    if kind == IN:
                        n_arcs = ws.reach[k, start] - start
                        work_s, token_s, load_s = 0.0, 0.0, 0.0
                    elif start == n_blocks:
                        n_arcs = 1
                    else:
                        n_arcs = (n_slots - k) * (n_levels if start > 0 else 1)
                    for arc in range(n_arcs):
                        for column in range(9):
                            new[column] = values[label, column]
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
                            _send(costs, prices, ws, k, slot, start, level, new)
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
                            if total < margin_s and new[ERROR] <= costs.error_budget:
                                margin_s, goal, goal_level = total, label, level
                            continue
                        to_kind = OUT if kind == IN else IN
                        if released:
                            new[FIRST] = max(new[FIRST], ws.wait[to_kind, slot, end, WAIT_FIRST])
                            new[LAST] = max(new[LAST], ws.wait[to_kind, slot, end, WAIT_LAST])
                        if _hopeless(costs, prices, ws, n_live, to_kind, slot, end, new, released, margin_s):
                            continue
                        if n_labels == len(values):
                            return -1
                        at = n_labels
                        if width < UNLIMITED:
                            new[ESTIMATE] = _estimate_s(costs, prices, ws, to_kind, slot, end, new)
                            front = ws.head[to_kind, slot]
                            at = _make_room(values, links, front, end, width, new[ESTIMATE], n_labels)
                            if at < 0:
                                continue
                        _write(values, at, new)
                        if not _insert(costs, prices, ws, values, links, at, to_kind, slot, end, priced):
                            continue
                        links[at, PARENT] = label
                        links[at, SLOT] = slot
                        links[at, BLOCK] = end
                        links[at, LEVEL] = level
                        n_labels += at == n_labels
                    label = links[label, NEXT]
    if goal >= 0:
        ws.trial.fill(0)
        level = goal_level
        label = goal
        while label >= 0:
            if links[label, LEVEL] < 0:  # Out: the slot's last block, and the level it sends at
                ws.trial[LEVELS, links[label, SLOT]] = level
                ws.trial[CUTS, links[label, SLOT]] = links[label, BLOCK]
            else:
                level = links[label, LEVEL]
            label = links[label, PARENT]
        for k in range(1, n_slots):
            ws.trial[CUTS, k] = max(ws.trial[CUTS, k], ws.trial[CUTS, k - 1])
        _consider(costs, prices, ws)
    return expansions


@part
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
    label[PEAK] = max(label[PEAK], _stage_period_s(costs, prices, k, work_s, token_s))


@part
def _send(
    costs: Costs, prices: Prices, ws: Workspace, i: int, j: int, boundary: int, level: int, label: F64
) -> None:
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
    label[PEAK] = max(label[PEAK], ws.hop_period_s[i, boundary, j, level])


@part
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
    priced: bool,
) -> bool:
    """Put label `new` into its node's front unless another is at least as good; drop those it beats.

    A front is a list by rising (first + price). A label beats another if it is no worse in every quantity
    that a completion can make count: a later bottleneck is at least the node's floor, and price alone counts
    only if a later release can hide the completion.
    """
    m, tokens = costs.micro_batches, costs.n_tokens
    floor = ws.floor[kind, slot, boundary]
    least_s = (m - 1) * floor[FLOOR_SERVICE]
    a = values[new]
    a_first = a[FIRST] + a[PRICE]
    a_last = max(a[LAST], a[FIRST] + least_s) + a[PRICE]
    a_busiest = max(a[BUSIEST], floor[FLOOR_BUSIEST])
    busy, decoding = prices.bottleneck > 0.0, tokens > 0
    least_slowest_s, least_loop_s = floor[FLOOR_SLOWEST], floor[FLOOR_LOOP] / max(1, tokens)
    a_slowest = max(a[SLOWEST], least_slowest_s, (a[LOOP] + least_loop_s) / m)
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
                or (
                    a[LOOP] <= b[LOOP]
                    and a[SLOWEST] <= max(b[SLOWEST], least_slowest_s, (b[LOOP] + least_loop_s) / m)
                )
            )
        ):
            links[before, NEXT] = links[here, NEXT]
        else:
            before = here
        here = links[here, NEXT]
    return True


@part
def _make_room(
    values: F64, links: I64, heads: I64, boundary: int, width: int, estimate_s: float, free: int
) -> int:
    """Return where to store a label: `free`, in place of the worst of a full front, or -1 if it is worse."""
    count, before, worst, before_worst = 0, -1, -1, -1
    here = heads[boundary]
    while here >= 0:
        if worst < 0 or values[here, ESTIMATE] > values[worst, ESTIMATE]:
            worst, before_worst = here, before
        count += 1
        before, here = here, links[here, NEXT]
    if count < width:
        return free
    if values[worst, ESTIMATE] <= estimate_s:
        return -1
    if before_worst < 0:
        heads[boundary] = links[worst, NEXT]
    else:
        links[before_worst, NEXT] = links[worst, NEXT]
    return worst
