"""How exact and how fast the world is: J2 against SGP4, frames against skyfield, a snapshot, whole days.

OMP_NUM_THREADS=1 python benchmarks/orbits.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is loaded

import numpy as np
from sgp4.api import WGS72, Satrec, SatrecArray
from skyfield.api import EarthSatellite, load
from skyfield.framelib import itrs

sys.path.insert(0, str(Path(__file__).parents[1]))

from sat_env.motion.frames import EARTH_RADIUS_KM, gmst_rad, ut1_minus_utc_s
from sat_env.motion.presets import preset
from sat_env.motion.walker import WalkerMover, secular_rates
from sat_env.network.graph import latencies_to_stations
from sat_env.network.routes import contact_plan
from sat_env.network.topology import build_topology
from sat_env.scenario import Ground, Scenario, Station, Walker, load_scenario

STATIONS = (
    Station("Svalbard", 78.23, 15.40),
    Station("Kiruna", 67.86, 20.96),
    Station("Dublin", 53.41, -6.26),
    Station("Boston", 42.36, -71.06),
    Station("Hawaii", 19.01, -155.66),
    Station("Singapore", 1.35, 103.82),
    Station("Nairobi", -1.29, 36.82),
    Station("Perth", -31.80, 115.89),
    Station("Hartebeesthoek", -25.89, 27.69),
    Station("Santiago", -33.13, -70.67),
)


def sgp4_records(shell: WalkerMover) -> list[Satrec]:
    """Return SGP4 records, without drag, whose mean orbits are those of a shell."""
    epoch = (shell.start - datetime(1949, 12, 31, tzinfo=UTC)) / timedelta(days=1)
    records = []
    rate = 60 * secular_rates(shell.spec.altitude_km, shell.spec.inclination_deg)[0]  # rad/min
    for number, (node, tilt, phase) in enumerate(zip(*shell.orbits, strict=True), 1):
        record = Satrec()
        for _ in range(5):  # SGP4's mean altitude follows from its mean motion: turn that round
            record.sgp4init(WGS72, "i", number, epoch, 0.0, 0.0, 0.0, 0.0, 0.0, tilt, phase, rate, node)
            rate *= (record.a * record.radiusearthkm / (EARTH_RADIUS_KM + shell.spec.altitude_km)) ** 1.5
        records.append(record)
    return records


def sgp4_fixed_km(records: list[Satrec], start: datetime, times_s: np.ndarray, dut1_s: float) -> np.ndarray:
    """Return SGP4's positions, Earth-fixed, (N, T, 3)."""
    days = (start - datetime(2000, 1, 1, tzinfo=UTC)) / timedelta(days=1)
    error, teme, _ = SatrecArray(records).sgp4(np.full(len(times_s), 2451544.5), days + times_s / 86400)
    assert not error.any()
    c, s = (f(gmst_rad(start, times_s, dut1_s)) for f in (np.cos, np.sin))
    return np.stack(
        [c * teme[..., 0] + s * teme[..., 1], c * teme[..., 1] - s * teme[..., 0], teme[..., 2]], axis=-1
    )


def best_s(work: Callable[[], Any], repeats: int) -> float:
    """Return the shortest of several wall-clock times."""
    took = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        took.append(time.perf_counter() - begin)
    return min(took)


def walker_speedup(repeats: int) -> float:
    """Time 1584 satellites at 96 instants: SatrecArray over the matrix product."""
    shell = WalkerMover(preset("starlink-1"))
    records, times = SatrecArray(sgp4_records(shell)), np.linspace(0, 86400, 96)
    day = np.full(96, 2461041.5)
    ours = best_s(lambda: shell.positions_km(times), 20 * repeats)
    return best_s(lambda: records.sgp4(day, times / 86400), repeats) / ours


def j2_error_km() -> float:
    """Return the largest distance of a J2 shell from SGP4 within 24 h."""
    shell = WalkerMover(Walker(planes=8, per_plane=10, altitude_km=550.0))
    times = np.arange(0, 86401, 60.0)
    theirs = sgp4_fixed_km(sgp4_records(shell), shell.start, times, 0.0).transpose(1, 0, 2)
    return float(np.linalg.norm(shell.positions_km(times) - theirs, axis=-1).max())


def frame_error_m() -> float:
    """Return the largest distance between our Earth-fixed positions and skyfield's ITRS within 24 h."""
    shell = WalkerMover(Walker(planes=4, per_plane=3, phasing=1))
    times = np.arange(0, 86400, 300.0)
    records, scale = sgp4_records(shell), load.timescale(builtin=True)
    instants = scale.utc(shell.start.year, shell.start.month, shell.start.day, 0, 0, times)
    ours = sgp4_fixed_km(records, shell.start, times, ut1_minus_utc_s(shell.start))
    theirs = [EarthSatellite.from_satrec(r, scale).at(instants).frame_xyz(itrs).km.T for r in records]
    return float(np.linalg.norm(ours - np.array(theirs), axis=-1).max() * 1000)


def snapshot_ms(repeats: int) -> float:
    """Time one instant of the 1584 shell: positions, links and the ways of all satellites to 10 stations."""
    scenario = Scenario("snapshot", motion=preset("starlink-1"), ground=Ground(stations=STATIONS))
    shell = WalkerMover(preset("starlink-1"))
    topology = build_topology(shell, scenario.links)
    instants = iter(np.arange(0, 1e6, 30.0))
    return 1000 * best_s(
        lambda: latencies_to_stations(scenario, shell, topology, next(instants)), 10 * repeats
    )


def day_s(scenario: Scenario, hours: float) -> float:
    """Time the contact plan of some hours of 30 s epochs, scaled to a day; compiled code is warm."""
    contact_plan(scenario.replace(epoch_s=30.0, windows=5, episode_epochs=2))
    windows = 20
    epochs = round(hours * 120 / windows)
    begin = time.perf_counter()
    contact_plan(scenario.replace(epoch_s=30.0, windows=windows, episode_epochs=epochs))
    return (time.perf_counter() - begin) * 24 / hours


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, a quarter of the day (scaled)")
    args = parser.parse_args()
    repeats, hours = (2, 6) if args.quick else (5, 24)
    outage = load_scenario("WalkerOutage")
    starlink = outage.replace(motion=preset("starlink-1"), **{"links.terminals": 4, "links.backup": True})
    figures = {
        "walker_vs_satrecarray": round(walker_speedup(repeats), 1),
        "j2_vs_sgp4_max_km": round(j2_error_km(), 2),
        "frame_error_max_m": round(frame_error_m(), 2),
        "snapshot_1584_routes10_ms": round(snapshot_ms(repeats), 2),
        "prepare_day_walker_outage_s": round(day_s(outage, hours), 3),
        "prepare_day_starlink_s": round(day_s(starlink, hours), 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value}")


if __name__ == "__main__":
    main()
