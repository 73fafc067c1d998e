"""Who may hold a link with whom: the terminals of every node, fixed for a scenario.

A terminal points fore or aft in the plane, or to a neighbouring plane. Between two planes, satellites pair
off one to one so that the sum of squared offsets is least, where the offset is the difference of
u + node * cos(inclination): u is the argument of latitude, and the second part is the offset at which two
satellites in neighbouring planes fly closest on average. Planes that meet head-on (orbit normals more than
90 deg apart: the seam of a star shell) are no neighbours.

* ``terminals = 2``: fore and aft.
* ``terminals = 3``: fore, aft and one plane across: plane 0 with 1, 2 with 3, ...: satellites of even planes
  link to the next plane, those of odd planes to the previous one.
* ``terminals = 4``: fore, aft and both neighbouring planes (+Grid). Real planes are not equally full: a
  terminal left over looks for another left over, within reach, in a plane further on.

Movers near the surface have no planes: every pair is a candidate, and at each epoch the nearest pairs
hold a link.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from sat_env.motion import Mover
from sat_env.motion.frames import EARTH_RADIUS_KM
from sat_env.motion.mover import Floats, Orbits
from sat_env.scenario import Links

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Topology:
    """The candidate links of N nodes; -1 where there is none."""

    link_ends: Ints  # (L, 2) nodes
    is_cross: Bools  # (L,) joins two planes
    neighbours: Ints  # (N, D) nodes
    neighbour_links: Ints  # (N, D) the link to each neighbour
    ahead: Ints  # (N,) next node along the plane, in the direction of flight
    behind: Ints  # (N,)
    across: Ints  # (N,) partner in the next plane, or the previous one where that is the only one

    @property
    def n_links(self) -> int:
        """Number of candidate links, L."""
        return len(self.link_ends)


def build_topology(mover: Mover, links: Links) -> Topology:
    """Find the candidate links of a mover's nodes."""
    if mover.orbits is None:
        pairs = np.stack(np.triu_indices(mover.n_nodes, 1), axis=1).astype(np.int32)
        none = np.full(mover.n_nodes, -1, np.int32)
        return Topology(
            pairs, np.zeros(len(pairs), np.bool_), *_adjacency(mover.n_nodes, pairs), none, none, none
        )
    ahead, behind = _along_planes(mover)
    n = np.arange(mover.n_nodes, dtype=np.int32)
    in_plane = np.stack([n, ahead], axis=1)[(ahead >= 0) & ((n < ahead) | (behind != ahead))]
    east, west = _across_planes(mover, links.terminals, _reach_rad(mover, links))
    cross = np.stack([n, east], axis=1)[east >= 0]
    ends = np.concatenate([in_plane, cross]).astype(np.int32)
    is_cross = np.arange(len(ends)) >= len(in_plane)
    across = np.where(east >= 0, east, west)
    return Topology(ends, is_cross, *_adjacency(mover.n_nodes, ends), ahead, behind, across)


def _reach_rad(mover: Mover, links: Links) -> float:
    """Return the angle at the Earth's centre between two nodes at the end of their reach."""
    radius = float(np.linalg.norm(mover.positions_km(np.zeros(1))[0], axis=1).mean())
    sight = np.arccos(min((EARTH_RADIUS_KM + links.grazing_height_km) / radius, 1.0))
    return 2 * float(min(sight, np.arcsin(min(links.max_range_km / (2 * radius), 1.0))))


def _along_planes(mover: Mover) -> tuple[Ints, Ints]:
    """Return the node ahead and behind in the ring of each plane, -1 in a plane of one."""
    ahead, behind = np.full(mover.n_nodes, -1, np.int32), np.full(mover.n_nodes, -1, np.int32)
    for plane in range(mover.plane.max() + 1):
        ring = np.flatnonzero(mover.plane == plane)
        if len(ring) > 1:
            ahead[ring], behind[ring] = np.roll(ring, -1), np.roll(ring, 1)
    return ahead, behind


