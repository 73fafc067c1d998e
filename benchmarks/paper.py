"""The claims of arXiv:2604.04654 on `PaperStatic`, each beside the assumption that it takes.

    python benchmarks/paper.py [--json] [--quick] [--figure docs/figures/paper_delay.png]

Only planning: every delay is `sat_env.planning.predict` of a plan, seconds of one batch of 64 images. The
*proposal* is exact A* over the satellites alone, each sending to its neighbour, at the paper's ratio of 25.82,
its codec time (none) and its reported loss. What is relayed without computing comes in three readings:

    stored      the whole batch is received before it is sent on, at every link: what the paper's figures imply
    pipelined   eight micro-batches through the same recurrence as the proposal, every link a server
    routed      the environment's own routes: one server at the rate of the slowest link

Keys and what they say: `docs/paper.md`. `--quick` leaves the sweeps out.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # baselines is not in the wheel

from baselines import ground_only, paper_astar, proportional, uniform
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
CORES = 8  # of the 12 of a Jetson AGX Orin, as in WalkerOutage; the table was measured on one
S2G_GBPS = (0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 2.0, 4.0, 6.0)
MODELS = ("vit-b", "vit-l", "vit-h", "vit-g14-small", "vit-g")


class Case(NamedTuple):
    """One decision of the paper's world, all satellites idle and all weights resident."""

    prepared: Prepared
    state: Problems  # B = 1
    costs: Costs  # the environment's, all routes, with the shipped table; no codec time
    chain: Costs  # as costs, but satellites send to their neighbours and the ground holds nothing
    paper: Costs  # as chain, with one level: the paper's ratio, no error


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
    n_slots = costs.rate_bps.shape[0]
    neighbours = np.eye(n_slots, n_slots + 1, k=1, dtype=np.bool_)
    neighbours[1:, n_slots] = True  # results and activations; the raw batch would go by `relayed_s`
    chain = costs._replace(rate_bps=np.where(neighbours, costs.rate_bps, 0.0), ground_hosts=GROUND_NONE)
    one_level = costs.boundary_bytes[:, :1].copy()
    one_level[1:-1] /= RATIO
    nothing = np.zeros_like(costs.encode_s[:, :, :1])
    paper = chain._replace(
        boundary_bytes=one_level,
        token_bytes=costs.token_bytes[:, :1],
        encode_s=nothing,
        decode_s=nothing,
        error=np.zeros_like(costs.error[:, :1]),
    )
    return Case(prepared, problem.problems, costs, chain, paper)


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


def relayed_s(case: Case, slot: int, micro_batches: int) -> float:
    """Delay when the raw batch is relayed to one slot, or the ground, that computes everything.

    Every link on the way is a server of its own: a relay is a slot with one block that takes no time, so this
    is `predict` like everything else. One micro-batch means that the whole batch is stored at every relay
    before it is sent on. inf where the slot cannot hold the model.
    """
    costs = case.costs
    n_slots = costs.rate_bps.shape[0]
    exit_slot = int(np.argmin(case.state.route_hops[0, :, n_slots]))
    path = [*range(exit_slot + 1 if slot == n_slots else slot), slot]
    n, share = len(path) - 1, costs.micro_batches / micro_batches
    compute_s = np.full((n + 2, n + 1), np.inf)  # row n: `slot`; row n + 1: the ground receives the result
    compute_s[range(n), range(n)] = 0.0
    if costs.memory_bytes.sum() <= costs.memory_free_bytes[slot]:
        compute_s[n, n] = costs.compute_s[slot].sum() * share
    raw_bytes, result_bytes = costs.boundary_bytes[[0, -1], 0] * share
    rate_bps, latency_s = np.zeros((n + 1, n + 2)), np.zeros((n + 1, n + 2))
    for i in range(n):
        rate_bps[i, i + 1] = costs.rate_bps[path[i], path[i + 1]]
        latency_s[i, i + 1] = costs.latency_s[path[i], path[i + 1]]
    if slot == n_slots:  # the result is where it belongs: a last hop for nothing
        rate_bps[n, n + 1], result_bytes = 1.0, 0.0
    else:
        rate_bps[n, n + 1] = costs.rate_bps[slot, n_slots]
        latency_s[n, n + 1] = costs.latency_s[slot, n_slots]
    relayed = costs_from_arrays(
        compute_s,
        [raw_bytes] * (n + 1) + [result_bytes],
        rate_bps,
        latency_s=latency_s,
        micro_batches=micro_batches,
    )
    return float(predict(relayed, np.arange(1, n + 2), np.zeros(n + 1, dtype=np.int64)))


