"""The runs of a box plan for every query box at once, in numpy, as a kernel would compute them.

The lets of an axis read that axis's corners only, so each is evaluated over the tiles of its own axis; what a query
box visits is the product, which broadcasting gives without a list of boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngen.errors import InternalError
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr, Load, Param, Size, Var
from attngen.lang.numpy_ops import BARE_OPS
from attngen.planner.evaluate_plan import gather, given
from attngen.planner.layout import Boxes, Layout, box_name, hi_name, lo_name, origin_name
from attngen.planner.plan import BoxPlan

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BoxExtents:
    """The sizes of one box schedule: lengths, and how many tiles each rank has along each axis, slowest first."""

    n_q: int
    n_k: int
    batch: int
    heads: int
    q_tiles: tuple[int, ...]
    k_tiles: tuple[int, ...]

    def size(self, name: str) -> int | None:
        """The value of a `Size`, None for those that a schedule does not know (`D`, `E`)."""
        return {"n_q": self.n_q, "n_k": self.n_k, "n_b": self.batch, "n_h": self.heads}.get(name)


@dataclass(frozen=True, slots=True)
class RunArrays:
    """One axis's run for every query tile, in key tiles; broadcastable to `[B|1, H|1, *query tiles]`."""

    start: IntArray
    end: IntArray
    full_start: IntArray
    full_end: IntArray


class BoxValues:
    """Evaluates the expressions of a box plan for given values; `known` grows by the plan's lets."""

    def __init__(
        self, values: Mapping[str, Any], sizes: Mapping[str, int | None], known: dict[str, Any]
    ) -> None:
        self.values, self.sizes, self.known = values, sizes, known

    def __call__(self, expr: Expr) -> Any:
        """The value of an expression: a number, or an array where `known` holds arrays."""
        with np.errstate(all="ignore"):
            return evaluate(expr, self._leaf, BARE_OPS)

    def _leaf(self, expr: Expr) -> Any:
        match expr:
            case Const(value):
                return value
            case Var(name, None) if name in self.known:
                return self.known[name]
            case Var(rank, str(axis)) if f"{rank}.{axis}" in self.known:
                return self.known[f"{rank}.{axis}"]
            case Size(name) if (size := self.sizes.get(name)) is not None:
                return size
            case Param(name) | Load(name, ()):
                return given(self.values, name)
            case Load(name, indices):
                return gather(np.asarray(given(self.values, name)), [self(i) for i in indices])
            case _:
                raise InternalError("a plan reads a value that no schedule knows", loc=expr.loc)


