"""Small integer expressions, simplified as they are built, so that a plan holds no operation it does not need."""

from __future__ import annotations

from attngen.lang.expr import Apply, Const, Expr, apply
from attngen.planner.poly import number, to_expr, to_poly

ZERO = Const(0)
TRUE = Const(True)


def smin(*args: Expr) -> Expr:
    """The least of the arguments; of two that differ by a constant only the smaller stays."""
    return _extreme("min", args)


def smax(*args: Expr) -> Expr:
    """The greatest of the arguments; of two that differ by a constant only the greater stays."""
    return _extreme("max", args)


def _extreme(op: str, args: tuple[Expr, ...]) -> Expr:
    sign = 1 if op == "max" else -1
    kept: list[Expr] = []
    for arg in args:
        ahead = [(other, (to_poly(arg) - to_poly(other)).value) for other in kept]
        if any(d is not None and d * sign <= 0 for _, d in ahead):
            continue
        kept = [other for other, d in ahead if d is None]
        kept.append(arg)
    out = kept[0]
    for arg in kept[1:]:
        out = apply(op, out, arg)
    return out


def plus(a: Expr, n: int) -> Expr:
    """`a + n`, moved inside a minimum or maximum so that bounds stay readable."""
    if isinstance(a, Apply) and a.op in ("min", "max"):
        return Apply(a.op, tuple(plus(x, n) for x in a.args))
    return to_expr(to_poly(a) + n)


def floor_tiles(keys: Expr, block: Expr) -> Expr:
    """`keys // block`: the key tiles that lie wholly before key number `keys`."""
    return ZERO if keys == ZERO else apply("floordiv", keys, block)


def ceil_tiles(keys: Expr, block: Expr) -> Expr:
    """`(keys + block - 1) // block`: the key tiles that have a key before key number `keys`."""
    if keys == ZERO:
        return ZERO
    return apply("floordiv", to_expr(to_poly(keys) + to_poly(block) - number(1)), block)


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
