"""The planning problem as a mixed-integer programme, solved by HiGHS: an oracle for the exact planner."""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from sat_env.planning import GROUND_ANY, GROUND_NONE, Costs
from sat_env.planning.costs import I64


def plan(costs: Costs, time_limit_s: float = np.inf) -> tuple[I64, I64] | None:
    """Optimal plan of a release-free problem without decoding, by HiGHS.

    Optimises: sum + (M - 1) z over unit flows through the graph of `sat_env.planning.exact`; x[k, i, j] = 1
    if slot k holds blocks i..j, y[i, j, l, r] = 1 if boundary l goes from slot i to slot j at level r; z is
    at least every stage, codec and hop time; the errors of y add up to at most the budget. Ignores: nothing
    that such a problem has. Source: the formulation is ours, the solver is HiGHS (Huangfu and Hall 2018,
    doi:10.1007/s12532-017-0130-5) through `scipy.optimize.milp`.

    Returns
    -------
    cuts, levels
        (K,) canonical; None if the problem is infeasible.

    Raises
    ------
    ValueError
        The problem has releases, loads or decoding.
    RuntimeError
        HiGHS stopped at the time limit.
    """
    for name in ("stage_release_s", "hop_release_s", "load_s", "n_tokens"):
        if np.any(getattr(costs, name)):
            raise ValueError(f"{name} is not zero; the linear model has no releases, loads or decoding")
    n_slots, (n_boundaries, n_levels) = costs.rate_bps.shape[0], costs.error.shape
    n_blocks = n_boundaries - 1
    boundaries = n_slots + 1, n_boundaries

    def node(kind: int, slot: int, boundary: int) -> int:
        return (kind * boundaries[0] + slot) * boundaries[1] + boundary

    goal = 2 * boundaries[0] * boundaries[1]
    arcs, servers = [], []  # (tail, head, seconds, error, slot, cut, level), {server: seconds}
    for k in range(n_slots + 1):
        on_ground = k == n_slots
        for start in range(n_blocks if k > 0 else 1):
            if on_ground and (
                costs.ground_hosts == GROUND_NONE or (costs.ground_hosts != GROUND_ANY and start > 0)
            ):
                continue
            fits = np.cumsum(costs.memory_bytes[start:]) <= costs.memory_free_bytes[k]
            seconds = np.cumsum(costs.compute_s[k, start:])
            for end in range(n_blocks if on_ground else start + 1, n_blocks + 1):
                if fits[end - start - 1] and seconds[end - start - 1] < np.inf:
                    head = goal if on_ground else node(1, k, end)
                    x = seconds[end - start - 1]
                    arcs.append((node(0, k, start), head, x, 0.0, k, end, -1))
                    servers.append({("stage", k): x})
    for i in range(n_slots):
        for boundary in range(0 if i == 0 else 1, n_boundaries):
            for j in range(n_slots if boundary == n_blocks else i + 1, n_slots + 1):
                if costs.rate_bps[i, j] == 0.0:
                    continue
                for r in range(n_levels if 0 < boundary < n_blocks else 1):
                    send = 8.0 * costs.boundary_bytes[boundary, r] / costs.rate_bps[i, j]
                    encode, decode = costs.encode_s[i, boundary, r], costs.decode_s[j, boundary, r]
                    total = send + encode + decode + costs.latency_s[i, j]
                    head = goal if boundary == n_blocks else node(0, j, boundary)
                    arcs.append((node(1, i, boundary), head, total, costs.error[boundary, r], i, boundary, r))
                    servers.append({("encode", i): encode, ("send", i): send, ("decode", j): decode})

    n = len(arcs)
    tails, heads = np.array([arc[0] for arc in arcs]), np.array([arc[1] for arc in arcs])
    source = goal + 1  # joins In(0, 0) and Out(0, 0): slot 0 computes, or only sends
    tails = np.concatenate((tails, [source, source]))
    heads = np.concatenate((heads, [node(0, 0, 0), node(1, 0, 0)]))
    columns = np.arange(n + 2)
    flow = csr_array(
        (np.repeat([1.0, -1.0], n + 2), (np.concatenate((tails, heads)), np.tile(columns, 2))),
        shape=(goal + 2, n + 3),
    )
    balance = np.zeros(goal + 2)
    balance[source], balance[goal] = 1.0, -1.0
    names = sorted({name for server in servers for name in server})
    row_of = {name: row for row, name in enumerate(names)}
    entries = [
        (row_of[name], c, x) for c, server in enumerate(servers) for name, x in server.items() if x > 0
    ]
    entries += [(row, n + 2, -1.0) for row in range(len(names))]
    rows, cols, values = zip(*entries, strict=True)
    constraints = [
        LinearConstraint(flow, balance, balance),
        LinearConstraint(csr_array((values, (rows, cols)), shape=(len(names), n + 3)), ub=0.0),
    ]
    if costs.error_budget < np.inf:
        errors = np.array([arc[3] for arc in arcs] + [0.0] * 3)
        constraints.append(LinearConstraint(errors[None], ub=costs.error_budget))
    seconds = np.array([arc[2] for arc in arcs] + [0.0, 0.0, costs.micro_batches - 1.0])
    result = milp(
        seconds,
        constraints=constraints,
        integrality=np.concatenate((np.ones(n + 2), [0.0])),
        bounds=Bounds(0.0, np.concatenate((np.ones(n + 2), [np.inf]))),
        options={"mip_rel_gap": 0.0} | ({"time_limit": time_limit_s} if time_limit_s < np.inf else {}),
    )
    if result.status == 2:
        return None
    if result.status != 0:
        raise RuntimeError(f"HiGHS stopped without a proof: {result.message}")
    cuts, levels = np.zeros(n_slots, dtype=np.int64), np.zeros(n_slots, dtype=np.int64)
    for c in np.flatnonzero(result.x[:n] > 0.5):
        *_, slot, boundary, level = arcs[c]
        if level < 0 and slot < n_slots:
            cuts[slot] = boundary
        elif 0 < boundary < n_blocks and level >= 0:
            levels[slot] = level
    return np.maximum.accumulate(cuts), levels
