"""The text form of a tile program, for `explain` and golden files."""

from __future__ import annotations

from typing import assert_never

from attngen.emit.tile import (
    AccBins,
    AccDot,
    AccEach,
    AccLet,
    AccTopK,
    Dot,
    Mask,
    Operand,
    RowLet,
    RowReduce,
    StoreBlock,
    StorePair,
    TileLet,
    TileProgram,
    TileReduce,
    TileStep,
)
from attngen.lang.expr import Load
from attngen.lang.print import print_expr


def print_tile(tile: TileProgram) -> str:
    """One line a value; the steps of the loop over key tiles are indented."""
    columns = {c.name: c.feature for c in tile.carried}
    lines = [_operand(o) for o in tile.operands if not _is_input(o)]
    lines += [f"{name} = {print_expr(body)}" for name, body in tile.uniforms]
    lines += [f"{c.name}{_index(c.space, c.feature)} = {print_expr(c.init)}" for c in tile.carried]
    lines += ["for each key tile:", *(f"    {_step(s, columns)}" for s in tile.steps)]
    lines += [f"{f.out}{_index(f.space, f.feature)} = {print_expr(f.body)}" for f in tile.finish]
    lines += [f"store {o.name}{_index(o.space, o.feature)} = {o.source}" for o in tile.outputs]
    return "\n".join(lines)


def _is_input(operand: Operand) -> bool:
    return isinstance(operand.body, Load) and operand.body.tensor == operand.name


def _operand(operand: Operand) -> str:
    return f"{operand.name}[{operand.row}, {operand.feature}] = {print_expr(operand.body)}"


def _index(space: str, feature: str) -> str:
    return {"acc": f"[q, {feature}]", "pair": "[q, k]", "block": f"[q, {feature}]"}.get(space, "[q]")


def _scaled(acc: str, rescale: str | None, combine: str = "mul") -> str:
    return acc if rescale is None else f"{acc} {'*' if combine == 'mul' else '+'} {rescale}"


def _step(step: TileStep, columns: dict[str, str]) -> str:
    match step:
        case Dot(out, left, right):
            return f"{out}[q, k] = {left} . {right}^T"
        case Mask(out, fill):
            return f"{out}[q, k] = {fill} where the pair is not kept  (partial tiles only)"
        case TileLet(out, body):
            return f"{out}[q, k] = {print_expr(body)}"
        case TileReduce(out, op, feature, body):
            return f"{out}[q, k] = {op}[{feature}]({print_expr(body)})"
        case RowReduce(out, op, source):
            return f"{out}[q] = {op}[k]({source}[q, k])"
        case RowLet(out, body):
            return f"{out}[q] = {print_expr(body)}"
        case StorePair(name, source):
            return f"store {name}[q, k] = {source}, where the pair is kept"
        case StoreBlock(name, op, source, width):
            return f"store {name}[q, k // {width}] = {op} of each block of {source}[q, k]"
        case _:
            return _acc_step(step, columns)


def _acc_step(step: AccDot | AccBins | AccTopK | AccEach | AccLet, columns: dict[str, str]) -> str:
    column = columns[step.acc]
    acc = f"{step.acc}[q, {column}]"
    match step:
        case AccDot(name, source, rescale, value):
            return f"{acc} = {_scaled(name, rescale)} + {source} . {value}"
        case AccBins(name, source, rescale, index):
            return f"{acc} = {_scaled(name, rescale)} + sum of {source}[q, k] where {index}[q, k] == {column}"
        case AccTopK(_, index, source):
            return f"{acc}, {index}[q, {column}] = the largest of both and {source}[q, k], with their keys"
        case AccEach(name, op, body, rescale, combine):
            return f"{acc} = {op}({_scaled(name, rescale, combine)}, {op}[k]({print_expr(body)}))"
        case AccLet(_, body):
            return f"{acc} = {print_expr(body)}"
        case _:
            assert_never(step)
