"""The network at an epoch, for human eyes: a map and a few lines of text."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any, Literal

import networkx as nx
import numpy as np
import numpy.typing as npt

from sat_env.motion.frames import Floats, up_vector
from sat_env.motion.sun import sun_direction
from sat_env.network.graph import epoch_graph
from sat_env.network.routes import PRIMARY, ContactPlan

DPI = 100
COLOURS = {  # Okabe and Ito: told apart by colour-blind readers
    "up": "#9aa5b1",
    "acquiring": "#e69f00",
    "failed": "#d55e00",
    "downlink": "#56b4e9",
    "chain": "#009e73",
    "sunlit": "#f0e442",
    "eclipsed": "#33415c",
    "station": "#cc79a7",
    "ink": "#1b2430",
}
STROKES: dict[str, tuple[float, Literal["solid", "dotted", "dashed"]]] = {  # width in points, dashes
    "up": (0.7, "solid"),
    "acquiring": (1.2, "dotted"),
    "failed": (1.8, "dashed"),
    "downlink": (0.9, "solid"),
    "chain": (2.5, "solid"),
}


def draw(
    plan: ContactPlan,
    epoch: int,
    charge: npt.ArrayLike | None = None,
    failed: Collection[int] = (),
    width_px: int = 1200,
    height_px: int = 640,
) -> npt.NDArray[np.uint8]:
    """Draw the network at an epoch on a map in longitude and latitude. Needs matplotlib.

    Satellites in the sun are bright, in eclipse dark; the chain is numbered from the sensing slot and its primary
    routes are drawn thick; links being acquired are dotted, failed ones dashed. The Earth's night is shaded.

    Parameters
    ----------
    plan
        The scenario's contact plan.
    epoch
        0..E-1.
    charge
        State of charge of each satellite (N,), 0..1: written beside each slot.
    failed
        Links (indices into ``plan.link_ends``) that are down for other reasons than the orbits.
    width_px, height_px
        Size of the image.

    Returns
    -------
    RGB image (height_px, width_px, 3).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    graph = epoch_graph(plan, epoch, failed)
    figure = Figure(figsize=(width_px / DPI, height_px / DPI), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_earth(axes, plan, epoch, graph)
    _draw_links(axes, graph, failed)
    _draw_chain(axes, plan, epoch, graph, charge)
    _draw_nodes(axes, graph, plan.n_nodes)
    now = plan.start_utc + timedelta(seconds=float(plan.time_s[epoch]))
    axes.set_title(
        f"{plan.scenario.name}   epoch {epoch}   {now:%Y-%m-%d %H:%M:%S} UTC", color=COLOURS["ink"]
    )
    canvas.draw()  # type: ignore[no-untyped-call]
    image = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(image[..., :3])


def describe(plan: ContactPlan, epoch: int) -> str:
    """Return the network at an epoch as text: a line for each slot, and its way to the next and to the ground."""
    graph = epoch_graph(plan, epoch)
    now = plan.start_utc + timedelta(seconds=float(plan.time_s[epoch]))
    slots = plan.chain.shape[1]
    held = [data for _, _, data in graph.edges(data=True) if not data["downlink"]]
    lines = [
        f"{plan.scenario.name}  epoch {epoch}  {now:%Y-%m-%d %H:%M:%S} UTC  "
        f"{sum(data['up'] for data in held)} of {len(held)} links in sight up"
    ]
    for i, node in enumerate(plan.chain[epoch]):
        place = graph.nodes[int(node)]
        to_next = f"  next {_way(plan, epoch, i, i + 1)}" if i + 1 < slots else ""
        lines.append(
            f"slot {i + 1}  {place['name']:<14} {place['latitude_deg']:6.1f} {place['longitude_deg']:7.1f}  "
            f"{'sun' if place['sunlit'] else 'eclipse':<7}{to_next}  ground {_way(plan, epoch, i, slots)}"
        )
    return "\n".join(lines)


def _way(plan: ContactPlan, epoch: int, i: int, j: int) -> str:
    where = (epoch, PRIMARY, i, j)
    hops = int((plan.route_links[where] >= 0).sum())
    if hops == 0:
        return "none"
    station = int(plan.route_station[where])
    name = (
        f" {plan.station_names[station]} at {plan.route_elevation_deg[where]:.0f} deg" if station >= 0 else ""
    )
    rate = plan.route_rate_bps[epoch, 0, PRIMARY, i, j] / 1e6
    return f"{rate:.0f} Mbit/s {plan.route_latency_s[where] * 1e3:.1f} ms {hops} hop{'s' * (hops > 1)}{name}"


def _draw_earth(axes: Any, plan: ContactPlan, epoch: int, graph: nx.Graph) -> None:
    """Set limits and graticule, and shade the night."""
    places = np.array(
        [(d["longitude_deg"], d["latitude_deg"]) for _, d in graph.nodes(data=True) if "latitude_deg" in d]
    )
    low, high = places.min(axis=0), places.max(axis=0)
    if (high - low).max() < 20:  # drones or ships: look closer
        middle, reach = (low + high) / 2, (high - low).max() * 0.6
        extent = (middle[0] - 2 * reach, middle[0] + 2 * reach, middle[1] - reach, middle[1] + reach)
    else:
        extent = (-180.0, 180.0, -90.0, 90.0)
        axes.set_xticks(range(-180, 181, 30))
        axes.set_yticks(range(-90, 91, 30))
    longitude = np.linspace(extent[0], extent[1], 721)
    latitude = np.linspace(extent[2], extent[3], 361)
    sun = sun_direction(plan.start_utc, plan.time_s[epoch : epoch + 1])[0]
    height = up_vector(latitude[:, None], longitude[None, :]) @ sun
    axes.imshow(
        height < 0, extent=extent, origin="lower", cmap="Blues", alpha=0.25, vmin=0, vmax=1, aspect="auto"
    )
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])
    axes.grid(color="#d9dee5", linewidth=0.5)
    axes.set_xlabel("longitude, degrees")
    axes.set_ylabel("latitude, degrees")


