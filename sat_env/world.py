"""A scenario as arrays: everything the kernels need that neither time nor a policy changes."""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sat_env.compression.table import CompressionTable, load_table
from sat_env.energy import Power, power_constants
from sat_env.faults import OutageLaw, outage_law
from sat_env.handles import Handle
from sat_env.network.chain import RULES, Rule
from sat_env.network.ground import rain_keep, rain_parameters
from sat_env.network.routes import ContactPlan, contact_plan
from sat_env.planning.costs import GROUND_ALL_OR_NONE, GROUND_ANY, GROUND_NONE
from sat_env.scenario import Scenario, require
from sat_env.trace import TraceLaw
from sat_env.workload.profiles import ModelProfile, image_bytes, load_profile

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

LOG_COLUMNS = ("subject", "a", "b", "start_s", "end_s")
GROUND_HOSTS = {"none": GROUND_NONE, "all_or_none": GROUND_ALL_OR_NONE, "any": GROUND_ANY}


class World(NamedTuple):
    """Constants of a scenario for the kernels.

    E epochs, H epochs a job may span, K satellite slots (column K: ground), N satellites, L blocks,
    R levels, Y windows of T epochs; within a window, satellites and links have local indices (V, W).
    """

    epoch_s: float
    episode_epochs: int
    deadline_s: float
    micro_batches: int
    # what orbits determine
    chain: Ints  # (E, K) window-local satellite of each slot
    route_rate_bps: Array  # (E, H, 2, K, K+1)
    relay_bps: Array  # (E, H, 2, K) slowest satellite link of the routes to the ground
    downlink_bps: Array  # (E, H, 2, K) their downlink, clear sky
    route_latency_s: Array  # (E, 2, K, K+1)
    hop_rate_bps: Array  # (E, P) of the primary routes now, by hop as `problem.Hops`
    hop_latency_s: Array  # (E, P) likewise
    route_links: NDArray[np.int32]  # (E, 2, K, K+1, X) window-local, -1 padded
    epoch_links: NDArray[np.int32]  # (E, U) window-local links of all routes of the epoch, -1 padded
    route_places: NDArray[np.uint16]  # (E, 2, P, X) where in `epoch_links` each hop's links stand, U padded
    longest_route: Ints  # (E, 2) links of the longest primary route, and of the longest backup
    has_backups: NDArray[np.bool_]  # (E,) whether any route of the epoch has a backup
    route_station: NDArray[np.int16]  # (E, 2, K, K+1) -1: not a ground route
    route_elevation_deg: Array  # (E, 2, K, K+1) of the exit at its station
    route_range_km: Array  # (E, 2, K, K+1) from the exit to its station
    light: Array  # (E, N) share of the panel's power
    epochs_to_change: Ints  # (E,) epochs until the chain differs from the current one
    slot_light: Array  # (E, K) of the chain's satellites
    slot_light_ahead: Array  # (E, K) mean over the coming forecast
    window_nodes: Ints  # (Y, V) satellite of each local index, -1 padded
    window_links: Ints  # (Y, W) link of each local index, -1 padded
    window_downlinks: NDArray[np.bool_]  # (Y, T + H, S) the downlinks that a job of the window may meet
    # payload and ground
    power: Power
    slot_mode: Ints  # (K,) fixed power mode, -1: the battery decides
    sensing_computes: bool
    memory_bytes: float  # of a satellite
    storage_bytes_per_s: float
    weights_from_neighbour: bool
    transmit_w: float
    ground_flops_per_s: float
    ground_bandwidth_bytes_per_s: float
    ground_memory_bytes: float
    ground_hosts: int
    detect_s: float
    reboot_s: float
    # model, codec and job
    block_flops: Array  # (L,) per image, or for the whole prompt of a request
    block_bytes: Array  # (L,) weights
    block_memory_bytes: Array  # (L,) weights and the KV cache of the largest job
    boundary_bytes: Array  # (L+1, R) per image or prompt, encoded
    boundary_entries: Array  # (L+1,) activation entries per image or prompt; 0 where nothing is encoded
    encode_entries_per_s: Array  # (R,) inf: no codec
    decode_entries_per_s: Array  # (R,)
    error: Array  # (L+1, R) at content complexity 1
    error_budget: float
    drop_knots: Array  # (2, m) summed error and the accuracy drop it maps to
    tokens: float  # generated per request; 0 for images
    token_flops: Array  # (L,)
    token_bytes: Array  # (L+1, R) per request and token, encoded
    token_entries: Array  # (L+1,)
    items_mean: float
    reward: Array  # (4,) weights: latency, drop, bytes, energy
    reference_latency_s: float
    reference_bytes: float  # the mean job's raw batch over one link
    # faults
    outages: OutageLaw
    law: TraceLaw


