"""How functions become kernels: numba, cached on disk, one thread, IEEE division."""

from __future__ import annotations

from typing import Any, cast

from numba import njit

kernel = njit(cache=True, error_model="numpy", _nrt=False)
"""Compiles a function that is also called from Python."""

inner = cast(Any, njit)(cache=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Compiles a function that only kernels call: a way in from Python is long to compile for tuples of many
arrays.

For the same reason kernels copy by loops, not slices, and pass ``np.int64(1)`` where a literal 1 would
compile a second version.
"""

small = cast(Any, njit)(
    cache=True, error_model="numpy", forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True
)
"""Compiles an `inner` function that becomes part of every kernel that calls it."""
