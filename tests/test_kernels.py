"""How functions become kernels: parts are compiled with the kernels that call them, and only there."""

import ast
import math
from pathlib import Path

import numba
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


@small
def wave(x, k, by):  # type: ignore[no-untyped-def]
    if x < 0.1 * k:
        return math.sin(k * x) * by
    return -math.exp(-x) - math.tan(k * by) / math.cos(x) if by > k else 0.0


@part
def waves(unused, values, by):  # type: ignore[no-untyped-def]
    """Too long to be made one with its callers; LLVM drops what an internal function does not use."""
    total = 0.0
    for i in range(values.shape[0]):
        x = values[i]
        total += wave(x, 1.0, by) + wave(x, 2.0, by) + wave(x, 3.0, by) + wave(x, 4.0, by)
        total += wave(x, 5.0, by) + wave(x, 6.0, by) + wave(x, 7.0, by) + wave(x, 8.0, by)
        total += wave(x, 9.0, by) + wave(x, 10.0, by) + wave(x, 11.0, by) + wave(x, 12.0, by)
    return total


@kernel
def many_waves(values, out):  # type: ignore[no-untyped-def]
    out[0] = waves(values, values, 2.0) + waves(out, values[1:], 2.0)
    out[1] = waves(values, out, 2.0) + waves(out, out, 2.0)


def test_a_kernel_of_numba_may_call_a_part_that_others_hold() -> None:
    values, out = np.linspace(-1.0, 1.0, 7), np.ones(2)
    many_waves(values, out)

    @numba.njit
    def one(values, by):  # type: ignore[no-untyped-def]
        return waves(values[2:], values, by) - waves(values[3:], values[1:], by + 1.0)

    call = allocating_kernel(waves.py_func)
    assert one(values, 5.0) == pytest.approx(
        call(values, values, 5.0) - call(values, values[1:], 6.0), rel=1e-12
    )


def test_indices_of_kernels_count_from_the_front_and_those_of_numba_do_not() -> None:
    def pick(values, i):  # type: ignore[no-untyped-def]
        return values[i]

    def between(x, known):  # type: ignore[no-untyped-def]
        return np.interp(x, known, known)  # numba's own code takes known[:-1] and known[-1]

    values = np.arange(4.0)
    assert numba.njit(pick)(values[1:], -1) == 3.0
    assert kernel(pick)(values[1:], 2) == 3.0
    if numba.config.BOUNDSCHECK:
        with pytest.raises(IndexError):
            kernel(pick)(values[1:], -1)
    else:
        assert kernel(pick)(values[1:], -1) == 0.0  # what lies before: nobody looks at the sign
    assert allocating_kernel(between)(np.array([0.5, 9.0]), values).tolist() == [0.5, 3.0]


ROOT = Path(__file__).parents[1]
COMPILED = {"kernel", "allocating_kernel", "part", "small", "inner", "signed"}


def compiled_functions(folder: str) -> list[ast.FunctionDef]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / folder).rglob("*.py")]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [f for f in functions for mark in f.decorator_list if ast.unparse(mark).split("(")[0] in COMPILED]


def from_the_end(function: ast.FunctionDef) -> list[str]:
    """Return the indices and slices that are written as counted from the end."""
    places = [node.slice for node in ast.walk(function) if isinstance(node, ast.Subscript)]
    bounds = [part for place in places for part in ast.walk(place) if isinstance(part, ast.UnaryOp)]
    return [ast.unparse(bound) for bound in bounds if isinstance(bound.op, ast.USub)]


def test_no_kernel_is_written_with_an_index_from_the_end() -> None:
    found = {name: compiled_functions(name) for name in ("sat_env", "agents")}
    assert len(found["sat_env"]) > 100 and all(found.values())
    assert [(f.name, from_the_end(f)) for each in found.values() for f in each if from_the_end(f)] == []
    assert from_the_end(ast.parse("def f(x):\n return x[-1] + x[0, :-2]").body[0]) == ["-1", "-2"]  # type: ignore[arg-type]
