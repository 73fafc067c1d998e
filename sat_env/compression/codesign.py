"""Choose the partition together with the masks; compare with masks trained for a partition fixed beforehand.

    python -m sat_env.compression.codesign

Masks trained for one partition err less at its cuts; on the new errors another partition may be best; so
train, plan, train again, until the plan stays. The fixed partition gets as many training passes and the same
choice of levels. Neither networks nor masks saw the images that plans are made on, nor these those that judge.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sat_env.compression import measure
from sat_env.compression.measure import MENU, Fold
from sat_env.compression.network import N_BLOCKS, digits, folds
from sat_env.compression.sparsifier import N_CUTS, N_ENTRIES, Masks, these_cuts, train_masks
from sat_env.compression.table import CompressionTable, load_table
from sat_env.compression.train import FIRST_SEED, Settings, load_masks, load_network

Floats = NDArray[np.float64]
PLAN, JUDGE = 0, 1  # halves of a fold's test part


@dataclass(frozen=True)
class Pipeline:
    """A small pipeline in relative units: four satellites as a Jetson Orin at 15, 30, 50 and 50 W."""

    speeds: tuple[float, ...] = (1.0, 2.0, 5.3, 5.3)
    """Blocks per unit of time and micro-batch of each stage; from the FP16 peaks of the power modes."""
    bits_per_time: float = 2.0 * N_ENTRIES
    """Bits a link sends per unit of time and sample."""
    micro_batches: int = 8
    max_drop: float = 0.01
    """Accuracy drop allowed."""


@dataclass(frozen=True)
class Args:
    """Command line."""

    out: Path = Path("runs/compression")
    """Folder of the checkpoints that `sat_env.compression.train` made; the result goes there too."""
    fixed: tuple[int, int, int] = (2, 4, 6)
    """Cuts of the partition to compare with."""
    mask_epochs: int = 6
    """Training passes a round."""
    max_rounds: int = 5
    """Rounds at most."""
    n_folds: int = 5
    """Folds of the first cross-validation that are used."""


class Partition(NamedTuple):
    """Cuts after blocks 1 .. 7, a level for each, and the latency in units of the pipeline."""

    cuts: tuple[int, ...]
    levels: tuple[int, ...]
    latency: float


def best_partition(
    table: CompressionTable, errors: Floats, pipeline: Pipeline, cuts: tuple[int, ...] | None = None
) -> Partition:
    """Return the fastest plan whose summed error (7, R) is within the budget; at given cuts, or at any.

    Latency is that of equal micro-batches and unlimited buffers: the sum of stages and links once, and the
    slowest of them for each further micro-batch. All plans are tried.
    """
    budget = table.error_budget(pipeline.max_drop)
    bits = np.array([level.bits_per_entry for level in table.levels])
    sends = bits * N_ENTRIES / pipeline.bits_per_time
    n_cuts = len(pipeline.speeds) - 1
    best = Partition((), (), np.inf)
    for chosen in [cuts] if cuts else itertools.combinations(range(1, N_BLOCKS), n_cuts):
        computes = np.diff([0, *chosen, N_BLOCKS]) / np.array(pipeline.speeds)
        for levels in itertools.product(range(len(bits)), repeat=n_cuts):
            if errors[np.array(chosen) - 1, levels].sum() > budget:
                continue
            times = np.r_[computes, sends[list(levels)]]
            latency = times.sum() + (pipeline.micro_batches - 1) * times.max()
            if latency < best.latency:
                best = Partition(chosen, levels, float(latency))
    return best


def mean_errors(parts: list[Fold]) -> Floats:
    """Measured error (7, R) of every level at every cut alone, pooled over folds."""
    errors = np.zeros((N_CUTS, len(MENU)))
    for plan in measure.single_plans():
        cut = int(np.flatnonzero(plan)[0])
        outcomes = [measure.judge(part, [measure.run_plan(part, plan)]).error[0] for part in parts]
        errors[cut, plan[cut]] = np.concatenate(outcomes).mean()
    return errors


def judged(parts: list[Fold], partition: Partition) -> dict[str, Any]:
    """Measure a partition's plan on the images of the folds."""
    plan = np.zeros(N_CUTS, dtype=int)
    plan[np.array(partition.cuts) - 1] = partition.levels
    outcomes = [measure.judge(part, [measure.run_plan(part, plan.tolist())]) for part in parts]
    drops = np.concatenate([p.correct * 1.0 - o.correct[0] for p, o in zip(parts, outcomes, strict=True)])
    drop, drop_se = measure.mean_and_error(drops)
    error, error_se = measure.mean_and_error(np.concatenate([o.error[0] for o in outcomes]))
    return {
        "cuts": list(partition.cuts),
        "levels": [MENU[level] for level in partition.levels],
        "latency": partition.latency,
        "drop_points": float(100 * drop),
        "drop_standard_error_points": float(100 * drop_se),
        "error_nats": float(error),
        "error_standard_error_nats": float(error_se),
    }


def main(args: Args) -> None:
    """Alternate training and planning; then train the fixed partition for as long; print and keep both."""
    torch.set_num_threads(1)
    pipeline, table = Pipeline(), load_table("digits-vit")
    images, labels = digits()
    jobs = [(FIRST_SEED, fold) for fold in range(args.n_folds)]
    splits = folds(Settings().n_folds, FIRST_SEED)[: args.n_folds]
    networks = [load_network(args.out, job) for job in jobs]

    def start() -> list[Masks]:
        return [load_masks(args.out, "joint", job) for job in jobs]

    def parts(masks: list[Masks], half: int) -> list[Fold]:
        return [
            measure.prepare(network, mask, images, labels, train, test[half::2])
            for network, mask, (train, test) in zip(networks, masks, splits, strict=True)
        ]

    def train(masks: list[Masks], cuts: tuple[int, ...], seed: int) -> None:
        for network, mask, (rows, _) in zip(networks, masks, splits, strict=True):
            mask.requires_grad_(True)
            train_masks(
                network,
                images[rows],
                mask,
                these_cuts(cuts),
                epochs=args.mask_epochs,
                seed=seed,
                learning_rate=0.01,
            )

    masks = start()
    plan = best_partition(table, mean_errors(parts(masks, PLAN)), pipeline)
    rounds = [judged(parts(masks, JUDGE), plan)]
    stable = False
    while not stable and len(rounds) <= args.max_rounds:
        train(masks, plan.cuts, seed=len(rounds))
        new = best_partition(table, mean_errors(parts(masks, PLAN)), pipeline)
        stable = new[:2] == plan[:2]
        plan = new
        rounds.append(judged(parts(masks, JUDGE), plan))
    fixed_masks = start()
    for k in range(1, len(rounds)):
        train(fixed_masks, args.fixed, seed=k)
    fixed_plan = best_partition(table, mean_errors(parts(fixed_masks, PLAN)), pipeline, cuts=args.fixed)
    fixed = judged(parts(fixed_masks, JUDGE), fixed_plan)
    result = {"rounds": rounds, "stable": stable, "fixed": fixed}
    (args.out / "codesign.json").write_text(json.dumps(result, indent=1))
    for name, record in [*((f"round {k}", record) for k, record in enumerate(rounds)), ("fixed", fixed)]:
        print(
            f"{name:8} cuts {record['cuts']} levels {record['levels']} latency {record['latency']:.2f} "
            f"drop {record['drop_points']:.2f} +- {record['drop_standard_error_points']:.2f} points "
            f"error {record['error_nats']:.4f} nats"
        )
    print("stable" if stable else f"not stable after {args.max_rounds} rounds")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
