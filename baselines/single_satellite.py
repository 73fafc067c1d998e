"""One satellite holds the whole model."""

import numpy as np

from baselines.splits import Plan, if_feasible
from sat_env.planning import Costs
from sat_env.planning.predict import trusted_predict


def plan(costs: Costs) -> Plan | None:
    """Put every block on the one satellite that is soonest done.

    Optimises: the predicted makespan over the K plans of its kind. Ignores: every other plan. Source: the
    "single-satellite" baseline of arXiv:2604.04654. Returns None if no satellite can hold the model.
    """
    n_slots, n_blocks = costs.rate_bps.shape[0], costs.compute_s.shape[1]
    plans = []
    for k in range(n_slots):
        cuts = np.where(np.arange(n_slots) < k, 0, n_blocks)
        plans.append(if_feasible(costs, cuts, np.zeros(n_slots, dtype=np.int64)))
    feasible = [plan for plan in plans if plan is not None]
    return min(feasible, key=lambda plan: trusted_predict(costs, *plan), default=None)
