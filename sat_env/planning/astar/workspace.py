"""Memory of a search: its nodes, arcs, bounds and fronts as arrays, and the names of their columns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sat_env.planning.costs import F64, I64

IN, OUT = 0, 1  # the two kinds of node
CUTS, LEVELS = 0, 1  # rows of a plan
MAX_PARTS = 24  # parts by bottleneck
THETAS = 3  # shares of the token loop that bounds are made for, when decoding: 0, 1/2, 1
SLACK = 1e-12  # relative: bounds are summed in another order than predictions
UNLIMITED = np.int64(np.iinfo(np.int64).max)  # expansions


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
"""Columns of a label's values; see `sat_env.planning.exact`. PEAK is the largest period so far, ESTIMATE
serves the beam."""

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
