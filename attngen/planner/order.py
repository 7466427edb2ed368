"""The order in which rows of work are launched: longest first, so that no long row is left for the end.

    before   tiles of work by row of a causal head     1 2 3 4 5 6 7 8
    after    rows in order of launching                7 6 5 4 3 2 1 0

Heads of one call may differ by orders of magnitude (a window beside dense attention); a GPU that takes rows as they
come then idles behind the last of them. Rows of equal work keep their order, so that neighbours of one head, which
share most of their keys, run together; and heads are taken together only while their keys and values fit a cache.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from attngen.lang.expr import free_vars
from attngen.lang.program import Program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attngen.planner.evaluate_boxes import RunArrays
    from attngen.planner.evaluate_plan import PieceArrays
    from attngen.planner.plan import BlockLists, DeviceBlockLists, MaskPlan

FULL, PARTIAL = 4, 5  # cost of a tile: one that needs the mask takes about a quarter more

Array = Any  # a numpy array or a torch tensor


def needs_order(program: Program, plan: MaskPlan) -> bool:
    """Whether rows of work may differ between heads or batch entries, or lists say how long each of them is."""
    return plan.form == "lists" or (program.mask is not None and not free_vars(program.mask).isdisjoint("bh"))


def work_of_lists(lists: BlockLists | DeviceBlockLists) -> Array:
    """The work of every row, int32 `[B|1, H|1, query tiles]`, where the lists lie."""
    partial = lists.partial_ptr[1:] - lists.partial_ptr[:-1]
    full = lists.full_ptr[1:] - lists.full_ptr[:-1]
    return (partial * PARTIAL + full * FULL).reshape(lists.batch, lists.heads, lists.n_q_tiles)


def work_of_pieces(pieces: Sequence[PieceArrays], shape: tuple[int, int, int]) -> Array:
    """The work of every row of a closed-form plan, int32 `[B|1, H|1, query tiles]`; `shape` where there is no piece."""
    out = np.zeros(shape, dtype=np.int64)
    for p in pieces:
        full = p.full_end - p.full_start
        out += (p.end - p.start - full) * PARTIAL + full * FULL
    return out.clip(max=np.iinfo(np.int32).max).astype(np.int32)


def work_of_runs(runs: Sequence[RunArrays], shape: tuple[int, ...]) -> Array:
    """The work of every row of a plan of boxes, int32 `[B|1, H|1, query tiles]`; `shape` has an axis a coordinate."""
    from attngen.planner.evaluate_boxes import visits_of_each

    visited, full = visits_of_each(runs, len(shape))
    out = np.broadcast_to(visited * PARTIAL - full * (PARTIAL - FULL), shape)
    return out.reshape(*shape[:2], prod(shape[2:])).clip(max=np.iinfo(np.int32).max).astype(np.int32)


def launch_order(work: Array, *, batch: int, heads: int, together: int | None = None) -> Array:
    """The rows `(b * heads + h) * query tiles + tile` of a call, most work first, as an int32 permutation.

    `work` is `[B|1, H|1, query tiles]`, of numpy or of torch; the order lies where it does, and nothing is asked of a
    device. Rows of equal work keep their order. With `together`, so many heads (counted over the batch, those with the
    most work first) are gone through before the next ones, so that their keys and values stay in cache; the order is
    longest first within them.
    """
    shape = (batch, heads, work.shape[2])
    if isinstance(work, np.ndarray):
        rows = np.broadcast_to(work, shape).reshape(batch * heads, shape[2]).astype(np.int64)
        key = -rows
        if together is not None:
            heaviest = np.argsort(-rows.sum(1), kind="stable")
            key += (np.argsort(heaviest, kind="stable") // together << 32)[:, None]
        return np.argsort(key.reshape(-1), kind="stable").astype(np.int32)
    import torch

    rows = work.expand(shape).reshape(batch * heads, shape[2]).to(torch.int64)
    key = -rows
    if together is not None:
        heaviest = torch.argsort(-rows.sum(1), stable=True)
        key += (torch.argsort(heaviest, stable=True) // together << 32)[:, None]
    return torch.argsort(key.reshape(-1), stable=True).to(torch.int32)
