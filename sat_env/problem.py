"""PlanningProblem: what is knowable at a decision. The one source of observations and of planners' input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sat_env.handles import Handle
from sat_env.kernels import kernel, part
from sat_env.planning.costs import Costs, costs_from_arrays
from sat_env.world import World

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


class Problems(NamedTuple):
    """The decisions of B worlds: K satellite slots and the ground (column K). Times are relative to now."""

    epoch: Ints  # (B,) epoch of the contact plan
    epochs_left: Ints  # (B,) decisions left in the episode, this one included
    # slots
    flops_per_s: Array  # (B, K+1) 0: cannot compute
    bandwidth_bytes_per_s: Array  # (B, K+1)
    memory_free_bytes: Array  # (B, K+1)
    power_w: Array  # (B, K+1) what computing draws on top of idling
    busy_s: Array  # (B, K+1) expected time until the slot is free (reboot included)
    reboot_s: Array  # (B, K+1) left of a reboot, 0: up
    charge: Array  # (B, K+1) state of charge, 0..1
    light: Array  # (B, K+1) share of the panel's power this epoch
    light_ahead: Array  # (B, K+1) mean share over the forecast
    resident: Ints  # (B, K+1, 2) blocks first..last+1 in memory
    load_bytes_per_s: Array  # (B, K+1) at which weights arrive
    # hops, upper triangle
    rate_bps: Array  # (B, K, K+1) of the route a transfer would take now; 0: none
    latency_s: Array  # (B, K, K+1)
    route_hops: Array  # (B, K, K+1) links of the primary route
    release_s: Array  # (B, K, K+1) expected time until it carries bits: backlog, outage or detection
    primary_up: Array  # (B, K, K+1) 0 or 1
    state_age_s: Array  # (B, K, K+1) time since the primary route went down or came up
    backup_bps: Array  # (B, K, K+1) 0: no backup, or down
    # job
    items: Array  # (B,) images or requests
    content: Array  # (B,) complexity, mean 1
    recent_items: Array  # (B, 3) of the jobs before, newest first
    previous_cuts: Ints  # (B, K) the plan before, as executed
    previous_levels: Ints  # (B, K)
    epochs_to_change: Ints  # (B,) until the chain changes


def empty_problems(worlds: int, slots: int) -> Problems:
    """Return `Problems` with room for B worlds of K slots."""
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {}
    per_slot, per_hop = (worlds, slots + 1), (worlds, slots, slots + 1)
    for name in Problems._fields:
        shapes[name] = (np.float64, per_slot)
    for name in (
        "rate_bps",
        "latency_s",
        "route_hops",
        "release_s",
        "primary_up",
        "state_age_s",
        "backup_bps",
    ):
        shapes[name] = (np.float64, per_hop)
    for name in ("epoch", "epochs_left", "epochs_to_change"):
        shapes[name] = (np.int64, (worlds,))
    for name in ("items", "content"):
        shapes[name] = (np.float64, (worlds,))
    shapes["resident"] = (np.int64, (worlds, slots + 1, 2))
    shapes["recent_items"] = (np.float64, (worlds, 3))
    shapes["previous_cuts"] = shapes["previous_levels"] = (np.int64, (worlds, slots))
    return Problems(*(np.zeros(shape, kind) for kind, shape in (shapes[name] for name in Problems._fields)))


class Hops(NamedTuple):
    """Work space: what is seen of the P hops i < j of one world, row by row: (1,2), (1,3), ..., (2,3), ...

    And of the U links of its epoch; one more stands for no link at all.
    """

    rate_bps: Array  # (P,) as in `Problems`
    latency_s: Array  # (P,)
    release_s: Array  # (P,)
    primary_up: Array  # (P,)
    state_age_s: Array  # (P,)
    backup_bps: Array  # (P,)
    link_since_s: Array  # (U+1,) time the link has been up; below 0: down for that long
    link_wait_s: Array  # (U+1,) expected time until it is up and free


def empty_hops(slots: int, links: int) -> Hops:
    """Return `Hops` of K slots, with room for U links."""
    fields = {name: np.zeros(slots * (slots + 1) // 2) for name in Hops._fields}
    fields["link_since_s"] = np.full(links + 1, np.inf)
    fields["link_wait_s"] = np.zeros(links + 1)
    return Hops(**fields)


class Forecast(NamedTuple):
    """What orbits determine for the next F epochs, the current one first (fewer at the end of the plan)."""

    chain: Ints  # (F, K) satellite of each slot, numbered within the episode
    rate_bps: Array  # (F, K, K+1) of the primary routes chosen then
    latency_s: Array  # (F, K, K+1)
    light: Array  # (F, K) of the satellites of the current chain


@dataclass(frozen=True)
class PlanningProblem:
    """One decision: row `index` of a batch of `Problems`, with the constants of its scenario.

    Attributes
    ----------
    costs : Costs
        Seconds, bytes and errors of every choice: what the planners of `sat_env.planning` read.
    problems : Problems or None
        The physical state behind them, batch of 1 (B = 1 row view); None for a problem built by `from_arrays`.
    world : World or None
        Constants of the scenario; None likewise.
    """

    costs: Costs
    problems: Problems | None = None
    world: World | None = None
    forecast_epochs: int = 8

    @classmethod
    def from_arrays(cls, *args: Any, **kwargs: Any) -> PlanningProblem:
        """Build a problem from layer times and link rates of your own; arguments as `costs_from_arrays`.

        Examples
        --------
        >>> import numpy as np
        >>> from sat_env.planning.exact import solve
        >>> problem = PlanningProblem.from_arrays(
        ...     compute_s=[[0.2, 0.2, 0.2], [0.1, 0.1, 0.1], [0.02, 0.02, 0.02]],
        ...     boundary_bytes=[2e6, 1e6, 1e6, 1e3],
        ...     rate_bps=np.full((2, 3), 50e6),
        ...     micro_batches=8,
        ... )
        >>> solve(problem.costs).cuts.tolist()
        [1, 1]
        """
        return cls(costs=costs_from_arrays(*args, **kwargs))

    @property
    def slots(self) -> int:
        """K, satellite slots of the chain."""
        return int(self.costs.rate_bps.shape[0])

    @property
    def blocks(self) -> int:
        """L, blocks of the model."""
        return int(self.costs.compute_s.shape[1])

    @property
    def levels(self) -> int:
        """R, compression levels."""
        return int(self.costs.boundary_bytes.shape[1])

    def forecast(self) -> Forecast:
        """Return what orbits determine for the coming epochs."""
        if self.problems is None or self.world is None:
            raise ValueError("forecast: this problem was built from arrays and has no orbits behind it")
        first = int(self.problems.epoch[0])
        left = int(self.problems.epochs_left[0])
        rows = slice(first, first + min(self.forecast_epochs, left))
        window = first // self.world.episode_epochs
        nodes = self.world.window_nodes[window, self.world.chain[first]]
        return Forecast(
            chain=self.world.chain[rows],
            rate_bps=self.world.route_rate_bps[rows, 0, 0],
            latency_s=self.world.route_latency_s[rows, 0],
            light=self.world.light[rows][:, nodes],
        )


def row(problems: Problems, b: int) -> Problems:
    """Return world `b` as a batch of one: copies, so that a policy may keep them."""
    return Problems._make(field[b : b + 1].copy() for field in problems)


def planning_problem(world: World, problems: Problems, b: int, forecast_epochs: int) -> PlanningProblem:
    """Return the PlanningProblem of world `b`."""
    single = row(problems, b)
    batch = tabulate(world, single)
    costs = Costs._make(field[0] for field in batch)  # type: ignore[index]
    return PlanningProblem(costs, single, world, forecast_epochs)


def tabulate(world: World, problems: Problems) -> Costs:
    """Return the `Costs` of a batch of problems: every array has a leading axis (B,)."""
    worlds, slots = problems.busy_s.shape[0], problems.rate_bps.shape[1]
    blocks, levels = len(world.block_flops), world.boundary_bytes.shape[1]
    arrays = dict(
        compute_s=np.empty((worlds, slots + 1, blocks)),
        boundary_bytes=np.empty((worlds, blocks + 1, levels)),
        encode_s=np.zeros((worlds, slots + 1, blocks + 1, levels)),
        decode_s=np.zeros((worlds, slots + 1, blocks + 1, levels)),
        rate_bps=problems.rate_bps.copy(),
        latency_s=problems.latency_s.copy(),
        stage_release_s=problems.busy_s.copy(),
        hop_release_s=_sending_from_s(problems),
        load_s=np.empty((worlds, slots + 1, blocks)),
        memory_bytes=np.repeat(world.block_memory_bytes[None], worlds, axis=0),
        memory_free_bytes=problems.memory_free_bytes.copy(),
        error=world.error[None] * problems.content[:, None, None],
        error_budget=np.full(worlds, world.error_budget),
        micro_batches=np.full(worlds, world.micro_batches),
        ground_hosts=np.full(worlds, world.ground_hosts),
        n_tokens=np.full(worlds, int(world.tokens)),
        token_compute_s=np.zeros((worlds, slots + 1, blocks)),
        token_bytes=np.zeros((worlds, blocks + 1, levels)),
        return_s=np.zeros((worlds, slots + 1)),
    )
    batch = Costs(**arrays)  # type: ignore[arg-type]  # scalars become arrays (B,) in a batch
    _fill_costs(Handle(world), Handle(problems), batch)
    return batch


def _sending_from_s(problems: Problems) -> Array:
    """Return (B, K, K+1) from when each hop carries bits: slot 0, which holds the input, may be rebooting."""
    from_s = problems.release_s.copy()
    from_s[:, 0] = np.maximum(from_s[:, 0], problems.reboot_s[:, :1])
    return from_s


@part
def block_seconds(flops, weight_bytes, items, flops_per_s, bandwidth):  # type: ignore[no-untyped-def]
    """Return the time of one block on one micro-batch: the longer of arithmetic and reading the weights."""
    if flops_per_s <= 0.0:
        return np.inf
    return max(flops * items / flops_per_s, weight_bytes / bandwidth)


@kernel
def _fill_costs(world, problems, batch):  # type: ignore[no-untyped-def]
    slots = problems.rate_bps.shape[1]
    blocks = world.block_flops.shape[0]
    levels = world.boundary_bytes.shape[1]
    for b in range(problems.busy_s.shape[0]):
        size = problems.items[b] / world.micro_batches
        for k in range(slots + 1):
            flops_per_s = problems.flops_per_s[b, k]
            bandwidth = problems.bandwidth_bytes_per_s[b, k]
            first = problems.resident[b, k, 0]
            last = problems.resident[b, k, 1]
            for block in range(blocks):
                weights = world.block_bytes[block]
                batch.compute_s[b, k, block] = block_seconds(
                    world.block_flops[block], weights, size, flops_per_s, bandwidth
                )
                inside = k == slots or first <= block < last
                batch.load_s[b, k, block] = 0.0 if inside else weights / problems.load_bytes_per_s[b, k]
                if world.tokens > 0.0:
                    batch.token_compute_s[b, k, block] = block_seconds(
                        world.token_flops[block], weights, size, flops_per_s, bandwidth
                    )
            for level in range(levels):
                for block in range(blocks + 1):
                    entries = world.boundary_entries[block] * size
                    batch.encode_s[b, k, block, level] = entries / world.encode_entries_per_s[level]
                    batch.decode_s[b, k, block, level] = entries / world.decode_entries_per_s[level]
            if world.tokens > 0.0 and k < slots:
                batch.return_s[b, k] = problems.latency_s[b, 0, k] if k > 0 else 0.0
        if world.tokens > 0.0:
            batch.return_s[b, slots] = problems.latency_s[b, 0, slots]
        for block in range(blocks + 1):
            for level in range(levels):
                batch.boundary_bytes[b, block, level] = world.boundary_bytes[block, level] * size
                batch.token_bytes[b, block, level] = world.token_bytes[block, level] * size
