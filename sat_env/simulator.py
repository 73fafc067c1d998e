"""B worlds, and one step of them.

A step of a world reads top to bottom in `step_world`: repair the plan, execute the job on the true trace,
book time and energy, move to the next epoch, describe the next problem. Times are seconds since the start
of the episode. Everything is a numba kernel over arrays; B = 1 is the single environment.
"""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sat_env.execution import (
    accuracy_drop,
    assemble,
    book_time,
    book_use,
    calm_hops,
    expect,
    give_routes,
    return_latency_s,
    run_calm,
)
from sat_env.handles import Handle
from sat_env.kernels import kernel, part, prefetch
from sat_env.knowledge import (
    advance_battery,
    describe,
    describe_hops,
    describe_job,
    describe_slots,
    describe_worlds,
    forget_future,
    meet_outages,
    see_hops,
)
from sat_env.observation import encode_hops, encode_row, encode_slots, vector_size
from sat_env.pipeline import JobRun, job_run, run, run_job
from sat_env.plan import fit
from sat_env.problem import PlanningProblem, Problems, empty_hops, empty_problems, planning_problem
from sat_env.reward import TERMS, reward_terms
from sat_env.scenario import Scenario
from sat_env.state import State, empty_outcome, empty_state
from sat_env.trace import (
    INITIAL_INTERVALS,
    STREAM_WINDOW,
    Trace,
    draw_trace,
    fill,
    key_of_stream,
    redraw_links,
    redraw_rest,
    uniform,
)
from sat_env.world import Prepared, World, prepare

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
NO_PLAN = -1  # a first cut of this declines the job
AHEAD = 6  # worlds between the one that is stepped and the one that is fetched


class Scratch(NamedTuple):
    """Work space of a step: what is hot while one world is stepped. Only `job` is read afterwards."""

    job: Any  # handle of a JobRun: the job as it is run
    here: Any  # handle of Problems of one world: the decision
    stage_slot: Ints  # (K+1,) slot of each stage in use
    stage_end: Ints  # (K+1,) block each stage ends before
    hops: Any  # handle of Hops: what is seen of the hops of one world


