"""The sun: its direction, and the light a node receives."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import numpy.typing as npt

from sat_env.kernels import allocating_kernel
from sat_env.motion.frames import EARTH_RADIUS_KM, Floats, days_since_j2000, gmst_rad


def sun_direction(start: datetime, times_s: npt.ArrayLike) -> Floats:
    """Return Earth-fixed unit vectors (T, 3) towards the sun at ``start + times_s``.

    The low-precision formula of The Astronomical Almanac, page C5: 0.01 deg between 1950 and 2050.
    """
    days = days_since_j2000(start, times_s)
    mean_longitude = 280.460 + 0.9856474 * days
    anomaly = np.deg2rad(357.528 + 0.9856003 * days)
    longitude = np.deg2rad(mean_longitude + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    obliquity = np.deg2rad(23.439 - 4e-7 * days)
    right_ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    sine = np.sin(obliquity) * np.sin(longitude)
    cosine = np.sqrt(1 - sine**2)
    hour = right_ascension - gmst_rad(start, times_s)
    return np.stack([cosine * np.cos(hour), cosine * np.sin(hour), sine], axis=-1)


@allocating_kernel
def clearance_km(x: float, y: float, z: float, sx: float, sy: float, sz: float) -> float:
    """Return how far a node is outside the Earth's shadow cylinder: positive in the sun, negative in eclipse.

    The cylinder has the Earth's equatorial radius and lies along the direction (sx, sy, sz) of the sun;
    a penumbra would last seconds in LEO (Montenbruck and Gill, Satellite Orbits, section 3.4).
    """
    along = x * sx + y * sy + z * sz
    across = np.sqrt(max(x * x + y * y + z * z - along * along, 0.0)) - EARTH_RADIUS_KM
    return float(max(along, across))


@allocating_kernel
def light_share(positions_km: Floats, sun: Floats, samples: int, tracking: bool) -> npt.NDArray[np.float32]:
    """Average the light on each node over each epoch.

    Parameters
    ----------
    positions_km
        Earth-fixed positions (E * samples + 1, N, 3), `samples` per epoch and the end of the last.
    sun
        Unit vectors towards the sun (E * samples + 1, 3).
    samples
        Samples per epoch; the shadow's edge is interpolated between them.
    tracking
        Whether panels follow the sun; else the panel faces the zenith and the cosine of incidence counts.

    Returns
    -------
    Share (E, N) of the panel's power at normal incidence, 0..1.
    """
    epochs, nodes = (positions_km.shape[0] - 1) // samples, positions_km.shape[1]
    share = np.empty((epochs, nodes), np.float32)
    for e in range(epochs):
        for n in range(nodes):
            total = 0.0
            for k in range(e * samples, (e + 1) * samples):
                a, b = positions_km[k, n], positions_km[k + 1, n]
                s, t = sun[k], sun[k + 1]
                first = clearance_km(a[0], a[1], a[2], s[0], s[1], s[2])
                last = clearance_km(b[0], b[1], b[2], t[0], t[1], t[2])
                lit = 1.0
                if first <= 0 and last <= 0:
                    lit = 0.0
                elif first <= 0 or last <= 0:
                    lit = max(first, last) / abs(first - last)
                if lit > 0 and not tracking:
                    begin = (a[0] * s[0] + a[1] * s[1] + a[2] * s[2]) / np.sqrt(
                        a[0] * a[0] + a[1] * a[1] + a[2] * a[2]
                    )
                    end = (b[0] * t[0] + b[1] * t[1] + b[2] * t[2]) / np.sqrt(
                        b[0] * b[0] + b[1] * b[1] + b[2] * b[2]
                    )
                    lit *= 0.5 * (max(begin, 0.0) + max(end, 0.0))
                total += lit
            share[e, n] = total / samples
    return share
