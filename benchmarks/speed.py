"""Steps per second of the environment, as ratios to CartPole in the same process.

    python benchmarks/speed.py [--json] [--quick]

One process, one thread, CPU time; every figure is the median of at least five timings, taken in turns with
CartPole's so that a busy machine slows both. Actions are drawn once; `three` puts the model on three slots.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import numpy as np
from numba import njit
from rich.console import Console
from rich.table import Table

import sat_env
from sat_env import encodings
from sat_env.knowledge import describe_job, describe_slots, see_hops
from sat_env.observation import encode_hops, encode_slots

EPISODE = 151  # steps of an episode of WalkerOutage, with the one that begins it
LENGTH = 32768  # steps of worlds in one timing: the first of 1,024 find caches that CartPole has filled
PLAN = [4, 8, 12, 12, 12, 12, 1, 1, 1, 1, 1, 1]  # WalkerOutage on three slots, 8 bit


def timed(run: Callable[[int], None], count: int) -> float:
    """Return CPU seconds of one of `count` runs."""
    started = time.process_time()
    run(count)
    return (time.process_time() - started) / count


def ratio_to_cartpole(
    run: Callable[[int], None], count: int, per_run: int, repeats: int
) -> tuple[float, float]:
    """Return steps/s, and the median ratio to CartPole's, timed in turns."""
    cartpole = gymnasium.make("CartPole-v1")
    cartpole.reset(seed=0)

    def step_cartpole(n: int) -> None:
        for _ in range(n):
            _, _, terminated, truncated, _ = cartpole.step(0)
            if terminated or truncated:
                cartpole.reset()

    run(2)
    step_cartpole(100)
    rates, ratios = [], []
    for _ in range(repeats):
        peer_s = timed(step_cartpole, 2000)
        own_s = timed(run, count) / per_run
        rates.append(1 / own_s)
        ratios.append(peer_s / own_s)
    return float(np.median(rates)), float(np.median(ratios))


def single(scenario: str, action: list[int] | None) -> Callable[[int], None]:
    """Return a loop over the single environment behind `gymnasium.make`."""
    env = gymnasium.make(f"sat_env/{scenario}-v0")
    env.action_space.seed(0)
    env.reset(seed=0)
    chosen = env.action_space.sample() if action is None else np.array(action)

    def run(n: int) -> None:
        for _ in range(n):
            _, _, _, truncated, _ = env.step(chosen)
            if truncated:
                env.reset()

    return run


def vector(scenario: str, worlds: int, action: list[int] | None) -> Callable[[int], None]:
    """Return a loop over the native vector environment."""
    envs = gymnasium.make_vec(f"sat_env/{scenario}-v0", num_envs=worlds)
    envs.action_space.seed(0)
    envs.reset(seed=0)
    chosen = envs.action_space.sample() if action is None else np.tile(action, (worlds, 1))

    def run(n: int) -> None:
        for _ in range(n):
            envs.step(chosen)

    return run


def parts(worlds: int, repeats: int) -> dict[str, float]:
    """Return microseconds a world takes in each part of a step, with `worlds` that fit the processor's cache."""
    env = sat_env.SatVectorEnv(worlds, "WalkerOutage")
    env.reset(seed=0)
    actions = np.tile(PLAN, (worlds, 1))
    env.step(actions)
    simulator = env.worlds.simulator
    scratch = simulator.handles.scratch
    cuts, levels, over = simulator.cuts, simulator.plan_levels, simulator.over
    previous, every = simulator.state.previous_cuts, np.ones(worlds, np.bool_)
    seen = env.worlds.observe()

    @njit
    def slots(world, trace, state, scratch):  # type: ignore[no-untyped-def]
        for b in range(worlds):
            describe_slots(world, trace, state, b, scratch.here, 0)

    @njit
    def jobs(world, trace, state, scratch):  # type: ignore[no-untyped-def]
        for b in range(worlds):
            describe_job(world, trace, state, b, scratch.here, 0)

    @njit
    def hops(world, trace, state, scratch):  # type: ignore[no-untyped-def]
        for b in range(worlds):
            see_hops(world, trace, state, b, scratch.hops)

    @njit
    def entries(world, scratch, seen):  # type: ignore[no-untyped-def]
        for b in range(worlds):
            encode_slots(world, scratch.here, 0, 8, seen[b])
            encode_hops(world, scratch.hops, seen[b])

    def step() -> None:
        if over.all():
            simulator.begin()
        simulator.play(every, seen)

    def looked(kernel: Callable[..., object]) -> None:
        handles = simulator.handles  # beginning an episode may have made others
        kernel(handles.world, handles.trace, handles.state, scratch)

    found: dict[str, tuple[Callable[[], object], int]] = {
        "decode": (
            lambda: encodings.decode(simulator.world, "plan", actions, previous, cuts, levels),
            20,
        ),
        "step and observe": (step, 20),
        "of these, the job to run": (
            lambda: looked(jobs),
            20,
        ),
        "of these, slots seen": (
            lambda: looked(slots),
            20,
        ),
        "of these, hops seen": (
            lambda: looked(hops),
            20,
        ),
        "of these, observation": (lambda: entries(simulator.handles.world, scratch, seen), 20),
        "begin an episode": (simulator.begin, 3),
    }

    def repeat(run: Callable[[], object], n: int) -> None:
        for _ in range(n):
            run()

    figures = {}
    for name, (run, count) in found.items():
        run()
        timings = [timed(lambda n, run=run: repeat(run, n), count) for _ in range(repeats)]  # type: ignore[misc]
        figures[name] = float(np.median(timings)) / worlds * 1e6
    return figures


