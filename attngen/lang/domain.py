"""The token domain: how the ranks `q` and `k` are laid out, and which extent each rank has.

Today tokens lie on a line and an index has no coordinates. A grid (`tokens = grid(t, y, x)`) will be a
`Domain` with axes, whose coordinates a program reads as `q.y` and `k.x`; whatever asks a program for its
layout goes through `domain_of`, so that a grid has one place to enter.
"""

from __future__ import annotations

from attngen.lang.program import Program
from attngen.value import value

# The extent of each rank that every program knows; a rank of the user's own gets its extent from the tensors.
EXTENTS: dict[str, str] = {"b": "n_b", "h": "n_h", "q": "n_q", "k": "n_k", "d": "D", "e": "E"}

# Ranks a mask or a score may use; each pair (q, k) of each head of each batch entry has one value.
PAIR_RANKS: tuple[str, ...] = ("b", "h", "q", "k")

# Ranks that are implicit in `Q[q, d]` and in every Einsum's result.
IMPLICIT_RANKS: tuple[str, ...] = ("b", "h")


@value
class Domain:
    """The layout of the token axis: the names of its coordinates, slowest first; none on a line."""

    axes: tuple[str, ...] = ()

    def has_axis(self, axis: str) -> bool:
        """Whether a token has a coordinate of that name."""
        return axis in self.axes


LINE = Domain()


def domain_of(program: Program) -> Domain:
    """The layout of a program's tokens."""
    del program  # a program cannot say anything but a line yet
    return LINE
