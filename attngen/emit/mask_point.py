"""Where the mask enters a tile: on the score if that is proved enough, else on every reduction's source.

Setting one tile value to -inf where a pair is not kept costs one select. It is right only if every
reduction then sees its identity. That is shown here by evaluating the bodies in a small abstract domain of
limits.

    E = exp(S - finite(M)), Z += sum(E), O += E . V      with S = -inf:  E = 0, and 0 is the identity of sum.
    O += S . V                                           with S = -inf:  -inf . V, refused: mask the source
    with 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum, auto

from attngen.lang.expr import Apply, Const, Expr, Load, Param, Size, Var
from attngen.lang.ops import REDUCERS


class Limit(Enum):
    """What is known of a value. FINITE includes zero and both signs; ANY includes infinities and NaN."""

    NEG_INF = auto()
    POS_INF = auto()
    ZERO = auto()
    POSITIVE = auto()
    FINITE = auto()
    ANY = auto()


_FINITE = {Limit.ZERO, Limit.POSITIVE, Limit.FINITE}


def limit_of(expr: Expr, known: Mapping[str, Limit], positive_params: frozenset[str]) -> Limit:
    """The limit of `expr` when the tile values in `known` have the given limits.

    Inputs of the user (captured tensors) may hold anything. Parameters are finite: the caller checks them.
    """
    match expr:
        case Const(value):
            return _of_const(float(value))
        case Param(name):
            return Limit.POSITIVE if name in positive_params else Limit.FINITE
        case Var() | Size():
            return Limit.FINITE
        case Load(tensor, _):
            return known.get(tensor, Limit.ANY)
        case Apply(op, args):
            rule = _RULES.get(op)
            if rule is None:
                return Limit.ANY
            return rule(*(limit_of(a, known, positive_params) for a in args))
        case _:
            return Limit.ANY


def is_identity(limit: Limit, reducer: str) -> bool:
    """Whether a value with this limit is the identity of the reducer."""
    identity = REDUCERS[reducer].identity
    if identity == -math.inf:
        return limit is Limit.NEG_INF
    if identity == math.inf:
        return limit is Limit.POS_INF
    return identity == 0.0 and limit is Limit.ZERO


def _of_const(value: float) -> Limit:
    if math.isnan(value):
        return Limit.ANY
    if math.isinf(value):
        return Limit.POS_INF if value > 0 else Limit.NEG_INF
    if value == 0:
        return Limit.ZERO
    return Limit.POSITIVE if value > 0 else Limit.FINITE


def _neg(a: Limit) -> Limit:
    swap = {Limit.NEG_INF: Limit.POS_INF, Limit.POS_INF: Limit.NEG_INF, Limit.POSITIVE: Limit.FINITE}
    return swap.get(a, a)


def _add(a: Limit, b: Limit) -> Limit:
    if a in _FINITE and b in _FINITE:
        if a is Limit.ZERO:
            return b
        if b is Limit.ZERO:
            return a
        return Limit.POSITIVE if a is b is Limit.POSITIVE else Limit.FINITE
    for x, y in ((a, b), (b, a)):
        if x in (Limit.NEG_INF, Limit.POS_INF) and (y in _FINITE or y is x):
            return x
    return Limit.ANY


def _mul(a: Limit, b: Limit) -> Limit:
    if Limit.ZERO in (a, b):
        return Limit.ZERO if a in _FINITE and b in _FINITE else Limit.ANY
    if a in _FINITE and b in _FINITE:
        return Limit.POSITIVE if a is b is Limit.POSITIVE else Limit.FINITE
    for x, y in ((a, b), (b, a)):
        if y is Limit.POSITIVE:
            return x
    return Limit.ANY


def _div(a: Limit, b: Limit) -> Limit:
    return _mul(a, b) if b is Limit.POSITIVE else Limit.ANY


def _exp(a: Limit) -> Limit:
    if a is Limit.NEG_INF:
        return Limit.ZERO
    return a if a is Limit.POS_INF else Limit.ANY  # exp of a finite value may overflow


def _bounded(a: Limit) -> Limit:
    return Limit.ANY if a is Limit.ANY else Limit.FINITE


def _sigmoid(a: Limit) -> Limit:
    return Limit.ZERO if a is Limit.NEG_INF else _bounded(a)


def _maximum(a: Limit, b: Limit) -> Limit:
    if a is Limit.NEG_INF:
        return b
    if b is Limit.NEG_INF:
        return a
    return a if a is b else _bounded(a) if a in _FINITE and b in _FINITE else Limit.ANY


def _minimum(a: Limit, b: Limit) -> Limit:
    return _neg(_maximum(_neg(a), _neg(b))) if Limit.POSITIVE not in (a, b) else _min_positive(a, b)


def _min_positive(a: Limit, b: Limit) -> Limit:
    if Limit.NEG_INF in (a, b):
        return Limit.NEG_INF if Limit.ANY not in (a, b) else Limit.ANY
    return a if a is b else Limit.ANY


def _same(a: Limit) -> Limit:
    return a


def _keeps_zero(a: Limit) -> Limit:
    return a if a is Limit.ZERO else Limit.ANY


_RULES: dict[str, Callable[..., Limit]] = {
    "add": _add,
    "sub": lambda a, b: _add(a, _neg(b)),
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "exp": _exp,
    "exp2": _exp,
    "sigmoid": _sigmoid,
    "tanh": _bounded,
    "erf": _bounded,
    "max": _maximum,
    "min": _minimum,
    "where": lambda _c, a, b: a if a is b else Limit.ANY,
    "pow": lambda a, b: Limit.ZERO if a is Limit.ZERO and b is Limit.POSITIVE else Limit.ANY,
    "abs": lambda a: Limit.POS_INF if a is Limit.NEG_INF else a,
    "sqrt": _keeps_zero,
    "sign": _keeps_zero,
    "round": _keeps_zero,
    "floor": _keeps_zero,
    "ceil": _keeps_zero,
    "int": _keeps_zero,
    "float": _same,
    "finite": lambda _a: Limit.FINITE,
}
