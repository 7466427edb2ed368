"""Lists of key boxes for a mask that is no product over the axes: interval arithmetic on a tree of boxes.

The same descent as `blocks`, in as many dimensions as the grid has: boxes of tiles are classified with an interval for
each coordinate, and only those that are neither empty nor full are halved along every axis, down to the tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngen.errors import InternalError, ShapeError
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr, Load, Param, Size, Var, free_vars
from attngen.lang.program import Program
from attngen.planner.blocks import check_count
from attngen.planner.bounds import INTERVAL_OPS, Interval, interval, truth
from attngen.planner.evaluate_boxes import BoxExtents, BoxValues
from attngen.planner.evaluate_plan import given
from attngen.planner.layout import Boxes, Layout, box_name, origin_name
from attngen.planner.plan import BlockLists, BoxPlan
from attngen.planner.pyramid import Pyramid

_ROOTS = 4096  # pairs of boxes to start from
_CHUNK = 1 << 16  # pairs classified at once
_TABLE = 1 << 16  # entries of a table's axis before it is cut into blocks

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pairs of a query box and a key box of `2**level` tiles a side; `tiles[i]` numbers them along one axis."""

    b: IntArray
    h: IntArray
    tiles: tuple[IntArray, ...]

    def __len__(self) -> int:
        return self.b.size

    def at(self, where: Any) -> _Pairs:
        return _Pairs(self.b[where], self.h[where], tuple(t[where] for t in self.tiles))


def build_box_blocks(
    program: Program, plan: BoxPlan, boxes: Boxes, values: Mapping[str, Any], at: BoxExtents
) -> BlockLists:
    """The partial and the full key boxes of every query box, numbered in the order of the layout's axes.

    Sound as `blocks.build_blocks`: a key box that overhangs the tokens is never full. Raises MissingTensorError.
    """
    mask = program.mask if program.mask is not None else Const(True)
    reads = free_vars(mask)
    shape = (at.batch if "b" in reads else 1, at.heads if "h" in reads else 1)
    n_q_tiles, n_k_tiles = prod(at.q_tiles), prod(at.k_tiles)
    found: list[tuple[IntArray, bool]] = []
    if n_q_tiles and n_k_tiles:
        _descend(_Classifier(program, mask, plan, boxes, values, at), at, shape, found)
    lists = [
        _compress([t for t, is_full in found if is_full == full], shape[0] * shape[1] * n_q_tiles, n_k_tiles)
        for full in (False, True)
    ]
    return BlockLists(*shape, n_q_tiles, n_k_tiles, *lists[0], *lists[1])


def _descend(
    classify: _Classifier, at: BoxExtents, shape: tuple[int, int], found: list[tuple[IntArray, bool]]
) -> None:
    counts = (*at.q_tiles, *at.k_tiles)
    level = max(counts).bit_length()
    while level and shape[0] * shape[1] * prod(-(-n >> (level - 1)) for n in counts) <= _ROOTS:
        level -= 1
    roots = np.indices((*shape, *(-(-n >> level) or 1 for n in counts)))
    pairs = _Pairs(*(r.reshape(-1) for r in roots[:2]), tuple(r.reshape(-1) for r in roots[2:]))
    while len(pairs):
        undecided: list[_Pairs] = []
        for start in range(0, len(pairs), _CHUNK):
            chunk = pairs.at(slice(start, start + _CHUNK))
            full, empty = classify(chunk, level)
            # a full pair is cut down to its tiles like any other: its quarters are full again
            keep = chunk.at(~empty)
            if level == 0:
                flat = _number(keep, shape, at)
                is_full = full[~empty]
                found.append((flat[is_full], True))
                found.append((flat[~is_full], False))
            else:
                undecided.append(keep)
        if level == 0:
            return
        level -= 1
        parts = [_halves(p, [-(-n >> level) for n in counts]) for p in undecided]
        pairs = _Pairs(
            np.concatenate([p.b for p in parts]),
            np.concatenate([p.h for p in parts]),
            tuple(np.concatenate([p.tiles[i] for p in parts]) for i in range(len(counts))),
        )


def _halves(pairs: _Pairs, counts: list[int]) -> _Pairs:
    """The boxes of half the side, as far as they hold tiles. One axis after the other, so that few fall away late."""
    for i, n in enumerate(counts):
        tiles = tuple(np.repeat(t, 2) for t in pairs.tiles)
        half = np.repeat(pairs.tiles[i] * 2, 2)
        half[1::2] += 1
        tiles = (*tiles[:i], half, *tiles[i + 1 :])
        pairs = _Pairs(np.repeat(pairs.b, 2), np.repeat(pairs.h, 2), tiles).at(half < n)
    return pairs


