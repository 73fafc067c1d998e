"""The risk-aware planner: exact A* whose objective holds the expected delay by outages still to come.

A hop over h links that is in use for the predicted makespan T meets an outage with probability h T / up time
(outages are rare and memoryless while a link is up), and then waits for what is left of it, at most until the
deadline, or until the backup is taken. That expected delay is charged for every hop a plan uses. It sees one
job: what an outage does to later ones is left out. T is that of the plan without risk, so each decision is
planned twice.
"""

from __future__ import annotations

import numpy as np

from baselines.priced import Constants, prices
from sat_env.faults import OutageLaw
from sat_env.planning.costs import Prices
from sat_env.planning.exact import solve
from sat_env.problem import PlanningProblem

QUANTILES = (np.arange(200) + 0.5) / 200


def mean_wait_s(law: OutageLaw, limit_s: float) -> float:
    """Return E[min(D, limit)] of an outage's length D."""
    span = law.high_s - law.low_s
    body = law.low_s - np.log1p(QUANTILES * np.expm1(-law.body_rate_per_s * span)) / law.body_rate_per_s
    tail = law.tail_low_s + QUANTILES * (law.tail_high_s - law.tail_low_s)
    means = np.minimum(body, limit_s).mean(), np.minimum(tail, limit_s).mean()
    return float((1 - law.tail_share) * means[0] + law.tail_share * means[1])


def risk_prices(constants: Constants, problem: PlanningProblem) -> Prices:
    """Return the prices of one problem: `constants`, and the expected delay of every hop."""
    world, now = problem.world, problem.problems
    assert world is not None and now is not None, "risk needs the faults behind a problem"
    plain = Prices(*(field[0] for field in prices(constants, world, now)))
    law = world.outages
    makespan_s = min(solve(problem.costs, plain).makespan_s, world.deadline_s)
    if law.up_mean_s <= 0.0:
        return plain
    wait_s = np.full(now.backup_bps.shape[1:], mean_wait_s(law, world.deadline_s - makespan_s))
    wait_s[now.backup_bps[0] > 0.0] = min(world.detect_s, wait_s[0, 0])
    met = now.route_hops[0] * makespan_s / law.up_mean_s  # expected outages on the way
    return plain._replace(hop_fixed_s=plain.hop_fixed_s + met * wait_s)
