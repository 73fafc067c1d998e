"""The claims of arXiv:2604.04654 on `PaperStatic`, each beside the assumption that it takes.

    python benchmarks/paper.py [--json] [--quick] [--figure docs/figures/paper_delay.png]

Only planning: every delay is `sat_env.planning.predict` of a plan, seconds of one batch of 64 images. The
*proposal* is exact A* over the satellites alone, at the paper's ratio of 25.82, its codec time (none) and its
reported loss. Ground-only comes in three readings:

    stored      the whole batch is received before it is sent on, at every link: what the paper's figures imply
    pipelined   eight micro-batches through the same recurrence as the proposal, every link a server
    cut through the environment's own route: one server at the rate of its slowest link

Keys: see `docs/paper.md`, which prints this program's output. `--quick` leaves the sweeps out.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # baselines is not in the wheel

from baselines import ground_only, paper_astar, proportional, single_satellite, uniform
from baselines.splits import Plan, idle
from sat_env.compression.table import load_table
from sat_env.planning import GROUND_ANY, GROUND_NONE, Costs, costs_from_arrays, plan_error, predict, solve
from sat_env.problem import Problems
from sat_env.scenario import load_scenario
from sat_env.simulator import Simulator
from sat_env.workload.profiles import IMAGE_SIZES
from sat_env.world import Prepared, prepare

RATIO = 25.82  # the paper's whole chain against FP32, ViT-G average
LEVEL = "mask22-int8-ec"  # the same chain in our table
CORES = 12  # of a Jetson AGX Orin; the table was measured on one
S2G_GBPS = (0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 2.0, 4.0, 6.0)
MODELS = ("vit-b", "vit-l", "vit-h", "vit-g14-small", "vit-g")


class Case(NamedTuple):
    """One decision of the paper's world, all satellites idle and all weights resident."""

    prepared: Prepared
    state: Problems  # B = 1
    costs: Costs  # levels, errors and budget of the shipped table; no codec time
    paper: Costs  # one level: the paper's ratio, no error; the satellites alone


def case(*, s2g_gbps: float = 0.8, size: str = "480p", model: str = "vit-g", micro_batches: int = 8) -> Case:
    """Return the paper's problem with the constants that it sweeps."""
    width, height = IMAGE_SIZES[size]
    scenario = load_scenario("PaperStatic").replace(
        **{
            "ground.rate_bps": 1e9 * s2g_gbps,
            "jobs.width": width,
            "jobs.height": height,
            "jobs.micro_batches": micro_batches,
            "model.profile": model,
            "episode_epochs": 1,  # nothing changes with time
            "windows": 5,
        }
    )
    prepared = prepare(scenario)
    simulator = Simulator(prepared, 1, "test")
    simulator.begin(seeds=np.zeros(1, dtype=np.uint64))
    problem = simulator.problem()
    assert problem.problems is not None
    costs = with_codec(idle(problem.costs), prepared, cores=np.inf)
    one_level = costs.boundary_bytes[:, :1].copy()
    one_level[1:-1] /= RATIO
    nothing = np.zeros_like(costs.encode_s[:, :, :1])
    paper = costs._replace(
        boundary_bytes=one_level,
        token_bytes=costs.token_bytes[:, :1],
        encode_s=nothing,
        decode_s=nothing,
        error=np.zeros_like(costs.error[:, :1]),
        ground_hosts=GROUND_NONE,
    )
    return Case(prepared, problem.problems, costs, paper)


def with_codec(costs: Costs, prepared: Prepared, cores: float) -> Costs:
    """Charge the table's codec time on so many cores; none for infinitely many."""
    images = prepared.scenario.jobs.items / prepared.scenario.jobs.micro_batches
    entries = images * prepared.world.boundary_entries[None, :, None]
    chosen = [level for level in prepared.table.levels if level.name in prepared.levels]
    encode, decode = (
        np.array([getattr(level, field) for level in chosen]) * cores
        for field in ("encode_entries_per_s", "decode_entries_per_s")
    )
    return costs._replace(
        encode_s=np.broadcast_to(entries / encode, costs.encode_s.shape).copy(),
        decode_s=np.broadcast_to(entries / decode, costs.decode_s.shape).copy(),
    )


def exact(costs: Costs) -> Plan:
    """Return the optimal plan; the paper's problems all have one."""
    solution = solve(costs)
    assert solution.objective < np.inf
    return solution.cuts, solution.levels


