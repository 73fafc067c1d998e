"""Block by block, on the slot that finishes it first."""

import numpy as np

from baselines.splits import Plan, holds, if_feasible
from sat_env.planning import GROUND_ANY, GROUND_NONE, Costs


def plan(costs: Costs) -> Plan | None:
    """Place the blocks in order, each where its first micro-batch is done soonest, and never look back.

    A block stays on the slot of the one before or moves on to a later slot (at the level that arrives soonest
    within what is left of the error budget), as long as the blocks after it can still be placed.

    Optimises: the time at which each block is done with the first micro-batch, releases and loads included,
    one block at a time. Ignores: all later blocks but their memory, the bottleneck, the way to the ground.
    Source: list scheduling by earliest finish (Topcuoglu et al. 2002, doi:10.1109/71.993206).
    Returns None if the memory or the hops allow no split at all, or if the errors of its cuts do not fit.
    """
    (n_slots, _), n = costs.rate_bps.shape, costs.compute_s.shape[1]
    fits = [holds(costs, k) for k in range(n_slots + 1)]
    if costs.ground_hosts != GROUND_ANY:
        fits[n_slots][1:] = False
    if costs.ground_hosts == GROUND_NONE:
        fits[n_slots][:] = False
    usable = costs.rate_bps > 0.0
    # Least error still to come with blocks ..l placed and slot k the last; inf if the rest cannot be placed.
    least = np.full((n_slots + 1, n + 1), np.inf)
    least[:n_slots, n][usable[:, n_slots]] = 0.0
    least[n_slots, n] = 0.0
    for end in range(n - 1, -1, -1):
        for k in range(n_slots):
            for j in range(k + 1, n_slots + 1):
                if usable[k, j] and fits[j][end].any():
                    least[k, end] = min(least[k, end], costs.error[end].min() + least[j][fits[j][end]].min())
    slot, start, now_s, error = 0, 0, 0.0, 0.0
    cuts, levels = np.zeros(n_slots, dtype=np.int64), np.zeros(n_slots, dtype=np.int64)
    for block in range(n):
        options = []
        for j in range(slot, n_slots + 1):
            begin = start if j == slot else block
            ends = np.flatnonzero(fits[j][begin] & (np.arange(n + 1) > block))
            to_go = least[j][ends].min() if len(ends) else np.inf
            if j == slot:
                hops = [(now_s, 0.0, 0)]
            elif not usable[slot, j]:
                continue
            else:
                hops = []
                for r in range(costs.error.shape[1] if 0 < block < n else 1):
                    sent_s = max(now_s + costs.encode_s[slot, block, r], costs.hop_release_s[slot, j])
                    sent_s += 8.0 * costs.boundary_bytes[block, r] / costs.rate_bps[slot, j]
                    arrival_s = sent_s + costs.latency_s[slot, j] + costs.decode_s[j, block, r]
                    hops.append((arrival_s, costs.error[block, r], r))
            for arrival_s, added, r in hops:
                if to_go < np.inf and error + added + to_go <= costs.error_budget * (1.0 + 1e-12):
                    free_s = costs.stage_release_s[j] if begin == block else 0.0
                    done_s = max(arrival_s, free_s + costs.load_s[j, block]) + costs.compute_s[j, block]
                    options.append((done_s, j, r, added))
        if not options:
            return None
        now_s, j, r, added = min(options)
        if j != slot:
            levels[slot] = r
            slot, start = j, block
        error += added
        cuts[slot:] = block + 1
    return if_feasible(costs, cuts, levels)
