"""Measure what plans of cuts and levels do to the digits network, and sum it up in a table.

A plan is seven level indices, one for each cut after blocks 1 .. 7; 0 leaves a cut alone. Every image is
judged by networks that never saw it, one for each cross-validation seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sat_env.compression.codec import RECIPES, Recipe, Site, decode, encode, reconstruct
from sat_env.compression.network import DigitsViT
from sat_env.compression.sparsifier import N_CUTS, Masks, any_cuts, divergence, masked_streams_of, streams_of

MENU = ("none", "float8", "mask22-int8", "mask22-int8-ec", "mask12-int6-ec", "mask06-int4-ec")
COMPLEXITY_POWER = 5.0  # chosen by `content` of benchmarks/compression.py
Plan = Sequence[int]  # (7,) index into MENU for each cut
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fold:
    """One trained network with its masks, and the images it never saw."""

    network: DigitsViT
    sites: dict[tuple[int, str], Site]  # by cut 0..6 and recipe name
    rows: NDArray[np.int64]  # (n,) of the data set
    streams: Tensor  # (7, n, tokens, channels) uncompressed activations
    output: Tensor  # (n, classes) uncompressed log-probabilities
    labels: Tensor  # (n,)
    complexity: Floats  # (n,) 1 on average over the training part

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which images (n,) the uncompressed network gets right."""
        right: NDArray[np.bool_] = (self.output.argmax(1) == self.labels).numpy()
        return right


@torch.no_grad()
def prepare(
    network: DigitsViT, masks: Masks, images: Tensor, labels: Tensor, train: Floats, test: Floats
) -> Fold:
    """Calibrate every cut's sites on the training part, and run the test part once.

    Half of the activations that the coder's statistics are taken from were already masked at earlier cuts.
    """
    ranks = any_cuts(len(train), torch.Generator().manual_seed(0))
    masked = masked_streams_of(network, images[train], masks, ranks)
    seen = torch.cat([streams_of(network, images[train]), masked], dim=1)
    calibrated: dict[tuple[int, Recipe], Site] = {}
    sites: dict[tuple[int, str], Site] = {}
    for cut in range(N_CUTS):
        for recipe in RECIPES.values():
            if recipe.keep == 1:
                continue
            alike = (cut, replace(recipe, name="", entropy=False))  # a site does not depend on these
            if alike not in calibrated:
                calibrated[alike] = masks.site(seen[cut], cut, recipe)
            sites[cut, recipe.name] = calibrated[alike]
    output = network(images[test]).log_softmax(-1)
    return Fold(
        network=network,
        sites=sites,
        rows=np.asarray(test),
        streams=streams_of(network, images[test]),
        output=output,
        labels=labels[test],
        complexity=fit_complexity(images[train], labels[train]).of(images[test]),
    )


@torch.no_grad()
def run(fold: Fold, at_cut: Sequence[Callable[[Tensor], Tensor] | None]) -> Tensor:
    """Return log-probabilities (n, classes) when `at_cut[c]` stands between block c + 1 and the next."""
    active = [cut for cut, change in enumerate(at_cut) if change is not None]
    if not active:
        return fold.output
    stream = fold.streams[active[0]]
    for cut in range(active[0], N_CUTS):
        change = at_cut[cut]
        if change is not None:
            stream = change(stream)
        stream = fold.network.blocks[cut + 1](stream)
    return fold.network.head(stream).log_softmax(-1)


def run_plan(fold: Fold, plan: Plan, menu: Sequence[str] = MENU, through_bytes: bool = False) -> Tensor:
    """Return log-probabilities under a plan; `through_bytes` really encodes and decodes at every cut."""

    def change(cut: int, recipe: Recipe) -> Callable[[Tensor], Tensor] | None:
        site = fold.sites.get((cut, recipe.name))
        if recipe.name == "none":
            return None
        if through_bytes:
            return lambda stream: decode(encode(stream, recipe, site), site)
        return lambda stream: reconstruct(stream, recipe, site)

    return run(fold, [change(cut, RECIPES[menu[level]]) for cut, level in enumerate(plan)])


class Outcome(NamedTuple):
    """What plans do to every image; axis 0 plans, axis 1 the images of the folds in order."""

    correct: NDArray[np.bool_]
    error: Floats  # KL divergence to the uncompressed output, nats


def judge(fold: Fold, outputs: Sequence[Tensor]) -> Outcome:
    """Judge log-probabilities (n, classes) of one fold, one tensor for each plan."""
    correct = [(output.argmax(1) == fold.labels).numpy() for output in outputs]
    error = [divergence(fold.output, output).double().numpy() for output in outputs]
    return Outcome(np.array(correct), np.maximum(np.array(error), 0.0))


def by_image(rows: Sequence[NDArray[np.int64]], values: Sequence[NDArray[Any]]) -> Floats:
    """Average what folds say of an image, over the seeds.

    `rows` (n,) are the images of each fold, `values` (.., n) what it says of them; returns (.., images), in
    the order of the data set.
    """
    n_images = 1 + max(int(part.max()) for part in rows)
    total = np.zeros((*values[0].shape[:-1], n_images))
    count = np.zeros(n_images)
    for part, value in zip(rows, values, strict=True):
        total[..., part] += value
        count[part] += 1
    seen = count > 0
    average: Floats = total[..., seen] / count[seen]
    return average


def mean_and_error(values: Floats) -> tuple[Floats, Floats]:
    """Mean over independent draws (last axis) and its standard error; as a rule the draws are images, not seeds."""
    return values.mean(-1), values.std(-1, ddof=1) / np.sqrt(values.shape[-1])


