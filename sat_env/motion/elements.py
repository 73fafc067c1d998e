"""Real satellites: OMM or TLE files, propagated by SGP4 and turned to Earth-fixed positions."""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sgp4 import omm
from sgp4.api import SGP4_ERRORS, Satrec, SatrecArray

from sat_env.motion.frames import EARTH_RADIUS_KM, Floats, gmst_rad, parse_utc, ut1_minus_utc_s
from sat_env.motion.mover import Ints, Orbits
from sat_env.scenario import Elements, ScenarioError, require

SAME_SHELL_REV_DAY = 0.01  # a satellite that drifts 3.6 deg a day against the others is not on station
SAME_SHELL_DEG = 0.5  # of inclination: shells of one altitude differ by more
SAME_PLANE_DEG = 1.5  # largest gap of ascending nodes within a plane: real planes scatter by < 0.8 deg
STALE_DAYS = 14.0  # satellites leave their elements by 1 to 3 km a day (documentation of the sgp4 package)
CHUNK_EPOCHS = 256  # bounds the memory of SGP4's outputs
ORBIT_FIELDS = (
    "MEAN_MOTION", "ECCENTRICITY", "INCLINATION", "RA_OF_ASC_NODE", "ARG_OF_PERICENTER", "MEAN_ANOMALY", "BSTAR",
)  # fmt: skip
SATNUM_MAX = 339999  # what SGP4's record holds; the number plays no part in propagation


@dataclass(frozen=True)
class ElementsMover:
    """The satellites of an element file that fly in one shell, ordered by plane and argument of latitude.

    Satellites whose mean motion is more than `SAME_SHELL_REV_DAY` from the median (spares, raising or decaying ones),
    or whose inclination is more than `SAME_SHELL_DEG` from the median of the rest, are left out; `left_out` names
    them. Planes are runs of ascending nodes without a gap above `SAME_PLANE_DEG`.
    """

    start: datetime
    names: tuple[str, ...]
    left_out: tuple[str, ...]
    plane: Ints  # (N,)
    index_in_plane: Ints  # (N,)
    orbits: Orbits
    _records: SatrecArray = field(repr=False)

    @classmethod
    def from_file(cls, spec: Elements) -> ElementsMover:
        """Read the file named by `spec`; warn if elements are older or newer than the start by `STALE_DAYS`.

        Raises
        ------
        ScenarioError
            File missing, unreadable or empty; a TLE checksum that does not hold; an altitude that the mean
            motion contradicts; SGP4 unable to propagate a satellite to the start.
        """
        named = read_elements(Path(spec.file))
        require(len(named) > 0, "motion.file", spec.file, "a file with at least one satellite")
        motion = np.array([record.no_kozai for _, record in named]) * 1440 / (2 * np.pi)  # rev/day
        inclination = np.rad2deg([record.inclo for _, record in named])
        kept = np.abs(motion - _middle(motion)) <= SAME_SHELL_REV_DAY
        kept &= np.abs(inclination - _middle(inclination[kept])) <= SAME_SHELL_DEG
        records = [record for (_, record), keep in zip(named, kept, strict=True) if keep]
        if spec.altitude_km is not None:
            flown_km = float(np.median([r.a * r.radiusearthkm for r in records])) - EARTH_RADIUS_KM
            require(
                abs(flown_km - spec.altitude_km) <= spec.altitude_tolerance_km,
                "motion.altitude_km",
                spec.altitude_km,
                f"within {spec.altitude_tolerance_km:g} km of {flown_km:.0f} km, the altitude of "
                f"{np.median(motion):.2f} rev/day in {spec.file}",
            )
        start = parse_utc(spec.start_utc) if spec.start_utc else max(_epoch(record) for record in records)
        names = [name for (name, _), keep in zip(named, kept, strict=True) if keep]
        _warn_of_stale(start, names, records, spec.file)
        orbits = _orbits_at(start, records, names)
        plane = _planes(orbits.node_rad)
        order = np.lexsort((orbits.phase_rad, plane))
        counts = np.bincount(plane)
        return cls(
            start=start,
            names=tuple(names[i] for i in order),
            left_out=tuple(name for (name, _), keep in zip(named, kept, strict=True) if not keep),
            plane=plane[order],
            index_in_plane=np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
            orbits=Orbits(*(angles[order] for angles in orbits)),
            _records=SatrecArray([records[i] for i in order]),
        )

    @property
    def n_nodes(self) -> int:
        """Number of satellites."""
        return len(self.names)

    def positions_km(self, times_s: npt.ArrayLike) -> Floats:
        """Return Earth-fixed positions (T, N, 3) at `times_s` (T,) seconds after the start.

        Raises
        ------
        ScenarioError
            If SGP4 reports an error, with the satellite and the time.
        """
        times = np.atleast_1d(np.asarray(times_s, np.float64))
        angle = gmst_rad(self.start, times, ut1_minus_utc_s(self.start))
        fixed = np.empty((len(times), self.n_nodes, 3))
        for first in range(0, len(times), CHUNK_EPOCHS):
            part = slice(first, first + CHUNK_EPOCHS)
            teme, _ = _propagate(self._records, self.names, self.start, times[part])
            c, s = np.cos(angle[part]), np.sin(angle[part])
            fixed[part, :, 0] = (c * teme[..., 0] + s * teme[..., 1]).T
            fixed[part, :, 1] = (c * teme[..., 1] - s * teme[..., 0]).T
            fixed[part, :, 2] = teme[..., 2].T
        return fixed


