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

from sat_env.kernels import allocating_kernel, borrow, inner
from sat_env.planning.astar.arcs import fill_arcs
from sat_env.planning.astar.incumbent import copy_plan, polish
from sat_env.planning.astar.labels import expand
from sat_env.planning.astar.parts import bound_parts, tighten
from sat_env.planning.astar.passes import backward, fill_floors, source_floor
from sat_env.planning.astar.workspace import (
    CUTS,
    FLOOR_ERROR,
    LEVELS,
    SLACK,
    UNLIMITED,
    Workspace,
    fitting_workspace,
)
from sat_env.planning.costs import (
    F64,
    I64,
    Costs,
    Prices,
    check_prices,
    costs_row,
    make_canonical,
    neutral_prices,
    prices_row,
)
from sat_env.planning.predict import makespan, summed_error

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
        Prices or a workspace of another size, or a negative budget.

    Notes
    -----
    Without a budget nothing bounds the time of a search: fronts of labels grow where releases, prices and
    decoding come together on long chains. `benchmarks/planners.py` prints what it takes.
    """
    n_slots = costs.rate_bps.shape[0]
    prices = prices or neutral_prices(n_slots)
    check_prices(costs, prices)
    ws = fitting_workspace(workspace, n_slots, costs.compute_s.shape[1], costs.error.shape[1])
    plans, outcomes = np.empty((1, 2, n_slots), dtype=np.int64), np.empty((1, 4))
    expansions = np.empty(1, dtype=np.int64)
    one_costs = Costs(*cast(Any, (np.asarray(field)[None] for field in costs)))
    one_prices = Prices(*cast(Any, (np.asarray(field)[None] for field in prices)))
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
        copy_plan(ws.best, plans[b])
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
    fill_arcs(costs, prices, ws)
    if backward(costs, prices, ws, 1.0, 0.0, np.inf, 0.0, np.inf) == np.inf:
        return 0
    fill_floors(costs, prices, ws)
    if source_floor(ws, FLOOR_ERROR) > costs.error_budget * (1.0 + SLACK):
        return 0
    n_live = bound_parts(costs, prices, ws)
    share, width, left = EASY, WIDTH, np.int64(max_expansions)
    closed = n_live == 0
    while not closed and left > 0:
        allowed = min(share, left)
        needed = expand(costs, prices, ws, n_live, UNLIMITED, allowed)
        closed = needed <= allowed
        left -= min(needed, allowed)
        if not closed:  # a better plan to hold the bounds against is worth more than the labels it costs
            expand(costs, prices, ws, n_live, width, UNLIMITED)
            polish(costs, prices, ws)
            share, width = 10 * share, 4 * width
    if closed:
        ws.bound_s[0] = ws.best_s[0]
    else:
        tighten(costs, prices, ws)
    make_canonical(n_blocks, ws.best[CUTS], ws.best[LEVELS])
    return int(max_expansions - left)
