"""The ground: stations in view, the downlink's budget, and rain."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from sat_env.kernels import allocating_kernel
from sat_env.motion.frames import EARTH_RADIUS_KM, Floats, geodetic_to_fixed_km, up_vector
from sat_env.network.links import Bools, radio_horizon_km
from sat_env.scenario import Scenario, Station, Surface

# The Ka downlink: a small terminal in orbit, a 1.8 m gateway dish.
EIRP_DBW = 30.0
GATEWAY_G_T_DB_K = 25.0
CARRIER_GHZ = 20.0
BANDWIDTH_HZ = 400e6
ROLL_OFF = 1.1  # bandwidth over symbol rate
MARGIN_DB = 1.5
ZENITH_GAS_DB = 0.7  # dry air and vapour at 20 GHz, temperate climate (ITU-R P.676)
BOLTZMANN_DB = -228.6  # dBW/K/Hz

# DVB-S2, ETSI EN 302 307-1 table 13 (normal frames): required Es/N0 in dB and bit/s per symbol/s, the modes
# that no other mode beats in both.
_MODES = np.array(
    [
        (-2.35, 0.490243), (-1.24, 0.656448), (-0.30, 0.789412), (1.00, 0.988858), (2.23, 1.188304),
        (3.10, 1.322253), (4.03, 1.487473), (4.68, 1.587196), (5.18, 1.654663), (5.50, 1.779991),
        (6.62, 1.980636), (7.91, 2.228124), (8.97, 2.637201), (10.21, 2.966728), (11.03, 3.165623),
        (11.61, 3.300184), (12.73, 3.703295), (13.64, 3.951571), (14.28, 4.119540), (15.69, 4.397854),
        (16.05, 4.453027),
    ]
)  # fmt: skip

RAIN_ELEVATION_DEG = 45.0  # at which a station's rain figures hold
RAIN_BETA_PER_S = 2e-4  # reversion of the log-attenuation: 1e-4 to 1e-3 in the literature on rain fades


@allocating_kernel
def ka_rate_bps(elevation_deg: float, range_km: float, attenuation_db: float) -> float:
    """Return the rate of the Ka carrier: the best DVB-S2 mode that the link budget carries.

    C/N = EIRP + G/T - 20 log10(4 pi d f / c) - gas / sin(elevation) - rain + 228.6 - 10 log10(B).

    Parameters
    ----------
    elevation_deg
        Elevation of the satellite, above 0.
    range_km
        Slant range.
    attenuation_db
        Rain attenuation on the path (already scaled to the elevation).
    """
    path_db = 92.448 + 20 * np.log10(range_km) + 20 * np.log10(CARRIER_GHZ)
    gas_db = ZENITH_GAS_DB / np.sin(np.deg2rad(elevation_deg))
    noise_db = BOLTZMANN_DB + 10 * np.log10(BANDWIDTH_HZ)
    margin_db = EIRP_DBW + GATEWAY_G_T_DB_K - path_db - gas_db - attenuation_db - noise_db - MARGIN_DB
    efficiency = 0.0
    for k in range(_MODES.shape[0]):
        if _MODES[k, 0] <= margin_db:
            efficiency = _MODES[k, 1]
    return float(efficiency * BANDWIDTH_HZ / ROLL_OFF)


@allocating_kernel
def slant_range_km(elevation_deg: float, altitude_km: float) -> float:
    """Return the distance to a satellite of an altitude that is seen at an elevation (spherical Earth)."""
    rise = EARTH_RADIUS_KM * np.sin(np.deg2rad(elevation_deg))
    return float(np.sqrt(rise * rise + 2 * EARTH_RADIUS_KM * altitude_km + altitude_km * altitude_km) - rise)


def rain_parameters(station: Station) -> tuple[float, float]:
    """Return mean and standard deviation of the log of a station's attenuation (dB) at 45 deg elevation.

    The log-normal through the station's two ITU-R figures, exceeded 1 % and 0.1 % of the time.
    """
    z_1pct, z_01pct = NormalDist().inv_cdf(0.99), NormalDist().inv_cdf(0.999)
    sigma = (np.log(station.rain_01pct_db) - np.log(station.rain_1pct_db)) / (z_01pct - z_1pct)
    return float(np.log(station.rain_1pct_db) - z_1pct * sigma), float(sigma)


def rain_keep(step_s: float) -> float:
    """Return what one exact step of the log-attenuation's Ornstein-Uhlenbeck process keeps of where it was.

    ``x' = keep * x + sqrt(1 - keep^2) * z`` with x and z standard normal keeps x so (Maseng and Bakken, A stochastic
    dynamic model of rain attenuation, IEEE Trans. Comm. 29(5), 1981); `trace.draw_rain` takes the steps.
    """
    return float(np.exp(-RAIN_BETA_PER_S * step_s))


@allocating_kernel
def rain_at_elevation_db(attenuation_45_db: float, elevation_deg: float) -> float:
    """Scale an attenuation at 45 deg to another elevation: the path through the rain grows with csc."""
    scale = np.sin(np.deg2rad(RAIN_ELEVATION_DEG)) / np.sin(np.deg2rad(elevation_deg))
    return float(attenuation_45_db * scale)


def station_positions_km(stations: tuple[Station, ...]) -> tuple[Floats, Floats]:
    """Return the Earth-fixed positions (S, 3) and zenith directions (S, 3) of stations."""
    latitude = np.array([s.latitude_deg for s in stations], np.float64)
    longitude = np.array([s.longitude_deg for s in stations], np.float64)
    altitude = np.array([s.altitude_m for s in stations], np.float64) / 1000
    return geodetic_to_fixed_km(latitude, longitude, altitude), up_vector(latitude, longitude)


def contacts(scenario: Scenario, positions_km: Floats) -> Bools:
    """Tell which nodes each station could serve, (T, N, S).

    Satellites: those above the elevation mask. Movers near the surface: those within the radio horizon and
    `links.max_range_km` (a mask has no meaning between two places on the ground).
    """
    places, zeniths = station_positions_km(scenario.ground.stations)
    if isinstance(scenario.motion, Surface):
        heights = [station.altitude_m / 1000 for station in scenario.ground.stations]
        reach = [
            min(radio_horizon_km(scenario.motion.altitude_km, max(height, 0.0)), scenario.links.max_range_km)
            for height in heights
        ]
        return np.asarray(_within(positions_km, places, np.array(reach)))
    return np.asarray(_above_mask(positions_km, places, zeniths, scenario.ground.elevation_mask_deg))


@allocating_kernel
def _within(positions_km: Floats, places: Floats, reach_km: Floats) -> Bools:
    seen = np.zeros((positions_km.shape[0], positions_km.shape[1], places.shape[0]), np.bool_)
    for t in range(positions_km.shape[0]):
        for n in range(positions_km.shape[1]):
            for s in range(places.shape[0]):
                sight = positions_km[t, n] - places[s]
                seen[t, n, s] = np.sqrt((sight * sight).sum()) <= reach_km[s]
    return seen


@allocating_kernel
def _above_mask(positions_km: Floats, places: Floats, zeniths: Floats, mask_deg: float) -> Bools:
    seen = np.zeros((positions_km.shape[0], positions_km.shape[1], places.shape[0]), np.bool_)
    sine = np.sin(np.deg2rad(mask_deg))
    for t in range(positions_km.shape[0]):
        for n in range(positions_km.shape[1]):
            px, py, pz = positions_km[t, n]
            for s in range(places.shape[0]):
                x, y, z = px - places[s, 0], py - places[s, 1], pz - places[s, 2]
                rise = x * zeniths[s, 0] + y * zeniths[s, 1] + z * zeniths[s, 2]
                if rise >= 0:
                    seen[t, n, s] = rise * rise >= sine * sine * (x * x + y * y + z * z)
    return seen


@allocating_kernel
def look_angles(position_km: npt.NDArray[np.float64], place: Floats, zenith: Floats) -> tuple[float, float]:
    """Return the elevation (deg) and the slant range (km) of a position seen from a place."""
    x, y, z = position_km[0] - place[0], position_km[1] - place[1], position_km[2] - place[2]
    length = np.sqrt(x * x + y * y + z * z)
    rise = (x * zenith[0] + y * zenith[1] + z * zenith[2]) / length
    return np.rad2deg(np.arcsin(min(max(rise, -1.0), 1.0))), length
