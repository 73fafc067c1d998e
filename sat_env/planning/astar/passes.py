"""Backward passes over the graph: least costs to go, the plans they belong to, floors and waits."""

import numpy as np

from sat_env.kernels import inner, part
from sat_env.planning.astar.arcs import stage_period_s, stage_sum_s
from sat_env.planning.astar.incumbent import consider
from sat_env.planning.astar.workspace import (
    CUTS,
    FLOOR_BUSIEST,
    FLOOR_ERROR,
    FLOOR_LOOP,
    FLOOR_PERIOD,
    FLOOR_SERVICE,
    FLOOR_SLOWEST,
    IN,
    LEVELS,
    OUT,
    WAIT_FIRST,
    WAIT_LAST,
    Workspace,
)
from sat_env.planning.costs import Costs, Prices
from sat_env.planning.predict import token_ratio, transfer_s


@part
def backward(
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
                if stage_period_s(costs, prices, k, work_s, token_s) > cap_s:
                    break
                if k == n_slots and end < n_blocks:
                    continue
                to_go = 0.0 if k == n_slots else h_out[k, end]
                if to_go < best:
                    value = weight * stage_sum_s(costs, prices, k, end, theta, work_s, token_s) + to_go
                    release_s = costs.stage_release_s[k] + prices.load_weight * load_s
                    if value < best and value + release_s + (m - 1) * work_s < late_s:
                        best, choice = value, end
            h_in[k, start] = best
            ws.choice[IN, k, start] = choice
    at_source: float = min(h_in[0, 0], h_out[0, 0])
    return at_source


@part
def trace(costs: Costs, prices: Prices, ws: Workspace, theta: float) -> tuple[float, float, float]:
    """Consider the plan of the last `backward`; return its sum (`theta` of the loop), error and period."""
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
            sum_s += stage_sum_s(costs, prices, k, end, theta, work_s, token_s)
            period_s = max(period_s, stage_period_s(costs, prices, k, work_s, token_s))
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
    consider(costs, prices, ws)
    return sum_s, error, period_s


@part
def keep(ws: Workspace, t: int, lam: float) -> None:
    """Keep the last pass as bound `t`."""
    kinds, slots, boundaries = ws.pass_.shape
    for kind in range(kinds):
        for slot in range(slots):
            for boundary in range(boundaries):
                ws.table[kind, slot, boundary, t] = ws.pass_[kind, slot, boundary]
    ws.parts.lam[t] = lam


@inner
def fill_floors(costs: Costs, prices: Prices, ws: Workspace) -> None:
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
                period_s = stage_period_s(costs, prices, k, work_s, token_s)
                here[FLOOR_PERIOD] = min(here[FLOOR_PERIOD], max(period_s, there[FLOOR_PERIOD]))
                here[FLOOR_ERROR] = min(here[FLOOR_ERROR], there[FLOOR_ERROR])
                loop_s = token_s + (costs.return_s[k] if end == n_blocks else 0.0)
                here[FLOOR_LOOP] = min(here[FLOOR_LOOP], tokens * loop_s + there[FLOOR_LOOP])


@part
def source_floor(ws: Workspace, floor: int) -> float:
    """Return a floor at the source."""
    at_source: float = min(ws.floor[IN, 0, 0, floor], ws.floor[OUT, 0, 0, floor])
    return at_source


@part
def _wait_before(
    wait_first: float, wait_last: float, floor_s: float, service_s: float, release_s: float, m: int
) -> tuple[float, float, float]:
    """Return waits and largest service to go before a server, from those after it; see `fill_waits`."""
    first = wait_first - service_s - (m - 1) * max(0.0, service_s - floor_s)
    floor_s = max(floor_s, service_s)
    return max(release_s, first), max(release_s + (m - 1) * floor_s, wait_last - service_s), floor_s


@part
def fill_waits(costs: Costs, prices: Prices, ws: Workspace, deadline_s: float) -> None:
    """Fill ``ws.wait``.

    The pipeline is linear in (max, +): with S the sum and X the largest of the services to go on a path, and
    R what its releases alone make of it, a label ends at

        max(last + S, first + S + (M - 1) X, R),   R = max over servers j of r_j + S_j + (M - 1) X_j,

    S_j and X_j from j on. So `last` counts only beyond R - S, and `first` beyond R - S - (M - 1) X; the least
    of these over all paths that can still end before `deadline_s` comes from a backward pass.
    """
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    m = costs.micro_batches
    backward(costs, prices, ws, 1.0, 0.0, np.inf, 0.0, deadline_s)
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
                sum_s = stage_sum_s(costs, prices, k, end, 0.0, work_s, token_s) + to_go
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