def ground_only_s(case: Case, micro_batches: int | None = None) -> float:
    """Delay of ground-only, every link a server; by default as many micro-batches as the proposal has."""
    return relayed_s(case, case.costs.rate_bps.shape[0], micro_batches or case.costs.micro_batches)


def single_satellite_s(case: Case) -> float:
    """Delay of the best single satellite, every link a server."""
    slots = range(1, case.costs.rate_bps.shape[0])
    return min(relayed_s(case, slot, case.costs.micro_batches) for slot in slots)


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


def nearest_satellite(costs: Costs) -> Plan:
    """Return the plan that gives the whole model to slot 2, which the raw batch reaches over one link."""
    cuts = np.full(costs.rate_bps.shape[0], costs.compute_s.shape[1], dtype=np.int64)
    cuts[0] = 0
    return cuts, np.zeros_like(cuts)


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
    stored_s, pipelined_s = ground_only_s(here, 1), ground_only_s(here)
    routed_s = delay_s(here.costs, on_ground)
    slow = case(s2g_gbps=0.2)
    large = case(size="1080p")
    figures: dict[str, float] = {
        "delay_change_vs_ground_only_0p8gbps": change(proposal_s, stored_s),
        "delay_change_vs_pipelined_ground_only_0p8gbps": change(proposal_s, pipelined_s),
        "delay_change_vs_routed_ground_only_0p8gbps": change(proposal_s, routed_s),
        "bytes_change_vs_ground_only": change(
            moved_bytes(here, here.paper, plan), moved_bytes(here, here.costs, on_ground)
        ),
        "accuracy_drop": drop_of_split(here, plan[0]),
        "delay_s/proposal": proposal_s,
        "delay_s/ground_only_stored": stored_s,
        "delay_s/ground_only_pipelined": pipelined_s,
        "delay_s/ground_only_routed": routed_s,
        "delay_change_vs_pipelined_ground_only_0p2gbps": change(
            delay_s(slow.paper, exact(slow.paper)), ground_only_s(slow)
        ),
        "delay_change_vs_pipelined_ground_only_1080p": change(
            delay_s(large.paper, exact(large.paper)), ground_only_s(large)
        ),
        "uniform_over_proposal": delay_s(here.paper, uniform.plan(here.paper)) / proposal_s,
        "proportional_over_proposal": delay_s(here.paper, proportional.plan(here.paper)) / proposal_s,
        "paper_astar_over_exact": delay_s(here.paper, paper_astar.plan(here.paper)) / proposal_s,
    }
    for k, count in enumerate(blocks(plan, n_blocks)[1:-1], start=2):
        figures[f"split/satellite_{k}"] = count
    figures |= chain_figures(here) | measured_figures(here) | single_figures() | ground_figures()
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
    """The proposal with our table's levels under its 1 % budget, codec time free, on several cores and on one."""
    figures: dict[str, float] = {}
    for name, cores in (("none", np.inf), (f"{CORES}_cores", float(CORES)), ("1_core", 1.0)):
        costs = with_codec(here.chain, here.prepared, cores)
        plan = exact(costs)
        figures[f"measured_table/delay_s/codec_{name}"] = delay_s(costs, plan)
        drop = here.prepared.table.accuracy_drop(plan_error(costs, *plan))
        figures[f"measured_table/accuracy_drop/codec_{name}"] = float(drop)
        literal_s = delay_s(costs, paper_astar.plan(costs))
        figures[f"measured_table/paper_astar_over_exact/codec_{name}"] = literal_s / delay_s(costs, plan)
    return figures


