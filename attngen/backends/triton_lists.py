"""Block lists from a map of classes by two small kernels: one counts by row, one writes each row's tiles in place.

What `planner.device_blocks.device_lists` does with tensor operations, in two reads of the map.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from attngen.planner.found import check_count
from attngen.planner.plan import DeviceBlockLists

_MOST_COLUMNS = 1024  # key tiles looked at at once


@triton.jit
def _count(classes: Any, partial_ptr: Any, full_ptr: Any, n_columns: Any, BLOCK: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    partial = tl.zeros([BLOCK], dtype=tl.int32)
    full = tl.zeros([BLOCK], dtype=tl.int32)
    for start in range(0, n_columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        kind = tl.load(classes + row * n_columns + column, mask=column < n_columns, other=0)
        partial += (kind == 1).to(tl.int32)
        full += (kind == 2).to(tl.int32)
    tl.store(partial_ptr + row + 1, tl.sum(partial, 0))
    tl.store(full_ptr + row + 1, tl.sum(full, 0))


@triton.jit
def _write(
    classes: Any, partial_ptr: Any, full_ptr: Any, index: Any, n_columns: Any, BLOCK: tl.constexpr
) -> None:
    row = tl.program_id(0).to(tl.int64)
    next_partial = tl.load(partial_ptr + row)
    next_full = tl.load(full_ptr + row)
    for start in range(0, n_columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        kind = tl.load(classes + row * n_columns + column, mask=column < n_columns, other=0)
        partial = (kind == 1).to(tl.int32)
        full = (kind == 2).to(tl.int32)
        tl.store(index + next_partial + tl.cumsum(partial, 0) - 1, column, mask=kind == 1)
        tl.store(index + next_full + tl.cumsum(full, 0) - 1, column, mask=kind == 2)
        next_partial += tl.sum(partial, 0)
        next_full += tl.sum(full, 0)


def compress(classes: torch.Tensor) -> DeviceBlockLists:
    """The lists of an int8 map `[B|1, H|1, query tiles, key tiles]` of classes, without waiting for the device."""
    batch, heads, n_rows, n_columns = classes.shape
    check_count(classes.numel())
    classes = classes.contiguous()
    rows, device = batch * heads * n_rows, classes.device
    ptr = torch.zeros((2, rows + 1), dtype=torch.int32, device=device)
    index = torch.empty(max(classes.numel(), 1), dtype=torch.int32, device=device)
    if classes.numel():
        block: Any = min(triton.next_power_of_2(n_columns), _MOST_COLUMNS)
        with torch.cuda.device_of(classes):
            _count[(rows,)](classes, ptr[0], ptr[1], n_columns, BLOCK=block)
            ptr = torch.cumsum(ptr, 1, dtype=torch.int32)
            ptr[1] += ptr[0, -1]
            _write[(rows,)](classes, ptr[0], ptr[1], index, n_columns, BLOCK=block)
    return DeviceBlockLists(batch, heads, n_rows, n_columns, ptr[0], index, ptr[1], index)
