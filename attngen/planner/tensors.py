"""The captured tensors of a mask, as a planner reads them: bounded over ranges of indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from attngen.errors import ShapeError
from attngen.lang.expr import Apply, Expr, Load, Var, free_vars, walk
from attngen.lang.ops import OPS, Rule
from attngen.planner.bounds import Interval
from attngen.planner.evaluate_plan import given
from attngen.planner.poly import to_poly
from attngen.planner.pyramid import Blocks, Pyramid

_TABLE = 1 << 16  # entries of an axis that is read at computed indices, before it is cut into blocks


class Pyramids:
    """The captured tensors of a mask, bounded over ranges of indices. Equal ways of cutting one are shared.

    `aligned` gives the tile's length along the ranks whose tiles are runs of indices.
    """

    def __init__(self, values: Mapping[str, Any], aligned: Mapping[str, int]) -> None:
        self._values, self._aligned = values, aligned
        self._built: dict[tuple[str, tuple[Blocks | None, ...]], Pyramid] = {}

    def read(self, load: Load, indices: list[Interval]) -> Interval:
        """The extremes of a load over intervals of its indices. Raises MissingTensorError, ShapeError."""
        tensor = np.asarray(given(self._values, load.tensor))
        check_axes(load, tensor.shape)
        blocks = axis_blocks(load, tensor.shape, self._aligned)
        key = (load.tensor, blocks)
        if key not in self._built:
            self._built[key] = Pyramid(tensor, blocks)
        return self._built[key].query(indices)


def check_axes(load: Load, shape: tuple[int, ...]) -> None:
    """Raise ShapeError where a tensor has not as many axes as a load has indices."""
    if len(shape) != len(load.indices):
        raise ShapeError(
            f"`{load.tensor}` has {len(shape)} axes, but the mask reads it with {len(load.indices)} indices",
            loc=load.loc,
        )


def axis_blocks(load: Load, shape: tuple[int, ...], aligned: Mapping[str, int]) -> tuple[Blocks | None, ...]:
    """How each axis is cut: as the tiles are for an index that moves with them, None for one that no tile varies."""
    return tuple(_cut(index, size, aligned) for index, size in zip(load.indices, shape, strict=True))


def _cut(index: Expr, size: int, aligned: Mapping[str, int]) -> Blocks | None:
    if _is_single(index):
        return None
    poly = to_poly(index)
    for name, block in aligned.items():
        if poly.moving == (((Var(name),), 1),):
            return Blocks(block, -poly.constant % block)
    return Blocks(-(-size // _TABLE) or 1)


def _is_single(index: Expr) -> bool:
    """Whether the interval of an index is always one value: integer arithmetic on neither query nor key."""
    exact = {Rule.ARITH, Rule.COMPARE, Rule.LOGIC, Rule.SELECT}
    return not free_vars(index) & {"q", "k"} and all(
        OPS[n.op].rule in exact and n.op not in ("pow",) for n in walk(index) if isinstance(n, Apply)
    )
