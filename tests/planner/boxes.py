"""Where each token lies in a box schedule, worked out token by token: the oracle of the box planner's tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from attngen.lang.domain import on_a_line
from attngen.lang.program import Program
from attngen.planner.evaluate_boxes import BoxValues
from attngen.planner.layout import Boxes, Layout
from attngen.planner.plan import MaskPlan
from attngen.planner.schedule import Schedule
from tests.planner.dense import dense


def layout_coordinates(
    layout: Layout, program: Program, values: dict[str, Any], n: int, offset: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The grid's coordinates of the first `n` tokens, and those of the layout, counted from its lowest.

    On a line the position of token 0 is `offset`. The residue classes are taken apart with Python's own division.
    """
    sizes = [max(n, 1), *(values[f"size_{axis}"] for axis in program.grid[1:])]
    grid = dict(zip(program.grid, np.unravel_index(np.arange(n), sizes), strict=True)) if program.grid else {}
    grid[""] = np.arange(n) + offset
    number = BoxValues(values, {"n_q": n, "n_k": n}, {})
    out: dict[str, np.ndarray] = {}
    for axis in layout.axes:
        if axis.name in grid:
            out[axis.name] = grid[axis.name]
        elif axis.group:
            of = axis.name.removesuffix("residue").removesuffix("_")
            step = f"{of}_step" if of else "step"
            classes = int(number(axis.extent))
            out[axis.name] = grid[of] % classes
            # steps count the tokens of a class, from the first that exists
            low = np.array(
                [min([*(grid[of][out[axis.name] == c] // classes), 2**30]) for c in range(classes)]
            )
            from_low = low[out[axis.name]] if of == "" and offset else 0
            out[step] = grid[of] // classes - from_low
    return grid, out


def tiles_of(
    layout: Layout, boxes: Boxes, counts: tuple[int, ...], coordinates: dict[str, np.ndarray]
) -> np.ndarray:
    """The number of each token's tile. `coordinates` holds those of the layout's axes, counted from their lowest."""
    out: Any = 0
    for shape, count in zip(boxes.shapes, counts, strict=True):
        box = shape.q if layout.rank == "q" else shape.k
        out = out * count + (coordinates[shape.axis] + shape.origin) // box
    return np.asarray(out)


def truth(program: Program, plan: MaskPlan, schedule: Schedule, values: dict[str, Any]) -> np.ndarray:
    """0 empty, 1 partial, 2 full for each pair of boxes, from the mask on all pairs of tokens."""
    line = on_a_line(program)
    with np.errstate(all="ignore"):
        kept = dense(line.mask, values, schedule.n_q, schedule.n_k, schedule.batch, schedule.heads)
    assert plan.boxes is not None
    assert schedule.boxes is not None
    offset = 0 if program.grid else schedule.n_k - schedule.n_q
    _, q = layout_coordinates(plan.boxes.q, program, values, schedule.n_q, offset)
    _, k = layout_coordinates(plan.boxes.k, program, values, schedule.n_k)
    q_counts, k_counts = schedule.tile_grid
    of_q = tiles_of(plan.boxes.q, schedule.boxes, q_counts, q)
    of_k = tiles_of(plan.boxes.k, schedule.boxes, k_counts, k)
    shape = (schedule.batch, schedule.heads, schedule.n_q_tiles, schedule.n_k_tiles)
    some, every = np.zeros(shape, dtype=bool), np.ones(shape, dtype=bool)
    for i in np.unique(of_q):
        for j in np.unique(of_k):
            part = kept[:, :, of_q == i][:, :, :, of_k == j]
            some[:, :, i, j], every[:, :, i, j] = part.any(axis=(2, 3)), part.all(axis=(2, 3))
    lanes = schedule.boxes.volume("k")
    whole = np.bincount(of_k, minlength=schedule.n_k_tiles) == lanes  # an overhanging box is never full
    return np.where(every & some & whole, 2, np.where(some, 1, 0)).astype(np.int8)
