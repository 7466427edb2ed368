"""The Triton spelling of every operator of the language.

Integers are exact: bounds decide whether a result needs 64 bits, and whether Python's floor division and remainder
are Triton's (which truncate). Functions without a dot are defined in `templates/triton/helpers/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from attngen.emit.triton.value import (
    INT32_MAX,
    INT32_MIN,
    INT64_MAX,
    INT64_MIN,
    Prec,
    Space,
    Value,
    call,
    cast,
    like,
    literal,
    narrow,
    saturate,
    spread,
    to_bool,
    to_float,
    to_int,
    widen,
)
from attngen.lang.ops import Kind

_FLOAT = Value("", Kind.FLOAT)
_BOOL = Value("", Kind.BOOL, lo=0, hi=1)
_PROPAGATE = "propagate_nan=tl.PropagateNan.ALL"
_LARGEST_UNROLLED_POWER = 8
_MOST_SHIFT = 62


def _int(lo: int, hi: int) -> Value:
    return Value("", Kind.INT, lo=max(lo, INT64_MIN), hi=min(hi, INT64_MAX))


def _numbers(*args: Value) -> tuple[Kind, list[Value]]:
    """The common kind of the operands of arithmetic, and the operands in it."""
    if any(a.kind is Kind.FLOAT for a in args):
        return Kind.FLOAT, [to_float(a) for a in args]
    return Kind.INT, [to_int(a) for a in args]


def _infix(symbol: str, prec: Prec, result: Value, a: Value, b: Value) -> Value:
    """`a symbol b`, in 64 bits where an integer result or operand needs them."""
    out = like(replace(result, prec=prec), a, b)
    if out.kind is Kind.INT and (a.wide or b.wide or not out.fits):
        a, b, out = widen(a), widen(b), replace(out, wide=not out.literal)
    left, right = spread(a, out.space), spread(b, out.space)
    text = f"{left.at(prec)} {symbol} {right.at(Prec(prec + 1))}"
    return narrow(replace(out, text=text))


def _add(a: Value, b: Value) -> Value:
    kind, (a, b) = _numbers(a, b)
    result = _FLOAT if kind is Kind.FLOAT else _int(a.lo + b.lo, a.hi + b.hi)
    return _infix("+", Prec.SUM, result, a, b)


def _sub(a: Value, b: Value) -> Value:
    kind, (a, b) = _numbers(a, b)
    result = _FLOAT if kind is Kind.FLOAT else _int(a.lo - b.hi, a.hi - b.lo)
    return _infix("-", Prec.SUM, result, a, b)


def _mul(a: Value, b: Value) -> Value:
    kind, (a, b) = _numbers(a, b)
    corners = [x * y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    result = _FLOAT if kind is Kind.FLOAT else _int(min(corners), max(corners))
    return _infix("*", Prec.PRODUCT, result, a, b)


def _div(a: Value, b: Value) -> Value:
    return _infix("/", Prec.PRODUCT, _FLOAT, to_float(a), to_float(b))


def _floordiv(a: Value, b: Value) -> Value:
    kind, (a, b) = _numbers(a, b)
    if kind is Kind.FLOAT:
        return call("tl.floor", _FLOAT, call("tl.div_rn", _FLOAT, a, b))
    return _whole("//", "floor_div", _int(*_quotient_bounds(a, b)), a, b)


def _mod(a: Value, b: Value) -> Value:
    kind, (a, b) = _numbers(a, b)
    if kind is Kind.FLOAT:
        return call("float_mod", _FLOAT, a, b)
    return _whole("%", "floor_mod", _int(*_remainder_bounds(a, b)), a, b)


def _whole(symbol: str, helper: str, result: Value, a: Value, b: Value) -> Value:
    """An integer quotient or remainder: Triton's operator where no sign and no zero can disagree with Python's."""
    if a.lo >= 0 and b.lo > 0:
        return _infix(symbol, Prec.PRODUCT, result, a, b)
    if a.wide or b.wide or not result.fits:
        a, b, result = widen(a), widen(b), replace(result, wide=True)
    return narrow(call(helper, result, a, b))


def _quotient_bounds(a: Value, b: Value) -> tuple[int, int]:
    """|a // b| <= max(|a|, 1), and a // 0 is 0."""
    if b.lo > 0:
        return min(a.lo, 0), max(a.hi, 0)
    most = max(abs(a.lo), abs(a.hi))
    return -most, most


