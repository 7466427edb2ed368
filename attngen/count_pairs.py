"""How many pairs of tokens a mask keeps: counted exactly, a slab of rows at a time, never all pairs at once.

A mask on a grid whose every part speaks of one axis is counted axis by axis, which any length allows. Nothing here
asks the planner, but for one thing: long lines are counted by the runs of their rows where these are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from attngen.eager import evaluate_with_torch
from attngen.lang.desugar import desugar_expr
from attngen.lang.domain import TOKEN_RANKS, size_param, without_coordinates
from attngen.lang.expr import Const, Expr, Var, apply, conjuncts, substitute, walk

if TYPE_CHECKING:
    from attngen.lang.program import Program

MOST_PAIRS = 2**30  # looked at one by one: half a minute
_MANY_PAIRS = 2**24  # where the runs of rows are used if they are known
_SLAB = 2**20  # pairs looked at together
_ROWS = 2**16  # rows whose runs are looked at together


@dataclass(frozen=True, slots=True)
class Kept:
    """The pairs that a mask keeps over the batch entries and heads asked for.

    n    how many; None where they were not counted.
    how  how they were counted, or why they were not.
    """

    n: int | None
    how: str


@dataclass(frozen=True, slots=True)
class Count:
    """What is counted: lengths, batch entries and heads, and the values of parameters and captured tensors."""

    values: Mapping[str, Any]
    n_q: int
    n_k: int
    batch: int
    heads: int

    def entries(self, shape: tuple[int, int]) -> list[dict[str, Any]]:
        """The indices `b` and `h` of the first batch entries and heads."""
        return [{"b": b, "h": h} for b in range(shape[0]) for h in range(shape[1])]

    @property
    def sizes(self) -> dict[str, int | None]:
        """The sizes a mask may read."""
        return {"n_q": self.n_q, "n_k": self.n_k, "n_b": self.batch, "n_h": self.heads}


def count_kept(
    program: Program,
    call: Count,
    shape: tuple[int, int],
    *,
    rows: Sequence[tuple[Expr, Expr]] = (),
    most: int = MOST_PAIRS,
) -> Kept:
    """The pairs kept over `shape` batch entries and heads, those of a desugared or a plain program.

    `rows` are the runs of keys of a row, `TilePlan.rows`, used where there are many pairs. No more than `most` are
    looked at one by one.
    Raises MissingTensorError for a value the mask reads that is not in `call.values`.
    """
    total = prod(shape) * call.n_q * call.n_k
    if program.mask is None or not total:
        return Kept(total, "no mask" if program.mask is None else "no pairs")
    axes = _axis_parts(program, call)
    if axes is not None:
        looked_at = prod(shape) * sum(n * n for n, _ in axes)
        if looked_at <= most:
            n = sum(
                prod(_count(part, call, entry, n, n) for n, part in axes) for entry in call.entries(shape)
            )
            return Kept(n, "counted axis by axis")
    if rows and total > min(most, _MANY_PAIRS):
        return Kept(
            sum(_by_rows(rows, call, e) for e in call.entries(shape)), "counted by the runs of each row"
        )
    if total <= most:
        mask = desugar_expr(without_coordinates(program.mask, program.grid))
        entries = call.entries(shape)
        return Kept(sum(_count(mask, call, e, call.n_q, call.n_k) for e in entries), "every pair looked at")
    if rows:
        return Kept(
            sum(_by_rows(rows, call, e) for e in call.entries(shape)), "counted by the runs of each row"
        )
    return Kept(None, f"{total:,} pairs are more than the {most:,} that are looked at")


def _count(mask: Expr, call: Count, entry: Mapping[str, Any], n_q: int, n_k: int) -> int:
    """The pairs of one head for which `mask` holds."""
    step = max(1, _SLAB // max(n_k, 1))
    k = torch.arange(n_k).reshape(1, -1)
    total = 0
    for first in range(0, n_q, step):
        q = torch.arange(first, min(first + step, n_q)).reshape(-1, 1)
        kept = evaluate_with_torch(mask, {**entry, "q": q, "k": k}, call.values, call.sizes)
        total += int(torch.as_tensor(kept).broadcast_to((q.numel(), n_k)).count_nonzero())
    return total


def _axis_parts(program: Program, call: Count) -> list[tuple[int, Expr]] | None:
    """The extent of each axis and its part of the mask in plain `q` and `k`, where the mask is a product of these.

    None where tokens lie on a line or go on beyond the grid, and where a part speaks of several axes.
    """
    if not program.grid or program.mask is None:
        return None
    extents = {axis: int(call.values[size_param(axis)]) for axis in program.grid}
    if not call.n_q == call.n_k == prod(extents.values()):
        return None
    parts: dict[str, Expr] = {axis: Const(True) for axis in program.grid}
    for part in conjuncts(desugar_expr(program.mask)):
        read = {n.axis for n in walk(part) if isinstance(n, Var) and n.name in TOKEN_RANKS}
        if len(read) > 1 or None in read:
            return None
        # what speaks of no axis decides for whole heads: any axis may carry it
        axis = next((a for a in read if a is not None), program.grid[0])
        plain: dict[Expr, Expr] = {Var(rank, axis): Var(rank) for rank in TOKEN_RANKS}
        parts[axis] = apply("and", parts[axis], substitute(part, plain))
    return [(extents[axis], part) for axis, part in parts.items()]


def _by_rows(rows: Sequence[tuple[Expr, Expr]], call: Count, entry: Mapping[str, Any]) -> int:
    """The keys in any of the runs of a row, over the rows of one head."""
    total = 0
    for low in range(0, call.n_q, _ROWS):
        q = torch.arange(low, min(low + _ROWS, call.n_q))
        ends = [
            [
                torch.as_tensor(evaluate_with_torch(e, {**entry, "q": q}, call.values, call.sizes))
                .broadcast_to(q.shape)
                .clamp(0, call.n_k)
                for e in run
            ]
            for run in rows
        ]
        first, order = torch.stack([e[0] for e in ends]).sort(dim=0)
        end = torch.stack([e[1] for e in ends]).gather(0, order)
        reached = torch.zeros_like(q)
        for a, b in zip(first, end, strict=True):  # what a run adds lies beyond those before it
            total += int((b - torch.maximum(a, reached)).clamp(min=0).sum())
            reached = torch.maximum(reached, b)
    return total