def read_elements(path: Path) -> list[tuple[str, Satrec]]:
    """Read the names and SGP4 records of a file: OMM as CSV, JSON or XML by its suffix, else TLE.

    Raises
    ------
    ScenarioError
        One line: the file, the record or line, and what is wrong with it; or a satellite that it holds twice.
    """
    require(path.is_file(), "motion.file", str(path), "an existing OMM (.csv, .json, .xml) or TLE file")
    try:
        text = path.read_text(encoding="utf-8-sig")  # some tools write a byte order mark
    except UnicodeDecodeError:
        raise ScenarioError(f"motion.file = {str(path)!r}: must be text") from None
    if path.suffix.lower() not in (".csv", ".json", ".xml"):
        found = list(_read_tle(path, text))
    else:
        found = [_from_omm(path, number, fields) for number, fields in enumerate(_omm_fields(path, text), 1)]
    first: dict[str, str] = {}
    for catalogue, name, _ in found:
        if catalogue in first:
            raise ScenarioError(
                f"motion.file = {str(path)!r}: must hold each satellite once, and has catalogue number {catalogue} "
                f"twice ({first[catalogue]}, {name})"
            )
        first[catalogue] = name
    return [(name, record) for _, name, record in found]


def _omm_fields(path: Path, text: str) -> Iterable[dict[str, Any]]:
    try:
        if path.suffix.lower() == ".json":
            records = json.loads(text)
            if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
                raise ValueError("it holds no list of objects")
            return records
        file = io.StringIO(text)
        return list(omm.parse_csv(file) if path.suffix.lower() == ".csv" else omm.parse_xml(file))
    except (ValueError, SyntaxError, AttributeError, TypeError) as error:
        raise ScenarioError(f"motion.file = {str(path)!r}: must be a readable OMM file ({error})") from None


def _from_omm(path: Path, number: int, fields: dict[str, Any]) -> tuple[str, str, Satrec]:
    """Return catalogue number, name and record."""
    record = Satrec()
    try:
        name = str(fields.get("OBJECT_NAME") or fields["NORAD_CAT_ID"])
        catalogue = int(fields["NORAD_CAT_ID"])
        epoch = str(fields["EPOCH"])
        plain = {
            **fields,
            "EPOCH": epoch.rstrip("Z") if "." in epoch else f"{epoch.rstrip('Z')}.0",
            "NORAD_CAT_ID": catalogue if catalogue <= SATNUM_MAX else 0,
        }
        omm.initialize(record, plain)
        for field in ORBIT_FIELDS:
            if not math.isfinite(float(fields[field])):
                raise ValueError(f"{field} = {fields[field]!r}: must be a finite number")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ScenarioError(f"{path}, record {number}: not a valid OMM: {what}") from None
    return str(catalogue), name, _initialised(record, f"{path}, record {number}")


