"""Typed pieces of Triton text: what the expression printer knows about a subexpression it has printed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag

from attngen.errors import UnsupportedError
from attngen.lang.ops import Kind

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class Space(IntFlag):
    """The axes of a value: none for a scalar, one for a vector, two for a tile, an accumulator or an operand."""

    SCALAR = 0
    Q = 1
    K = 2
    E = 4
    TILE = Q | K
    ACC = Q | E
    KEYS = K | E


class Prec(IntEnum):
    """Binding strength of Python's operators, loosest first."""

    COMPARE = 1
    OR = 2
    XOR = 3
    AND = 4
    SHIFT = 5
    SUM = 6
    PRODUCT = 7
    UNARY = 8
    ATOM = 9


@dataclass(frozen=True, slots=True)
class Value:
    """Text of an expression with its type.

    lo, hi   bounds of an integer.
    wide     an integer held in 64 bits; the printer narrows what provably fits 32.
    varies   whether it changes from key tile to key tile, so that it cannot be computed before the loops.
    literal  a Python number or a `constexpr`, which takes the type of what it meets and has no methods.
    """

    text: str
    kind: Kind
    space: Space = Space.SCALAR
    prec: Prec = Prec.ATOM
    lo: int = INT64_MIN
    hi: int = INT64_MAX
    wide: bool = False
    varies: bool = False
    literal: bool = False

    def at(self, prec: Prec) -> str:
        """The text, in parentheses unless it binds at least as tightly as `prec`."""
        return self.text if self.prec >= prec else f"({self.text})"

    def named(self, name: str) -> Value:
        """The same value, read from a variable."""
        return replace(self, text=name, prec=Prec.ATOM, literal=False)

    @property
    def fits(self) -> bool:
        """Whether the bounds of an integer fit 32 bits."""
        return self.lo >= INT32_MIN and self.hi <= INT32_MAX


def literal(value: float | bool) -> Value:
    """A constant of the program."""
    if isinstance(value, bool):
        return Value(str(value), Kind.BOOL, lo=int(value), hi=int(value), literal=True)
    if isinstance(value, int):
        prec = Prec.ATOM if value >= 0 else Prec.UNARY
        return Value(str(value), Kind.INT, prec=prec, lo=value, hi=value, literal=True)
    if math.isfinite(value):
        text = "LOG2E" if value == math.log2(math.e) else repr(value)
        return Value(text, Kind.FLOAT, prec=Prec.ATOM if value >= 0 else Prec.UNARY, literal=True)
    return Value(f'float("{value}")', Kind.FLOAT, literal=True)


def integer(text: str, lo: int, hi: int, space: Space = Space.SCALAR, *, varies: bool = False) -> Value:
    """A 32-bit integer variable."""
    return Value(text, Kind.INT, space, lo=lo, hi=hi, varies=varies)


def real(text: str, space: Space, *, varies: bool = True) -> Value:
    """An fp32 variable."""
    return Value(text, Kind.FLOAT, space, varies=varies)


def like(template: Value, *args: Value) -> Value:
    """`template` with the space and variance that a result of `args` has."""
    space = Space.SCALAR
    for arg in args:
        space |= arg.space
    if space == Space.TILE | Space.E:
        raise UnsupportedError("an expression over queries, keys and features has no tile")
    return replace(
        template,
        space=space,
        varies=any(a.varies for a in args),
        literal=all(a.literal for a in args),
    )


def call(function: str, result: Value, *args: Value) -> Value:
    """`function(args)`, the operands spread to one space, with the type and bounds of `result`."""
    out = like(replace(result, prec=Prec.ATOM), *args)
    return replace(out, text=f"{function}({', '.join(spread(a, out.space).text for a in args)})")


def spread(value: Value, space: Space) -> Value:
    """A vector as a row or a column of `space`; scalars and values of that space already broadcast as they are."""
    if value.space in (Space.SCALAR, space):
        return value
    rows = Space.Q if space & Space.Q else Space.K
    index = "[:, None]" if value.space is rows else "[None, :]"
    return replace(value, text=value.at(Prec.ATOM) + index, prec=Prec.ATOM, space=space)


def shape_of(space: Space, pad: str = "") -> str:
    """The shape of a space; `pad` is what the lanes of its features are called."""
    lengths = ((Space.Q, "BLOCK_Q"), (Space.K, "BLOCK_K"), (Space.E, pad))
    return f"[{', '.join(length for axis, length in lengths if space & axis)}]"


def fill(value: Value, space: Space, pad: str = "") -> Value:
    """A value with one element for each of `space`'s, in fp32: what a variable carried around a loop must be.

    pad  what the lanes of the space's features are called.
    """
    value = to_float(value)
    if value.space is space:
        return value
    shape = shape_of(space, pad)
    if value.space is Space.SCALAR:
        text = f"tl.full({shape}, {value.text}, tl.float32)"
    else:
        text = f"tl.broadcast_to({spread(value, space).text}, {shape})"
    return replace(value, text=text, prec=Prec.ATOM, space=space, literal=False)


def cast(value: Value, dtype: str) -> str:
    """`value.to(tl.<dtype>)`, or the bare text of a literal, which takes the type of what it meets."""
    return value.text if value.literal else f"{value.at(Prec.ATOM)}.to(tl.{dtype})"


def to_float(value: Value) -> Value:
    """The value as fp32; a boolean counts as 0 or 1."""
    if value.kind is Kind.FLOAT:
        return value
    if value.literal and value.lo == value.hi:
        return literal(float(value.lo))
    out = replace(value, kind=Kind.FLOAT, prec=Prec.ATOM, wide=False, lo=INT64_MIN, hi=INT64_MAX)
    return replace(out, text=cast(value, "float32"))


def to_int(value: Value) -> Value:
    """The value as an integer; a boolean counts as 0 or 1, and a float has no business here."""
    if value.kind is not Kind.BOOL:
        return value
    out = replace(value, kind=Kind.INT, lo=0, hi=1, prec=Prec.ATOM)
    if value.literal:
        return literal(int(value.text == "True"))
    return replace(out, text=cast(value, "int32"))


def to_bool(value: Value) -> Value:
    """The value as a boolean: whether it is not zero."""
    if value.kind is Kind.BOOL:
        return value
    return replace(
        value, text=f"{value.at(Prec.OR)} != 0", kind=Kind.BOOL, prec=Prec.COMPARE, lo=0, hi=1, wide=False
    )


def widen(value: Value) -> Value:
    """An integer held in 64 bits."""
    if value.wide or value.literal:
        return value
    return replace(value, text=cast(value, "int64"), prec=Prec.ATOM, wide=True)


def narrow(value: Value) -> Value:
    """An integer held in 32 bits, where its bounds allow it."""
    if not value.wide or not value.fits:
        return value
    return replace(value, text=cast(value, "int32"), prec=Prec.ATOM, wide=False)


def saturate(value: Value) -> Value:
    """A 64-bit integer clamped to 32 bits: it compares with anything inside the 32-bit range as before."""
    out = replace(value, prec=Prec.ATOM, wide=False, lo=max(value.lo, INT32_MIN), hi=min(value.hi, INT32_MAX))
    return replace(out, text=f"saturate({value.text})")
