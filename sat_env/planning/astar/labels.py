"""The search forward: labels, the fronts of nodes, and what is hopeless."""

from typing import Any

import numpy as np

from sat_env.kernels import borrow, inner, part
from sat_env.planning.astar.arcs import is_released, stage_period_s
from sat_env.planning.astar.incumbent import consider
from sat_env.planning.astar.passes import fill_waits
from sat_env.planning.astar.workspace import (
    BLOCK,
    BUSIEST,
    CUTS,
    ERROR,
    ESTIMATE,
    FIRST,
    FLOOR_BUSIEST,
    FLOOR_ERROR,
    FLOOR_LOOP,
    FLOOR_PERIOD,
    FLOOR_SERVICE,
    FLOOR_SLOWEST,
    IN,
    LAST,
    LEVEL,
    LEVELS,
    LOOP,
    NEXT,
    OUT,
    PARENT,
    PEAK,
    PRICE,
    SLACK,
    SLOT,
    SLOWEST,
    THETAS,
    UNLIMITED,
    WAIT_FIRST,
    WAIT_LAST,
    Workspace,
)
from sat_env.planning.costs import F64, I64, Costs, Prices
from sat_env.planning.predict import serve, token_ratio, transfer_s


@inner
def expand(costs: Costs, prices: Prices, ws: Workspace, n_live: int, width: int, max_expansions: int) -> int:
    """Search the graph forward for a plan better than ``ws.best``; return the labels expanded.

    A node keeps the `width` labels of least estimate: fast, and not exact unless it is `UNLIMITED`. A result
    of more than `max_expansions` says that the budget ran out.
    """
    released = is_released(costs, prices)
    priced = (
        prices.stage_price.max() > 0.0 or prices.hop_price.max() > 0.0 or prices.hop_fixed_s.max() > 0.0
    ) and released
    room: Any = np.int64(1024)
    expansions: Any = np.int64(-1)
    while expansions < 0:
        owned = np.empty((room, 9)), np.empty((room, 5), dtype=np.int64), np.empty(9)
        values, links, new = borrow(owned)
        expansions = _expand_in(
            costs, prices, ws, n_live, width, max_expansions, released, priced, values, links, new
        )
        room = np.int64(4 * len(owned[0]))  # what is borrowed lives until here
    return int(expansions)


