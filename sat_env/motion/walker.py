"""Walker shells on circular orbits with the secular drift of J2: one matrix product for all positions."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from sat_env.motion.frames import EARTH_J2, EARTH_MU_KM3_S2, EARTH_RADIUS_KM, Floats, gmst_rad, parse_utc
from sat_env.motion.mover import Ints, Orbits
from sat_env.scenario import Walker


def secular_rates(altitude_km: float, inclination_deg: float) -> tuple[float, float]:
    """Return the rates (rad/s) of the argument of latitude and of the ascending node of a circular orbit.

    First-order J2: Vallado, Fundamentals of Astrodynamics and Applications, 4th ed., section 9.6.
    """
    axis = EARTH_RADIUS_KM + altitude_km
    motion = np.sqrt(EARTH_MU_KM3_S2 / axis**3)
    drift = 1.5 * EARTH_J2 * (EARTH_RADIUS_KM / axis) ** 2 * motion
    cosine = np.cos(np.deg2rad(inclination_deg))
    return float(motion + drift * (4 * cosine**2 - 1)), float(-drift * cosine)


@dataclass(frozen=True)
class WalkerMover:
    """A Walker shell T:P:F in motion. Satellite ``p * per_plane + i`` is the i-th of plane p.

    A ``delta`` pattern spreads the nodes of the planes over 360 deg, a ``star`` over 180 deg. The frame in
    which the nodes are fixed at `start` is that of SGP4 (true equator, mean equinox), with UT1 = UTC.
    """

    spec: Walker
    start: datetime = field(init=False)
    plane: Ints = field(init=False)  # (N,)
    index_in_plane: Ints = field(init=False)  # (N,)
    names: tuple[str, ...] = field(init=False)
    orbits: Orbits = field(init=False)

    def __post_init__(self) -> None:
        planes, per_plane = self.spec.planes, self.spec.per_plane
        plane = np.repeat(np.arange(planes, dtype=np.int32), per_plane)
        index = np.tile(np.arange(per_plane, dtype=np.int32), planes)
        spread = 2 * np.pi if self.spec.pattern == "delta" else np.pi
        phase = 2 * np.pi * (index / per_plane + self.spec.phasing * plane / (planes * per_plane))
        inclination = np.full(planes * per_plane, np.deg2rad(self.spec.inclination_deg))
        set_once = object.__setattr__  # derived fields of a frozen dataclass
        set_once(self, "start", parse_utc(self.spec.start_utc))
        set_once(self, "plane", plane)
        set_once(self, "index_in_plane", index)
        set_once(self, "names", tuple(f"P{p:02d}-S{i:02d}" for p, i in zip(plane, index, strict=True)))
        set_once(self, "orbits", Orbits(spread * plane / planes, inclination, phase))

    @property
    def n_nodes(self) -> int:
        """Number of satellites."""
        return len(self.plane)

    def positions_km(self, times_s: npt.ArrayLike) -> Floats:
        """Return Earth-fixed positions (T, N, 3) at `times_s` (T,) seconds after the start.

        The plane turns about the Earth's axis by psi(t) and the satellite in its plane by wt, so that
        position = Rz(psi) (cos(wt) a + sin(wt) b) with constant vectors a, b: a (T x 6)(6 x 3N) product.
        """
        times = np.atleast_1d(np.asarray(times_s, np.float64))
        latitude_rate, node_rate = secular_rates(self.spec.altitude_km, self.spec.inclination_deg)
        psi = node_rate * times - gmst_rad(self.start, times)
        c, s = np.cos(latitude_rate * times), np.sin(latitude_rate * times)
        turns = np.stack([c * np.cos(psi), s * np.cos(psi), c * np.sin(psi), s * np.sin(psi), c, s], axis=1)
        return (turns @ self._vectors()).reshape(len(times), self.n_nodes, 3)

    def _vectors(self) -> Floats:
        """Return the constant factor (6, 3N): what each turn contributes to x, y, z of each satellite."""
        node, tilt, phase = self.orbits
        radius = EARTH_RADIUS_KM + self.spec.altitude_km

        def inertial(u: Floats) -> Floats:
            x, y, z = np.cos(u), np.sin(u) * np.cos(tilt), np.sin(u) * np.sin(tilt)
            turned = [np.cos(node) * x - np.sin(node) * y, np.sin(node) * x + np.cos(node) * y, z]
            return radius * np.stack(turned)

        a, b = inertial(phase), inertial(phase + np.pi / 2)
        vectors = np.zeros((6, self.n_nodes, 3))
        vectors[:4, :, 0] = a[0], b[0], -a[1], -b[1]
        vectors[:4, :, 1] = a[1], b[1], a[0], b[0]
        vectors[4:, :, 2] = a[2], b[2]
        return vectors.reshape(6, -1)
