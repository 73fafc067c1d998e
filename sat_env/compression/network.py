"""The measured network: an 8-block vision transformer on scikit-learn's bundled digits, cut where you like.

1797 images of 8 x 8 pixels, no download. Cross-validation gives every image a prediction by a network that
never saw it, so pooled figures rest on all of them.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn
from torch.nn import functional

N_BLOCKS = 8
N_TOKENS = 17  # 4 x 4 patches of 4 x 4 pixels, each half over the next, and a class token
DIM = 64
N_CLASSES = 10


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a two-layer perceptron, each added to the stream."""

    def __init__(self, dim: int = DIM, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * dim)
        self.down = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map the stream (n, tokens, dim) to the next one."""
        n, tokens, dim = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(n, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, tokens, dim))
        change: Tensor = self.down(functional.gelu(self.up(self.norm_mlp(x))))
        return x + change


class DigitsViT(nn.Module):
    """The network in three parts, so that it can be cut: `embed`, `blocks`, `head`."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Linear(16, DIM)
        self.class_token = nn.Parameter(torch.zeros(1, 1, DIM))
        self.position = nn.Parameter(0.02 * torch.randn(1, N_TOKENS, DIM))
        self.blocks = nn.ModuleList(Block() for _ in range(N_BLOCKS))
        self.norm = nn.LayerNorm(DIM)
        self.classify = nn.Linear(DIM, N_CLASSES)

    def embed(self, images: Tensor) -> Tensor:
        """Images (n, 8, 8) in 0..1 to the stream (n, 17, 64) before block 1."""
        n = len(images)
        pixels = ((images - 0.3) * 2.7)[:, None]
        patches = functional.unfold(pixels, kernel_size=4, stride=2, padding=1).transpose(1, 2)
        return torch.cat([self.class_token.expand(n, -1, -1), self.patch(patches)], 1) + self.position

    def head(self, stream: Tensor) -> Tensor:
        """Class logits (n, 10) from the stream after the last block."""
        logits: Tensor = self.classify(self.norm(stream[:, 0]))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Class logits (n, 10) of images (n, 8, 8)."""
        stream = self.embed(images)
        for block in self.blocks:
            stream = block(stream)
        return self.head(stream)


def digits() -> tuple[Tensor, Tensor]:
    """All images (1797, 8, 8) in 0..1 and their labels (1797,)."""
    data = load_digits()
    return torch.tensor(data.images / 16.0, dtype=torch.float32), torch.tensor(data.target, dtype=torch.int64)


def folds(n_folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, test) image indices of each fold; the test parts cover every image once."""
    _, labels = digits()
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(labels)), labels.numpy()))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn (+-9 deg), scale (+-8 %) and shift (+-0.6 pixels) three of four images (n, 8, 8) at random.

    The fourth stays as it is: turning blurs, and what is judged later is sharp.
    """
    n = len(images)
    draw = torch.rand(4, n, generator=generator) * 2 - 1
    turned = torch.rand(n, 1, 1, generator=generator) < 0.75
    angle, scale = draw[0] * 0.15, 1 + 0.08 * draw[1]
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    shift = draw[2:] * 0.15  # of the half width, 4 pixels
    affine = torch.stack([cos, -sin, shift[0], sin, cos, shift[1]], 1).view(n, 2, 3)
    grid = functional.affine_grid(affine, [n, 1, 8, 8], align_corners=False)
    return torch.where(
        turned, functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0], images
    )


def batches(n: int, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return the indices 0..n-1 in random order, in batches of a size; the last may be smaller."""
    return torch.split(torch.randperm(n, generator=generator), size)


def train_network(
    images: Tensor, labels: Tensor, *, epochs: int, seed: int, batch: int = 64, learning_rate: float = 3e-3
) -> DigitsViT:
    """Train one network on images (n, 8, 8); the seed alone decides the result."""
    torch.manual_seed(seed)  # initial weights only: nn.Linear takes no generator
    network = DigitsViT()
    generator = torch.Generator().manual_seed(seed)
    steps = -(-len(images) // batch) * epochs
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=steps, pct_start=0.15
    )
    for _ in range(epochs):
        for rows in batches(len(images), batch, generator):
            logits = network(augment(images[rows], generator))
            loss = functional.cross_entropy(logits, labels[rows], label_smoothing=0.1)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return network.eval()
