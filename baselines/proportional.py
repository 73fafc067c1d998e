"""Blocks in proportion to each satellite's compute: the paper's heuristic."""

import numpy as np

from baselines.splits import Plan, greedy_levels, idle, if_feasible, nearest_split
from sat_env.planning import Costs


def plan(costs: Costs) -> Plan | None:
    """Give each satellite blocks in proportion to its speed, then choose levels greedily for that split.

    Optimises: balance of compute seconds (least squares in blocks, where memory is short); the levels gain
    time within the error budget. Ignores: the hops' rates, releases and loads, the ground's compute. Source:
    the "heuristic" baseline of arXiv:2604.04654; how it chooses levels is not public, so ours. Returns None
    if no split over the satellites fits.
    """
    n_slots, n_blocks = costs.rate_bps.shape[0], costs.compute_s.shape[1]
    speed = 1.0 / np.maximum(costs.compute_s[:n_slots].mean(axis=1), 1e-300)  # 0 where a block is impossible
    shares = speed / speed.sum() if speed.sum() > 0.0 else np.full(n_slots, 1.0 / n_slots)
    cuts = nearest_split(costs, n_blocks * shares)
    return None if cuts is None else if_feasible(costs, cuts, greedy_levels(idle(costs), cuts))