@part
def _expand_in(
    costs: Costs,
    prices: Prices,
    ws: Workspace,
    n_live: int,
    width: int,
    max_expansions: int,
    released: bool,
    priced: bool,
    values: F64,
    links: I64,
    new: F64,
) -> int:
    """Expand in this room for labels; return -1, nothing changed, where it does not suffice."""
    n_slots, n_blocks, n_levels = costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]
    m, tokens = costs.micro_batches, costs.n_tokens
    margin_s = ws.best_s[0] - SLACK * ws.best_s[0] if ws.best_s[0] < np.inf else np.inf
    if released:
        fill_waits(costs, prices, ws, margin_s)
    ws.head.fill(-1)
    ws.head[OUT, 0, 0], ws.head[IN, 0, 0] = 0, 1  # slot 0 has the raw input; it computes, or only sends it
    for root in range(2):
        for column in range(9):
            values[root, column] = 0.0
        for column in range(5):
            links[root, column] = 0
        links[root, PARENT] = links[root, NEXT] = -1
    links[0, LEVEL] = -1
    n_labels = np.int64(2)
    goal, goal_level = -1, 0
    expansions = 0
    for k in range(n_slots):
        for kind in range(2):
            for start in range(n_blocks + 1):
                label = ws.head[kind, k, start]
                while label >= 0:
                    old = values[label]
                    if _hopeless(costs, prices, ws, n_live, kind, k, start, old, released, margin_s):
                        label = links[label, NEXT]
                        continue
                    expansions += 1
                    if expansions > max_expansions:
                        break
                    n_arcs = 0
                    if kind == IN:
                        n_arcs = ws.reach[k, start] - start
                        work_s, token_s, load_s = 0.0, 0.0, 0.0
                    elif start == n_blocks:
                        n_arcs = 1
                    else:
                        n_arcs = (n_slots - k) * (n_levels if start > 0 else 1)
                    for arc in range(n_arcs):
                        for column in range(9):
                            new[column] = values[label, column]
                        if kind == IN:
                            end, slot, level = start + arc + 1, k, -1
                            work_s += costs.compute_s[k, end - 1]
                            token_s += costs.token_compute_s[k, end - 1]
                            load_s += costs.load_s[k, end - 1]
                            _compute(costs, prices, k, end, work_s, token_s, load_s, new)
                        else:
                            end = start
                            if start == n_blocks:
                                slot, level = n_slots, 0
                            elif start == 0:
                                slot, level = k + 1 + arc, 0
                            else:
                                slot, level = k + 1 + arc // n_levels, arc % n_levels
                            if ws.hop_sum_s[k, start, slot, level] == np.inf:
                                continue
                            if start < n_blocks and ws.reach[slot, start] == start:
                                continue
                            _send(costs, prices, ws, k, slot, start, level, new)
                        if slot == n_slots:
                            if end < n_blocks:
                                work_s, token_s, load_s = 0.0, 0.0, 0.0
                                for block in range(end, n_blocks):
                                    work_s += costs.compute_s[slot, block]
                                    token_s += costs.token_compute_s[slot, block]
                                    load_s += costs.load_s[slot, block]
                                _compute(costs, prices, slot, n_blocks, work_s, token_s, load_s, new)
                            total = (
                                new[LAST]
                                + new[PRICE]
                                + prices.bottleneck * new[BUSIEST]
                                + tokens * max(new[LOOP], m * new[SLOWEST])
                            )
                            if total < margin_s and new[ERROR] <= costs.error_budget:
                                margin_s, goal, goal_level = total, label, level
                            continue
                        to_kind = OUT if kind == IN else IN
                        if released:
                            new[FIRST] = max(new[FIRST], ws.wait[to_kind, slot, end, WAIT_FIRST])
                            new[LAST] = max(new[LAST], ws.wait[to_kind, slot, end, WAIT_LAST])
                        if _hopeless(costs, prices, ws, n_live, to_kind, slot, end, new, released, margin_s):
                            continue
                        if n_labels == len(values):
                            return -1
                        at = n_labels
                        if width < UNLIMITED:
                            new[ESTIMATE] = _estimate_s(costs, prices, ws, to_kind, slot, end, new)
                            front = ws.head[to_kind, slot]
                            at = _make_room(values, links, front, end, width, new[ESTIMATE], n_labels)
                            if at < 0:
                                continue
                        _write(values, at, new)
                        if not _insert(costs, prices, ws, values, links, at, to_kind, slot, end, priced):
                            continue
                        links[at, PARENT] = label
                        links[at, SLOT] = slot
                        links[at, BLOCK] = end
                        links[at, LEVEL] = level
                        n_labels += at == n_labels
                    label = links[label, NEXT]
    if goal >= 0:
        ws.trial.fill(0)
        level = goal_level
        label = goal
        while label >= 0:
            if links[label, LEVEL] < 0:  # Out: the slot's last block, and the level it sends at
                ws.trial[LEVELS, links[label, SLOT]] = level
                ws.trial[CUTS, links[label, SLOT]] = links[label, BLOCK]
            else:
                level = links[label, LEVEL]
            label = links[label, PARENT]
        for k in range(1, n_slots):
            ws.trial[CUTS, k] = max(ws.trial[CUTS, k], ws.trial[CUTS, k - 1])
        consider(costs, prices, ws)
    return expansions


