"""Leave out, of a loop without a mask, the guard of a maximum that some key has always reached.

    M_log2 = finite(M_new)      ->      M_log2 = M_new      where M_new = max(M, rowmax(Q . K^T) * scale)

The guard stands for rows that have seen nothing. In a full tile every row sees keys, and a product of the inputs is
-inf only where they overflow; a score that reads a captured tensor may be -inf for every key, and keeps its guard.
"""

from __future__ import annotations

from dataclasses import replace

from attngen.emit.tile import Dot, RowLet, RowReduce, TileLet, TileStep
from attngen.lang.expr import Apply, Expr, Load, rewrite


def without_guards(steps: tuple[TileStep, ...]) -> tuple[TileStep, ...]:
    """The steps of a full tile."""
    reached = _reached(steps)
    if not reached:
        return steps

    def bare(node: Expr) -> Expr | None:
        match node:
            case Apply("finite", (Load(name, _) as value,)) if name in reached:
                return value
            case _:
                return None

    return tuple(
        replace(s, body=rewrite(s.body, bare)) if isinstance(s, RowLet | TileLet) else s for s in steps
    )


def _reached(steps: tuple[TileStep, ...]) -> frozenset[str]:
    """The running maxima of plain products."""
    written = {s.out for s in steps if isinstance(s, TileLet)}
    dots = {s.out for s in steps if isinstance(s, Dot)} - written
    raw = {s.out for s in steps if isinstance(s, RowReduce) and s.op == "max" and s.source in dots}
    found: set[str] = set()
    for step in steps:
        match step:
            case RowLet(out, Apply("mul", (Load(name, _), _))) if name in raw:
                raw.add(out)
            case RowLet(out, Apply("max", (Load(), Load(name, _)))) if name in raw:
                found.add(out)
            case _:
                pass
    return frozenset(found)
