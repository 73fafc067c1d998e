"""How long an optimal plan takes, and HiGHS on the same problems.

    python benchmarks/planners.py [--json] [--quick]

One thread. Problems look like the paper's: a ViT-G-like model, satellites in mixed power modes,
inter-satellite and ground links of mixed rates, memory that binds, an error budget that binds, eight
micro-batches, every slot may be skipped. Times are CPU time, medians over the problems, after compilation.

Keys: ms/L-K-R release-free; ms_released/L-K-R with busy stages and hops and blocks to load, slowest_ms_released/
the worst of them; ms_budget/L-K-R the same under a budget of 5,000 expansions, gap_budget/ what that leaves
unproved on average, excess_budget/ how far its plans really are above the optimum; plans_per_s of a
batch at 12-6-6 with releases, without and with prices, and on WalkerOutage's own problems;
highs_over_exact/L-K-R time ratio; mismatches: problems on which HiGHS found another optimum (relative
difference above 1e-6).
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # baselines is not in the wheel

from baselines import oracle
from baselines.priced import load_constants
from baselines.priced import prices as tuned_prices
from sat_env.planning import (
    Costs,
    Prices,
    Solution,
    costs_from_arrays,
    make_workspace,
    predict,
    prices_from_arrays,
    solve,
    solve_batch,
    stack_costs,
    stack_prices,
)
from sat_env.problem import tabulate
from sat_env.scenario import load_scenario
from sat_env.simulator import NO_PLAN, Simulator
from sat_env.world import prepare

BUDGET = 5_000  # expansions


def realistic_costs(
    rng: np.random.Generator, n_blocks: int, n_slots: int, n_levels: int, *, released: bool = False
) -> Costs:
    """Draw a problem of the size and shape of the paper's scenario."""
    n, k, r, m = n_blocks, n_slots, n_levels, 8
    images = 64 / m
    speed_flop_per_s = 0.4e12 * rng.choice([5.0, 10.0, 26.7, 42.6], k + 1)  # Jetson AGX Orin power modes
    speed_flop_per_s[k] = 48e12  # the ground
    flop = 20.15e9 * images * 48 / n * rng.uniform(0.9, 1.1, n)
    sent_bytes = 1.711e6 * images * rng.uniform(0.8, 1.2, (n + 1, 1)) * np.geomspace(1.0, 1 / 32, r)
    sent_bytes[0], sent_bytes[n] = 854 * 480 * 3 * images, 4e3 * images
    isl_bps, isl_s = rng.choice([0.5e9, 1e9, 2.5e9, 10e9], k), rng.uniform(0.005, 0.012, k)
    down_bps = rng.choice([0.2e9, 0.8e9, 1.2e9], k)
    rate_bps, latency_s = np.zeros((k, k + 1)), np.zeros((k, k + 1))
    for i in range(k):
        for j in range(i + 1, k):
            rate_bps[i, j], latency_s[i, j] = isl_bps[i:j].min(), isl_s[i:j].sum()
        rate_bps[i, k], latency_s[i, k] = down_bps[i], 0.004
    error = rng.uniform(0.5, 1.5, (n + 1, 1)) * np.linspace(0.0, 1.0, r) ** 2
    error[[0, n]] = 0.0
    memory_bytes = 153e6 * 48 / n * rng.uniform(0.95, 1.05, n)
    free_bytes = rng.uniform(0.8, 3.0, k + 1) * memory_bytes.sum() / k
    free_bytes[k] = 12e9
    late = float(released)
    return costs_from_arrays(
        flop / speed_flop_per_s[:, None],
        sent_bytes,
        rate_bps,
        latency_s=latency_s,
        micro_batches=m,
        ground_hosts=int(rng.integers(0, 3)),
        error=error,
        error_budget=float(rng.uniform(0.05, 0.25)) * k,
        memory_bytes=memory_bytes,
        memory_free_bytes=free_bytes,
        stage_release_s=late * rng.uniform(0.0, 3.0, k + 1) * (rng.random(k + 1) < 0.6),
        hop_release_s=late * rng.uniform(0.0, 2.0, (k, k + 1)) * (rng.random((k, k + 1)) < 0.4),
        load_s=late * 0.1 * 48 / n * (rng.random((k + 1, n)) < 0.7),
    )


def realistic_prices(rng: np.random.Generator, n_slots: int) -> Prices:
    """Draw prices on everything."""
    return prices_from_arrays(
        n_slots,
        load_weight=float(rng.uniform(0.1, 1.0)),
        bottleneck=float(rng.uniform(0.0, 1.0)),
        stage_price=rng.uniform(0.0, 0.2, n_slots + 1),
        hop_price=rng.uniform(0.0, 0.2, (n_slots, n_slots + 1)),
        hop_fixed_s=rng.uniform(0.0, 0.2, (n_slots, n_slots + 1)),
    )


def solve_all(problems: list[Costs], max_expansions: int | None = None) -> tuple[list[float], list[Solution]]:
    """CPU seconds of each plan, and the plans."""
    workspace = make_workspace(*_size(problems[0]))
    solve(problems[0], workspace=workspace, max_expansions=max_expansions)
    times, plans = [], []
    for costs in problems:
        start = time.process_time()
        plans.append(solve(costs, workspace=workspace, max_expansions=max_expansions))
        times.append(time.process_time() - start)
    return times, plans


