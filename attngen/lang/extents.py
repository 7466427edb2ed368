"""The extents of the ranks of a program's own: given, declared, worked out, or those of the tensors that have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from attngen.errors import ParameterError, ShapeError
from attngen.lang.domain import extent_name
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr, Param, Reduce, Size, walk
from attngen.lang.program import ParamDecl, Program

_LARGEST = 2**31 - 1


@lru_cache(maxsize=256)
def used_ranks(program: Program) -> tuple[str, ...]:
    """The ranks of the program's own that it declares, computes over or names the extent of, in order."""
    used = {p.name for p in program.params if p.rank}
    used |= {r for e in program.cascade for r in e.ranks}
    sizes: set[str] = set()
    exprs = [x for e in program.cascade for x in e.exprs] + [
        p.extent for p in program.params if p.extent is not None
    ]
    exprs += [e for e in (program.mask, program.score) if e is not None]
    for node in (n for expr in exprs for n in walk(expr)):
        match node:
            case Reduce(_, ranks, _):
                used.update(ranks)
            case Size(name):
                sizes.add(name)
            case _:
                pass
    return tuple(r for r in program.own_ranks if r in used or extent_name(r) in sizes)


def rank_extents(
    program: Program,
    sizes: Mapping[str, int],
    shapes: Mapping[str, Sequence[int]],
    params: Mapping[str, int | float | bool],
) -> dict[str, int]:
    """The extent of each of the program's own ranks that it uses.

    `sizes` are the extents that every program knows (`n_q`, `D`, ...), `shapes` those of captured tensors, `params`
    what was given. A rank has the extent given, or its default, or that of the tensors that have it, which agree.
    Raises ShapeError where they do not, ParameterError for a declared extent that is missing or out of range.
    """
    known = dict(sizes)
    found: dict[str, int] = {}
    for rank in used_ranks(program):
        decl = program.param(rank)
        if decl is None:
            found[rank] = known[extent_name(rank)] = _agreed(program, rank, shapes, None)
    for decl in program.params:
        if decl.rank:
            extent = _declared(decl, known, params)
            found[decl.name] = known[extent_name(decl.name)] = extent
            _agreed(program, decl.name, shapes, extent)
    return {rank: found[rank] for rank in used_ranks(program)}


def _agreed(program: Program, rank: str, shapes: Mapping[str, Sequence[int]], extent: int | None) -> int:
    """The extent that every tensor with this rank has."""
    source = f"the rank `{rank}` is declared"
    for tensor in program.tensors:
        if rank not in tensor.ranks or tensor.name not in shapes:
            continue
        length = shapes[tensor.name][tensor.ranks.index(rank)]
        if extent is not None and length != extent:
            axis = tensor.ranks.index(rank)
            raise ShapeError(
                f"axis {axis} of {tensor.name} is the rank `{rank}` and has {length} entries, "
                f"but {source} has {extent}",
                loc=tensor.loc,
            )
        if extent is None:
            extent, source = length, f"that of {tensor.name}"
    if extent is None:
        raise ShapeError(f"no tensor tells the extent of the rank `{rank}`")
    return extent


def _declared(decl: ParamDecl, known: Mapping[str, int], params: Mapping[str, int | float | bool]) -> int:
    given = params.get(decl.name, decl.default)
    if given is None and decl.extent is not None:
        given = _worked_out(decl.extent, known, params)
    if given is None:
        raise ParameterError(
            f"the rank `{decl.name}` has no extent",
            loc=decl.loc,
            hint=f"pass {decl.name}=<int>, or declare one: {decl.name}: rank = 16",
        )
    if not 0 <= given <= _LARGEST:
        raise ParameterError(f"the rank `{decl.name}` cannot have {given} entries", loc=decl.loc)
    return int(given)


def _worked_out(extent: Expr, known: Mapping[str, int], params: Mapping[str, int | float | bool]) -> int:
    from attngen.lang.desugar import desugar_expr
    from attngen.lang.numpy_ops import NUMPY_OPS  # numpy takes its time to import, and few programs need it

    def leaf(node: Expr) -> int | float | bool:
        match node:
            case Const(value):
                return value
            case Size(name):
                return known[name]
            case Param(name):
                return params[name]
            case _:
                raise AssertionError(node)

    return int(evaluate(desugar_expr(extent), leaf, NUMPY_OPS))
