"""Write a cascade over the ranks of its pairs alone: recurrences closed, reductions of tiles flat."""

from __future__ import annotations

from dataclasses import replace

from attngen.algebra.close import close_recurrences
from attngen.algebra.flatten import flatten
from attngen.algebra.fold import Refusal, RuleUse
from attngen.algebra.isolate import isolate
from attngen.algebra.passes import PassCount, count_passes
from attngen.algebra.prune import prune
from attngen.algebra.tiles import tile_ranks
from attngen.lang.domain import extent_name, size_param
from attngen.lang.expr import Param, Reduce, Size, walk
from attngen.lang.program import Program
from attngen.value import value


@value
class Plain:
    """What a cascade is without tiles of its own making.

    program          the same outputs, without recurrences; the program itself where nothing changed or was refused.
    uses             what was rewritten.
    refusals         recurrences that are no reductions.
    passes_written   FuseMax passes over the keys of the cascade as it was, and `tensor_passes` those of each tensor.
    """

    program: Program
    uses: tuple[RuleUse, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    passes_written: int = 0
    tensor_passes: tuple[tuple[str, int], ...] = ()


def plain(program: Program) -> Plain:
    """The linked program without recurrences and reductions of tiles. Raises OutputError as `prune` does."""
    if not may_change(program):
        return Plain(program)
    closed = close_recurrences(program)
    flat = flatten(closed.program)
    uses = (*closed.uses, *flat.uses)
    if not uses and not closed.refusals:
        return Plain(program)
    written = passes_as_written(program)
    passes = tuple(sorted(written.tensor_passes.items()))
    if closed.refusals:
        return Plain(program, (), closed.refusals, written.passes, passes)
    made = _without_unread(prune(replace(program, cascade=flat.program.cascade)))
    return Plain(made, uses, (), written.passes, passes)


def _without_unread(program: Program) -> Program:
    """Without the ranks that nothing ranges over any more, and the parameters that nothing but these read."""
    exprs = [x for e in program.cascade for x in e.exprs]
    exprs += [program.mask] if program.mask is not None else []
    ranks = {r for e in program.cascade for r in e.ranks} | {r for t in program.tensors for r in t.ranks}
    read = set(map(size_param, program.grid))
    for decl in (None, *reversed(program.params)):  # an extent reads those of ranks above it
        if decl is not None and decl.rank and decl.extent is not None and decl.name in ranks:
            exprs.append(decl.extent)
        for node in (n for x in exprs for n in walk(x)):
            match node:
                case Reduce(_, over, _):
                    ranks.update(over)
                case Size(name):
                    ranks.update(p.name for p in program.params if p.rank and extent_name(p.name) == name)
                case Param(name):
                    read.add(name)
                case _:
                    pass
        exprs = []
    params = tuple(p for p in program.params if (p.name in ranks if p.rank else p.name in read))
    return replace(program, params=params)


def passes_as_written(program: Program) -> PassCount:
    """The passes over the keys that a cascade makes as its user wrote it, every reduction by itself."""
    return count_passes(isolate(prune(program)).cascade)


def may_change(program: Program) -> bool:
    """Whether there is a recurrence, or a reduction of a tile of the keys."""
    if any(e.step is not None for e in program.cascade):
        return True
    return any(p.rank for p in program.params) and bool(tile_ranks(program.cascade))