def with_budget(figures: dict[str, float], problems: list[Costs]) -> list[Solution]:
    """Note what a budget of expansions costs and leaves open; return its plans."""
    k, n, r = _size(problems[0])
    times_s, plans = solve_all(problems, BUDGET)
    figures[f"ms_budget/{n}-{k}-{r}"] = 1e3 * float(np.median(times_s))
    figures[f"gap_budget/{n}-{k}-{r}"] = float(np.mean([p.objective / p.bound_s - 1.0 for p in plans]))
    return plans


def plans_per_s(problems: list[Costs], prices: list[Prices] | None) -> float:
    """Plans a second of one batch."""
    costs, stacked = stack_costs(problems), stack_prices(prices) if prices else None
    workspace = make_workspace(*_size(problems[0]))
    start = time.process_time()
    solve_batch(costs, stacked, workspace)
    return len(problems) / (time.process_time() - start)


def plans_per_s_of(scenario: str, epochs: int) -> float:
    """Plans a second on a scenario's own problems: 64 worlds played under its priced planner."""
    world = prepare(load_scenario(scenario)).world
    simulator = Simulator(prepare(load_scenario(scenario)), 64)
    simulator.begin(seeds=np.arange(64, dtype=np.uint64))
    constants = load_constants(load_scenario(scenario), "priced")
    spent_s = []
    for _ in range(epochs):
        costs = tabulate(world, simulator.problems)
        priced = tuned_prices(constants, world, simulator.problems)
        start = time.process_time()
        found = solve_batch(costs, priced)
        spent_s.append(time.process_time() - start)
        simulator.step(np.where(np.isfinite(found.objective)[:, None], found.cuts, NO_PLAN), found.levels)
    return 64 * (epochs - 1) / sum(spent_s[1:])


def _size(costs: Costs) -> tuple[int, int, int]:
    return costs.rate_bps.shape[0], costs.compute_s.shape[1], costs.error.shape[1]


def measure(quick: bool) -> dict[str, float]:
    """All figures."""
    figures: dict[str, float] = {}
    sizes = {(32, 8, 8): 60, (48, 12, 12): 30, (80, 16, 16): 10}
    for (n, k, r), count in sizes.items():
        count = max(3, count // (10 if quick else 1))
        rng = np.random.default_rng(n)
        problems = [realistic_costs(rng, n, k, r) for _ in range(count)]
        figures[f"ms/{n}-{k}-{r}"] = 1e3 * float(np.median(solve_all(problems)[0]))
    for (n, k, r), count in {(12, 6, 6): 200, (32, 8, 8): 60, (48, 12, 12): 20}.items():
        count = max(3, count // (10 if quick else 1))
        rng = np.random.default_rng(n)
        problems = [realistic_costs(rng, n, k, r, released=True) for _ in range(count)]
        times_s, exact = solve_all(problems)
        figures[f"ms_released/{n}-{k}-{r}"] = 1e3 * float(np.median(times_s))
        figures[f"slowest_ms_released/{n}-{k}-{r}"] = 1e3 * max(times_s)
    hasty = with_budget(figures, problems)
    figures[f"excess_budget/{n}-{k}-{r}"] = float(
        np.mean([p.objective / best.objective - 1.0 for p, best in zip(hasty, exact, strict=True)])
    )
    rng = np.random.default_rng(80)
    with_budget(figures, [realistic_costs(rng, 80, 16, 16, released=True) for _ in range(3 if quick else 10)])
    rng = np.random.default_rng(1)
    problems = [realistic_costs(rng, 12, 6, 6, released=True) for _ in range(200 if quick else 2000)]
    figures["plans_per_s/12-6-6"] = plans_per_s(problems, None)
    figures["plans_per_s/WalkerOutage"] = plans_per_s_of("WalkerOutage", 20 if quick else 100)
    figures["plans_per_s_priced/12-6-6"] = plans_per_s(problems, [realistic_prices(rng, 6) for _ in problems])

    mismatches, ratios = 0, []
    checks = [(12, 6, 6)] * 3 if quick else [(32, 8, 8)] * 3 + [(48, 12, 12)] * 2
    rng = np.random.default_rng(5)
    for n, k, r in checks:
        costs = realistic_costs(rng, n, k, r)
        (exact_s,), _ = solve_all([costs])
        start = time.process_time()
        plan = oracle.plan(costs)
        highs_s = time.process_time() - start
        best_s = solve(costs).makespan_s
        other_s = predict(costs, *plan) if plan else np.inf
        mismatches += not (best_s == other_s or abs(best_s - other_s) <= 1e-6 * best_s)
        if (n, k, r) == checks[-1]:
            ratios.append(highs_s / exact_s)
    n, k, r = checks[-1]
    figures[f"highs_over_exact/{n}-{k}-{r}"] = float(np.median(ratios))
    figures["mismatches"] = mismatches
    return figures


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--quick", action="store_true", help="few and small problems")
    arguments = parser.parse_args()
    figures = measure(arguments.quick)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:28s} {value:12.3f}")


if __name__ == "__main__":
    main()
