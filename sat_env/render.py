"""A decision for human eyes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sat_env.network.render import draw
from sat_env.problem import PlanningProblem
from sat_env.simulator import Simulator
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
        f"epoch {epoch} of the contact plan, {now.epochs_left[0]} of the episode left"
        f"  job {now.items[0]:.0f} items, complexity {now.content[0]:.2f}"
        f"  chain changes in {now.epochs_to_change[0]} epochs"
    ]
    for k, node in enumerate(prepared.contacts.chain[epoch]):
        first, last = now.resident[0, k]
        state = f"rebooting {now.reboot_s[0, k]:.0f} s" if now.reboot_s[0, k] > 0 else "up"
        lines.append(
            f"slot {k + 1} {prepared.contacts.names[node]:<12} {state}  "
            f"{now.flops_per_s[0, k] / 1e12:5.1f} TFLOP/s  busy {now.busy_s[0, k]:5.1f} s  "
            f"battery {now.charge[0, k]:4.0%}  {'sun' if now.light[0, k] > 0.5 else 'shadow'}  "
            + (f"blocks {first + 1} to {last}" if last > first else "no blocks")
        )
        hop = (0, k, k + 1)
        link = "up" if now.primary_up[hop] > 0 else f"DOWN for {now.state_age_s[hop]:.0f} s"
        rate = np.round(now.rate_bps[hop] / 1e6, 1)
        lines.append(f"   | {rate} Mbit/s, {now.latency_s[hop] * 1e3:.1f} ms, {link}")
    lines.append(f"ground  busy {now.busy_s[0, -1]:.1f} s")
    return "\n".join(lines)


def draw_world(simulator: Simulator, b: int = 0) -> NDArray[np.uint8]:
    """Draw the network, the chain, eclipse, batteries and the links that are down now in world `b`."""
    world, state = simulator.world, simulator.state
    window = int(simulator.trace.window[b])
    last = int(state.start[b]) + world.episode_epochs - 1
    epoch = min(int(state.epoch[b]), last)
    now_s = (epoch - int(state.start[b])) * world.epoch_s
    nodes = world.window_nodes[window]
    charge = np.ones(simulator.prepared.contacts.n_nodes)
    charge[nodes[nodes >= 0]] = state.battery_j[b, nodes >= 0] / world.power.capacity_j
    down = simulator.trace.link_down_s[b]
    failed = ((down[:, :, 0] <= now_s) & (now_s < down[:, :, 1])).any(axis=1)
    links = world.window_links[window]
    return draw(simulator.prepared.contacts, epoch, charge, links[failed & (links >= 0)].tolist())
