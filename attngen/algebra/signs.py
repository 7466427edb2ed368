"""What sign an expression has: the side conditions of distributivity, and assumptions for symbols.

    exp(S - M) > 0     sum[k](exp(S - M)) >= 0     abs(S) >= 0     max(abs(S), 1e-6) > 0     S: unknown

These are facts about real numbers: an exponential that underflows to 0 is dealt with by guards.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from attngen.lang.expr import Apply, Const, Expr, Load, Reduce, Var
from attngen.lang.program import Einsum


class Sign(IntEnum):
    """What is known of a value; a larger member says more. `NONNEG` is >= 0, `POSITIVE` is > 0."""

    ANY = 0
    NONNEG = 1
    POSITIVE = 2


_POSITIVE_OPS = frozenset({"exp", "exp2", "sigmoid"})
_NONNEG_OPS = frozenset({"abs", "sqrt"})
_KEEPS_NONNEG = frozenset({"round", "floor", "ceil", "int", "sign", "erf", "tanh"})


def signs_of(cascade: tuple[Einsum, ...]) -> dict[str, Sign]:
    """The sign of every Einsum's value."""
    known: dict[str, Sign] = {}
    for einsum in cascade:
        known[einsum.target] = sign_of(einsum.body, known)
    return known


def sign_of(expr: Expr, known: Mapping[str, Sign]) -> Sign:
    """The sign of `expr`, given that of the tensors and variables it reads (by name)."""
    match expr:
        case Const(value):
            return Sign.POSITIVE if value > 0 else Sign.NONNEG if value >= 0 else Sign.ANY
        case Load(name, _) | Var(name, _):
            return known.get(name, Sign.ANY)
        case Reduce(op, _, body):
            return _reduced(op, sign_of(body, known))
        case Apply("mul", (a, b)) if a == b:
            return max(Sign.NONNEG, sign_of(a, known))
        case Apply("pow", (base, Const(n))):
            return _power(sign_of(base, known), n)
        case Apply(op, args):
            return _applied(op, tuple(sign_of(a, known) for a in args))
        case _:
            return Sign.ANY


def kept_sign_of(expr: Expr, rank: str, known: Mapping[str, Sign]) -> Sign:
    """The sign of `expr` in a row that has kept a key: there a sum of positive terms is positive."""
    match expr:
        case Reduce("sum" | "max" | "min" | "prod", ranks, body) if rank in ranks:
            return sign_of(body, known)
        case _:
            return sign_of(expr, known)


def _reduced(op: str, body: Sign) -> Sign:
    """A row without keys holds the identity: 0 for a sum, and an extreme's is read through `finite` as 0."""
    if op in ("sum", "max", "min"):
        return min(body, Sign.NONNEG)
    return body if op == "prod" else Sign.ANY


def _power(base: Sign, exponent: float) -> Sign:
    if base is Sign.ANY and exponent % 2 == 0:
        return Sign.NONNEG
    return base


def _applied(op: str, args: tuple[Sign, ...]) -> Sign:
    if op in _POSITIVE_OPS:
        return Sign.POSITIVE
    if op in _NONNEG_OPS:
        return max(Sign.NONNEG, args[0])
    if op in _KEEPS_NONNEG:
        return min(args[0], Sign.NONNEG)
    match op:
        case "add":
            return max(args) if min(args) >= Sign.NONNEG else Sign.ANY
        case "mul" | "min" | "div" | "pow":
            return args[0] if op == "pow" else min(args)
        case "max":
            return max(args)
        case "where":
            return min(args[1:])
        case "finite":
            return min(args[0], Sign.NONNEG)
        case "float":
            return args[0]
        case _:
            return Sign.ANY