@part
def step_world(world, trace, state, problems, described, outcome, scratch, cuts, levels, b):  # type: ignore[no-untyped-def]
    """Take one step of world `b` under the plan (cuts, levels); the outcome of the job goes to `outcome`.

    `described` says that row `b` of `problems` holds the decision. Otherwise the job is run on what is looked
    up now, which is the same; the last decision of an episode is left there to be read when it is over.

    Returns
    -------
    over : bool
        The window is used up.
    """
    t = state.epoch[b] - state.start[b]
    now = t * world.epoch_s
    deadline_s = now + world.deadline_s
    over = t + 1 >= world.episode_epochs
    job, stage_slot, stage_end = scratch.job, scratch.stage_slot, scratch.stage_end
    decision, row = scratch.here, np.int64(0)
    knows_hops = described or over or world.weights_from_neighbour
    if described or over:
        decision, row = problems, b
    if knows_hops and not described:
        describe(world, trace, state, b, decision, row, scratch.hops)
    elif not knows_hops:
        describe_job(world, trace, state, b, decision, row)

    outcome.bytes[b] = 0.0
    outcome.energy_j[b] = 0.0
    outcome.reload_bytes[b] = 0.0
    outcome.accuracy_drop[b] = 0.0
    job.extent[0] = 0
    fill(outcome.hop_bits[b], 0.0)
    fill(outcome.slot_j[b], 0.0)

    feasible, repaired, over_limit = False, False, False
    if cuts[b, 0] != NO_PLAN:
        feasible, repaired = fit(
            cuts[b], world.block_memory_bytes, decision.memory_free_bytes[row], world.ground_hosts
        )
    end_s = deadline_s
    if feasible:
        stages, outcome.reload_bytes[b], error = assemble(
            world, trace, state, decision, row, job, b, cuts[b], levels[b], stage_slot, stage_end
        )
        outcome.accuracy_drop[b] = accuracy_drop(world.drop_knots, error)
        over_limit = error > world.error_budget * (1.0 + 1e-12)
        calm_until_s = calm_hops(world, trace, state, job, b, stages, stage_slot)
        end_s = math.inf
        job.extent[0] = stages
        job.extent[1] = 1
        if calm_until_s > now and world.tokens <= 0.0:
            end_s = run_calm(job, stages, now, min(calm_until_s, deadline_s), world.micro_batches)
        if end_s == math.inf:
            job.extent[1] = 0
            if not knows_hops:
                describe_hops(world, trace, state, b, decision, row, scratch.hops)
            give_routes(world, trace, state, job, b, stages, stage_slot)
            # What ends before the next decision leaves nobody busy; only this needs the books of time.
            expect(world, state, decision, row, job, b, stages, stage_slot, stage_end)
            end_s = run_job(
                job,
                stages,
                now,
                deadline_s,
                world.epoch_s,
                world.reboot_s,
                world.detect_s,
                world.tokens,
                return_latency_s(decision, row, stages, stage_slot, stage_end),
                trace.link_down_s[b],
            )
            book_time(world, state, job, b, stages, stage_slot, stage_end, end_s)
        book_use(world, state, decision, row, job, outcome, b, stages, stage_slot, stage_end)
        for k in range(cuts.shape[1]):
            state.previous_cuts[b, k] = cuts[b, k]
            state.previous_levels[b, k] = levels[b, k]
    dropped = feasible and end_s >= deadline_s
    failed = dropped or over_limit or not feasible
    outcome.latency_s[b] = world.deadline_s if failed else end_s - now
    outcome.failed[b] = 1.0 if failed else 0.0
    outcome.dropped[b] = 1.0 if dropped else 0.0
    outcome.infeasible[b] = 0.0 if feasible else 1.0
    outcome.repaired[b] = 1.0 if repaired else 0.0

    state.epoch[b] += 1
    if over:
        for v in range(state.battery_j.shape[1]):
            node = world.window_nodes[trace.window[b], v]
            if node >= 0:
                advance_battery(world, state, b, v, node, state.epoch[b])
        for k in range(cuts.shape[1]):
            problems.previous_cuts[b, k] = state.previous_cuts[b, k]
            problems.previous_levels[b, k] = state.previous_levels[b, k]
    return over


@part
def begin_world(world, trace, state, b):  # type: ignore[no-untyped-def]
    """Put world `b` at the start of the episode whose trace was drawn."""
    start = trace.window[b] * world.episode_epochs
    state.start[b] = start
    state.epoch[b] = start
    first_fault_s = math.inf
    for v in range(state.battery_j.shape[1]):
        state.battery_j[b, v] = trace.charge[b, v] * world.power.capacity_j
        state.battery_epoch[b, v] = start
        fill(state.draw_j[b, v], 0.0)
        fill(state.resident[b, v], 0)
        state.busy_s[b, v] = 0.0
        state.expected_busy_s[b, v] = 0.0
        state.resets_known_s[b, v] = 0.0
        first_fault_s = min(first_fault_s, trace.lost_s[b, v], trace.reset_s[b, v, 0])
    state.first_fault_s[b] = first_fault_s
    state.slots_free_s[b] = 0.0
    for w in range(state.link_next_s.shape[1]):
        meet_outages(trace, state, b, w, 0.0)
    fill(state.link_busy_s[b], 0.0)
    fill(state.expected_link_busy_s[b], 0.0)
    state.links_free_s[b] = 0.0
    state.ground_busy_s[b] = 0.0
    state.expected_ground_busy_s[b] = 0.0
    fill(state.energy_j[b], 0.0)
    fill(state.previous_cuts[b], 0)
    fill(state.previous_levels[b], 0)