def _remainder_bounds(a: Value, b: Value) -> tuple[int, int]:
    """A % b lies between 0 and b, b excluded, and a % 0 is 0."""
    high = max(b.hi - 1, 0)
    if a.lo >= 0 and b.lo >= 0:
        high = min(high, a.hi)
    return min(b.lo + 1, 0), high


def _pow(a: Value, b: Value) -> Value:
    kind, (x, y) = _numbers(a, b)
    power = _whole_literal(b)
    if power is not None and 0 < power <= _LARGEST_UNROLLED_POWER:
        out = x
        for _ in range(power - 1):
            out = _mul(out, x)
        return out
    if kind is Kind.FLOAT:
        return call("tl.exp2" if x.text == "2.0" else "power", _FLOAT, *([y] if x.text == "2.0" else [x, y]))
    bounds = _int(INT64_MIN, INT64_MAX)
    return call("int_power", replace(bounds, wide=True), widen(x), widen(y))


def _whole_literal(value: Value) -> int | None:
    if not value.literal or value.kind is Kind.BOOL:
        return None
    try:
        number = float(value.text)
    except ValueError:
        return None
    return int(number) if number == int(number) else None


def _neg(a: Value) -> Value:
    kind, (x,) = _numbers(a)
    if kind is Kind.INT:
        return _sub(literal(0), x) if x.lo == INT32_MIN else _prefix("-", _int(-x.hi, -x.lo), x)
    return _prefix("-", _FLOAT, x)


def _prefix(symbol: str, result: Value, x: Value) -> Value:
    out = replace(like(result, x), prec=Prec.UNARY, wide=x.wide)
    return replace(out, text=f"{symbol}{x.at(Prec.UNARY)}")


def _compare(symbol: str) -> Callable[[Value, Value], Value]:
    def spell(a: Value, b: Value) -> Value:
        _, (x, y) = _numbers(a, b)
        if like(_BOOL, x, y).space is Space.TILE:
            x, y = _narrowed(x, y), _narrowed(y, x)
        return _infix(symbol, Prec.COMPARE, _BOOL, _grouped(x), _grouped(y))

    return spell


def _grouped(x: Value) -> Value:
    """An operand of a comparison: what is itself a comparison goes in parentheses on either side."""
    return replace(x, text=x.at(Prec.OR), prec=max(x.prec, Prec.OR))


def _narrowed(x: Value, other: Value) -> Value:
    """A 64-bit vector met by 32-bit pairs: clamping it first halves the work of each pair."""
    inside = not other.wide and other.lo > INT32_MIN and other.hi < INT32_MAX
    return saturate(x) if x.wide and x.space is not Space.TILE and inside else x


def _logic(symbol: str, prec: Prec) -> Callable[[Value, Value], Value]:
    def spell(a: Value, b: Value) -> Value:
        if a.kind is Kind.INT and b.kind is Kind.INT:
            return _infix(symbol, prec, _bit_bounds(a, b), a, b)
        return _infix(symbol, prec, _BOOL, to_bool(a), to_bool(b))

    return spell


def _bit_bounds(a: Value, b: Value) -> Value:
    """Bitwise operators need no more bits than their operands."""
    if a.fits and b.fits:
        low = 0 if a.lo >= 0 and b.lo >= 0 else INT32_MIN
        return _int(low, INT32_MAX)
    return _int(INT64_MIN, INT64_MAX)


def _not(a: Value) -> Value:
    if a.kind is Kind.INT:
        return _prefix("~", _int(-a.hi - 1, -a.lo - 1), a)
    return _prefix("~", _BOOL, to_bool(a))


def _shl(a: Value, b: Value) -> Value:
    x, y = to_int(a), to_int(b)
    most = min(max(y.hi, 0), _MOST_SHIFT)
    result = _int(min(x.lo, x.lo << most), max(x.hi, x.hi << most))
    return _infix("<<", Prec.SHIFT, result, x, y)