def delay_s(costs: Costs, plan: Plan | None) -> float:
    """Predicted makespan; inf where a planner found nothing."""
    return float(predict(costs, *plan)) if plan is not None else np.inf


def relayed_ground_only_s(case: Case, micro_batches: int) -> float:
    """Delay of ground-only with every link on the way a server of its own.

    A relay is a slot with one block that takes no time, so this is `predict` like everything else. One
    micro-batch means that the whole batch is stored at every satellite before it is sent on.
    """
    costs, state = case.costs, case.state
    ground = costs.rate_bps.shape[0]
    relays = int(np.argmin(state.route_hops[0, :, ground])) + 1  # slots 0..exit
    path = [*range(relays), ground]
    compute_s = np.full((relays + 1, relays + 1), np.inf)
    compute_s[range(relays), range(relays)] = 0.0
    compute_s[relays, relays] = costs.compute_s[ground].sum() * costs.micro_batches / micro_batches
    raw_bytes, result_bytes = costs.boundary_bytes[[0, -1], 0] * costs.micro_batches / micro_batches
    rate_bps, latency_s = np.zeros((relays, relays + 1)), np.zeros((relays, relays + 1))
    for i in range(relays):
        rate_bps[i, i + 1] = costs.rate_bps[path[i], path[i + 1]]
        latency_s[i, i + 1] = costs.latency_s[path[i], path[i + 1]]
    chain = costs_from_arrays(
        compute_s,
        [raw_bytes] * (relays + 1) + [result_bytes],
        rate_bps,
        latency_s=latency_s,
        micro_batches=micro_batches,
    )
    return float(predict(chain, np.arange(1, relays + 1), np.zeros(relays, dtype=np.int64)))


def moved_bytes(case: Case, costs: Costs, plan: Plan) -> float:
    """Bytes of the job summed over the links it crosses, the result's included."""
    cuts, levels = plan
    n_slots, n_blocks = costs.rate_bps.shape[0], costs.compute_s.shape[1]
    total, sender, boundary = 0.0, 0, 0
    for k, end in enumerate([*cuts.tolist(), n_blocks]):
        if end > boundary or k == n_slots:
            if k > 0:
                level = levels[sender] if 0 < boundary < n_blocks else 0
                total += costs.boundary_bytes[boundary, level] * case.state.route_hops[0, sender, k]
            sender, boundary = k, end
    return float(total) * costs.micro_batches


def blocks(plan: Plan, n_blocks: int) -> list[int]:
    """Blocks on every slot and, last, on the ground."""
    return np.diff([0, *plan[0].tolist(), n_blocks]).tolist()


def drop_of_split(case: Case, cuts: np.ndarray) -> float:
    """Accuracy drop, by our table, of a split whose every cut is encoded with the paper's chain."""
    level = case.prepared.levels.index(LEVEL)
    error = plan_error(case.costs, cuts, np.full(len(cuts), level))
    return float(case.prepared.table.accuracy_drop(error))


def best_of_several_s(costs: Costs) -> float:
    """Least delay over the splits on two or more satellites, by enumeration; one level, ground without blocks."""
    n_slots, n_blocks = costs.rate_bps.shape[0], costs.compute_s.shape[1]
    levels = np.zeros(n_slots, dtype=np.int64)
    least_s = np.inf
    for flat in np.ndindex(*(n_blocks + 1,) * (n_slots - 2)):  # slot 0 senses, the last cut ends the model
        if all(a <= b for a, b in zip(flat, flat[1:], strict=False)):
            cuts = np.array([0, *flat, n_blocks], dtype=np.int64)
            if (np.diff(cuts) > 0).sum() >= 2:
                least_s = min(least_s, predict(costs, cuts, levels))
    return float(least_s)


def change(value: float, reference: float) -> float:
    """Relative change; -0.42 is 42 % less."""
    return value / reference - 1.0


