"""Small integer expressions, simplified as they are built, so that a plan holds no operation it does not need."""

from __future__ import annotations

from math import gcd

from attngen.lang.expr import Const, Expr, apply
from attngen.planner.facts import Facts
from attngen.planner.poly import Poly, make_poly, to_expr, to_poly

ZERO = Const(0)
TRUE = Const(True)


def smin(*args: Expr, facts: Facts | None = None) -> Expr:
    """The least of the arguments; one that is certainly no less than another is left out.

    Without `facts` only arguments that differ by a constant are compared.
    """
    return _extreme("min", args, facts)


def smax(*args: Expr, facts: Facts | None = None) -> Expr:
    """The greatest of the arguments; the counterpart of `smin`."""
    return _extreme("max", args, facts)


def _extreme(op: str, args: tuple[Expr, ...], facts: Facts | None) -> Expr:
    sign = 1 if op == "max" else -1
    kept: list[tuple[Expr, Poly]] = []
    for arg in dict.fromkeys(args):
        poly = to_poly(arg) * sign
        if any(_at_least(other, poly, facts) for _, other in kept):
            continue
        kept = [(e, other) for e, other in kept if not _at_least(poly, other, facts)]
        kept.append((arg, poly))
    out = kept[0][0]
    for arg, _ in kept[1:]:
        out = apply(op, out, arg)
    return out


def _at_least(a: Poly, b: Poly, facts: Facts | None) -> bool:
    if facts is not None:
        return facts.holds(a - b)
    return a.moving == b.moving and a.constant >= b.constant


def floor_tiles(keys: Expr, block: Expr) -> Expr:
    """`keys // block`: the key tiles that lie wholly before key number `keys`."""
    return ZERO if keys == ZERO else apply("floordiv", keys, block)


def ceil_tiles(keys: Expr, block: Expr) -> Expr:
    """`(keys + block - 1) // block`: the key tiles that have a key before key number `keys`."""
    if keys == ZERO:
        return ZERO
    base = to_poly(keys)
    left = base.constant - 1
    rounded = apply("add", to_expr(base - base.constant), block)
    if left:
        rounded = apply("add" if left > 0 else "sub", rounded, Const(abs(left)))
    return apply("floordiv", rounded, block)


def at_least_zero(poly: Poly) -> Expr:
    """The condition `poly >= 0`, as `a >= b` without common factors or subtractions."""
    terms = [(m, c) for m, c in poly.terms if m]
    common = gcd(*(c for _, c in terms)) or 1
    more = make_poly({m: c // common for m, c in terms if c > 0})
    less = make_poly({m: -c // common for m, c in terms if c < 0})
    constant = poly.constant // common  # x + c/g >= 0 for integers x means x >= -floor(c / g)
    if constant > 0:
        more = more + constant
    else:
        less = less - constant
    return apply("ge", to_expr(more), to_expr(less))


def choose(condition: Expr, a: Expr, b: Expr) -> Expr:
    """`where(condition, a, b)`, decided at once where the condition is a literal."""
    if isinstance(condition, Const):
        return a if condition.value else b
    return a if a == b else apply("where", condition, a, b)


def conjunction(*conditions: Expr) -> Expr:
    """All of the conditions; the literal true if there are none."""
    kept = [c for c in dict.fromkeys(conditions) if c != TRUE]
    out = kept[0] if kept else TRUE
    for c in kept[1:]:
        out = apply("and", out, c)
    return out
