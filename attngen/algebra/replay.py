"""Replay weights with one multiplication, once their statistics are known.

    E[q, k] = exp(S[q, k] - M[q]);  A[q, k] = E[q, k] / Z[q]      M and Z known
->
    A[q, k] = E[q, k] * Z_part[q]                                  Z_part[q] = where(Z[q] == 0, 0, 1 / Z[q])

A division a pair becomes one a row. The weights keep the rounding that the formula has: the log of `Z` moved into the
exponent would lose digits where scores are large. Where `Z` is 0 no pair is kept.
"""

from __future__ import annotations

from dataclasses import replace

from attngen.lang.expr import Apply, Const, Expr, Load, Var, apply, map_children
from attngen.lang.fresh import fresh_name
from attngen.lang.program import Einsum


def replay(
    cascade: tuple[Einsum, ...], known: set[str], made: dict[Load, Einsum], taken: set[str]
) -> tuple[Einsum, ...]:
    """The cascade with quotients of pairs by known row values as products; `made` grows by the reciprocals."""

    def multiplied(expr: Expr) -> Expr:
        expr = map_children(expr, multiplied)
        match expr:
            case Apply("div", (top, Load(name, (Var("q", None),)) as below)) if name in known:
                if below not in made:
                    one = apply("div", Const(1.0), below)
                    body = apply("where", apply("eq", below, Const(0.0)), Const(0.0), one)
                    made[below] = Einsum(fresh_name(f"{name}_part", taken), ("q",), body)
                return apply("mul", top, Load(made[below].target, below.indices), loc=expr.loc)
            case _:
                return expr

    return tuple(replace(e, body=multiplied(e.body)) if {"q", "k"} <= set(e.ranks) else e for e in cascade)
