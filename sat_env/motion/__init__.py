"""Motion: where every node is, Earth-fixed. One small interface, `Mover`; three kinds behind it."""

from __future__ import annotations

from sat_env.motion.elements import ElementsMover
from sat_env.motion.mover import Mover, Orbits
from sat_env.motion.sun import sun_direction
from sat_env.motion.surface import SurfaceMover
from sat_env.motion.walker import WalkerMover
from sat_env.scenario import Elements, Motion, Walker

__all__ = ["ElementsMover", "Mover", "Orbits", "SurfaceMover", "WalkerMover", "build", "sun_direction"]


def build(spec: Motion) -> Mover:
    """Set the nodes of a scenario's motion going.

    Raises
    ------
    ScenarioError
        Unreadable start time or element file, or elements that contradict the stated altitude.
    """
    if isinstance(spec, Walker):
        return WalkerMover(spec)
    if isinstance(spec, Elements):
        return ElementsMover.from_file(spec)
    return SurfaceMover(spec)
