"""Products as lists of factors."""

from __future__ import annotations

from attngen.lang.expr import Apply, Const, Expr, apply


def factors(expr: Expr) -> list[Expr]:
    """The factors of a product, left to right."""
    match expr:
        case Apply("mul", (a, b)):
            return factors(a) + factors(b)
        case _:
            return [expr]


def product(parts: list[Expr]) -> Expr:
    """The product of the factors; 1 for none."""
    if not parts:
        return Const(1.0)
    out = parts[0]
    for factor in parts[1:]:
        out = apply("mul", out, factor)
    return out
