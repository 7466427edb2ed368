"""Whether a mask drops the keys past the end by itself, so that no bound needs to be printed beside it."""

from __future__ import annotations

from attngen.lang.expr import Apply, Expr, Size, Var, free_vars
from attngen.planner.facts import Facts
from attngen.planner.poly import factor, to_poly

_K = Var("k")


def drops_past_end(mask: Expr) -> bool:
    """Whether no pair with `q < n_q` and `k >= n_k` is kept: `k <= q + (n_k - n_q)` says so for every q."""
    match mask:
        case Apply("and", (a, b)):
            return drops_past_end(a) or drops_past_end(b)
        case Apply("or", (a, b)):
            return drops_past_end(a) and drops_past_end(b)
        case Apply("le" | "lt" | "eq" as op, (left, right)) if left == _K:
            return _below_end(right, op)
        case Apply("ge" | "gt" | "eq" as op, (left, right)) if right == _K:
            return _below_end(left, op)
        case _:
            return False


def _below_end(bound: Expr, op: str) -> bool:
    """Whether `k op bound` keeps `k <= n_k - 1` for every row."""
    if "k" in free_vars(bound):
        return False
    last = to_poly(bound) - (1 if op in ("lt", "gt") else 0)
    return Facts({}).holds(factor(Size("n_k")) - 1 - last)
