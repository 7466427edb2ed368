"""Reduce blocks of tokens between sweeps: `B[i, j] = max[q](where(q // 64 == i, R[q, j], rest[q]))`.

As written the condition is a matrix of tokens and blocks; here the tokens of a block are an axis of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from attngen.backends.torch_ops import REDUCE
from attngen.lang.expr import Apply, Const, Expr, Param, Reduce, Var, free_vars
from attngen.lang.ops import REDUCERS
from attngen.lang.program import Einsum

Tensor = torch.Tensor

BLOCK_OPS = ("sum", "prod", "max", "min")


@dataclass(frozen=True, slots=True)
class Blocks:
    """`op over token of (inside where token // width == column, else outside)`."""

    op: str
    token: str
    column: str
    width: Const | Param
    inside: Expr
    outside: Expr


def blocks_of(einsum: Einsum) -> Blocks | None:
    """The parts of an Einsum that reduces blocks of one token rank; None for any other."""
    match einsum.body:
        case Reduce(op, (token,), Apply("where", (Apply("eq", (a, b)), inside, outside)), None):
            for index, column in ((a, b), (b, a)):
                match index, column:
                    case Apply("floordiv", (Var(t, None), (Const() | Param()) as width)), Var(name, None):
                        varies = free_vars(inside) | free_vars(outside)
                        if t == token in ("q", "k") and name in einsum.ranks and name not in varies:
                            return Blocks(op, token, name, width, inside, outside)
                    case _:
                        pass
        case _:
            pass
    return None


def reduce_blocks(blocks: Blocks, width: int, count: int, inside: Tensor, outside: Tensor | None) -> Tensor:
    """`[B, H, count, *rest]` from values `[B, H, tokens, *rest]` of tokens in and out of their blocks.

    `outside` is None where it is the identity of the reduction.
    """
    mine = _by_block(blocks.op, width, count, inside)
    if outside is None:
        return mine
    other = _others(blocks.op, _by_block(blocks.op, width, count, outside))
    return _reduce(blocks.op, torch.stack(torch.broadcast_tensors(mine, other)), 0)


def _by_block(op: str, width: int, count: int, value: Tensor) -> Tensor:
    """The reduction of each block, `[B, H, count, *rest]`; the last one may be short, tokens beyond it are left out."""
    value = value[:, :, : count * width].float()
    missing = count * width - value.shape[2]
    shape = [*value.shape[:2], missing, *value.shape[3:]]
    padded = torch.cat([value, value.new_full(shape, REDUCERS[op].identity)], dim=2)
    return _reduce(op, padded.unflatten(2, (count, width)), 3)


def _others(op: str, value: Tensor) -> Tensor:
    """For each block the reduction of all others, from both ends."""
    scan: dict[str, Callable[[Tensor], Tensor]] = {
        "sum": lambda x: x.cumsum(2),
        "prod": lambda x: x.cumprod(2),
        "max": lambda x: x.cummax(2).values,
        "min": lambda x: x.cummin(2).values,
    }
    edge = value.new_full((*value.shape[:2], 1, *value.shape[3:]), REDUCERS[op].identity)
    before = torch.cat([edge, scan[op](value)[:, :, :-1]], dim=2)
    after = torch.cat([edge, scan[op](value.flip(2))[:, :, :-1]], dim=2).flip(2)
    return _reduce(op, torch.stack([before, after]), 0)


def _reduce(op: str, value: Tensor, dim: int) -> Tensor:
    return REDUCE[op](value, [dim]).squeeze(dim)