def _number(pairs: _Pairs, shape: tuple[int, int], at: BoxExtents) -> IntArray:
    """`row * key tiles + key tile` of every pair of tiles."""
    out = pairs.b * shape[1] + pairs.h
    for tile, n in zip(pairs.tiles, (*at.q_tiles, *at.k_tiles), strict=True):
        out = out * n + tile
    return out


def _compress(parts: list[IntArray], rows: int, n_k_tiles: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    tiles = np.sort(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)
    check_count(tiles.size)
    row, column = np.divmod(tiles, max(n_k_tiles, 1))
    ptr = np.zeros(rows + 1, dtype=np.int32)
    ptr[1:] = np.cumsum(np.bincount(row, minlength=rows))
    return ptr, column.astype(np.int32)


class _Classifier:
    """Evaluates a mask on pairs of boxes by interval arithmetic."""

    def __init__(
        self,
        program: Program,
        mask: Expr,
        plan: BoxPlan,
        boxes: Boxes,
        values: Mapping[str, Any],
        at: BoxExtents,
    ) -> None:
        self._mask, self._plan, self._values, self._at = mask, plan, values, at
        self._boxes = boxes.numbers()
        self._grid = program.grid
        self._pyramids: dict[Load, Pyramid] = {}
        sizes = {name: at.size(name) for name in ("n_q", "n_k", "n_b", "n_h")}
        number = BoxValues(values, sizes, {})
        self._axes = {
            layout.rank: [
                (
                    axis.name,
                    int(number(axis.extent)),
                    int(number(axis.stride)),
                    self._boxes[box_name(layout.rank, axis.name)],
                    self._boxes[origin_name(axis.name)],
                )
                for axis in layout.axes
            ]
            for layout in (plan.q, plan.k)
        }

    def __call__(self, pairs: _Pairs, level: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where every pair of tokens is kept, and where none is."""
        n = len(self._plan.q.axes)
        known: dict[Expr, Interval] = {Var("b"): interval(pairs.b), Var("h"): interval(pairs.h)}
        some_q, _ = self._coordinates(self._plan.q, pairs.tiles[:n], level, self._at.n_q, known)
        some_k, all_k = self._coordinates(self._plan.k, pairs.tiles[n:], level, self._at.n_k, known)

        def leaf(expr: Expr) -> Interval:
            match expr:
                case Const(value):
                    return interval(value)
                case Var() if expr in known:
                    return known[expr]
                case Size(name):
                    size = self._at.size(name)
                    return interval(1, 1 << 31) if size is None else interval(size)
                case Param(name):
                    return interval(given(self._values, name))
                case Load(_, indices):
                    return self._pyramid(expr).query([evaluate(i, leaf, INTERVAL_OPS) for i in indices])
                case _:
                    raise InternalError("a mask reads something that is not a mask's to read", loc=expr.loc)

        full, empty = truth(evaluate(self._mask, leaf, INTERVAL_OPS))
        full, empty = (np.broadcast_to(x, pairs.b.shape) for x in (full, empty))
        return full & all_k, empty | ~some_q | ~some_k

    def _coordinates(
        self,
        layout: Layout,
        tiles: tuple[IntArray, ...],
        level: int,
        count: int,
        known: dict[Expr, Interval],
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Sets the intervals of a rank's coordinates and token; whether some of its tokens exist, and whether all do."""
        some = every = np.ones(1, dtype=bool)
        least = greatest = np.zeros(1, dtype=np.int64)
        last = np.zeros(1, dtype=np.int64)
        for (name, extent, stride, box, origin), tile in zip(self._axes[layout.rank], tiles, strict=True):
            first = tile * (box << level) - origin
            end = first + (box << level)
            lo, hi = np.maximum(first, 0), np.minimum(end, extent) - 1
            some = some & (lo <= hi)
            every = every & (first >= 0) & (end <= extent)
            lo = np.minimum(lo, max(extent - 1, 0))
            hi = np.maximum(hi, lo)
            known[Var(layout.rank, name)] = interval(lo, hi)
            least, greatest = least + lo * stride, greatest + hi * stride
            last = greatest
        some = some & (least < count)
        every = every & (last < count)
        top = max(count - 1, 0)
        known[Var(layout.rank)] = interval(np.minimum(least, top), np.minimum(greatest, top))
        return some, every

    def _pyramid(self, load: Load) -> Pyramid:
        found = self._pyramids.get(load)
        if found is None:
            tensor = np.asarray(given(self._values, load.tensor))
            if tensor.ndim != len(load.indices):
                raise ShapeError(
                    f"`{load.tensor}` has {tensor.ndim} axes, but the mask reads it with {len(load.indices)} indices",
                    loc=load.loc,
                )
            single = [not free_vars(i) & {"q", "k"} and isinstance(i, Var) for i in load.indices]
            blocks = tuple(
                None if one else -(-size // _TABLE) or 1
                for one, size in zip(single, tensor.shape, strict=True)
            )
            found = self._pyramids[load] = Pyramid(tensor, blocks)
        return found


