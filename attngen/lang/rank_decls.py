"""Ranks that a program declares, `j: rank = (n_k + 63) // 64`: the checks of their extents."""

from __future__ import annotations

from collections.abc import Sequence

from attngen.errors import ProgramTypeError, RankError
from attngen.lang.domain import extent_name
from attngen.lang.expr import Apply, Const, Expr, Param, Size, Var, walk
from attngen.lang.kinds import kind_of, kinds_of
from attngen.lang.ops import Kind
from attngen.lang.program import IMPLICIT_PARAMS, ParamDecl, Program
from attngen.lang.scope import Scope


def verify_rank_decls(program: Program, scope: Scope) -> None:
    """Each extent is an integer expression of sizes and parameters. Raises RankError, ProgramTypeError and others."""
    later = [p.name for p in program.params if p.rank]
    for param in program.params:
        if not param.rank:
            continue
        if param.extent is not None:
            _verify_extent(program, scope, param, param.extent, later)
        later.remove(param.name)


def _verify_extent(
    program: Program, scope: Scope, decl: ParamDecl, extent: Expr, later: Sequence[str]
) -> None:
    for node in walk(extent):
        match node:
            case Size(name) if name in map(extent_name, later):
                raise RankError(
                    f"the extent of `{decl.name}` reads `{name}` before it is known",
                    loc=node.loc,
                    hint="declare that rank above this one",
                )
            case Size(name):
                scope.verify_size(name, node.loc)
            case Const() | Apply():
                pass
            case Param(name) if name not in IMPLICIT_PARAMS and program.param(name) is not None:
                pass
            case Var(name):
                raise RankError(
                    f"the extent of `{decl.name}` reads the rank `{name}`",
                    loc=node.loc,
                    hint=f"its extent is `{extent_name(name)}`",
                )
            case _:
                raise RankError(
                    f"the extent of `{decl.name}` is a number of sizes and parameters only",
                    loc=node.loc,
                    hint=f"write {decl.name}: rank = (n_k + 63) // 64",
                )
    kind = kind_of(extent, kinds_of(program))
    if kind is not Kind.INT:
        raise ProgramTypeError(f"an extent must be an integer, not {kind}", loc=extent.loc, hint="use //")
