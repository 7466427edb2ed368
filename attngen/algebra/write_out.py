"""Write features of tokens out where they are read.

    speed[d] = base ** (-d / D);  Kr[k, d] = K[k, d] * cos(k * speed[d]);  S[q, k] = sum[d](Q[q, d] * Kr[k, d])
->
    S[q, k] = sum[d](Q[q, d] * (K[k, d] * cos(k * base ** (-d / D))))

What is pointwise in inputs, and neither a row value nor a value of a pair, is computed where a contraction loads it.
"""

from __future__ import annotations

from dataclasses import replace

from attngen.algebra.canonical import body_at
from attngen.lang.expr import Expr, Load, Reduce, loads, map_children, walk
from attngen.lang.program import Einsum, Program

_KEPT = ((), ("q",), ("q", "k"))


def write_out(program: Program) -> Program:
    """The program without Einsums of token features, but those that are outputs."""
    known = {e.target for e in program.cascade}
    pure: dict[str, Einsum] = {}
    for einsum in program.cascade:
        pointwise = not any(isinstance(n, Reduce) for n in walk(einsum.body))
        reads = {ld.tensor for ld in loads(einsum.body)} & known
        if (
            pointwise
            and reads <= set(pure)
            and einsum.target not in program.outputs
            and einsum.ranks not in _KEPT
        ):
            pure[einsum.target] = einsum

    def written(expr: Expr) -> Expr:
        if isinstance(expr, Load) and expr.tensor in pure:
            return written(body_at(pure[expr.tensor], expr))
        return map_children(expr, written)

    rest = (e for e in program.cascade if e.target not in pure)
    return (
        replace(program, cascade=tuple(replace(e, body=written(e.body)) for e in rest)) if pure else program
    )
