"""Symbolic interval arithmetic: the least and the greatest value of a bound over the rows of a query tile.

    before   c * (q // c)  over rows lo .. hi
    after    c * (lo // c) .. c * (hi // c)

    before   start[q] + w
    after    row_min(start[q]) + w .. row_max(start[q]) + w

Exact where the bound is monotone in `q`; otherwise each part is bounded by itself, which is sound. A load at the query
is such a part: its extremes are those over all rows of the tile, since nothing is known of how it moves.
"""

from __future__ import annotations

from attngen.errors import InternalError
from attngen.lang.expr import Apply, Const, Expr, Load, Var, free_vars
from attngen.planner.build import smax, smin
from attngen.planner.facts import Facts, Trend, at
from attngen.planner.poly import Mono, Poly, factor, floordiv, number, product, to_expr, to_poly
from attngen.planner.rows import RowExtreme

Ends = tuple[Poly, Poly]


def extremes(poly: Poly, lo: Expr, hi: Expr, facts: Facts) -> Ends:
    """The least and greatest value of `poly` for `q` in `lo .. hi`, free of `q`.

    Both are attained unless `facts.trend(poly)` is MIXED. The operators are those `solve` lets into a bound.
    """
    match facts.trend(poly):
        case Trend.CONSTANT:
            return poly, poly
        case Trend.UP:
            return at(poly, lo), at(poly, hi)
        case Trend.DOWN:
            return at(poly, hi), at(poly, lo)
        case Trend.MIXED:
            least, greatest = number(0), number(0)
            for mono, c in poly.terms:
                low, high = _of_term(mono, c, lo, hi, facts)
                least, greatest = least + low, greatest + high
            return least, greatest


def attains_least(poly: Poly, facts: Facts) -> bool:
    """Whether the least value that `extremes` gives is that of some row, of all rows of the tile."""
    if facts.trend(poly) is not Trend.MIXED:
        return True
    moving = [(m, c) for m, c in poly.terms if any("q" in free_vars(f) for f in m)]
    if len(moving) != 1 or len(moving[0][0]) != 1 or moving[0][1] < 0:
        return False
    match moving[0][0][0]:
        case Load():
            return True
        case Apply("min", args):
            return all(attains_least(to_poly(a), facts) for a in args)
        case Apply("floordiv", (a, _)):
            return attains_least(to_poly(a), facts)
        case _:
            return False


def _of_term(mono: Mono, c: int, lo: Expr, hi: Expr, facts: Facts) -> Ends:
    still = [f for f in mono if "q" not in free_vars(f)]
    moving = [_of_factor(f, lo, hi, facts) for f in mono if "q" in free_vars(f)]
    scale = product(still, c)
    if not moving:
        return scale, scale
    if len(moving) == 1 and facts.holds(product(still)):
        low, high = (scale * end for end in moving[0])
        return (low, high) if c > 0 else (high, low)
    corners = [scale]
    for ends in moving:
        corners = [x * end for x in corners for end in ends]
    exprs = [to_expr(x) for x in corners]
    return to_poly(smin(*exprs)), to_poly(smax(*exprs))


def _of_factor(expr: Expr, lo: Expr, hi: Expr, facts: Facts) -> Ends:
    match expr:
        case Var("q"):
            return to_poly(lo), to_poly(hi)
        case Load():
            return factor(RowExtreme("min", expr)), factor(RowExtreme("max", expr))
        case Apply("floordiv", (a, b)):
            low, high = extremes(to_poly(a), lo, hi, facts)
            return floordiv(low, to_poly(b)), floordiv(high, to_poly(b))
        case Apply("min" | "max" as op, (a, b)):
            pick = smin if op == "min" else smax
            ends = zip(extremes(to_poly(a), lo, hi, facts), extremes(to_poly(b), lo, hi, facts), strict=True)
            low, high = (to_poly(pick(to_expr(x), to_expr(y))) for x, y in ends)
            return low, high
        case Apply("abs", (a,)):
            low, high = extremes(to_poly(a), lo, hi, facts)
            least = smax(Const(0), to_expr(low), to_expr(-high))
            return to_poly(least), to_poly(smax(to_expr(-low), to_expr(high)))
        case _:
            raise InternalError("a bound holds an operator that intervals do not know", loc=expr.loc)
