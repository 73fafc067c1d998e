"""Optimal plans of a planning problem, with or without an environment.

`costs_from_arrays` states a problem, `solve` finds its optimal plan, `predict` says what any plan would take.
"""

from sat_env.planning.astar.workspace import Workspace, make_workspace
from sat_env.planning.batch import BatchSolution, solve_batch, stack_costs, stack_prices
from sat_env.planning.costs import (
    GROUND_ALL_OR_NONE,
    GROUND_ANY,
    GROUND_NONE,
    Costs,
    Prices,
    check_plan,
    costs_from_arrays,
    neutral_prices,
    prices_from_arrays,
)
from sat_env.planning.exact import Solution, solve
from sat_env.planning.predict import objective, plan_error, predict

__all__ = [
    "GROUND_ALL_OR_NONE",
    "GROUND_ANY",
    "GROUND_NONE",
    "BatchSolution",
    "Costs",
    "Prices",
    "Solution",
    "Workspace",
    "check_plan",
    "costs_from_arrays",
    "make_workspace",
    "neutral_prices",
    "objective",
    "plan_error",
    "predict",
    "prices_from_arrays",
    "solve",
    "solve_batch",
    "stack_costs",
    "stack_prices",
]