@part
def fetch_ahead(world, trace, state, b):  # type: ignore[no-untyped-def]
    """Have what the next step of world `b` reads brought into the cache: worlds lie far apart in memory."""
    epoch = state.epoch[b]
    if epoch >= state.start[b] + world.episode_epochs:
        return
    for k in range(0, world.chain.shape[1], 2):  # neighbours on the chain share lines of the cache
        v = world.chain[epoch, k]
        prefetch(state.battery_j, (b, v))
        prefetch(state.battery_epoch, (b, v))
        prefetch(state.draw_j, (b, v, 0))
        prefetch(state.resident, (b, v, 0))
    for n in range(world.epoch_links.shape[1]):
        link = world.epoch_links[epoch, n]
        if link < 0:
            break
        prefetch(state.link_up_s, (b, link))
        prefetch(state.link_next_s, (b, link))
    t = epoch - state.start[b]
    prefetch(trace.items, (b, t))
    prefetch(trace.content, (b, t))
    prefetch(trace.downlink_factor, (b, t, 0))
    prefetch(trace.downlink_factor, (b, t + 1, 0))
    prefetch(state.previous_cuts, (b, 0))
    prefetch(state.previous_levels, (b, 0))


@kernel
def play_worlds(  # type: ignore[no-untyped-def]
    world,
    trace,
    state,
    problems,
    described,
    outcome,
    scratch,
    which,
    moves,
    cuts,
    levels,
    over,
    terms,
    forecast_epochs,
    seen,
):
    """Take one step of the worlds `which` that move and are not over, and look at all of `which`.

    A world is stepped, paid and seen while it is in the processor's cache.

    Parameters
    ----------
    described : bool
        `problems` holds the decisions of all worlds.
    which : (n,) int64
    moves, over : (B,) bool
        `over` is written.
    terms : (B, 5)
        Written: the terms of the reward and their sum (see `reward`).
    forecast_epochs : int
        Scales an entry of the observation.
    seen : (B, D) or (0, D) float32
        Written: what agents see (see `observation`); no rows: nobody looks.
    """
    for n in range(which.shape[0]):
        b = which[n]
        if n + AHEAD < which.shape[0]:
            fetch_ahead(world, trace, state, which[n + AHEAD])
        moved = moves[b] and not over[b]
        if moved:
            over[b] = step_world(world, trace, state, problems, described, outcome, scratch, cuts, levels, b)
            reward_terms(world, outcome, b, terms[b])
        if seen.shape[0] > 0:
            if over[b] or (described and not moved):
                encode_row(world, problems, b, scratch.hops, forecast_epochs, seen[b])
            else:
                describe_slots(world, trace, state, b, scratch.here, np.int64(0))
                see_hops(world, trace, state, b, scratch.hops)
                encode_slots(world, scratch.here, np.int64(0), forecast_epochs, seen[b])
                encode_hops(world, scratch.hops, seen[b])


@kernel
def begin_worlds(  # type: ignore[no-untyped-def]
    world,
    trace,
    state,
    which,
    seeds,
    episodes,
    windows,
    link_ends,
    link_is_downlink,
    planes,
    anomaly,
):
    """Draw the traces of the worlds `which` and put them at their start.

    Returns
    -------
    outages, resets : int
        What the trace must have room for; when it has less, nothing is begun and the caller grows it.
    """
    outages = 0
    resets = 0
    for i in range(which.shape[0]):
        b = which[i]
        window = windows[b]
        first = window * world.episode_epochs
        found = draw_trace(
            seeds[b],
            episodes[b],
            b,
            window,
            trace,
            world.law,
            world.outages,
            world.window_links[window],
            link_ends,
            link_is_downlink,
            world.window_nodes[window],
            planes,
            anomaly[first : first + world.episode_epochs],
            world.window_downlinks[window],
        )
        outages = max(outages, found[0])
        resets = max(resets, found[1])
    if outages <= trace.link_down_s.shape[2] and resets <= trace.reset_s.shape[2]:
        for i in range(which.shape[0]):
            begin_world(world, trace, state, which[i])
    return outages, resets


