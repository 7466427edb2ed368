"""Take conditions that do not vary with the reduced rank out of a reduction.

    max[q, k](where((q // 64 == i) & (k // 64 == j), A[q, k], 0))
->
    max[q](where(q // 64 == i, max[k](where(k // 64 == j, A[q, k], 0)), max[k](0)))

Whatever is reduced, a row for which the condition holds reduces one branch and any other row reduces the other. A sum
or a product of nothing but the identity is the identity. Reductions over several ranks are nested first, the keys
innermost. A maximum of values that are not negative leaves its default to a reduction of its own:

    max[k](where(k // 64 == j, A, 0))   ->   max(max[k](where(k // 64 == j, A, -inf)), max[k](0))      A >= 0
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from attngen.algebra.signs import Sign, sign_of, signs_of
from attngen.lang.expr import Apply, Const, Expr, Reduce, apply, conjuncts, free_vars, map_children
from attngen.lang.ops import REDUCERS
from attngen.lang.program import Program


def hoist_conditions(program: Program) -> Program:
    """The program with such conditions outside of its reductions over queries and keys."""
    signs = signs_of(program.cascade)
    return replace(
        program, cascade=tuple(replace(e, body=_with_default(_hoist(e.body), signs)) for e in program.cascade)
    )


def _with_default(expr: Expr, signs: Mapping[str, Sign]) -> Expr:
    """The defaults of maxima of values that are not negative, on their own."""
    expr = map_children(expr, lambda c: _with_default(c, signs))
    match expr:
        case Reduce("max", (rank,), Apply("where", (test, a, Const(c) as default))) if rank in ("q", "k"):
            if -math.inf < c <= 0 and sign_of(a, signs) >= Sign.NONNEG:
                chosen = Reduce("max", (rank,), apply("where", test, a, Const(-math.inf)), loc=expr.loc)
                return apply("max", chosen, Reduce("max", (rank,), default))
            return expr
        case _:
            return expr


def _hoist(expr: Expr) -> Expr:
    expr = map_children(expr, _hoist)
    match expr:
        case Reduce(op, ranks, body) if {"q", "k"} <= set(ranks) and expr.at is None:
            rest = tuple(r for r in ranks if r != "k")
            return _hoist(Reduce(op, rest, _hoist(Reduce(op, ("k",), body, loc=expr.loc)), loc=expr.loc))
        case Reduce(op, (rank,), Apply("where", (test, a, b))) if rank in ("q", "k") and expr.at is None:
            parts = conjuncts(test)
            fixed = [c for c in parts if rank not in free_vars(c)]
            if not fixed:
                return expr
            moving = [c for c in parts if rank in free_vars(c)]
            inner = apply("where", _all(moving), a, b) if moving else a
            branches = (_reduced(op, rank, inner), _reduced(op, rank, b))
            return apply("where", _all(fixed), *branches, loc=expr.loc)
        case _:
            return expr


def _reduced(op: str, rank: str, body: Expr) -> Expr:
    if isinstance(body, Const) and body.value == REDUCERS[op].identity:
        return body
    return _hoist(Reduce(op, (rank,), body))


def _all(parts: list[Expr]) -> Expr:
    out = parts[0]
    for part in parts[1:]:
        out = apply("and", out, part)
    return out
