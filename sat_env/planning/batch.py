"""Many planning problems at once, for agents that act through a planner.

A batch is the same `Costs` and `Prices` with a leading axis B on every field, scalars included; every plan is
exact where no budget is given. One thread, one workspace.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from sat_env.planning.astar.workspace import CUTS, LEVELS, Workspace, fitting_workspace
from sat_env.planning.costs import F64, I64, Costs, Prices, check_prices, neutral_prices
from sat_env.planning.exact import checked_budget, search_each


class BatchSolution(NamedTuple):
    """Optimal plans of B problems; see `sat_env.planning.exact.Solution`."""

    cuts: I64  # (B, K) zero if infeasible
    levels: I64  # (B, K) zero if infeasible
    objective: F64  # (B,) s; inf if infeasible
    makespan_s: F64  # (B,) inf if infeasible
    error: F64  # (B,)
    bound_s: F64  # (B,) no plan's objective is below this; the objective where the plan is proved
    expansions: I64  # (B,)


def stack_costs(costs: Sequence[Costs]) -> Costs:
    """Batch of problems of one size.

    Raises
    ------
    ValueError
        No problem, or problems that differ in K, L or R.
    """
    return Costs(*cast(Any, _stack("costs", costs)))


def stack_prices(prices: Sequence[Prices]) -> Prices:
    """Batch of prices for chains of one length; raises ValueError as `stack_costs`."""
    return Prices(*cast(Any, _stack("prices", prices)))


def solve_batch(
    costs: Costs,
    prices: Prices | None = None,
    workspace: Workspace | None = None,
    max_expansions: int | None = None,
) -> BatchSolution:
    """Find an optimal plan for every problem of a batch.

    Parameters
    ----------
    costs
        Batch of B problems: every field with a leading axis B (`stack_costs`, or filled by the caller).
    prices
        Batch of B prices; None adds nothing.
    workspace
        Memory from `make_workspace` for the same K, L and R; None allocates it.
    max_expansions
        Budget of label expansions of each problem; None searches until every plan is proved.

    Returns
    -------
    BatchSolution
        The same plans, to the bit, as `sat_env.planning.exact.solve` row by row.

    Raises
    ------
    ValueError
        Fields of costs and prices that differ in B, prices or a workspace of another size, or a negative budget.
    """
    n_problems, n_slots, _ = costs.rate_bps.shape
    if prices is None:
        prices = stack_prices([neutral_prices(n_slots)] * n_problems)
    for name, field in [*costs._asdict().items(), *prices._asdict().items()]:
        if len(field) != n_problems:
            raise ValueError(f"{name} has {len(field)} rows; costs.rate_bps has {n_problems}")
    check_prices(costs, prices)
    ws = fitting_workspace(workspace, n_slots, costs.compute_s.shape[2], costs.error.shape[2])
    plans = np.empty((n_problems, 2, n_slots), dtype=np.int64)
    outcomes, expansions = np.empty((n_problems, 4)), np.empty(n_problems, dtype=np.int64)
    search_each(costs, prices, ws, checked_budget(max_expansions), plans, outcomes, expansions)
    best_s, makespan_s, error, bound_s = outcomes.T
    return BatchSolution(plans[:, CUTS], plans[:, LEVELS], best_s, makespan_s, error, bound_s, expansions)


def _stack(name: str, rows: Sequence[Costs] | Sequence[Prices]) -> list[np.ndarray]:
    if not rows:
        raise ValueError(f"{name} is empty; needs at least one problem")
    fields = []
    for field, values in zip(rows[0]._fields, zip(*rows, strict=True), strict=True):
        shapes = {np.shape(value) for value in values}
        if len(shapes) > 1:
            raise ValueError(f"{name}: {field} has shapes {sorted(shapes)}; a batch needs one")
        fields.append(np.stack(values))
    return fields
