"""A decision for human eyes."""

from __future__ import annotations

import numpy as np

from sat_env.problem import PlanningProblem
from sat_env.world import Prepared


def describe(problem: PlanningProblem, prepared: Prepared) -> str:
    """Return a decision as text: a line a slot, and the hop to the next.

    Parameters
    ----------
    problem : PlanningProblem
        Of an environment (not built from arrays).
    prepared : Prepared
        Its scenario.
    """
    if problem.problems is None:
        raise ValueError("describe: this problem was built from arrays and has no satellites behind it")
    now = problem.problems
    epoch = int(now.epoch[0])
    lines = [
        f"epoch {epoch}  job {now.items[0]:.0f} items, complexity {now.content[0]:.2f}"
        f"  chain changes in {now.epochs_to_change[0]} epochs"
    ]
    for k, node in enumerate(prepared.contacts.chain[epoch]):
        first, last = now.resident[0, k]
        state = f"rebooting {now.reboot_s[0, k]:.0f} s" if now.reboot_s[0, k] > 0 else "up"
        lines.append(
            f"slot {k + 1} {prepared.contacts.names[node]:<12} {state}  "
            f"{now.flops_per_s[0, k] / 1e12:5.1f} TFLOP/s  busy {now.busy_s[0, k]:5.1f} s  "
            f"battery {now.charge[0, k]:4.0%}  {'sun' if now.light[0, k] > 0.5 else 'shadow'}  "
            f"blocks {first}..{last}"
        )
        hop = (0, k, k + 1)
        link = "up" if now.primary_up[hop] > 0 else f"DOWN for {now.state_age_s[hop]:.0f} s"
        rate = np.round(now.rate_bps[hop] / 1e6, 1)
        lines.append(f"   | {rate} Mbit/s, {now.latency_s[hop] * 1e3:.1f} ms, {link}")
    lines.append(f"ground  busy {now.busy_s[0, -1]:.1f} s")
    return "\n".join(lines)
