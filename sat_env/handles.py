"""Hand a NamedTuple of arrays to kernels as one pointer.

Numba passes a NamedTuple by flattening it: every array of every field, at every call. With some sixty
arrays that costs more than the work. A handle is a numba `structref` with the same fields over the same
memory: a kernel reads ``handle.field`` as it would read the tuple, and arrays changed by a kernel are
changed in the tuple.

A handle borrows: it counts no references to the arrays (counting them, atomically, at every access took a
third of a step). Whoever makes a handle keeps the NamedTuple alive as long as the handle.
"""

# mypy: disable-error-code="no-untyped-call, attr-defined, call-arg, unused-ignore"
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba import njit, types
from numba.core import cgutils
from numba.core.extending import intrinsic
from numba.experimental import structref


@intrinsic
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


def handle_maker(kind: type[NamedTuple]) -> Callable[[Any], Any]:
    """Return a function that turns an instance of the NamedTuple class `kind` into a handle.

    Call it once, at module level. Compiled code that takes a handle is cached on disk, so the types made
    here are given importable names. Numba files what `make` compiled under its line number and unpickles
    the NamedTuple classes it finds there: when one of them moves to another module, so must this line.
    """
    struct_type = structref.register(
        type(
            f"{kind.__name__}Type",
            (types.StructRef,),
            {
                "__module__": __name__,
                "preprocess_fields": lambda self, fields: tuple((n, types.unliteral(t)) for n, t in fields),
            },
        )
    )
    proxy = type(f"{kind.__name__}Handle", (structref.StructRefProxy,), {"__module__": __name__})
    globals()[struct_type.__name__] = struct_type
    globals()[proxy.__name__] = proxy
    structref.define_boxing(struct_type, proxy)
    structref.define_constructor(proxy, struct_type, list(kind._fields))
    structref.define_attributes(struct_type)

    @njit(cache=True)
    def make(fields):  # type: ignore[no-untyped-def]
        return proxy(*borrow(fields))

    return make  # type: ignore[no-any-return]
