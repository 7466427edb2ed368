"""Expressions and programs as JSON, so that a warm process reads what an earlier one parsed and linked.

The round trip is exact, the kind of every literal included. Of source locations those of declarations are kept:
they are what an error at a call points to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attngen.errors import CacheError
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Reduce, Size, Var
from attngen.lang.loc import Loc
from attngen.lang.ops import Kind
from attngen.lang.program import Einsum, ParamDecl, Program, TensorDecl


def expr_to_json(expr: Expr) -> list[Any]:
    """A node as `[tag, ...fields]`."""
    match expr:
        case Const(value):
            return ["const", type(value).__name__, repr(value)]
        case Var(name, axis):
            return ["var", name, axis]
        case Size(name):
            return ["size", name]
        case Param(name):
            return ["param", name]
        case Load(tensor, indices):
            return ["load", tensor, [expr_to_json(i) for i in indices]]
        case Apply(op, args):
            return ["apply", op, [expr_to_json(a) for a in args]]
        case Reduce(op, ranks, body, at):
            slot = [] if at is None else [expr_to_json(at)]
            return ["reduce", op, list(ranks), expr_to_json(body), *slot]
        case _:
            raise TypeError(f"no JSON form for {type(expr).__name__}")


def expr_from_json(data: list[Any]) -> Expr:
    """The node that `expr_to_json` wrote. Raises CacheError for anything else."""
    match data:
        case ["const", "bool", text]:
            return Const(text == "True")
        case ["const", "int", text]:
            return Const(int(text))
        case ["const", "float", text]:
            return Const(float(text))
        case ["var", name, axis]:
            return Var(name, axis)
        case ["size", name]:
            return Size(name)
        case ["param", name]:
            return Param(name)
        case ["load", tensor, indices]:
            return Load(tensor, tuple(expr_from_json(i) for i in indices))
        case ["apply", op, args]:
            return Apply(op, tuple(expr_from_json(a) for a in args))
        case ["reduce", op, ranks, body, *slot]:
            return Reduce(op, tuple(ranks), expr_from_json(body), *(expr_from_json(at) for at in slot))
        case _:
            raise CacheError(f"not an expression: {data!r}")


def program_to_json(program: Program) -> dict[str, Any]:
    """A linked program as a JSON object."""
    if not program.linked:
        raise ValueError("only linked programs are stored")
    return {
        "name": program.name,
        "doc": program.doc,
        "params": [_param_to_json(p) for p in program.params],
        "tensors": [[t.name, list(t.ranks), str(t.kind), _loc_to_json(t.loc)] for t in program.tensors],
        "mask": None if program.mask is None else expr_to_json(program.mask),
        "cascade": [_einsum_to_json(e) for e in program.cascade],
        "outputs": list(program.outputs),
        "grid": list(program.grid),
    }


def program_from_json(data: Mapping[str, Any]) -> Program:
    """The program that `program_to_json` wrote. Raises CacheError where `data` is something else."""
    try:
        return Program(
            name=data["name"],
            doc=data["doc"],
            params=tuple(_param_from_json(*fields) for fields in data["params"]),
            tensors=tuple(
                TensorDecl(name, tuple(ranks), Kind(kind), _loc_from_json(loc))
                for name, ranks, kind, loc in data["tensors"]
            ),
            mask=None if data["mask"] is None else expr_from_json(data["mask"]),
            cascade=tuple(_einsum_from_json(*fields) for fields in data["cascade"]),
            outputs=tuple(data["outputs"]),
            grid=tuple(data["grid"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise CacheError(f"not a program: {error}") from error


def _einsum_to_json(einsum: Einsum) -> list[Any]:
    start = [] if einsum.start is None else [einsum.step, expr_to_json(einsum.start)]
    return [einsum.target, list(einsum.ranks), expr_to_json(einsum.body), *start]


def _einsum_from_json(
    target: str, ranks: list[str], body: list[Any], step: str | None = None, start: list[Any] | None = None
) -> Einsum:
    begin = None if start is None else expr_from_json(start)
    return Einsum(target, tuple(ranks), expr_from_json(body), step=step, start=begin)


def _param_to_json(param: ParamDecl) -> list[Any]:
    extent = None if param.extent is None else expr_to_json(param.extent)
    return [
        param.name,
        str(param.kind),
        param.default,
        param.const,
        param.rank,
        extent,
        _loc_to_json(param.loc),
    ]


def _param_from_json(
    name: str,
    kind: str,
    default: float | bool | None,
    const: bool,
    rank: bool,
    extent: list[Any] | None,
    loc: list[Any] | None,
) -> ParamDecl:
    worked_out = None if extent is None else expr_from_json(extent)
    return ParamDecl(name, Kind(kind), default, const, rank, worked_out, _loc_from_json(loc))


def _loc_to_json(loc: Loc | None) -> list[Any] | None:
    return None if loc is None else [loc.file, loc.line, loc.col, loc.end_col, loc.text]


def _loc_from_json(data: list[Any] | None) -> Loc | None:
    return None if data is None else Loc(*data)
