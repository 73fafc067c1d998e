"""Links between moving nodes: who sees whom, how fast, and for how long already."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sat_env.kernels import allocating_kernel
from sat_env.motion.frames import EARTH_RADIUS_KM, Floats
from sat_env.motion.sun import clearance_km

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int32]

LIGHT_KM_S = 299792.458


@allocating_kernel
def isl_rate_bps(range_km: float, cap_bps: float, reference_rate_bps: float, reference_km: float) -> float:
    """Return the rate of an optical link: min(cap, reference * (reference range / range)^2).

    Received power falls with the square of the range and a photon-limited receiver needs a fixed number of
    photons a bit (Hemmati, Deep Space Optical Communications, ch. 2).
    """
    return min(cap_bps, reference_rate_bps * (reference_km / range_km) ** 2)


def line_of_sight(positions_km: Floats, grazing_height_km: float) -> Bools:
    """Tell for all pairs of nodes (N, 3) whether the sight passes above the grazing height: (N, N).

    With s = sqrt(|r|^2 - Rg^2), the distance from a node to its tangent point on the grazing sphere, two
    nodes see each other iff r_i . r_j + s_i s_j >= Rg^2 (the angle between them is at most the sum of
    their angles to the tangent points): one (N x 4)(4 x N) product.
    """
    grazing = EARTH_RADIUS_KM + grazing_height_km
    tangent = np.sqrt(np.maximum((positions_km**2).sum(axis=1) - grazing**2, 0.0))
    extended = np.column_stack([positions_km, tangent])
    sees: Bools = extended @ extended.T >= grazing**2
    return sees


def longest_sight_km(altitude_km: float, grazing_height_km: float) -> float:
    """Return the range at which the sight between two nodes of an altitude touches the grazing height."""
    radius, grazing = EARTH_RADIUS_KM + altitude_km, EARTH_RADIUS_KM + grazing_height_km
    return float(2 * np.sqrt(radius**2 - grazing**2))


def radio_horizon_km(height_a_km: float, height_b_km: float) -> float:
    """Return how far two antennas near the surface reach: sqrt(2 k R h_a) + sqrt(2 k R h_b), k = 4/3.

    ITU-R P.834: an atmosphere of average refraction acts as an Earth of 4/3 the radius.
    """
    effective = 4 / 3 * EARTH_RADIUS_KM
    return float(np.sqrt(2 * effective * height_a_km) + np.sqrt(2 * effective * height_b_km))


@allocating_kernel
def links_in_sight(
    positions_km: Floats,
    sun: Floats,
    link_ends: Ints,
    is_cross: Bools,
    max_range_km: float,
    grazing_height_km: float,
    cross_max_latitude_deg: float,
    sun_exclusion_deg: float,
) -> Bools:
    """Tell at which epochs each candidate link between satellites can be held.

    Parameters
    ----------
    positions_km
        Earth-fixed positions (T, N, 3).
    sun
        Unit vectors towards the sun (T, 3).
    link_ends
        Satellites at the two ends of each link (L, 2).
    is_cross
        Whether the link joins two planes (L,).
    max_range_km, grazing_height_km, cross_max_latitude_deg, sun_exclusion_deg
        As in `sat_env.scenario.Links`; the latitude is geocentric. A terminal that looks within the exclusion
        of a visible sun is blind.

    Returns
    -------
    (T, L).
    """
    held = np.zeros((positions_km.shape[0], link_ends.shape[0]), np.bool_)
    grazing2 = (EARTH_RADIUS_KM + grazing_height_km) ** 2
    sine_limit = np.sin(np.deg2rad(cross_max_latitude_deg))
    sun_limit = np.cos(np.deg2rad(sun_exclusion_deg))
    for t in range(positions_km.shape[0]):
        sx, sy, sz = sun[t]
        for link in range(link_ends.shape[0]):
            ax, ay, az = positions_km[t, link_ends[link, 0]]
            bx, by, bz = positions_km[t, link_ends[link, 1]]
            dx, dy, dz = bx - ax, by - ay, bz - az
            length = np.sqrt(dx * dx + dy * dy + dz * dz)
            if length > max_range_km:
                continue
            a2, b2 = ax * ax + ay * ay + az * az, bx * bx + by * by + bz * bz
            tangents = np.sqrt(max(a2 - grazing2, 0.0) * max(b2 - grazing2, 0.0))
            if ax * bx + ay * by + az * bz + tangents < grazing2:
                continue
            polar = abs(az) > sine_limit * np.sqrt(a2) or abs(bz) > sine_limit * np.sqrt(b2)
            if is_cross[link] and polar:
                continue
            if sun_exclusion_deg > 0:
                cosine = (dx * sx + dy * sy + dz * sz) / length
                if cosine > sun_limit and clearance_km(ax, ay, az, sx, sy, sz) > 0:
                    continue
                if -cosine > sun_limit and clearance_km(bx, by, bz, sx, sy, sz) > 0:
                    continue
            held[t, link] = True
    return held


@allocating_kernel
def nearest_in_reach(positions_km: Floats, link_ends: Ints, reach_km: float, terminals: int) -> Bools:
    """Tell which pairs near the surface hold a link at each instant: (T, L), at most `terminals` a node.

    Pairs are served from the closest up: first those that join two parts of the mesh (the shortest spanning
    tree, as far as terminals go: with few of them a node may be left apart), then any two nodes that have a
    terminal left.
    """
    held = np.zeros((positions_km.shape[0], link_ends.shape[0]), np.bool_)
    for t in range(positions_km.shape[0]):
        spread = positions_km[t][link_ends[:, 0]] - positions_km[t][link_ends[:, 1]]
        length = np.sqrt((spread * spread).sum(axis=1))
        free = np.full(positions_km.shape[1], terminals)
        part = np.arange(positions_km.shape[1])
        closest_first = np.argsort(length)
        for joining in (True, False):
            for link in closest_first:
                a, b = link_ends[link]
                if length[link] > reach_km or held[t, link] or free[a] == 0 or free[b] == 0:
                    continue
                if joining and part[a] == part[b]:
                    continue
                held[t, link] = True
                free[a] -= 1
                free[b] -= 1
                part[part == part[b]] = part[a]
    return held


@allocating_kernel
def acquired(held: Bools, setup_epochs: int) -> Bools:
    """Tell which contacts carry data: those held for `setup_epochs` epochs, or since the first: (T, C)."""
    carries = np.zeros(held.shape, np.bool_)
    age = np.full(held.shape[1], setup_epochs)
    for t in range(held.shape[0]):
        for c in range(held.shape[1]):
            if not held[t, c]:
                age[c] = -1
            else:
                age[c] = min(age[c] + 1, setup_epochs)
                carries[t, c] = age[c] >= setup_epochs
    return carries


@allocating_kernel
def link_rates(
    positions_km: Floats,
    link_ends: Ints,
    carries: Bools,
    cap_bps: float,
    reference_rate_bps: float,
    reference_km: float,
) -> Floats:
    """Return the rate of every link at every epoch, 0 while it carries nothing: (T, L)."""
    rate = np.zeros(carries.shape)
    for t in range(carries.shape[0]):
        for link in range(carries.shape[1]):
            if carries[t, link]:
                ax, ay, az = positions_km[t, link_ends[link, 0]]
                bx, by, bz = positions_km[t, link_ends[link, 1]]
                dx, dy, dz = ax - bx, ay - by, az - bz
                range_km = np.sqrt(dx * dx + dy * dy + dz * dz)
                rate[t, link] = isl_rate_bps(range_km, cap_bps, reference_rate_bps, reference_km)
    return rate