@kernel
def draw_windows(which, seeds, episodes, first, count, windows):  # type: ignore[no-untyped-def]
    """Write which of the split's `count` windows, from `first` on, the next episodes of `which` play."""
    for i in range(which.shape[0]):
        b = which[i]
        windows[b] = first + int(uniform(key_of_stream(seeds[b], episodes[b], STREAM_WINDOW), 0, 0) * count)


def split_windows(windows: int, split: Split) -> range:
    """Return the windows of a split: the first 60 % train, then 20 % dev, then 20 % test."""
    edges = {"train": (0.0, 0.6), "dev": (0.6, 0.8), "test": (0.8, 1.0)}
    if not isinstance(split, str) or split not in edges:
        raise ValueError(f"split = {split!r}: must be one of {', '.join(map(repr, edges))}")
    low, high = (round(windows * share) for share in edges[split])
    return range(low, high)


def job_for(world: World, trace: Trace) -> JobRun:
    """Return an empty `JobRun` with room for any job of a scenario on such a trace."""
    slots, span, links = world.chain.shape[1], world.route_rate_bps.shape[1], world.route_links.shape[4]
    return job_run(slots + 1, world.micro_batches, span, links, trace.reset_s.shape[2])


def make_scratch(world: World, job: JobRun) -> Scratch:
    """Return work space to step the worlds of a scenario in."""
    slots = world.chain.shape[1]
    return Scratch(
        job=Handle(job),
        here=Handle(empty_problems(1, slots)),
        stage_slot=np.zeros(slots + 1, np.int64),
        stage_end=np.zeros(slots + 1, np.int64),
        hops=Handle(empty_hops(slots, world.epoch_links.shape[1])),
    )


class Snapshot(NamedTuple):
    """A copy of a simulator's worlds."""

    scenario: Scenario
    trace: Trace
    state: State
    problems: Problems
    seeds: NDArray[np.uint64]
    episodes: Ints
    over: NDArray[np.bool_]


ArraysT = TypeVar("ArraysT", Trace, State, Problems)


def copy_arrays(arrays: ArraysT) -> ArraysT:
    """Return the same NamedTuple over copies of its arrays."""
    return type(arrays)._make(field.copy() for field in arrays)


class Handles(NamedTuple):
    """The simulator's arrays as the kernels take them."""

    world: Handle
    trace: Handle
    state: Handle
    problems: Handle
    outcome: Handle
    scratch: Handle


def world_seeds(seed: Any, worlds: int) -> NDArray[np.uint64]:
    """Return the seeds (n,) of worlds that count from `seed`.

    Raises
    ------
    ValueError
        The seed is no whole number, or leaves what 64 bits hold.
    """
    last = 2**64 - worlds
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) <= last:
        raise ValueError(f"seed = {seed!r}: must be a whole number in 0..{last}")
    return np.uint64(int(seed)) + np.arange(worlds, dtype=np.uint64)


