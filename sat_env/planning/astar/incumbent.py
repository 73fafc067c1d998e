"""The best plan so far: what replaces it, and how single moves improve it."""

import numpy as np

from sat_env.kernels import part
from sat_env.planning.astar.workspace import CUTS, LEVELS, Workspace
from sat_env.planning.costs import I64, Costs, Prices
from sat_env.planning.predict import priced_span_s


@part
def copy_plan(source: I64, target: I64) -> None:
    """Copy a plan."""
    for row in range(2):
        for k in range(source.shape[1]):
            target[row, k] = source[row, k]


@part
def consider(costs: Costs, prices: Prices, ws: Workspace) -> bool:
    """Make ``ws.trial`` the best plan if it is better; say whether it is."""
    value = priced_span_s(costs, prices, ws.trial[CUTS], ws.trial[LEVELS])
    better: bool = value < ws.best_s[0]
    if better:
        copy_plan(ws.trial, ws.best)
        ws.best_s[0] = value
    return better


@part
def polish(costs: Costs, prices: Prices, ws: Workspace) -> None:
    """Improve the best plan by single moves: a cut or a level by one, a slot emptied."""
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    improved = ws.best_s[0] < np.inf
    while improved:
        improved = False
        for k in range(n_slots):
            for move in range(6):
                copy_plan(ws.best, ws.trial)
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
                if consider(costs, prices, ws):
                    improved = True
