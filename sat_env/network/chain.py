"""Which satellites are the slots of an epoch, from orbits alone.

A rule is a function ``(view, source) -> nodes``: it names satellites in the order in which they should become
slots, starting with the sensing one. The first K that can be reached are taken; should the rule name too
few, the nearest others follow. Put a function of your own into `RULES` to study another routing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain as joined
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sat_env.motion.frames import Floats, elevation_deg
from sat_env.network.paths import Mesh, grow, new_tree
from sat_env.network.topology import Topology
from sat_env.scenario import Chain

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


class View(NamedTuple):
    """What a rule sees of one epoch."""

    topology: Topology
    mesh: Mesh
    in_contact: Bools  # (N,) has a station in view
    contact_elevation_deg: Floats  # (N,) elevation of the node at its best station, -90 without contact
    reached: Ints  # (R,) nodes reachable from the source, the nearest first, the source among them


Rule = Callable[[View, int], Iterator[int]]


def line(view: View, source: int) -> Iterator[int]:
    """Name the source and its neighbours ahead in the plane."""
    yield source
    yield from _along(view.topology.ahead, source)


def ladder(view: View, source: int) -> Iterator[int]:
    """Name source, one ahead, one behind, and their partners across; then two ahead, two behind, ..."""
    across = view.topology.across
    yield source
    rails = zip(_along(view.topology.ahead, source), _along(view.topology.behind, source), strict=False)
    for rung, (front, back) in enumerate(rails):
        yield from (front, back)
        if rung == 0:
            yield int(across[source])
        yield from (int(across[front]), int(across[back]))


def exit_path(view: View, source: int) -> Iterator[int]:
    """Name the fewest satellites from the source to one in contact (the highest), then those around the exit.

    Without any contact in reach it is the line.
    """
    if not view.in_contact[view.reached].any():
        yield from line(view, source)
        return
    tree = new_tree(len(view.in_contact))
    count = grow(tree, view.mesh, source, np.zeros(len(view.mesh.rate_bps), np.bool_), view.in_contact)
    found = tree.order[:count][view.in_contact[tree.order[:count]]]
    node = exit_node = int(found[np.argmax(view.contact_elevation_deg[found])])
    path = [node]
    while node != source:
        node = int(tree.parent[node])
        path.append(node)
    yield from reversed(path)
    ahead, behind = view.topology.ahead, view.topology.behind
    for pair in zip(_along(ahead, exit_node), _along(behind, exit_node), strict=False):
        yield from pair


RULES: dict[str, Rule] = {"line": line, "ladder": ladder, "exit": exit_path}


def _along(step: Ints, node: int) -> Iterator[int]:
    """Walk a ring of the plane until it closes."""
    here = int(step[node])
    while here >= 0 and here != node:
        yield here
        here = int(step[here])


def choose_slots(rule: Rule, view: View, source: int, slots: int) -> list[int]:
    """Return the first `slots` different reachable nodes that the rule names, padded with the nearest."""
    open_to = set(view.reached.tolist())
    named = islice(rule(view, source), 4 * len(view.topology.ahead))  # one that repeats itself must end too
    wanted = (node for node in joined(named, view.reached.tolist()) if node in open_to)
    return list(islice(dict.fromkeys(wanted), slots))


def sensing_nodes(chain: Chain, positions_km: Floats) -> Ints:
    """Return the sensing satellite of every epoch of positions (E, N, 3): (E,).

    The satellite that stands highest over the current target; it is kept through the dwell for as long as
    it is above the target's horizon. Where none is above the horizon, the one closest to rising senses.
    """
    source = np.empty(len(positions_km), np.int32)
    for e in range(len(positions_km)):
        dwell = e // chain.dwell_epochs
        latitude, longitude = chain.targets[dwell % len(chain.targets)]
        elevation = elevation_deg(positions_km[e], latitude, longitude)
        keep = e % chain.dwell_epochs > 0 and elevation[source[e - 1]] > 0
        source[e] = source[e - 1] if keep else np.argmax(elevation)
    return source