@part
def _hopeless(
    costs: Costs,
    prices: Prices,
    ws: Workspace,
    n_live: int,
    kind: int,
    slot: int,
    boundary: int,
    value: F64,
    released: bool,
    margin_s: float,
) -> bool:
    """Whether no completion of a label at the node can come below `margin_s`.

    Without releases the bottleneck of a plan is paid wherever it is. With them a queue hides the periods
    before it: only a bottleneck still to come is sure to be paid.
    """
    m, tokens = costs.micro_batches, costs.n_tokens
    n_thetas = THETAS if tokens > 0 else 1
    floor = ws.floor[kind, slot, boundary]
    slack = costs.error_budget - value[ERROR]
    if floor[FLOOR_ERROR] > slack + SLACK * costs.error_budget:
        return True
    loop_s = tokens * value[LOOP]
    decode_s = max(loop_s + floor[FLOOR_LOOP], tokens * m * max(value[SLOWEST], floor[FLOOR_SLOWEST]))
    price_s = value[PRICE] + prices.bottleneck * max(value[BUSIEST], floor[FLOOR_BUSIEST])
    ends_s = max(value[LAST], value[FIRST] + (m - 1) * floor[FLOOR_SERVICE]) + price_s
    to_go = ws.table[kind, slot, boundary]
    if ends_s + decode_s + to_go[0] >= margin_s:
        return True
    for n in range(n_live):
        g = ws.parts.order[n]
        if value[PEAK] > ws.parts.cap_s[g]:
            continue  # not a plan of this part
        period_s = floor[FLOOR_PERIOD]
        if value[PEAK] <= ws.parts.low_s[g]:
            period_s = max(period_s, ws.parts.low_s[g])
        elif not released:
            period_s = max(period_s, value[PEAK])
        possible = True
        for i in range(n_thetas):
            theta = i / max(1, n_thetas - 1)
            so_far_s = max(
                ends_s + theta * loop_s + (1.0 - theta) * decode_s,
                value[FIRST] + value[PRICE] + theta * loop_s + (1.0 - theta) * period_s,
            )
            for t in range(2 * (g * THETAS + i), 2 * (g * THETAS + i) + 2):
                lam = ws.parts.lam[t]
                if lam >= 0.0:
                    bound_s = so_far_s + to_go[t]
                    if lam > 0.0:
                        bound_s -= lam * slack
                    possible = possible and bound_s < margin_s
            if not possible:
                break
        if possible:
            return False
    return True


@part
def _estimate_s(
    costs: Costs, prices: Prices, ws: Workspace, kind: int, slot: int, boundary: int, value: F64
) -> float:
    """Guess the objective a label leads to, from the bounds of the part of all plans."""
    m, tokens = costs.micro_batches, costs.n_tokens
    n_thetas = THETAS if tokens > 0 else 1
    floor = ws.floor[kind, slot, boundary]
    loop_s = tokens * value[LOOP]
    decode_s = max(loop_s + floor[FLOOR_LOOP], tokens * m * max(value[SLOWEST], floor[FLOOR_SLOWEST]))
    price_s = value[PRICE] + prices.bottleneck * max(value[BUSIEST], floor[FLOOR_BUSIEST])
    ends_s = max(value[LAST], value[FIRST] + (m - 1) * floor[FLOOR_SERVICE]) + price_s
    estimate_s = -np.inf
    for i in range(n_thetas):
        theta = i / max(1, n_thetas - 1)
        for t in (2 * i, 2 * i + 1):
            lam = ws.parts.lam[t]
            if lam >= 0.0:
                bound_s = (
                    ends_s + theta * loop_s + (1.0 - theta) * decode_s + ws.table[kind, slot, boundary, t]
                )
                if lam > 0.0:
                    bound_s -= lam * (costs.error_budget - value[ERROR])
                estimate_s = max(estimate_s, bound_s)
    return estimate_s


@part
def _compute(
    costs: Costs, prices: Prices, k: int, end: int, work_s: float, token_s: float, load_s: float, label: F64
) -> None:
    """Extend a label, in place, by the blocks of slot k up to `end`."""
    m, n_slots = costs.micro_batches, costs.rate_bps.shape[0]
    release_s = costs.stage_release_s[k] + prices.load_weight * load_s
    label[FIRST], label[LAST] = serve(label[FIRST], label[LAST], work_s, release_s, m)
    job_s = m * (work_s + costs.n_tokens * token_s)
    label[PRICE] += prices.stage_price[k] * job_s
    if k < n_slots:
        label[BUSIEST] = max(label[BUSIEST], job_s)
    label[LOOP] += token_s + (costs.return_s[k] if end == costs.compute_s.shape[1] else 0.0)
    label[SLOWEST] = max(label[SLOWEST], token_s)
    label[PEAK] = max(label[PEAK], stage_period_s(costs, prices, k, work_s, token_s))


@part
def _send(
    costs: Costs, prices: Prices, ws: Workspace, i: int, j: int, boundary: int, level: int, label: F64
) -> None:
    """Extend a label, in place, by the hop i -> j with its codecs."""
    m = costs.micro_batches
    encode_s, decode_s = costs.encode_s[i, boundary, level], costs.decode_s[j, boundary, level]
    send_s, latency_s = transfer_s(costs, i, j, boundary, level), costs.latency_s[i, j]
    first, last = serve(label[FIRST], label[LAST], encode_s, 0.0, m)
    first, last = serve(first, last, send_s, costs.hop_release_s[i, j], m)
    label[FIRST], label[LAST] = serve(first + latency_s, last + latency_s, decode_s, 0.0, m)
    label[ERROR] += costs.error[boundary, level]
    ratio = token_ratio(costs, boundary, level)
    label[PRICE] += (
        prices.hop_price[i, j] * m * send_s * (1.0 + costs.n_tokens * ratio) + prices.hop_fixed_s[i, j]
    )
    if boundary < costs.compute_s.shape[1]:
        label[LOOP] += ratio * (encode_s + send_s + decode_s) + latency_s
    label[SLOWEST] = max(label[SLOWEST], ratio * max(encode_s, send_s, decode_s))
    label[PEAK] = max(label[PEAK], ws.hop_period_s[i, boundary, j, level])