def _read_tle(path: Path, text: str) -> Iterator[tuple[str, str, Satrec]]:
    """Yield catalogue number, name and record."""
    lines = [(number, line.rstrip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    name, first = "", ""
    for number, line in lines:
        if line.startswith("1 ") and len(line) >= 69 and not first:
            _check_tle_line(path, number, line)
            first = line
        elif line.startswith("2 ") and len(line) >= 69:
            _check_tle_line(path, number, line)
            if first[2:7] != line[2:7]:
                raise ScenarioError(
                    f"{path}, line {number}: satellite {line[2:7]!r} does not continue {first[2:7]!r}"
                )
            record = _initialised(Satrec.twoline2rv(first, line), f"{path}, line {number}")
            yield line[2:7].strip(), name or line[2:7].strip(), record
            name, first = "", ""
        elif first or name:
            raise ScenarioError(
                f"{path}, line {number}: expected line {'2' if first else '1'} of a TLE, of 69 characters, "
                f"found {line!r}"
            )
        else:
            name = line.removeprefix("0 ").strip()
    if first or name:
        raise ScenarioError(f"{path}, line {lines[-1][0]}: the file ends inside a TLE")


def _check_tle_line(path: Path, number: int, line: str) -> None:
    """Refuse a TLE line without an epoch, or whose last digit is not the sum of its digits (- is 1) modulo 10."""
    found = line[68]
    expected = sum(int(c) if c.isdigit() else c == "-" for c in line[:68]) % 10
    if str(expected) != found:
        raise ScenarioError(f"{path}, line {number}: TLE checksum expected {expected}, found {found}")
    if line[0] == "1" and not re.fullmatch(r"\d{2}[ \d]\d{2}\.\d+", line[18:32].rstrip()):
        raise ScenarioError(
            f"{path}, line {number}: epoch of a TLE expected as YYDDD.FFFFFFFF, found {line[18:32]!r}"
        )


def _initialised(record: Satrec, where: str) -> Satrec:
    if record.error:
        raise ScenarioError(f"{where}: SGP4 refuses the elements: {SGP4_ERRORS[record.error]}")
    return record


def _epoch(record: Satrec) -> datetime:
    days = (record.jdsatepoch - 2451544.5) + record.jdsatepochF  # since 2000-01-01T00:00Z
    return datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=round(days * 86400e6))


def _middle(values: Floats) -> float:
    """Return the median, of an even number the lower of the two: between two shells of equal size there is nothing."""
    return float(np.sort(values)[(len(values) - 1) // 2])


def _warn_of_stale(start: datetime, names: list[str], records: list[Satrec], file: str) -> None:
    days = np.array([abs((_epoch(record) - start).total_seconds()) / 86400 for record in records])
    if (stale := days > STALE_DAYS).any():
        worst = int(days.argmax())
        warnings.warn(
            f"motion.start_utc is {start:%Y-%m-%d %H:%M:%S} UTC, more than {STALE_DAYS:g} days from the elements of "
            f"{int(stale.sum())} of {len(names)} satellites in {file} ({names[worst]}: {days[worst]:.0f} days); "
            "positions drift from the true ones by 1 to 3 km a day",
            stacklevel=3,
        )


def _propagate(
    records: SatrecArray, names: Iterable[str], start: datetime, times_s: Floats
) -> tuple[Floats, Floats]:
    """Return TEME positions (N, T, 3) in km and velocities (N, T, 3) in km/s."""
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    day = (midnight - datetime(2000, 1, 1, tzinfo=UTC)).days + 2451544.5
    fraction = ((start - midnight).total_seconds() + times_s) / 86400
    error, position, velocity = records.sgp4(np.full(len(times_s), day), fraction)
    if error.any():
        n, t = np.argwhere(error)[0]
        raise ScenarioError(
            f"motion.file: SGP4 cannot carry {list(names)[n]} to {times_s[t]:.0f} s after "
            f"{start.isoformat()}: {SGP4_ERRORS[int(error[n, t])]}"
        )
    return position, velocity


def _orbits_at(start: datetime, records: list[Satrec], names: list[str]) -> Orbits:
    """Read node, inclination and argument of latitude off the states at `start`."""
    position, velocity = _propagate(SatrecArray(records), names, start, np.zeros(1))
    r, v = position[:, 0], velocity[:, 0]
    normal = np.cross(r, v)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    # On the equator both arguments are 0: without signs, which would throw nodes to 0 or 180 deg at random.
    node = np.arctan2(normal[:, 0] + 0.0, 0.0 - normal[:, 1]) % (2 * np.pi)
    inclination = np.arccos(normal[:, 2])
    toward = np.stack([np.cos(node), np.sin(node), np.zeros_like(node)], axis=1)
    along = (r * toward).sum(axis=1)
    across = (r * np.cross(normal, toward)).sum(axis=1)
    return Orbits(node, inclination, np.arctan2(across, along) % (2 * np.pi))


def _planes(node_rad: Floats) -> Ints:
    """Return the plane of each node, numbered eastward: runs of ascending nodes without a wide gap."""
    order = np.argsort(node_rad)
    gaps = np.diff(node_rad[order], append=node_rad[order[0]] + 2 * np.pi)  # after each, the last wraps
    opens = np.roll(gaps > np.deg2rad(SAME_PLANE_DEG), 1)  # a plane opens after a wide gap
    number = np.cumsum(opens) - 1
    number[number < 0] = max(opens.sum() - 1, 0)  # a plane astride node 0 belongs to the last
    plane = np.empty(len(node_rad), np.int32)
    plane[order] = number
    return plane
