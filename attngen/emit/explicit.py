"""Give every read of an input its batch entry and head.

    Q[q, d]  ->  Q[b, h, q, d]          K[k, d]  ->  K[b, g, k, d]          V[k, e]  ->  V[b, g, k, e]

`g` is the key head that the query head `h` shares. From here on inputs and captured tensors are read alike.
"""

from __future__ import annotations

from attngen.lang.expr import Expr, Load, Var, rewrite
from attngen.lang.program import INPUT_RANKS

_LEAD: dict[str, tuple[Expr, ...]] = {
    "Q": (Var("b"), Var("h")),
    "K": (Var("b"), Var("g")),
    "V": (Var("b"), Var("g")),
}


def explicit(expr: Expr) -> Expr:
    """`expr` with four indices at every input; one that has them stays."""

    def lead(node: Expr) -> Expr | None:
        if isinstance(node, Load) and node.tensor in INPUT_RANKS and len(node.indices) == 2:
            return Load(node.tensor, (*_LEAD[node.tensor], *node.indices), loc=node.loc)
        return None

    return rewrite(expr, lead)
