"""Bounds on a program as a whole: what later stages would take for ever, or all memory, over is refused here.

They are far above any program that a person writes. Values of pairs are written out where they are read, in any pass
that needs them, so what counts is how large they are then:

    Y1[q, k] = Y0[q, k] + Y0[q, k]
    Y2[q, k] = Y1[q, k] + Y1[q, k]          4 reads of Y0, and 2**n of them after n lines
"""

from __future__ import annotations

from collections.abc import Iterable

from attngen.errors import ProgramSyntaxError
from attngen.lang.expr import Expr, Load, children
from attngen.lang.loc import Loc
from attngen.lang.program import Program
from attngen.lang.words import MAX_NODES

MAX_EINSUMS = 256
MAX_DECLARATIONS = 1024  # parameters and tensors
MAX_RANKS = 16  # of the program's own, and of any one tensor
MAX_AXES = 8  # of a grid
MAX_NAME = 200  # characters
# Nodes of all expressions together, values of pairs written out.
MAX_TOTAL_NODES = 100_000


def verify_limits(program: Program) -> None:
    """Raise ProgramSyntaxError for a program that is too large, or whose name would not stay on its line."""
    if not program.name.isprintable() or not 0 < len(program.name) <= MAX_NAME:
        shown = ascii(program.name[:40])
        raise ProgramSyntaxError(
            f"{shown} cannot name a program", hint=f"names are printable, of at most {MAX_NAME} characters"
        )
    counts = (
        (len(program.cascade), MAX_EINSUMS, "Einsums", next((e.loc for e in program.cascade[MAX_EINSUMS:]), None)),
        (len(program.params) + len(program.tensors), MAX_DECLARATIONS, "parameters and tensors", None),
        (len(program.own_ranks), MAX_RANKS, "ranks of its own", None),
        (len(program.grid), MAX_AXES, "axes of tokens", None),
    )  # fmt: skip
    for count, most, what, loc in counts:
        if count > most:
            raise ProgramSyntaxError(f"the program has {count} {what}; at most {most} are read", loc=loc)
    for decl in (*program.tensors, *program.cascade):
        if len(decl.ranks) > MAX_RANKS:
            raise ProgramSyntaxError(f"{len(decl.ranks)} ranks are more than {MAX_RANKS}", loc=decl.loc)
    _verify_growth(program)


def verify_length(name: str, loc: Loc | None) -> None:
    """Raise ProgramSyntaxError for a name longer than compilers and file systems like."""
    if len(name) > MAX_NAME:
        raise ProgramSyntaxError(f"the name `{name[:20]}...` has more than {MAX_NAME} characters", loc=loc)


def _verify_growth(program: Program) -> None:
    written_out: dict[str, int] = {}
    total = sum(_nodes((e,), written_out) for e in (program.mask, program.score) if e is not None)
    for einsum in program.cascade:
        nodes = _nodes(einsum.exprs, written_out)
        total += nodes
        if nodes > MAX_NODES or total > MAX_TOTAL_NODES:
            most = MAX_NODES if nodes > MAX_NODES else MAX_TOTAL_NODES
            what = f"`{einsum.target}`" if nodes > MAX_NODES else "the cascade"
            raise ProgramSyntaxError(
                f"{what}, with the values that it reads written out, has more than {most} parts",
                loc=einsum.loc,
                hint="read a value of pairs once, or reduce it to a row first",
            )
        if not set(einsum.ranks) <= {"q", "b", "h", "g"}:
            written_out[einsum.target] = nodes


def _nodes(exprs: Iterable[Expr], written_out: dict[str, int]) -> int:
    """Nodes of expressions, each read of a name counting as many as stand for it; without recursion."""
    count = 0
    stack = list(exprs)
    while stack:
        node = stack.pop()
        count += written_out.get(node.tensor, 1) if isinstance(node, Load) else 1
        stack.extend(children(node))
    return count
