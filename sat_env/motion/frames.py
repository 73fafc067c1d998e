"""Time and frames: Earth rotation, geodetic positions, elevation. Vectors are Earth-fixed, in km."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import numpy as np
import numpy.typing as npt

from sat_env.scenario import require

Floats = npt.NDArray[np.float64]

EARTH_RADIUS_KM = 6378.137  # WGS 84, equatorial
EARTH_FLATTENING = 1 / 298.257223563  # WGS 84
EARTH_MU_KM3_S2 = 398600.4418  # WGS 84
EARTH_J2 = 1.08262668e-3  # EGM 96
J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)


def parse_utc(text: str, field: str = "motion.start_utc") -> datetime:
    """Read an ISO 8601 instant; one without an offset is UTC.

    Raises
    ------
    ScenarioError
        If the text is not an instant; the message names `field`.
    """
    try:
        instant = datetime.fromisoformat(text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        require(False, field, text, "an ISO 8601 instant, such as 2026-01-01T00:00:00Z")
        raise


def days_since_j2000(start: datetime, times_s: npt.ArrayLike) -> Floats:
    """Return days (86400 s of UTC) from 2000-01-01T12:00Z to ``start + times_s``."""
    return (start - J2000).total_seconds() / 86400 + np.asarray(times_s, np.float64) / 86400


@cache
def ut1_minus_utc_s(start: datetime) -> float:
    """Return UT1 - UTC from the table that skyfield carries: 0.1 s is 46 m on the equator."""
    from skyfield.api import load

    return float(load.timescale(builtin=True).from_datetime(start).dut1)


def gmst_rad(start: datetime, times_s: npt.ArrayLike, dut1_s: float = 0.0) -> Floats:
    """Greenwich mean sidereal time, IAU 1982: the angle that takes SGP4's TEME frame to the Earth-fixed one.

    Parameters
    ----------
    start
        Instant of time 0 (UTC).
    times_s
        Seconds after `start`, shape (T,).
    dut1_s
        UT1 - UTC.

    Returns
    -------
    Angles in [0, 2 pi), shape (T,).

    References
    ----------
    Vallado, Fundamentals of Astrodynamics and Applications, 4th ed., eq. 3-47.
    """
    t = days_since_j2000(start, np.asarray(times_s, np.float64) + dut1_s) / 36525
    seconds = 67310.54841 + (876600 * 3600 + 8640184.812866) * t + 0.093104 * t**2 - 6.2e-6 * t**3
    return np.asarray(np.deg2rad(seconds / 240) % (2 * np.pi), np.float64)


def geodetic_to_fixed_km(
    latitude_deg: npt.ArrayLike, longitude_deg: npt.ArrayLike, altitude_km: npt.ArrayLike = 0.0
) -> Floats:
    """Return Earth-fixed positions (..., 3) of geodetic coordinates on the WGS 84 ellipsoid."""
    lat, lon = np.deg2rad(latitude_deg), np.deg2rad(longitude_deg)
    height = np.asarray(altitude_km, np.float64)
    squash = (1 - EARTH_FLATTENING) ** 2
    normal = EARTH_RADIUS_KM / np.sqrt(np.cos(lat) ** 2 + squash * np.sin(lat) ** 2)
    across = (normal + height) * np.cos(lat)
    return np.stack(
        np.broadcast_arrays(
            across * np.cos(lon), across * np.sin(lon), (squash * normal + height) * np.sin(lat)
        ),
        axis=-1,
    )


def up_vector(latitude_deg: npt.ArrayLike, longitude_deg: npt.ArrayLike) -> Floats:
    """Return the geodetic zenith directions (..., 3): unit vectors, Earth-fixed."""
    lat, lon = np.deg2rad(latitude_deg), np.deg2rad(longitude_deg)
    return np.stack(
        np.broadcast_arrays(np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)), axis=-1
    )


def latitude_longitude_deg(positions_km: Floats) -> tuple[Floats, Floats]:
    """Return the geodetic sub-points (WGS 84) of Earth-fixed positions (..., 3): latitudes and longitudes.

    Bowring's formula, Survey Review 23 (1976) 323: below a microdegree in LEO.
    """
    x, y, z = positions_km[..., 0], positions_km[..., 1], positions_km[..., 2]
    across, polar_km = np.hypot(x, y), EARTH_RADIUS_KM * (1 - EARTH_FLATTENING)
    squared = EARTH_FLATTENING * (2 - EARTH_FLATTENING)  # of the first eccentricity
    reduced = np.arctan2(z * EARTH_RADIUS_KM, across * polar_km)
    rise = z + squared / (1 - squared) * polar_km * np.sin(reduced) ** 3
    run = across - squared * EARTH_RADIUS_KM * np.cos(reduced) ** 3
    return np.rad2deg(np.arctan2(rise, run)), np.rad2deg(np.arctan2(y, x))


def elevation_deg(
    positions_km: Floats, latitude_deg: float, longitude_deg: float, altitude_km: float = 0.0
) -> Floats:
    """Return the elevation above the horizon of a place at which positions (..., 3) appear."""
    sight = positions_km - geodetic_to_fixed_km(latitude_deg, longitude_deg, altitude_km)
    sine = sight @ up_vector(latitude_deg, longitude_deg) / np.linalg.norm(sight, axis=-1)
    return np.asarray(np.rad2deg(np.arcsin(np.clip(sine, -1, 1))), np.float64)
