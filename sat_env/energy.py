"""Battery of one satellite: one epoch of sun and load, and the power mode a charge allows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sat_env.kernels import part
from sat_env.scenario import Energy, Payload

Array = NDArray[np.float64]


class Power(NamedTuple):
    """Constants of the power system, and of the computer's modes."""

    enabled: bool
    capacity_j: float
    panel_w: float
    base_w: float  # platform and idle computer, always drawn
    idle_w: float  # part of `base_w`: what a busy computer does not draw on top of its mode
    charge_efficiency: float
    discharge_efficiency: float
    initial_low: float  # charge at reset, share of the capacity
    initial_high: float
    mode_w: Array  # (Q,)
    mode_flops_per_s: Array  # (Q,) reached, peak x efficiency
    mode_bandwidth_bytes_per_s: Array  # (Q,)
    mode_min_charge: Array  # (Q,)


def power_constants(energy: Energy, payload: Payload) -> Power:
    """Collect the power constants of a scenario."""
    modes = payload.modes
    return Power(
        enabled=energy.enabled,
        capacity_j=energy.battery_wh * 3600.0,
        panel_w=energy.panel_w,
        base_w=energy.bus_w + energy.idle_w,
        idle_w=energy.idle_w,
        charge_efficiency=energy.charge_efficiency,
        discharge_efficiency=energy.discharge_efficiency,
        initial_low=energy.initial_charge[0],
        initial_high=energy.initial_charge[1],
        mode_w=np.array([m.power_w for m in modes]),
        mode_flops_per_s=np.array([m.flops_per_s * payload.efficiency for m in modes]),
        mode_bandwidth_bytes_per_s=np.array([m.memory_bandwidth_bytes_per_s for m in modes]),
        mode_min_charge=np.array([m.min_charge for m in modes]),
    )


@part
def battery_step(battery_j, in_j, load_j, power):  # type: ignore[no-untyped-def]
    """Advance a battery by one epoch.

    Surplus charges at `charge_efficiency`, a deficit discharges at `discharge_efficiency`; the charge stays
    within 0 and the capacity.

    Returns
    -------
    battery_j : float
    stored_j : float
        What entered the cells (negative: left them); ``battery_j`` changes by exactly this.
    spilled_j, unserved_j : float
        Surplus that did not fit, and load that found the battery empty.
    """
    net_j = in_j - load_j
    if net_j >= 0.0:
        wanted = net_j * power.charge_efficiency
        stored = min(wanted, power.capacity_j - battery_j)
        spilled = (wanted - stored) / power.charge_efficiency if stored < wanted else 0.0
        return battery_j + stored, stored, spilled, 0.0
    wanted = -net_j / power.discharge_efficiency
    taken = min(wanted, battery_j)
    return battery_j - taken, -taken, 0.0, (wanted - taken) * power.discharge_efficiency


@part
def allowed_mode(battery_j, power):  # type: ignore[no-untyped-def]
    """Return the best power mode the charge allows, -1 when it allows none."""
    if not power.enabled:
        return power.mode_w.shape[0] - 1
    charge = battery_j / power.capacity_j
    mode = power.mode_w.shape[0] - 1
    while mode >= 0 and charge < power.mode_min_charge[mode]:
        mode -= 1
    return mode