def _draw_links(axes: Any, graph: nx.Graph, failed: Collection[int]) -> None:
    from matplotlib.collections import LineCollection

    lines: dict[str, list[Floats]] = {kind: [] for kind in STROKES}
    for a, b, data in graph.edges(data=True):
        if "latitude_deg" not in graph.nodes[a] or "latitude_deg" not in graph.nodes[b]:
            continue  # the ideal ground station is everywhere
        up = "downlink" if data["downlink"] else "up"
        kind = "failed" if data["link"] in failed else up if data["up"] else "acquiring"
        lines[kind] += great_circle(graph.nodes[a], graph.nodes[b])
    for kind, (width, dashes) in STROKES.items():
        style = {"colors": COLOURS[kind], "linewidths": width, "linestyles": dashes}
        axes.add_collection(LineCollection(lines[kind], zorder=3.5 if kind == "failed" else 2, **style))


def _draw_chain(
    axes: Any, plan: ContactPlan, epoch: int, graph: nx.Graph, charge: npt.ArrayLike | None
) -> None:
    """Draw the primary routes between consecutive slots, the slots' numbers and batteries."""
    from matplotlib.collections import LineCollection

    slots = plan.chain.shape[1]
    arcs: list[Floats] = []
    for i in range(slots - 1):
        links = plan.route_links[epoch, PRIMARY, i, i + 1]
        for link in links[links >= 0]:
            a, b = plan.link_ends[link].tolist()
            arcs += great_circle(graph.nodes[a], graph.nodes[b])
    axes.add_collection(
        LineCollection(arcs, colors=COLOURS["chain"], linewidths=STROKES["chain"][0], zorder=3)
    )
    for i, node in enumerate(plan.chain[epoch].tolist()):
        place = graph.nodes[node]
        battery = "" if charge is None else f"  {float(np.asarray(charge)[node]):.0%}"
        axes.annotate(
            f"{i + 1}{battery}",
            (place["longitude_deg"], place["latitude_deg"]),
            xytext=(6, 6),
            textcoords="offset points",
            fontsize=9,
            fontweight="bold",
            color=COLOURS["ink"],
            zorder=6,
            annotation_clip=True,
        )


def _draw_nodes(axes: Any, graph: nx.Graph, n_nodes: int) -> None:
    """Draw satellites, larger in the chain, and stations with their names."""
    size = 26.0 if n_nodes <= 200 else 5.0
    nodes = [d for n, d in graph.nodes(data=True) if n < n_nodes]
    axes.scatter(
        [d["longitude_deg"] for d in nodes],
        [d["latitude_deg"] for d in nodes],
        s=[80.0 if d["slot"] >= 0 else size for d in nodes],
        c=[COLOURS["sunlit" if d["sunlit"] else "eclipsed"] for d in nodes],
        edgecolors=[COLOURS["chain" if d["slot"] >= 0 else "ink"] for d in nodes],
        linewidths=[2.0 if d["slot"] >= 0 else 0.4 for d in nodes],
        zorder=4,
    )
    stations = [d for n, d in graph.nodes(data=True) if n >= n_nodes and "latitude_deg" in d]
    axes.scatter(
        [d["longitude_deg"] for d in stations],
        [d["latitude_deg"] for d in stations],
        s=60,
        c=COLOURS["station"],
        marker="^",
        edgecolors=COLOURS["ink"],
        linewidths=0.5,
        zorder=5,
    )
    for station in stations:
        axes.annotate(
            station["name"],
            (station["longitude_deg"], station["latitude_deg"]),
            xytext=(6, -11),
            textcoords="offset points",
            fontsize=7,
            color=COLOURS["ink"],
            zorder=6,
        )
    _draw_legend(axes)


def _draw_legend(axes: Any) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D(
            [], [], linestyle="", marker=marker, markerfacecolor=COLOURS[key], markeredgecolor=COLOURS["ink"]
        )
        for key, marker in (("sunlit", "o"), ("eclipsed", "o"), ("station", "^"))
    ]
    strokes = [
        Line2D([], [], color=COLOURS[key], linewidth=max(width, 1.0), linestyle=dashes)
        for key, (width, dashes) in STROKES.items()
    ]
    names = ["in the sun", "in eclipse", "station", *STROKES]
    axes.legend([*marks, *strokes], names, loc="lower left", fontsize=8, ncols=2, framealpha=0.9)


def great_circle(a: dict[str, Any], b: dict[str, Any]) -> list[Floats]:
    """Return the great circle between two places as lines (n, 2) that stop at the edge of the map."""
    ends = np.array([up_vector(place["latitude_deg"], place["longitude_deg"]) for place in (a, b)])
    share = np.linspace(0, 1, 17)[:, None]
    x, y, z = ((1 - share) * ends[0] + share * ends[1]).T
    latitude, longitude = np.rad2deg(np.arctan2(z, np.hypot(x, y))), np.rad2deg(np.arctan2(y, x))
    points = np.stack([longitude, latitude], axis=1)
    breaks = np.flatnonzero(np.abs(np.diff(longitude)) > 180) + 1
    return [part for part in np.split(points, breaks) if len(part) > 1]
