"""A schedule: how many tiles of a mask are empty, partial and full for given lengths, and which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from attngen.errors import ShapeError, UnsupportedError
from attngen.lang.expr import Expr, free_vars
from attngen.lang.program import Program
from attngen.planner.blocks import build_blocks
from attngen.planner.box_blocks import build_box_blocks
from attngen.planner.choose_boxes import Call as ChooseCall
from attngen.planner.choose_boxes import choose_boxes
from attngen.planner.evaluate_boxes import (
    BoxExtents,
    RunArrays,
    box_classes,
    box_extents,
    evaluate_boxes,
    visits,
    visits_of_each,
)
from attngen.planner.evaluate_plan import Extents, PieceArrays, evaluate_plan, with_defaults
from attngen.planner.found import check_count
from attngen.planner.layout import Boxes
from attngen.planner.plan import BlockLists, BoxPlan, MaskPlan
from attngen.planner.plan_mask import check_grid, check_values

if TYPE_CHECKING:
    import torch
    from torch.nn.attention.flex_attention import BlockMask

EMPTY, PARTIAL, FULL = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Schedule:
    """The work of one mask at given lengths.

    form        "ranges" (evaluated inside the kernel, no metadata) or "lists".
    n_full, n_partial, n_empty   tiles of each class over `[B|1, H|1, q tiles, k tiles]`; batch and heads count
                once where the mask does not depend on them.
    nbytes      bytes of metadata a kernel reads: 0 for ranges.
    boxes       the shapes of tiles that are boxes of coordinates, numbered in the order of the axes, the last one
                fastest; None where tiles are runs of tokens.
    """

    n_q: int
    n_k: int
    batch: int
    heads: int
    block_q: int
    block_k: int
    form: Literal["ranges", "lists"]
    n_full: int
    n_partial: int
    n_empty: int
    nbytes: int
    _shape: tuple[int, int] = field(repr=False, compare=False)
    _pieces: tuple[PieceArrays, ...] = field(repr=False, compare=False)
    _lists: BlockLists | None = field(repr=False, compare=False)
    boxes: Boxes | None = None
    _runs: tuple[RunArrays, ...] = field(default=(), repr=False, compare=False)
    _extents: BoxExtents | None = field(default=None, repr=False, compare=False)
    _as_block_mask: Callable[[Schedule, torch.device | str | None], BlockMask] | None = field(
        default=None, repr=False, compare=False
    )

    @property
    def n_q_tiles(self) -> int:
        """Query tiles of one head."""
        return -(-self.n_q // self.block_q) if self._extents is None else prod(self._extents.q_tiles)

    @property
    def n_k_tiles(self) -> int:
        """Key tiles of one head."""
        return -(-self.n_k // self.block_k) if self._extents is None else prod(self._extents.k_tiles)

    @property
    def tile_grid(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tiles of queries and of keys along each axis of the boxes; one axis where tiles are runs of tokens."""
        if self._extents is None:
            return (self.n_q_tiles,), (self.n_k_tiles,)
        return self._extents.q_tiles, self._extents.k_tiles

    @property
    def density(self) -> float:
        """The fraction of tiles that a kernel visits, partial ones included: 1.0 is dense, 0.0 no work at all."""
        total = self.n_full + self.n_partial + self.n_empty
        return (self.n_full + self.n_partial) / total if total else 0.0

    def tiles(self) -> torch.Tensor:
        """int8 `[B|1, H|1, q tiles, k tiles]` on the CPU: 0 empty, 1 partial, 2 full.

        Built at each call, one byte a tile.
        """
        import torch

        return torch.from_numpy(self._classes())

    def by_row(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The partial and the full tiles of each query tile, counted: two int64 `[B|1, H|1, q tiles]`."""
        shape = (*self._shape, self.n_q_tiles)
        if self._lists is not None:
            pointers = (self._lists.partial_ptr, self._lists.full_ptr)
            partial, full = (np.diff(ptr.astype(np.int64)).reshape(shape) for ptr in pointers)
            return partial, full
        if self._extents is not None:
            whole = (*self._shape, *self._extents.q_tiles)
            each = visits_of_each(self._runs, len(whole))
            visited, full = (np.broadcast_to(x, whole).reshape(shape) for x in each)
            return visited - full, full
        visited, full = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for piece in self._pieces:
            visited += np.maximum(piece.end - piece.start, 0)
            full += np.maximum(np.minimum(piece.full_end, piece.end) - piece.full_start, 0)
        return visited - full, full

    def lists(self) -> BlockLists:
        """The partial and the full tiles of each row as compressed lists, from either form."""
        if self._lists is not None:
            return self._lists
        if self._extents is not None:
            return _lists_of(self._classes(), self._shape)
        rows = self._shape[0] * self._shape[1] * self.n_q_tiles
        partial, full = _Lists(rows), _Lists(rows)
        for piece in self._pieces:
            partial.add(piece.start, np.minimum(piece.full_start, piece.end))
            full.add(piece.full_start, piece.full_end)
            partial.add(np.maximum(piece.full_end, piece.start), piece.end)
        return BlockLists(*self._shape, self.n_q_tiles, self.n_k_tiles, *partial.compress(), *full.compress())

    def to_block_mask(self, device: torch.device | str | None = None) -> BlockMask:
        """The same blocks as a `BlockMask` of FlexAttention, with the program's mask as its `mask_mod`.

        `flex_attention(query, key, value, block_mask=...)` then computes what plain softmax does under this mask. The
        lists take 8 bytes a tile, full or not, and lie on `device`, by default where the captured tensors of the
        mask do. Raises UnsupportedError for a schedule that was not made by `Attention.schedule`.
        """
        if self._as_block_mask is None:
            raise UnsupportedError("this schedule does not hold its mask", hint="use Attention.schedule(...)")
        return self._as_block_mask(self, device)

    def transposed(self) -> BlockLists:
        """The partial and the full query tiles of each key tile, from either form (see `BlockLists.transposed`)."""
        return self.lists().transposed()

    def _classes(self) -> NDArray[np.int8]:
        if self._extents is not None and self._lists is None:
            return box_classes(self._runs, (*self._shape, *self._extents.q_tiles), self._extents.k_tiles)
        out = np.zeros((*self._shape, self.n_q_tiles, self.n_k_tiles), dtype=np.int8)
        flat = out.reshape(-1)
        lists = self.lists()
        rows = np.arange(lists.partial_ptr.size - 1, dtype=np.int64) * self.n_k_tiles
        for ptr, index, what in (
            (lists.partial_ptr, lists.partial_index, PARTIAL),
            (lists.full_ptr, lists.full_index, FULL),
        ):
            flat[np.repeat(rows, np.diff(ptr)) + index] = what
        return out

    def text(self) -> str:
        """One line a reader can take in: the form, the tiles, the density and the metadata."""
        tiles = f"{self.block_q} x {self.block_k} tiles"
        if self.boxes is not None:
            axes = ", ".join(s.axis for s in self.boxes.shapes)
            tiles = f"boxes ({axes}) of {self.boxes.text('q')} queries and {self.boxes.text('k')} keys"
        return (
            f"{self.form}: {self.n_q} queries x {self.n_k} keys in {tiles}; "
            f"{self.n_full} full, {self.n_partial} partial, {self.n_empty} empty; "
            f"{self.density:.1%} visited; {self.nbytes} bytes of metadata"
        )

    def __str__(self) -> str:
        return self.text()


def _lists_of(classes: NDArray[np.int8], shape: tuple[int, int]) -> BlockLists:
    """The lists of a block map."""
    n_q_tiles, n_k_tiles = classes.shape[2:]
    rows = classes.reshape(-1, n_k_tiles) if classes.size else np.zeros((0, max(n_k_tiles, 1)), dtype=np.int8)
    out: list[NDArray[np.int32]] = []
    for what in (PARTIAL, FULL):
        row, column = np.nonzero(rows == what)
        check_count(column.size)
        ptr = np.zeros(shape[0] * shape[1] * n_q_tiles + 1, dtype=np.int32)
        ptr[1:] = np.cumsum(np.bincount(row, minlength=ptr.size - 1))
        out += [ptr, column.astype(np.int32)]
    return BlockLists(*shape, n_q_tiles, n_k_tiles, *out)


class _Lists:
    """Gathers runs of tiles per row and compresses them; runs arrive in ascending order within a row."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._runs: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def add(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> None:
        self._runs.append((start.reshape(-1), np.maximum(end - start, 0).reshape(-1)))

    def compress(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Row pointers and indices, int32."""
        ptr = np.zeros(self._rows + 1, dtype=np.int32)
        if not self._runs:
            return ptr, np.zeros(0, dtype=np.int32)
        starts = np.stack([s for s, _ in self._runs], axis=1).reshape(-1)
        counts = np.stack([c for _, c in self._runs], axis=1).reshape(-1)
        check_count(int(counts.sum()))
        ptr[1:] = np.cumsum(counts.reshape(self._rows, len(self._runs)).sum(axis=1))
        ends = np.cumsum(counts)
        total = int(ends[-1]) if ends.size else 0
        index = np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - counts), counts)
        return ptr, index.astype(np.int32)


@lru_cache(maxsize=256)
def depends_on(mask: Expr | None, rank: Literal["b", "h"]) -> bool:
    """Whether the mask may differ between batch entries, or between heads."""
    return mask is not None and rank in free_vars(mask)


def make_schedule(
    program: Program,
    plan: MaskPlan,
    values: Mapping[str, Any],
    *,
    n_q: int,
    n_k: int,
    batch: int,
    heads: int,
    block_q: int,
    block_k: int,
    boxes: Boxes | None = None,
) -> Schedule:
    """The schedule of `plan` for these lengths; `values` are numbers for parameters, numpy arrays for tensors.

    `boxes` gives the shapes of tiles for a plan of boxes; by default they are chosen for at most `block_q` queries
    and `block_k` keys. Counting the closed form costs a few arrays of one integer per query tile. Raises ShapeError
    for extents that are not positive (lengths may be 0), ParameterError for a parameter that the mask divides by and
    that is below 1.
    """
    for name, value, least in (
        ("n_q", n_q, 0), ("n_k", n_k, 0), ("batch", batch, 0),
        ("heads", heads, 0), ("block_q", block_q, 1), ("block_k", block_k, 1),
    ):  # fmt: skip
        if value < least:
            raise ShapeError(f"`{name}` is {value}; it must be {least} or more")
    at = Extents(n_q, n_k, batch, heads, block_q, block_k)
    extents = (n_q, n_k, batch, heads, block_q, block_k)
    if plan.boxes is not None:
        return _box_schedule(program, plan.boxes, with_defaults(program, values), at, boxes)
    if plan.ranges is None:
        lists = build_blocks(
            program, values, n_q=n_q, n_k=n_k, batch=batch, heads=heads, block_q=block_q, block_k=block_k
        )
        n_full, n_partial = lists.full_index.size, lists.partial_index.size
        shape = (lists.batch, lists.heads)
        n_empty = shape[0] * shape[1] * at.q_tiles * at.k_tiles - n_full - n_partial
        return Schedule(*extents, "lists", n_full, n_partial, n_empty, lists.nbytes, shape, (), lists)
    values = with_defaults(program, values)
    check_values(program, plan, values)
    per_batch, per_head = depends_on(program.mask, "b"), depends_on(program.mask, "h")
    shape = (batch if per_batch else 1, heads if per_head else 1)
    pieces = evaluate_plan(plan.ranges, values, at, per_batch=per_batch, per_head=per_head)
    n_visited = sum(int((p.end - p.start).sum()) for p in pieces)
    n_full = sum(int((p.full_end - p.full_start).sum()) for p in pieces)
    n_empty = shape[0] * shape[1] * at.q_tiles * at.k_tiles - n_visited
    return Schedule(*extents, "ranges", n_full, n_visited - n_full, n_empty, 0, shape, pieces, None)


def _box_schedule(
    program: Program, plan: BoxPlan, values: Mapping[str, Any], at: Extents, boxes: Boxes | None
) -> Schedule:
    """The schedule of a plan of boxes, in closed form or by lists."""
    check_grid(program, values)
    if boxes is None:
        call = ChooseCall(values, at.n_q, at.n_k, at.batch, at.heads, at.block_q, at.block_k)
        boxes = choose_boxes(program, plan, call)
    extents = box_extents(plan, boxes, values, n_q=at.n_q, n_k=at.n_k, batch=at.batch, heads=at.heads)
    per_batch, per_head = depends_on(program.mask, "b"), depends_on(program.mask, "h")
    shape = (at.batch if per_batch else 1, at.heads if per_head else 1)
    pairs = shape[0] * shape[1] * prod(extents.q_tiles) * prod(extents.k_tiles)
    basic = (at.n_q, at.n_k, at.batch, at.heads, at.block_q, at.block_k)
    if not plan.runs:
        lists = build_box_blocks(program, plan, boxes, values, extents)
        shape = (lists.batch, lists.heads)  # what the lists differ by: a mask may read `b` to no effect
        pairs = shape[0] * shape[1] * prod(extents.q_tiles) * prod(extents.k_tiles)
        n_full, n_partial = lists.full_index.size, lists.partial_index.size
        n_empty = pairs - n_full - n_partial
        return Schedule(
            *basic, "lists", n_full, n_partial, n_empty, lists.nbytes, shape, (), lists, boxes, (), extents
        )
    runs = evaluate_boxes(plan, boxes, values, extents, per_batch=per_batch, per_head=per_head)
    visited, full = visits(runs, (*shape, *extents.q_tiles))
    if not pairs:
        visited = full = 0
    return Schedule(
        *basic, "ranges", full, visited - full, pairs - visited, 0, shape, (), None, boxes, runs, extents
    )
