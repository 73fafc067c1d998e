"""The paper's planner, read literally: A* over splits with one label a node, then the compression ratios."""

import heapq

import numpy as np

from baselines.splits import Plan, greedy_levels, holds, idle, if_feasible
from sat_env.planning import Costs


def plan(costs: Costs) -> Plan | None:
    """Shortest path through the graph of (slot, block), then levels for the split that it gives.

    Outer search: a node is (slot that got the last blocks, blocks placed), an edge places the next slot's
    blocks; its label is the delay accumulated so far, sum + (M - 1) * bottleneck, ONE a node: the least. A
    cut is weighed at the fastest level whose error is within an equal share of the budget. The heuristic is
    the sum still to go. Inner search: for the split found, levels chosen greedily under the error budget.

    Optimises: the delay, approximately: the accumulated delay is not additive, so the cheapest way to a node
    need not be on the best plan, and levels do not take part in the choice of the split. Ignores: releases
    and loads (busy slots look free), and the ground as a host. Source: arXiv:2604.04654 as its abstract and
    secondary summaries tell it; its equations are not public. Returns None if no split over the satellites
    fits the memory, the hops and the least errors.
    """
    (n_slots, _), n, m = costs.rate_bps.shape, costs.compute_s.shape[1], costs.micro_batches
    costs_idle = idle(costs)
    share = costs.error_budget / max(1, min(n_slots, n) - 1)
    allowed = costs.error <= share
    allowed[np.arange(n + 1), np.argmin(costs.error, axis=1)] = True
    fits = [holds(costs, k) for k in range(n_slots)]
    work_s = np.zeros((n_slots, n + 1))
    work_s[:, 1:] = np.cumsum(
        np.where(np.isinf(costs.compute_s[:n_slots]), 0.0, costs.compute_s[:n_slots]), 1
    )

    def hop(i: int, j: int, boundary: int) -> tuple[float, float]:
        """Return the sum and the slowest server of the hop; infinite if unusable."""
        if costs.rate_bps[i, j] == 0.0:
            return np.inf, np.inf
        send_s = 8.0 * costs.boundary_bytes[boundary] / costs.rate_bps[i, j]
        services = np.stack((costs.encode_s[i, boundary], send_s, costs.decode_s[j, boundary]))
        total_s = np.where(allowed[boundary], services.sum(axis=0), np.inf)
        level = int(np.argmin(total_s))
        return float(total_s[level]) + costs.latency_s[i, j], float(services[:, level].max())

    hops = {
        (i, j, boundary): hop(i, j, boundary)
        for i in range(n_slots)
        for j in range(i + 1, n_slots + 1)
        for boundary in range(0 if i == 0 else 1, n + 1)
        if (j == n_slots) == (boundary == n)
    }
    to_go = np.full((n_slots, n + 1), np.inf)  # least sum to go, for the heuristic
    for i in range(n_slots - 1, -1, -1):
        to_go[i, n] = hops[i, n_slots, n][0]
        for boundary in range(0 if i == 0 else 1, n):
            for j in range(i + 1, n_slots):
                ends = np.flatnonzero(fits[j][boundary])
                if len(ends):
                    least_s = (work_s[j, ends] - work_s[j, boundary] + to_go[j, ends]).min()
                    to_go[i, boundary] = min(to_go[i, boundary], hops[i, j, boundary][0] + least_s)

    label: dict[tuple[int, int], tuple[float, float]] = {}  # sum, bottleneck of the one way kept
    parent: dict[tuple[int, int], tuple[int, int] | None] = {}
    queue: list[tuple[float, tuple[int, int]]] = []
    closed: set[tuple[int, int]] = set()

    def reach(node: tuple[int, int], sum_s: float, longest_s: float, origin: tuple[int, int] | None) -> None:
        delay_s = sum_s + (m - 1) * longest_s
        known = label.get(node)
        if delay_s + to_go[node] < np.inf and (known is None or delay_s < known[0] + (m - 1) * known[1]):
            label[node], parent[node] = (sum_s, longest_s), origin
            heapq.heappush(queue, (delay_s + to_go[node], node))

    reach((0, 0), 0.0, 0.0, None)  # slot 0 sends the raw input on
    for end in np.flatnonzero(fits[0][0]):
        reach((0, int(end)), work_s[0, end], work_s[0, end], None)
    while queue:
        _, node = heapq.heappop(queue)
        if node in closed:
            continue
        closed.add(node)
        (i, boundary), (sum_s, longest_s) = node, label[node]
        if boundary == n:
            cuts = np.zeros(n_slots, dtype=np.int64)
            step: tuple[int, int] | None = node
            while step is not None:
                cuts[step[0]] = step[1]
                step = parent[step]
            cuts = np.maximum.accumulate(cuts)
            found = if_feasible(costs, cuts, greedy_levels(costs_idle, cuts))
            if found is not None:
                return found
            continue
        for j in range(i + 1, n_slots):
            hop_s, slowest_s = hops[i, j, boundary]
            for end in np.flatnonzero(fits[j][boundary]) if hop_s < np.inf else ():
                stage_s = work_s[j, end] - work_s[j, boundary]
                reach((j, int(end)), sum_s + hop_s + stage_s, max(longest_s, slowest_s, stage_s), node)
    return None
