"""Equal numbers of blocks on every satellite."""

import numpy as np

from baselines.splits import Plan, greedy_levels, idle, if_feasible, nearest_split
from sat_env.planning import Costs


def plan(costs: Costs) -> Plan | None:
    """Split the blocks evenly over the satellites, then choose levels greedily for that split.

    Optimises: nothing but evenness (least squares, where memory is short); the levels gain time within the
    error budget. Ignores: the satellites' speeds, the hops' rates, releases and loads, the ground's compute.
    Source: the "uniform" baseline of arXiv:2604.04654; how it chooses levels is not public, so ours.
    Returns None if no split over the satellites fits.
    """
    n_slots, n_blocks = costs.rate_bps.shape[0], costs.compute_s.shape[1]
    cuts = nearest_split(costs, np.full(n_slots, n_blocks / n_slots))
    return None if cuts is None else if_feasible(costs, cuts, greedy_levels(idle(costs), cuts))
