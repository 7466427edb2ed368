"""Drop Einsums that no output needs: `LSE = M + log(Z)` costs nothing unless it is asked for."""

from __future__ import annotations

from dataclasses import replace

from attngen.errors import OutputError
from attngen.lang.expr import loads
from attngen.lang.program import Program


def prune(program: Program) -> Program:
    """The same program without the Einsums that `program.outputs` do not reach.

    Raises OutputError for an output that no Einsum writes.
    """
    live = set(program.outputs)
    unknown = live - {e.target for e in program.cascade}
    if unknown:
        names = ", ".join(e.target for e in program.cascade)
        raise OutputError(
            f"no Einsum writes the output {sorted(unknown)[0]}", hint=f"the cascade writes {names}"
        )
    for einsum in reversed(program.cascade):
        if einsum.target in live:
            live.update(ld.tensor for x in einsum.exprs for ld in loads(x))
    return replace(program, cascade=tuple(e for e in program.cascade if e.target in live))