def tile_counts(
    layout: Layout, boxes: Boxes, values: Mapping[str, Any], sizes: Mapping[str, int | None]
) -> tuple[int, ...]:
    """How many tiles a rank has along each axis of its layout."""
    at = BoxValues(values, sizes, {})
    numbers = boxes.numbers()
    out: list[int] = []
    for axis in layout.axes:
        box = numbers[box_name(layout.rank, axis.name)]
        out.append(-(-max(int(at(axis.most)) + numbers[origin_name(axis.name)], 0) // box))
    return tuple(out)


def box_extents(
    plan: BoxPlan, boxes: Boxes, values: Mapping[str, Any], *, n_q: int, n_k: int, batch: int, heads: int
) -> BoxExtents:
    """The tiles of both ranks for these lengths."""
    sizes: dict[str, int | None] = {"n_q": n_q, "n_k": n_k, "n_b": batch, "n_h": heads}
    q, k = (tile_counts(layout, boxes, values, sizes) for layout in (plan.q, plan.k))
    if not n_q:
        q = (0,) * len(q)
    if not n_k:
        k = (0,) * len(k)
    return BoxExtents(n_q, n_k, batch, heads, q, k)


def evaluate_boxes(
    plan: BoxPlan, boxes: Boxes, values: Mapping[str, Any], at: BoxExtents, *, per_batch: bool, per_head: bool
) -> tuple[RunArrays, ...]:
    """The runs of every axis, in the order of the layout. Work and memory follow the tiles of each axis alone."""
    n_axes = len(plan.q.axes)
    known: dict[str, Any] = dict(boxes.numbers())
    known["b"] = along(np.arange(at.batch if per_batch else 1), 0, n_axes + 2)
    known["h"] = along(np.arange(at.heads if per_head else 1), 1, n_axes + 2)
    sizes = {name: at.size(name) for name in ("n_q", "n_k", "n_b", "n_h")}
    run = BoxValues(values, sizes, known)
    corners(plan.q, run, at.q_tiles, first_dim=2)
    for name, body in plan.lets:
        known[name] = run(body)

    def array(name: str) -> IntArray:
        out = np.asarray(known[name], dtype=np.int64)
        return out.reshape((1,) * (n_axes + 2 - out.ndim) + out.shape)

    exists = _exists(plan.q, known)
    out: list[RunArrays] = []
    for i, r in enumerate(plan.runs):
        start, end = array(r.start), array(r.end)
        full_start, full_end = array(r.full_start), array(r.full_end)
        if i == 0 and exists is not None:  # a tile without rows visits nothing
            end = np.where(exists, end, start)
            full_end = np.where(exists, full_end, full_start)
        out.append(RunArrays(start, end, full_start, full_end))
    return tuple(out)


def corners(layout: Layout, at: BoxValues, tiles: tuple[int, ...], *, first_dim: int) -> None:
    """The first and last coordinate of every query tile on each axis, along a dimension of its own."""
    rank = len(tiles) + first_dim
    for i, (axis, n) in enumerate(zip(layout.axes, tiles, strict=True)):
        tile = along(np.arange(n), first_dim + i, rank)
        if axis.group:
            at.known[axis.name] = tile
            continue
        box = at.known[box_name("q", axis.name)]
        lo = tile * box
        at.known[lo_name(axis.name)] = lo
        last = np.asarray(at(axis.extent)) + at.known[origin_name(axis.name)]
        at.known[hi_name(axis.name)] = np.minimum(lo + box, last) - 1


def _exists(layout: Layout, known: Mapping[str, Any]) -> Any:
    """Which query tiles have rows: a residue class may be a step shorter than the longest. None if all have."""
    out: Any = None
    if not any(axis.group for axis in layout.axes):
        return None
    for axis in layout.axes:
        if not axis.group:
            some = np.asarray(known[hi_name(axis.name)] >= known[lo_name(axis.name)])
            out = some if out is None else out & some
    return out


def along(values: IntArray, dim: int, rank: int) -> IntArray:
    """A vector laid along one of `rank` dimensions."""
    shape = [1] * rank
    shape[dim] = -1
    return np.asarray(values, dtype=np.int64).reshape(shape)


def visits(runs: tuple[RunArrays, ...], shape: tuple[int, ...]) -> tuple[int, int]:
    """How many tiles are visited, and how many of them without a mask, over `shape` query boxes."""
    totals = [int(np.broadcast_to(x, shape).sum()) for x in visits_of_each(runs, len(shape))]
    return totals[0], totals[1]


def visits_of_each(runs: Sequence[RunArrays], rank: int) -> tuple[IntArray, IntArray]:
    """The tiles visited by each query box, and those of them without a mask; arrays of `rank` axes to broadcast."""
    visited = full = np.ones((1,) * rank, dtype=np.int64)
    for run in runs:
        visited = visited * np.maximum(run.end - run.start, 0)
        full = full * np.maximum(run.full_end - run.full_start, 0)
    return visited, full


def box_classes(
    runs: tuple[RunArrays, ...], shape: tuple[int, ...], k_tiles: tuple[int, ...]
) -> NDArray[np.int8]:
    """int8 `[B|1, H|1, query tiles, key tiles]`: 0 empty, 1 partial, 2 full; one byte a pair of tiles."""
    n = len(k_tiles)
    seen = np.ones((1,) * (len(shape) + n), dtype=bool)
    full = seen
    for i, run in enumerate(runs):
        tile = along(np.arange(k_tiles[i]), len(shape) + i, len(shape) + n)
        start, end, full_start, full_end = (
            x.reshape(x.shape + (1,) * n) for x in (run.start, run.end, run.full_start, run.full_end)
        )
        seen = seen & (start <= tile) & (tile < end)
        full = full & (full_start <= tile) & (tile < full_end)
    whole = (*shape, *k_tiles)
    out = np.broadcast_to(seen, whole).astype(np.int8) + np.broadcast_to(full & seen, whole)
    return out.reshape(*shape[:2], prod(shape[2:]), prod(k_tiles)).astype(np.int8)
