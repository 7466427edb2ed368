"""Typed pieces of C++ text: what an expression printer knows about a subexpression it has printed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from attngen.lang.ops import Kind

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class Level(IntEnum):
    """How often a value changes; a value is printed in the outermost loop its level allows."""

    CALL = 0  # sizes, parameters
    HEAD = 1  # reads b or h
    KEY = 2  # reads k, not q: a scalar
    COLUMN = 3  # reads the feature that a pair is looped over, not q: a scalar
    ROW = 4  # reads q, not k: one lane a query
    TILE = 5  # reads both
    CELL = 6  # reads q and the feature that a pair is looped over


class Prec(IntEnum):
    """Binding strength of C++ operators, loosest first."""

    TERNARY = 1
    OR = 2
    XOR = 3
    AND = 4
    EQUAL = 5
    ORDER = 6
    SHIFT = 7
    SUM = 8
    PRODUCT = 9
    UNARY = 10
    ATOM = 11


@dataclass(frozen=True, slots=True)
class Value:
    """Text of an expression with its type.

    `lo` and `hi` bound an integer; it is 32 bits wide if the bounds fit, 64 otherwise. Lane booleans are
    masks of 32-bit lanes, all ones where true.
    """

    text: str
    kind: Kind
    level: Level
    prec: Prec = Prec.ATOM
    lo: int = INT64_MIN
    hi: int = INT64_MAX

    @property
    def lanes(self) -> bool:
        """Whether there is one value a query, in a vector."""
        return self.level >= Level.ROW

    @property
    def wide(self) -> bool:
        """Whether this is an integer of 64 bits."""
        return self.kind is Kind.INT and (self.lo < INT32_MIN or self.hi > INT32_MAX)

    @property
    def ctype(self) -> str:
        """The C++ type."""
        if self.lanes:
            return "vf" if self.kind is Kind.FLOAT else "vl" if self.wide else "vi"
        if self.kind is Kind.INT:
            return "int64_t" if self.wide else "int32_t"
        return self.kind.value

    def at(self, prec: Prec) -> str:
        """The text, in parentheses unless it binds at least as tightly as `prec`."""
        return self.text if self.prec >= prec else f"({self.text})"

    def named(self, name: str) -> Value:
        """The same value, read from a variable."""
        return replace(self, text=name, prec=Prec.ATOM)


def call(function: str, like: Value, *args: Value) -> Value:
    """`function(args)` with the type, level and bounds of `like`."""
    return replace(like, text=f"{function}({', '.join(a.text for a in args)})", prec=Prec.ATOM)


def bounded(lo: int, hi: int) -> tuple[int, int]:
    """Bounds of an integer result, saturated to 64 bits."""
    return max(lo, INT64_MIN), min(hi, INT64_MAX)


def to_float(value: Value) -> Value:
    """The value as fp32; a boolean counts as 0 or 1."""
    if value.kind is Kind.FLOAT:
        return value
    number = to_int(value)
    out = replace(number, kind=Kind.FLOAT, lo=INT64_MIN, hi=INT64_MAX)
    if number.lanes:
        return replace(out, text=f"to_float({number.text})", prec=Prec.ATOM)
    if number.text.lstrip("-").isdigit():
        return replace(out, text=f"{number.text}.0f")
    return replace(out, text=f"float({number.text})", prec=Prec.ATOM)


def to_int(value: Value) -> Value:
    """An integer or boolean as an integer; a lane mask is negated, since true is all ones."""
    if value.kind is not Kind.BOOL:
        return value
    text = f"-{value.at(Prec.UNARY)}" if value.lanes else f"int32_t({value.text})"
    return replace(value, text=text, kind=Kind.INT, prec=Prec.UNARY, lo=0, hi=1)


def to_bool(value: Value) -> Value:
    """The value as a condition: different from zero."""
    if value.kind is Kind.BOOL:
        return value
    if value.wide and value.lanes:
        zero = Value("int64_t(0)", Kind.INT, Level.CALL)
        return replace(value, text=compared("!=", value, zero), kind=Kind.BOOL, prec=Prec.ATOM)
    text = f"{value.at(Prec.SHIFT)} != 0"
    return replace(value, text=text, kind=Kind.BOOL, prec=Prec.EQUAL)


def widen(value: Value, like: Value) -> Value:
    """An integer in the width of `like`; its bounds are given up, so that it counts as wide from now on."""
    if value.wide or not like.wide:
        return value
    function = "widen" if value.lanes else "int64_t"
    text = f"{function}({value.text})"
    return replace(value, text=text, prec=Prec.ATOM, lo=INT64_MIN, hi=INT64_MAX)


def spread(value: Value, like: Value) -> Value:
    """A scalar as lanes of `like`'s type, for the operators that do not mix the two."""
    if value.lanes or not like.lanes:
        return value
    if value.kind is Kind.BOOL:
        return replace(value, text=f"mask_of({value.text})", level=like.level, prec=Prec.ATOM)
    ctype = replace(like, kind=value.kind).ctype
    return replace(value, text=f"splat<{ctype}>({value.text})", level=like.level, prec=Prec.ATOM)


_COMPARISONS = {"<": "less", "<=": "at_most", ">": "less", ">=": "at_most", "==": "equal", "!=": "differ"}


def compared(symbol: str, a: Value, b: Value) -> str:
    """A comparison of 64-bit integers, one or both of them lanes, as a call that gives a mask of 32-bit lanes."""
    first, second = (b, a) if symbol in (">", ">=") else (a, b)
    return f"{_COMPARISONS[symbol]}({first.text}, {second.text})"
