"""Movers near the surface, on deterministic paths: drones circling in a disc, ships on great-circle lanes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from sat_env.motion.frames import EARTH_RADIUS_KM, Floats, geodetic_to_fixed_km, parse_utc
from sat_env.motion.mover import Ints
from sat_env.scenario import Surface

GOLDEN_ANGLE_RAD = np.pi * (3 - np.sqrt(5))
LANE_BEARING_RAD = np.deg2rad(60.0)  # ships sail to and fro on parallel lanes


@dataclass(frozen=True)
class SurfaceMover:
    """Drones on concentric circles (neighbours turn in opposite senses), or ships on parallel lanes."""

    spec: Surface
    start: datetime = field(init=False)
    plane: Ints = field(init=False)  # (N,) all 0
    index_in_plane: Ints = field(init=False)  # (N,)
    names: tuple[str, ...] = field(init=False)
    orbits: None = None

    def __post_init__(self) -> None:
        n = self.spec.movers
        set_once = object.__setattr__  # derived fields of a frozen dataclass
        set_once(self, "start", parse_utc(self.spec.start_utc))
        set_once(self, "plane", np.zeros(n, np.int32))
        set_once(self, "index_in_plane", np.arange(n, dtype=np.int32))
        set_once(self, "names", tuple(f"{self.spec.mover}-{i:02d}" for i in range(n)))

    @property
    def n_nodes(self) -> int:
        """Number of movers."""
        return self.spec.movers

    def positions_km(self, times_s: npt.ArrayLike) -> Floats:
        """Return Earth-fixed positions (T, N, 3) at `times_s` (T,) seconds after the start."""
        times = np.atleast_1d(np.asarray(times_s, np.float64))[:, None]
        path = self._circles if self.spec.mover == "drone" else self._lanes
        latitude, longitude = path(times)
        return geodetic_to_fixed_km(np.rad2deg(latitude), np.rad2deg(longitude), self.spec.altitude_km)

    def _center(self) -> tuple[float, float]:
        return float(np.deg2rad(self.spec.center_latitude_deg)), float(
            np.deg2rad(self.spec.center_longitude_deg)
        )

    def _circles(self, times: Floats) -> tuple[Floats, Floats]:
        i = np.arange(self.spec.movers)
        radius_km = self.spec.radius_km * np.sqrt((i + 0.5) / self.spec.movers)  # equal area a drone
        turn = np.where(i % 2 == 0, 1, -1) * self.spec.speed_m_s / 1000 / radius_km
        return _travel(*self._center(), i * GOLDEN_ANGLE_RAD + turn * times, radius_km)

    def _lanes(self, times: Floats) -> tuple[Floats, Floats]:
        i = np.arange(self.spec.movers)
        lane = self.spec.radius_km * ((i + 0.5) / self.spec.movers - 0.5)  # offset from the middle lane
        latitude, longitude = _travel(*self._center(), LANE_BEARING_RAD + np.pi / 2, lane)
        # A triangle wave over the lane, staggered by the golden ratio so that ships do not move abreast.
        period = 4 * self.spec.radius_km
        way = (times * self.spec.speed_m_s / 1000 + i * period / 1.618033988749895) % period
        along = np.abs(way - period / 2) - self.spec.radius_km
        return _travel(latitude, longitude, LANE_BEARING_RAD, along)


def _travel(
    latitude: npt.ArrayLike, longitude: npt.ArrayLike, bearing: npt.ArrayLike, distance_km: npt.ArrayLike
) -> tuple[Floats, Floats]:
    """Return where a great circle leads (all angles in radians; a sphere of the equatorial radius)."""
    arc = np.asarray(distance_km) / EARTH_RADIUS_KM
    sine = np.sin(latitude) * np.cos(arc) + np.cos(latitude) * np.sin(arc) * np.cos(bearing)
    east = np.arctan2(np.sin(bearing) * np.sin(arc) * np.cos(latitude), np.cos(arc) - np.sin(latitude) * sine)
    return np.arcsin(sine), np.asarray(longitude) + east
