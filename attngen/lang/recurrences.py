"""Recurrences, `RM[q, m + 1] = max(RM[q, m], LM[q, m])`: what may be one, and how others read it."""

from __future__ import annotations

from attngen.errors import RankError
from attngen.lang.domain import extent_name
from attngen.lang.expr import Const, Expr, Load, Reduce, Size, Var, apply, loads, walk
from attngen.lang.program import Einsum, Program


def last(einsum: Einsum) -> Expr:
    """The index of the last value of a recurrence: the extent of the rank it goes along."""
    assert einsum.step is not None
    return Size(extent_name(einsum.step))


def following(rank: str) -> Expr:
    """The index `m + 1` that a step writes."""
    return apply("add", Var(rank), Const(1))


def verify_recurrence(einsum: Einsum, program: Program) -> None:
    """It goes along the keys or a rank of the program's own, and reads itself one step back. Raises RankError."""
    rank, name = einsum.step, einsum.target
    assert rank is not None
    if rank != "k" and rank not in program.own_ranks:
        raise RankError(
            f"`{name}` is carried along `{rank}`",
            loc=einsum.loc,
            hint="a recurrence goes along the keys `k`, or a rank declared as `m: rank = ...`",
        )
    own = tuple(map(Var, einsum.ranks))
    reads = [ld for ld in loads(einsum.body) if ld.tensor == name]
    for load in reads:
        if load.indices != own:
            indices = ", ".join(einsum.ranks)
            raise RankError(
                f"a step of `{name}` reads the value before it only", loc=load.loc, hint=f"{name}[{indices}]"
            )
    if not reads:
        raise RankError(
            f"no step of `{name}` reads the value before it",
            loc=einsum.loc,
            hint=f"an Einsum that carries nothing is written {name}[{', '.join(einsum.ranks)}] = ...",
        )
    for node in walk(einsum.start) if einsum.start is not None else ():
        if isinstance(node, Reduce) or (isinstance(node, Load) and node.tensor == name):
            raise RankError(f"the start of `{name}` is a value, without reductions", loc=node.loc)
