"""The operators at 40 digits, for refuting an identity at random points before any attempt to prove it.

A point where a value is not a finite real number decides nothing: the operators raise `Undefined` there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache, partial
from typing import Any

DIGITS = 40


class Undefined(ArithmeticError):
    """The expression has no finite real value at this point."""


def real(value: Any) -> Any:
    """`value` as a finite real mpmath number, or a Python bool as it is."""
    import mpmath

    if isinstance(value, bool):
        return value
    if isinstance(value, mpmath.mpc):
        if value.imag != 0:
            raise Undefined
        value = value.real
    number = mpmath.mpf(value)
    if not mpmath.isfinite(number):
        raise Undefined
    return number


def _checked(fn: Callable[..., Any]) -> Callable[..., Any]:
    def op(*args: Any) -> Any:
        try:
            return real(fn(*args))
        except (ZeroDivisionError, ValueError, OverflowError, TypeError) as err:
            raise Undefined from err

    return op


@cache
def mp_ops() -> dict[str, Callable[..., Any]]:
    """`ops.OPS` on mpmath numbers and Python booleans."""
    import mpmath as mp

    def integer(x: Any) -> Any:
        """Booleans stay booleans: Python's bitwise operators mean logic on them."""
        if isinstance(x, bool):
            return x
        if x != int(x):
            raise Undefined
        return int(x)

    def bitwise(fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def op(a: Any, b: Any) -> Any:
            return fn(integer(a), integer(b))

        return op

    def negated(a: Any) -> Any:
        return (not a) if isinstance(a, bool) else ~integer(a)

    def floordiv(a: Any, b: Any) -> Any:
        return mp.floor(a / b)

    def mod(a: Any, b: Any) -> Any:
        return a - b * mp.floor(a / b)

    def log2(a: Any) -> Any:
        return mp.log(a, 2)

    def sigmoid(a: Any) -> Any:
        return 1 / (1 + mp.exp(-a))

    table: dict[str, Callable[..., Any]] = {
        "add": operator.add,
        "sub": operator.sub,
        "mul": operator.mul,
        "div": operator.truediv,
        "floordiv": floordiv,
        "mod": mod,
        "pow": mp.power,
        "neg": operator.neg,
        "lt": operator.lt,
        "le": operator.le,
        "gt": operator.gt,
        "ge": operator.ge,
        "eq": operator.eq,
        "ne": operator.ne,
        "and": bitwise(operator.and_),
        "or": bitwise(operator.or_),
        "xor": bitwise(operator.xor),
        "not": negated,
        "shl": bitwise(operator.lshift),
        "shr": bitwise(operator.rshift),
        "where": _select,
        "min": min,
        "max": max,
        "abs": abs,
        "sign": mp.sign,
        "round": _half_to_even,
        "floor": mp.floor,
        "ceil": mp.ceil,
        "exp": mp.exp,
        "exp2": partial(mp.power, 2),
        "log": mp.log,
        "log2": log2,
        "tanh": mp.tanh,
        "sigmoid": sigmoid,
        "erf": mp.erf,
        "sqrt": mp.sqrt,
        "sin": mp.sin,
        "cos": mp.cos,
        "int": int,
        "float": _same,
        "finite": _same,
    }
    return {name: _checked(fn) for name, fn in table.items()}


def _same(x: Any) -> Any:
    return x


def _select(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


def _half_to_even(x: Any) -> Any:
    import mpmath as mp

    low = mp.floor(x)
    rest = x - low
    if rest * 2 == 1:
        return low if low % 2 == 0 else low + 1
    return low if rest * 2 < 1 else low + 1
