"""Positions, frames and sun, against SGP4, skyfield and the JPL ephemeris."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sgp4.api import WGS72, Satrec
from sgp4.exporter import export_omm, export_tle
from skyfield.api import EarthSatellite, load, load_file, wgs84
from skyfield.framelib import itrs

from sat_env import motion
from sat_env.motion.elements import ElementsMover
from sat_env.motion.frames import (
    EARTH_RADIUS_KM,
    elevation_deg,
    geodetic_to_fixed_km,
    gmst_rad,
    latitude_longitude_deg,
    ut1_minus_utc_s,
)
from sat_env.motion.presets import PRESETS, preset
from sat_env.motion.sun import clearance_km, light_share
from sat_env.motion.walker import WalkerMover, secular_rates
from sat_env.scenario import Elements, ScenarioError, Surface, Walker

START = datetime(2025, 3, 20, 6, 30, tzinfo=UTC)
DAY_S = 86400.0
properties = settings(deadline=None, derandomize=True, max_examples=40)


def shared_data(name: str) -> Path:
    """Return an external file for checks, or skip."""
    root = Path(__file__).parents[1]
    for folder in (root / "../shared/data", root / "../../shared/data"):
        if (folder / name).exists():
            return (folder / name).resolve()
    pytest.skip(f"external data {name} is not here")


def record(
    altitude_km: float, inclination_deg: float, node_deg: float, phase_deg: float, number: int
) -> Satrec:
    """Return the SGP4 record, at START, of a circular orbit with a mean altitude."""
    satellite = Satrec()
    epoch = (START - datetime(1949, 12, 31, tzinfo=UTC)) / timedelta(days=1)
    angles = np.deg2rad([inclination_deg, phase_deg, node_deg])
    rate = (
        60 * secular_rates(altitude_km, inclination_deg)[0]
    )  # rad/min: first guess of the Kozai mean motion
    for _ in range(5):  # SGP4's mean altitude follows from its mean motion: turn that round
        satellite.sgp4init(
            WGS72, "i", number, epoch, 0.0, 0.0, 0.0, 0.0, 0.0, angles[0], angles[1], rate, angles[2]
        )
        rate *= (satellite.a * satellite.radiusearthkm / (EARTH_RADIUS_KM + altitude_km)) ** 1.5
    satellite.classification, satellite.intldesg = "U", f"25{number:03d}A"
    return satellite


RECORDS = [record(550.0, 53.0, 40.0 * (n // 3), 120.0 * (n % 3), n + 1) for n in range(6)]


@pytest.fixture
def elements(tmp_path: Path) -> ElementsMover:
    path = tmp_path / "shell.json"
    path.write_text(json.dumps([export_omm(r, f"SAT {r.satnum}") for r in RECORDS]))
    return ElementsMover.from_file(Elements(file=str(path)))


def in_order(mover: ElementsMover) -> list[EarthSatellite]:
    """Return skyfield's satellites in the mover's order."""
    scale = load.timescale(builtin=True)
    by_name = {f"SAT {r.satnum}": r for r in RECORDS}
    return [EarthSatellite.from_satrec(by_name[name], scale) for name in mover.names]


def skyfield_times(mover: ElementsMover, times_s: np.ndarray):
    scale = load.timescale(builtin=True)
    start = mover.start
    return scale.utc(
        start.year,
        start.month,
        start.day,
        start.hour,
        start.minute,
        start.second + start.microsecond / 1e6 + times_s,
    )


def test_walker_stays_within_13_km_of_sgp4_for_a_day():
    spec = Walker(
        planes=4, per_plane=5, phasing=1, altitude_km=550.0, inclination_deg=53.0, start_utc=START.isoformat()
    )
    shell = WalkerMover(spec)
    times = np.arange(0, DAY_S, 60.0)
    positions = shell.positions_km(times)
    angle = gmst_rad(START, times)
    fraction = (START - START.replace(hour=0, minute=0)).total_seconds() / DAY_S + times / DAY_S
    day = 2451544.5 + (START.replace(hour=0, minute=0) - datetime(2000, 1, 1, tzinfo=UTC)).days
    worst = 0.0
    for n in range(shell.n_nodes):
        node, _, phase = (np.rad2deg(a[n]) for a in shell.orbits)
        satellite = record(550.0, 53.0, node, phase, n + 1)
        error, teme, _ = satellite.sgp4_array(np.full(len(times), day), fraction)
        assert not error.any()
        c, s = np.cos(angle), np.sin(angle)
        fixed = np.stack(
            [c * teme[:, 0] + s * teme[:, 1], c * teme[:, 1] - s * teme[:, 0], teme[:, 2]], axis=1
        )
        worst = max(worst, np.linalg.norm(fixed - positions[:, n], axis=1).max())
    assert 5 < worst < 13  # the short-period terms that J2's secular drift leaves out


def test_earth_fixed_positions_agree_with_skyfield_to_10_m(elements):
    times = np.arange(0, DAY_S, 997.0)
    ours = elements.positions_km(times)
    t = skyfield_times(elements, times)
    for n, satellite in enumerate(in_order(elements)):
        theirs = satellite.at(t).frame_xyz(itrs).km.T
        assert np.linalg.norm(ours[:, n] - theirs, axis=1).max() < 0.010


def test_the_rotation_needs_ut1(elements):
    assert abs(ut1_minus_utc_s(elements.start)) > 1e-3  # else the test above could not see a missing UT1


def test_elevation_agrees_with_skyfield_to_a_hundredth_of_a_degree(elements):
    times = np.arange(0, DAY_S, 311.0)
    station = wgs84.latlon(78.23, 15.40, elevation_m=450.0)
    ours = elevation_deg(elements.positions_km(times), 78.23, 15.40, 0.450)
    t = skyfield_times(elements, times)
    for n, satellite in enumerate(in_order(elements)):
        theirs = (satellite - station).at(t).altaz()[0].degrees
        assert np.abs(ours[:, n] - theirs).max() < 0.01


def test_stations_agree_with_skyfield():
    place = wgs84.latlon(-33.13, -70.67, elevation_m=730.0)
    np.testing.assert_allclose(geodetic_to_fixed_km(-33.13, -70.67, 0.730), place.itrs_xyz.km, atol=1e-6)


def test_sub_points_agree_with_skyfield(elements):
    times = np.arange(0, DAY_S, 911.0)
    latitude, longitude = latitude_longitude_deg(elements.positions_km(times))
    t = skyfield_times(elements, times)
    for n, satellite in enumerate(in_order(elements)):
        place = wgs84.subpoint_of(satellite.at(t))
        assert np.abs(latitude[:, n] - place.latitude.degrees).max() < 1e-4
        assert np.abs((longitude[:, n] - place.longitude.degrees + 180) % 360 - 180).max() < 1e-3


@properties
@given(latitude=st.floats(-89.9, 89.9), longitude=st.floats(-179.9, 179.9), altitude=st.floats(0, 2000))
def test_geodetic_coordinates_there_and_back(latitude, longitude, altitude):
    back = latitude_longitude_deg(geodetic_to_fixed_km(latitude, longitude, altitude))
    np.testing.assert_allclose(back, (latitude, longitude), atol=1e-6)


def test_eclipse_entry_and_exit_agree_with_the_jpl_ephemeris_to_5_s(elements):
    package = importlib.util.find_spec("skyfield_data")
    assert package is not None and package.submodule_search_locations
    ephemeris = load_file(str(Path(package.submodule_search_locations[0]) / "data" / "de421.bsp"))
    times = np.arange(0, 6000.0, 1.0)
    sun = motion.sun_direction(elements.start, times)
    positions = elements.positions_km(times)
    crossings = 0
    for n, satellite in enumerate(in_order(elements)[:3]):
        lit = np.array([clearance_km(*p, *s) > 0 for p, s in zip(positions[:, n], sun, strict=True)])
        for k in np.flatnonzero(np.diff(lit)):
            theirs = satellite.at(skyfield_times(elements, times[k] + np.array([-5.0, 6.0]))).is_sunlit(
                ephemeris
            )
            assert list(theirs) == [lit[k], lit[k + 1]]
            crossings += 1
    ephemeris.close()
    assert crossings >= 5


def test_sun_direction_agrees_with_the_jpl_ephemeris():
    package = importlib.util.find_spec("skyfield_data")
    assert package is not None and package.submodule_search_locations
    ephemeris = load_file(str(Path(package.submodule_search_locations[0]) / "data" / "de421.bsp"))
    scale = load.timescale(builtin=True)
    for year in (2010, 2026, 2040):
        start = datetime(year, 2, 3, tzinfo=UTC)
        times = DAY_S * np.arange(0, 365, 13.0)
        apparent = (
            ephemeris["earth"].at(scale.utc(year, 2, 3, 0, 0, times)).observe(ephemeris["sun"]).apparent()
        )
        theirs = apparent.frame_xyz(itrs).km.T
        cosine = (motion.sun_direction(start, times) * theirs).sum(axis=1) / np.linalg.norm(theirs, axis=1)
        assert np.rad2deg(np.arccos(np.clip(cosine, -1, 1))).max() < 0.025
    ephemeris.close()


@properties
@given(
    planes=st.integers(1, 6),
    per_plane=st.integers(2, 12),
    altitude=st.floats(300, 1500),
    inclination=st.floats(20, 120),
    time=st.floats(0, 1e6),
    star=st.booleans(),
)
def test_a_shell_keeps_its_radius_and_its_spacing(planes, per_plane, altitude, inclination, time, star):
    shell = WalkerMover(
        Walker(
            planes=planes,
            per_plane=per_plane,
            phasing=planes - 1,
            altitude_km=altitude,
            inclination_deg=inclination,
            pattern="star" if star else "delta",
        )
    )
    positions = shell.positions_km([time])[0].reshape(planes, per_plane, 3)
    radius = EARTH_RADIUS_KM + altitude
    np.testing.assert_allclose(np.linalg.norm(positions, axis=-1), radius, rtol=1e-9)
    spacing = np.linalg.norm(positions - np.roll(positions, -1, axis=1), axis=-1)
    np.testing.assert_allclose(spacing, 2 * radius * np.sin(np.pi / per_plane), rtol=1e-9)
    highest = np.rad2deg(np.arcsin(np.abs(positions[..., 2]).max() / radius))
    assert highest <= min(inclination, 180 - inclination) + 1e-6


@properties
@given(times=st.lists(st.floats(0, 1e6), min_size=1, max_size=5))
def test_a_shell_is_where_it_is_however_it_is_asked(times):
    shell = WalkerMover(Walker())
    together = shell.positions_km(times)
    for k, time in enumerate(times):
        np.testing.assert_allclose(together[k], shell.positions_km([time])[0], atol=1e-6)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(inclination=st.floats(0.1, 98), day=st.integers(0, 364))
def test_eclipses_last_as_geometry_allows(inclination, day):
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    spec = Walker(
        planes=12,
        per_plane=1,
        phasing=0,
        altitude_km=550.0,
        inclination_deg=inclination,
        start_utc=start.isoformat(),
    )
    shell = WalkerMover(spec)
    times = np.arange(0, 5745.0, 15.0)  # one orbit: 95.7 min
    positions, sun = shell.positions_km(times), motion.sun_direction(start, times)
    light = light_share(positions, sun, 1, True)
    dark_min = (1 - light).sum(axis=0) * 15 / 60
    node, tilt, _ = shell.orbits
    east = node - gmst_rad(start, 0.0)  # of the ascending node, Earth-fixed
    normals = np.stack([np.sin(east) * np.sin(tilt), -np.cos(east) * np.sin(tilt), np.cos(tilt)], axis=1)
    sine = normals @ sun[0]
    # Vallado 4th ed., section 5.3: the shadow spans acos(sqrt(h^2 + 2 R h) / ((R + h) cos beta)) each way.
    height = np.sqrt(550.0**2 + 2 * EARTH_RADIUS_KM * 550.0) / (EARTH_RADIUS_KM + 550.0)
    beta = np.abs(np.arcsin(sine))
    for drift, bound in ((0.5, np.less_equal), (-0.5, np.greater_equal)):  # of beta within the orbit, deg
        cosine = np.cos(np.maximum(beta + np.deg2rad(drift), 0.0))
        expected = np.arccos(np.minimum(height / cosine, 1.0)) / np.pi * 95.6
        assert bound(expected - np.sign(drift) * 0.5, dark_min).all()
    assert dark_min.max() < 35.9
    assert (dark_min[np.abs(sine) > np.sin(np.deg2rad(67.5))] == 0).all()


@pytest.mark.parametrize("tracking", [True, False])
def test_light_over_an_epoch_is_the_mean_of_many_samples(tracking):
    shell = WalkerMover(Walker(planes=3, per_plane=4))
    coarse = np.arange(0, 6001.0, 60.0)
    fine = np.arange(0, 6000.5, 0.5)
    share = light_share(shell.positions_km(coarse), motion.sun_direction(shell.start, coarse), 1, tracking)
    positions, sun = shell.positions_km(fine), motion.sun_direction(shell.start, fine)
    along = np.einsum("tnk,tk->tn", positions, sun)
    across = np.sqrt((positions**2).sum(axis=2) - along**2)
    lit = (along > 0) | (across > EARTH_RADIUS_KM)
    power = lit * (1.0 if tracking else np.maximum(along / np.linalg.norm(positions, axis=2), 0))
    np.testing.assert_allclose(share, power[:-1].reshape(100, 120, 12).mean(axis=1), atol=0.02)
    assert 0 < share.mean() < 1


def test_files_of_all_formats_give_the_same_satellites(tmp_path):
    fields = [export_omm(r, f"SAT {r.satnum}") for r in RECORDS]
    (tmp_path / "a.json").write_text(json.dumps(fields))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(fields[0]))
        writer.writeheader()
        writer.writerows(fields)
    (tmp_path / "a.tle").write_text(
        "".join(f"SAT {r.satnum}\n" + "\n".join(export_tle(r)) + "\n" for r in RECORDS)
    )
    (tmp_path / "a.xml").write_text(omm_xml(fields))
    times = [0.0, 3000.0]
    movers = [
        motion.build(Elements(file=str(tmp_path / f"a.{kind}"))) for kind in ("json", "csv", "xml", "tle")
    ]
    for mover in movers:
        assert mover.names == movers[0].names
        assert mover.plane.tolist() == [0, 0, 0, 1, 1, 1]
        # A TLE rounds the epoch to 0.9 ms and the angles to 1e-4 deg.
        np.testing.assert_allclose(mover.positions_km(times), movers[0].positions_km(times), atol=0.05)


@pytest.mark.parametrize("kind", ["json", "csv", "xml", "tle", "2le"])
def test_a_byte_order_mark_changes_nothing(tmp_path, kind):
    fields = [export_omm(r, f"SAT {r.satnum}") for r in RECORDS]
    lines = [f"SAT {r.satnum}\n" * (kind == "tle") + "\n".join(export_tle(r)) for r in RECORDS]
    rows = [",".join(fields[0]), *(",".join(map(str, one.values())) for one in fields)]
    text = {"json": json.dumps(fields), "csv": "\n".join(rows), "xml": omm_xml(fields)}
    plain, marked = tmp_path / f"plain.{kind}", tmp_path / f"marked.{kind}"
    plain.write_text(text.get(kind, "\n".join(lines)), encoding="utf-8")
    marked.write_text(plain.read_text(encoding="utf-8"), encoding="utf-8-sig")
    mover, same = (motion.build(Elements(file=str(path))) for path in (plain, marked))
    assert mover.names == same.names
    np.testing.assert_array_equal(mover.positions_km([0.0]), same.positions_km([0.0]))


def omm_xml(fields: list[dict]) -> str:
    groups = {
        "metadata": ("OBJECT_NAME", "OBJECT_ID"),
        "meanElements": (
            "EPOCH", "MEAN_MOTION", "ECCENTRICITY", "INCLINATION", "RA_OF_ASC_NODE", "ARG_OF_PERICENTER",
            "MEAN_ANOMALY",
        ),
        "tleParameters": (
            "EPHEMERIS_TYPE", "CLASSIFICATION_TYPE", "NORAD_CAT_ID", "ELEMENT_SET_NO", "REV_AT_EPOCH",
            "BSTAR", "MEAN_MOTION_DOT", "MEAN_MOTION_DDOT",
        ),
    }  # fmt: skip

    def tags(group: str, one: dict) -> str:
        return f"<{group}>" + "".join(f"<{k}>{one[k]}</{k}>" for k in groups[group]) + f"</{group}>"

    segments = ""
    for one in fields:
        data = tags("meanElements", one) + tags("tleParameters", one)
        segments += f"<segment>{tags('metadata', one)}<data>{data}</data></segment>"
    return f"<ndm><omm><body>{segments}</body></omm></ndm>"


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    fields = export_omm(RECORDS[0], "SAT 1")
    table = ",".join(fields) + "\n" + ",".join(str(value) for value in fields.values()) + "\n"
    (tmp_path / "a.csv").write_text(table, encoding="utf-8-sig")
    (tmp_path / "a.tle").write_text("\n".join(["SAT 1", *export_tle(RECORDS[0])]), encoding="utf-8-sig")
    for name in ("a.csv", "a.tle"):
        assert motion.build(Elements(file=str(tmp_path / name))).names == ("SAT 1",)


def test_a_ring_over_the_equator_is_one_plane_in_order(tmp_path):
    path = tmp_path / "ring.json"
    ring = [record(550.0, 0.0, 0.0, 30.0 * n, n + 1) for n in range(12)]
    path.write_text(json.dumps([export_omm(one, f"SAT {one.satnum:02d}") for one in ring]))
    mover = motion.build(Elements(file=str(path)))
    assert set(mover.plane.tolist()) == {0}
    around = [int(name[-2:]) for name in mover.names]
    assert np.diff(around).tolist().count(1) >= 10 and np.isfinite(mover.orbits.phase_rad).all()


def test_six_digit_catalogue_numbers_are_read(tmp_path):
    fields = export_omm(RECORDS[0], "NEW") | {"NORAD_CAT_ID": 799500001, "EPOCH": "2026-07-12T00:00:00"}
    (tmp_path / "new.json").write_text(json.dumps([fields]))
    mover = motion.build(Elements(file=str(tmp_path / "new.json")))
    assert mover.names == ("NEW",)
    assert mover.start == datetime(2026, 7, 12, tzinfo=UTC)


def test_bad_files_are_refused_in_one_line(tmp_path):
    first, second = export_tle(RECORDS[0])
    broken = second[:68] + str((int(second[68]) + 1) % 10)
    wrong = {
        "checksum.tle": (
            f"SAT\n{first}\n{broken}\n",
            f"line 3: TLE checksum expected {second[68]}, found {broken[68]}",
        ),
        "epoch.tle": (
            f"{first[:18]}AA{first[20:68]}{(int(first[68]) - int(first[18]) - int(first[19])) % 10}\n{second}\n",
            "line 1: epoch of a TLE expected as YYDDD.FFFFFFFF, found 'AA",
        ),
        "half.tle": (f"SAT\n{first}\n", "line 2: the file ends inside a TLE"),
        "lines.tle": (f"{first}\n{first}\n{second}\n", "line 2: expected line 2 of a TLE, of 69 characters"),
        "prose.tle": (
            f"SAT\n{first}\nhello\n",
            "line 3: expected line 2 of a TLE, of 69 characters, found 'hello'",
        ),
        "object.json": (
            json.dumps(export_omm(RECORDS[0], "A")),
            "a readable OMM file (it holds no list of objects)",
        ),
        "text.json": (
            json.dumps([export_omm(RECORDS[0], "A") | {"MEAN_MOTION": "nan"}]),
            "record 1: not a valid OMM: MEAN_MOTION = 'nan': must be a finite number",
        ),
        "mixed.tle": (
            "\n".join(["SAT", first, export_tle(RECORDS[1])[1]]),
            "line 3: satellite '00002' does not continue '00001'",
        ),
        "twice.tle": (
            "\n".join(["A", first, second, "B", first, second]),
            "must hold each satellite once, and has catalogue number 00001 twice (A, B)",
        ),
        "twice.json": (
            json.dumps([export_omm(RECORDS[0], "A")] * 2),
            "must hold each satellite once, and has catalogue number 1 twice (A, A)",
        ),
        "empty.csv": ("", "a file with at least one satellite"),
        "broken.json": ("[{", "a readable OMM file"),
        "nan.json": (
            json.dumps([export_omm(RECORDS[0], "A") | {"ECCENTRICITY": float("nan")}]),
            "record 1: not a valid OMM: ECCENTRICITY = nan: must be a finite number",
        ),
        "lacking.csv": (
            "OBJECT_NAME,EPOCH\nA,2026-01-01T00:00:00\n",
            "record 1: not a valid OMM: lacks 'NORAD_CAT_ID'",
        ),
    }
    for name, (text, message) in wrong.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ScenarioError) as caught:
            motion.build(Elements(file=str(tmp_path / name)))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ScenarioError, match="must be an existing OMM"):
        motion.build(Elements(file=str(tmp_path / "absent.csv")))
    for instant in ("yesterday", "0001-01-01T00:00:00+23:00"):
        with pytest.raises(ScenarioError, match=rf"motion\.start_utc = '{re.escape(instant)}'"):
            motion.build(Walker(start_utc=instant))
    with pytest.raises(ScenarioError, match="preset = 'x'"):
        preset("x")


def test_a_satellite_that_decays_stops_the_preparation(tmp_path):
    fields = export_omm(record(170.0, 53.0, 0.0, 0.0, 1), "FALLING") | {"BSTAR": 0.1}
    (tmp_path / "falling.json").write_text(json.dumps([fields]))
    mover = motion.build(Elements(file=str(tmp_path / "falling.json")))
    with pytest.raises(ScenarioError, match="SGP4 cannot carry FALLING to 864000 s after 2025-03-20"):
        mover.positions_km([0.0, 864000.0])


def test_a_start_far_from_the_elements_is_warned_of(tmp_path):
    path = tmp_path / "shell.json"
    fields = [export_omm(r, f"SAT {r.satnum}") for r in RECORDS]
    path.write_text(json.dumps(fields))
    near, far = (START + timedelta(days=days) for days in (-13.9, 20.2))
    motion.build(Elements(file=str(path), start_utc=near.isoformat()))
    with pytest.warns(UserWarning, match=r"more than 14 days from the elements of 6 of 6 .*SAT 1: 20 days"):
        motion.build(Elements(file=str(path), start_utc=far.isoformat()))
    fields[3]["EPOCH"] = (START - timedelta(days=15)).strftime("%Y-%m-%dT%H:%M:%S.%f")
    path.write_text(json.dumps(fields))
    with pytest.warns(UserWarning, match=r"the elements of 1 of 6 .*SAT 4: 15 days"):
        motion.build(Elements(file=str(path)))


def test_the_stated_altitude_must_agree_with_the_mean_motion(tmp_path):
    path = tmp_path / "shell.json"
    path.write_text(json.dumps([export_omm(r, f"SAT {r.satnum}") for r in RECORDS]))
    assert motion.build(Elements(file=str(path), altitude_km=560.0)).n_nodes == 6
    with pytest.raises(ScenarioError, match=r"motion\.altitude_km = 600\.0: must be within 30 km of 550 km"):
        motion.build(Elements(file=str(path), altitude_km=600.0))


def test_satellites_of_another_altitude_are_left_out_and_reported(tmp_path):
    path = tmp_path / "shell.json"
    strangers = [*RECORDS, record(500.0, 53.0, 0.0, 0.0, 99)]
    path.write_text(json.dumps([export_omm(r, f"SAT {r.satnum}") for r in strangers]))
    mover = motion.build(Elements(file=str(path)))
    assert mover.n_nodes == 6
    assert mover.left_out == ("SAT 99",)


def test_of_two_shells_of_equal_size_one_is_taken(tmp_path):
    path = tmp_path / "shells.json"
    shells = [record(km, 53.0, 0.0, 120.0 * n, 10 * n + int(km)) for km in (500.0, 550.0) for n in range(3)]
    path.write_text(json.dumps([export_omm(r, f"SAT {r.satnum}") for r in shells]))
    mover = motion.build(Elements(file=str(path)))
    assert sorted(mover.names) == ["SAT 550", "SAT 560", "SAT 570"]
    assert sorted(mover.left_out) == ["SAT 500", "SAT 510", "SAT 520"]


def test_satellites_of_another_inclination_are_left_out(tmp_path):
    path = tmp_path / "shell.json"
    for strangers in (3, 6):  # six are as many as the others
        polar = [record(550.0, 97.6, 0.4, 60.0 * n, 90 + n) for n in range(strangers)]
        fields = [export_omm(r, f"SAT {r.satnum}") for r in (*RECORDS, *polar)]
        path.write_text(json.dumps([one | {"MEAN_MOTION": fields[0]["MEAN_MOTION"]} for one in fields]))
        mover = motion.build(Elements(file=str(path)))
        assert mover.n_nodes == 6
        assert mover.left_out == tuple(f"SAT {r.satnum}" for r in polar)


def test_a_plane_astride_the_origin_of_nodes_is_one_plane(tmp_path):
    nodes = (359.7, 0.4, 90.0, 90.3)
    records = [record(550.0, 53.0, node, 90.0 * n, n + 1) for n, node in enumerate(nodes)]
    path = tmp_path / "shell.json"
    path.write_text(json.dumps([export_omm(r, f"SAT {r.satnum}") for r in records]))
    mover = motion.build(Elements(file=str(path)))
    plane = dict(zip(mover.names, mover.plane.tolist(), strict=True))
    assert plane["SAT 1"] == plane["SAT 2"] != plane["SAT 3"] == plane["SAT 4"]
    assert mover.index_in_plane.tolist() == [0, 1, 0, 1]


def test_iridium_flies_six_planes():
    path = shared_data("orbits/iridium_next_2026-05-07.tle")
    mover = motion.build(Elements(file=str(path), altitude_km=780.0))
    assert np.bincount(mover.plane).tolist() == [11, 11, 12, 11, 11, 11]
    assert len(mover.left_out) == 13
    assert mover.start == datetime(2026, 5, 7, 19, 26, 46, 484736, tzinfo=UTC)  # the newest epoch of the file


@pytest.mark.parametrize(
    ("mover", "kind"), [(Surface(), "drone"), (Surface(mover="ship", radius_km=50.0, speed_m_s=8.0), "ship")]
)
def test_surface_movers_stay_in_their_disc_at_their_speed(mover, kind):
    paths = motion.build(mover)
    assert paths.names[0].startswith(kind)
    times = np.arange(0, 7200.0, 1.0)
    positions = paths.positions_km(times)
    center = geodetic_to_fixed_km(mover.center_latitude_deg, mover.center_longitude_deg, mover.altitude_km)
    reach = np.linalg.norm(positions - center, axis=-1).max()
    assert reach < 1.15 * mover.radius_km  # lanes are set off sideways by up to half a radius
    speed = np.linalg.norm(np.diff(positions, axis=0), axis=-1) * 1000
    assert np.median(speed) == pytest.approx(mover.speed_m_s, rel=0.01)
    assert speed.max() < 1.01 * mover.speed_m_s


def test_presets_fly_at_their_altitude():
    for name, spec in PRESETS.items():
        radii = np.linalg.norm(motion.build(spec).positions_km([0.0, 5000.0]), axis=-1)
        np.testing.assert_allclose(radii, EARTH_RADIUS_KM + spec.altitude_km, rtol=1e-9, err_msg=name)
