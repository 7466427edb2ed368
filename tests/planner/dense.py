"""The oracle of the planner's tests: masks evaluated on all pairs, and tiles classified from that."""

from __future__ import annotations

from typing import Any

import numpy as np

from attngen.lang.desugar import desugar
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr, Load, Param, Size, Var
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.parse import parse_program
from attngen.lang.program import Program


def program(text: str) -> Program:
    """A program from the lines of its mask; the cascade does not matter to the planner."""
    return desugar(parse_program(text + "\n"))


def dense(mask: Expr, values: dict[str, Any], n_q: int, n_k: int, batch: int, heads: int) -> np.ndarray:
    """The mask on every pair, bool `[batch, heads, n_q, n_k]`."""
    shape = (batch, heads, n_q, n_k)
    known = dict(zip("bhqk", np.indices(shape, sparse=True), strict=True))
    sizes = {"n_q": n_q, "n_k": n_k, "n_b": batch, "n_h": heads}

    def leaf(expr: Expr) -> Any:
        match expr:
            case Const(value):
                return value
            case Var(name):
                return known[name]
            case Size(name):
                return sizes[name]
            case Param(name):
                return values[name]
            case Load(name, indices):
                tensor = values[name]
                index = (evaluate(i, leaf, NUMPY_OPS) for i in indices)
                wide = (np.asarray(i, dtype=np.int64) for i in index)
                return tensor[tuple(np.clip(i, 0, n - 1) for i, n in zip(wide, tensor.shape, strict=True))]
        raise AssertionError(expr)

    return np.broadcast_to(evaluate(mask, leaf, NUMPY_OPS), shape)


def classes(kept: np.ndarray, block_q: int, block_k: int) -> np.ndarray:
    """0 empty, 1 partial, 2 full per tile, from the pairs; a tile that overhangs the keys is never full."""
    b, h, n_q, n_k = kept.shape
    q_tiles, k_tiles = -(-n_q // block_q), -(-n_k // block_k)
    some = np.zeros((b, h, q_tiles * block_q, k_tiles * block_k), dtype=bool)
    every = np.zeros_like(some)
    some[:, :, :n_q, :n_k] = every[:, :, :n_q, :n_k] = kept
    every[:, :, n_q:, :n_k] = True  # rows past the end never count
    shape = (b, h, q_tiles, block_q, k_tiles, block_k)
    any_kept, all_kept = some.reshape(shape).any(axis=(3, 5)), every.reshape(shape).all(axis=(3, 5))
    return np.where(all_kept, 2, np.where(any_kept, 1, 0)).astype(np.int8)
