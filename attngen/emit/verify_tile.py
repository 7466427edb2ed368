"""Check that a tile program is one a printer can print: every value is defined before it is read, and in its space."""

from __future__ import annotations

from collections.abc import Iterator

from attngen.emit.tile import (
    AccBins,
    AccDot,
    AccEach,
    AccLet,
    AccTopK,
    Dot,
    Mask,
    RowLet,
    RowReduce,
    Space,
    StoreBlock,
    StorePair,
    TileLet,
    TileProgram,
    TileReduce,
    TileStep,
)
from attngen.errors import InternalError
from attngen.lang.expr import Expr, Reduce, loads, walk
from attngen.lang.ops import OPS

_ROW: Space = "row"
_TILE: Space = "tile"
_ACC: Space = "acc"
_WIDER: dict[Space, tuple[Space, ...]] = {
    "uniform": ("uniform",),
    "row": ("uniform", "row"),
    "tile": ("uniform", "row", "tile"),
    "acc": ("uniform", "row", "acc"),
}


def verify_tile(tile: TileProgram, captured: frozenset[str]) -> None:
    """Raise InternalError for the first step that reads what is not there; `captured` are tensor names."""
    scope = _Scope(captured | {"Q", "K", "V"})
    for operand in tile.operands:
        scope.check(operand.name, operand.body, "uniform")
    for name, body in tile.uniforms:
        scope.check(name, body, "uniform")
        scope.known[name] = "uniform"
    for carried in tile.carried:
        scope.check(carried.name, carried.init, "row")
        scope.known[carried.name] = carried.space
    for step in tile.steps:
        _verify_operands(step, tile)
        for name, space in _names_read(step):
            scope.need(name, space)
        for name, body, space in _bodies(step):
            scope.check(name, body, space)
        made = _made(step)
        if made is not None:
            scope.known[made[0]] = made[1]
    for let in tile.finish:
        scope.check(let.out, let.body, let.space)
        scope.known[let.out] = let.space
    for out in tile.outputs:
        if out.space in ("row", "acc"):
            scope.need(out.source, out.space)


class _Scope:
    """The values defined so far, and what each is."""

    def __init__(self, captured: frozenset[str]) -> None:
        self.captured = captured
        self.known: dict[str, Space] = {}

    def check(self, name: str, body: Expr, space: Space) -> None:
        """`body`, the value of `name`, is pointwise and reads what its space may see."""
        for node in walk(body):
            if isinstance(node, Reduce) or ((op := getattr(node, "op", None)) is not None and op not in OPS):
                raise InternalError(f"{name} is not pointwise: {node!r}")
        for load in loads(body):
            if load.tensor not in self.captured and self.known.get(load.tensor) not in _WIDER[space]:
                raise InternalError(
                    f"{name}, a {space} value, reads {load.tensor} before or beyond its space"
                )

    def need(self, name: str, space: Space) -> None:
        """`name` is a value of exactly this space."""
        found = self.known.get(name)
        if found != space:
            raise InternalError(f"{name} is read as a {space} value, and is {found or 'not defined'}")


def _verify_operands(step: TileStep, tile: TileProgram) -> None:
    match step:
        case Dot(out, left, right):
            rows = [tile.operand(name).row for name in (left, right)]
            if rows != ["q", "k"]:
                raise InternalError(f"{out} contracts rows of {' and '.join(rows)}")
        case AccDot(acc, _, _, value):
            if tile.operand(value).row != "k":
                raise InternalError(f"{acc} accumulates rows of queries")
        case _:
            pass


def _names_read(step: TileStep) -> list[tuple[str, Space]]:
    """Values a step names, outside of expressions."""
    out: list[tuple[str, Space]] = []
    match step:
        case AccDot(acc, source, rescale, _) | AccBins(acc, source, rescale, _):
            out.append((acc, _ACC))
            out.append((source, _TILE))
            if rescale is not None:
                out.append((rescale, _ROW))
            if isinstance(step, AccBins):
                out.append((step.bin, _TILE))
        case AccEach(acc, _, _, rescale):
            out.append((acc, _ACC))
            if rescale is not None:
                out.append((rescale, _ROW))
        case AccTopK(acc, index, source):
            out.append((acc, _ACC))
            out.append((index, _ACC))
            out.append((source, _TILE))
        case AccLet(acc, _):
            out.append((acc, _ACC))
        case RowReduce(_, _, source) | StorePair(_, source) | StoreBlock(_, _, source, _):
            out.append((source, _TILE))
        case Mask(name, _):
            out.append((name, _TILE))
        case _:
            pass
    return out


def _bodies(step: TileStep) -> Iterator[tuple[str, Expr, Space]]:
    match step:
        case TileLet(out, body) | TileReduce(out, _, _, body):
            yield out, body, "tile"
        case RowLet(out, body):
            yield out, body, "row"
        case AccEach(acc, _, body, _):
            yield acc, body, "tile"
        case AccLet(acc, body):
            yield acc, body, "acc"
        case _:
            pass


def _made(step: TileStep) -> tuple[str, Space] | None:
    match step:
        case Dot(out, _, _) | TileLet(out, _) | TileReduce(out, _, _, _):
            return out, "tile"
        case RowLet(out, _) | RowReduce(out, _, _):
            return out, "row"
        case _:
            return None