def headline() -> dict[str, float]:
    """Figures at the paper's point: ViT-G, 480p, S2G 0.8 Gbit/s."""
    here = case()
    n_blocks = here.costs.compute_s.shape[1]
    plan = exact(here.paper)
    proposal_s = delay_s(here.paper, plan)
    on_ground = ground_only.plan(here.costs)
    assert on_ground is not None
    stored_s, pipelined_s = relayed_ground_only_s(here, 1), relayed_ground_only_s(here, 8)
    cut_through_s = delay_s(here.costs, on_ground)
    slow = case(s2g_gbps=0.2)
    large = case(size="1080p")
    figures: dict[str, float] = {
        "delay_change_vs_ground_only_0p8gbps": change(proposal_s, stored_s),
        "delay_change_vs_pipelined_ground_only_0p8gbps": change(proposal_s, pipelined_s),
        "delay_change_vs_cut_through_ground_only_0p8gbps": change(proposal_s, cut_through_s),
        "bytes_change_vs_ground_only": change(
            moved_bytes(here, here.paper, plan), moved_bytes(here, here.costs, on_ground)
        ),
        "accuracy_drop": drop_of_split(here, plan[0]),
        "delay_s/proposal": proposal_s,
        "delay_s/ground_only_stored": stored_s,
        "delay_s/ground_only_pipelined": pipelined_s,
        "delay_s/ground_only_cut_through": cut_through_s,
        "delay_change_vs_pipelined_ground_only_0p2gbps": change(
            delay_s(slow.paper, exact(slow.paper)), relayed_ground_only_s(slow, 8)
        ),
        "delay_change_vs_pipelined_ground_only_1080p": change(
            delay_s(large.paper, exact(large.paper)), relayed_ground_only_s(large, 8)
        ),
        "uniform_over_proposal": delay_s(here.paper, uniform.plan(here.paper)) / proposal_s,
        "proportional_over_proposal": delay_s(here.paper, proportional.plan(here.paper)) / proposal_s,
        "paper_astar_over_exact": delay_s(here.paper, paper_astar.plan(here.paper)) / proposal_s,
    }
    for k, count in enumerate(blocks(plan, n_blocks)[1:-1], start=2):
        figures[f"split/satellite_{k}"] = count
    figures |= chain_figures(here) | measured_figures(here) | ground_figures()
    figures["random_splits_below_1pct"] = random_splits(here, 200)
    return figures


def chain_figures(here: Case) -> dict[str, float]:
    """Compression ratios of the paper's chain: by its arithmetic, and as our table measured them."""
    table = load_table(here.prepared.scenario.model.compression)
    ratio = dict(zip((level.name for level in table.levels), table.ratios().tolist(), strict=True))
    keep = next(level.keep for level in table.levels if level.name == LEVEL)
    return {
        "chain/mask": 32 / (32 * keep + 1),  # a mask bit an entry and the kept entries in FP32
        "chain/int8": 32 / (8 * keep + 1),
        "chain/int8_measured": ratio["mask22-int8"],
        "chain/entropy_measured": ratio[LEVEL],
    }


def measured_figures(here: Case) -> dict[str, float]:
    """The proposal with our table's levels under its 1 % budget, codec time free, on 12 cores and on one."""
    figures: dict[str, float] = {}
    for name, cores in (("none", np.inf), ("12_cores", CORES), ("1_core", 1.0)):
        costs = with_codec(here.costs, here.prepared, cores)._replace(ground_hosts=GROUND_NONE)
        plan = exact(costs)
        figures[f"measured_table/delay_s/codec_{name}"] = delay_s(costs, plan)
        drop = here.prepared.table.accuracy_drop(plan_error(costs, *plan))
        figures[f"measured_table/accuracy_drop/codec_{name}"] = float(drop)
        literal_s = delay_s(costs, paper_astar.plan(costs))
        figures[f"measured_table/paper_astar_over_exact/codec_{name}"] = literal_s / delay_s(costs, plan)
    return figures


def ground_figures() -> dict[str, float]:
    """What the paper did not try: the ground hosts the last blocks."""
    figures: dict[str, float] = {}
    for gbps in (0.2, 0.8):
        here = case(s2g_gbps=gbps)
        shared = here.paper._replace(ground_hosts=GROUND_ANY)
        plan, name = exact(shared), f"{gbps:g}gbps"
        figures[f"ground_any/delay_s/{name}"] = delay_s(shared, plan)
        figures[f"ground_any/blocks_on_ground/{name}"] = blocks(plan, shared.compute_s.shape[1])[-1]
        figures[f"ground_any/change_vs_proposal/{name}"] = change(
            delay_s(shared, plan), delay_s(here.paper, exact(here.paper))
        )
        figures[f"ground_any/change_vs_cut_through_ground_only/{name}"] = change(
            delay_s(shared, plan), delay_s(here.costs, ground_only.plan(here.costs))
        )
    return figures