@dataclass(frozen=True)
class Prepared:
    """A scenario with everything computed from it once."""

    scenario: Scenario
    contacts: ContactPlan
    profile: ModelProfile
    table: CompressionTable
    levels: tuple[str, ...]
    world: World  # what policies are shown: it does not hold `logged`
    logged: Array  # (n, 3) outages of a recorded log, see `logged_outages`

    @functools.cached_property
    def handle(self) -> Handle:
        """`world` as the kernels take it, with what is recorded of the future for traces to be drawn with."""
        return Handle(self.world._replace(law=self.world.law._replace(logged=self.logged)))


def prepare(scenario: Scenario) -> Prepared:
    """Compute all that depends on the scenario alone.

    Cached while the files and the chain rule it names stay as they are: every environment of a scenario shares it.

    Raises
    ------
    ScenarioError
        A block larger than any memory, an unknown level, or a field refused while orbits are computed.
    """
    # By its hash and rule too: a file that it names may hold something else by now, a rule of that name be another.
    return _prepared(scenario, scenario.hash(), RULES[scenario.chain.rule])


@functools.lru_cache(maxsize=16)
def _prepared(scenario: Scenario, _hash: str, _rule: Rule) -> Prepared:
    profile = load_model(scenario)
    table = load_table(scenario.model.compression)
    levels = _level_indices(scenario, table)
    _check_memory(scenario, profile)
    contacts = contact_plan(scenario)
    return Prepared(
        scenario=scenario,
        contacts=contacts,
        profile=profile,
        table=table,
        levels=tuple(table.levels[r].name for r in levels),
        world=_read_only(_world(scenario, contacts, profile, table, levels)),
        logged=logged_outages(scenario.faults.outage_log, contacts),
    )


