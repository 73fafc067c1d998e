"""Hand a NamedTuple of arrays to kernels as one pointer.

Numba passes a NamedTuple by flattening it: every array of every field, at every call. With some sixty
arrays that costs more than the work. A handle points to a table of machine words that says where the arrays
lie; a kernel reads ``handle.field`` as it would read the tuple, and arrays changed by a kernel are changed in
the tuple.

Kernels borrow the arrays: no references to them are counted (counting took a third of a step), and the words
are loaded as constants, so that a loop reads them once. The handle keeps the NamedTuple alive. Whoever
replaces a field makes a new handle.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, attr-defined, arg-type, override, import-untyped"
from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from llvmlite import ir
from numba import typeof, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.extending import (
    NativeValue,
    infer_getattr,
    lower_getattr_generic,
    register_model,
    typeof_impl,
    unbox,
)
from numba.core.typing.templates import AttributeTemplate
from numba.np.arrayobj import make_array, populate_array

WORD = ir.IntType(64)


class HandleType(types.Type):
    """Numba's type of the handles of one NamedTuple class: names and types of its fields."""

    def __init__(self, name: str, fields: tuple[tuple[str, types.Type], ...]) -> None:
        self.fields = dict(fields)
        digest = hashlib.sha1(repr(fields).encode()).hexdigest()[:12]
        super().__init__(name=f"{name}Handle_{digest}")

    def __reduce__(self) -> tuple[Any, ...]:
        return HandleType, (self.name.split("Handle_")[0], tuple(self.fields.items()))


class Handle:
    """A NamedTuple of C-ordered arrays, scalars, such NamedTuples and other handles, for kernels."""

    __slots__ = ("_numba_type_", "address", "fields", "words")

    def __init__(self, fields: Any) -> None:
        types_of = tuple((name, typeof(value)) for name, value in zip(fields._fields, fields, strict=True))
        self._numba_type_ = HandleType(type(fields).__name__, types_of)
        self.fields = fields
        self.words = np.frombuffer(b"".join(map(_words, fields)), np.int64)
        self.address = self.words.ctypes.data

    def __reduce__(self) -> tuple[type[Handle], tuple[Any]]:
        return Handle, (self.fields,)  # addresses mean nothing elsewhere


def _words(value: Any) -> bytes:
    """Return a field as the words that `_load` reads."""
    if isinstance(value, np.ndarray):
        if not value.flags.c_contiguous:
            raise ValueError(f"strides = {value.strides}: a handle takes C-ordered arrays")
        return np.array([value.ctypes.data, *value.shape], np.int64).tobytes()
    if isinstance(value, tuple):
        return b"".join(map(_words, value))
    if isinstance(value, Handle):
        return np.array([value.address], np.int64).tobytes()
    return np.array([value], np.float64 if isinstance(value, float) else np.int64).tobytes()


def _count(kind: types.Type) -> int:
    """Return how many words a field of this type takes."""
    if isinstance(kind, types.Array):
        return 1 + int(kind.ndim)
    return sum(map(_count, kind.types)) if isinstance(kind, types.BaseTuple) else 1


def _load(context, builder, kind, words, place):
    """Emit code that reads a field from word `place` of a table on."""

    def word(i, is_length=False):
        loaded = builder.load(cgutils.gep_inbounds(builder, words, place + i))
        loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
        if is_length:  # known not to be negative, an index below it needs no look at its sign
            loaded.set_metadata("range", builder.module.add_metadata([WORD(0), WORD(1 << 40)]))
        return loaded

    if isinstance(kind, types.Array):
        array = make_array(kind)(context, builder)
        shape = [word(1 + i, is_length=True) for i in range(kind.ndim)]
        size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
        strides = [size]
        for length in shape[:0:-1]:
            strides.insert(0, builder.mul(strides[0], length))
        data = builder.inttoptr(word(0), array.data.type)
        populate_array(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        values = []
        for inner in kind.types:
            values.append(_load(context, builder, inner, words, place))
            place += _count(inner)
        return context.make_tuple(builder, kind, values)
    if isinstance(kind, types.Boolean):
        return builder.icmp_signed("!=", word(0), WORD(0))
    if isinstance(kind, HandleType):
        return builder.inttoptr(word(0), context.get_value_type(kind))
    if isinstance(kind, types.Float):
        return builder.bitcast(word(0), ir.DoubleType())
    return word(0)


@register_model(HandleType)
class HandleModel(models.OpaqueModel):
    """A handle is a pointer to its words."""


@typeof_impl.register(Handle)
def _typeof_handle(value, context):
    return value._numba_type_


@unbox(HandleType)
def _unbox_handle(kind, value, c):
    address = c.pyapi.object_getattr_string(value, "address")
    pointer = c.pyapi.long_as_voidptr(address)
    c.pyapi.decref(address)
    return NativeValue(pointer)


@infer_getattr
class HandleFields(AttributeTemplate):
    """``handle.field`` has the type of the field."""

    key = HandleType

    def generic_resolve(self, kind, name):
        """Return the type of a field; None: there is none of this name."""
        return kind.fields.get(name)


@lower_getattr_generic(HandleType)
def _load_field(context, builder, kind, value, name):
    place = 0
    for field, inner in kind.fields.items():
        if field == name:
            return _load(context, builder, inner, builder.bitcast(value, WORD.as_pointer()), place)
        place += _count(inner)
    raise AttributeError(name)