def _shr(a: Value, b: Value) -> Value:
    x, y = to_int(a), to_int(b)
    return _infix(">>", Prec.SHIFT, _int(min(x.lo, 0), max(x.hi, 0)), x, y)


def _where(condition: Value, a: Value, b: Value) -> Value:
    condition = to_bool(condition)
    if a.kind is b.kind is Kind.BOOL:
        return call("tl.where", _BOOL, condition, a, b)
    kind, (a, b) = _numbers(a, b)
    if kind is Kind.FLOAT:
        return call("tl.where", _FLOAT, condition, a, b)
    result = _int(min(a.lo, b.lo), max(a.hi, b.hi))
    if a.wide or b.wide or not result.fits:
        a, b, result = widen(a), widen(b), replace(result, wide=True)
    return narrow(call("tl.where", result, condition, a, b))


def _extreme(name: str, pick: Callable[[int, int], int]) -> Callable[[Value, Value], Value]:
    def spell(a: Value, b: Value) -> Value:
        kind, (a, b) = _numbers(a, b)
        if kind is Kind.FLOAT:
            out = call(name, _FLOAT, a, b)
            return replace(out, text=f"{out.text[:-1]}, {_PROPAGATE})")
        result = _int(pick(a.lo, b.lo), pick(a.hi, b.hi))
        if a.wide or b.wide:
            a, b, result = widen(a), widen(b), replace(result, wide=True)
        return narrow(call(name, result, a, b))

    return spell


def _abs(a: Value) -> Value:
    kind, (x,) = _numbers(a)
    if kind is Kind.FLOAT:
        return call("tl.abs", _FLOAT, x)
    if x.lo >= 0:
        return x
    x = widen(x) if x.lo == INT32_MIN else x
    low = 0 if x.hi >= 0 else -x.hi
    return call("tl.abs", replace(_int(low, max(abs(x.lo), abs(x.hi))), wide=x.wide), x)


def _sign(a: Value) -> Value:
    kind, (x,) = _numbers(a)
    if kind is Kind.FLOAT:
        return call("sign", _FLOAT, x)
    return _sub(_compare(">")(x, literal(0)), _compare("<")(x, literal(0)))


def _rounding(name: str) -> Callable[[Value], Value]:
    def spell(a: Value) -> Value:
        kind, (x,) = _numbers(a)
        return call(name, _FLOAT, x) if kind is Kind.FLOAT else x

    return spell


def _function(name: str) -> Callable[[Value], Value]:
    return lambda a: call(name, _FLOAT, to_float(a))


def _truncate(a: Value) -> Value:
    if a.kind is not Kind.FLOAT:
        return to_int(a)
    out = like(_int(INT32_MIN, INT32_MAX), a)
    return replace(out, text=cast(a, "int32"), prec=Prec.ATOM)


TRITON_OPS: dict[str, Callable[..., Value]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "floordiv": _floordiv,
    "mod": _mod,
    "pow": _pow,
    "neg": _neg,
    "lt": _compare("<"),
    "le": _compare("<="),
    "gt": _compare(">"),
    "ge": _compare(">="),
    "eq": _compare("=="),
    "ne": _compare("!="),
    "and": _logic("&", Prec.AND),
    "or": _logic("|", Prec.OR),
    "xor": _logic("^", Prec.XOR),
    "not": _not,
    "shl": _shl,
    "shr": _shr,
    "where": _where,
    "min": _extreme("tl.minimum", min),
    "max": _extreme("tl.maximum", max),
    "abs": _abs,
    "sign": _sign,
    "round": _rounding("round_half_even"),
    "floor": _rounding("tl.floor"),
    "ceil": _rounding("tl.ceil"),
    "exp": _function("tl.exp"),
    "exp2": _function("tl.exp2"),
    "log": _function("tl.log"),
    "log2": _function("tl.log2"),
    "tanh": _function("tanh"),
    "sigmoid": _function("tl.sigmoid"),
    "erf": _function("tl.erf"),
    "sqrt": _function("tl.sqrt_rn"),
    "sin": _function("tl.sin"),
    "cos": _function("tl.cos"),
    "int": _truncate,
    "float": to_float,
    "finite": _rounding("finite"),
}
