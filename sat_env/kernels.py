"""How functions become kernels: numba, cached on disk, one thread, IEEE division, indices counted from the front."""

# mypy: disable-error-code="no-untyped-call, import-untyped, attr-defined"
from __future__ import annotations

import ctypes
import gc
from typing import Any, cast

from llvmlite import ir
from llvmlite.binding import Linkage
from numba import _dynfunc, njit, types
from numba.core import cgutils
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, Flags
from numba.core.extending import intrinsic
from numba.np.arrayobj import make_array

_compile = cast(Any, njit)
REFUSE = ctypes.cast(ctypes.pythonapi.PyObject_Call, ctypes.c_void_p).value
"""Address of a C function that, as the way in from Python, raises TypeError: it calls what is not callable."""


class _Flags(Flags):
    """Numba's flags, compared by what was set: numba looks them up with every expression it types."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Flags) and self._values == other._values

    def __hash__(self) -> int:
        return hash(frozenset(self._values))


class _Library(JITCodeLibrary):
    """Code whose indices and slices count from the front; with ``NUMBA_BOUNDSCHECK=1`` others raise IndexError."""

    def add_ir_module(self, ir_module: Any) -> None:
        """Take a function in, without what numba does at every index: count from the end if it is below 0."""
        for function in ir_module.functions:
            for block in function.blocks:
                for choice in block.instructions:
                    if choice.opname == "select" and _is_wrapped(*choice.operands):
                        choice.operands[1] = choice.operands[2]
        super().add_ir_module(ir_module)


def _is_wrapped(below_0: Any, wrapped: Any, index: Any) -> bool:
    """Say whether this is numba's ``index + size if index < 0 else index``."""
    return (
        getattr(below_0, "opname", None) == "icmp"
        and below_0.op == "slt"
        and below_0.operands[0] is index
        and getattr(below_0.operands[1], "constant", None) == 0
        and getattr(wrapped, "opname", None) == "add"
        and wrapped.operands[0] is index
    )


class _Whole(_Library):
    """A kernel and what it calls, which nobody else does."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.linkonce_odr:
                # LLVM may drop arguments now, and numba's linker finds functions of other modules by name,
                # internal ones too: nobody else may mean this one.
                function.linkage = Linkage.internal
                function.name = f"{function.name} in {self.name}"
        super()._optimize_final_module()


class _Compiler(Compiler):
    """Numba's compiler, without what makes it slow: flags compare fast, and nobody looks for garbage meanwhile."""

    def compile_extra(self, func):  # type: ignore[no-untyped-def]
        """Compile a function."""
        state = self.state
        state.flags = _Flags(state.flags)
        if state.library is None:
            state.library = _Whole(state.targetctx.codegen(), func.__qualname__)
            state.library.enable_object_caching()
        collects = gc.isenabled()
        gc.disable()
        try:
            return super().compile_extra(func)
        finally:
            if collects:
                gc.enable()


class _Draft(_Library):
    """A function as intermediate code: optimised, and made machine code, in the kernels that call it."""

    def finalize(self) -> None:
        """Take no more code in; callers link what it calls themselves, once each."""
        self._finalized = True


class _DraftCompiler(_Compiler):
    """The same, for functions that only kernels call.

    Numba itself optimises a function with all that it calls and makes it machine code, and again in each of
    its callers up to the kernel.
    """

    def compile_extra(self, func):  # type: ignore[no-untyped-def]
        """Compile a function to a draft, and let callers know it by an entry that refuses calls from Python."""
        state = self.state
        state.flags.no_compile = True
        state.library = _Draft(state.targetctx.codegen(), func.__qualname__)
        draft = super().compile_extra(func)
        entry = _dynfunc.make_function(func, func.__name__, "", REFUSE, draft.environment, (draft.library,))
        libraries = [draft.library, *draft.library._linking_libraries]
        state.targetctx.insert_user_function(entry, draft.fndesc, libraries)
        return draft._replace(entry_point=entry)


_any = {"error_model": "numpy", "no_cfunc_wrapper": True}
_plain = {**_any, "cache": True, "pipeline_class": _Compiler}
_draft = {**_any, "no_cpython_wrapper": True, "pipeline_class": _DraftCompiler}

kernel = _compile(**_plain, _nrt=False)
"""Compiles a function that is also called from Python, and allocates nothing: numba then counts no references
to the arrays it reads, which took a third of a step."""

part = _compile(**_draft, _nrt=False)
"""Compiles such a function that only kernels call; ``kernel(it.py_func)`` makes the same callable from Python."""


def signed(signature: str) -> Any:
    """Return a decorator as `part` for one signature, to which arguments are cast: literals make no versions."""
    return _compile(signature, **_draft, _nrt=False)


small = _compile(**_draft, _nrt=False, forceinline=True)
"""Compiles a `part` that is made one with every kernel that calls it."""

allocating_kernel = _compile(**_plain)
"""Compiles a function that is also called from Python."""

inner = _compile(**_draft)
"""Compiles a function that only an `allocating_kernel` calls.

Kernels copy by loops, not slices, and pass ``np.int64(1)`` where a literal 1 would compile a second version.
"""


@cast(Any, intrinsic)
def prefetch(typing_context, array, place):  # type: ignore[no-untyped-def]
    """Ask the processor to fetch ``array[place]`` (an index for each axis) into its cache, without waiting."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = signature.args[0]
        view = make_array(kind)(context, builder, arguments[0])
        indices = cgutils.unpack_tuple(builder, arguments[1])
        strides = cgutils.unpack_tuple(builder, view.strides)
        address = builder.ptrtoint(view.data, ir.IntType(64))
        for index, stride in zip(indices, strides, strict=True):
            wide = index if index.type.width == 64 else builder.sext(index, stride.type)
            address = builder.add(address, builder.mul(wide, stride))
        pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), i32, i32, i32]),
            "llvm.prefetch.p0",
        )
        builder.call(function, [pointer, i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(array, place), generate


@cast(Any, intrinsic)
def borrow(typing_context, fields):  # type: ignore[no-untyped-def]
    """Return the tuple `fields`, nested ones included, with arrays that own nothing: a `part` may take them.

    Whoever borrows keeps the arrays alive for as long as they are used.
    """

    def stripped(context, builder, kind, value):  # type: ignore[no-untyped-def]
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder, value)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            array.parent = cgutils.get_null_value(array.parent.type)
            return array._getvalue()
        if isinstance(kind, types.BaseTuple):
            for i, field in enumerate(kind.types):
                element = stripped(context, builder, field, builder.extract_value(value, i))
                value = builder.insert_value(value, element, i)
        return value

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return stripped(context, builder, fields, arguments[0])

    return fields(fields), generate
