"""Shells everybody knows, as Walker specifications.

Planes, satellites, altitude and inclination as filed by the operators; operators do not publish a Walker
phasing. Star shells get the one that sets neighbouring planes half a spacing apart, as Iridium flies.
"""

from __future__ import annotations

from sat_env.scenario import Walker, require

PRESETS: dict[str, Walker] = {
    # The set-up of arXiv 2604.04654: 12 satellites at 500 km, 53 deg; in one plane.
    "paper-12": Walker(planes=1, per_plane=12, phasing=0, altitude_km=500.0, inclination_deg=53.0),
    "iridium": Walker(
        planes=6, per_plane=11, phasing=3, altitude_km=780.0, inclination_deg=86.4, pattern="star"
    ),
    "oneweb": Walker(
        planes=12, per_plane=49, phasing=6, altitude_km=1200.0, inclination_deg=87.9, pattern="star"
    ),
    "kuiper-1": Walker(planes=34, per_plane=34, phasing=1, altitude_km=630.0, inclination_deg=51.9),
    "starlink-1": Walker(planes=72, per_plane=22, phasing=39, altitude_km=550.0, inclination_deg=53.0),
}


def preset(name: str) -> Walker:
    """Return a known shell: paper-12, iridium, oneweb, kuiper-1 or starlink-1.

    Raises
    ------
    ScenarioError
        If the name is unknown.
    """
    require(name in PRESETS, "preset", name, f"one of {', '.join(PRESETS)}")
    return PRESETS[name]
