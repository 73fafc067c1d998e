"""Parts of the plan space by bottleneck: bounded by Lagrangian duals, and ordered by what they promise."""

from typing import Any

import numpy as np

from sat_env.kernels import inner, part
from sat_env.planning.astar.arcs import is_released
from sat_env.planning.astar.incumbent import polish
from sat_env.planning.astar.labels import expand
from sat_env.planning.astar.passes import backward, keep, source_floor, trace
from sat_env.planning.astar.workspace import FLOOR_PERIOD, MAX_PARTS, SLACK, THETAS, UNLIMITED, Workspace
from sat_env.planning.costs import Costs, Prices


@inner
def bound_parts(costs: Costs, prices: Prices, ws: Workspace) -> int:
    """Split the plans by bottleneck, bound each part, find a good plan; return how many can still win.

    Leaves the least bound of these in ``ws.bound_s``.
    """
    parts = ws.parts
    n_thetas = THETAS if costs.n_tokens > 0 else 1
    released = is_released(costs, prices)
    # A pass costs as much as many labels: parts pay on large problems, and little where releases rule.
    most_parts = min(MAX_PARTS, 2 + costs.compute_s.shape[1] // (16 if released else 4))
    n_parts, split = 0, -1  # the part to split; -1: none yet
    while n_parts < most_parts:
        g: Any = np.int64(n_parts)
        if split < 0:
            # A part is open below, and a plan may well have the least bottleneck of all.
            parts.low_s[g], parts.cap_s[g] = source_floor(ws, FLOOR_PERIOD) * (1.0 - SLACK), np.inf
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
            polish(costs, prices, ws)
            if (released or n_thetas > 1) and _part_bound_s(ws, g, n_thetas) < ws.best_s[0]:
                parts.order[0] = 0
                expand(costs, prices, ws, np.int64(1), np.int64(1), UNLIMITED)
                polish(costs, prices, ws)
        split = -1
        least_s = ws.best_s[0]
        for h in range(n_parts):
            top_s = min(parts.cap_s[h], parts.peak_s[h])
            bound_s = _part_bound_s(ws, h, n_thetas)
            if bound_s < least_s and top_s > 1.01 * parts.low_s[h]:
                split, least_s = h, bound_s
        if split < 0:
            break
    polish(costs, prices, ws)

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
                        value = backward(costs, prices, ws, 1.0, lam, parts.cap_s[g], theta, margin_s)
                        keep(ws, t, lam)
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
def _dual(costs: Costs, prices: Prices, ws: Workspace, g: int, i: int, theta: float) -> None:
    """Bound part g: maximise the Lagrangian dual over lambda, by the crossing of its two best lines.

    Keeps the passes with lambda = 0 and with the best lambda, and considers every plan on the way.
    """
    budget, cap_s = costs.error_budget, ws.parts.cap_s[g]
    t = 2 * (g * THETAS + i)
    ws.parts.lam[t] = ws.parts.lam[t + 1] = -1.0
    ws.parts.dual_s[g, i] = np.inf
    dual_s = backward(costs, prices, ws, 1.0, 0.0, cap_s, theta, ws.best_s[0])
    if dual_s == np.inf:
        return
    low_sum_s, low_error, peak_s = trace(costs, prices, ws, theta)
    keep(ws, t, 0.0)
    if low_error > budget:
        backward(costs, prices, ws, 0.0, 1.0, cap_s, theta, np.inf)
        high_sum_s, high_error, _ = trace(costs, prices, ws, theta)
        if high_error > budget * (1.0 + SLACK):
            return
        for _ in range(12):
            if not (high_error < low_error and high_sum_s > low_sum_s):
                break
            lam = (high_sum_s - low_sum_s) / (low_error - high_error)
            value = backward(costs, prices, ws, 1.0, lam, cap_s, theta, ws.best_s[0])
            if value == np.inf:  # nothing here beats the best plan
                return
            sum_s, error, period_s = trace(costs, prices, ws, theta)
            if value - lam * budget > dual_s or ws.parts.lam[t + 1] < 0.0:
                dual_s = max(dual_s, value - lam * budget)
                peak_s = period_s
                keep(ws, t + 1, lam)
            if value >= low_sum_s + lam * low_error - 1e-9 * abs(value):
                break
            if error > budget:
                low_sum_s, low_error = sum_s, error
            else:
                high_sum_s, high_error = sum_s, error
    ws.parts.dual_s[g, i] = dual_s
    if i == 0:
        ws.parts.peak_s[g] = peak_s


@part
def _part_bound_s(ws: Workspace, g: int, n_thetas: int) -> float:
    """Return a bound on the objective of the plans of part g."""
    bound_s: float = ws.parts.dual_s[g, 0] + ws.parts.low_s[g]
    for i in range(1, n_thetas):
        share = 1.0 - i / (n_thetas - 1)
        bound_s = max(bound_s, ws.parts.dual_s[g, i] + share * ws.parts.low_s[g])
    return bound_s


@part
def tighten(costs: Costs, prices: Prices, ws: Workspace) -> None:
    """Raise ``ws.bound_s`` by what is released too late.

    A plan that ends before t takes at least the sum of a pass without all that cannot end before t; so no plan
    ends before both.
    """
    low_s, high_s = ws.bound_s[0], ws.best_s[0]
    for _ in range(20):
        if not low_s < high_s < np.inf:
            break
        middle_s = 0.5 * (low_s + high_s)
        bound_s = min(middle_s, backward(costs, prices, ws, 1.0, 0.0, np.inf, 0.0, middle_s))
        ws.bound_s[0] = max(ws.bound_s[0], bound_s)
        if bound_s == middle_s:
            low_s = middle_s
        else:
            high_s = middle_s
