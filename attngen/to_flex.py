"""A schedule as FlexAttention's `BlockMask`: the same blocks, with the program's mask to decide inside partial ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from attngen.arguments import as_numpy
from attngen.eager import evaluate_with_torch
from attngen.lang.desugar import desugar_expr
from attngen.lang.domain import on_a_line
from attngen.planner.blocks import build_blocks

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    from attngen.lang.program import Program
    from attngen.planner.plan import BlockLists
    from attngen.planner.schedule import Schedule

Tensor = torch.Tensor
Number = int | float | bool
MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def convertible(
    schedule: Schedule, program: Program, tensors: Mapping[str, Tensor], params: Mapping[str, Number]
) -> Schedule:
    """The schedule of a program's mask, for which `to_block_mask` now works."""
    return replace(schedule, _as_block_mask=partial(block_mask, program, tensors, params))


def block_mask(
    program: Program,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Number],
    schedule: Schedule,
    device: torch.device | str | None,
) -> BlockMask:
    """The blocks of `schedule`, in its block sizes; on `device`, by default where the captured tensors lie.

    Where tiles are boxes of coordinates, runs of tokens take their place.
    """
    from torch.nn.attention.flex_attention import BlockMask, noop_mask

    home = device if device is not None else next((t.device for t in tensors.values()), torch.device("cpu"))
    sizes = {"n_q": schedule.n_q, "n_k": schedule.n_k, "n_b": schedule.batch, "n_h": schedule.heads}
    moved = {name: t.to(home) for name, t in tensors.items()}
    keep = mask_function(program, {**params, **moved}, sizes) or noop_mask
    lists = schedule.lists() if schedule.boxes is None else _lists(program, tensors, params, schedule)
    partial = _dense(lists, lists.partial_ptr, lists.partial_index, home)
    full = _dense(lists, lists.full_ptr, lists.full_index, home)
    return BlockMask.from_kv_blocks(
        *partial,
        *full,
        BLOCK_SIZE=(schedule.block_q, schedule.block_k),
        mask_mod=keep,
        seq_lengths=(schedule.n_q, schedule.n_k),
    )


def mask_function(
    program: Program, values: Mapping[str, Any], sizes: Mapping[str, int | None]
) -> MaskMod | None:
    """The program's mask as a FlexAttention mask_mod; None when every pair is kept.

    `values` holds captured tensors and parameters, `sizes` extents such as `n_k`.
    """
    written = on_a_line(program).mask
    if written is None:
        return None
    mask = desugar_expr(written)

    def keep(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        kept = evaluate_with_torch(mask, {"b": b, "h": h, "q": q, "k": k}, values, sizes)
        return kept if isinstance(kept, Tensor) else torch.full_like(q, bool(kept), dtype=torch.bool)

    return keep


def _lists(
    program: Program, tensors: Mapping[str, Tensor], params: Mapping[str, Number], schedule: Schedule
) -> BlockLists:
    return build_blocks(
        on_a_line(program),
        {**params, **as_numpy(tensors)},
        n_q=schedule.n_q,
        n_k=schedule.n_k,
        batch=schedule.batch,
        heads=schedule.heads,
        block_q=schedule.block_q,
        block_k=schedule.block_k,
    )


def _dense(
    lists: BlockLists, ptr: NDArray[np.int32], index: NDArray[np.int32], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Compressed lists as counts [B|1, H|1, query blocks] and indices [.., key blocks], int32."""
    shape = (lists.batch, lists.heads, lists.n_q_tiles)
    counts = np.diff(ptr)
    rows = np.repeat(np.arange(counts.size), counts)
    place = np.arange(index.size) - np.repeat(ptr[:-1], counts)
    out = np.zeros((counts.size, lists.n_k_tiles), np.int32)
    out[rows, place] = index
    return (
        torch.from_numpy(counts.reshape(shape)).to(device),
        torch.from_numpy(out.reshape(*shape, lists.n_k_tiles)).to(device),
    )
