"""A scenario: everything fixed about a world, as a tree of frozen dataclasses loadable from TOML.

Every field carries its unit in its name. `load_scenario` takes a registered name (``"WalkerOutage"``)
or the path of a TOML file; `Scenario.replace` derives a variant, which is how sweeps are made.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import tomllib
import types
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sat_env.compression.table import load_table, table_names, table_plain

SCENARIO_DIR = Path(__file__).parent / "scenarios"
MAX_DEADLINE_EPOCHS = 200  # a job's: contacts are prepared for as many epochs from every epoch on
PROFILE_SUFFIXES = (".json", ".csv")  # a `model.profile` that ends so is a path


class ScenarioError(ValueError):
    """A scenario field holds a value that is not allowed; `field` is its name where one is to blame."""

    field: str | None = None


def require(ok: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a bad value in one line.

    Raises
    ------
    ScenarioError
        If `ok` is false; the message names the field, the value and what is allowed.
    """
    if not ok:
        error = ScenarioError(f"{name} = {value!r}: must be {allowed}")
        error.field = name
        raise error


def _positive(owner: object, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        require(value > 0, f"{prefix}.{name}", value, "greater than 0")


def _not_negative(owner: object, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        require(value >= 0, f"{prefix}.{name}", value, "at least 0")


@dataclass(frozen=True)
class Walker:
    """A Walker shell T:P:F on circular orbits with J2 drift."""

    kind: Literal["walker"] = "walker"
    planes: int = 8
    per_plane: int = 10
    phasing: int = 1
    altitude_km: float = 780.0
    inclination_deg: float = 53.0
    pattern: Literal["delta", "star"] = "delta"
    start_utc: str = "2026-01-01T00:00:00Z"

    def __post_init__(self) -> None:
        _positive(self, "motion", "planes", "per_plane")
        require(0 <= self.phasing < self.planes, "motion.phasing", self.phasing, f"0..{self.planes - 1}")
        require(160 <= self.altitude_km <= 2000, "motion.altitude_km", self.altitude_km, "160..2000 (LEO)")
        require(0 <= self.inclination_deg <= 180, "motion.inclination_deg", self.inclination_deg, "0..180")


@dataclass(frozen=True)
class Elements:
    """Real satellites from an OMM (CSV, JSON, XML) or TLE file, propagated by SGP4.

    `start_utc` empty means the newest epoch of the file. `altitude_km`, if given, must agree with the
    mean motion of the elements: it guards against a file of another shell.
    """

    kind: Literal["elements"] = "elements"
    file: str = ""
    start_utc: str = ""
    altitude_km: float | None = None
    altitude_tolerance_km: float = 30.0

    def __post_init__(self) -> None:
        require(self.file != "", "motion.file", self.file, "the path of an OMM or TLE file")


@dataclass(frozen=True)
class Surface:
    """Movers near the surface: drones patrolling a disc, or ships on great-circle lanes."""

    kind: Literal["surface"] = "surface"
    mover: Literal["drone", "ship"] = "drone"
    movers: int = 12
    center_latitude_deg: float = 54.0
    center_longitude_deg: float = 8.0
    radius_km: float = 6.0
    altitude_km: float = 0.1
    speed_m_s: float = 15.0
    start_utc: str = "2026-01-01T00:00:00Z"

    def __post_init__(self) -> None:
        _positive(self, "motion", "movers", "radius_km", "speed_m_s")
        _not_negative(self, "motion", "altitude_km")
        require(
            -85 <= self.center_latitude_deg <= 85,
            "motion.center_latitude_deg",
            self.center_latitude_deg,
            "-85..85",
        )
        require(
            -180 <= self.center_longitude_deg <= 360,
            "motion.center_longitude_deg",
            self.center_longitude_deg,
            "-180..360",
        )


Motion = Walker | Elements | Surface


@dataclass(frozen=True)
class Station:
    """A ground station. Rain: attenuation exceeded 1 % and 0.1 % of the time, at 45 deg elevation (ITU-R)."""

    name: str
    latitude_deg: float
    longitude_deg: float
    altitude_m: float = 0.0
    rain_1pct_db: float = 1.0
    rain_01pct_db: float = 1.7

    def __post_init__(self) -> None:
        require(
            -90 <= self.latitude_deg <= 90,
            f"ground.stations[{self.name}].latitude_deg",
            self.latitude_deg,
            "-90..90",
        )
        require(
            -180 <= self.longitude_deg <= 360,
            f"ground.stations[{self.name}].longitude_deg",
            self.longitude_deg,
            "-180..360",
        )
        require(
            0 < self.rain_1pct_db < self.rain_01pct_db,
            f"ground.stations[{self.name}].rain_1pct_db",
            self.rain_1pct_db,
            f"between 0 and rain_01pct_db = {self.rain_01pct_db}",
        )


@dataclass(frozen=True)
class Ground:
    """Stations, the downlink and the server behind it.

    ``downlink = "ka"`` follows the link budget (elevation, rain); ``"fixed"`` gives `rate_bps` whenever in
    contact. `share` is the reserved slice of the carrier. ``contact = "always"`` idealises the paper's
    downlink: the exit satellite sees the ground at all times.
    """

    stations: tuple[Station, ...] = ()
    contact: Literal["visible", "always"] = "visible"
    elevation_mask_deg: float = 10.0
    downlink: Literal["fixed", "ka"] = "fixed"
    rate_bps: float = 50e6
    share: float = 1.0
    fade_sigma: float = 0.0  # standard deviation of the log of the slice's rate, per epoch
    handover_s: float = 0.0  # acquisition of a new station contact
    flops_per_s: float = 80.2e12  # RTX 4070 Ti, dense FP16 peak
    efficiency: float = 0.75
    memory_bandwidth_bytes_per_s: float = 504e9
    memory_bytes: float = 12e9
    hosts: Literal["none", "all_or_none", "any"] = "none"

    def __post_init__(self) -> None:
        _positive(self, "ground", "rate_bps", "flops_per_s", "memory_bandwidth_bytes_per_s", "memory_bytes")
        require(0 < self.share <= 1, "ground.share", self.share, "in (0, 1]")
        require(0 < self.efficiency <= 1, "ground.efficiency", self.efficiency, "in (0, 1]")
        require(
            0 <= self.elevation_mask_deg < 90, "ground.elevation_mask_deg", self.elevation_mask_deg, "0..90"
        )
        _not_negative(self, "ground", "fade_sigma", "handover_s")
        require(
            self.contact == "always" or len(self.stations) > 0,
            "ground.stations",
            self.stations,
            'at least one station, or ground.contact = "always"',
        )
        names = [station.name for station in self.stations]
        require(len(set(names)) == len(names), "ground.stations", names, "of different names")
        fades = self.contact == "visible" or self.fade_sigma == 0
        require(fades, "ground.fade_sigma", self.fade_sigma, '0 where ground.contact = "always"')


@dataclass(frozen=True)
class Links:
    """Inter-satellite links: who may hold one, how far it reaches, how fast it is.

    Rate of an optical link: min(`rate_bps`, `reference_rate_bps` * (`reference_km` / range)^2), a
    photon-limited receiver. ``terminals = 3`` keeps fore, aft and one cross-plane link (a ladder mesh),
    4 is +Grid, 2 a line in the plane. A new link carries nothing for `acquisition_s`.
    """

    terminals: int = 4
    rate_bps: float = 1e9
    reference_rate_bps: float = 33e9
    reference_km: float = 3000.0
    max_range_km: float = 6000.0
    grazing_height_km: float = 80.0
    acquisition_s: float = 30.0
    cross_plane_max_latitude_deg: float = 90.0
    sun_exclusion_deg: float = 0.0
    backup: bool = False  # a link-disjoint second route for every pair of slots
    detect_s: float = 2.0  # time to notice an outage and move to the backup
    relay_s: float = 1e-3  # switching time in each relay satellite of a route

    def __post_init__(self) -> None:
        require(self.terminals in (2, 3, 4), "links.terminals", self.terminals, "2, 3 or 4")
        _positive(self, "links", "rate_bps", "reference_rate_bps", "reference_km", "max_range_km")
        _not_negative(self, "links", "grazing_height_km", "acquisition_s", "detect_s", "relay_s")
        require(
            0 <= self.sun_exclusion_deg <= 180, "links.sun_exclusion_deg", self.sun_exclusion_deg, "0..180"
        )
        require(
            0 < self.cross_plane_max_latitude_deg <= 90,
            "links.cross_plane_max_latitude_deg",
            self.cross_plane_max_latitude_deg,
            "in (0, 90]",
        )


@dataclass(frozen=True)
class Chain:
    """Which satellites are the slots of an epoch, from orbits alone.

    ``"line"``: the sensing satellite and its neighbours ahead in the plane. ``"ladder"``: source, one ahead,
    one behind, and their neighbours in the next plane. ``"exit"``: the shortest path from the sensing
    satellite to the exit with the best ground contact, padded along the plane.
    The sensing satellite is the one over the current target; a target is held for `dwell_epochs`.
    """

    rule: Literal["line", "ladder", "exit"] = "ladder"
    slots: int = 6
    targets: tuple[tuple[float, float], ...] = ((48.0, 11.0),)  # latitude, longitude in degrees
    dwell_epochs: int = 30
    fixed: bool = False  # the paper's static chain: satellites 0..slots-1 throughout
    exit_slot: int = 0  # with ground.contact = "always": the slot that holds the downlink, 1-based; 0: last

    def __post_init__(self) -> None:
        require(2 <= self.slots <= 32, "chain.slots", self.slots, "2..32")
        require(0 <= self.exit_slot <= self.slots, "chain.exit_slot", self.exit_slot, f"0..{self.slots}")
        _positive(self, "chain", "dwell_epochs")
        require(len(self.targets) > 0, "chain.targets", self.targets, "at least one (latitude, longitude)")
        for latitude_deg, longitude_deg in self.targets:
            require(
                -90 <= latitude_deg <= 90 and -180 <= longitude_deg <= 360,
                "chain.targets",
                (latitude_deg, longitude_deg),
                "(latitude, longitude) in -90..90 and -180..360 degrees",
            )


@dataclass(frozen=True)
class PowerMode:
    """A power mode of the on-board computer: draw, peak dense FP16 rate, memory bandwidth."""

    power_w: float
    flops_per_s: float
    memory_bandwidth_bytes_per_s: float
    min_charge: float = 0.0  # the state of charge (0..1) from which the battery allows this mode

    def __post_init__(self) -> None:
        _positive(self, "payload.modes", "power_w", "flops_per_s", "memory_bandwidth_bytes_per_s")
        require(0 <= self.min_charge < 1, "payload.modes.min_charge", self.min_charge, "in [0, 1)")


ORIN_MODES = (  # Jetson AGX Orin: NVIDIA nvpmodel for p3701, peaks from active TPCs x clock
    PowerMode(15.0, 5.0e12, 136.5e9, 0.05),
    PowerMode(30.0, 10.0e12, 204.8e9, 0.20),
    PowerMode(50.0, 26.7e12, 204.8e9, 0.50),
)


NAMED_MODES = {
    "15W": ORIN_MODES[0],
    "30W": ORIN_MODES[1],
    "50W": ORIN_MODES[2],
    "MAXN": PowerMode(60.0, 42.6e12, 204.8e9, 0.80),  # uncapped: the draw is the module's rating
}
"""Modes of a Jetson AGX Orin that a TOML file may name: ``modes = ["15W", "MAXN"]``."""


@dataclass(frozen=True)
class Payload:
    """The computer on each satellite."""

    modes: tuple[PowerMode, ...] = ORIN_MODES
    slot_modes: tuple[
        int, ...
    ] = ()  # index into `modes` per slot, whoever fills it; empty: the battery decides
    efficiency: float = 0.4  # share of the peak a real model reaches
    memory_bytes: float = 6e9  # for weights and KV cache
    storage_bytes_per_s: float = 1e9
    # "neighbour": at the rate of the fastest hop from an earlier slot (docs/world.md, what is not modelled)
    weight_source: Literal["storage", "neighbour"] = "storage"
    sensing_computes: bool = True  # slot 1 may hold blocks
    codec_speedup: float = 1.0  # codec throughput relative to the one measured in the table
    transmit_w: float = 10.0

    def __post_init__(self) -> None:
        require(len(self.modes) > 0, "payload.modes", self.modes, "at least one power mode")
        _positive(self, "payload", "memory_bytes", "storage_bytes_per_s", "codec_speedup")
        _not_negative(self, "payload", "transmit_w")
        require(0 < self.efficiency <= 1, "payload.efficiency", self.efficiency, "in (0, 1]")
        require(
            all(0 <= m < len(self.modes) for m in self.slot_modes),
            "payload.slot_modes",
            self.slot_modes,
            f"indices 0..{len(self.modes) - 1}",
        )
        charges = [mode.min_charge for mode in self.modes]
        require(charges == sorted(charges), "payload.modes.min_charge", charges, "non-decreasing")


@dataclass(frozen=True)
class Energy:
    """Battery and panel of each satellite. ``enabled = false``: every satellite runs its best mode."""

    enabled: bool = True
    battery_wh: float = 100.0
    panel_w: float = 90.0  # delivered at normal incidence
    bus_w: float = 8.0  # platform, always drawn
    idle_w: float = 4.0  # computer waiting
    charge_efficiency: float = 0.90
    discharge_efficiency: float = 0.95
    initial_charge: tuple[float, float] = (0.7, 1.0)  # drawn uniformly per satellite at reset
    tracking: bool = True  # panels follow the sun; else incidence on a zenith-facing panel

    def __post_init__(self) -> None:
        _positive(self, "energy", "battery_wh")
        _not_negative(self, "energy", "panel_w", "bus_w", "idle_w")
        for name in ("charge_efficiency", "discharge_efficiency"):
            value = getattr(self, name)
            require(0 < value <= 1, f"energy.{name}", value, "in (0, 1]")
        low, high = self.initial_charge
        require(0 <= low <= high <= 1, "energy.initial_charge", self.initial_charge, "0 <= low <= high <= 1")


@dataclass(frozen=True)
class Faults:
    """Random faults. A mean of 0 switches a stream off.

    Link outages: exponential up times; down times exponential within [min, max], and a share
    `link_tail_share` uniform within [`link_tail_min_s`, `link_tail_max_s`]; re-acquisition is included.
    """

    link_up_mean_s: float = 2917.0
    link_down_mean_s: float = 29.5
    link_down_min_s: float = 12.0
    link_down_max_s: float = 100.0
    link_tail_share: float = 0.0
    link_tail_min_s: float = 300.0
    link_tail_max_s: float = 1800.0
    reset_mtbf_s: float = 0.0
    reboot_s: float = 90.0
    anomaly_factor: float = 7.0  # resets are that much likelier in the South Atlantic Anomaly
    loss_mtbf_s: float = 0.0  # permanent loss of a satellite
    plane_loss_mtbf_s: float = 0.0  # permanent loss of all satellites of a plane
    rain: bool = False
    outage_log: str = ""  # CSV (subject, a, b, start_s, end_s) played back beside the drawn faults

    def __post_init__(self) -> None:
        _not_negative(
            self,
            "faults",
            "link_up_mean_s",
            "link_down_mean_s",
            "link_down_min_s",
            "link_tail_min_s",
            "reset_mtbf_s",
            "reboot_s",
            "loss_mtbf_s",
            "plane_loss_mtbf_s",
        )
        require(
            self.link_down_min_s < self.link_down_max_s,
            "faults.link_down_max_s",
            self.link_down_max_s,
            f"greater than link_down_min_s = {self.link_down_min_s}",
        )
        require(
            self.link_down_min_s < self.link_down_mean_s < (self.link_down_min_s + self.link_down_max_s) / 2,
            "faults.link_down_mean_s",
            self.link_down_mean_s,
            "between link_down_min_s and the middle of the down range",
        )
        require(0 <= self.link_tail_share <= 1, "faults.link_tail_share", self.link_tail_share, "in [0, 1]")
        require(
            self.link_tail_min_s <= self.link_tail_max_s,
            "faults.link_tail_max_s",
            self.link_tail_max_s,
            f"at least link_tail_min_s = {self.link_tail_min_s}",
        )
        tail_s = (self.link_tail_min_s + self.link_tail_max_s) / 2
        down_s = self.link_down_mean_s + self.link_tail_share * (tail_s - self.link_down_mean_s)
        require(
            self.link_up_mean_s == 0 or self.link_up_mean_s + down_s >= 1,
            "faults.link_up_mean_s",
            self.link_up_mean_s,
            f"0, or at least 1 s with the mean outage of {down_s:g} s",  # drawing more would not end
        )
        require(1 <= self.anomaly_factor <= 1000, "faults.anomaly_factor", self.anomaly_factor, "1..1000")
        require(
            self.reset_mtbf_s == 0 or self.reset_mtbf_s >= self.anomaly_factor,
            "faults.reset_mtbf_s",
            self.reset_mtbf_s,
            f"0, or at least anomaly_factor = {self.anomaly_factor:g} s",
        )


FAULT_LEVELS = {
    "none": Faults(link_up_mean_s=0.0),
    "nominal": Faults(reset_mtbf_s=7 * 86400.0),
    "harsh": Faults(link_up_mean_s=291.7, reset_mtbf_s=6 * 3600.0),
}
"""Levels a TOML file may start from: ``[faults] level = "harsh"``, then fields that differ.

Nominal outages: Starlink's public figures (266,141 acquisitions a day over some 9,000 lasers, more than 99 %
up), a factor 2 of doubt; harsh: ten times as often. No reset rate of a Jetson in LEO is published: 7 d and 6 h
are the ends of a sweep.
"""


@dataclass(frozen=True)
class Model:
    """The model that is split, and the codec at its cuts."""

    profile: str = "vit-g"  # a name, or the path of a config.json or a measured CSV
    units: int = 0  # merge consecutive blocks into this many units; 0: every block
    dtype_bytes: float = 2.0
    compression: str = "digits-vit"  # the table of levels and errors
    levels: tuple[str, ...] = ()  # names out of the table; empty: all
    max_accuracy_drop: float = 0.01

    def __post_init__(self) -> None:
        _not_negative(self, "model", "units")
        require(len(set(self.levels)) == len(self.levels), "model.levels", self.levels, "different levels")
        require(self.dtype_bytes in (1, 2, 4), "model.dtype_bytes", self.dtype_bytes, "1, 2 or 4")
        require(
            0 < self.max_accuracy_drop < 1, "model.max_accuracy_drop", self.max_accuracy_drop, "in (0, 1)"
        )


@dataclass(frozen=True)
class Jobs:
    """What one epoch releases: a batch of images, or LLM requests (prompt and generated tokens)."""

    kind: Literal["images", "llm"] = "images"
    items: float = 200.0  # images, or requests, of a mean job
    burst: float = 0.0  # relative amplitude of the bursts
    burst_mean_s: float = 300.0  # mean time between changes of the burst state
    micro_batches: int = 8
    width: int = 854  # pixels of an image
    height: int = 480
    raw_ratio: float = 1.0  # lossless compression of raw input
    prompt_tokens: int = 512
    generated_tokens: int = 64  # of a request; the first comes of the prefill
    content_sigma: float = 0.2  # standard deviation of the log of the content complexity
    deadline_s: float = 60.0

    def __post_init__(self) -> None:
        require(self.items >= 1, "jobs.items", self.items, "at least 1")
        _positive(self, "jobs", "micro_batches", "width", "height", "burst_mean_s", "deadline_s")
        _not_negative(self, "jobs", "content_sigma", "prompt_tokens", "generated_tokens")
        if self.kind == "llm":
            _positive(self, "jobs", "prompt_tokens", "generated_tokens")
        require(0 <= self.burst < 1, "jobs.burst", self.burst, "in [0, 1)")
        require(self.raw_ratio >= 1, "jobs.raw_ratio", self.raw_ratio, "at least 1")
        require(self.micro_batches <= 64, "jobs.micro_batches", self.micro_batches, "1..64")


@dataclass(frozen=True)
class Reward:
    """Weights of the named reward terms (see `sat_env.reward`)."""

    latency: float = 1.0  # -log(min(latency, deadline) / reference latency)
    drop: float = 1.0  # subtracted for a dropped, infeasible or over-limit job
    bytes: float = 0.0  # per reference byte count (raw batch over one link)
    energy: float = 0.0  # per kilojoule

    def __post_init__(self) -> None:
        _not_negative(self, "reward", "latency", "drop", "bytes", "energy")


@dataclass(frozen=True)
class Scenario:
    """A world: motion, network, payload, faults, workload, clock and scoring."""

    name: str
    motion: Motion = field(default_factory=Walker)
    ground: Ground = field(default_factory=lambda: Ground(stations=(Station("Boston", 42.36, -71.06),)))
    links: Links = field(default_factory=Links)
    chain: Chain = field(default_factory=Chain)
    payload: Payload = field(default_factory=Payload)
    energy: Energy = field(default_factory=Energy)
    faults: Faults = field(default_factory=Faults)
    model: Model = field(default_factory=Model)
    jobs: Jobs = field(default_factory=Jobs)
    reward: Reward = field(default_factory=Reward)
    epoch_s: float = 20.0
    episode_epochs: int = 150
    windows: int = 20  # episode windows prepared; 60 % train, 20 % dev, 20 % test
    forecast_epochs: int = 8  # how far ahead the PlanningProblem tells what orbits determine
    reference_latency_s: float = 10.0
    description: str = ""

    def __post_init__(self) -> None:
        require(
            self.name.isprintable() and self.name.strip(". ") != "" and not set(self.name) & set("/\\"),
            "scenario.name",
            self.name,
            "text without / and \\: runs and what is tuned are kept in folders and files of that name",
        )
        _positive(self, "scenario", "epoch_s", "episode_epochs", "reference_latency_s", "forecast_epochs")
        require(
            self.chain.exit_slot == 0 or self.ground.contact == "always",
            "chain.exit_slot",
            self.chain.exit_slot,
            '0, or ground.contact = "always"',
        )
        longest_s = MAX_DEADLINE_EPOCHS * self.epoch_s
        require(
            self.jobs.deadline_s <= longest_s,
            "jobs.deadline_s",
            self.jobs.deadline_s,
            f"at most {longest_s:g}, that is {MAX_DEADLINE_EPOCHS} epochs: all contacts of so long are kept in memory",
        )
        require(self.windows >= 5, "scenario.windows", self.windows, "at least 5 (train, dev and test)")
        require(
            not self.faults.rain or (self.ground.downlink == "ka" and self.ground.contact == "visible"),
            "faults.rain",
            self.faults.rain,
            'false, or ground.downlink = "ka" and ground.contact = "visible" (rain acts on the link budget)',
        )
        if isinstance(self.motion, Walker):
            total = self.motion.planes * self.motion.per_plane
            require(
                self.chain.slots <= total,
                "chain.slots",
                self.chain.slots,
                f"at most the {total} satellites of the shell",
            )
        if isinstance(self.motion, Surface):
            require(
                self.chain.slots <= self.motion.movers,
                "chain.slots",
                self.chain.slots,
                f"at most the {self.motion.movers} movers",
            )
        require(
            len(self.payload.slot_modes) in (0, self.chain.slots),
            "payload.slot_modes",
            self.payload.slot_modes,
            f"empty or one mode for each of the {self.chain.slots} slots",
        )
        least_w = min(mode.power_w for mode in self.payload.modes)
        require(
            self.energy.idle_w <= least_w,
            "energy.idle_w",
            self.energy.idle_w,
            f"at most {least_w:g}, the least power_w of payload.modes: a busy computer draws that on top",
        )

    def replace(self, **changes: Any) -> Scenario:
        """Return a variant: ``scenario.replace(**{"faults.link_up_mean_s": 0, "epoch_s": 30})``.

        A part given whole, such as ``motion=Elements(file="shell.tle")``, is set before fields of it.

        Raises
        ------
        ScenarioError
            As `scenario_from_dict`.
        """
        data = dict(vars(self))
        for path, value in sorted(changes.items(), key=lambda change: "." in change[0]):
            head, _, name = path.partition(".")
            part = _fields(data.get(head))
            if name and isinstance(part, dict):
                data[head] = {**part, name: value}
            else:
                data[path] = value
        variant: Scenario = _build(Scenario, data, "scenario")
        return variant

    def to_dict(self) -> dict[str, Any]:
        """Return the scenario as plain data (what a TOML file would hold)."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    def hash(self) -> str:
        """Return 12 hex digits over the rounded plain data and what the files it names hold.

        Equal on every machine: a file (motion, outage log, model, compression table) counts by its content,
        wherever it lies.

        Raises
        ------
        ValueError
            If there is no such file, or ``model.compression`` names no table.
        """
        known = {**self.to_dict(), "table": table_plain(load_table(self.model.compression))}
        if self.model.compression not in table_names():
            known["model"]["compression"] = ""
        for part, name in (("motion", "file"), ("faults", "outage_log"), ("model", "profile")):
            path = known[part].get(name)
            if path and (name != "profile" or path.endswith(PROFILE_SUFFIXES)):
                require(Path(path).is_file(), f"{part}.{name}", path, "an existing file")
                known[part][name] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps(_rounded(known), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def total_epochs(self) -> int:
        """Epochs prepared: all windows."""
        return self.windows * self.episode_epochs


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(f"{value:.9g}")
    return value


def scenario_names() -> tuple[str, ...]:
    """Return the names of the scenarios that ship with the package."""
    return tuple(sorted(path.stem for path in SCENARIO_DIR.glob("*.toml")))


def ships(scenario: Scenario) -> bool:
    """Tell whether a scenario is one of the package, unchanged."""
    return scenario.name in scenario_names() and scenario == load_scenario(scenario.name)


def refuse_shipped_name(scenario: Scenario, lost: str) -> None:
    """Refuse another world under the name of one of the package, whose files it would overwrite.

    Raises
    ------
    ScenarioError
        It is such a world; the message names what would be lost.
    """
    require(
        scenario.name not in scenario_names() or ships(scenario),
        "name",
        scenario.name,
        f"another than that of a scenario that ships, whose {lost} would be lost; "
        "give the world in the file a name of its own",
    )


def load_scenario(name_or_file: str | os.PathLike[str]) -> Scenario:
    """Load a scenario by registered name or from a TOML file.

    Raises
    ------
    ScenarioError
        Unknown name, missing or unreadable file, unknown field, or a value that is not allowed.
    """
    allowed = f"one of {', '.join(scenario_names())}, or the path of a .toml file"
    require(isinstance(name_or_file, str | os.PathLike), "scenario", name_or_file, allowed)
    given = os.fspath(name_or_file)
    if given.endswith(".toml"):
        path = Path(given)
        require(path.is_file(), "scenario file", given, "an existing TOML file")
    else:
        path = SCENARIO_DIR / f"{given}.toml"
        require(path.is_file(), "scenario", given, allowed)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors write a byte order mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"scenario file = {str(path)!r}: must be valid TOML ({error})") from None
    require(len(data) > 0, "scenario file", str(path), "a TOML file that sets at least one field")
    data.setdefault("name", path.stem)
    return scenario_from_dict(data)


def scenario_from_dict(data: dict[str, Any]) -> Scenario:
    """Build a scenario from plain data.

    Raises
    ------
    ScenarioError
        Unknown field, wrong type, or a value that is not allowed.
    """
    faults = data.get("faults")
    if isinstance(faults, dict) and "level" in faults:
        level = faults["level"]
        known = isinstance(level, str) and level in FAULT_LEVELS
        require(known, "scenario.faults.level", level, f"one of {', '.join(FAULT_LEVELS)}")
        others = {name: value for name, value in faults.items() if name != "level"}
        data = {**data, "faults": {**dataclasses.asdict(FAULT_LEVELS[level]), **others}}
    scenario: Scenario = _build(Scenario, data, "scenario")
    return scenario


def _fields(value: Any) -> Any:
    """Return the fields of a dataclass instance by name; plain data as it is."""
    return vars(value) if dataclasses.is_dataclass(value) else value


def _build(kind: Any, value: Any, path: str) -> Any:
    """Turn plain data, or an instance, into the annotated type `kind`; `path` names the field in errors."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _build_union(get_args(kind), value, path)
    if origin is Literal:
        require(value in get_args(kind), path, value, f"one of {', '.join(map(repr, get_args(kind)))}")
        return value
    if origin is tuple:
        require(isinstance(value, list | tuple), path, value, "a list")
        inner = get_args(kind)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_build(inner[0], item, f"{path}[{i}]") for i, item in enumerate(value))
        require(len(value) == len(inner), path, value, f"a list of {len(inner)}")
        return tuple(
            _build(k, item, f"{path}[{i}]") for i, (k, item) in enumerate(zip(inner, value, strict=True))
        )
    if kind is PowerMode and isinstance(value, str):
        require(value in NAMED_MODES, path, value, f"one of {', '.join(NAMED_MODES)}, or a table")
        return NAMED_MODES[value]
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        value = vars(value) if isinstance(value, kind) else value
        require(isinstance(value, dict), path, value, "a table")
        hints = get_type_hints(kind)
        for key in value:
            require(key in hints, f"{path}.{key}", value[key], f"absent; the fields are {', '.join(hints)}")
        for one in dataclasses.fields(kind):
            optional = not (one.default is one.default_factory is dataclasses.MISSING)
            require(optional or one.name in value, path, value, f"a table that holds {one.name}")
        return kind(**{key: _build(hints[key], item, f"{path}.{key}") for key, item in value.items()})
    if kind is bool:
        require(isinstance(value, bool), path, value, "true or false")
    elif kind in (int, float):
        allowed = "a whole number" if kind is int else "a finite number"
        require(isinstance(value, Real) and not isinstance(value, bool), path, value, allowed)
        require(math.isfinite(value) and (kind is float or value == int(value)), path, value, allowed)
        return kind(value)
    elif kind is str:
        require(isinstance(value, str), path, value, "a string")
    return value


def _build_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None:
        return None
    tables = {get_args(get_type_hints(k)["kind"])[0]: k for k in options if dataclasses.is_dataclass(k)}
    if tables:
        value = _fields(value)
        tag = value.get("kind") if isinstance(value, dict) else value
        known = isinstance(tag, str) and tag in tables
        require(known, f"{path}.kind", tag, f"one of {', '.join(map(repr, tables))}")
        return _build(tables[tag], value, path)
    return _build(next(k for k in options if k is not type(None)), value, path)
