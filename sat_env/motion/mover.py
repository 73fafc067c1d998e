"""What every kind of motion offers the rest of the world."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


class Orbits(NamedTuple):
    """The orbits at the start: what a topology needs to tell neighbours from strangers."""

    node_rad: Floats  # (N,) right ascension of the ascending node
    inclination_rad: Floats  # (N,)
    phase_rad: Floats  # (N,) argument of latitude: angle from the ascending node along the orbit


class Mover(Protocol):
    """A set of N moving nodes, ordered by plane and by index in the plane."""

    @property
    def n_nodes(self) -> int:
        """Number of nodes, N."""

    @property
    def start(self) -> datetime:
        """Instant of time 0, UTC."""

    @property
    def plane(self) -> Ints:
        """Orbital plane (or group) of each node, (N,)."""

    @property
    def index_in_plane(self) -> Ints:
        """Order of each node in its plane, (N,)."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each node."""

    @property
    def orbits(self) -> Orbits | None:
        """The orbits at the start; None for movers that do not orbit."""

    def positions_km(self, times_s: npt.ArrayLike) -> Floats:
        """Return Earth-fixed positions (T, N, 3) at seconds (T,) after the start."""
