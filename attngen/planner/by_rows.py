"""A mask that divides keys, as the runs of keys that each row keeps: the division moves from the pairs to the rows.

before   (k - s) // g == (q - s) // g
after    (k >= (q - s) // g * g + s) & (k < (q - s) // g * g + s + g)
"""

from __future__ import annotations

from attngen.lang.expr import Apply, Const, Expr, Var, apply, free_vars, walk
from attngen.planner.plan import TilePlan

_K = Var("k")


def by_rows(mask: Expr | None, plan: TilePlan | None) -> Expr | None:
    """The mask as its plan's runs of a row, where that saves a division of every key; else the mask itself."""
    if mask is None or plan is None or not plan.rows or not divides_keys(mask):
        return mask
    out: Expr | None = None
    for first, end in plan.rows:
        run = apply("lt", _K, end)
        if first != Const(0):
            run = apply("and", apply("ge", _K, first), run)
        out = run if out is None else apply("or", out, run)
    return out


def divides_keys(mask: Expr | None) -> bool:
    """Whether a mask divides keys by a number that only the call knows."""
    return mask is not None and any(
        isinstance(node, Apply)
        and node.op in ("floordiv", "mod")
        and not isinstance(node.args[1], Const)
        and "k" in free_vars(node.args[0])
        for node in walk(mask)
    )