COLD = """
import time
started = time.perf_counter()
import sat_env
env = sat_env.SatEnv("WalkerOutage")
env.reset(seed=0)
env.step(env.action_space.sample())
print(time.perf_counter() - started, time.process_time())
"""


def import_to_first_step_s(repeats: int) -> tuple[float, float]:
    """Return wall seconds from import to the first step of a new process, and CPU seconds of the first of all.

    The first has everything cached, the second everything to compile, once.
    """

    def run(cache: str | None) -> tuple[float, float]:
        environment = os.environ if cache is None else {**os.environ, "NUMBA_CACHE_DIR": cache}
        found = subprocess.run(
            [sys.executable, "-c", COLD], env=environment, capture_output=True, text=True, check=True
        )
        wall_s, cpu_s = map(float, found.stdout.split())
        return wall_s, cpu_s

    with tempfile.TemporaryDirectory() as empty:
        compile_s = run(empty)[1]
    return min(run(None)[0] for _ in range(repeats)), compile_s


def world_megabytes(worlds: int) -> float:
    """Return what the arrays of `worlds` worlds of WalkerOutage take."""
    simulator = sat_env.SatVectorEnv(worlds, "WalkerOutage").worlds.simulator
    groups = (simulator.trace, simulator.state, simulator.problems, simulator.outcome)
    return sum(field.nbytes for group in groups for field in group) / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    repeats = 5 if arguments.quick else 11
    sizes = (64, 1024) if arguments.quick else (64, 1024, 16384)
    figures: dict[str, float] = {}

    def note(name: str, run: Callable[[int], None], count: int, per_run: int) -> float:
        rate, ratio = ratio_to_cartpole(run, count, per_run, repeats)
        figures[f"steps_per_s/{name}"] = round(rate)
        figures[f"over_cartpole/{name}"] = round(ratio, 3)
        return ratio

    figures["single_over_cartpole"] = round(note("single", single("WalkerOutage", PLAN), 1000, 1), 3)
    for worlds in sizes:
        ratio = note(
            f"vector{worlds}", vector("WalkerOutage", worlds, PLAN), max(2, LENGTH // worlds), worlds
        )
        if worlds == 1024:
            figures["vector1024_over_cartpole"] = round(ratio, 3)
    note("vector1024-random", vector("WalkerOutage", 1024, None), LENGTH // 1024, 1024)
    note("vector1024-episodes", vector("WalkerOutage", 1024, PLAN), EPISODE, 1024)
    if "StarlinkLLM" in sat_env.scenario_names():
        outage = note("single-random", single("WalkerOutage", None), 300, 1)
        starlink = note("single-StarlinkLLM-random", single("StarlinkLLM", None), 300, 1)
        figures["starlink_over_walker_outage"] = round(starlink / outage, 3)
    for name, microseconds in parts(256, repeats).items():
        figures[f"us_per_world/{name}"] = round(microseconds, 3)
    figures["megabytes_1024_worlds"] = round(world_megabytes(1024), 1)
    cached_s, compile_s = import_to_first_step_s(3)
    figures["import_to_first_step_s"] = round(cached_s, 2)
    figures["compile_to_first_step_cpu_s"] = round(compile_s, 1)
    if arguments.json:
        print(json.dumps(figures))
        return
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:g}")
    Console().print(table)


if __name__ == "__main__":
    main()
