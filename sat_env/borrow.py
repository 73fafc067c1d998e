"""Arrays in kernels without reference counts.

Numba counts references to an array, atomically, wherever a kernel takes a view of it, reads it out of a tuple or
passes it on: half of the time of a planner's search. A borrowed array has no owner, and a bare function counts
nothing. Whoever borrows keeps the arrays alive for as long as they are used.
"""

# mypy: disable-error-code="no-untyped-call, attr-defined, unused-ignore"
from __future__ import annotations

from typing import Any, cast

from numba import njit, types
from numba.core import cgutils
from numba.core.extending import intrinsic


@cast(Any, intrinsic)
def borrow(typing_context, fields):  # type: ignore[no-untyped-def]
    """Return the tuple `fields`, nested ones included, with arrays that own nothing."""

    def stripped(context, builder, kind, value):  # type: ignore[no-untyped-def]
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder, value)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            array.parent = cgutils.get_null_value(array.parent.type)
            return array._getvalue()
        if isinstance(kind, types.BaseTuple):
            for i, inner in enumerate(kind.types):
                element = stripped(context, builder, inner, builder.extract_value(value, i))
                value = builder.insert_value(value, element, i)
        return value

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return stripped(context, builder, fields, arguments[0])

    return fields(fields), generate


bare = cast(Any, njit)(
    cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True
)
"""Compiles a function that only kernels call, without reference counts: its arrays are borrowed, it makes none."""
