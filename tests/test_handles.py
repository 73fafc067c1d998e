"""Handles: what kernels get of arrays stays true where it is copied or pickled."""

import copy
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest

from sat_env.handles import Handle
from sat_env.kernels import kernel


class Inner(NamedTuple):
    values: Any  # (n,)


class Outer(NamedTuple):
    weights: Any  # (n,)
    inner: Handle
    scale: float


@kernel
def weighed(outer):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(outer.weights.shape[0]):
        total += outer.weights[i] * outer.inner.values[i]
    return outer.scale * total


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda handle: pickle.loads(pickle.dumps(handle))])
def test_a_copy_points_at_its_own_arrays(copied) -> None:  # type: ignore[no-untyped-def]
    handle = Handle(Outer(np.arange(3.0), Handle(Inner(np.ones(3))), 2.0))
    other = copied(handle)
    assert weighed(handle) == weighed(other) == 6.0
    handle.fields.weights[:], handle.fields.inner.fields.values[:] = 0.0, 0.0  # as if its memory were gone
    assert weighed(handle) == 0.0 and weighed(other) == 6.0