def single_figures() -> dict[str, float]:
    """A single satellite against several, for the smallest model and the largest that one satellite holds."""
    figures: dict[str, float] = {}
    for model in ("vit-b", "vit-g14-small"):
        here = case(model=model)
        single_s, plan = single_satellite_s(here), exact(here.paper)
        measured = with_codec(here.chain, here.prepared, cores=1.0)
        figures[f"single/proposal_delay_change/{model}"] = change(delay_s(here.paper, plan), single_s)
        figures[f"single/proposal_delay_change_codec_1_core/{model}"] = change(
            delay_s(measured, exact(measured)), single_s
        )
        figures[f"single/proposal_bytes_change/{model}"] = change(
            moved_bytes(here, here.paper, plan), moved_bytes(here, here.paper, nearest_satellite(here.paper))
        )
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
        figures[f"ground_any/change_vs_pipelined_ground_only/{name}"] = change(
            delay_s(shared, plan), ground_only_s(here)
        )
        figures[f"ground_any/change_vs_routed_ground_only/{name}"] = change(
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
    shared = here.paper._replace(ground_hosts=GROUND_ANY)
    return {
        "proposal": delay_s(here.paper, exact(here.paper)),
        "literal": delay_s(here.paper, paper_astar.plan(here.paper)),
        "proportional": delay_s(here.paper, proportional.plan(here.paper)),
        "uniform": delay_s(here.paper, uniform.plan(here.paper)),
        "single": single_satellite_s(here),
        "ground_stored": ground_only_s(here, 1),
        "ground_pipelined": ground_only_s(here),
        "ground_routed": delay_s(here.costs, ground_only.plan(here.costs)),
        "ground_any": delay_s(shared, exact(shared)),
    }


def sweeps() -> dict[str, dict[str, float]]:
    """Delays over S2G rate, input size, model and number of micro-batches."""
    rows = {f"s2g_gbps/{gbps:g}": compare(case(s2g_gbps=gbps)) for gbps in S2G_GBPS}
    rows |= {f"input/{size}": compare(case(size=size)) for size in IMAGE_SIZES}
    rows |= {f"model/{model}": compare(case(model=model)) for model in MODELS}
    rows |= {f"micro_batches/{m}": compare(case(micro_batches=m)) for m in (1, 2, 4, 8, 16, 32)}
    return rows


def flat(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Flat keys of the sweeps, and the gaps over all of them."""
    figures = {f"{row}/{name}_s": value for row, delays in rows.items() for name, value in delays.items()}
    gaps = {
        name: np.array([delays[name] / delays["proposal"] for delays in rows.values()])
        for name in ("literal", "proportional", "uniform")
    }
    for name, gap in gaps.items():
        figures[f"sweeps/{name}_over_proposal/median"] = float(np.median(gap))
        figures[f"sweeps/{name}_over_proposal/max"] = float(gap.max())
    return figures


def print_sweeps(rows: dict[str, dict[str, float]]) -> None:
    """Print delays in seconds, a row for each point; a dash where no plan of the kind fits."""
    names = list(next(iter(rows.values())))
    print("\n" + f"{'delay, s':22s}" + "".join(f"{name:>18s}" for name in names))
    for row, delays in rows.items():
        cells = (f"{value:18.3f}" if value < np.inf else f"{'-':>18s}" for value in delays.values())
        print(f"{row:22s}" + "".join(cells))


def draw(rows: dict[str, dict[str, float]], path: Path) -> None:
    """Delay against the S2G rate and the input size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = {
        "ground_stored": ("ground-only, stored at every link", "tab:red", "--"),
        "ground_pipelined": ("ground-only, pipelined", "tab:red", "-"),
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
        axis.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        axis.minorticks_off()
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
        figures |= flat(rows)
        if arguments.figure:
            draw(rows, arguments.figure)
    if arguments.json:
        print(json.dumps({key: value if value < np.inf else None for key, value in figures.items()}))
        return
    for key, value in figures.items():
        if not key.endswith("_s"):  # delays of the sweeps come as a table
            print(f"{key:60s} {value:10.4f}")
    if not arguments.quick:
        print_sweeps(rows)


if __name__ == "__main__":
    main()
