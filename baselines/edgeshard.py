"""EdgeShard's dynamic programme for pipelined throughput, on a chain."""

import numpy as np

from baselines.splits import Plan, holds, if_feasible, least_error_levels
from sat_env.planning import GROUND_ANY, GROUND_NONE, Costs


def plan(costs: Costs) -> Plan | None:
    """Minimise the bottleneck of the pipeline: the longest stage or transfer.

    g(k, l), the least bottleneck with blocks ..l placed and slot k the last to get some, is the minimum over
    the slot and block where the stage before ended of max(g, transfer, stage). Memory limits a stage.

    Optimises: the bottleneck, exactly; ties go to the first found. Ignores: the sum of times (latency of the
    first micro-batch), compression (every cut sends at its level of least error), releases and loads.
    Source: EdgeShard, arXiv:2405.14371, its throughput programme over devices in the order of the chain.
    Returns None if no split fits, or if even the least errors break the budget.
    """
    (n_slots, _), n = costs.rate_bps.shape, costs.compute_s.shape[1]
    sizes = costs.boundary_bytes[np.arange(n + 1), np.argmin(costs.error, axis=1)]
    with np.errstate(divide="ignore"):
        seconds_per_byte = 8.0 / costs.rate_bps
    longest = np.full((n_slots + 1, n + 1), np.inf)
    origin = np.zeros((n_slots + 1, n + 1, 2), dtype=np.int64)
    longest[0, 0] = 0.0  # slot 0 has the raw input
    for k in range(n_slots + 1):
        fits = holds(costs, k)
        if k == n_slots:  # the ground takes the rest, as far as it may
            fits[:, :n] = False
            if costs.ground_hosts != GROUND_ANY:
                fits[1:] = False
            if costs.ground_hosts == GROUND_NONE:
                fits[:] = False
        work_s = np.concatenate(
            ([0.0], np.cumsum(np.where(np.isinf(costs.compute_s[k]), 0.0, costs.compute_s[k])))
        )
        for start in range(n):
            before = [(0.0, 0)] if k == 0 and start == 0 else []
            before += [
                (max(longest[i, start], sizes[start] * seconds_per_byte[i, k]), i)
                for i in range(k)
                if longest[i, start] < np.inf and costs.rate_bps[i, k] > 0.0
            ]
            if before:
                least, i = min(before)
                for end in np.flatnonzero(fits[start]):
                    value = max(least, work_s[end] - work_s[start])
                    if value < longest[k, end]:
                        longest[k, end], origin[k, end] = value, (i, start)
    ends = longest[:, n].copy()
    for k in range(n_slots):
        usable = costs.rate_bps[k, n_slots] > 0.0
        ends[k] = max(ends[k], sizes[n] * seconds_per_byte[k, n_slots]) if usable else np.inf
    k, end = int(np.argmin(ends)), n
    if ends[k] == np.inf:
        return None
    cuts = np.zeros(n_slots + 1, dtype=np.int64)
    while end > 0:
        cuts[k] = end
        k, end = origin[k, end]
    cuts = np.maximum.accumulate(cuts[:n_slots])
    return if_feasible(costs, cuts, least_error_levels(costs, cuts))
