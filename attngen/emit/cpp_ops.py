"""The C++ spelling of every operator of the language, on scalars and on lanes.

Integers are exact: bounds decide whether a result needs 64 bits, and 64-bit lanes are used only then.
Function names that start with `v` are defined in `templates/cpu/math/`, for lanes and for scalars.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from attngen.emit.cpp_value import (
    INT64_MAX,
    INT64_MIN,
    Level,
    Prec,
    Value,
    bounded,
    call,
    compared,
    spread,
    to_bool,
    to_float,
    to_int,
    widen,
)
from attngen.lang.ops import Kind

_COMPARE = {"<": Prec.ORDER, "<=": Prec.ORDER, ">": Prec.ORDER, ">=": Prec.ORDER}
_PREC = {"+": Prec.SUM, "-": Prec.SUM, "*": Prec.PRODUCT, "/": Prec.PRODUCT}


def level_of(*args: Value) -> Level:
    """The level of a result: lanes that meet a scalar of the key loop are of the tile, or of a cell."""
    levels = {a.level for a in args}
    if Level.COLUMN in levels and any(a.lanes for a in args):
        return Level.CELL
    if Level.KEY in levels and Level.ROW in levels:
        return Level.TILE
    return max(levels, default=Level.CALL)


def _numbers(*args: Value) -> tuple[Kind, list[Value]]:
    """The common kind of operands of arithmetic, and the operands in it."""
    if any(a.kind is Kind.FLOAT for a in args):
        return Kind.FLOAT, [to_float(a) for a in args]
    return Kind.INT, [to_int(a) for a in args]


def _fit(text: str, prec: Prec, level: Level, bounds: tuple[int, int], computed_wide: bool) -> Value:
    """An integer result in the width its bounds need, whatever width it was computed in."""
    out = Value(text, Kind.INT, level, prec, *bounds)
    if out.wide or not computed_wide:
        return out
    narrow = "narrow" if out.lanes else "int32_t"
    return replace(out, text=f"{narrow}({text})", prec=Prec.ATOM)


def _infix(symbol: str, a: Value, b: Value, bounds: tuple[int, int]) -> Value:
    """Arithmetic with an operator of C++; a scalar meets lanes as it is."""
    kind, (a, b) = _numbers(a, b)
    level = level_of(a, b)
    prec = _PREC[symbol]
    right = Prec(prec + 1)
    if kind is Kind.FLOAT:
        return Value(f"{a.at(prec)} {symbol} {b.at(right)}", kind, level, prec)
    result = Value("", kind, level, prec, *bounds)
    wide = replace(result, lo=INT64_MIN) if a.wide or b.wide or result.wide else result
    a, b = widen(a, wide), widen(b, wide)
    return _fit(f"{a.at(prec)} {symbol} {b.at(right)}", prec, level, bounds, wide.wide)


def _add(a: Value, b: Value) -> Value:
    (x, y) = to_int(a), to_int(b)
    return _infix("+", a, b, bounded(x.lo + y.lo, x.hi + y.hi))


def _sub(a: Value, b: Value) -> Value:
    (x, y) = to_int(a), to_int(b)
    return _infix("-", a, b, bounded(x.lo - y.hi, x.hi - y.lo))


def _mul(a: Value, b: Value) -> Value:
    (x, y) = to_int(a), to_int(b)
    corners = [p * q for p in (x.lo, x.hi) for q in (y.lo, y.hi)]
    return _infix("*", a, b, bounded(min(corners), max(corners)))


def _div(a: Value, b: Value) -> Value:
    return _infix("/", to_float(a), to_float(b), (0, 0))


def _whole(name: str, a: Value, b: Value, bounds: Callable[[Value, Value], tuple[int, int]]) -> Value:
    """Floor division or remainder, by a function that knows signs and a zero divisor."""
    kind, (a, b) = _numbers(a, b)
    level = level_of(a, b)
    like = Value("", kind, level)
    if kind is Kind.FLOAT:
        return call(f"{name}_float", like, *_same(a, b))
    limits = bounds(a, b)
    if a.lo >= 0 and b.lo == b.hi > 0 and not (a.wide and a.lanes):
        symbol = "/" if name == "floor_div" else "%"
        text = f"{a.at(Prec.PRODUCT)} {symbol} {b.at(Prec.UNARY)}"
        return _fit(text, Prec.PRODUCT, level, limits, a.wide or b.wide)
    any_wide = a.wide or b.wide or replace(like, lo=limits[0], hi=limits[1]).wide
    wide = replace(like, lo=INT64_MIN if any_wide else 0, hi=0)
    a, b = _same(widen(a, wide), widen(b, wide))
    return _fit(f"{name}({a.text}, {b.text})", Prec.ATOM, level, limits, wide.wide)


def _quotient_bounds(a: Value, b: Value) -> tuple[int, int]:
    """|a // b| <= |a| for integers, and 0 // b or a // 0 is 0."""
    if b.lo > 0:
        return min(a.lo, 0), max(a.hi, 0)
    most = max(abs(a.lo), abs(a.hi))
    return bounded(-most, most)