def _across_planes(mover: Mover, terminals: int, reach_rad: float) -> tuple[Ints, Ints]:
    """Return the partner of each node eastward and westward, -1 where there is none."""
    east, west = np.full(mover.n_nodes, -1, np.int32), np.full(mover.n_nodes, -1, np.int32)
    planes = int(mover.plane.max()) + 1
    if terminals == 2 or planes == 1:
        return east, west
    if terminals == 3 or planes == 2:
        for plane in range(0, planes - 1, 2):
            _pair_off(mover, plane, plane + 1, np.inf, east, west)
        return east, west
    for apart in range(1, (planes - 1) // 2 + 1):
        for plane in range(planes):
            _pair_off(mover, plane, (plane + apart) % planes, reach_rad, east, west)
    for plane in range(planes):  # what is never in reach for a whole orbit may be so for a part
        _pair_off(mover, plane, (plane + 1) % planes, np.inf, east, west)
    return east, west


def _pair_off(mover: Mover, plane: int, next_plane: int, reach_rad: float, east: Ints, west: Ints) -> None:
    """Join the free terminals eastward of a plane with the free ones westward of another, in place."""
    here = np.flatnonzero((mover.plane == plane) & (east < 0))
    there = np.flatnonzero((mover.plane == next_plane) & (west < 0))
    assert mover.orbits is not None
    if len(here) == 0 or len(there) == 0 or _head_on(mover.orbits, here, there):
        return
    nodes, offsets = _offsets(mover.orbits, here, there)
    widest = np.hypot(offsets, nodes * np.sin(mover.orbits.inclination_rad[here])[:, None])  # at the equator
    cost = np.where(widest <= reach_rad, offsets**2, 1e6)
    for a, b in zip(*linear_sum_assignment(cost), strict=True):
        if widest[a, b] <= reach_rad:
            east[here[a]], west[there[b]] = there[b], here[a]


def _head_on(orbits: Orbits, here: npt.NDArray[np.intp], there: npt.NDArray[np.intp]) -> bool:
    """Tell whether two planes are flown in opposite directions where they are neighbours."""
    node, tilt = orbits.node_rad, orbits.inclination_rad
    normals = np.stack([np.sin(node) * np.sin(tilt), -np.cos(node) * np.sin(tilt), np.cos(tilt)], axis=1)
    return bool(normals[here].mean(axis=0) @ normals[there].mean(axis=0) < 0)


def _offsets(
    orbits: Orbits, here: npt.NDArray[np.intp], there: npt.NDArray[np.intp]
) -> tuple[Floats, Floats]:
    """Return how far each node of a plane lies from each of the next, in node and in offset: (A, B) rad."""
    nodes = _wrapped(orbits.node_rad[there][None, :] - orbits.node_rad[here][:, None])
    phases = orbits.phase_rad[there][None, :] - orbits.phase_rad[here][:, None]
    # A hair to one side: two offsets of exactly half a spacing must not be told apart by rounding.
    return nodes, _wrapped(phases + nodes * np.cos(orbits.inclination_rad[here])[:, None] + 1e-6)


def _wrapped(angle: Floats) -> Floats:
    """Return an angle in [-pi, pi)."""
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi, np.float64)


def _adjacency(n_nodes: int, link_ends: Ints) -> tuple[Ints, Ints]:
    """Return the neighbours of each node and the links to them, (N, D), padded with -1."""
    links = np.arange(len(link_ends), dtype=np.int32)
    source = np.concatenate([link_ends[:, 0], link_ends[:, 1]])
    target = np.concatenate([link_ends[:, 1], link_ends[:, 0]])
    order = np.argsort(source, kind="stable")
    degree = np.bincount(source, minlength=n_nodes)
    column = np.arange(len(order)) - np.repeat(np.cumsum(degree) - degree, degree)
    neighbours = np.full((n_nodes, max(int(degree.max(initial=0)), 1)), -1, np.int32)
    neighbour_links = neighbours.copy()
    neighbours[source[order], column] = target[order]
    neighbour_links[source[order], column] = np.concatenate([links, links])[order]
    return neighbours, neighbour_links
