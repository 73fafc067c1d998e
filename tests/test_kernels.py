"""How functions become kernels: parts are compiled with the kernels that call them, and only there."""

import numpy as np
import pytest

from sat_env.kernels import allocating_kernel, inner, kernel, part, small


@small
def half(value):  # type: ignore[no-untyped-def]
    return 0.5 * value


@part
def halve(values):  # type: ignore[no-untyped-def]
    for i in range(values.shape[0]):
        values[i] = half(values[i])


@inner
def halved(values):  # type: ignore[no-untyped-def]
    fresh = values.copy()
    halve(fresh)
    return fresh


@kernel
def halve_twice(values):  # type: ignore[no-untyped-def]
    halve(values)
    halve(values)


@allocating_kernel
def quarter(values):  # type: ignore[no-untyped-def]
    return halved(halved(values))


def test_kernels_share_parts() -> None:
    values = np.arange(5.0)
    assert quarter(values).tolist() == (np.arange(5.0) / 4).tolist()
    halve_twice(values)
    assert values.tolist() == (np.arange(5.0) / 4).tolist()
    assert not halve.stats.cache_path  # what is cached is the kernel, with its parts in it


@pytest.mark.parametrize(("its_part", "its_kernel"), [(halve, kernel), (halved, allocating_kernel)])
def test_a_part_refuses_calls_from_python(its_part, its_kernel) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError, match="not callable"):
        its_part(np.ones(3))
    its_kernel(its_part.py_func)(np.ones(3))