def _remainder_bounds(a: Value, b: Value) -> tuple[int, int]:
    """A % b lies between 0 and b, b excluded; a non-negative `a` and positive `b` also bound it by a."""
    high = max(b.hi - 1, 0)
    if a.lo >= 0 and b.lo >= 0:
        high = min(high, a.hi)
    return min(b.lo + 1, 0), high


def _same(*args: Value) -> list[Value]:
    """All operands as lanes if one is."""
    like = next((a for a in args if a.lanes), args[0])
    return [spread(a, replace(like, kind=a.kind, lo=a.lo, hi=a.hi) if a.wide else like) for a in args]


def _pow(a: Value, b: Value) -> Value:
    kind, (x, y) = _numbers(a, b)
    power = _constant_power(b)
    if power is not None and 1 <= power <= 4:
        out = a
        for _ in range(power - 1):
            out = _mul(out, a)
        return out if power > 1 else x
    name = "vpow" if kind is Kind.FLOAT else "int_pow"
    like = Value("", kind, level_of(x, y))
    return call(name, like, *_same(widen(x, like), widen(y, like)))


def _constant_power(exponent: Value) -> int | None:
    """The exponent if it is a whole literal."""
    text = exponent.text.rstrip("f")
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number == int(number) else None


def _neg(a: Value) -> Value:
    kind, (x,) = _numbers(a)
    if kind is Kind.FLOAT:
        return Value(f"-{x.at(Prec.ATOM)}", kind, x.level, Prec.UNARY)
    bounds = bounded(-x.hi, -x.lo)
    result = Value("", kind, x.level, Prec.UNARY, *bounds)
    wide = x.wide or result.wide
    return _fit(f"-{widen(x, result).at(Prec.ATOM)}", Prec.UNARY, x.level, bounds, wide)


def _compare(symbol: str) -> Callable[[Value, Value], Value]:
    prec = _COMPARE.get(symbol, Prec.EQUAL)
    right = Prec(prec + 1)

    def spell(a: Value, b: Value) -> Value:
        _, (x, y) = _numbers(a, b)
        level = level_of(x, y)
        wide = x if x.wide else y
        x, y = widen(x, wide), widen(y, wide)
        if level >= Level.ROW and wide.wide:
            return Value(compared(symbol, x, y), Kind.BOOL, level)
        text = f"{x.at(Prec.SHIFT)} {symbol} {y.at(right if right > Prec.SHIFT else Prec.SHIFT)}"
        return Value(text, Kind.BOOL, level, prec)

    return spell


def _logic(symbol: str, scalar: str, prec: Prec) -> Callable[[Value, Value], Value]:
    def spell(a: Value, b: Value) -> Value:
        level = level_of(a, b)
        if a.kind is Kind.INT and b.kind is Kind.INT:
            wide = a if a.wide else b
            a, b = widen(a, wide), widen(b, wide)
            bounds = (min(a.lo, b.lo, 0), max(a.hi, b.hi))
            if wide.wide or bounds[1] > 0:
                bounds = (INT64_MIN, INT64_MAX) if wide.wide else (-(2**31), 2**31 - 1)
            return Value(_join(a, b, symbol, prec), Kind.INT, level, prec, *bounds)
        a, b = to_bool(a), to_bool(b)
        if level >= Level.ROW:
            lanes = Value("", Kind.BOOL, level)
            return Value(_join(spread(a, lanes), spread(b, lanes), symbol, prec), Kind.BOOL, level, prec)
        return Value(_join(a, b, scalar, prec), Kind.BOOL, level, prec)

    return spell


def _join(a: Value, b: Value, symbol: str, prec: Prec) -> str:
    """Operands of one operator chain without parentheses; anything else in them, as compilers advise."""

    def side(x: Value) -> str:
        chained = x.prec == prec and f" {symbol} " in x.text
        return x.text if chained else x.at(Prec.UNARY)

    return f"{side(a)} {symbol} {b.at(Prec.UNARY)}"


def _not(a: Value) -> Value:
    if a.kind is Kind.INT:
        return Value(f"~{a.at(Prec.UNARY)}", Kind.INT, a.level, Prec.UNARY, -a.hi - 1, -a.lo - 1)
    flag = to_bool(a)
    symbol = "~" if flag.lanes else "!"
    return replace(flag, text=f"{symbol}{flag.at(Prec.UNARY)}", prec=Prec.UNARY)