def random_splits(here: Case, n_splits: int) -> int:
    """How many of so many random splits over the four satellites lose less than 1 %, every cut at one level."""
    rng = np.random.default_rng(0)
    n_blocks = here.costs.compute_s.shape[1]
    cuts = np.sort([rng.choice(np.arange(1, n_blocks), 3, replace=False) for _ in range(n_splits)])
    return sum(drop_of_split(here, np.array([0, *row, n_blocks])) < 0.01 for row in cuts)


def compare(here: Case) -> dict[str, float]:
    """Delays of every planner of the paper on one problem, s."""
    proposal_s = delay_s(here.paper, exact(here.paper))
    shared = here.paper._replace(ground_hosts=GROUND_ANY)
    return {
        "proposal": proposal_s,
        "paper_astar": delay_s(here.paper, paper_astar.plan(here.paper)),
        "uniform": delay_s(here.paper, uniform.plan(here.paper)),
        "proportional": delay_s(here.paper, proportional.plan(here.paper)),
        "single_satellite": delay_s(here.paper, single_satellite.plan(here.paper)),
        "ground_only_stored": relayed_ground_only_s(here, 1),
        "ground_only_pipelined": relayed_ground_only_s(here, here.costs.micro_batches),
        "ground_only_cut_through": delay_s(here.costs, ground_only.plan(here.costs)),
        "ground_any": delay_s(shared, exact(shared)),
    }


def sweeps() -> dict[str, dict[str, float]]:
    """Delays over S2G rate, input size, model and number of micro-batches."""
    rows = {f"s2g_gbps/{gbps:g}": compare(case(s2g_gbps=gbps)) for gbps in S2G_GBPS}
    rows |= {f"input/{size}": compare(case(size=size)) for size in IMAGE_SIZES}
    for model in MODELS:
        here = case(model=model)
        rows[f"model/{model}"] = compare(here)
        if here.costs.compute_s.shape[1] <= 24:  # larger ones: the optimum itself uses several
            rows[f"model/{model}"]["two_or_more"] = best_of_several_s(here.paper)
    rows |= {f"micro_batches/{m}": compare(case(micro_batches=m)) for m in (1, 2, 4, 8, 16, 32)}
    return rows


def figures_of_sweeps(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Flat keys of the sweeps, and the gaps over all of them."""
    figures = {f"{row}/{name}_s": value for row, delays in rows.items() for name, value in delays.items()}
    gaps = {
        name: np.array([delays[name] / delays["proposal"] for delays in rows.values()])
        for name in ("paper_astar", "uniform", "proportional")
    }
    for name, gap in gaps.items():
        finite = gap[np.isfinite(gap)]
        figures[f"sweeps/{name}_over_proposal/median"] = float(np.median(finite))
        figures[f"sweeps/{name}_over_proposal/max"] = float(finite.max())
    return figures


def draw(rows: dict[str, dict[str, float]], path: Path) -> None:
    """Delay against the S2G rate and the input size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = {
        "ground_only_stored": ("ground-only, stored at every link", "tab:red", "--"),
        "ground_only_pipelined": ("ground-only, pipelined", "tab:red", "-"),
        "proposal": ("satellites, exact A*", "tab:blue", "-"),
        "ground_any": ("satellites and ground", "tab:green", "-"),
    }
    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
    for axis, sweep in zip(axes, ("s2g_gbps", "input"), strict=True):
        ticks = [row.split("/")[1] for row in rows if row.startswith(f"{sweep}/")]
        for name, (label, color, style) in lines.items():
            delays = [rows[f"{sweep}/{tick}"][name] for tick in ticks]
            axis.plot(range(len(ticks)), delays, style, color=color, marker=".", label=label)
        axis.set_xticks(range(len(ticks)), ticks)
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[0].set(xlabel="satellite to ground, Gbit/s (480p)", ylabel="delay of 64 images, s")
    axes[1].set(xlabel="input (0.8 Gbit/s)")
    axes[1].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--quick", action="store_true", help="without the sweeps")
    parser.add_argument("--figure", type=Path, help="draw the sweeps into this file")
    arguments = parser.parse_args()
    if arguments.quick and arguments.figure:
        parser.error("--figure draws the sweeps, which --quick leaves out")
    figures = headline()
    if not arguments.quick:
        rows = sweeps()
        figures |= figures_of_sweeps(rows)
        if arguments.figure:
            draw(rows, arguments.figure)
    if arguments.json:
        print(json.dumps({key: value if value < np.inf else None for key, value in figures.items()}))
    else:
        for key, value in figures.items():
            print(f"{key:60s} {value:10.4f}")


if __name__ == "__main__":
    main()
