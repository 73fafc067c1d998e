"""Candidate plans of a decision, and what can be said of each before it is run.

What the planner does, the plan it would decline, exact plans under a menu of prices around its own, the plan
before, and declining the job. The planner is the tuned one, or one whose prices differ from decision to decision.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.interface import Flat, Ints
from agents.planner import Array, BatchPlanner, SlotPrices
from agents.prices import shifted
from baselines.priced import Constants
from sat_env.handles import Handle
from sat_env.kernels import allocating_kernel, inner
from sat_env.planning.costs import F64, costs_row, make_canonical
from sat_env.planning.predict import makespan, serve, summed_error, token_ratio, transfer_s
from sat_env.problem import Problems, tabulate
from sat_env.simulator import NO_PLAN
from sat_env.world import World

MENU = np.array(
    [  # horizon, bottleneck, downlink, energy, risk, decline: see `agents.prices.shifted`
        (0.0, 0.5, 0.0, 0.0, 0.0, 0.0),
        (0.0, 1.0, 0.0, 0.0, 0.0, 0.0),
        (0.0, -1.0, 0.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, 0.0, 0.5, 0.0, 0.0),
        (0.0, 0.0, 0.0, 1.0, 0.0, 0.0),
        (0.0, 0.0, 0.0, -0.7, 0.0, 0.0),
        (0.0, 0.0, 0.0, 0.0, 0.5, 0.0),
        (0.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    ]
)

(
    DECLINED,
    MAKESPAN,  # up to the deadline
    LATE_MAKESPAN,  # up to twice the deadline
    BUSIEST,  # compute of the busiest satellite
    COMPUTE,  # mean of the satellites
    ON_GROUND,
    DOWNLINK,
    LINKS,
    LOAD,
    JOULES,  # tenths of a battery
    EMPTY_COMPUTE,  # each satellite's weighed by how empty its battery is
    ROUTE_HOPS,  # tens
    WAIT,  # longest for a hop
    DOWN,  # hops whose primary route is down
    AGE,  # logarithm of the time in that state, of the newest
    CHARGE_AFTER,  # lowest of the chain
    MODE_MARGIN,  # least charge left above the threshold of a power mode
    BACKLOG_MEAN,  # of the satellites, past the next decision
    BACKLOG_MAX,
    BACKLOG_SQUARE,
    DOWNLINK_BACKLOG,
    SLOTS,  # share in use
    ERROR,  # share of the budget
    MOVED,  # cuts against the plan before, share of the blocks
) = range(24)
"""What is said of a candidate, by column; seconds are relative to the epoch."""
DESCRIPTIONS = MOVED + 1


class Candidates(NamedTuple):
    """C candidates of each of N decisions."""

    cuts: Ints  # (N, C, K) a first cut of NO_PLAN declines
    levels: Ints  # (N, C, K)
    offered: NDArray[np.bool_]  # (N, C) not a repetition of one before, and feasible; the first always is
    described: Flat  # (N, C, DESCRIPTIONS)


class CandidateMaker:
    """Candidates around a tuned planner.

    Parameters
    ----------
    world : World
    constants : Constants
        Of the tuned planner.
    """

    def __init__(self, world: World, constants: Constants) -> None:
        self.world = world
        self.planner = BatchPlanner(world, constants)
        self.slots = world.chain.shape[1]
        self.count = len(MENU) + 4  # planned, planned without declining, menu, the plan before, none

    def make(
        self, problems: Problems, values: Array | None = None, slots: SlotPrices | None = None
    ) -> Candidates:
        """Return the candidates of N decisions.

        Parameters
        ----------
        problems : Problems
        values, slots
            What the planner plans with, as `BatchPlanner.plans` takes it; default: the constants.
        """
        n, k = len(problems.epoch), self.slots
        cuts = np.zeros((n, self.count, k), np.int64)
        levels = np.zeros_like(cuts)
        if values is None:
            values = np.tile(self.planner.values, (n, 1))
        tried = np.stack([values, *(shifted(values, action) for action in MENU)], axis=1)  # (N, P, 6)
        plans = tried.shape[1]
        repeated = Problems._make(np.repeat(field, plans, axis=0) for field in problems)
        if slots is not None:
            slots = SlotPrices._make(np.repeat(field, plans, axis=0) for field in slots)
        found = self.planner.solve(repeated, tried.reshape(n * plans, -1), slots)
        cuts[:, 1 : plans + 1] = found.cuts.reshape(n, plans, k)
        levels[:, 1 : plans + 1] = found.levels.reshape(n, plans, k)
        cuts[:, 0], levels[:, 0] = cuts[:, 1], levels[:, 1]
        longest_s = self.planner.longest_s(values)
        cuts[~(found.makespan_s.reshape(n, plans)[:, 0] <= longest_s), 0, 0] = NO_PLAN
        cuts[:, -2], levels[:, -2] = problems.previous_cuts, problems.previous_levels
        cuts[:, -1, 0] = NO_PLAN
        described = np.zeros((n, self.count, DESCRIPTIONS))
        offered = np.zeros((n, self.count), np.bool_)
        power = self.world.power
        describe_plans(
            tabulate(self.world, problems),
            Handle(problems),
            Scales(
                self.world.epoch_s,
                self.world.deadline_s,
                power.capacity_j if power.enabled else np.inf,
                power.mode_min_charge if power.enabled else np.zeros(1),
            ),
            cuts,
            levels,
            described,
            offered,
        )
        return Candidates(cuts, levels, offered, np.clip(described, -1.0, 8.0).astype(np.float32))


class Scales(NamedTuple):
    """What numbers of a description are relative to."""

    epoch_s: float
    deadline_s: float
    capacity_j: float
    mode_min_charge: F64  # (Q,)


@inner
def _repeats(cuts, levels, offered, c):  # type: ignore[no-untyped-def]
    """Tell whether candidate c is one that was offered before it."""
    for other in range(c):
        if not offered[other] or cuts[other, 0] != cuts[c, 0]:
            continue
        same = True
        if cuts[c, 0] != NO_PLAN:
            for k in range(cuts.shape[1]):
                same &= cuts[other, k] == cuts[c, k] and levels[other, k] == levels[c, k]
        if same:
            return True
    return False


@inner
def _describe_way(costs, problems, b, scales, cuts, levels, makespan_s, out, busy_s, charge):  # type: ignore[no-untyped-def]
    """Write what a feasible plan does on its way down the chain.

    `busy_s` (K+1) receives when each slot is free again, the last entry when the downlink is: with decoding, when
    the last token is out. `charge` (K,) loses what the job draws.
    """
    tokens, slots, blocks, m = (
        costs.n_tokens,
        costs.rate_bps.shape[0],
        costs.compute_s.shape[1],
        costs.micro_batches,
    )
    epoch_s = scales.epoch_s
    first, last = 0.0, 0.0
    age_s = np.inf
    sender, boundary = 0, 0
    for k in range(slots + 1):
        end = blocks if k == slots else cuts[k]
        if end == boundary and k < slots:
            continue
        if k != 0:
            level = levels[sender] if 0 < boundary < blocks else 0
            sending_s, release_s = (
                transfer_s(costs, sender, k, boundary, level),
                costs.hop_release_s[sender, k],
            )
            first, last = serve(first, last, costs.encode_s[sender, boundary, level], 0.0, m)
            first, last = serve(first, last, sending_s, release_s, m)
            job_s = m * sending_s * (1.0 + tokens * token_ratio(costs, boundary, level))
            if k == slots:
                busy_s[slots] = last if tokens == 0 else makespan_s
                out[DOWNLINK] += job_s / epoch_s
            else:
                out[LINKS] += job_s / epoch_s
            first += costs.latency_s[sender, k]
            last += costs.latency_s[sender, k]
            first, last = serve(first, last, costs.decode_s[k, boundary, level], 0.0, m)
            out[ROUTE_HOPS] += problems.route_hops[b, sender, k] / 10.0
            out[WAIT] = max(out[WAIT], release_s / epoch_s)
            if problems.primary_up[b, sender, k] == 0.0:
                out[DOWN] += 1.0
            age_s = min(age_s, problems.state_age_s[b, sender, k])
        if end > boundary:
            work_s, token_s, load_s = 0.0, 0.0, 0.0
            for block in range(boundary, end):
                work_s += costs.compute_s[k, block]
                token_s += costs.token_compute_s[k, block]
                load_s += costs.load_s[k, block]
            first, last = serve(first, last, work_s, costs.stage_release_s[k] + load_s, m)
            job_s = m * (work_s + tokens * token_s)
            if k == slots:
                out[ON_GROUND] = job_s / epoch_s
            else:
                busy_s[k] = last if tokens == 0 else makespan_s
                drawn_j = job_s * problems.power_w[b, k]
                charge[k] -= drawn_j / scales.capacity_j
                out[BUSIEST] = max(out[BUSIEST], job_s / epoch_s)
                out[COMPUTE] += job_s / (epoch_s * slots)
                out[LOAD] += load_s / epoch_s
                out[JOULES] += 10.0 * drawn_j / scales.capacity_j
                emptiness = (1.0 - problems.charge[b, k]) * (1.0 - 0.5 * problems.light_ahead[b, k])
                out[EMPTY_COMPUTE] += job_s * emptiness / epoch_s
                out[SLOTS] += 1.0 / slots
            sender, boundary = k, end
    out[AGE] = np.log1p(age_s / epoch_s) / 4.0
    for k in range(slots):
        out[MOVED] += abs(cuts[k] - problems.previous_cuts[b, k]) / blocks
    error = summed_error(costs, cuts, levels)
    out[ERROR] = error / costs.error_budget if 0.0 < costs.error_budget < np.inf else 0.0


@inner
def _describe_after(scales, out, busy_s, charge):  # type: ignore[no-untyped-def]
    """Write the backlog and the charge that are left at the next decision."""
    slots = len(charge)
    out[CHARGE_AFTER], out[MODE_MARGIN] = 1.0, 1.0
    for k in range(slots):
        over = max(0.0, busy_s[k] / scales.epoch_s - 1.0)
        out[BACKLOG_MEAN] += over / slots
        out[BACKLOG_MAX] = max(out[BACKLOG_MAX], over)
        out[BACKLOG_SQUARE] += over * over / slots
        out[CHARGE_AFTER] = min(out[CHARGE_AFTER], charge[k])
        margin = 0.0
        for threshold in scales.mode_min_charge:
            if threshold <= charge[k]:
                margin = charge[k] - threshold
        out[MODE_MARGIN] = min(out[MODE_MARGIN], margin)
    out[DOWNLINK_BACKLOG] = max(0.0, busy_s[slots] / scales.epoch_s - 1.0)


@allocating_kernel
def describe_plans(costs, problems, scales, cuts, levels, described, offered):  # type: ignore[no-untyped-def]
    """Make the plans of N problems canonical; write what is known of each, and which are offered.

    Parameters
    ----------
    costs, problems
        Batch of N; `problems` as a handle.
    scales : Scales
    cuts, levels : (N, C, K) int64
    described : (N, C, DESCRIPTIONS) float64, zeros
    offered : (N, C) bool, False
    """
    candidates, slots = cuts.shape[1], cuts.shape[2]
    busy_s, charge = np.empty(slots + 1), np.empty(slots)
    for b in range(len(cuts)):
        row = costs_row(costs, b)
        for c in range(candidates):
            out = described[b, c]
            declines = cuts[b, c, 0] == NO_PLAN
            if not declines:
                make_canonical(row.compute_s.shape[1], cuts[b, c], levels[b, c])
            if _repeats(cuts[b], levels[b], offered[b], c):
                continue
            makespan_s = scales.deadline_s if declines else makespan(row, 1.0, cuts[b, c], levels[b, c])
            if makespan_s == np.inf and c > 0:
                continue
            offered[b, c] = True
            out[DECLINED] = 1.0 if declines else 0.0
            out[MAKESPAN] = min(makespan_s, scales.deadline_s) / scales.epoch_s
            out[LATE_MAKESPAN] = min(makespan_s, 2.0 * scales.deadline_s) / scales.epoch_s
            busy_s[slots] = np.inf
            for k in range(slots):
                busy_s[k] = row.stage_release_s[k]
                charge[k] = problems.charge[b, k]
                busy_s[slots] = min(busy_s[slots], row.hop_release_s[k, slots])
            if not declines and makespan_s < np.inf:
                _describe_way(
                    row, problems, b, scales, cuts[b, c], levels[b, c], makespan_s, out, busy_s, charge
                )
            _describe_after(scales, out, busy_s, charge)
