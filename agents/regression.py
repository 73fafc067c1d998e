"""Small ensembles of networks fitted by Huber's loss, and played with numpy alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array32 = NDArray[np.float32]
FOLDS = 4  # members of an ensemble; each leaves out another share of the data
CLIP = 5.0  # inputs beyond this many standard deviations are not told apart
DROPOUT = 0.1


class Ensemble(NamedTuple):
    """`FOLDS` networks of two hidden layers of tanh, over inputs that are standardised first."""

    mean: Array32  # (D,)
    scale: Array32  # (D,) one over the standard deviation
    first: Array32  # (F, D+1, W) the last row is the bias
    second: Array32  # (F, W+1, W)
    last: Array32  # (F, W+1)
    unit: float  # what the networks' outputs are multiplied by
    middle: float  # what is added then

    def each(self, x: Array32) -> Array32:
        """Return the prediction of every member for rows of x (n, D): (F, n)."""
        z = np.clip((x - self.mean) * self.scale, -CLIP, CLIP)
        h = np.tanh(z @ self.first[:, :-1] + self.first[:, -1:])
        h = np.tanh(h @ self.second[:, :-1] + self.second[:, -1:])
        said = np.einsum("fnw,fw->fn", h, self.last[:, :-1]) + self.last[:, -1:]
        out: Array32 = said * np.float32(self.unit) + np.float32(self.middle)
        return out

    def predict(self, x: Array32) -> Array32:
        """Return the mean prediction for rows of x (n, D): (n,)."""
        mean: Array32 = self.each(x).mean(axis=0)
        return mean


def nothing(inputs: int) -> Ensemble:
    """Return an ensemble that predicts 0 of D = `inputs` numbers."""
    shapes = ((inputs,), (inputs,), (FOLDS, inputs + 1, 1), (FOLDS, 2, 1), (FOLDS, 2))
    return Ensemble(*(np.zeros(shape, np.float32) for shape in shapes), 1.0, 0.0)


def fit(
    x: Array32,
    y: NDArray[np.float64],
    fold: NDArray[np.int64],
    width: int,
    passes: int,
    seed: int,
    learning_rate: float = 5e-3,
    batch: int = 512,
    decay: float = 0.02,
) -> Ensemble:
    """Fit member f to the rows whose `fold` is not f.

    Parameters
    ----------
    x, y
        (n, D) inputs and (n,) targets.
    fold
        (n,) in 0..FOLDS-1; rows that share luck (of one trace, say) belong in one fold.
    width
        Of both hidden layers.
    passes
        Over the data.
    seed
        Of first weights, order and dropout.
    """
    import torch

    mean, deviation = x.mean(axis=0), x.std(axis=0)
    scale = np.where(deviation > 1e-6, 1.0 / np.maximum(deviation, 1e-6), 0.0).astype(np.float32)
    unit, middle = float(np.std(y)) or 1.0, float(np.mean(y))
    z = torch.from_numpy(np.clip((x - mean) * scale, -CLIP, CLIP).astype(np.float32))
    target = torch.from_numpy(((y - middle) / unit).astype(np.float32))
    members = []
    for f in range(FOLDS):
        generator = torch.Generator().manual_seed(FOLDS * seed + f)
        with torch.random.fork_rng():
            torch.manual_seed(FOLDS * seed + f)
            layers = [
                torch.nn.Linear(x.shape[1], width),
                torch.nn.Linear(width, width),
                torch.nn.Linear(width, 1),
            ]
            torch.nn.init.zeros_(layers[2].weight)
            parameters = [p for layer in layers for p in layer.parameters()]
            optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=decay)
            mine = torch.from_numpy(np.flatnonzero(fold != f))
            steps = max(1, passes * (len(mine) // batch + 1))
            rows = iter(())
            for step in range(steps):
                chosen = next(rows, None)
                if chosen is None:
                    rows = iter(mine[torch.randperm(len(mine), generator=generator)].split(batch))
                    chosen = next(rows)
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate * (1.0 - step / steps)
                h = torch.dropout(torch.tanh(layers[0](z[chosen])), DROPOUT, True)
                h = torch.dropout(torch.tanh(layers[1](h)), DROPOUT, True)
                loss = torch.nn.functional.huber_loss(layers[2](h)[:, 0], target[chosen], delta=2.0)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        members.append(
            [np.vstack([layer.weight.detach().numpy().T, layer.bias.detach().numpy()]) for layer in layers]
        )
    first, second, last = (np.stack(part).astype(np.float32) for part in zip(*members, strict=True))
    return Ensemble(mean.astype(np.float32), scale, first, second, last[..., 0], unit, middle)
