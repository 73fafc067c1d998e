"""The battery: what goes in and out is conserved, and the charge stays within its bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_env import energy
from sat_env.energy import Power, power_constants
from sat_env.kernels import kernel
from sat_env.scenario import Energy, Payload, PowerMode

allowed_mode, battery_step = kernel(energy.allowed_mode.py_func), kernel(energy.battery_step.py_func)
check = settings(deadline=None, derandomize=True, max_examples=300)
joules = st.floats(0.0, 1e6)
efficiency = st.floats(0.5, 1.0)


def power(energy: Energy, *min_charges: float) -> Power:
    modes = tuple(PowerMode(15.0 + q, 1e12, 1e11, c) for q, c in enumerate(min_charges or (0.0,)))
    return power_constants(energy, Payload(modes=modes))


@given(
    capacity_wh=st.floats(1.0, 300.0),
    charge=st.floats(0.0, 1.0),
    charging=efficiency,
    discharging=efficiency,
    flows=st.lists(st.tuples(joules, joules), min_size=1, max_size=20),
)
@check
def test_energy_is_conserved_and_charge_stays_in_bounds(
    capacity_wh: float,
    charge: float,
    charging: float,
    discharging: float,
    flows: list[tuple[float, float]],
) -> None:
    constants = power(
        Energy(battery_wh=capacity_wh, charge_efficiency=charging, discharge_efficiency=discharging)
    )
    battery_j = charge * constants.capacity_j
    for in_j, load_j in flows:
        after_j, stored_j, spilled_j, unserved_j = battery_step(battery_j, in_j, load_j, constants)
        assert 0.0 <= after_j <= constants.capacity_j
        assert after_j - battery_j == pytest.approx(stored_j, abs=1e-9 * constants.capacity_j)
        assert spilled_j >= 0.0
        assert unserved_j >= 0.0
        # sun = load + charging or - discharging, each with its losses, + spilled - unserved
        cell_side_j = stored_j / charging if stored_j > 0.0 else stored_j * discharging
        assert in_j - load_j == pytest.approx(cell_side_j + spilled_j - unserved_j, rel=1e-9, abs=1e-3)
        assert spilled_j == 0.0 or after_j == pytest.approx(constants.capacity_j)
        assert unserved_j == 0.0 or after_j == 0.0
        battery_j = after_j


def test_losses_are_paid_once_each_way() -> None:
    constants = power(Energy(battery_wh=1.0, charge_efficiency=0.9, discharge_efficiency=0.5))
    assert battery_step(1000.0, 200.0, 100.0, constants) == pytest.approx((1090.0, 90.0, 0.0, 0.0))
    assert battery_step(1000.0, 100.0, 200.0, constants) == pytest.approx((800.0, -200.0, 0.0, 0.0))
    assert battery_step(3510.0, 1200.0, 0.0, constants) == pytest.approx((3600.0, 90.0, 1100.0, 0.0))
    assert battery_step(100.0, 0.0, 200.0, constants) == pytest.approx((0.0, -100.0, 0.0, 150.0))


@given(
    min_charges=st.lists(st.floats(0.0, 0.99), min_size=1, max_size=5).map(sorted), charge=st.floats(0.0, 1.0)
)
@check
def test_the_best_mode_the_charge_allows(min_charges: list[float], charge: float) -> None:
    constants = power(Energy(battery_wh=1.0), *min_charges)
    battery_j = charge * constants.capacity_j
    allowed = [q for q, c in enumerate(min_charges) if battery_j / constants.capacity_j >= c]
    assert allowed_mode(battery_j, constants) == max(allowed, default=-1)


def test_without_a_battery_every_satellite_runs_its_best_mode() -> None:
    assert allowed_mode(0.0, power(Energy(enabled=False), 0.1, 0.5)) == 1


def test_constants_are_those_of_the_scenario() -> None:
    payload = Payload()
    constants = power_constants(Energy(battery_wh=50.0, bus_w=7.0, idle_w=3.0), payload)
    assert (constants.capacity_j, constants.base_w, constants.idle_w) == (180_000.0, 10.0, 3.0)
    np.testing.assert_allclose(
        constants.mode_flops_per_s, [payload.efficiency * mode.flops_per_s for mode in payload.modes]
    )