class Simulator:
    """B worlds of one scenario: the arrays of `State`, `Trace` and `Problems`, and the kernels over them.

    Parameters
    ----------
    prepared : Prepared
        From `sat_env.world.prepare`.
    worlds : int
        B, at least 1.
    split : {"train", "dev", "test"}
        Which windows episodes are drawn from.
    """

    def __init__(self, prepared: Prepared, worlds: int = 1, split: Split = "train") -> None:
        if not isinstance(worlds, int | np.integer) or worlds < 1:
            raise ValueError(f"worlds = {worlds!r}: must be an integer, at least 1")
        self.prepared = prepared
        self.world = prepared.world
        self.worlds = worlds
        self.split = split
        self.windows = split_windows(prepared.scenario.windows, split)
        world = self.world
        slots, levels = world.chain.shape[1], len(world.encode_entries_per_s)
        self.slots, self.blocks, self.levels = slots, len(world.block_flops), levels
        self.seeds = np.zeros(worlds, np.uint64)
        self.episodes = np.zeros(worlds, np.int64)
        self.state = empty_state(world, worlds)
        self._problems = empty_problems(worlds, slots)
        self._described = False
        self.outcome = empty_outcome(worlds, slots)
        self.over = np.ones(worlds, np.bool_)
        self.cuts = np.zeros((worlds, slots), np.int64)
        self.plan_levels = np.zeros((worlds, slots), np.int64)
        self.trace = self._empty_trace(INITIAL_INTERVALS, 1)
        self._all = np.arange(worlds)
        self._every, self._none = np.ones(worlds, np.bool_), np.zeros(worlds, np.bool_)
        self._terms = np.zeros((worlds, len(TERMS) + 1))
        self._forecast_epochs = prepared.scenario.forecast_epochs
        self._unseen = np.zeros((0, vector_size(slots)), np.float32)
        self._point()

    def _point(self) -> None:
        """Make the work space and the handles the kernels take; again whenever an array is replaced."""
        self.job = job_for(self.world, self.trace)
        self.handles = Handles(
            world=self.prepared.handle,
            trace=Handle(self.trace),
            state=Handle(self.state),
            problems=Handle(self._problems),
            outcome=Handle(self.outcome),
            scratch=Handle(make_scratch(self.world, self.job)),
        )

    def _empty_trace(self, outages: int, resets: int) -> Trace:
        world, worlds = self.world, self.worlds
        nodes, links = world.window_nodes.shape[1], world.window_links.shape[1]
        epochs, span = world.episode_epochs, world.route_rate_bps.shape[1]
        stations = max(1, len(self.prepared.scenario.ground.stations))
        return Trace(
            window=np.zeros(worlds, np.int64),
            link_down_s=np.full((worlds, links, outages, 2), np.inf),
            reset_s=np.full((worlds, nodes, resets), np.inf),
            lost_s=np.full((worlds, nodes), np.inf),
            items=np.ones((worlds, epochs)),
            content=np.ones((worlds, epochs)),
            downlink_factor=np.ones((worlds, epochs + span, stations)),
            rain_db=np.zeros((worlds, epochs + span, stations)),
            charge=np.ones((worlds, nodes)),
        )

    def _grow_trace(self, outages: int, resets: int) -> None:
        old = self.trace
        outages = max(outages, old.link_down_s.shape[2])
        resets = max(resets, old.reset_s.shape[2])
        new = self._empty_trace(outages, resets)
        for name in Trace._fields:
            if name not in ("link_down_s", "reset_s"):
                getattr(new, name)[...] = getattr(old, name)
        new.link_down_s[:, :, : old.link_down_s.shape[2]] = old.link_down_s
        new.reset_s[:, :, : old.reset_s.shape[2]] = old.reset_s
        self.trace = new
        self._point()

    def begin(
        self,
        which: Ints | None = None,
        seeds: NDArray[np.uint64] | None = None,
        windows: Ints | None = None,
    ) -> None:
        """Start an episode in the worlds `which` (default all).

        Parameters
        ----------
        which : (n,) int64
        seeds : (n,) uint64, optional
            New seeds; the episode count starts again from 0. Without them, the next episode of the old seed.
        windows : (n,) int64, optional
            The windows to play; default: drawn from the split by the seed.
        """
        if which is None:
            which = np.arange(self.worlds)
        for window in np.atleast_1d([] if windows is None else windows):
            if window not in self.windows:
                raise ValueError(
                    f"window = {window}: must be in {self.windows.start}..{self.windows.stop - 1}, "
                    f"the {self.split} windows"
                )
        if seeds is not None:
            self.seeds[which] = seeds
            self.episodes[which] = 0
        chosen = np.array(self.trace.window)
        if windows is None:
            draw_windows(which, self.seeds, self.episodes, self.windows.start, len(self.windows), chosen)
        else:
            chosen[which] = windows
        while True:
            contacts = self.prepared.contacts
            outages, resets = begin_worlds(
                self.handles.world,
                self.handles.trace,
                self.handles.state,
                which,
                self.seeds,
                self.episodes,
                chosen,
                contacts.link_ends,
                contacts.link_is_downlink,
                contacts.plane,
                contacts.anomaly,
            )
            if outages <= self.trace.link_down_s.shape[2] and resets <= self.trace.reset_s.shape[2]:
                break
            self._grow_trace(outages, resets)
        self.episodes[which] += 1
        self.over[which] = False
        if self.worlds - 1 in which:
            self.job.extent[0] = 0  # the last job was one of an episode before
        self._described = False

    @property
    def problems(self) -> Problems:
        """The current decisions; of a world whose episode is over, the last one."""
        if not self._described:
            describe_worlds(
                self.handles.world,
                self.handles.trace,
                self.handles.state,
                self.handles.problems,
                self.over,
                self.handles.scratch.fields.hops,
            )
            self._described = True
        return self._problems

    def step(self, cuts: Ints, levels: Ints) -> None:
        """Take one step of every running world.

        Parameters
        ----------
        cuts, levels : (B, K) int64
            Plans; trusted to be in range (encodings guarantee it, `Plan.check` checks it). A first cut of
            `NO_PLAN` declines the job.
        """
        self.cuts[...] = cuts
        self.plan_levels[...] = levels
        self._play(self._all, self._every, self._unseen)
        self._described = False

    def play(self, moves: NDArray[np.bool_], seen: NDArray[np.float32]) -> Array:
        """Take one step, under the plans in `cuts` and `plan_levels`, of the worlds that move; see all.

        Parameters
        ----------
        moves : (B,) bool
        seen : (B, D) float32
            Written: the observations (see `sat_env.observation`).

        Returns
        -------
        terms : (B, 5)
            The reward's terms and their sum; written over by the next call.
        """
        self._play(self._all, moves, seen)
        self._described = False
        return self._terms

    def look(self, which: Ints, seen: NDArray[np.float32]) -> None:
        """Write the observations of the worlds `which` into their rows of ``seen`` (B, D)."""
        self._play(which, self._none, seen)

    def _play(self, which: Ints, moves: NDArray[np.bool_], seen: NDArray[np.float32]) -> None:
        play_worlds(
            self.handles.world,
            self.handles.trace,
            self.handles.state,
            self.handles.problems,
            self._described,
            self.handles.outcome,
            self.handles.scratch,
            which,
            moves,
            self.cuts,
            self.plan_levels,
            self.over,
            self._terms,
            self._forecast_epochs,
            seen,
        )

    def snapshot(self) -> Snapshot:
        """Return a copy of everything the worlds will ever depend on; plain arrays, so it can be pickled."""
        problems = copy_arrays(self.problems)  # first: describing brings the state up to date
        return Snapshot(
            scenario=self.prepared.scenario,
            trace=copy_arrays(self.trace),
            state=copy_arrays(self.state),
            problems=problems,
            seeds=self.seeds.copy(),
            episodes=self.episodes.copy(),
            over=self.over.copy(),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Put the worlds back where `snapshot` was taken.

        Raises
        ------
        ValueError
            The snapshot is of another number of worlds, or of another scenario.
        """
        if snapshot.scenario != self.prepared.scenario:
            raise ValueError(
                f"snapshot = of {snapshot.scenario.name} ({snapshot.scenario.hash()}): must be of "
                f"{self.prepared.scenario.name} ({self.prepared.scenario.hash()})"
            )
        if len(snapshot.seeds) != self.worlds:
            raise ValueError(f"snapshot = {len(snapshot.seeds)} worlds: must be {self.worlds}")
        self.trace = copy_arrays(snapshot.trace)
        self.state = copy_arrays(snapshot.state)
        self._problems = copy_arrays(snapshot.problems)
        self._described = True
        self.seeds[...] = snapshot.seeds
        self.episodes[...] = snapshot.episodes
        self.over[...] = snapshot.over
        self._point()

    def imagine(self, seed: int) -> Simulator:
        """Return a copy of the worlds whose future is drawn afresh: for agents that look ahead.

        The copy starts from what is known now, and from the batteries and weights of satellites off the chain, which a
        problem does not tell; faults, weather and jobs after now are drawn from `seed` alone, so the copy
        tells nothing of the true trace. Servers that are overdue are free when they are expected to be.

        Raises
        ------
        ValueError
            An episode is over, or `seed` is no seed.
        """
        fresh_seeds = world_seeds(seed, self.worlds)
        if self.over.any():
            raise ValueError("imagine: the episode of a world is over; begin it first")
        copy = Simulator(self.prepared, self.worlds, self.split)
        copy.restore(self.snapshot())
        contacts, law, outages = self.prepared.contacts, self.world.law, self.world.outages
        for b in range(self.worlds):
            window = int(self.trace.window[b])
            t = int(self.state.epoch[b] - self.state.start[b])
            now = t * self.world.epoch_s
            forget_future(copy.handles.world, copy.handles.trace, copy.handles.state, b)
            links, nodes = self.world.window_links[window], self.world.window_nodes[window]
            first = int(self.state.start[b])
            anomaly = contacts.anomaly[first : first + self.world.episode_epochs]
            while True:
                horizon_s = copy.trace.downlink_factor.shape[1] * self.world.epoch_s
                intervals = redraw_links(
                    law,
                    outages,
                    self.seeds[b],
                    self.episodes[b] - 1,
                    fresh_seeds[b],
                    links,
                    contacts.link_ends,
                    contacts.link_is_downlink,
                    contacts.plane,
                    now,
                    horizon_s,
                    copy.trace.link_down_s[b],
                )
                fresh = np.empty(copy.trace.reset_s.shape[2] + 8)
                resets = redraw_rest(
                    law,
                    fresh_seeds[b],
                    now,
                    t,
                    nodes,
                    contacts.plane,
                    anomaly,
                    copy.handles.trace,
                    b,
                    fresh,
                )
                if intervals <= copy.trace.link_down_s.shape[2] and resets <= copy.trace.reset_s.shape[2]:
                    break
                copy._grow_trace(intervals, resets)
        return copy

    def __getstate__(self) -> tuple[Any, ...]:
        return self.split, self.snapshot()

    def __setstate__(self, saved: tuple[Any, ...]) -> None:
        split, snapshot = saved
        self.__init__(prepare(snapshot.scenario), len(snapshot.seeds), split)  # type: ignore[misc]
        self.restore(snapshot)

    def last_times_s(self) -> NDArray[np.float64]:
        """Return when the last job of the last world was computed and sent: `times_s` of `pipeline.JobRun`.

        (S, M, 4) for the S stages in use, the sensing slot first and the ground last; none for a job that
        was not run. A job that met nothing was run by its end points alone; it is run again in full here.
        """
        stages, by_end_points = (int(value) for value in self.job.extent)
        if stages > 0 and by_end_points:
            job, world = self.job, self.world
            job.route_rate_bps[:, 0, :] = job.route_rate_bps[:, 0, :1]
            job.route_links[...] = -1
            now = float(self.state.epoch[-1] - 1 - self.state.start[-1]) * world.epoch_s
            times = (now, now + world.deadline_s, world.epoch_s, world.reboot_s, world.detect_s)
            run(self.handles.scratch.fields.job, stages, *times, 0.0, 0.0, self.trace.link_down_s[-1])
            job.extent[1] = 0
        return self.job.times_s[:stages].copy()

    def problem(self, b: int = 0) -> PlanningProblem:
        """Return the PlanningProblem of world `b`."""
        return planning_problem(self.world, self.problems, b, self.prepared.scenario.forecast_epochs)
