"""Block lists built on a device, with nothing asked of it: the launch that follows is queued behind them.

    1  each tile is classified by interval arithmetic, one side at a time and then for all pairs (see `sides`)
    2  tiles of each class are counted by row, and running sums of the counts are the row pointers
    3  every tile writes its column to its place: partial tiles first, then full ones, then those that nobody reads

No step needs a size, a count or a value on the host. The price is room for every tile, and work on each: flat, where
the descent of `blocks` follows the boundary of the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from attngen.lang.expr import Var, free_vars
from attngen.lang.program import Program
from attngen.planner.blocks import leading, prepared
from attngen.planner.bounds import Interval
from attngen.planner.device_tensors import DeviceTensors, frame
from attngen.planner.evaluate_plan import Extents, with_defaults
from attngen.planner.found import check_count
from attngen.planner.plan import DeviceBlockLists
from attngen.planner.sides import Sides

MOST_TILES = (
    1 << 28
)  # one gigabyte of lists: above it the host builds them, which takes room for visited tiles alone
_CHUNK = 1 << 24  # tiles worked on at once

Tensor = torch.Tensor


def fits(program: Program, at: Extents) -> bool:
    """Whether the room that lists on a device take is worth it."""
    reads = free_vars(program.mask) if program.mask is not None else frozenset[str]()
    leads = (at.batch if "b" in reads else 1) * (at.heads if "h" in reads else 1)
    return leads * at.q_tiles * at.k_tiles <= MOST_TILES


def build_device_blocks(
    program: Program,
    values: Mapping[str, Any],
    at: Extents,
    device: torch.device,
    compress: Callable[[Tensor], DeviceBlockLists] | None = None,
) -> DeviceBlockLists:
    """The lists of `blocks.build_blocks` as tensors on the device where captured tensors lie.

    `compress` makes lists of a map of classes; `device_lists` does by default, a backend may have a faster one.
    Raises MissingTensorError for a name the mask reads that is not in `values`, ShapeError for more tiles than 32 bits
    can count.
    """
    return (compress or device_lists)(device_classes(program, values, at, device))


def device_classes(
    program: Program, values: Mapping[str, Any], at: Extents, device: torch.device, chunk: int = _CHUNK
) -> Tensor:
    """int8 `[B|1, H|1, query tiles, key tiles]`: 0 empty, 1 partial, 2 full. `chunk` tiles are worked on at once."""
    mask = prepared(program, values, at)
    shape = (*leading(mask, at), at.q_tiles, at.k_tiles)
    out = torch.empty(shape, dtype=torch.int8, device=device)
    if not out.numel():
        return out

    def lift(x: Interval) -> Interval:
        lo, hi = (torch.full((), end.item(), dtype=_DTYPES[x.kind], device=device) for end in (x.lo, x.hi))
        return Interval(lo, hi, x.literal)

    within = frame(at, device)
    tensors = DeviceTensors(with_defaults(program, values), within)
    sides = Sides(mask, within.leaves, tensors.read, lift, within.known)
    whole = within.leaves[Var("k")].lo + at.block_k <= at.n_k if at.n_k % at.block_k else None
    rows = max(1, chunk // (shape[0] * shape[1] * shape[3]))
    for start in range(0, at.q_tiles, rows):
        here = slice(start, start + rows)

        def part(number: int, here: slice = here) -> Interval:
            x = sides.parts[number]
            if x.lo.dim() < 3 or x.lo.shape[2] == 1:
                return x
            return Interval(x.lo[:, :, here], x.hi[:, :, here], x.literal)

        kept = sides.join(part)
        full = kept.lo if whole is None else kept.lo & whole
        out[:, :, here] = full.to(torch.int8) + kept.hi.to(torch.int8)
    return out


_DTYPES = {"b": torch.bool, "i": torch.int64, "f": torch.float64}


def device_lists(classes: Tensor, chunk: int = _CHUNK) -> DeviceBlockLists:
    """The lists of a map of classes; of `classes.mT`, the lists by key tile. `chunk` tiles are worked on at once."""
    batch, heads, n_rows, n_columns = classes.shape
    check_count(classes.numel())
    rows = classes.reshape(batch * heads * n_rows, n_columns)
    partial_ptr, full_ptr = _pointers(rows == 1), _pointers(rows == 2)
    full_ptr += partial_ptr[-1]
    device = classes.device
    columns = torch.arange(n_columns, dtype=torch.int32, device=device)
    # of tiles that are neither, as many come before a row as there are tiles of which these are not
    before = torch.arange(rows.shape[0], dtype=torch.int32, device=device) * n_columns
    rest_ptr = before + full_ptr[-1] - partial_ptr[:-1] - (full_ptr[:-1] - partial_ptr[-1])
    index = torch.empty(max(rows.numel(), 1), dtype=torch.int32, device=device)
    step = max(1, chunk // max(n_columns, 1))
    for start in range(0, rows.shape[0] if n_columns else 0, step):
        here = slice(start, start + step)
        partial, full = rows[here] == 1, rows[here] == 2
        n_partial = torch.cumsum(partial, 1, dtype=torch.int32)
        n_full = torch.cumsum(full, 1, dtype=torch.int32)
        place = torch.where(
            partial,
            partial_ptr[:-1][here, None] + n_partial - 1,
            torch.where(
                full,
                full_ptr[:-1][here, None] + n_full - 1,
                rest_ptr[here, None] + columns - n_partial - n_full,
            ),
        )
        index.scatter_(0, place.reshape(-1).to(torch.int64), columns.expand(place.shape).reshape(-1))
    return DeviceBlockLists(batch, heads, n_rows, n_columns, partial_ptr, index, full_ptr, index)


def _pointers(picked: Tensor) -> Tensor:
    ptr = torch.zeros(picked.shape[0] + 1, dtype=torch.int32, device=picked.device)
    torch.cumsum(picked.sum(1, dtype=torch.int32), 0, dtype=torch.int32, out=ptr[1:])
    return ptr
