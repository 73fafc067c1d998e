"""What the simple planners share: a split near wanted shares, and levels for a given split."""

import numpy as np
import numpy.typing as npt

from sat_env.planning import Costs
from sat_env.planning.costs import F64, I64, make_canonical
from sat_env.planning.predict import trusted_predict

Plan = tuple[I64, I64]


def idle(costs: Costs) -> Costs:
    """Return the problem as it would be with everything free and every block resident."""
    return costs._replace(
        stage_release_s=np.zeros_like(costs.stage_release_s),
        hop_release_s=np.zeros_like(costs.hop_release_s),
        load_s=np.zeros_like(costs.load_s),
    )


def if_feasible(costs: Costs, cuts: I64, levels: I64) -> Plan | None:
    """Return the plan, canonical, or None if it breaks a limit of the problem."""
    make_canonical(costs.compute_s.shape[1], cuts, levels)
    return (cuts, levels) if trusted_predict(costs, cuts, levels) < np.inf else None


def holds(costs: Costs, slot: int) -> npt.NDArray[np.bool_]:
    """Whether a slot can hold blocks start..end: (L+1, L+1) [start, end]."""
    n = costs.compute_s.shape[1]
    fits = np.zeros((n + 1, n + 1), dtype=np.bool_)
    for start in range(n):
        fits[start, start + 1 :] = (
            np.cumsum(costs.memory_bytes[start:]) <= costs.memory_free_bytes[slot]
        ) & np.isfinite(np.cumsum(costs.compute_s[slot, start:]))
    return fits


def nearest_split(costs: Costs, shares: F64) -> I64 | None:
    """Cuts over the satellites that fit and come nearest to wanted shares.

    Parameters
    ----------
    costs
        The problem.
    shares
        (K,) blocks wanted on each slot.

    Returns
    -------
    cuts
        (K,) of least sum of squared differences among those that memory and usable hops allow; None if there
        are none. The ground holds nothing.
    """
    (n_slots, _), n = costs.rate_bps.shape, costs.compute_s.shape[1]
    # cost[k, l]: blocks ..l are placed and slot k was the last to get some; slot 0 may send the raw input on.
    cost, origin = np.full((n_slots, n + 1), np.inf), np.zeros((n_slots, n + 1, 2), dtype=np.int64)
    skipped = np.concatenate(([0.0], np.cumsum(shares**2)))
    cost[0, 0] = shares[0] ** 2
    for k in range(n_slots):
        fits = holds(costs, k)
        for start in range(n):
            before = [(0.0, 0, 0)] if k == 0 and start == 0 else []
            before += [
                (cost[i, start] + skipped[k] - skipped[i + 1], i, start)
                for i in range(k)
                if cost[i, start] < np.inf and costs.rate_bps[i, k] > 0.0
            ]
            if not before:
                continue
            least, i, _ = min(before)
            for end in np.flatnonzero(fits[start]):
                value = least + (end - start - shares[k]) ** 2
                if value < cost[k, end]:
                    cost[k, end], origin[k, end] = value, (i, start)
    last = np.where(costs.rate_bps[:, n_slots] > 0.0, cost[:, n], np.inf) + skipped[-1] - skipped[1:]
    k, end = int(np.argmin(last)), n
    if last[k] == np.inf:
        return None
    cuts = np.zeros(n_slots, dtype=np.int64)
    while end > 0:
        cuts[k] = end
        k, end = origin[k, end]
    return np.maximum.accumulate(cuts)


def least_error_levels(costs: Costs, cuts: I64) -> I64:
    """Levels of the least error at every cut."""
    levels = np.argmin(costs.error[cuts], axis=1)
    make_canonical(costs.compute_s.shape[1], cuts, levels)
    return levels


def greedy_levels(costs: Costs, cuts: I64) -> I64:
    """Levels for given cuts: from the least error on, take the change that gains most time for its error.

    Stops when no single change gains time within the error budget: not optimal.
    """
    levels = least_error_levels(costs, cuts)
    now_s = trusted_predict(costs, cuts, levels)
    starts = np.concatenate(([0], cuts[:-1]))
    senders = np.flatnonzero((cuts > starts) & (cuts < costs.compute_s.shape[1]))
    while True:
        best, best_gain = None, 0.0
        for k in senders:
            for level in range(costs.error.shape[1]):
                trial = levels.copy()
                trial[k] = level
                gain_s = now_s - trusted_predict(costs, cuts, trial)
                added = costs.error[cuts[k], level] - costs.error[cuts[k], levels[k]]
                if gain_s > 1e-12 * now_s and gain_s / max(added, 1e-12) > best_gain:
                    best, best_gain = trial, gain_s / max(added, 1e-12)
        if best is None:
            return levels
        levels, now_s = best, trusted_predict(costs, cuts, best)
