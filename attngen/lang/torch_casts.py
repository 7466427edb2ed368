"""Conversions of symbols: dtypes, constants shaped like a symbol, and methods that only forward the value."""

# pyright: reportUnknownLambdaType=false
# A lambda cannot say the types of its arguments, which are whatever the user passes.

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from attngen.lang.arith import as_bool, lift, to_float, to_int
from attngen.lang.indexing import index as index_tensor
from attngen.lang.ops import Kind
from attngen.lang.symbol import Sym, fail

_Function = Callable[..., Any]


def to_kind(x: object, kind: Kind) -> Sym:
    """`x` converted to `kind`; unchanged where it is of that kind."""
    match kind:
        case Kind.BOOL:
            return as_bool(x)
        case Kind.INT:
            return to_int(x)
        case Kind.FLOAT:
            return to_float(x)


def _cast(name: str, x: object) -> Sym:
    """`x` as torch's dtype `name`. Every float is one kind: rounding to a narrower float is not modelled."""
    sym = lift(x)
    name = name.removeprefix("torch.")
    if name == "bool":
        return as_bool(sym)
    if name in ("int32", "int64", "int", "long"):
        return to_int(sym)
    if name in ("float32", "float64", "float16", "bfloat16", "float", "double", "half"):
        return to_float(sym)
    if name in ("int8", "uint8", "int16") and sym.kind is Kind.BOOL:
        return to_int(sym)
    return fail(f"a symbolic value cannot be converted to {name}", "use int32, float32 or bool")


def _to(input: object, *args: object, **kwargs: object) -> Sym:
    """`.to(dtype)`, `.to(device)`, `.to(other)`: only the dtype means something here."""
    for arg in (*args, *kwargs.values()):
        if isinstance(arg, Sym):
            return to_kind(input, arg.kind)
        dtype = getattr(arg, "dtype", arg)
        if str(dtype).startswith("torch.") and type(dtype).__name__ == "dtype":
            return _cast(str(dtype), input)
    return lift(input)


def _like(value: float) -> _Function:
    return lambda input, *, dtype=None, **_: _full_like(input, value, dtype=dtype)


def _full_like(input: object, fill_value: object, *, dtype: object = None, **_: object) -> Sym:
    if dtype is not None:
        return _constant(fill_value, str(dtype))
    return _to_constant(fill_value, lift(input).kind)


def _new(value: object) -> _Function:
    def new(input: object, *size: object, dtype: object = None, **kwargs: object) -> Sym:
        fill: object = kwargs.get("fill_value", value)
        sizes = list(size) or [kwargs.get("size", ())]
        if value is None and "fill_value" not in kwargs:
            fill = sizes.pop()
        if sizes not in ([()], [[]], []):
            fail("a new tensor with dimensions cannot be made from a symbolic value", "use shape ()")
        return _full_like(input, fill, dtype=dtype)

    return new


def _new_tensor(input: object, data: object, *, dtype: object = None, **_: object) -> Sym:
    sym = lift(data)
    return sym if dtype is None else _cast(str(dtype), sym)


def _constant(value: object, dtype: str) -> Sym:
    return _to_constant(value, _cast(dtype, lift(0)).kind)


def _to_constant(value: object, kind: Kind) -> Sym:
    """Plain numbers change kind while tracing; symbols by an operator."""
    if isinstance(value, bool | int | float):
        if kind is Kind.INT and isinstance(value, float) and not math.isfinite(value):
            fail(f"an integer cannot be {value}", "fill a float: torch.full_like(q.float(), ...)")
        return lift({Kind.BOOL: bool, Kind.INT: int, Kind.FLOAT: float}[kind](value))
    return to_kind(value, kind)


def identity(input: object, *_: object, **__: object) -> Sym:
    """The value itself, for functions that only move or copy it."""
    return lift(input)


def _detach(input: object) -> Sym:
    x = lift(input)
    if x.kind is Kind.FLOAT:
        fail("detach() would change the gradient, which is derived from the expression", "leave it out")
    return x


def _cast_to(name: str) -> _Function:
    """The method that casts to one dtype; a memory format says nothing of values."""

    def cast(input: object, *, memory_format: object = None) -> Sym:
        del memory_format
        return _cast(name, input)

    return cast


def _no_item(input: object) -> Sym:
    return fail("item() needs a number, but the value is symbolic", "leave item() out")


def _take(input: Any, index: object) -> object:
    if input.ndim != 1:
        fail("take on a tensor of several dimensions", "index it: table[h, k]")
    return index_tensor(input, index)


CONVERSIONS: dict[str, _Function] = {
    "to": _to,
    "type": lambda input, dtype: _cast(str(dtype), input),
    "type_as": lambda input, other: to_kind(input, lift(other).kind),
    **{name: _cast_to(name) for name in ("int", "long", "float", "double", "half", "bfloat16", "bool")},
    "zeros_like": _like(0),
    "ones_like": _like(1),
    "full_like": _full_like,
    "new_zeros": _new(0),
    "new_ones": _new(1),
    "new_full": _new(None),
    "new_tensor": _new_tensor,
    **{name: identity for name in ("clone", "contiguous", "cpu", "cuda", "requires_grad_")},
    "detach": _detach,
    "item": _no_item,
    "tolist": _no_item,
    "dim": lambda input: 0,
    "size": lambda input: (),
    "numel": lambda input: 1,
    "is_floating_point": lambda input: lift(input).kind is Kind.FLOAT,
    "take": _take,
}
