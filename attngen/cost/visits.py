"""The tiles that a launch visits, from its real schedule: what each row of work does, and what all of them do.

A row of work is one tile of queries of one head. Dense counts would say that a window costs as much as no mask at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attngen.planner.evaluate_boxes import box_extents, evaluate_boxes, visits
from attngen.planner.evaluate_plan import Extents, evaluate_plan, with_defaults
from attngen.planner.plan import MaskPlan
from attngen.planner.schedule import depends_on, make_schedule

if TYPE_CHECKING:
    from attngen.lang.program import Program
    from attngen.planner.layout import Boxes

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Visits:
    """What every row of work visits: int64 `[B, H, q tiles]`, in the order in which they lie.

    partial, full   tiles of keys with the mask and without.
    rows, keys      queries and keys that a tile holds.
    n_q, n_k        lengths, and `batch` and `heads`, of the call.
    panel_keys      keys from the first to the last that a panel of queries sees, summed over the panels of all heads,
                    and those of them that all its queries see; None where the schedule has no closed form a row.
    panels          panels of queries of all heads.
    in_rows         whether tiles are runs of tokens, not boxes of coordinates.
    """

    partial: IntArray
    full: IntArray
    rows: int
    keys: int
    n_q: int
    n_k: int
    batch: int
    heads: int
    panels: int = 0
    panel_keys: tuple[float, float] | None = None
    in_rows: bool = True

    @property
    def n_partial(self) -> int:
        """Tiles with the mask, of all heads."""
        return int(self.partial.sum())

    @property
    def n_full(self) -> int:
        """Tiles without it."""
        return int(self.full.sum())


@dataclass(frozen=True, slots=True)
class Call:
    """What a schedule is made for: the program as it is scheduled, its plan, and the values of a call."""

    program: Program
    plan: MaskPlan
    values: Mapping[str, Any]
    n_q: int
    n_k: int
    batch: int
    heads: int


def visits_of(call: Call, rows: int, keys: int, boxes: Boxes | None, panel: int = 0) -> Visits:
    """The tiles of `rows` queries and `keys` keys that a call visits; `panel` queries share a look at the mask.

    `rows` and `keys` are those a tile of tokens has; boxes bring their own.
    """
    schedule = make_schedule(
        call.program, call.plan, call.values,
        n_q=call.n_q, n_k=call.n_k, batch=call.batch, heads=call.heads, block_q=rows, block_k=keys, boxes=boxes,
    )  # fmt: skip
    shape = (call.batch, call.heads, schedule.n_q_tiles)
    partial, full = (np.broadcast_to(x, shape) for x in schedule.by_row())
    if schedule.boxes is not None:
        rows, keys = schedule.boxes.volume("q"), schedule.boxes.volume("k")
    found = Visits(partial, full, rows, keys, call.n_q, call.n_k, call.batch, call.heads)
    if not panel:
        return found
    heads = call.batch * call.heads
    if schedule.boxes is not None:
        panels = heads * schedule.n_q_tiles * -(-rows // panel)
        keys_of = _panel_keys_of_boxes(call, panel, schedule.boxes)
        return replace(found, panels=panels, panel_keys=keys_of, in_rows=False)
    return replace(found, panels=heads * -(-call.n_q // panel), panel_keys=_panel_keys(call, panel))


def _panel_keys(call: Call, panel: int) -> tuple[float, float] | None:
    """The keys of the panels of a closed form, of all heads: those in their runs, and those that need no mask."""
    plan = call.plan.ranges
    if plan is None:
        return None
    by = _by_lead(call)
    at = Extents(call.n_q, call.n_k, call.batch, call.heads, panel, 1)
    values = with_defaults(call.program, call.values)
    pieces = evaluate_plan(plan, values, at, per_batch=by.batch, per_head=by.head)
    spans = sum(float(np.maximum(p.end - p.start, 0).sum()) for p in pieces)
    whole = sum(float(np.maximum(np.minimum(p.full_end, p.end) - p.full_start, 0).sum()) for p in pieces)
    return by.times * spans, by.times * whole


def _panel_keys_of_boxes(call: Call, panel: int, boxes: Boxes) -> tuple[float, float] | None:
    """The same for boxes: a panel is a smaller box, cut along the slowest axes, and meets boxes of one key."""
    plan = call.plan.boxes
    if plan is None or not plan.runs:
        return None
    left, shapes = panel, list(boxes.shapes)
    for i in reversed(range(len(shapes))):
        q = min(shapes[i].q, max(left, 1))
        left //= max(q, 1)
        shapes[i] = replace(shapes[i], q=q, k=1)
    small, by = replace(boxes, shapes=tuple(shapes)), _by_lead(call)
    values = with_defaults(call.program, call.values)
    at = box_extents(plan, small, values, n_q=call.n_q, n_k=call.n_k, batch=call.batch, heads=call.heads)
    runs = evaluate_boxes(plan, small, values, at, per_batch=by.batch, per_head=by.head)
    leads = (call.batch if by.batch else 1, call.heads if by.head else 1)
    spans, whole = visits(runs, (*leads, *at.q_tiles))
    return float(by.times * spans), float(by.times * whole)


@dataclass(frozen=True, slots=True)
class _ByLead:
    """Whether a mask differs between batch entries and between heads, and how often one pattern is repeated."""

    batch: bool
    head: bool
    times: int


def _by_lead(call: Call) -> _ByLead:
    mask = call.program.mask
    batch, head = depends_on(mask, "b"), depends_on(mask, "h")
    return _ByLead(batch, head, (1 if batch else call.batch) * (1 if head else call.heads))