def _shift(name: str) -> Callable[[Value, Value], Value]:
    def spell(a: Value, b: Value) -> Value:
        x, y = to_int(a), to_int(b)
        like = Value("", Kind.INT, level_of(x, y))
        bounds = (min(x.lo, 0), max(x.hi, 0)) if name == "shift_right" else (INT64_MIN, INT64_MAX)
        text = ", ".join(v.text for v in _same(widen(x, like), widen(y, like)))
        return _fit(f"{name}({text})", Prec.ATOM, like.level, bounds, computed_wide=True)

    return spell


def _where(c: Value, a: Value, b: Value) -> Value:
    c = to_bool(c)
    if not a.kind is b.kind is Kind.BOOL:
        kind, (a, b) = _numbers(a, b)
    else:
        kind = Kind.BOOL
    level = level_of(c, a, b)
    out = Value("", kind, level, Prec.TERNARY, min(a.lo, b.lo), max(a.hi, b.hi))
    a, b = widen(a, out), widen(b, out)
    if level >= Level.ROW:
        a, b = spread(a, out), spread(b, out)
        if c.lanes and out.wide:
            c = Value(f"widen({c.text})", Kind.BOOL, level)
    return replace(out, text=f"{c.at(Prec.UNARY)} ? {a.at(Prec.OR)} : {b.at(Prec.OR)}")


def _extreme(name: str, pick: Callable[[int, int], int]) -> Callable[[Value, Value], Value]:
    def spell(a: Value, b: Value) -> Value:
        kind, (a, b) = _numbers(a, b)
        out = Value("", kind, level_of(a, b), Prec.ATOM, pick(a.lo, b.lo), pick(a.hi, b.hi))
        wide = a if a.wide else b
        a, b = _same(widen(a, wide), widen(b, wide))
        text = f"{name}({a.text}, {b.text})"
        if kind is Kind.FLOAT:
            return replace(out, text=text)
        return _fit(text, Prec.ATOM, out.level, (out.lo, out.hi), wide.wide)

    return spell


def _abs(a: Value) -> Value:
    kind, (x,) = _numbers(a)
    if kind is Kind.FLOAT:
        return call("vabs", x, x)
    out = Value("", kind, x.level, Prec.ATOM, *bounded(0, max(abs(x.lo), abs(x.hi))))
    return call("int_abs", out, widen(x, out))


def _sign(a: Value) -> Value:
    kind, (x,) = _numbers(a)
    if kind is Kind.FLOAT:
        return call("vsign", x, x)
    return _sub(_compare(">")(x, zero(x)), _compare("<")(x, zero(x)))


def zero(like: Value) -> Value:
    """The integer literal 0."""
    del like
    return Value("0", Kind.INT, Level.CALL, Prec.ATOM, 0, 0)


def _rounded(name: str) -> Callable[[Value], Value]:
    def spell(a: Value) -> Value:
        kind, (x,) = _numbers(a)
        return call(name, x, x) if kind is Kind.FLOAT else x

    return spell


def _function(name: str) -> Callable[[Value], Value]:
    def spell(a: Value) -> Value:
        x = to_float(a)
        return call(name, x, x)

    return spell


def _truncate(a: Value) -> Value:
    if a.kind is not Kind.FLOAT:
        return to_int(a)
    return Value(f"truncate({a.text})", Kind.INT, a.level, Prec.ATOM, -(2**31), 2**31 - 1)


CPP_OPS: dict[str, Callable[..., Value]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "floordiv": lambda a, b: _whole("floor_div", a, b, _quotient_bounds),
    "mod": lambda a, b: _whole("floor_mod", a, b, _remainder_bounds),
    "pow": _pow,
    "neg": _neg,
    "lt": _compare("<"),
    "le": _compare("<="),
    "gt": _compare(">"),
    "ge": _compare(">="),
    "eq": _compare("=="),
    "ne": _compare("!="),
    "and": _logic("&", "&&", Prec.AND),
    "or": _logic("|", "||", Prec.OR),
    "xor": _logic("^", "!=", Prec.XOR),
    "not": _not,
    "shl": _shift("shift_left"),
    "shr": _shift("shift_right"),
    "where": _where,
    "min": _extreme("vmin", min),
    "max": _extreme("vmax", max),
    "abs": _abs,
    "sign": _sign,
    "round": _rounded("vround"),
    "floor": _rounded("vfloor"),
    "ceil": _rounded("vceil"),
    "exp": _function("vexp"),
    "exp2": _function("vexp2"),
    "log": _function("vlog"),
    "log2": _function("vlog2"),
    "tanh": _function("vtanh"),
    "sigmoid": _function("vsigmoid"),
    "erf": _function("verf"),
    "sqrt": _function("vsqrt"),
    "sin": _function("vsin"),
    "cos": _function("vcos"),
    "int": _truncate,
    "float": to_float,
    "finite": _rounded("vfinite"),
}
