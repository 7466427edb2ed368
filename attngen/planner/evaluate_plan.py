"""The pieces of a closed-form plan for every query tile at once, in numpy, as a kernel would compute them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngen.errors import InternalError, MissingTensorError
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr, Load, Param, Size, Var
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.program import Program
from attngen.planner.plan import BLOCK_K, Q_HI, Q_LO, TilePlan
from attngen.planner.rows import RowExtreme, evaluate_rows

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Extents:
    """The sizes of one schedule. `batch` and `heads` are those of the tensors, whatever the mask depends on."""

    n_q: int
    n_k: int
    batch: int
    heads: int
    block_q: int
    block_k: int

    @property
    def q_tiles(self) -> int:
        """Query tiles."""
        return -(-self.n_q // self.block_q)

    @property
    def k_tiles(self) -> int:
        """Key tiles."""
        return -(-self.n_k // self.block_k)

    def size(self, name: str) -> int | None:
        """The value of a `Size`, None for those that a schedule does not know (`D`, `E`)."""
        return {"n_q": self.n_q, "n_k": self.n_k, "n_b": self.batch, "n_h": self.heads}.get(name)


@dataclass(frozen=True, slots=True)
class PieceArrays:
    """One piece for every query tile: int64 arrays `[B|1, H|1, q tiles]`, in key tiles (see `plan.Piece`)."""

    start: IntArray
    end: IntArray
    full_start: IntArray
    full_end: IntArray


def evaluate_plan(
    plan: TilePlan, values: Mapping[str, Any], at: Extents, *, per_batch: bool, per_head: bool
) -> tuple[PieceArrays, ...]:
    """The pieces for all tiles. Work and memory are a few arrays of `[B|1, H|1, q tiles]`."""
    shape = (at.batch if per_batch else 1, at.heads if per_head else 1, at.q_tiles)
    q_lo = np.arange(at.q_tiles, dtype=np.int64) * at.block_q
    known: dict[str, Any] = {
        "b": np.arange(shape[0], dtype=np.int64)[:, None, None],
        "h": np.arange(shape[1], dtype=np.int64)[None, :, None],
        Q_LO: q_lo,
        Q_HI: np.minimum(q_lo + at.block_q, at.n_q) - 1,
        BLOCK_K: at.block_k,
    }

    def leaf(expr: Expr) -> Any:
        match expr:
            case Const(value):
                return value
            case Var(name) if name in known:
                return known[name]
            case Size(name) if (size := at.size(name)) is not None:
                return size
            case Param(name) | Load(name, ()):
                return given(values, name)
            case Load(name, indices):
                tensor = np.asarray(given(values, name))
                index = [evaluate(i, leaf, NUMPY_OPS) for i in indices]
                return gather(tensor, index)
            case RowExtreme():
                return evaluate_rows(expr, known, leaf, n_q=at.n_q, block_q=at.block_q)
            case _:
                raise InternalError("a plan reads a value that no schedule knows", loc=expr.loc)

    for name, expr in plan.lets:
        known[name] = evaluate(expr, leaf, NUMPY_OPS)

    def whole(name: str) -> IntArray:
        return np.broadcast_to(np.asarray(known[name], dtype=np.int64), shape)

    return tuple(
        PieceArrays(*(whole(n) for n in (p.start, p.end, p.full_start, p.full_end))) for p in plan.pieces
    )


def with_defaults(program: Program, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a call over the parameters' declared defaults."""
    return {p.name: p.default for p in program.params if p.default is not None} | dict(values)


def given(values: Mapping[str, Any], name: str) -> Any:
    """The value of a parameter or tensor. Raises MissingTensorError."""
    if name not in values:
        raise MissingTensorError(f"the mask reads `{name}`, which was not given")
    return values[name]


def gather(tensor: NDArray[Any], index: list[Any]) -> Any:
    """`tensor[index]`, each index clamped to its axis as kernels do."""
    wide = [
        np.asarray(i, dtype=np.int64) for i in index
    ]  # of a narrow integer, the end of an axis may be no value
    clamped = [np.clip(i, 0, size - 1) for i, size in zip(wide, tensor.shape, strict=True)]
    return tensor[tuple(clamped)]
