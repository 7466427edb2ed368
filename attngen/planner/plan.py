"""What the planner hands on: where the work of a query tile lies.

Two forms exist. `TilePlan` is closed-form: integer expressions of the query tile that the kernel evaluates
itself, with no metadata. `BlockLists` is data: compressed lists of partial and of full key tiles per query
tile, built ahead of the launch. `MaskPlan` says which form a mask gets, and why; it depends on the program
only, never on values, so one kernel serves every length, batch and parameter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from attngen.lang.expr import Expr
from attngen.planner.layout import Layout
from attngen.value import value

if TYPE_CHECKING:
    import torch

# Names a TilePlan's lets may read as `Var`, besides `b`, `h` and earlier lets: first and last (inclusive) valid
# row of the query tile, and the number of keys in a key tile.
Q_LO, Q_HI, BLOCK_K = "q_lo", "q_hi", "block_k"


@value
class Piece:
    """A run of key tiles `[start, end)`, of which `[full_start, full_end)` need no mask.

    The four fields name lets of the plan, in units of key tiles, with
    `0 <= start <= full_start <= full_end <= end <= cdiv(n_k, block_k)`. Pieces of one plan are disjoint.
    """

    start: str
    end: str
    full_start: str
    full_end: str


@value
class TilePlan:
    """Closed-form key tiles of a query tile.

    lets    named integer expressions in order of evaluation; they read `Q_LO`, `Q_HI`, `BLOCK_K`, `b`, `h`,
            sizes, parameters, captured tensors indexed by `b` and `h` only, earlier lets as `Var(name)`, and
            values of the tile's rows as `rows.RowExtreme`.
    pieces  the runs to visit.
    hulls   per disjunct, the names of the lets holding the first key and one past the last key any row of the
            tile may see, clipped to [0, n_k]; every kept pair lies in one of them.
    tight   proved: every key in a hull is seen by some row of the tile (so no masked-out V row is ever multiplied
            as long as loads are limited to the hulls).
    notes   one readable line per atom of the mask: how it was solved.
    residual  a comparison that bounds nothing and is left to the masked tiles, None if there is none.
    rows    for a mask that is a few runs of keys a row and nothing else: the first key of each and one past its last,
            in `q`. The last is at most `n_k`; it may come before the first, which may lie before key 0. Else empty.
    """

    lets: tuple[tuple[str, Expr], ...]
    pieces: tuple[Piece, ...]
    hulls: tuple[tuple[str, str], ...]
    tight: bool
    notes: tuple[str, ...] = ()
    rows: tuple[tuple[Expr, Expr], ...] = ()
    residual: Expr | None = None


@value
class BlockLists:
    """Compressed lists of key tiles per query tile.

    Rows are ordered (b, h, query tile) over `batch x heads x n_q_tiles`, where batch and heads are 1 when the mask
    does not depend on them. Row r's partial tiles are `partial_index[partial_ptr[r]:partial_ptr[r + 1]]`, ascending;
    the same for full ones. All int32, contiguous.
    """

    batch: int
    heads: int
    n_q_tiles: int
    n_k_tiles: int
    partial_ptr: NDArray[np.int32]
    partial_index: NDArray[np.int32]
    full_ptr: NDArray[np.int32]
    full_index: NDArray[np.int32]

    @property
    def nbytes(self) -> int:
        """Bytes of metadata."""
        return (
            self.partial_ptr.nbytes
            + self.partial_index.nbytes
            + self.full_ptr.nbytes
            + self.full_index.nbytes
        )

    def transposed(self) -> BlockLists:
        """For each key tile its query tiles: rows are (b, h, key tile), the two counts of tiles change places."""
        from attngen.planner.transpose import transpose

        return transpose(self)


@value
class DeviceBlockLists:
    """Block lists that were built on a device and never left it, so that no size of theirs is known to the host.

    Fields are those of `BlockLists`, int32 tensors on one device. Both kinds of tiles share one tensor with room for
    every tile: the full lists begin where the partial ones end, and what follows them belongs to no row. Row r's full
    tiles are `full_index[full_ptr[r]:full_ptr[r + 1]]` all the same.
    """

    batch: int
    heads: int
    n_q_tiles: int
    n_k_tiles: int
    partial_ptr: torch.Tensor
    partial_index: torch.Tensor
    full_ptr: torch.Tensor
    full_index: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of metadata, room included."""
        return sum(
            t.numel() * t.element_size() for t in (self.partial_ptr, self.partial_index, self.full_ptr)
        )


@value
class AxisRun:
    """The key tiles a query tile visits along one axis of a box schedule, as names of the plan's lets.

    `[start, end)` are visited, and where every axis is in `[full_start, full_end)` no mask is needed. `[lo, hi)`
    is the hull: the coordinates, counted from the origin of the tiling, that some row of the tile may see.
    """

    axis: str
    start: str
    end: str
    full_start: str
    full_end: str
    lo: str
    hi: str


@value
class BoxPlan:
    """A mask whose tiles are boxes of token coordinates (see `layout`).

    lets    named integer expressions in order of evaluation; they read `layout.lo_name(axis)` and `hi_name(axis)`
            of the query tile, the group's coordinate as `Var(group)`, box shapes, origins, sizes, parameters,
            `b`, `h`, captured tensors indexed by these, and earlier lets.
    runs    one an axis: the key tiles of a query tile are the product of the runs. Empty where the mask is
            no product over the axes: then lists say which key boxes a query box visits.
    tight   as for `TilePlan`, over the product of the hulls.
    rows    where every axis keeps one run of keys a row: for each tiled axis its name, the first coordinate and one
            past the last that a row keeps, in the row's own coordinate `Var("q", axis)`: all there is to the mask.
    keep    the mask in the layout's own coordinates `Var(rank, axis)`; what residue classes say is left out, because
            a tile holds one. None keeps every pair.
    """

    q: Layout
    k: Layout
    lets: tuple[tuple[str, Expr], ...]
    runs: tuple[AxisRun, ...]
    tight: bool
    keep: Expr | None = None
    rows: tuple[tuple[str, Expr, Expr], ...] = ()


@value
class MaskPlan:
    """Which form a mask's schedule takes.

    ranges  the closed form on a line, None for lists and for boxes.
    boxes   set where tiles are boxes of coordinates; "ranges" with runs in it, "lists" without.
    """

    form: Literal["ranges", "lists"]
    ranges: TilePlan | None
    reason: str
    notes: tuple[str, ...] = ()
    boxes: BoxPlan | None = None
