"""Check that a tile program is one a printer can print: every value is defined before it is read, and in its space."""

from __future__ import annotations

from attngen.emit.tile import AccDot, DotQK, Mask, RowLet, RowReduce, Space, TileLet, TileProgram, TileStep
from attngen.errors import InternalError
from attngen.lang.expr import Expr, Reduce, loads, walk
from attngen.lang.ops import OPS

_WIDER: dict[Space, tuple[Space, ...]] = {
    "uniform": ("uniform",),
    "row": ("uniform", "row"),
    "tile": ("uniform", "row", "tile"),
    "acc": ("uniform", "row", "acc"),
}


def verify_tile(tile: TileProgram, captured: frozenset[str]) -> None:
    """Raise InternalError for the first step that reads what is not there; `captured` are tensor names."""
    scope: dict[str, Space] = {}

    def check(name: str, body: Expr, space: Space) -> None:
        for node in walk(body):
            if isinstance(node, Reduce) or ((op := getattr(node, "op", None)) is not None and op not in OPS):
                raise InternalError(f"{name} is not pointwise: {node!r}")
        for load in loads(body):
            if load.tensor in captured:
                continue
            if scope.get(load.tensor) not in _WIDER[space]:
                raise InternalError(
                    f"{name}, a {space} value, reads {load.tensor} before or beyond its space"
                )

    def step(s: TileStep) -> None:
        match s:
            case DotQK(out):
                scope[out] = "tile"
            case TileLet(out, body):
                check(out, body, "tile")
                scope[out] = "tile"
            case RowLet(out, body):
                check(out, body, "row")
                scope[out] = "row"
            case RowReduce(out, _, source):
                need(source, "tile")
                scope[out] = "row"
            case Mask(out, _):
                need(out, "tile")
            case AccDot(acc, source, rescale):
                need(acc, "acc")
                need(source, "tile")
                if rescale is not None:
                    need(rescale, "row")

    def need(name: str, space: Space) -> None:
        if scope.get(name) != space:
            raise InternalError(f"{name} is read as a {space} value, and is {scope.get(name, 'not defined')}")

    for name, body in tile.uniforms:
        check(name, body, "uniform")
        scope[name] = "uniform"
    for c in tile.carried:
        check(c.name, c.init, "row")
        scope[c.name] = c.space
    for s in tile.steps:
        step(s)
    for f in tile.finish:
        check(f.out, f.body, f.space)
        scope[f.out] = f.space
    for o in tile.outputs:
        need(o.source, o.space)
