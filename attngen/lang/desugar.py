"""Remove the sugar of the text form, so that every later stage knows the operators of `ops.OPS` only.

pos(x)           ->  x + (n_k - n_q)
clip(x, lo, hi)  ->  min(max(x, lo), hi)
"""

from __future__ import annotations

from dataclasses import replace

from attngen.lang.expr import Apply, Expr, Size, apply, rewrite
from attngen.lang.program import Program


def desugar(program: Program) -> Program:
    """The same program without `pos` and `clip`, in its extents, mask, score and Einsums."""
    return replace(
        program,
        params=tuple(
            p if p.extent is None else replace(p, extent=desugar_expr(p.extent)) for p in program.params
        ),
        mask=None if program.mask is None else desugar_expr(program.mask),
        score=None if program.score is None else desugar_expr(program.score),
        cascade=tuple(e.mapped(desugar_expr) for e in program.cascade),
    )


def desugar_expr(expr: Expr) -> Expr:
    """The same expression without sugar; the same object where there is none."""
    return rewrite(expr, _expand)


def _expand(node: Expr) -> Expr | None:
    match node:
        case Apply("pos", (x,)):
            return apply("add", x, apply("sub", Size("n_k"), Size("n_q"), loc=node.loc), loc=node.loc)
        case Apply("clip", (x, low, high)):
            return apply("min", apply("max", x, low, loc=node.loc), high, loc=node.loc)
        case _:
            return None
