"""The boxes of one call: shapes chosen for its lengths and values, the tiles they make, and lists where needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from attngen.errors import ShapeError
from attngen.lang.domain import size_param
from attngen.lang.program import Program
from attngen.planner.box_blocks import build_box_blocks
from attngen.planner.choose_boxes import Call, choose_boxes
from attngen.planner.evaluate_boxes import BoxExtents, box_extents
from attngen.planner.evaluate_plan import with_defaults
from attngen.planner.layout import Boxes
from attngen.planner.plan import BlockLists, BoxPlan
from attngen.planner.plan_mask import check_grid


@dataclass(frozen=True, slots=True)
class BoxCall:
    """Box shapes, the tiles of each rank along each axis, and the lists of a mask that is no product over axes."""

    boxes: Boxes
    extents: BoxExtents
    lists: BlockLists | None

    @property
    def n_q_tiles(self) -> int:
        """Query tiles of one head."""
        return prod(self.extents.q_tiles)


def make_box_call(
    program: Program, plan: BoxPlan, values: Mapping[str, Any], call: Call, boxes: Boxes | None = None
) -> BoxCall:
    """Choose shapes for `call`, unless `boxes` gives them, and count the tiles.

    Raises MissingTensorError or ParameterError for the extents of a grid, ShapeError for a grid with more tokens than
    the call has keys.
    """
    values = with_defaults(program, values)
    check_grid(program, values)
    check_tokens(program, values, call.n_k)
    boxes = boxes or choose_boxes(program, plan, call)
    extents = box_extents(plan, boxes, values, n_q=call.n_q, n_k=call.n_k, batch=call.batch, heads=call.heads)
    lists = None if plan.runs else build_box_blocks(program, plan, boxes, values, extents)
    return BoxCall(boxes, extents, lists)


def check_tokens(program: Program, values: Mapping[str, Any], n_k: int) -> None:
    """Raise ShapeError for a grid that holds more tokens than there are keys."""
    if not program.grid or not n_k:
        return
    sizes = [int(values[size_param(axis)]) for axis in program.grid]
    if prod(sizes) > n_k:
        shape = " x ".join(map(str, sizes))
        raise ShapeError(
            f"a grid of {shape} has {prod(sizes)} tokens, but there are {n_k} keys",
            hint="tokens beyond the grid may follow it; there cannot be fewer than it holds",
        )
