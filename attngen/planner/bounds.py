"""Interval arithmetic, vectorised over tiles: what every operator can give on a box of arguments.

One table of rules serves numpy arrays and torch tensors (see `namespace`). Sound for the float64 reference and for fp32
kernels alike: float results are widened by more than either rounds, and integers that may leave 61 bits count as
unknown. An unknown float has NaN ends, with which no comparison is ever decided; an unknown integer spans
`-BIG .. BIG`. Booleans are intervals of False and True.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from attngen.planner.namespace import Namespace, namespace_of

Array = Any  # a numpy array or a torch tensor

BIG = 1 << 61
_FLOAT32_MAX = 3.4e38
_RELATIVE = 4e-6  # some ulps of fp32, for one operation
_TINY = 1e-30
_ABSOLUTE = 2e-6  # approximate functions near their zeros
_INF, _NAN = float("inf"), float("nan")


@dataclass(frozen=True, slots=True)
class Interval:
    """Ends of one value over many tiles: two arrays of one dtype (bool, int64 or float64), `lo <= hi`.

    `literal` is the value of a constant, for rules that need it on the host.
    """

    lo: Array
    hi: Array
    literal: int | float | None = None

    @property
    def xp(self) -> Namespace:
        """The functions for the ends."""
        return namespace_of(self.lo)

    @property
    def kind(self) -> str:
        """The dtype kind of the ends: "b", "i" or "f"."""
        return self.xp.kind(self.lo)


def interval(lo: Any, hi: Any | None = None) -> Interval:
    """An interval of exact values, of anything numpy takes; see `interval_of`."""
    low = np.asarray(max(-BIG, min(lo, BIG)) if isinstance(lo, int) and not isinstance(lo, bool) else lo)
    found = interval_of(low, low if hi is None else np.asarray(hi))
    if hi is None and low.ndim == 0:
        return Interval(found.lo, found.hi, low.item())
    return found


def interval_of(lo: Array, hi: Array) -> Interval:
    """An interval of exact values; integers become int64, floats float64 with room for their rounding to fp32."""
    xp = namespace_of(lo)
    kinds = {xp.kind(lo), xp.kind(hi)}
    if kinds == {"b"}:
        return Interval(lo, hi)
    if "f" in kinds:
        low, high = xp.to_float(lo), xp.to_float(hi)
        with np.errstate(over="ignore"):
            rounded = xp.round32(low), xp.round32(high)
        return Interval(*_known(xp.minimum(low, rounded[0]), xp.maximum(high, rounded[1])))
    return _whole(xp.clip(xp.to_int(lo), -BIG, BIG), xp.clip(xp.to_int(hi), -BIG, BIG))


def truth(x: Interval) -> tuple[Array, Array]:
    """For a boolean interval: where it is certainly true, and where certainly false."""
    return x.lo, ~x.hi


def _known(lo: Array, hi: Array) -> tuple[Array, Array]:
    """A NaN at one end makes the other NaN too."""
    xp = namespace_of(lo)
    bad = xp.isnan(lo) | xp.isnan(hi)
    return xp.where(bad, _NAN, lo), xp.where(bad, _NAN, hi)


def _whole(lo: Array, hi: Array, unknown: Array | None = None) -> Interval:
    xp = namespace_of(lo)
    bad = (lo <= -BIG) | (hi >= BIG)
    if unknown is not None:
        bad = bad | unknown
    return Interval(xp.where(bad, -BIG, lo), xp.where(bad, BIG, hi))


def _widened(lo: Array, hi: Array, unknown: Array | None = None, absolute: float = _TINY) -> Interval:
    """Ends rounded outward; beyond what fp32 holds they are infinite."""
    xp = namespace_of(lo)
    lo = lo - xp.abs(lo) * _RELATIVE - absolute
    hi = hi + xp.abs(hi) * _RELATIVE + absolute
    lo = xp.where(lo < -_FLOAT32_MAX, -_INF, xp.clip(lo, None, _FLOAT32_MAX))
    hi = xp.where(hi > _FLOAT32_MAX, _INF, xp.clip(hi, -_FLOAT32_MAX, None))
    return Interval(*_known(lo if unknown is None else xp.where(unknown, _NAN, lo), hi))


def _ints(x: Interval) -> Interval:
    return Interval(x.xp.to_int(x.lo), x.xp.to_int(x.hi), x.literal) if x.kind == "b" else x


def _floats(x: Interval) -> Interval:
    if x.kind == "f":
        return x
    lo, hi = x.xp.to_float(x.lo), x.xp.to_float(x.hi)
    return Interval(lo, hi) if x.kind == "b" else _widened(lo, hi, _lost(x))


def _lost(*xs: Interval) -> Array:
    """Where an operand is unknown: an integer beyond 61 bits, a float that may be infinite or NaN."""
    out: Array = None
    for x in xs:
        xp = x.xp
        lost = ~(xp.isfinite(x.lo) & xp.isfinite(x.hi)) if x.kind == "f" else (x.hi >= BIG)
        out = lost if out is None else out | lost
    return out


def _corners(fn: Callable[[Array, Array], Array], a: Interval, b: Interval) -> tuple[Array, Array]:
    xp = a.xp
    values = [fn(x, y) for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    least, greatest = values[0], values[0]
    for v in values[1:]:
        least, greatest = xp.minimum(least, v), xp.maximum(greatest, v)
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
    return _corners(a.xp.multiply, a, b)


def _mul_whole(a: Interval, b: Interval) -> Interval:
    return _whole(*_mul(a, b), _magnitude(a) * _magnitude(b) >= BIG)


def _magnitude(x: Interval) -> Array:
    return x.xp.to_float(x.xp.maximum(x.xp.abs(x.lo), x.xp.abs(x.hi)))


def _div(a: Interval, b: Interval) -> Interval:
    a, b = _floats(a), _floats(b)
    zero = (b.lo <= 0) & (b.hi >= 0)
    xp = b.xp
    safe = Interval(xp.where(zero, 1.0, b.lo), xp.where(zero, 1.0, b.hi))
    return _widened(*_corners(xp.divide, a, safe), _lost(a, b) | zero)


def _quotient(a: Interval, b: Interval) -> Interval:
    """Integers; a divisor that may be 0 gives 0 or a quotient no larger than the dividend."""
    zero = (b.lo <= 0) & (b.hi >= 0)
    xp = b.xp
    safe = Interval(xp.where(zero, 1, b.lo), xp.where(zero, 1, b.hi))
    lo, hi = _corners(xp.floor_divide, a, safe)
    most = xp.maximum(xp.abs(a.lo), xp.abs(a.hi))
    return _whole(xp.where(zero, -most, lo), xp.where(zero, most, hi), _lost(a, b))


def _float_quotient(a: Interval, b: Interval) -> Interval:
    if a.kind != "f" and b.kind != "f":
        return _quotient(_ints(a), _ints(b))
    q = _div(a, b)
    return Interval(*_known(q.xp.floor(q.lo), q.xp.floor(q.hi)))


def _remainder(a: Interval, b: Interval) -> Interval:
    """Integers, sign of the divisor: exact while one divisor stays within one period."""
    one = (b.lo == b.hi) & (b.lo != 0)
    xp = b.xp
    by = xp.where(one, b.lo, 1)
    same = one & (xp.floor_divide(a.lo, by) == xp.floor_divide(a.hi, by))
    lo = xp.where(same, a.lo % by, xp.clip(b.lo + 1, None, 0))
    hi = xp.where(same, a.hi % by, xp.clip(b.hi - 1, 0, None))
    return _whole(lo, hi, _lost(a, b))


def _float_remainder(a: Interval, b: Interval) -> Interval:
    if a.kind != "f" and b.kind != "f":
        return _remainder(_ints(a), _ints(b))
    a, b = _floats(a), _floats(b)
    lo, hi = a.xp.clip(b.lo, None, 0.0) + a.lo * 0.0, a.xp.clip(b.hi, 0.0, None) + a.lo * 0.0
    return _widened(lo, hi, _lost(a, b) | ((b.lo <= 0) & (b.hi >= 0)))


def _power(a: Interval, b: Interval) -> Interval:
    """A literal integer exponent of 0 to 62; anything else is unknown."""
    if a.kind == "f" or b.kind == "f":
        a = _floats(a)
        if b.literal not in (1, 2):
            nothing = a.lo * _NAN + _floats(b).lo
            return Interval(nothing, nothing)
        return _widened(*_even(a.lo * a.lo, a.hi * a.hi, a), _lost(a)) if b.literal == 2 else a
    a, n = _ints(a), b.literal
    if n is None or not 0 <= n <= 62:
        nothing = a.lo * 0 + _ints(b).lo
        return _whole(nothing, nothing, nothing == nothing)  # noqa: PLR0124 - true everywhere
    n = int(n)
    lo, hi = a.lo**n, a.hi**n
    if n == 0:
        return Interval(lo, hi)
    if n % 2 == 0:
        lo, hi = _even(lo, hi, a)
    return _whole(lo, hi, (_magnitude(a) >= BIG ** (1 / n)) | _lost(a))


def _even(lo: Array, hi: Array, a: Interval) -> tuple[Array, Array]:
    """Ends of an even function of `a` from its values at the ends of `a`, least at 0."""
    around = (a.lo < 0) & (a.hi > 0)
    xp = a.xp
    return xp.where(around, 0, xp.minimum(lo, hi)), xp.maximum(lo, hi)


def _neg(a: Interval) -> Interval:
    a = _ints(a)
    return Interval(-a.hi, -a.lo)


def _abs(a: Interval) -> Interval:
    a = _ints(a)
    return Interval(*_even(a.xp.abs(a.lo), a.xp.abs(a.hi), a))


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
        xp = a.xp
        one = (a.lo == a.hi) & (b.lo == b.hi)
        most = xp.maximum(_magnitude(a), _magnitude(b))
        bits = xp.to_int(xp.clip(xp.floor(xp.log2(xp.clip(most, 1, None))) + 1, None, 62))
        top = _power_of_two(bits)
        floor = xp.where((a.lo >= 0) & (b.lo >= 0), 0, -top)
        value = exact(a.lo, b.lo)
        return _whole(xp.where(one, value, floor), xp.where(one, value, top - 1), _lost(a, b))

    return rule


def _power_of_two(n: Array) -> Array:
    return (n * 0 + 1) << n


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
    xp = b.xp
    by = Interval(xp.where(legal, b.lo, 0), xp.where(legal, b.hi, 0))
    if left:
        product = _mul_whole(a, Interval(_power_of_two(by.lo), _power_of_two(by.hi)))
        return _whole(product.lo, product.hi, ~legal)
    return _whole(*_corners(operator.rshift, a, by), _lost(a, b) | ~legal)


def _select(c: Interval, a: Interval, b: Interval) -> Interval:
    if not a.kind == b.kind == "b":
        a, b = _alike(a, b)
    xp = c.xp
    lo = xp.where(c.lo, a.lo, xp.where(c.hi, xp.minimum(a.lo, b.lo), b.lo))
    hi = xp.where(c.lo, a.hi, xp.where(c.hi, xp.maximum(a.hi, b.hi), b.hi))
    return Interval(lo, hi)


def _pick(name: str) -> _Rule:
    def rule(a: Interval, b: Interval) -> Interval:
        a, b = _alike(a, b)
        fn = getattr(a.xp, name)
        lo, hi = fn(a.lo, b.lo), fn(a.hi, b.hi)
        return Interval(lo, hi) if a.kind == "f" else _whole(lo, hi)

    return rule


def _monotone(name: str, absolute: float = _ABSOLUTE) -> _Rule:
    """An increasing function on floats; NaN where it is not defined on the whole interval."""

    def rule(a: Interval) -> Interval:
        a = _floats(a)
        fn = getattr(a.xp, name)
        return _widened(fn(a.lo), fn(a.hi), absolute=absolute)

    return rule


def _rounding(name: str) -> _Rule:
    def rule(a: Interval) -> Interval:
        fn = getattr(a.xp, name)
        return Interval(fn(a.lo), fn(a.hi)) if a.kind == "f" else _ints(a)

    return rule


def _wave(name: str) -> _Rule:
    """Sine or cosine: exact where the argument is, near enough, one moderate value; else -1 to 1."""

    def rule(a: Interval) -> Interval:
        a = _floats(a)
        xp = a.xp
        width = a.hi - a.lo
        one = width + xp.abs(a.lo) * _RELATIVE < 1.0
        value = getattr(xp, name)(a.lo)
        slack = xp.where(one, width + xp.abs(a.lo) * _RELATIVE, 2.0)
        lo, hi = xp.clip(value - slack, -1.0, None), xp.clip(value + slack, None, 1.0)
        return _widened(lo, hi, _lost(a), _ABSOLUTE)

    return rule


def _sign(a: Interval) -> Interval:
    a = _ints(a)
    return Interval(a.xp.sign(a.lo), a.xp.sign(a.hi))


def _to_int(a: Interval) -> Interval:
    if a.kind != "f":
        return _ints(a)
    xp, lost = a.xp, _lost(a)
    lo, hi = (xp.to_int(xp.clip(xp.trunc(xp.where(lost, 0.0, x)), -BIG, BIG)) for x in (a.lo, a.hi))
    return _whole(lo, hi, lost)


def _finite(a: Interval) -> Interval:
    if a.kind != "f":
        return _ints(a)
    xp = a.xp
    infinite = xp.isinf(a.lo) | xp.isinf(a.hi)
    lo, hi = xp.clip(a.lo, None, 0), xp.clip(a.hi, 0, None)
    return Interval(xp.where(infinite, lo, a.lo), xp.where(infinite, hi, a.hi))


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
        "and": _bits(_and_bools, operator.and_),
        "or": _bits(_or_bools, operator.or_),
        "xor": _bits(_xor_bools, operator.xor),
        "not": _not,
        "shl": lambda a, b: _shift(a, b, left=True),
        "shr": lambda a, b: _shift(a, b, left=False),
        "where": _select,
        "min": _pick("minimum"),
        "max": _pick("maximum"),
        "abs": _abs,
        "sign": _sign,
        "round": _rounding("rint"),
        "floor": _rounding("floor"),
        "ceil": _rounding("ceil"),
        "exp": _monotone("exp"),
        "exp2": _monotone("exp2"),
        "log": _monotone("log"),
        "log2": _monotone("log2"),
        "tanh": _monotone("tanh"),
        "sigmoid": _monotone("sigmoid"),
        "erf": _monotone("erf"),
        "sqrt": _monotone("sqrt"),
        "sin": _wave("sin"),
        "cos": _wave("cos"),
        "int": _to_int,
        "float": _floats,
        "finite": _finite,
    }.items()
}
