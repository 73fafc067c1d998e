"""One job through a pipeline of satellites, as a discrete-event simulation in simpy.

Independent of `sat_env.pipeline`, which computes the same times by a recurrence. Nothing here knows that
recurrence: stages and hops are processes that take slots, wait and send. Times are seconds from 0, the job's
release.

**Order.** Stage k (0..K-1) computes micro-batches 0..M-1 in order, one at a time; hop k (0..K-2) carries them
in order, one at a time, from stage k to stage k+1. All are at stage 0 at time 0.

**Slots.** A micro-batch takes one of the hop's `out_slots` when its compute on stage k starts, and gives it
back when its transfer ends. It takes one of the hop's `in_slots` when its transfer starts, and gives it back
when its compute on stage k+1 ends; the sender learns of that `credit_s` later. Compute on stage k starts as
soon as the micro-batch has arrived, the stage has finished the one before, an out slot is free, the release
time is over and the stage is available. A transfer starts as soon as the micro-batch is computed, the hop has
finished the one before, the credit for an in slot is there and the release time is over, *whether or not a
route is up*: it then holds the hop and waits.

**Arrival.** A transfer ends when its last bit is out. The micro-batch arrives `latency_s` later, that of the
route which carried the last bit; propagation does not occupy the hop, and later micro-batches may arrive
earlier (they wait their turn).

**Rate.** Piecewise constant: `rate_bps[i]` on [rate_start_s[i], rate_start_s[i+1]), the last one for ever. A
rate of 0 is a gap of the contact: known beforehand, so it breaks nothing and is noticed at once.

**Routes.** A route is down in its gaps and on half-open intervals [down, up), which may overlap (it has several
links); `up` may be inf. What overlaps or touches is one outage. It is noticed `detect_s` after the first of its
intervals starts, even if that lies before the transfer, or when a gap starts in it. Every transfer starts on
the primary. It leaves the route it is on only when the outage there is noticed and the other route is up; until
then it waits for the earliest of: its route comes up, or, once noticed, the other route comes up. If both
happen at one time it stays. The recovery of the primary alone does not call a transfer back from the backup; the next
micro-batch starts on the primary again. The rule is symmetric: a backup that goes down is left for the
primary in the same way.

**Breaks.** If the route in use goes down at t with bits left to send, those put on it since max(t -
2*latency_s, the last time the transfer (re)started sending on it) are unacknowledged: they count as sent, and
are sent again. A transfer whose last bit is out at t or before is delivered. Changes of rate, and 2*latency_s
itself, break nothing.

**Resets.** A reset at t makes the stage unavailable on [t, t + reboot_s + reload_s); windows may overlap. A
compute that ends at t or before is kept; one that would end later is lost and starts again, from its
beginning, when the stage is available. One that would start inside a window starts when the stage is
available. Micro-batches that have arrived, wait to be sent or are being sent are kept, and hops do not
notice: an outage of a hop is given as such. `reboot_s` may be inf.

**Never.** What does not happen has time inf.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np
import simpy

Process = Generator[simpy.Event, object, None]
FOREVER = 1_000_000  # slots; as good as unlimited


@dataclass(frozen=True)
class Route:
    rate_bps: np.ndarray  # (n,)
    rate_start_s: np.ndarray = field(default_factory=lambda: np.zeros(1))  # (n,) increasing, the first 0
    latency_s: float = 0.0  # propagation
    down_s: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # (d, 2) [down, up)

    def outage(self, t: float, detect_s: float) -> tuple[float, float] | None:
        """When the outage that holds t, if any, is noticed and over."""
        ends = [*self.rate_start_s[1:], inf]
        causes = [(float(down), float(up), float(down) + detect_s) for down, up in self.down_s]
        for start, end, rate in zip(self.rate_start_s, ends, self.rate_bps, strict=True):
            if rate == 0:
                causes.append((float(start), float(end), float(start)))
        outages: list[tuple[float, float, float]] = []  # noticed, start, end
        for start, end, noticed in sorted(causes):
            if outages and start <= outages[-1][2]:
                before = outages.pop()
                outages.append((min(before[0], noticed), before[1], max(before[2], end)))
            else:
                outages.append((noticed, start, end))
        return next(((noticed, end) for noticed, start, end in outages if start <= t < end), None)

    def next_break(self, t: float) -> float:
        return min((float(down) for down, _ in self.down_s if down > t), default=inf)

    def rate(self, t: float) -> tuple[float, float]:
        """Rate at t, and the time of its next change."""
        index = int(np.searchsorted(self.rate_start_s, t, side="right")) - 1
        later = float(self.rate_start_s[index + 1]) if index + 1 < len(self.rate_start_s) else inf
        return float(self.rate_bps[index]), later


@dataclass(frozen=True)
class Hop:
    bits: np.ndarray  # (M,)
    primary: Route
    backup: Route | None = None
    detect_s: float = 0.0
    credit_s: float = 0.0
    out_slots: int = FOREVER
    in_slots: int = FOREVER
    release_s: float = 0.0


@dataclass(frozen=True)
class Stage:
    compute_s: np.ndarray  # (M,)
    release_s: float = 0.0
    resets_s: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (r,)
    reboot_s: float = 0.0
    reload_s: float = 0.0

    def available_from(self, t: float) -> float:
        """Earliest time at or after t outside every window of a reset."""
        while ends := [
            r + self.reboot_s + self.reload_s
            for r in self.resets_s
            if r <= t < r + self.reboot_s + self.reload_s
        ]:
            t = max(ends)
        return float(t)

    def next_reset(self, t: float) -> float:
        return min((float(reset) for reset in self.resets_s if reset > t), default=inf)


@dataclass(frozen=True)
class Timeline:
    compute_start_s: np.ndarray  # (K, M) of the attempt that was completed
    compute_end_s: np.ndarray  # (K, M)
    transfer_start_s: np.ndarray  # (K-1, M) when it took the hop
    transfer_end_s: np.ndarray  # (K-1, M) when its last bit was out
    arrival_s: np.ndarray  # (K-1, M)
    sent_bits: np.ndarray  # (K-1, 2) put on the primary and on the backup, repeats included
    busy_s: np.ndarray  # (K,) computing, lost attempts included

    @property
    def makespan_s(self) -> float:
        return float(self.compute_end_s[-1, -1])


def simulate(stages: Sequence[Stage], hops: Sequence[Hop]) -> Timeline:
    """Run one job; `hops[k]` joins `stages[k]` and `stages[k + 1]`."""
    n_stages, n_batches = len(stages), len(stages[0].compute_s)
    env = simpy.Environment()
    timeline = Timeline(
        *(np.full((n_stages, n_batches), inf) for _ in range(2)),
        *(np.full((n_stages - 1, n_batches), inf) for _ in range(3)),
        np.zeros((n_stages - 1, 2)),
        np.zeros(n_stages),
    )
    arrived = [[env.event() for _ in range(n_batches)] for _ in stages]
    computed = [[env.event() for _ in range(n_batches)] for _ in stages]
    out_slots = [simpy.Container(env, init=hop.out_slots) for hop in hops]
    in_slots = [simpy.Container(env, init=hop.in_slots) for hop in hops]

    def until(t: float) -> simpy.Event:
        return env.event() if t == inf else env.timeout(max(t - env.now, 0.0))

    def compute(k: int) -> Process:
        stage = stages[k]
        yield until(stage.release_s)
        for m, duration in enumerate(stage.compute_s):
            yield arrived[k][m]
            if k < len(hops):
                yield out_slots[k].get(1)
            while True:
                while (available := stage.available_from(env.now)) > env.now:
                    yield until(available)
                start, reset = env.now, stage.next_reset(env.now)
                if start + duration <= reset:
                    yield env.timeout(duration)
                    timeline.busy_s[k] += duration
                    break
                yield until(reset)
                timeline.busy_s[k] += reset - start
            timeline.compute_start_s[k, m], timeline.compute_end_s[k, m] = start, env.now
            computed[k][m].succeed()
            if k > 0:
                env.process(give_credit(k - 1))

    def give_credit(k: int) -> Process:
        yield env.timeout(hops[k].credit_s)
        yield in_slots[k].put(1)

    def carry(k: int) -> Process:
        yield until(hops[k].release_s)
        for m in range(n_batches):
            yield computed[k][m]
            yield in_slots[k].get(1)
            timeline.transfer_start_s[k, m] = env.now
            route = yield from send(k, float(hops[k].bits[m]))
            timeline.transfer_end_s[k, m] = env.now
            yield out_slots[k].put(1)
            env.process(propagate(k, m, route.latency_s))

    def propagate(k: int, m: int, latency_s: float) -> Process:
        yield env.timeout(latency_s)
        timeline.arrival_s[k, m] = env.now
        arrived[k + 1][m].succeed()

    def send(k: int, left: float) -> Generator[simpy.Event, object, Route]:
        """Send `left` bits over hop k; returns the route that carried the last one."""
        hop = hops[k]
        routes = [hop.primary] if hop.backup is None else [hop.primary, hop.backup]
        on = 0
        while True:
            on = yield from take_route(routes, on, hop.detect_s)
            route = routes[on]
            broken_at = route.next_break(env.now)
            pieces: list[tuple[float, float, float]] = []  # start, end, rate of what was sent without a break
            while env.now < broken_at:
                rate, changes_at = route.rate(env.now)
                if rate == 0:
                    pieces = []
                    break
                stop = min(changes_at, broken_at)
                if left <= rate * (stop - env.now) or left == 0:
                    yield env.timeout(left / rate if left else 0.0)
                    timeline.sent_bits[k, on] += left
                    return route
                start = env.now
                yield until(stop)
                pieces.append((start, env.now, rate))
                timeline.sent_bits[k, on] += rate * (env.now - start)
                left -= rate * (env.now - start)
            for start, end, rate in pieces:
                left += rate * max(end - max(start, broken_at - 2 * route.latency_s), 0.0)

    def take_route(routes: list[Route], on: int, detect_s: float) -> Generator[simpy.Event, object, int]:
        """Wait until route `on` is up, or until it may be left for the other; returns the one to use."""
        while outage := routes[on].outage(env.now, detect_s):
            noticed, up = outage
            other = 1 - on
            if len(routes) == 1:
                yield until(up)
            elif env.now < noticed:
                yield until(min(up, noticed))
            elif other_outage := routes[other].outage(env.now, detect_s):
                yield until(min(up, other_outage[1]))
            else:
                return other
        return on

    for event in arrived[0]:
        event.succeed()
    for k in range(n_stages):
        env.process(compute(k))
    for k in range(n_stages - 1):
        env.process(carry(k))
    env.run()
    return timeline


def random_pipeline(rng: np.random.Generator) -> tuple[list[Stage], list[Hop]]:
    """Draw a small pipeline in which every feature is present half of the time, at sizes that make it matter.

    Times are of order 1 s: compute about 1 s, transfers about 1 s, some 10 s in all.
    """
    n_stages, n_batches = int(rng.integers(1, 6)), int(rng.integers(1, 9))
    differ, vary, breaks, backups, resets, late = rng.random(6) < 0.5

    def sizes(mean: float) -> np.ndarray:
        return mean * (rng.uniform(0.3, 1.7, n_batches) if differ else np.ones(n_batches))

    def route() -> Route:
        n_rates = int(rng.integers(2, 8)) if vary else 1
        n_breaks = int(rng.integers(0, 4)) if breaks else 0
        return Route(
            rate_bps=rng.uniform(0.3, 3.0, n_rates),
            rate_start_s=np.concatenate([[0.0], np.sort(rng.uniform(0.0, 12.0, n_rates - 1))]),
            latency_s=float(rng.choice([0.0, rng.uniform(0.0, 0.6)])),
            down_s=np.sort(rng.uniform(0.0, 15.0, 2 * n_breaks)).reshape(-1, 2),
        )

    def slots() -> int:
        return int(rng.choice([1, 2, 3, FOREVER]))

    def stage() -> Stage:
        return Stage(
            compute_s=sizes(float(rng.uniform(0.0, 2.0))),
            release_s=float(rng.uniform(0.0, 4.0)) if late else 0.0,
            resets_s=np.sort(rng.uniform(0.0, 12.0, int(rng.integers(0, 4)))) if resets else np.zeros(0),
            reboot_s=float(rng.uniform(0.0, 2.0)),
            reload_s=float(rng.uniform(0.0, 1.0)),
        )

    def hop() -> Hop:
        return Hop(
            bits=sizes(float(rng.uniform(0.0, 3.0))),
            primary=route(),
            backup=route() if backups else None,
            detect_s=float(rng.choice([0.0, rng.uniform(0.0, 1.5)])),
            credit_s=float(rng.choice([0.0, rng.uniform(0.0, 0.6)])),
            out_slots=slots(),
            in_slots=slots(),
            release_s=float(rng.uniform(0.0, 4.0)) if late else 0.0,
        )

    return [stage() for _ in range(n_stages)], [hop() for _ in range(n_stages - 1)]
