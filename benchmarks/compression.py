"""Measure the compression of activations on the digits network: masks, codec, tables, plans.

    python benchmarks/compression.py --quick            under a minute, first cross-validation only
    python benchmarks/compression.py --json --figures docs/figures

Uses the checkpoints of `python -m sat_env.compression.train` and the shipped table. Checkpoints that are
missing it makes, once: about 15 minutes of CPU time, and 25 more for the masks to compare with, which --quick
does without. Standard errors take the images as the independent draws; the cross-validation seeds of
an image are averaged first. With three or more of them (`--settings.seeds`, in a folder of their own) the standard
error given these images is printed beside it, of the mean over cross-validations.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sat_env.compression import measure, train
from sat_env.compression.codec import RECIPES, Recipe, decode, encode, information_bits, quantise, reconstruct
from sat_env.compression.measure import MENU, Fold
from sat_env.compression.network import augment, digits, folds
from sat_env.compression.rule import adaptive_levels
from sat_env.compression.sparsifier import KEEPS, Masks, streams_of
from sat_env.compression.table import CompressionTable, load_table

THREE_CUTS = train.THREE_CUTS
WANTED_SE = 0.25  # points
CHAIN = ("mask22-float32", "mask22-int8", "mask22-int8-ec")
STRONG = MENU.index("mask22-int8-ec")
POSES = 32  # of each test digit, where digits are moved
HALVES = 20  # times the images are split in two, one half to fit the map on


@dataclass(frozen=True)
class Args:
    """Command line."""

    json: bool = False
    """Print one JSON object instead of text."""
    quick: bool = False
    """First cross-validation, fewer plans."""
    out: Path = Path("runs/compression")
    """Folder of the checkpoints."""
    figures: Path | None = None
    """Folder to draw the figures of docs/compression.md into."""
    jobs: int = 2
    """Processes, should the checkpoints have to be made."""
    settings: train.Settings = field(default_factory=train.Settings)


@dataclass(frozen=True)
class Bench:
    """Everything the sections measure on."""

    folds: list[Fold]
    jobs: list[train.Job]
    table: CompressionTable
    args: Args

    def accuracy(self, outputs: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Accuracy in percent of outputs, one for each fold, with its standard error."""
        return self.percent([correct(f, o) * 1.0 for f, o in zip(self.folds, outputs, strict=True)])

    def drop(self, outputs: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Accuracy lost, in points, against the uncompressed outputs: paired by image."""
        pairs = zip(self.folds, outputs, strict=True)
        return self.percent([f.correct * 1.0 - correct(f, o) for f, o in pairs])

    def percent(self, values: Sequence[np.ndarray]) -> dict[str, Any]:
        """Mean, times 100, of what each fold says of its images, and its standard error.

        Where that is above `WANTED_SE`, also how many cross-validations would bring it there: None if none
        would. With three cross-validations or more also the standard error given these images: what other splits
        and networks would change.
        """
        mean, error = measure.mean_and_error(self.by_image(values))
        figure: dict[str, Any] = {"value": float(100 * mean), "se": float(100 * error)}
        seeds = [seed for seed, _ in self.jobs]
        of_seed = np.array(
            [
                measure.by_image(
                    [fold.rows for fold, seed in zip(self.folds, seeds, strict=True) if seed == this],
                    [value for value, seed in zip(values, seeds, strict=True) if seed == this],
                )
                for this in sorted(set(seeds))
            ]
        )  # (cross-validations, images)
        if len(of_seed) > 2:
            figure["se_given_images"] = float(100 * measure.mean_and_error(of_seed.mean(1))[1])
        if figure["se"] > WANTED_SE and len(of_seed) > 1:
            needed = measure.cross_validations_needed(of_seed, WANTED_SE / 100)
            figure["cross_validations_needed"] = needed
        return figure

    def by_image(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """Average over the seeds of an image."""
        return measure.by_image([fold.rows for fold in self.folds], values)

    def fresh(self) -> np.ndarray:
        """Which images (images,) no setting was chosen on."""
        seen = np.unique(np.concatenate([fold.rows for fold in self.folds]))
        return ~np.isin(seen, train.choosing_images())


def correct(fold: Fold, output: torch.Tensor) -> np.ndarray:
    """Which images of a fold (n,) an output gets right."""
    return (output.argmax(1) == fold.labels).numpy()


def verdict(fold: Fold, output: torch.Tensor) -> np.ndarray:
    """What an output says of the images of a fold: right, another class than without compression, nats (3, n)."""
    changed = (output.argmax(1) != fold.output.argmax(1)).numpy()
    return np.stack([correct(fold, output) * 1.0, changed * 1.0, measure.judge(fold, [output]).error[0]])


def plan_at(cuts: Sequence[int], level: int) -> list[int]:
    """Return the plan that encodes at these cuts (after blocks 1 .. 7) with one level."""
    return [level if cut in cuts else 0 for cut in range(1, 8)]


def prepare(args: Args) -> Bench:
    """Load the folds, after training what is missing."""
    train.claim(args.out, args.settings)
    jobs = [job for job in train.jobs_of(args.settings) if job[0] == train.FIRST_SEED or not args.quick]
    arguments = train.Args(args.settings, out=args.out, jobs=args.jobs)
    if not all(train.is_trained(args.out, job) for job in jobs):
        train.run_all("networks and masks", train.train_fold, arguments, jobs)
    if not args.quick:
        train.run_all("measurements", train.measure_fold, arguments, jobs)
    if not args.quick and not all(train.is_trained(args.out, job, k) for job in jobs for k in train.RIVALS):
        train.run_all("masks to compare with", train.train_rivals, arguments, jobs)
    return Bench(
        [train.load_fold(args.out, args.settings, job) for job in jobs],
        jobs,
        load_table("digits-vit"),
        args,
    )


@torch.no_grad()
def chain(bench: Bench) -> dict[str, Any]:
    """Sparsify, quantise, entropy-code over three cuts: real bytes of what really travels."""
    result: dict[str, Any] = {}
    for name in CHAIN:
        n_bytes, n_entries, outputs = 0, 0, []
        for fold in bench.folds:
            recipe, at_cut = RECIPES[name], []
            sent: list[bytes] = []
            for cut in range(7):
                site = fold.sites[cut, name]

                def through(stream, site=site, recipe=recipe, sent=sent):
                    parts = [encode(part, recipe, site) for part in stream.split(64)]
                    sent.extend(parts)
                    return torch.cat([decode(part, site) for part in parts])

                at_cut.append(through if cut + 1 in THREE_CUTS else None)
            outputs.append(measure.run(fold, at_cut))
            n_bytes += sum(map(len, sent))
            n_entries += len(THREE_CUTS) * fold.streams[0].numel()
        drop, accuracy = bench.drop(outputs), bench.accuracy(outputs)
        result[name] = {"ratio": 32 * n_entries / (8 * n_bytes), "drop_points": drop, "accuracy": accuracy}
    for name in MENU[3:]:
        overhead = []
        for fold, cut in itertools.product(bench.folds, THREE_CUTS):
            stream, site = fold.streams[cut - 1][:64], fold.sites[cut - 1, name]
            ideal = information_bits(stream, RECIPES[name], site)
            overhead.append(8 * len(encode(stream, RECIPES[name], site)) / ideal - 1)
        result[f"coded_over_entropy_percent {name}"] = float(100 * np.mean(overhead))
    return result


STEPS = {
    "as it is": RECIPES["mask22-int8-ec"],
    "the same step, 5 bits": replace(RECIPES["mask22-int8-ec"], bits=5, span=46.0 * 15 / 127),
    "a step that fills 8 bits": replace(RECIPES["mask22-int8-ec"], span=5.0),
}


@torch.no_grad()
def step_widths(bench: Bench) -> dict[str, Any]:
    """What of the chain's ratio the width of the quantiser's step makes: one cut of three at a time, one seed."""
    images, _ = digits()
    of_fold = list(zip(bench.folds, bench.jobs, strict=True))[: bench.args.settings.n_folds]
    seen = [
        streams_of(fold.network, images[folds(bench.args.settings.n_folds, seed)[part][0]])
        for fold, (seed, part) in of_fold
    ]
    masks = [train.load_masks(bench.args.out, "joint", job) for _, job in of_fold]
    result = {}
    for title, recipe in STEPS.items():
        bits, errors, largest = [], [], 0
        for (fold, _), known, mask in zip(of_fold, seen, masks, strict=True):
            for cut in THREE_CUTS:
                stream, site = fold.streams[cut - 1], mask.site(known[cut - 1], cut - 1, recipe)
                bits.append(8 * len(encode(stream, recipe, site)) / stream.numel())
                at_cut = [None] * (cut - 1) + [lambda x, r=recipe, s=site: reconstruct(x, r, s)]
                output = measure.run(fold, at_cut + [None] * (7 - cut))
                errors.append(measure.judge(fold, [output]).error.mean())
                largest = max(largest, int(quantise(stream, recipe, site).symbols.abs().max()))
        result[title] = {
            "ratio": 32 / float(np.mean(bits)),
            "error_nats": float(np.mean(errors)),
            "largest_symbol": largest,
            "of": 2 ** (recipe.bits - 1) - 1,
        }
    return result


def never_chosen_on(bench: Bench) -> dict[str, Any]:
    """Accuracy without compression, and what the chain loses, on images that no setting was chosen on."""
    fresh = bench.fresh()
    plan = plan_at(THREE_CUTS, STRONG)
    lost = [fold.correct * 1.0 - correct(fold, measure.run_plan(fold, plan)) for fold in bench.folds]
    accuracy, accuracy_se = measure.mean_and_error(bench.by_image([f.correct for f in bench.folds])[fresh])
    drop, drop_se = measure.mean_and_error(bench.by_image(lost)[fresh])
    return {
        "images": int(fresh.sum()),
        "base_accuracy": {"value": float(100 * accuracy), "se": float(100 * accuracy_se)},
        "chain_drop_points": {"value": float(100 * drop), "se": float(100 * drop_se)},
    }


def sparsified(fold: Fold, masks: Masks | None, keep: float, cuts: Sequence[int]) -> torch.Tensor:
    """Output when only the sparsifier stands at these cuts: the masks, or top-k with zeros without any."""
    recipe = Recipe("sparse", keep=keep, number="float32", bits=32)

    def change(cut: int):
        site = masks.site(fold.streams[cut], cut, recipe) if masks else None
        return lambda stream: reconstruct(stream, recipe, site)

    return measure.run(fold, [change(cut) if cut + 1 in cuts else None for cut in range(7)])


def learned_and_topk(bench: Bench, keep: float, poses: int = 0) -> dict[str, Sequence[Masks | None]]:
    """Masks of each fold: learned, and top-k without and with the training set's means, of as many poses."""
    images, _ = digits()
    centred = []
    for fold, (seed, part) in zip(bench.folds, bench.jobs, strict=True):
        seen = images[folds(bench.args.settings.n_folds, seed)[part][0]]
        if poses:
            generator = torch.Generator().manual_seed(100 * seed + part)
            seen = torch.cat([augment(seen, generator) for _ in range(poses)])
        centred.append(Masks(streams_of(fold.network, seen), keeps=train.STUDIED_KEEPS).requires_grad_(False))
    kind = "joint" if keep in KEEPS else "joint-fewer"
    return {
        "topk": [None] * len(bench.folds),
        "topk centred": centred,
        "learned": [train.load_masks(bench.args.out, kind, job) for job in bench.jobs],
    }


OVER_TOPK = [("learned", "topk"), ("learned", "topk centred")]


def masks_against_topk(bench: Bench) -> dict[str, Any]:
    """Learned masks and top-k at every cut alone and over several: accuracy, changed classes, error.

    The masks of 1/32 were trained with it in the place of 22.1 %; the others are those in use.
    """
    sets = {
        **{f"cut {cut}": (cut,) for cut in range(1, 8)},
        "cuts 2,4,6": THREE_CUTS,
        "all cuts": range(1, 8),
    }
    result: dict[str, Any] = {}
    for keep in (0.0625,) if bench.args.quick else train.STUDIED_KEEPS:
        kinds = learned_and_topk(bench, keep)
        for title, cuts in sets.items():
            result[f"keep {keep} {title}"] = compared(bench, verdicts(bench, kinds, keep, cuts), OVER_TOPK)
    return result


def masks_on_moved_digits(bench: Bench) -> dict[str, Any]:
    """The same at 1/8 and every cut alone, on the test digits in `POSES` poses each.

    As they are, so few of them turn wrong by top-k after a late cut that 1797 cannot tell what masks save. Poses are
    drawn as in training; an image's are averaged before images are taken as the independent draws. Centred top-k
    knows the means of training digits in four poses.
    """
    keep, cuts = 0.125, range(1, 8)
    kinds = learned_and_topk(bench, keep, poses=4)
    total: dict[tuple[int, str], list[np.ndarray]] = {}
    for pose in range(POSES):
        moved = replace(
            bench, folds=[in_pose(f, j, pose) for f, j in zip(bench.folds, bench.jobs, strict=True)]
        )
        told = {(c, kind): said for c in cuts for kind, said in verdicts(moved, kinds, keep, (c,)).items()}
        told[0, "none"] = [verdict(fold, fold.output) for fold in moved.folds]
        for key, said in told.items():
            before = total.get(key, [0.0] * len(said))
            total[key] = [part + new / POSES for part, new in zip(before, said, strict=True)]
    return {
        "poses": POSES,
        "accuracy": bench.percent([said[0] for said in total[0, "none"]]),
        **{
            f"keep {keep} cut {c}": compared(bench, {kind: total[c, kind] for kind in kinds}, OVER_TOPK)
            for c in cuts
        },
    }


@torch.no_grad()
def in_pose(fold: Fold, job: train.Job, pose: int) -> Fold:
    """Return a fold whose images are turned, scaled and shifted as in training; a pose is a draw for each image."""
    images, _ = digits()
    moved = augment(images[fold.rows], torch.Generator().manual_seed(1000 * (100 * job[0] + job[1]) + pose))
    streams = streams_of(fold.network, moved)
    return replace(fold, streams=streams, output=fold.network(moved).log_softmax(-1))


def joint_against_separate(bench: Bench) -> dict[str, Any]:
    """Masks trained together and apart, for any plan and for three cuts only."""
    kinds = {
        kind: [train.load_masks(bench.args.out, kind, job) for job in bench.jobs]
        for kind in train.KINDS
        if kind != "joint-fewer"
    }
    for_any = [("joint", "separate"), ("joint", "static")]
    for_three = [
        ("joint-246", "separate-246"),
        ("joint-246", "separate-246-long"),
        ("joint", "separate-246-long"),
        ("joint-246", "joint"),
    ]
    result: dict[str, Any] = {}
    for keep in (0.125, 0.0625):
        title = f"keep {keep}"
        result[f"{title} cuts 2,4,6"] = compared(
            bench, verdicts(bench, kinds, keep, THREE_CUTS), for_any + for_three
        )
        any_plan = {kind: kinds[kind] for kind in ("joint", "separate", "static")}
        result[f"{title} all cuts"] = compared(bench, verdicts(bench, any_plan, keep, range(1, 8)), for_any)
    return result


def verdicts(
    bench: Bench, kinds: Mapping[str, Sequence[Masks | None]], keep: float, cuts: Sequence[int]
) -> dict[str, list[np.ndarray]]:
    """What each kind of masks does to the images of each fold at these cuts, as `verdict` says it."""
    return {
        kind: [verdict(f, sparsified(f, m, keep, cuts)) for f, m in zip(bench.folds, masks, strict=True)]
        for kind, masks in kinds.items()
    }


def compared(
    bench: Bench, told: Mapping[str, Sequence[np.ndarray]], pairs: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """What kinds of masks do, by the verdicts of each fold, and what the first of each pair has over the second.

    Differences are paired by image: accuracy and fewer changed classes in points, nats saved.
    """
    row: dict[str, Any] = {
        kind: {
            "accuracy": bench.percent([right for right, _, _ in said]),
            "changed": bench.percent([changed for _, changed, _ in said]),
            "error_nats": float(bench.by_image([nats for _, _, nats in said]).mean()),
        }
        for kind, said in told.items()
    }
    for kind, rival in pairs:
        over = [mine - other for mine, other in zip(told[kind], told[rival], strict=True)]
        saved, saved_se = measure.mean_and_error(bench.by_image([-nats for _, _, nats in over]))
        row[f"{kind} - {rival}"] = {
            "accuracy": bench.percent([right for right, _, _ in over]),
            "fewer_changed": bench.percent([-changed for _, changed, _ in over]),
            "saved_nats": {"nats": float(saved), "nats_se": float(saved_se)},
        }
    return row


def accumulation(bench: Bench) -> list[dict[str, Any]]:
    """Error and drop of 1 to 7 cuts, spread evenly, beside the sum of what each cut costs alone."""
    rows = []
    for name in MENU[3:4] if bench.args.quick else MENU[3:]:
        for n_cuts in range(1, 8):
            cuts = np.rint(np.linspace(1, 7, n_cuts + 2)[1:-1] if n_cuts < 6 else np.arange(8 - n_cuts, 8))
            plan = plan_at(cuts.astype(int).tolist(), MENU.index(name))
            outputs = [measure.run_plan(fold, plan) for fold in bench.folds]
            outcomes = [measure.judge(f, [o]).error[0] for f, o in zip(bench.folds, outputs, strict=True)]
            mean, error = measure.mean_and_error(bench.by_image(outcomes))
            rows.append(
                {
                    "level": name,
                    "cuts": (np.flatnonzero(plan) + 1).tolist(),
                    "summed_error_nats": measure.predicted_error(bench.table.errors, plan),
                    "measured_error_nats": float(mean),
                    "measured_error_se_nats": float(error),
                    "drop_points": bench.drop(outputs),
                }
            )
    return rows


def predicted_against_measured(bench: Bench) -> dict[str, Any]:
    """Random plans that the table has not seen: the drop it predicts and the drop measured."""
    known = train.table_plans(bench.args.settings)
    plans = measure.random_plans(20 if bench.args.quick else 200, seed=2, without=known)
    outcomes = [measure.judge(fold, [measure.run_plan(fold, plan) for plan in plans]) for fold in bench.folds]
    base = bench.by_image([fold.correct for fold in bench.folds])
    right = bench.by_image([outcome.correct for outcome in outcomes])
    kl = bench.by_image([outcome.error for outcome in outcomes])
    summed = np.array([measure.predicted_error(bench.table.errors, plan) for plan in plans])
    predicted = bench.table.accuracy_drop(summed)
    return {
        "plans": len(plans),
        **_judged(predicted, base - right),
        "on_other_images": None if bench.args.quick else on_other_images(bench, plans, base - right),
        "summed_error_nats": summed.tolist(),
        "measured_error_nats": kl.mean(1).tolist(),
        "predicted_points": (100 * predicted).tolist(),
        "measured_points": (100 * (base - right).mean(1)).tolist(),
        "measured_se_points": (100 * measure.mean_and_error(base - right)[1]).tolist(),
        "_error_by_image": kl.mean(0).tolist(),
    }


def _judged(predicted: np.ndarray, lost: np.ndarray) -> dict[str, Any]:
    """Compare predicted drops (plans,) with what each image loses (plans, images)."""
    predicted = 100 * predicted
    measured, errors = (100 * a for a in measure.mean_and_error(lost))
    small, feasible = predicted < 2, predicted <= 1
    kept = measured[feasible] - 1.96 * errors[feasible] <= 1
    return {
        "mae_points": float(np.abs(predicted - measured).mean()),
        "mae_points_below_2": float(np.abs(predicted - measured)[small].mean()),
        "plans_below_2": int(small.sum()),
        "feasible": int(feasible.sum()),
        "feasible_within_interval_percent": float(100 * kept.mean()),
        "feasible_at_the_mean_percent": float(100 * (measured[feasible] <= 1).mean()),
        "mean_se_points": float(errors.mean()),
        "mean_se_points_below_2": float(errors[small].mean()),
    }


def on_other_images(bench: Bench, plans: Sequence[Sequence[int]], lost: np.ndarray) -> dict[str, float]:
    """Judge maps of half of the images on the other half, which neither errors nor map have seen.

    The shipped table is of all images, so that the plans above are new to it and the images are not. Means over
    `HALVES` splits, each both ways.
    """
    parts = [train.load_measured(bench.args.out, job) for job in bench.jobs]
    correct, error = (
        bench.by_image(values) for values in zip(*[(p.correct, p.error) for p in parts], strict=True)
    )
    known, n_single = train.table_plans(bench.args.settings), 1 + len(measure.single_plans())
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(HALVES):
        order = rng.permutation(lost.shape[1])
        for seen in (order[::2], order[1::2]):
            other = np.setdiff1d(order, seen)
            errors = measure.single_errors(known[1:n_single], error[1:n_single, seen].mean(1))
            of = [measure.predicted_error(errors, plan) for plan in known[n_single:]]
            drop = (correct[0, seen] - correct[n_single:, seen]).mean(1)
            knots = measure.fit_drop(np.array(of), drop)
            table = replace(bench.table, errors=errors, drop_knots=knots)
            summed = np.array([measure.predicted_error(errors, plan) for plan in plans])
            rows.append(_judged(table.accuracy_drop(summed), lost[:, other]))
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def content(bench: Bench, errors_by_image: np.ndarray) -> dict[str, Any]:
    """Error of the random plans by content complexity, in eight bins of images, relative to the mean.

    The power in the measure is the one that comes nearest to proportionality on the images that settings were
    chosen on; the bins hold the others.
    """
    images, labels = digits()
    splits = [folds(bench.args.settings.n_folds, seed)[fold] for seed, fold in bench.jobs]

    def complexities(power: float) -> np.ndarray:
        fits = [measure.fit_complexity(images[rows], labels[rows], power) for rows, _ in splits]
        return bench.by_image([fit.of(images[f.rows]) for fit, f in zip(fits, bench.folds, strict=True)])

    def by_eighth(complexity: np.ndarray, error: np.ndarray) -> np.ndarray:
        bins = np.array_split(np.argsort(complexity), 8)
        relative = error / error.mean()
        rows = [(complexity[b].mean(), *measure.mean_and_error(relative[b])) for b in bins]
        return np.array(rows).T

    fresh = bench.fresh()
    off = {}
    for power in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
        mean, relative, _ = by_eighth(complexities(power)[~fresh], errors_by_image[~fresh])
        off[f"power {power:g}"] = float(np.abs(mean - relative).mean())
    complexity = complexities(measure.COMPLEXITY_POWER)[fresh]
    mean, relative, error = by_eighth(complexity, errors_by_image[fresh])
    return {
        "off_proportionality_where_chosen": off,
        "images": int(fresh.sum()),
        "complexity": mean.tolist(),
        "relative_error": relative.tolist(),
        "relative_error_se": error.tolist(),
        "rank_correlation": float(spearmanr(complexity, errors_by_image[fresh]).statistic),
    }


def rule_against_fixed(bench: Bench) -> list[dict[str, Any]]:
    """Ratio and drop over three-cut plans: fixed levels, quantised top-k, and the adaptive rule."""
    complexity = np.concatenate([fold.complexity for fold in bench.folds])
    bounds = np.quantile(complexity, [0.25, 0.5, 0.75])
    bin_mean = [float(complexity[np.digitize(complexity, bounds) == b].mean()) for b in range(4)]
    cut_sets = CUT_SETS[:1] if bench.args.quick else CUT_SETS
    bits = np.array([level.bits_per_entry for level in bench.table.levels])

    def fixed(level: int) -> list[tuple[list[torch.Tensor], float]]:
        return [
            ([measure.run_plan(fold, plan_at(cuts, level)) for fold in bench.folds], float(bits[level]))
            for cuts in cut_sets
        ]

    def topk(level: int) -> list[tuple[list[torch.Tensor], float]]:
        recipe = RECIPES[MENU[level]]
        results = []
        for cuts in cut_sets:
            sizes: list[float] = []

            def through(stream, recipe=recipe, sizes=sizes):
                payload = encode(stream, recipe)
                sizes.append(8 * len(payload) / stream.numel())
                return decode(payload)

            outputs = [
                measure.run(fold, [through if c + 1 in cuts else None for c in range(7)])
                for fold in bench.folds
            ]
            results.append((outputs, float(np.mean(sizes))))
        return results

    def adaptive(max_drop: float, by_content: bool) -> list[tuple[list[torch.Tensor], float]]:
        results = []
        for cuts in cut_sets:
            chosen = [
                adaptive_levels(bench.table, 8, cuts, bin_mean[b] if by_content else 1.0, max_drop)
                for b in range(4)
            ]
            outputs = []
            for fold in bench.folds:
                output = fold.output.clone()
                for levels in set(chosen):
                    plan = np.zeros(7, dtype=int)
                    plan[np.array(cuts) - 1] = levels
                    rows = np.isin(
                        np.digitize(fold.complexity, bounds), [b for b in range(4) if chosen[b] == levels]
                    )
                    output[rows] = measure.run_plan(fold, plan.tolist())[rows]
                outputs.append(output)
            results.append((outputs, float(np.mean([bits[list(levels)].mean() for levels in chosen]))))
        return results

    rows = []
    policies = {
        **{f"fixed {name}": (fixed, MENU.index(name)) for name in MENU[1:] if name != "mask22-int8"},
        **{f"top-k {name[4:]}": (topk, MENU.index(name)) for name in MENU[3:]},
    }
    for name, (policy, level) in policies.items():
        rows.append({"policy": name, **_ratio_and_drop(bench, policy(level))})
    for max_drop in (0.01,) if bench.args.quick else (0.005, 0.01, 0.02):
        for by_content in (False, True):
            name = f"adaptive {100 * max_drop:g} points" + (", by content" if by_content else "")
            rows.append({"policy": name, **_ratio_and_drop(bench, adaptive(max_drop, by_content))})
    return rows


CUT_SETS = [(2, 4, 6), (1, 4, 7), (3, 5, 7), (1, 2, 3)]


def _ratio_and_drop(bench: Bench, results: list[tuple[list[torch.Tensor], float]]) -> dict[str, Any]:
    """Average plans of the same policy: ratio of the mean bits, and drop paired by image."""
    drops = [
        np.mean([f.correct * 1.0 - correct(f, outputs[k]) for outputs, _ in results], axis=0)
        for k, f in enumerate(bench.folds)
    ]
    worst = max(bench.drop(outputs)["value"] for outputs, _ in results)
    ratio = 32 / float(np.mean([bits for _, bits in results]))
    return {"ratio": ratio, "drop_points": bench.percent(drops), "worst_plan_points": worst}


def split_inference(bench: Bench) -> dict[str, Any]:
    """Cut the network at a plan's cuts, pass real bytes between the parts, compare with the table."""
    plan = (0, MENU.index("mask22-int8-ec"), 0, MENU.index("mask12-int6-ec"), 0, STRONG, 0)
    outputs = [measure.run_plan(fold, plan, through_bytes=True) for fold in bench.folds]
    direct = [measure.run_plan(fold, plan) for fold in bench.folds]
    predicted = bench.table.accuracy_drop(measure.predicted_error(bench.table.errors, plan))
    drop = bench.drop(outputs)
    return {
        "plan": [MENU[level] for level in plan],
        "accuracy": bench.accuracy(outputs),
        "drop_points": drop,
        "predicted_drop_points": float(100 * predicted),
        "within_interval": bool(abs(100 * predicted - drop["value"]) <= 1.96 * drop["se"]),
        "bytes_change_nothing": all(torch.equal(a, b) for a, b in zip(outputs, direct, strict=True)),
    }


def main(args: Args) -> None:
    """Run every section, print, draw."""
    torch.set_num_threads(1)
    bench = prepare(args)
    base = bench.accuracy([fold.output for fold in bench.folds])
    links = chain(bench)
    plans = predicted_against_measured(bench)
    by_content = content(bench, np.array(plans.pop("_error_by_image")))
    end_to_end = links["mask22-int8-ec"]
    result = {
        "base_accuracy": base["value"],
        "base_accuracy_se": base["se"],
        "chain_ratio": end_to_end["ratio"],
        "chain_drop_points": end_to_end["drop_points"]["value"],
        "chain_drop_points_se": end_to_end["drop_points"]["se"],
        "predicted_vs_measured_mae_points": plans["mae_points_below_2"],
        "chain": links,
        "never_chosen_on": never_chosen_on(bench),
        "accumulation": accumulation(bench),
        "plans": plans,
        "content": by_content,
        "rule": rule_against_fixed(bench),
        "split_inference": split_inference(bench),
        "masks_against_topk": masks_against_topk(bench),
        "networks": len(bench.folds),
    }
    if not args.quick:
        result["step_widths"] = step_widths(bench)
        result["masks_on_moved_digits"] = masks_on_moved_digits(bench)
        result["joint_against_separate"] = joint_against_separate(bench)
    result["standard_errors"] = standard_errors(result)
    if args.figures:
        draw(result, bench.table, args.figures)
    print(json.dumps(result) if args.json else "\n".join(text(result)))


def figures(value: Any, name: str = "") -> dict[str, dict[str, Any]]:
    """Every figure with a standard error in points, by where it stands in a nested result."""
    if isinstance(value, dict):
        if "se" in value:
            return {name: value}
        return {
            k: v for key, item in value.items() for k, v in figures(item, f"{name} {key}".strip()).items()
        }
    if isinstance(value, list) and value and isinstance(value[0], dict):
        parts = [
            figures(item, f"{name} {item.get('policy') or (item['level'], item['cuts'])}") for item in value
        ]
        return {k: v for part in parts for k, v in part.items()}
    return {}


def standard_errors(result: dict[str, Any]) -> dict[str, Any]:
    """How many figures have the standard error that was asked for, and which do not."""
    found = figures(result)
    above = {name: figure for name, figure in found.items() if figure["se"] > WANTED_SE}
    given = [figure["se_given_images"] for figure in found.values() if "se_given_images" in figure]
    return {
        "wanted_points": WANTED_SE,
        "figures": len(found),
        "at_most_wanted": len(found) - len(above),
        "at_most_wanted_given_images": sum(se <= WANTED_SE for se in given) if given else None,
        "above": above,
        "plans": len(result["plans"]["measured_se_points"]),
        "plans_at_most_wanted": int((np.array(result["plans"]["measured_se_points"]) <= WANTED_SE).sum()),
    }


def text(value: Any, name: str = "") -> list[str]:
    """Lines of text for a nested result; long lists of plans are left to --json."""
    if isinstance(value, dict) and "se" in value:
        rest = [f"{key} {item}" for key, item in value.items() if key not in ("value", "se")]
        return [" ".join([f"{name} {value['value']:.2f} +- {value['se']:.2f}", *rest])]
    if isinstance(value, dict):
        return [line for key, item in value.items() for line in text(item, f"{name} {key}".strip())]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [line for item in value for line in text(item, name)]
    if isinstance(value, list):
        return (
            []
            if len(value) > 10
            else [f"{name} {[round(v, 4) if isinstance(v, float) else v for v in value]}"]
        )
    return [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"]


def draw(result: dict[str, Any], table: CompressionTable, folder: Path) -> None:
    """Draw the figures of docs/compression.md."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"figure.dpi": 90, "font.size": 9, "axes.grid": True, "grid.alpha": 0.3})
    folder.mkdir(parents=True, exist_ok=True)

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    for r, level in enumerate(table.levels):
        if r and level.name != "mask22-int8":
            axes[0].semilogy(
                range(1, 8), table.errors[:, r], "o-", label=f"{level.name}, {table.ratios()[r]:.0f}x"
            )
    axes[0].set(xlabel="cut after block", ylabel="KL divergence, nats", title="error of one encoding")
    axes[0].legend(fontsize=7)
    for name in ("mask22-int8-ec", "mask12-int6-ec", "mask06-int4-ec"):
        rows = [row for row in result["accumulation"] if row["level"] == name]
        axes[1].errorbar(
            [row["summed_error_nats"] for row in rows],
            [row["measured_error_nats"] for row in rows],
            [1.96 * row["measured_error_se_nats"] for row in rows],
            fmt="o-",
            label=name,
        )
    limit = max(row["summed_error_nats"] for row in result["accumulation"])
    axes[1].plot([0, limit], [0, limit], "k:", label="additive")
    axes[1].set(xlabel="sum of single-cut errors, nats", ylabel="measured, nats", title="1 to 7 cuts")
    axes[1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(folder / "compression_errors.png")

    plans = result["plans"]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    axes[0].plot(plans["summed_error_nats"], plans["measured_points"], ".", label="random plans")
    axes[0].plot(table.drop_knots[0], 100 * table.drop_knots[1], "k-", label="the table's map")
    axes[0].set(xlabel="summed error, nats", ylabel="accuracy drop, points")
    axes[0].legend()
    axes[1].errorbar(
        plans["predicted_points"],
        plans["measured_points"],
        1.96 * np.array(plans["measured_se_points"]),
        fmt=".",
        elinewidth=0.5,
    )
    axes[1].plot([-0.5, 4], [-0.5, 4], "k:")
    axes[1].axvline(1, color="r", lw=0.8)
    axes[1].axhline(1, color="r", lw=0.8)
    axes[1].set(
        xlabel="predicted drop, points", ylabel="measured drop, points", xlim=(-0.1, 3), ylim=(-0.6, 4)
    )
    figure.tight_layout()
    figure.savefig(folder / "compression_plans.png")

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    for row in result["rule"]:
        kind = row["policy"].split()[0]
        marker = {"fixed": "o", "top-k": "x", "adaptive": "*"}[kind]
        colour = {"fixed": "C0", "top-k": "C3", "adaptive": "C2"}[kind]
        drop = row["drop_points"]
        axes[0].errorbar(row["ratio"], drop["value"], 1.96 * drop["se"], fmt=marker, color=colour)
    for kind, marker, colour in (("fixed level", "o", "C0"), ("top-k", "x", "C3"), ("adaptive", "*", "C2")):
        axes[0].plot([], [], marker, color=colour, label=kind)
    axes[0].set(xscale="log", xlabel="compression ratio", ylabel="accuracy drop, points", title="three cuts")
    axes[0].set_yscale("symlog", linthresh=2)
    ratios = [4, 8, 16, 32, 64]
    axes[0].set_xticks(ratios, [f"{ratio}x" for ratio in ratios])
    axes[0].minorticks_off()
    axes[0].legend()
    by = result["content"]
    axes[1].errorbar(
        by["complexity"], by["relative_error"], 1.96 * np.array(by["relative_error_se"]), fmt="o-"
    )
    axes[1].plot([0, 2.5], [0, 2.5], "k:", label="proportional")
    axes[1].set(xlabel="content complexity", ylabel="relative error", title="eight bins of images")
    axes[1].legend()
    figure.tight_layout()
    figure.savefig(folder / "compression_rule.png")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
