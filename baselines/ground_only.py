"""The raw input goes to the ground, which computes everything."""

import numpy as np

from baselines.splits import Plan, if_feasible
from sat_env.planning import Costs


def plan(costs: Costs) -> Plan | None:
    """Send the raw input down and compute there.

    Optimises: nothing. Ignores: the satellites. Source: the "ground-only" baseline of arXiv:2604.04654.
    Returns None if the ground may not, or cannot, hold the model, or the hop is unusable.
    """
    n_slots = costs.rate_bps.shape[0]
    return if_feasible(costs, np.zeros(n_slots, dtype=np.int64), np.zeros(n_slots, dtype=np.int64))
