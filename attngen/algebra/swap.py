"""Exchange the roles of queries and keys in a program: a fold over the queries becomes one over the keys.

    C[k] = sum[q](exp(sum[d](Q[q, d] * K[k, d]) * scale - L[b, h, q]))
->
    C[q] = sum[k](exp(sum[d](Q[k, d] * K[q, d]) * scale - L[b, h, k]))

Names stay: in the exchanged program the rows `q` are the call's keys, and `K` is read at them. The mask is exchanged
with the rest, so that the same planner finds the tiles.
"""

from __future__ import annotations

from dataclasses import replace

from attngen.lang.expr import Expr, Reduce, Size, Var, rewrite
from attngen.lang.program import Program

_RANK = {"q": "k", "k": "q"}
_SIZE = {"n_q": "n_k", "n_k": "n_q"}


def swapped(program: Program) -> Program:
    """The program with `q` and `k` exchanged everywhere; doing it twice gives the program back."""
    return replace(
        program,
        mask=None if program.mask is None else swapped_expr(program.mask),
        cascade=tuple(
            replace(e, ranks=tuple(_RANK.get(r, r) for r in e.ranks), body=swapped_expr(e.body))
            for e in program.cascade
        ),
    )


def swapped_expr(expr: Expr) -> Expr:
    """The expression with `q` and `k` exchanged."""

    def exchange(node: Expr) -> Expr | None:
        match node:
            case Var(name, axis) if name in _RANK:
                return Var(_RANK[name], axis, loc=node.loc)
            case Size(name) if name in _SIZE:
                return Size(_SIZE[name], loc=node.loc)
            case Reduce(_, ranks, _):
                new = tuple(_RANK.get(r, r) for r in ranks)
                return replace(node, ranks=new) if new != ranks else None
            case _:
                return None

    return rewrite(expr, exchange)