def cross_validations_needed(values: Floats, wanted: float) -> int | None:
    """How many cross-validations bring the standard error of a mean down to `wanted`; None if none would.

    `values` (seeds, images) vary from network to network, which averaging over more seeds removes, and from
    image to image, which it does not.
    """
    n_seeds, n_images = values.shape
    network = float(values.var(0, ddof=1).mean()) / n_images  # squared error that one seed's networks add
    image = float(mean_and_error(values.mean(0))[1]) ** 2 - network / n_seeds
    room = wanted**2 - image
    return int(np.ceil(network / room)) if room > 0 else None


def single_plans(n_levels: int = len(MENU)) -> list[tuple[int, ...]]:
    """Every lossy level at every cut alone, cut by cut."""
    return [
        tuple(level if c == cut else 0 for c in range(N_CUTS))
        for cut in range(N_CUTS)
        for level in range(1, n_levels)
    ]


def random_plans(
    n_plans: int, seed: int, n_levels: int = len(MENU), without: Sequence[Plan] = ()
) -> list[tuple[int, ...]]:
    """Draw plans, none of those `without`: 1 to 7 cuts, then any lossy level at each."""
    rng = np.random.default_rng(seed)
    plans: list[tuple[int, ...]] = []
    while len(plans) < n_plans:
        cuts = rng.choice(N_CUTS, size=rng.integers(1, N_CUTS + 1), replace=False)
        plan = np.zeros(N_CUTS, dtype=int)
        plan[cuts] = rng.integers(1, n_levels, size=len(cuts))
        if (drawn := tuple(plan.tolist())) not in without:
            plans.append(drawn)
    return plans


def single_errors(plans: Sequence[Plan], values: Floats) -> Floats:
    """Arrange what plans of one cut cost, one value each, by cut and level (7, R); 0 where there is no plan."""
    arranged = np.zeros((N_CUTS, len(MENU)))
    for plan, value in zip(plans, values, strict=True):
        cut = int(np.flatnonzero(plan)[0])
        arranged[cut, plan[cut]] = value
    return arranged


def predicted_error(errors: Floats, plan: Plan) -> float:
    """Sum of the table's errors (7, R) over a plan's cuts."""
    return float(errors[np.arange(N_CUTS), list(plan)].sum())


def fit_drop(error: Floats, drop: Floats, n_bins: int = 14) -> Floats:
    """Fit the monotone map from summed error to accuracy drop; knots (2, m) that start at 0.

    Plans are binned by error, so that one plan's noise does not bend the map, and the bins made monotone by
    isotonic regression.
    """
    from sklearn.isotonic import IsotonicRegression

    bins = np.array_split(np.argsort(error), min(n_bins, len(error) // 4))
    centres = np.array([error[rows].mean() for rows in bins])
    weights = np.array([float(len(rows)) for rows in bins])
    drops = np.array([drop[rows].mean() for rows in bins])
    rising = IsotonicRegression(y_min=0.0, increasing=True).fit(centres, drops, weights).predict(centres)
    rising[-1] = max(rising[-1], rising[-2] + 1e-4)  # the last slope is what goes on beyond the data
    return np.array([np.r_[0.0, centres], np.r_[0.0, rising]])


class Complexity(NamedTuple):
    """How hard an input is to tell apart, known before any of it is computed: errors grow in proportion."""

    prototypes: Floats  # (classes, pixels) mean training image of each class
    power: float
    scale: float  # training mean of the raw measure

    def of(self, images: Tensor) -> Floats:
        """Content complexity (n,) of images (n, 8, 8): 1 on average over the training images.

        A power of the distance to the nearest prototype over that to the second nearest.
        """
        pixels = images.flatten(1).double().numpy()
        square = np.square(pixels[:, None] - self.prototypes).sum(-1)
        nearest, second = np.sort(square, axis=1)[:, :2].T
        measure: Floats = (nearest / second) ** (self.power / 2) / self.scale
        return measure


def fit_complexity(images: Tensor, labels: Tensor, power: float = COMPLEXITY_POWER) -> Complexity:
    """Fit the prototypes to training images (n, 8, 8) and their labels (n,)."""
    pixels = images.flatten(1).double()
    prototypes = torch.stack([pixels[labels == c].mean(0) for c in np.unique(labels)]).numpy()
    return Complexity(prototypes, power, float(Complexity(prototypes, power, 1.0).of(images).mean()))


def coded_bits(fold: Fold, recipe: Recipe, cut: int, batch: int = 64) -> float:
    """Bits per entry of real payloads of `batch` images, headers included."""
    stream, site = fold.streams[cut], fold.sites.get((cut, recipe.name))
    payloads = [encode(stream[i : i + batch], recipe, site) for i in range(0, len(stream), batch)]
    return 8 * sum(map(len, payloads)) / stream.numel()


def throughput(
    fold: Fold, recipe: Recipe, cut: int = 3, batch: int = 64, repeats: int = 15
) -> tuple[float, float]:
    """Entries per second of CPU time of `encode` and `decode` on one thread: the median of a few runs."""
    stream, site = fold.streams[cut][:batch], fold.sites.get((cut, recipe.name))
    payload = encode(stream, recipe, site)
    encoding, decoding = [], []
    for _ in range(repeats):
        start = time.thread_time()
        encode(stream, recipe, site)
        middle = time.thread_time()
        decode(payload, site)
        encoding.append(middle - start)
        decoding.append(time.thread_time() - middle)
    return stream.numel() / float(np.median(encoding)), stream.numel() / float(np.median(decoding))
