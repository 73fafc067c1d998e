"""Arcs of the graph: what a stage and a hop cost, and which blocks fit where."""

import numpy as np

from sat_env.kernels import inner, part
from sat_env.planning.astar.workspace import Workspace
from sat_env.planning.costs import GROUND_ANY, GROUND_NONE, Costs, Prices
from sat_env.planning.predict import token_ratio, transfer_s


@inner
def is_released(costs: Costs, prices: Prices) -> bool:
    """Whether anything is busy, or has to be loaded, at first."""
    released: bool = (
        costs.stage_release_s.max() > 0.0
        or costs.hop_release_s.max() > 0.0
        or prices.load_weight * costs.load_s.max() > 0.0
    )
    return released


@part
def fill_arcs(costs: Costs, prices: Prices, ws: Workspace) -> None:
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
def stage_sum_s(
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
def stage_period_s(costs: Costs, prices: Prices, k: int, work_s: float, token_s: float) -> float:
    """Return what a stage adds to the objective if it is the bottleneck."""
    m, tokens = costs.micro_batches, costs.n_tokens
    period_s = (m - 1) * work_s + tokens * m * token_s
    if k < costs.rate_bps.shape[0]:
        period_s += prices.bottleneck * m * (work_s + tokens * token_s)
    return period_s
