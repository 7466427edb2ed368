"""Lists of key boxes for a mask that is no product over the axes: interval arithmetic on a tree of boxes.

The descent of `blocks`, in as many dimensions as the grid has: boxes of tiles are classified with an interval for each
coordinate, and only those that are neither empty nor full are halved along every axis, down to the tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from attngen.lang.expr import Expr, Var
from attngen.lang.program import Program
from attngen.planner.blocks import leading, prepared
from attngen.planner.bounds import Interval, interval
from attngen.planner.descent import Classifier, descend
from attngen.planner.evaluate_boxes import BoxExtents, BoxValues
from attngen.planner.found import Found
from attngen.planner.layout import Boxes, Layout, box_name, origin_name
from attngen.planner.plan import BlockLists, BoxPlan
from attngen.planner.sides import Sides
from attngen.planner.squares import Grid
from attngen.planner.tensors import Pyramids


def build_box_blocks(
    program: Program, plan: BoxPlan, boxes: Boxes, values: Mapping[str, Any], at: BoxExtents
) -> BlockLists:
    """The partial and the full key boxes of every query box, numbered in the order of the layout's axes.

    Sound as `blocks.build_blocks`: a key box that overhangs the tokens is never full. Raises MissingTensorError.
    """
    mask = prepared(program, values, at)
    grid = Grid(*leading(mask, at), at.q_tiles, at.k_tiles)
    found = Found(grid)
    if prod(grid.tiles):
        n_q, n_k = len(at.q_tiles), len(at.k_tiles)
        leaves: dict[Expr, Interval] = {
            Var("b"): interval(np.arange(at.batch).reshape(-1, *[1] * (1 + n_q + n_k))),
            Var("h"): interval(np.arange(at.heads).reshape(1, -1, *[1] * (n_q + n_k))),
        }
        number = BoxValues(values, {name: at.size(name) for name in ("n_q", "n_k", "n_b", "n_h")}, {})
        q = _coordinates(plan.q, boxes, number, at.q_tiles, at.n_q, (2, n_k), leaves)
        k = _coordinates(plan.k, boxes, number, at.k_tiles, at.n_k, (2 + n_q, 0), leaves)
        rows = Interval(np.ones_like(q.lo), q.hi)  # rows that do not exist count nowhere
        sides = Sides(mask, leaves, Pyramids(values, {}).read)
        descend(Classifier(sides, grid, [rows, k]), grid, found)
    return found.lists()


def _coordinates(
    layout: Layout,
    boxes: Boxes,
    number: BoxValues,
    tiles: tuple[int, ...],
    count: int,
    around: tuple[int, int],
    leaves: dict[Expr, Interval],
) -> Interval:
    """Sets the intervals of a rank's coordinates and token over its tiles; from whether all its tokens exist to any.

    `around` counts the axes of the arrays before and after those of the rank.
    """
    sides = boxes.numbers()
    some = every = np.ones([1] * (sum(around) + len(tiles)), dtype=bool)
    least = greatest = np.zeros(some.shape, dtype=np.int64)
    for i, (axis, n) in enumerate(zip(layout.axes, tiles, strict=True)):
        extent, stride = int(number(axis.extent)), int(number(axis.stride))
        box, origin = sides[box_name(layout.rank, axis.name)], sides[origin_name(axis.name)]
        shape = [1] * some.ndim
        shape[around[0] + i] = n
        first = (np.arange(n) * box - origin).reshape(shape)
        end = first + box
        lo, hi = np.maximum(first, 0), np.minimum(end, extent) - 1
        some = some & (lo <= hi)
        every = every & (first >= 0) & (end <= extent)
        lo = np.minimum(lo, max(extent - 1, 0))
        hi = np.maximum(hi, lo)
        leaves[Var(layout.rank, axis.name)] = interval(lo, hi)
        least, greatest = least + lo * stride, greatest + hi * stride
    top = max(count - 1, 0)
    leaves[Var(layout.rank)] = interval(np.minimum(least, top), np.minimum(greatest, top))
    return Interval(every & (greatest < count), some & (least < count))
