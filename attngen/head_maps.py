"""The block maps of a schedule: one for all heads that agree, and for boxes one for each axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from attngen.blockmap import EMPTY, FULL, PARTIAL
from attngen.planner.evaluate_boxes import box_extents, evaluate_boxes
from attngen.planner.schedule import depends_on

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attngen.lang.program import Program
    from attngen.planner.evaluate_boxes import RunArrays
    from attngen.planner.plan import MaskPlan
    from attngen.planner.schedule import Schedule

    Tiles = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class AxisMap:
    """Query tiles by key tiles along one axis of the boxes, int8 `[q tiles, k tiles]` of that axis.

    With runs, what the axis's own run says. With lists, what all pairs of tiles over it have in common: 2 where all
    are full, 0 where all are empty.
    """

    axis: str
    tiles: Tiles


@dataclass(frozen=True, slots=True)
class HeadMap:
    """The block map that some heads share.

    label   "every head", or which: "heads 0-3", "batch 1, head 2".
    heads   these heads as (batch entry, head); batch entries or heads that no mask tells apart count as one.
    tiles   int8 `[q tiles, k tiles]`: 0 empty, 1 partial, 2 full.
    axes    a map for each axis of the boxes; empty where tiles are runs of tokens.
    """

    label: str
    heads: tuple[tuple[int, int], ...]
    tiles: Tiles
    axes: tuple[AxisMap, ...]


def head_maps(
    program: Program, plan: MaskPlan, schedule: Schedule, values: Mapping[str, Any], classes: NDArray[np.int8]
) -> tuple[HeadMap, ...]:
    """A map for each set of heads that agree, in the order of their first heads.

    `classes` are `schedule.tiles()`; `values` holds parameters and captured tensors as numpy arrays.
    """
    groups: dict[bytes, list[tuple[int, int]]] = {}
    for b in range(classes.shape[0]):
        for h in range(classes.shape[1]):
            digest = sha256(np.ascontiguousarray(classes[b, h]).data).digest()
            groups.setdefault(digest, []).append((b, h))
    runs = _runs(program, plan, schedule, values)
    out: list[HeadMap] = []
    for heads in groups.values():
        tiles = classes[heads[0]]
        axes = _of_lists(schedule, tiles) if runs is None else _of_runs(schedule, runs, heads[0])
        out.append(HeadMap(label_of(heads, classes.shape[:2]), tuple(heads), tiles, axes))
    return tuple(out)


def label_of(heads: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> str:
    """Which heads these are, out of `shape` batch entries and heads."""
    if len(heads) == shape[0] * shape[1]:
        return "every head"
    of_batch: dict[int, list[int]] = {}
    for b, h in heads:
        of_batch.setdefault(b, []).append(h)
    together: dict[tuple[int, ...], list[int]] = {}
    for b, found in of_batch.items():
        together.setdefault(tuple(found), []).append(b)
    parts: list[str] = []
    for found, batches in together.items():
        words: list[str] = []
        if shape[0] > 1:
            words.append(f"batch {_numbers(batches)}")
        if shape[1] > 1:
            words.append(f"head{'s' if len(found) > 1 else ''} {_numbers(found)}")
        parts.append(", ".join(words))
    return "; ".join(parts)


def _numbers(found: Sequence[int]) -> str:
    """`0-3, 7` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for n in found:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


def _runs(
    program: Program, plan: MaskPlan, schedule: Schedule, values: Mapping[str, Any]
) -> tuple[RunArrays, ...] | None:
    """The runs of a plan of boxes; None for lists and for runs of tokens."""
    if plan.boxes is None or schedule.boxes is None or not plan.boxes.runs:
        return None
    s = schedule
    extents = box_extents(
        plan.boxes, schedule.boxes, values, n_q=s.n_q, n_k=s.n_k, batch=s.batch, heads=s.heads
    )
    return evaluate_boxes(
        plan.boxes,
        schedule.boxes,
        values,
        extents,
        per_batch=depends_on(program.mask, "b"),
        per_head=depends_on(program.mask, "h"),
    )


def _of_runs(schedule: Schedule, runs: tuple[RunArrays, ...], head: tuple[int, int]) -> tuple[AxisMap, ...]:
    """What each run says of the tiles of its own axis; where it depends on other axes, what all of these agree on."""
    assert schedule.boxes is not None
    q_tiles, k_tiles = schedule.tile_grid
    out: list[AxisMap] = []
    for i, run in enumerate(runs):
        ends = np.broadcast_arrays(run.start, run.end, run.full_start, run.full_end)
        lines: list[NDArray[np.int64]] = []
        for x in ends:
            own = x[tuple(min(at, n - 1) for at, n in zip(head, x.shape[:2], strict=True))]
            own = np.broadcast_to(own, (*own.shape[:i], q_tiles[i], *own.shape[i + 1 :]))
            lines.append(np.moveaxis(own, i, 0).reshape(q_tiles[i], -1, 1))
        start, end, full_start, full_end = lines
        tile = np.arange(k_tiles[i])
        seen = (start <= tile) & (tile < end)
        full = seen & (full_start <= tile) & (tile < full_end)
        out.append(AxisMap(schedule.boxes.shapes[i].axis, _classes(seen.max(axis=1), full.min(axis=1))))
    return tuple(out)


def _of_lists(schedule: Schedule, tiles: Tiles) -> tuple[AxisMap, ...]:
    """What all pairs of tiles over a pair of tiles of one axis have in common; nothing for runs of tokens."""
    if schedule.boxes is None or not tiles.size:
        return ()
    q_tiles, k_tiles = schedule.tile_grid
    visited, full = _places(tiles != EMPTY, schedule), _places(tiles == FULL, schedule)
    out: list[AxisMap] = []
    for i, shape in enumerate(schedule.boxes.shapes):
        cells = q_tiles[i] * k_tiles[i]
        seen, whole = (
            np.bincount(q[i] * k_tiles[i] + k[i], minlength=cells).reshape(q_tiles[i], k_tiles[i])
            for q, k in (visited, full)
        )
        out.append(AxisMap(shape.axis, _classes(seen > 0, whole == tiles.size // cells)))
    return tuple(out)


def _places(
    which: NDArray[np.bool_], schedule: Schedule
) -> tuple[tuple[NDArray[np.int64], ...], tuple[NDArray[np.int64], ...]]:
    """The places of the query tiles and of the key tiles of some pairs, an array an axis."""
    rows, columns = np.nonzero(which)
    q_tiles, k_tiles = schedule.tile_grid
    return (
        tuple(x.astype(np.int64) for x in np.unravel_index(rows, q_tiles)),
        tuple(x.astype(np.int64) for x in np.unravel_index(columns, k_tiles)),
    )


def _classes(seen: NDArray[np.bool_], full: NDArray[np.bool_]) -> Tiles:
    return np.where(full & seen, FULL, np.where(seen, PARTIAL, EMPTY)).astype(np.int8)
