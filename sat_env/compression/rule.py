"""A baseline compressor: choose the levels of a plan from importance, accumulated error and content.

The ratio follows the three things that arXiv 2604.04654 names; the rule itself is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sat_env.compression.table import CompressionTable


def layer_importance(table: CompressionTable, n_blocks: int) -> NDArray[np.float64]:
    """Return how much boundary l = 0..n_blocks suffers, (n_blocks + 1,): its mean error over lossy levels.

    It is 1 on average over the inner boundaries, and 0 at both ends.
    """
    importance: NDArray[np.float64] = table.error_at(n_blocks)[:, 1:].mean(axis=1)
    mean = importance[1:-1].mean() if n_blocks > 1 else 0.0
    return importance / mean if mean > 0 else importance


def adaptive_levels(
    table: CompressionTable,
    n_blocks: int,
    cuts: Sequence[int],
    complexity: float = 1.0,
    max_drop: float = 0.01,
) -> tuple[int, ...]:
    """Choose a level for each cut, in the order in which the activation travels.

    Each cut may spend a share of the error that is left: its importance over the importance of the cuts still
    to come. It takes the fewest bits that fit; what it does not spend is left to the next.

    Parameters
    ----------
    table : CompressionTable
    n_blocks : int
        Blocks of the model.
    cuts : sequence of int
        Boundaries 1..n_blocks - 1, increasing.
    complexity : float
        Content complexity of the input; errors grow in proportion.
    max_drop : float
        Accuracy drop allowed, as a fraction.

    Returns
    -------
    tuple of int
        Index into ``table.levels`` for each cut.
    """
    if any(not 0 < cut < n_blocks for cut in cuts) or any(np.diff(cuts) <= 0):
        raise ValueError(f"cuts is {tuple(cuts)}, allowed are increasing boundaries within 1..{n_blocks - 1}")
    if not 0 < complexity < np.inf:
        raise ValueError(f"complexity is {complexity}, allowed is > 0 and finite")
    errors = table.error_at(n_blocks) * complexity
    importance = layer_importance(table, n_blocks)[list(cuts)]
    bits = np.array([level.bits_per_entry for level in table.levels])
    left = table.error_budget(max_drop)
    chosen = []
    for i, cut in enumerate(cuts):
        to_come = importance[i:].sum()
        share = importance[i] / to_come if to_come > 0 else 1.0
        spend = left * share if share > 0 else 0.0  # of a budget without end, too
        affordable = np.flatnonzero(errors[cut] <= spend)  # level 0 always is
        level = int(affordable[np.argmin(bits[affordable])])
        chosen.append(level)
        left -= errors[cut, level]
    return tuple(chosen)
