"""Which values differ between the heads of a batch entry: those that do not are computed and returned once."""

from __future__ import annotations

from collections.abc import Collection

from attngen.lang.domain import IMPLICIT_RANKS, is_masked
from attngen.lang.expr import Expr, Load, Reduce, Var, children
from attngen.lang.program import INPUT_RANKS, Einsum, Program


def varying_heads(program: Program) -> dict[str, bool]:
    """For every Einsum of a linked program, whether its value differs between heads: reads `h`, or what does."""
    heads = HeadVariation(program)
    for einsum in program.cascade:
        heads.add(einsum)
    return heads.known


class HeadVariation:
    """Whether expressions vary with the head, told Einsum by Einsum in order.

    A value varies that reads `h` or `g`, an input, or an Einsum that varies; a reduction over `h` does not. A masked
    reduction also varies where the mask does.
    """

    def __init__(self, program: Program) -> None:
        self.known: dict[str, bool] = {}
        self.mask = False
        self.mask = program.mask is not None and self.varies(program.mask, ())

    def add(self, einsum: Einsum) -> None:
        """Take in the next Einsum."""
        # A recurrence varies where its start or its body does; along the keys, also where the mask does.
        masked = self.mask and einsum.step == "k"
        self.known[einsum.target] = masked or any(self.varies(x, einsum.ranks) for x in einsum.exprs)

    def varies(self, expr: Expr, bound: Collection[str]) -> bool:
        """Whether `expr` differs between heads, where the ranks `bound` are those around it."""
        match expr:
            case Var(name, _):
                return name in IMPLICIT_RANKS and name != "b"
            case Reduce(_, ranks, body, at):
                if at is not None and self.varies(at, bound):
                    return True
                if "h" in ranks:
                    return False
                masked = self.mask and is_masked(ranks, bound)
                return masked or self.varies(body, {*bound, *ranks})
            case Load(name, _) if name in INPUT_RANKS or self.known.get(name, False):
                return True
            case _:
                return any(self.varies(child, bound) for child in children(expr))
