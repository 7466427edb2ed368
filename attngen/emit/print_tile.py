"""The text form of a tile program, for `explain` and golden files."""

from __future__ import annotations

from typing import assert_never

from attngen.emit.tile import AccDot, DotQK, Mask, RowLet, RowReduce, TileLet, TileProgram, TileStep
from attngen.lang.print import print_expr


def print_tile(tile: TileProgram) -> str:
    """One line a value; the steps of the loop over key tiles are indented."""
    lines = [f"{name} = {print_expr(body)}" for name, body in tile.uniforms]
    lines += [f"{c.name}{_index(c.space)} = {print_expr(c.init)}" for c in tile.carried]
    lines += ["for each key tile:", *(f"    {_step(s)}" for s in tile.steps)]
    lines += [f"{f.out}{_index(f.space)} = {print_expr(f.body)}" for f in tile.finish]
    lines += [f"store {o.name}{_index(o.space)} = {o.source}" for o in tile.outputs]
    return "\n".join(lines)


def _index(space: str) -> str:
    return "[q, e]" if space == "acc" else "[q]"


def _step(step: TileStep) -> str:
    match step:
        case DotQK(out):
            return f"{out}[q, k] = Q . K^T"
        case Mask(out, fill):
            return f"{out}[q, k] = {fill} where the pair is not kept  (partial tiles only)"
        case TileLet(out, body):
            return f"{out}[q, k] = {print_expr(body)}"
        case RowReduce(out, op, source):
            return f"{out}[q] = {op}[k]({source}[q, k])"
        case RowLet(out, body):
            return f"{out}[q] = {print_expr(body)}"
        case AccDot(acc, source, rescale):
            scaled = acc if rescale is None else f"{acc} * {rescale}"
            return f"{acc}[q, e] = {scaled} + {source} . V"
        case _:
            assert_never(step)
