"""Search in the mesh of one epoch: breadth first, the shortest propagation among equal hops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sat_env.kernels import allocating_kernel, inner
from sat_env.network.links import LIGHT_KM_S

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

MAX_HOPS = 12  # links between satellites in one route


class Mesh(NamedTuple):
    """The links that carry data at one epoch."""

    neighbours: Ints  # (N, D) nodes, -1 padded
    neighbour_links: Ints  # (N, D) the link to each
    rate_bps: Floats  # (L,) 0: carries nothing
    positions_km: Floats  # (N, 3)
    relay_s: float  # added at every satellite that relays


class Tree(NamedTuple):
    """Shortest paths from one source, and the work space of the search that finds them."""

    hops: Ints  # (N,) -1: not reached
    latency_s: Floats  # (N,) propagation and relays on the way
    parent: Ints  # (N,)
    link: Ints  # (N,) the link from the parent
    order: Ints  # (N,) nodes as they were reached


def new_tree(n_nodes: int) -> Tree:
    """Return the empty tree."""
    return Tree(
        np.full(n_nodes, -1, np.int32),
        np.zeros(n_nodes),
        np.full(n_nodes, -1, np.int32),
        np.full(n_nodes, -1, np.int32),
        np.full(n_nodes, -1, np.int32),
    )


@allocating_kernel
def grow(tree: Tree, mesh: Mesh, source: int, barred: Bools, goal: Bools) -> int:
    """Grow a cleared tree from `source`, up to `MAX_HOPS`, to the first layer that holds a goal.

    Parameters
    ----------
    barred
        Links that must not be used, (L,).
    goal
        Nodes at which the search may end, (N,).

    Returns
    -------
    Number of nodes reached: the filled length of `tree.order`.
    """
    tree.hops[source], tree.latency_s[source] = 0, 0.0
    tree.parent[source], tree.link[source] = -1, -1
    tree.order[0] = source
    first, count, found = 0, 1, goal[source]
    for depth in range(MAX_HOPS):
        last = count
        if found or first == last:
            break
        for q in range(first, last):
            u = tree.order[q]
            for d in range(mesh.neighbours.shape[1]):
                v, link = mesh.neighbours[u, d], mesh.neighbour_links[u, d]
                if v < 0:
                    break
                if mesh.rate_bps[link] <= 0 or barred[link]:
                    continue
                if tree.hops[v] >= 0 and tree.hops[v] <= depth:
                    continue
                x = mesh.positions_km[u, 0] - mesh.positions_km[v, 0]
                y = mesh.positions_km[u, 1] - mesh.positions_km[v, 1]
                z = mesh.positions_km[u, 2] - mesh.positions_km[v, 2]
                latency = tree.latency_s[u] + np.sqrt(x * x + y * y + z * z) / LIGHT_KM_S
                if u != source:
                    latency += mesh.relay_s
                if tree.hops[v] < 0:
                    tree.hops[v] = depth + 1
                    tree.order[count] = v
                    count += 1
                elif latency >= tree.latency_s[v]:
                    continue
                tree.latency_s[v], tree.parent[v], tree.link[v] = latency, u, link
                found = found or goal[v]
        first = last
    return count


@allocating_kernel
def clear(tree: Tree, count: int) -> None:
    """Forget the `count` nodes that the last search reached."""
    for q in range(count):
        tree.hops[tree.order[q]] = -1


@inner
def links_to(tree: Tree, node: int, links: Ints) -> int:
    """Write the links of the path from the source to `node` into `links`; return how many."""
    n = int(tree.hops[node])
    for k in range(n - 1, -1, -1):
        links[k] = tree.link[node]
        node = tree.parent[node]
    return n
