"""The operators on numpy arrays: the language's meaning of each, in int64, float64 and bool.

These are total and silent: nothing warns or raises for a division by zero, an overflow or a logarithm of a
negative number, since a vectorised predicate is evaluated where its own guard says that it does not matter.
Integer division or remainder by zero is 0. Arguments may be arrays, numpy scalars or Python numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_Op = Callable[..., Any]

_erf_of_each: _Op = np.frompyfunc(math.erf, 1, 1)


def _number(x: Any) -> Array:
    """Booleans count as 0 and 1; integers are int64, floats float64."""
    a = np.asarray(x)
    return a.astype(np.int64 if a.dtype.kind in "biu" else np.float64, copy=False)


def _float(x: Any) -> Array:
    return np.asarray(x).astype(np.float64, copy=False)


def _bits(x: Any) -> Array:
    """Booleans stay what they are; integers of any width are int64, so that `~` of an unsigned one is negative."""
    a = np.asarray(x)
    return a if a.dtype.kind == "b" else a.astype(np.int64, copy=False)


def _quiet(convert: Callable[[Any], Array], fn: _Op) -> _Op:
    def bare(*args: Any) -> Any:
        return fn(*[convert(a) for a in args])

    @wraps(bare)
    def op(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return bare(*args)

    return op


def _arith(fn: _Op) -> _Op:
    return _quiet(_number, fn)


def _real(fn: _Op) -> _Op:
    return _quiet(_float, fn)


def _logic(fn: _Op) -> _Op:
    return _quiet(_bits, fn)


def _power(base: Array, exponent: Array) -> Any:
    """Integers stay integers; a negative exponent truncates toward zero, so only 1 and -1 survive it."""
    if base.dtype.kind == "f" or exponent.dtype.kind == "f":
        return np.power(_float(base), _float(exponent))
    whole = np.power(base, np.abs(exponent))
    return np.where((exponent >= 0) | (np.abs(base) == 1), whole, 0)


def _rounded(fn: _Op) -> _Op:
    def floats_only(x: Array) -> Any:
        return fn(x) if x.dtype.kind == "f" else x

    return _arith(floats_only)


def _sigmoid(x: Array) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def _erf(x: Array) -> Any:
    return np.asarray(_erf_of_each(x)).astype(np.float64)


def _truncate(x: Array) -> Any:
    return np.trunc(x).astype(np.int64)


def _finite(x: Array) -> Any:
    return np.where(np.isinf(x), 0.0, x)


def _where(condition: Any, a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    if not a.dtype.kind == b.dtype.kind == "b":
        a, b = _number(a), _number(b)
    return np.where(condition, a, b)


NUMPY_OPS: dict[str, _Op] = {
    "add": _arith(np.add),
    "sub": _arith(np.subtract),
    "mul": _arith(np.multiply),
    "div": _real(np.divide),
    "floordiv": _arith(np.floor_divide),
    "mod": _arith(np.mod),
    "pow": _arith(_power),
    "neg": _arith(np.negative),
    "lt": _arith(np.less),
    "le": _arith(np.less_equal),
    "gt": _arith(np.greater),
    "ge": _arith(np.greater_equal),
    "eq": _arith(np.equal),
    "ne": _arith(np.not_equal),
    "and": _logic(np.bitwise_and),
    "or": _logic(np.bitwise_or),
    "xor": _logic(np.bitwise_xor),
    "not": _logic(np.invert),
    "shl": _arith(np.left_shift),
    "shr": _arith(np.right_shift),
    "where": _where,
    "min": _arith(np.minimum),
    "max": _arith(np.maximum),
    "abs": _arith(np.abs),
    "sign": _arith(np.sign),
    "round": _rounded(np.rint),
    "floor": _rounded(np.floor),
    "ceil": _rounded(np.ceil),
    "exp": _real(np.exp),
    "exp2": _real(np.exp2),
    "log": _real(np.log),
    "log2": _real(np.log2),
    "tanh": _real(np.tanh),
    "sigmoid": _real(_sigmoid),
    "erf": _real(_erf),
    "sqrt": _real(np.sqrt),
    "sin": _real(np.sin),
    "cos": _real(np.cos),
    "int": _arith(_truncate),
    "float": _real(np.positive),
    "finite": _rounded(_finite),
}

# The same for a caller that ignores numpy's warnings around a whole expression, not around each operator.
BARE_OPS: dict[str, _Op] = {name: getattr(op, "__wrapped__", op) for name, op in NUMPY_OPS.items()}