@part
def _write(values: F64, at: int, new: F64) -> None:
    """Store a label's values."""
    for column in range(9):
        values[at, column] = new[column]


@part
def _insert(
    costs: Costs,
    prices: Prices,
    ws: Workspace,
    values: F64,
    links: I64,
    new: int,
    kind: int,
    slot: int,
    boundary: int,
    priced: bool,
) -> bool:
    """Put label `new` into its node's front unless another is at least as good; drop those it beats.

    A front is a list by rising (first + price). A label beats another if it is no worse in every quantity
    that a completion can make count: a later bottleneck is at least the node's floor, and price alone counts
    only if a later release can hide the completion.
    """
    m, tokens = costs.micro_batches, costs.n_tokens
    floor = ws.floor[kind, slot, boundary]
    least_s = (m - 1) * floor[FLOOR_SERVICE]
    a = values[new]
    a_first = a[FIRST] + a[PRICE]
    a_last = max(a[LAST], a[FIRST] + least_s) + a[PRICE]
    a_busiest = max(a[BUSIEST], floor[FLOOR_BUSIEST])
    busy, decoding = prices.bottleneck > 0.0, tokens > 0
    least_slowest_s, least_loop_s = floor[FLOOR_SLOWEST], floor[FLOOR_LOOP] / max(1, tokens)
    a_slowest = max(a[SLOWEST], least_slowest_s, (a[LOOP] + least_loop_s) / m)
    before, here = -1, ws.head[kind, slot, boundary]
    while here >= 0:
        b = values[here]
        b_first = b[FIRST] + b[PRICE]
        if b_first > a_first:
            break
        if (
            b[ERROR] <= a[ERROR]
            and max(b[LAST], b[FIRST] + least_s) + b[PRICE] <= a_last
            and (not priced or b[PRICE] <= a[PRICE])
            and (not busy or b[BUSIEST] <= a_busiest)
            and (not decoding or (b[LOOP] <= a[LOOP] and b[SLOWEST] <= a_slowest))
        ):
            return False
        before, here = here, links[here, NEXT]
    links[new, NEXT] = here
    if before < 0:
        ws.head[kind, slot, boundary] = new
    else:
        links[before, NEXT] = new
    before = new
    while here >= 0:
        b = values[here]
        if (
            a[ERROR] <= b[ERROR]
            and a_last <= max(b[LAST], b[FIRST] + least_s) + b[PRICE]
            and (not priced or a[PRICE] <= b[PRICE])
            and (not busy or a[BUSIEST] <= max(b[BUSIEST], floor[FLOOR_BUSIEST]))
            and (
                not decoding
                or (
                    a[LOOP] <= b[LOOP]
                    and a[SLOWEST] <= max(b[SLOWEST], least_slowest_s, (b[LOOP] + least_loop_s) / m)
                )
            )
        ):
            links[before, NEXT] = links[here, NEXT]
        else:
            before = here
        here = links[here, NEXT]
    return True


@part
def _make_room(
    values: F64, links: I64, heads: I64, boundary: int, width: int, estimate_s: float, free: int
) -> int:
    """Return where to store a label: `free`, in place of the worst of a full front, or -1 if it is worse."""
    count, before, worst, before_worst = 0, -1, -1, -1
    here = heads[boundary]
    while here >= 0:
        if worst < 0 or values[here, ESTIMATE] > values[worst, ESTIMATE]:
            worst, before_worst = here, before
        count += 1
        before, here = here, links[here, NEXT]
    if count < width:
        return free
    if values[worst, ESTIMATE] <= estimate_s:
        return -1
    if before_worst < 0:
        heads[boundary] = links[worst, NEXT]
    else:
        links[before_worst, NEXT] = links[worst, NEXT]
    return worst