def _read_only(world: World) -> World:
    """Return the world, its arrays closed to writing: policies are shown the very arrays that others are run on."""

    def close(values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            elif isinstance(value, tuple):
                close(value)

    close(world)
    return world


def load_model(scenario: Scenario) -> ModelProfile:
    """Return the profile of the scenario's model, in its units."""
    jobs, model = scenario.jobs, scenario.model
    kind = load_profile(model.profile).kind
    # Times of one item, as measured, tell neither the KV cache nor what a token costs.
    allowed = f"a {'language' if jobs.kind == 'llm' else 'vision'} model for jobs.kind = {jobs.kind!r}"
    require((kind == "llm") == (jobs.kind == "llm"), "model.profile", model.profile, allowed)
    options: dict[str, float | int] = {"dtype_bytes": int(model.dtype_bytes)}
    if kind == "llm":
        options["prompt_tokens"] = jobs.prompt_tokens
    elif kind == "vit":
        options["input_bytes"] = float(image_bytes(jobs.width, jobs.height))
    profile = load_profile(model.profile, **options)  # type: ignore[arg-type]
    if model.units:
        require(
            model.units <= profile.n_blocks, "model.units", model.units, f"at most {profile.n_blocks} blocks"
        )
        profile = profile.grouped(model.units)
    return profile


def _level_indices(scenario: Scenario, table: CompressionTable) -> list[int]:
    names = [level.name for level in table.levels]
    for name in scenario.model.levels:
        require(name in names, "model.levels", name, f"one of {', '.join(names)}")
    return [names.index(name) for name in (scenario.model.levels or names)]


def _block_memory(scenario: Scenario, profile: ModelProfile) -> Array:
    """Return weights and KV cache of each block (L,), for the largest job."""
    jobs = scenario.jobs
    requests = jobs.items * (1 + jobs.burst)
    requests = max(requests, round(requests), 1)  # a trace rounds them, to at least one
    resident_tokens = requests * (jobs.prompt_tokens + jobs.generated_tokens)
    # A block takes at least a byte: none stays on a satellite that is lost or has no charge.
    return np.maximum(profile.weight_bytes + profile.kv_bytes_per_token * resident_tokens, 1.0)


def _check_memory(scenario: Scenario, profile: ModelProfile) -> None:
    largest = float(_block_memory(scenario, profile).max())
    ground = scenario.ground.memory_bytes if scenario.ground.hosts != "none" else 0.0
    room = max(scenario.payload.memory_bytes, ground)
    require(
        largest <= room,
        "payload.memory_bytes",
        scenario.payload.memory_bytes,
        f"at least {largest:.4g}, the largest block of {profile.name} with its KV cache",
    )


def _world(
    scenario: Scenario,
    contacts: ContactPlan,
    profile: ModelProfile,
    table: CompressionTable,
    levels: list[int],
) -> World:
    jobs, payload, ground = scenario.jobs, scenario.payload, scenario.ground
    chosen = [table.levels[r] for r in levels]
    plain_bits = scenario.model.dtype_bytes * 8.0
    bits = np.array([min(level.bits_per_entry, plain_bits) for level in chosen])  # (R,)
    per_request = jobs.prompt_tokens if jobs.kind == "llm" else 1.0
    inner = np.arange(1, profile.n_blocks)
    entries = np.zeros(profile.n_blocks + 1)
    entries[inner] = profile.boundary_entries[inner]
    boundary = entries[:, None] * bits[None, :] / 8.0
    boundary[0] = profile.input_bytes_per_item / (jobs.raw_ratio if jobs.kind == "images" else 1.0)
    boundary[-1] = profile.result_bytes_per_item
    token_bytes = entries[:, None] * bits[None, :] / 8.0
    token_bytes[[0, -1]] = 4.0  # a token id
    is_llm = jobs.kind == "llm"
    rain = [rain_parameters(station) for station in ground.stations]
    chain, links, window_nodes, window_links = _localise(scenario, contacts)
    light = contacts.light.astype(np.float64)
    epoch_links, route_places = _epoch_links(links)
    slot_mode = np.full(scenario.chain.slots, -1, np.int64)
    if payload.slot_modes:
        slot_mode[:] = payload.slot_modes
    return World(
        epoch_s=scenario.epoch_s,
        episode_epochs=scenario.episode_epochs,
        deadline_s=jobs.deadline_s,
        micro_batches=jobs.micro_batches,
        chain=chain,
        route_rate_bps=np.ascontiguousarray(contacts.route_rate_bps, np.float64),
        relay_bps=contacts.relay_bps,
        downlink_bps=contacts.downlink_bps,
        route_latency_s=np.ascontiguousarray(contacts.route_latency_s, np.float64),
        hop_rate_bps=_by_hop(contacts.route_rate_bps[:, 0, 0]),
        hop_latency_s=_by_hop(contacts.route_latency_s[:, 0]),
        route_links=links,
        epoch_links=epoch_links,
        route_places=route_places,
        longest_route=(links >= 0).sum(axis=-1).max(axis=(2, 3)),
        has_backups=np.asarray((contacts.route_rate_bps[:, 0, 1] > 0).any(axis=(1, 2))),
        route_station=contacts.route_station.astype(np.int16),
        route_elevation_deg=contacts.route_elevation_deg.astype(np.float64),
        route_range_km=contacts.route_range_km.astype(np.float64),
        light=light,
        slot_light=np.take_along_axis(light, contacts.chain, axis=1),
        slot_light_ahead=np.take_along_axis(
            _mean_ahead(contacts.light, scenario.forecast_epochs), contacts.chain, axis=1
        ),
        epochs_to_change=_epochs_to_change(contacts.chain),
        window_nodes=window_nodes,
        window_links=window_links,
        window_downlinks=_downlinks_met(scenario, contacts),
        power=power_constants(scenario.energy, payload),
        slot_mode=slot_mode,
        sensing_computes=payload.sensing_computes,
        memory_bytes=payload.memory_bytes,
        storage_bytes_per_s=payload.storage_bytes_per_s,
        weights_from_neighbour=payload.weight_source == "neighbour",
        transmit_w=payload.transmit_w,
        ground_flops_per_s=ground.flops_per_s * ground.efficiency,
        ground_bandwidth_bytes_per_s=ground.memory_bandwidth_bytes_per_s,
        ground_memory_bytes=ground.memory_bytes,
        ground_hosts=GROUND_HOSTS[ground.hosts],
        detect_s=scenario.links.detect_s,
        reboot_s=scenario.faults.reboot_s,
        block_flops=profile.flops_per_item * per_request,
        block_bytes=np.array(profile.weight_bytes),
        block_memory_bytes=_block_memory(scenario, profile),
        boundary_bytes=boundary * per_request,
        boundary_entries=entries * per_request,
        encode_entries_per_s=np.array([v.encode_entries_per_s * payload.codec_speedup for v in chosen]),
        decode_entries_per_s=np.array([v.decode_entries_per_s * payload.codec_speedup for v in chosen]),
        error=np.ascontiguousarray(table.error_at(profile.n_blocks)[:, levels]),
        error_budget=float(table.error_budget(scenario.model.max_accuracy_drop)),
        drop_knots=np.array(table.drop_knots),
        tokens=float(jobs.generated_tokens - 1) if is_llm else 0.0,  # the prefill yields the first
        token_flops=np.array(profile.token_flops),
        token_bytes=token_bytes,
        token_entries=entries,
        items_mean=jobs.items,
        reward=np.array(dataclasses.astuple(scenario.reward)),
        reference_latency_s=scenario.reference_latency_s,
        reference_bytes=float(boundary[0, 0] * per_request * jobs.items),
        outages=outage_law(scenario.faults),
        law=TraceLaw(
            epoch_s=scenario.epoch_s,
            items_mean=jobs.items,
            burst=jobs.burst,
            burst_mean_s=jobs.burst_mean_s,
            content_sigma=jobs.content_sigma,
            fade_sigma=ground.fade_sigma,
            reset_mtbf_s=scenario.faults.reset_mtbf_s,
            anomaly_factor=scenario.faults.anomaly_factor,
            loss_mtbf_s=scenario.faults.loss_mtbf_s,
            plane_loss_mtbf_s=scenario.faults.plane_loss_mtbf_s,
            charge_low=scenario.energy.initial_charge[0],
            charge_high=scenario.energy.initial_charge[1],
            rain=scenario.faults.rain,
            rain_log_mean=np.array([mean for mean, _ in rain] or [0.0]),
            rain_log_sigma=np.array([sigma for _, sigma in rain] or [0.0]),
            rain_keep=rain_keep(scenario.epoch_s),
            logged=np.zeros((0, 3)),
        ),
    )


def logged_outages(path: str, contacts: ContactPlan) -> Array:
    """Read a recorded outage log: (n, 3) rows of link, start and end, in seconds since the scenario's start.

    A CSV with the header ``subject,a,b,start_s,end_s``: ``link,NAME,NAME,...`` takes one link down,
    ``satellite,NAME,,...`` all links of a satellite. Names are those of the constellation.

    Raises
    ------
    ScenarioError
        Unreadable file, unknown subject or satellite, a link that the mesh has not, or an outage that does not end
        after its start.
    """
    if not path:
        return np.zeros((0, 3))
    require(Path(path).is_file(), "faults.outage_log", path, "an existing CSV file")
    index = {name: node for node, name in enumerate(contacts.names)}
    rows: list[tuple[float, float, float]] = []
    with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
        reader = csv.DictReader(file)
        columns, allowed = list(reader.fieldnames or ()), f"the columns {', '.join(LOG_COLUMNS)}"
        require(set(columns) == set(LOG_COLUMNS), "faults.outage_log line 1", columns, allowed)
        for number, row in enumerate(reader, start=2):
            where = f"faults.outage_log line {number}"
            require(set(row) == set(columns), where, list(row.values()), allowed)
            require(row["subject"] in ("link", "satellite"), where, row["subject"], "'link' or 'satellite'")
            ends = [row["a"], row["b"]] if row["subject"] == "link" else [row["a"]]
            for name in ends:
                require(name in index, where, name, "the name of a satellite of the constellation")
            try:
                start_s, end_s = float(row["start_s"]), float(row["end_s"])
            except (TypeError, ValueError):
                start_s, end_s = 0.0, -1.0
            require(
                -math.inf < start_s < end_s < math.inf,
                where,
                (row["start_s"], row["end_s"]),
                "finite numbers, start_s below end_s",
            )
            touches = np.ones(len(contacts.link_ends), np.bool_)
            for name in ends:
                touches &= (contacts.link_ends == index[name]).any(axis=1)
            require(
                row["subject"] == "satellite" or (len(set(ends)) == 2 and bool(touches.any())),
                where,
                tuple(ends),
                "two satellites that can hold a link",
            )
            rows += [(float(link), start_s, end_s) for link in np.flatnonzero(touches)]
    return np.array(rows, np.float64).reshape(-1, 3)


def _localise(scenario: Scenario, contacts: ContactPlan) -> tuple[Ints, NDArray[np.int32], Ints, Ints]:
    """Number the satellites and links of each window from 0: state follows the chain, not the shell."""
    length = scenario.episode_epochs
    chain = np.empty_like(contacts.chain, dtype=np.int64)
    links = np.full(contacts.route_links.shape, -1, np.int32)
    nodes_of: list[Ints] = []
    links_of: list[Ints] = []
    for window in range(scenario.windows):
        rows = slice(window * length, (window + 1) * length)
        nodes, chain[rows] = _numbered(contacts.chain[rows])
        used, links[rows] = _numbered(contacts.route_links[rows])
        nodes_of.append(nodes)
        links_of.append(used)
    return chain, links, _padded(nodes_of), _padded(links_of)


def _numbered(ids: NDArray[np.int32]) -> tuple[Ints, Ints]:
    """Number the ids of a window by first use, so that what is used together lies together in memory.

    Returns
    -------
    used : (n,)
        The id of each number.
    numbers : like `ids`
        -1 where `ids` is.
    """
    used, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(np.where(used < 0, -1, first), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    padding = int(used[0] < 0)
    return used[order][padding:].astype(np.int64), rank[inverse].reshape(ids.shape) - padding


def _downlinks_met(scenario: Scenario, contacts: ContactPlan) -> NDArray[np.bool_]:
    """Return (Y, T + H, S) whether a job of the window may use a station in an epoch: those of its routes."""
    length, span = scenario.episode_epochs, contacts.route_rate_bps.shape[1]
    stations = max(1, len(scenario.ground.stations))
    used = (contacts.route_station[..., None] == np.arange(stations)).any(axis=(1, 2, 3))  # (E, S)
    met = np.zeros((scenario.windows, length + span, stations), np.bool_)
    for h in range(span):
        met[:, h : h + length] |= used[: scenario.windows * length].reshape(-1, length, stations)
    return met


def _epoch_links(links: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """Return the distinct links of each epoch's routes, (E, U), and where there those of each hop stand.

    The places are (E, 2, P, X), by hop as `problem.Hops`; where a route has fewer links, U.
    """
    hops = np.stack([_by_hop(links[:, 0]), _by_hop(links[:, 1])], axis=1)
    used: list[Ints] = []
    places = np.empty(hops.shape, np.int64)
    for epoch, rows in enumerate(hops):
        ids, places[epoch] = _numbered(rows)
        used.append(ids)
    table = _padded(used).astype(np.int32)
    return table, np.where(places < 0, table.shape[1], places).astype(np.uint16)


def _by_hop(table: NDArray[Any]) -> NDArray[Any]:
    """Return the rows (E, P, ...) of the hops i < j of a table (E, K, K+1, ...), row by row."""
    slots = table.shape[1]
    return np.ascontiguousarray(table[:, *np.triu_indices(slots, 1, slots + 1)])


def _padded(rows: list[Ints]) -> Ints:
    width = max(1, max(len(row) for row in rows))
    table = np.full((len(rows), width), -1, np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table


def _epochs_to_change(chain: NDArray[np.int32]) -> Ints:
    """Return (E,) how many epochs ahead the chain first differs; E at the end of the plan."""
    total = len(chain)
    ahead = np.full(total, total, np.int64)
    for e in range(total - 2, -1, -1):
        ahead[e] = ahead[e + 1] + 1 if np.array_equal(chain[e], chain[e + 1]) else 1
    return np.minimum(ahead, total)


def _mean_ahead(light: NDArray[np.float32], epochs: int) -> Array:
    """Return (E, N) the mean of the next `epochs` rows, fewer at the end of the plan."""
    total = np.concatenate([np.zeros((1, light.shape[1])), np.cumsum(light, axis=0, dtype=np.float64)])
    first = np.arange(len(light))
    last = np.minimum(first + epochs, len(light))
    mean: Array = (total[last] - total[first]) / (last - first)[:, None]
    return mean
