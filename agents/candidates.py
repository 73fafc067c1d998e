"""Candidate plans of a decision, and what can be said of each before it is run.

Exact plans under a menu of prices around the tuned ones, the plan before, the tuned plan with one block moved
across a cut, and declining the job. The first candidate is always what the tuned planner does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from agents.interface import Flat, Ints
from agents.planner import Array, BatchPlanner
from agents.prices import shifted
from baselines.priced import Constants
from sat_env.planning.costs import Costs
from sat_env.problem import Problems, tabulate
from sat_env.simulator import NO_PLAN
from sat_env.world import World

MENU = np.array(
    [  # horizon, bottleneck, downlink, energy, risk, decline: see `agents.prices.shifted`
        (0.0, 0.5, 0.0, 0.0, 0.0, 0.0),
        (0.0, 1.0, 0.0, 0.0, 0.0, 0.0),
        (0.0, -1.0, 0.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, 0.0, 0.7, 0.0, 0.0),
        (0.0, 0.0, 0.0, -0.7, 0.0, 0.0),
        (0.0, 0.0, 0.0, 0.0, 0.7, 0.0),
        (-1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        (1.0, 0.5, 0.5, 0.0, 0.0, 0.0),
    ]
)

DESCRIPTION = (
    "declined",
    "makespan",
    "loaded_makespan",
    "busiest",
    "compute",
    "on_ground",
    "downlink",
    "links_used_s",
    "load",
    "joules",
    "empty_compute",
    "route_hops",
    "wait",
    "down",
    "age",
    "charge_after",
    "mode_margin",
    "backlog_mean",
    "backlog_max",
    "backlog_square",
    "downlink_backlog",
    "slots",
    "error",
    "moved",
)
"""What is said of a candidate; seconds are relative to the epoch."""


class Candidates(NamedTuple):
    """C candidates of each of N decisions."""

    cuts: Ints  # (N, C, K) a first cut of NO_PLAN declines
    levels: Ints  # (N, C, K)
    offered: NDArray[np.bool_]  # (N, C) not a repetition of one before, and feasible; the first always is
    described: Flat  # (N, C, len(DESCRIPTION))


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
        self.values: Array = shifted(self.planner.values, MENU)
        self.values[:, 5] = 0.0  # whether to decline is a candidate of its own
        self.slots = world.chain.shape[1]
        self.count = 2 + len(MENU) + 2

    def make(self, problems: Problems) -> Candidates:
        """Return the candidates of N decisions."""
        n, k = len(problems.epoch), self.slots
        cuts = np.zeros((n, self.count, k), np.int64)
        levels = np.zeros_like(cuts)
        plans = 2 + len(MENU)
        repeated = Problems._make(np.repeat(field, plans, axis=0) for field in problems)
        values = np.concatenate(
            [self.planner.values[None], np.append(self.planner.values[:5], 0.0)[None], self.values]
        )
        found = self.planner.plans(repeated, np.tile(values, (n, 1)))
        cuts[:, :plans] = found[0].reshape(n, plans, k)
        levels[:, :plans] = found[1].reshape(n, plans, k)
        cuts[:, plans], levels[:, plans] = problems.previous_cuts, problems.previous_levels

        cuts[:, -1, 0] = NO_PLAN
        described = np.zeros((n, self.count, len(DESCRIPTION)))
        offered = np.zeros((n, self.count), np.bool_)
        costs = tabulate(self.world, problems)
        describe_plans(self.world, problems, costs, cuts, levels, described, offered)
        return Candidates(cuts, levels, offered, np.clip(described, -1.0, 8.0).astype(np.float32))


def _move_blocks(cuts: Ints, levels: Ints, source: int, first: int, blocks: int) -> None:
    """Write candidate `source` with each cut moved by one block, from candidate `first` on."""
    slots = cuts.shape[2]
    for i in range(2 * slots):
        cut, step = i // 2, 2 * (i % 2) - 1
        moved = cuts[:, source].copy()
        moved[:, cut] += step
        bad = (np.diff(moved, axis=1) < 0).any(axis=1) | (moved[:, 0] < 0) | (moved[:, -1] > blocks)
        bad |= cuts[:, source, 0] == NO_PLAN
        moved[bad] = cuts[bad, source]
        cuts[:, first + i], levels[:, first + i] = moved, levels[:, source]


def describe_plans(
    world: World,
    problems: Problems,
    costs: Costs,
    cuts: Ints,
    levels: Ints,
    described: Array,
    offered: NDArray[np.bool_],
) -> None:
    """Write what is known of every candidate, and which are offered."""
    power = world.power
    capacity_j = power.capacity_j if power.enabled else 1e12
    thresholds = np.append(power.mode_min_charge, 1.0) if power.enabled else np.zeros(1)
    _describe(
        costs.compute_s,
        costs.boundary_bytes,
        costs.encode_s,
        costs.decode_s,
        costs.rate_bps,
        costs.latency_s,
        costs.stage_release_s,
        costs.hop_release_s,
        costs.load_s,
        costs.memory_bytes,
        costs.memory_free_bytes,
        costs.error,
        costs.error_budget,
        problems.route_hops,
        problems.primary_up,
        problems.state_age_s,
        problems.charge,
        problems.light_ahead,
        problems.power_w,
        problems.previous_cuts,
        (world.micro_batches, world.ground_hosts),
        (world.epoch_s, world.deadline_s, capacity_j),
        thresholds,
        cuts,
        levels,
        described,
        offered,
    )


@njit(cache=True)
def _describe(  # type: ignore[no-untyped-def]
    compute_s,
    boundary_bytes,
    encode_s,
    decode_s,
    rate_bps,
    latency_s,
    stage_release_s,
    hop_release_s,
    load_s,
    memory_bytes,
    memory_free,
    error,
    error_budget,
    route_hops,
    primary_up,
    state_age_s,
    charge,
    light_ahead,
    power_w,
    previous_cuts,
    sizes,
    times,
    thresholds,
    cuts,
    levels,
    described,
    offered,
):
    m, ground_hosts = sizes
    epoch_s, deadline_s, capacity_j = times
    n_problems, n_candidates, slots = cuts.shape
    blocks = compute_s.shape[2]
    busy_until = np.empty(slots)
    after_charge = np.empty(slots)
    for b in range(n_problems):
        for c in range(n_candidates):
            cut, level, out = cuts[b, c], levels[b, c], described[b, c]
            declined = cut[0] == -1
            if not declined:  # levels without effect do not make another plan
                start = 0
                for k in range(slots):
                    if cut[k] == start or cut[k] == blocks:
                        level[k] = 0
                    start = cut[k]
            fresh = True
            for other in range(c):
                if not offered[b, other]:
                    continue
                same = cuts[b, other, 0] == cut[0]
                if same and not declined:
                    for k in range(slots):
                        same &= cuts[b, other, k] == cut[k] and levels[b, other, k] == level[k]
                if same:
                    fresh = False
                    break
            if not fresh:
                continue
            for k in range(slots):
                busy_until[k] = stage_release_s[b, k]
                after_charge[k] = charge[b, k]
            first, last, loaded_first, loaded_last = 0.0, 0.0, 0.0, 0.0
            busiest, total, ground_s, down_s, links_s, load_total, joules, empty = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            hops, wait, down, age, used, error_sum, moved = 0.0, 0.0, 0.0, 1e9, 0.0, 0.0, 0.0
            downlink_until = hop_release_s[b, 0, slots]
            for k in range(1, slots):
                downlink_until = min(downlink_until, hop_release_s[b, k, slots])
            sender, boundary = 0, 0
            feasible = True
            if not declined:
                on_ground = blocks - cut[slots - 1]
                if on_ground > 0 and ground_hosts == 0:
                    feasible = False
                if 0 < on_ground < blocks and ground_hosts == 1:
                    feasible = False
                for k in range(slots + 1):
                    end = blocks if k == slots else cut[k]
                    if end == boundary and k < slots:
                        continue
                    if k != 0:
                        lev = level[sender] if 0 < boundary < blocks else 0
                        rate = rate_bps[b, sender, k]
                        if rate <= 0.0:
                            feasible = False
                            break
                        send = 8.0 * boundary_bytes[b, boundary, lev] / rate
                        if 0 < boundary < blocks:
                            error_sum += error[b, boundary, lev]
                        enc, dec = encode_s[b, sender, boundary, lev], decode_s[b, k, boundary, lev]
                        release = hop_release_s[b, sender, k]
                        last = max(m * enc, first + m * enc, last + enc)
                        first = max(0.0, first) + enc
                        last = max(release + m * send, first + m * send, last + send)
                        first = max(release, first) + send
                        if k == slots:
                            downlink_until = last
                            down_s += m * send
                        else:
                            links_s += m * send
                        first += latency_s[b, sender, k]
                        last += latency_s[b, sender, k]
                        last = max(m * dec, first + m * dec, last + dec)
                        first = first + dec
                        hops += route_hops[b, sender, k]
                        wait = max(wait, release)
                        if primary_up[b, sender, k] == 0.0:
                            down += 1.0
                        age = min(age, state_age_s[b, sender, k])
                    if end > boundary:
                        work, load, memory = 0.0, 0.0, 0.0
                        for block in range(boundary, end):
                            work += compute_s[b, k, block]
                            load += load_s[b, k, block]
                            memory += memory_bytes[b, block]
                        if memory > memory_free[b, k] or work == np.inf:
                            feasible = False
                            break
                        release = stage_release_s[b, k] + load
                        last = max(release + m * work, first + m * work, last + work)
                        first = max(release, first) + work
                        if k < slots:
                            busy_until[k] = last
                            busiest = max(busiest, m * work)
                            total += m * work
                            energy = m * work * power_w[b, k]
                            joules += energy
                            after_charge[k] -= energy / capacity_j
                            empty += m * work * (1.0 - charge[b, k]) * (1.0 - 0.5 * light_ahead[b, k])
                            load_total += load
                            used += 1.0
                        else:
                            ground_s += m * work
                        sender, boundary = k, end
                if error_sum > error_budget[b]:
                    feasible = False
            if not feasible and c > 0:
                continue
            offered[b, c] = True
            least_charge, margin = 1.0, 1.0
            mean, most, square = 0.0, 0.0, 0.0
            for k in range(slots):
                over = max(0.0, busy_until[k] - epoch_s) / epoch_s
                mean += over / slots
                most = max(most, over)
                square += over * over / slots
                least_charge = min(least_charge, after_charge[k])
                below = -1.0
                for t in range(thresholds.shape[0]):
                    if thresholds[t] <= after_charge[k]:
                        below = thresholds[t]
                if below >= 0.0:
                    margin = min(margin, after_charge[k] - below)
                else:
                    margin = 0.0
                if not declined:
                    moved += abs(cut[k] - previous_cuts[b, k]) / blocks
            out[0] = 1.0 if declined else 0.0
            out[1] = (deadline_s if declined else min(last, deadline_s)) / epoch_s
            out[2] = (deadline_s if declined else min(last, 2.0 * deadline_s)) / epoch_s
            out[3] = busiest / epoch_s
            out[4] = total / (epoch_s * slots)
            out[5] = ground_s / epoch_s
            out[6] = down_s / epoch_s
            out[7] = links_s / epoch_s
            out[8] = load_total / epoch_s
            out[9] = joules / capacity_j * 10.0
            out[10] = empty / epoch_s
            out[11] = hops / 10.0
            out[12] = wait / epoch_s
            out[13] = down
            out[14] = 0.0 if declined else np.log1p(age / epoch_s) / 4.0
            out[15] = least_charge
            out[16] = margin
            out[17] = mean
            out[18] = most
            out[19] = square
            out[20] = max(0.0, downlink_until - epoch_s) / epoch_s
            out[21] = used / slots
            out[22] = error_sum / error_budget[b] if error_budget[b] > 0.0 and error_budget[b] < np.inf else 0.0
            out[23] = moved
