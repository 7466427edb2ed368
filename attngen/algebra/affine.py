"""Take an expression apart that is affine in one read: `c * X + t1 + t2 + ...`."""

from __future__ import annotations

import math

from attngen.lang.expr import Apply, Const, Expr, Load, apply, loads

_ONE = Const(1.0)


def affine_in(expr: Expr, x: Load, guards: frozenset[str]) -> tuple[Expr, list[Expr]] | None:
    """`(c, [t1, t2, ...])` with `expr = c * x + t1 + t2 + ...` and none of them reading `x`; None if it is not so.

    `guards` are statistics that are -inf only while `x` is 0: a multiple of `x` may stand as
    `where(R > -inf, c * x, 0)`, and its factor as `where(R > -inf, c, 1)`.
    """
    if expr == x:
        return _ONE, []
    if x not in set(loads(expr)):
        return None
    match expr:
        case Apply("add", (a, b)):
            return _sum(a, b, x, guards)
        case Apply("sub", (a, b)):
            return _sum(a, apply("neg", b), x, guards)
        case Apply("mul", (a, b)):
            inner, factor = (a, b) if x in set(loads(a)) else (b, a)
            if x in set(loads(factor)):
                return None
            return _scaled(affine_in(inner, x, guards), "mul", factor, guards)
        case Apply("div", (a, b)) if x not in set(loads(b)):
            return _scaled(affine_in(a, x, guards), "div", b, guards)
        case Apply("neg", (a,)):
            found = affine_in(a, x, guards)
            return None if found is None else (apply("neg", found[0]), [apply("neg", t) for t in found[1]])
        case Apply("where", (test, y, Const(0.0))) if _guards(test, guards):
            found = affine_in(y, x, guards)
            return found if found is not None and not found[1] else None
        case _:
            return None


def _sum(a: Expr, b: Expr, x: Load, guards: frozenset[str]) -> tuple[Expr, list[Expr]] | None:
    inner, term = (a, b) if x in set(loads(a)) else (b, a)
    if x in set(loads(term)):
        return None
    found = affine_in(inner, x, guards)
    return None if found is None else (found[0], [*found[1], *_terms(term)])


def _terms(expr: Expr) -> list[Expr]:
    match expr:
        case Apply("add", (a, b)):
            return [*_terms(a), *_terms(b)]
        case _:
            return [expr]


def _scaled(
    found: tuple[Expr, list[Expr]] | None, op: str, by: Expr, guards: frozenset[str]
) -> tuple[Expr, list[Expr]] | None:
    if found is None:
        return None
    c, terms = found
    match by:
        case Apply("where", (test, y, Const(other))) if (
            not terms and _guards(test, guards) and math.isfinite(other)
        ):
            by = y
        case _:
            pass
    scaled = by if c == _ONE and op == "mul" else apply(op, c, by)
    return scaled, [apply(op, t, by) for t in terms]


def _guards(test: Expr, guards: frozenset[str]) -> bool:
    match test:
        case Apply("gt", (Load(name, _), Const(low))):
            return name in guards and low == -math.inf
        case _:
            return False
