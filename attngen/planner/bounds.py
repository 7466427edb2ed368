"""Numeric interval arithmetic, vectorised over tiles: what every operator can give on a box of arguments.

Sound for the float64 reference and for fp32 kernels alike: float results are widened by more than either rounds,
and integers that may leave 61 bits count as unknown. An unknown float has NaN ends, with which no comparison is
ever decided; an unknown integer spans `-BIG .. BIG`. Booleans are intervals of False and True.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BIG = 1 << 61
_FLOAT32_MAX = 3.4e38
_RELATIVE = 4e-6  # some ulps of fp32, for one operation
_TINY = 1e-30
_ABSOLUTE = 2e-6  # approximate functions near their zeros


@dataclass(frozen=True, slots=True)
class Interval:
    """Ends of one value over many tiles: two arrays of one dtype (bool, int64 or float64), `lo <= hi`."""

    lo: Array
    hi: Array

    @property
    def kind(self) -> str:
        """The dtype kind of the ends: "b", "i" or "f"."""
        return self.lo.dtype.kind


def interval(lo: Any, hi: Any | None = None) -> Interval:
    """An interval of exact values; integers become int64, floats float64 with room for their rounding to fp32."""
    ends = [np.asarray(lo), np.asarray(lo if hi is None else hi)]
    kinds = {e.dtype.kind for e in ends}
    if kinds == {"b"}:
        return Interval(*ends)
    if "f" in kinds:
        low, high = (e.astype(np.float64) for e in ends)
        with np.errstate(over="ignore"):
            rounded = [e.astype(np.float32).astype(np.float64) for e in (low, high)]
        return Interval(*_known(np.minimum(low, rounded[0]), np.maximum(high, rounded[1])))
    return _whole(*(np.clip(e.astype(np.int64), -BIG, BIG) for e in ends))


def truth(x: Interval) -> tuple[Array, Array]:
    """For a boolean interval: where it is certainly true, and where certainly false."""
    return x.lo, ~x.hi


def _known(lo: Array, hi: Array) -> tuple[Array, Array]:
    """A NaN at one end makes the other NaN too."""
    bad = np.isnan(lo) | np.isnan(hi)
    return np.where(bad, np.nan, lo), np.where(bad, np.nan, hi)


def _whole(lo: Array, hi: Array, unknown: Any = False) -> Interval:
    bad = (lo <= -BIG) | (hi >= BIG) | unknown
    return Interval(np.where(bad, -BIG, lo), np.where(bad, BIG, hi))


def _widened(lo: Array, hi: Array, unknown: Any = False, absolute: float = _TINY) -> Interval:
    """Ends rounded outward; beyond what fp32 holds they are infinite."""
    lo = lo - np.abs(lo) * _RELATIVE - absolute
    hi = hi + np.abs(hi) * _RELATIVE + absolute
    lo = np.where(lo < -_FLOAT32_MAX, -np.inf, np.minimum(lo, _FLOAT32_MAX))
    hi = np.where(hi > _FLOAT32_MAX, np.inf, np.maximum(hi, -_FLOAT32_MAX))
    return Interval(*_known(np.where(unknown, np.nan, lo), hi))


def _ints(x: Interval) -> Interval:
    return Interval(x.lo.astype(np.int64), x.hi.astype(np.int64)) if x.kind == "b" else x


def _floats(x: Interval) -> Interval:
    if x.kind == "f":
        return x
    if x.kind == "b":
        return Interval(x.lo.astype(np.float64), x.hi.astype(np.float64))
    return _widened(x.lo.astype(np.float64), x.hi.astype(np.float64), _lost(x))


def _lost(*xs: Interval) -> Any:
    """Where an operand is unknown: an integer beyond 61 bits, a float that may be infinite or NaN."""
    out: Any = False
    for x in xs:
        out = out | (~(np.isfinite(x.lo) & np.isfinite(x.hi)) if x.kind == "f" else (x.hi >= BIG))
    return out


def _corners(fn: Callable[[Array, Array], Array], a: Interval, b: Interval) -> tuple[Array, Array]:
    values = [fn(x, y) for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    least, greatest = values[0], values[0]
    for v in values[1:]:
        least, greatest = np.minimum(least, v), np.maximum(greatest, v)
    return least, greatest


_Rule = Callable[..., Interval]


def _arith(whole: Callable[..., Interval], real: Callable[..., tuple[Array, Array]]) -> _Rule:
    """An arithmetic operator by its rule on integers and its ends on finite floats."""

    def rule(*xs: Interval) -> Interval:
        if any(x.kind == "f" for x in xs):
            fs = [_floats(x) for x in xs]
            return _widened(*real(*fs), _lost(*fs))
        return whole(*(_ints(x) for x in xs))

    return rule


def _add(a: Interval, b: Interval) -> tuple[Array, Array]:
    return a.lo + b.lo, a.hi + b.hi


def _sub(a: Interval, b: Interval) -> tuple[Array, Array]:
    return a.lo - b.hi, a.hi - b.lo


def _mul(a: Interval, b: Interval) -> tuple[Array, Array]:
    return _corners(np.multiply, a, b)


def _mul_whole(a: Interval, b: Interval) -> Interval:
    return _whole(*_mul(a, b), _magnitude(a) * _magnitude(b) >= BIG)


def _magnitude(x: Interval) -> Array:
    return np.maximum(np.abs(x.lo), np.abs(x.hi)).astype(np.float64)


def _div(a: Interval, b: Interval) -> Interval:
    a, b = _floats(a), _floats(b)
    zero = (b.lo <= 0) & (b.hi >= 0)
    safe = Interval(np.where(zero, 1.0, b.lo), np.where(zero, 1.0, b.hi))
    return _widened(*_corners(np.divide, a, safe), _lost(a, b) | zero)


def _quotient(a: Interval, b: Interval) -> Interval:
    """Integers; a divisor that may be 0 gives 0 or a quotient no larger than the dividend."""
    zero = (b.lo <= 0) & (b.hi >= 0)
    safe = Interval(np.where(zero, 1, b.lo), np.where(zero, 1, b.hi))
    lo, hi = _corners(np.floor_divide, a, safe)
    most = np.maximum(np.abs(a.lo), np.abs(a.hi))
    return _whole(np.where(zero, -most, lo), np.where(zero, most, hi), _lost(a, b))


def _float_quotient(a: Interval, b: Interval) -> Interval:
    if a.kind != "f" and b.kind != "f":
        return _quotient(_ints(a), _ints(b))
    q = _div(a, b)
    return Interval(*_known(np.floor(q.lo), np.floor(q.hi)))


def _remainder(a: Interval, b: Interval) -> Interval:
    """Integers, sign of the divisor: exact while one divisor stays within one period."""
    one = (b.lo == b.hi) & (b.lo != 0)
    by = np.where(one, b.lo, 1)
    same = one & (a.lo // by == a.hi // by)
    lo = np.where(same, a.lo % by, np.minimum(b.lo + 1, 0))
    hi = np.where(same, a.hi % by, np.maximum(b.hi - 1, 0))
    return _whole(lo, hi, _lost(a, b))


def _float_remainder(a: Interval, b: Interval) -> Interval:
    if a.kind != "f" and b.kind != "f":
        return _remainder(_ints(a), _ints(b))
    a, b = _floats(a), _floats(b)
    lo, hi = np.minimum(b.lo, 0.0), np.maximum(b.hi, 0.0)
    return _widened(lo, hi, _lost(a, b) | ((b.lo <= 0) & (b.hi >= 0)))


def _power(a: Interval, b: Interval) -> Interval:
    """One integer exponent of 0 to 62 for all; anything else is unknown."""
    exponents = np.unique(np.concatenate([np.ravel(b.lo), np.ravel(b.hi)]))
    if a.kind == "f" or b.kind == "f":
        a = _floats(a)
        shape = np.broadcast(a.lo, b.lo)
        if exponents.size != 1 or exponents[0] not in (2.0, 1.0):
            nothing = np.full(shape.shape, np.nan)
            return Interval(nothing, nothing)
        squares = _widened(*_even(a.lo * a.lo, a.hi * a.hi, a), _lost(a))
        return squares if exponents[0] == 2.0 else a
    a, b = _ints(a), _ints(b)
    if exponents.size != 1 or not 0 <= exponents[0] <= 62:
        nothing = np.zeros(np.broadcast(a.lo, b.lo).shape, dtype=np.int64)
        return _whole(nothing, nothing, True)
    n = int(exponents[0])
    lo, hi = np.power(a.lo, n), np.power(a.hi, n)
    if n % 2 == 0 and n > 0:
        lo, hi = _even(lo, hi, a)
    too_big = _magnitude(a) >= BIG ** (1 / n) if n > 0 else False
    return _whole(lo, hi, too_big | _lost(a))


def _even(lo: Array, hi: Array, a: Interval) -> tuple[Array, Array]:
    """Ends of an even function of `a` from its values at the ends of `a`, least at 0."""
    around = (a.lo < 0) & (a.hi > 0)
    return np.where(around, 0, np.minimum(lo, hi)), np.maximum(lo, hi)


def _neg(a: Interval) -> Interval:
    a = _ints(a)
    return Interval(-a.hi, -a.lo)


def _abs(a: Interval) -> Interval:
    a = _ints(a)
    return Interval(*_even(np.abs(a.lo), np.abs(a.hi), a))


def _alike(a: Interval, b: Interval) -> tuple[Interval, Interval]:
    return (_floats(a), _floats(b)) if "f" in (a.kind, b.kind) else (_ints(a), _ints(b))


def _lt(a: Interval, b: Interval) -> Interval:
    a, b = _alike(a, b)
    return Interval(a.hi < b.lo, ~(a.lo >= b.hi))


def _le(a: Interval, b: Interval) -> Interval:
    a, b = _alike(a, b)
    return Interval(a.hi <= b.lo, ~(a.lo > b.hi))


def _eq(a: Interval, b: Interval) -> Interval:
    a, b = _alike(a, b)
    return Interval((a.lo == b.hi) & (a.hi == b.lo), ~((a.hi < b.lo) | (b.hi < a.lo)))


def _not(a: Interval) -> Interval:
    return Interval(~a.hi, ~a.lo)


def _bits(of_bools: _Rule, exact: Callable[[Array, Array], Array]) -> _Rule:
    """Bitwise: exact on single values, otherwise within the bits of the operands."""

    def rule(a: Interval, b: Interval) -> Interval:
        if a.kind == b.kind == "b":
            return of_bools(a, b)
        a, b = _ints(a), _ints(b)
        one = (a.lo == a.hi) & (b.lo == b.hi)
        most = np.maximum(_magnitude(a), _magnitude(b))
        top = np.int64(1) << np.minimum(np.floor(np.log2(np.maximum(most, 1))) + 1, 62).astype(np.int64)
        floor = np.where((a.lo >= 0) & (b.lo >= 0), 0, -top)
        value = exact(a.lo, b.lo)
        return _whole(np.where(one, value, floor), np.where(one, value, top - 1), _lost(a, b))

    return rule


def _and_bools(a: Interval, b: Interval) -> Interval:
    return Interval(a.lo & b.lo, a.hi & b.hi)


def _or_bools(a: Interval, b: Interval) -> Interval:
    return Interval(a.lo | b.lo, a.hi | b.hi)


def _xor_bools(a: Interval, b: Interval) -> Interval:
    settled = (a.lo == a.hi) & (b.lo == b.hi)
    return Interval(settled & (a.lo ^ b.lo), ~settled | (a.lo ^ b.lo))


def _shift(a: Interval, b: Interval, *, left: bool) -> Interval:
    a, b = _ints(a), _ints(b)
    legal = (b.lo >= 0) & (b.hi < 62)
    by = Interval(np.where(legal, b.lo, 0), np.where(legal, b.hi, 0))
    if left:
        product = _mul_whole(a, Interval(np.int64(1) << by.lo, np.int64(1) << by.hi))
        return _whole(product.lo, product.hi, ~legal)
    return _whole(*_corners(np.right_shift, a, by), _lost(a, b) | ~legal)


def _select(c: Interval, a: Interval, b: Interval) -> Interval:
    if not a.kind == b.kind == "b":
        a, b = _alike(a, b)
    lo = np.where(c.lo, a.lo, np.where(c.hi, np.minimum(a.lo, b.lo), b.lo))
    hi = np.where(c.lo, a.hi, np.where(c.hi, np.maximum(a.hi, b.hi), b.hi))
    return Interval(lo, hi)


def _pick(fn: Callable[[Array, Array], Array]) -> _Rule:
    def rule(a: Interval, b: Interval) -> Interval:
        a, b = _alike(a, b)
        lo, hi = fn(a.lo, b.lo), fn(a.hi, b.hi)
        return Interval(lo, hi) if a.kind == "f" else _whole(lo, hi)

    return rule


def _monotone(fn: Callable[[Array], Array], absolute: float = _ABSOLUTE) -> _Rule:
    """An increasing function on floats; NaN where it is not defined on the whole interval."""
    return lambda a: _widened(fn(_floats(a).lo), fn(_floats(a).hi), absolute=absolute)


def _rounding(fn: Callable[[Array], Array]) -> _Rule:
    return lambda a: Interval(fn(a.lo), fn(a.hi)) if a.kind == "f" else _ints(a)


def _sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


_erf: Any = np.frompyfunc(math.erf, 1, 1)


def _erf_of(x: Array) -> Array:
    return np.asarray(_erf(x)).astype(np.float64)


def _wave(fn: Callable[[Array], Array]) -> _Rule:
    """Sine or cosine: exact where the argument is, near enough, one moderate value; else -1 to 1."""

    def rule(a: Interval) -> Interval:
        a = _floats(a)
        width = a.hi - a.lo
        one = width + np.abs(a.lo) * _RELATIVE < 1.0
        value = fn(a.lo)
        slack = np.where(one, width + np.abs(a.lo) * _RELATIVE, 2.0)
        return _widened(np.maximum(value - slack, -1.0), np.minimum(value + slack, 1.0), _lost(a), _ABSOLUTE)

    return rule


def _sign(a: Interval) -> Interval:
    a = _ints(a)
    return Interval(np.sign(a.lo), np.sign(a.hi))


def _to_int(a: Interval) -> Interval:
    if a.kind != "f":
        return _ints(a)
    lost = _lost(a)
    lo, hi = (np.clip(np.trunc(np.where(lost, 0.0, x)), -BIG, BIG).astype(np.int64) for x in (a.lo, a.hi))
    return _whole(lo, hi, lost)


def _finite(a: Interval) -> Interval:
    if a.kind != "f":
        return _ints(a)
    infinite = np.isinf(a.lo) | np.isinf(a.hi)
    return Interval(
        np.where(infinite, np.minimum(a.lo, 0), a.lo), np.where(infinite, np.maximum(a.hi, 0), a.hi)
    )


def _quiet(rule: _Rule) -> _Rule:
    def silent(*args: Interval) -> Interval:
        with np.errstate(all="ignore"):
            return rule(*args)

    return silent


INTERVAL_OPS: dict[str, _Rule] = {
    name: _quiet(rule)
    for name, rule in {
        "add": _arith(lambda a, b: _whole(*_add(a, b), _lost(a, b)), _add),
        "sub": _arith(lambda a, b: _whole(*_sub(a, b), _lost(a, b)), _sub),
        "mul": _arith(_mul_whole, _mul),
        "div": _div,
        "floordiv": _float_quotient,
        "mod": _float_remainder,
        "pow": _power,
        "neg": _neg,
        "lt": _lt,
        "le": _le,
        "gt": lambda a, b: _lt(b, a),
        "ge": lambda a, b: _le(b, a),
        "eq": _eq,
        "ne": lambda a, b: _not(_eq(a, b)),
        "and": _bits(_and_bools, np.bitwise_and),
        "or": _bits(_or_bools, np.bitwise_or),
        "xor": _bits(_xor_bools, np.bitwise_xor),
        "not": _not,
        "shl": lambda a, b: _shift(a, b, left=True),
        "shr": lambda a, b: _shift(a, b, left=False),
        "where": _select,
        "min": _pick(np.minimum),
        "max": _pick(np.maximum),
        "abs": _abs,
        "sign": _sign,
        "round": _rounding(np.rint),
        "floor": _rounding(np.floor),
        "ceil": _rounding(np.ceil),
        "exp": _monotone(np.exp),
        "exp2": _monotone(np.exp2),
        "log": _monotone(np.log),
        "log2": _monotone(np.log2),
        "tanh": _monotone(np.tanh),
        "sigmoid": _monotone(_sigmoid),
        "erf": _monotone(_erf_of),
        "sqrt": _monotone(np.sqrt),
        "sin": _wave(np.sin),
        "cos": _wave(np.cos),
        "int": _to_int,
        "float": _floats,
        "finite": _finite,
    }.items()
}
