"""Learned masks: which entries of an activation matter to the network's output.

Every cut has, at every kept fraction, a score for each entry. In training the scores get Gumbel noise, the
highest are kept, and the gradient passes straight through the choice [1]_ [2]_. What is learned is the
output: the masked network is distilled to the unmasked one. The network itself stays as it is, so that one
network serves all cuts.

References
----------
.. [1] E. Jang, S. Gu, B. Poole, "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017.
.. [2] S. M. Xie, S. Ermon, "Reparameterizable Subset Sampling via Continuous Relaxations", IJCAI 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sat_env.compression.codec import RECIPES, Recipe, Site, calibrate, n_kept
from sat_env.compression.network import DIM, N_BLOCKS, N_TOKENS, DigitsViT, augment, batches

N_CUTS = N_BLOCKS - 1  # after blocks 1 .. 7
N_ENTRIES = N_TOKENS * DIM
KEEPS = tuple(sorted({recipe.keep for recipe in RECIPES.values() if recipe.keep < 1}, reverse=True))
N_RANKS = len(KEEPS)  # kept fractions that a set of masks holds


class Masks(nn.Module):
    """Scores and centres of every cut (axis 0) at every kept fraction of `keeps` (axis 1).

    An entry's score is ``bias + weight * |value - centre| / size``, `size` the cut's typical deviation. Bias
    0 and weight 1, where training starts, keep the largest deviations; weight 0 makes the mask static.
    """

    size: Tensor

    def __init__(self, streams: Tensor, static: bool = False, keeps: tuple[float, ...] = KEEPS) -> None:
        """Start from the activations (cuts, n, tokens, channels) of the training set."""
        if len(keeps) != N_RANKS:
            raise ValueError(f"keeps is {keeps}, must be {N_RANKS} kept fractions")
        super().__init__()
        flat = streams.flatten(2)
        self.static = static
        self.keeps = keeps
        self.register_buffer("size", flat.std(1).mean(1))
        shape = (N_CUTS, N_RANKS, N_ENTRIES)
        self.centre = nn.Parameter(flat.mean(1)[:, None].repeat(1, N_RANKS, 1))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.weight = nn.Parameter(torch.ones(shape), requires_grad=not static)
        if static:
            self.bias.data += (flat.std(1) / self.size[:, None])[:, None]
            self.weight.data.zero_()

    def forward(
        self, stream: Tensor, cut: int, rank: Tensor, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Mask the stream (n, tokens, channels) after block cut + 1.

        `rank` (n,) says for each sample which kept fraction applies: 0 none, k the k-th of `keeps`. Without a
        generator the scores get no noise.
        """
        rows = rank.nonzero()[:, 0]
        if len(rows) == 0:
            return stream
        k = rank[rows] - 1
        centre = self.centre[cut][k]
        deviation = stream[rows].flatten(1) - centre
        score = self.bias[cut][k] + self.weight[cut][k] * deviation.abs() / self.size[cut]
        if generator is not None:
            uniform = torch.rand(score.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
            # The difference of two Gumbel variables is logistic: one draw decides keep against drop.
            score = score + 0.5 * temperature * torch.logit(uniform)
        counts = torch.tensor([n_kept(keep, N_ENTRIES) for keep in self.keeps])
        threshold = score.detach().topk(int(counts.max()), 1).values.gather(1, counts[k][:, None] - 1)
        soft = torch.sigmoid((score - threshold) / temperature)
        kept = (score >= threshold).float() + soft - soft.detach()
        return stream.index_put((rows,), (centre + kept * deviation).view(-1, N_TOKENS, DIM))

    @torch.no_grad()
    def site(self, streams: Tensor, cut: int, recipe: Recipe) -> Site:
        """Return what both ends of a cut need for a recipe, calibrated on (n, tokens, channels)."""
        k = self.keeps.index(recipe.keep)
        shape = (N_TOKENS, DIM)
        return calibrate(
            streams,
            recipe,
            self.centre[cut, k].detach().view(shape).clone(),
            self.bias[cut, k].detach().view(shape).clone(),
            (self.weight[cut, k].detach() / self.size[cut]).view(shape),
        )


@torch.no_grad()
def streams_of(network: DigitsViT, images: Tensor) -> Tensor:
    """Activations (cuts, n, tokens, channels) after blocks 1 .. 7."""
    return torch.stack(list(_streams(network, images, lambda stream, cut: stream)))


@torch.no_grad()
def masked_streams_of(network: DigitsViT, images: Tensor, masks: Masks, ranks: Tensor) -> Tensor:
    """Activations (cuts, n, tokens, channels) as they come to each cut when the cuts before it are masked."""
    return torch.stack(
        list(_streams(network, images, lambda stream, cut: masks(stream, cut, ranks[:, cut], 1.0, None)))
    )


def _streams(network: DigitsViT, images: Tensor, at_cut: Callable[[Tensor, int], Tensor]) -> Iterator[Tensor]:
    stream = network.embed(images)
    for cut, block in enumerate(network.blocks[:N_CUTS]):
        stream = block(stream)
        yield stream
        stream = at_cut(stream, cut)


Draw = Callable[[int, torch.Generator], Tensor]  # ranks (n, cuts) of the plans that n samples meet


def single_cuts(n: int, generator: torch.Generator) -> Tensor:
    """Draw for each of n samples one cut and its rank, (n, cuts): masks trained separately."""
    return _draw(n, generator, torch.ones(n, 1))


def any_cuts(n: int, generator: torch.Generator) -> Tensor:
    """Draw for each of n samples 1 to 7 cuts and their ranks, (n, cuts): masks trained for any plan."""
    return _draw(n, generator, torch.randint(1, N_CUTS + 1, (n, 1), generator=generator))


def these_cuts(cuts: tuple[int, ...]) -> Draw:
    """Return a draw of always these cuts (after blocks 1 .. 7), ranks at random: one partition's masks."""

    def draw(n: int, generator: torch.Generator) -> Tensor:
        ranks = torch.zeros(n, N_CUTS, dtype=torch.int64)
        columns = torch.tensor(cuts) - 1
        ranks[:, columns] = torch.randint(1, N_RANKS + 1, (n, len(cuts)), generator=generator)
        return ranks

    return draw


def one_of(cuts: tuple[int, ...]) -> Draw:
    """Return a draw of one of these cuts for each sample: one partition's masks, trained separately."""
    together = these_cuts(cuts)

    def draw(n: int, generator: torch.Generator) -> Tensor:
        ranks = together(n, generator)
        chosen = torch.randint(len(cuts), (n,), generator=generator)
        return ranks * nn.functional.one_hot(torch.tensor(cuts)[chosen] - 1, N_CUTS)

    return draw


def _draw(n: int, generator: torch.Generator, n_active: Tensor) -> Tensor:
    ranks = torch.randint(1, N_RANKS + 1, (n, N_CUTS), generator=generator)
    order = torch.rand(n, N_CUTS, generator=generator).argsort(1).argsort(1)
    return ranks * (order < n_active)


def train_masks(
    network: DigitsViT,
    images: Tensor,
    masks: Masks,
    draw: Draw,
    *,
    epochs: int,
    seed: int,
    temperature: float = 0.3,
    learning_rate: float = 0.02,
    batch: int = 64,
) -> Masks:
    """Train masks in place by distillation; each sample of a batch meets a plan of its own."""
    network.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    n_batches = len(images) // batch
    optimiser = torch.optim.Adam([p for p in masks.parameters() if p.requires_grad], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=epochs * n_batches, pct_start=0.1
    )
    for _ in range(epochs):
        for rows in batches(len(images), batch, generator)[:n_batches]:
            turned = augment(images[rows], generator)
            with torch.no_grad():
                target = network(turned).log_softmax(-1)
            ranks = draw(batch, generator)
            stream = network.embed(turned)
            for cut, block in enumerate(network.blocks):
                stream = block(stream)
                if cut < N_CUTS:
                    stream = masks(stream, cut, ranks[:, cut], temperature, generator)
            loss = divergence(target, network.head(stream).log_softmax(-1)).mean()
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    return masks.requires_grad_(False)


def divergence(target: Tensor, output: Tensor) -> Tensor:
    """KL divergence (n,) in nats from log-probabilities `target` to `output`, both (n, classes)."""
    return (target.exp() * (target - output)).sum(-1)
