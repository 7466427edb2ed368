"""The captured tensors of a mask on a device, bounded over ranges of indices without asking the device anything.

As `tensors` and `pyramid`, but which windows are needed is settled on the host, from the indices' arithmetic: an index
without data in it has intervals that are known before anything runs. Every index of a table is then one look-up of
windows that are all built at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
import torch

from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr, Load, Size, Var, free_vars, loads
from attngen.planner.bounds import INTERVAL_OPS, Interval, interval, interval_of
from attngen.planner.evaluate_plan import Extents, given
from attngen.planner.pyramid import Blocks
from attngen.planner.sides import tile_leaves
from attngen.planner.tensors import axis_blocks, check_axes

_MOST_KNOWN = 256  # expressions of one frame; a mask has a few
_MOST_ENTRIES = 1 << 26  # of one tensor's windows; above it the tensor is cut into longer blocks

Tensor = torch.Tensor


class Frame:
    """What the tiles of some extents have in common on one device, whatever the mask and its data.

    leaves   the interval of each index over all tiles.
    known    intervals of expressions without data.
    levels   lengths of windows that an index of a table needs.
    """

    def __init__(self, at: Extents, device: torch.device) -> None:
        self.at = at
        self.leaves = tile_leaves(at, lambda n: torch.arange(n, dtype=torch.int64, device=device))
        self.known: dict[Expr, Interval] = {}
        self._host = tile_leaves(at, np.arange)
        self._levels: dict[tuple[Expr, int, Blocks | None], int] = {}

    def levels(self, index: Expr, size: int, block: Blocks | None) -> int:
        """Lengths of windows that an axis needs: 1, 2, ... `2 ** (levels - 1)` blocks."""
        key = (index, size, block)
        if key not in self._levels:
            self._levels[key] = self._count_levels(index, size, block)
        return self._levels[key]

    def _count_levels(self, index: Expr, size: int, block: Blocks | None) -> int:
        if block is None or not size:
            return 1
        widest = block.count(size)
        if len(free_vars(index) & {"q", "k"}) < 2 and not any(loads(index)):
            known = evaluate(index, self._leaf, INTERVAL_OPS)
            first, last = (block.of(x.clip(0, size - 1)) for x in (known.lo, known.hi))
            widest = int((last - first).max()) + 1
        return widest.bit_length()

    def _leaf(self, expr: Expr) -> Interval:
        match expr:
            case Const(value):
                return interval(value)
            case Var():
                return self._host[expr]
            case Size():
                return interval(1, 1 << 31)
            case _:
                raise AssertionError(expr)


@lru_cache(maxsize=8)
def _frame(at: Extents, device: torch.device) -> Frame:
    return Frame(at, device)


def frame(at: Extents, device: torch.device) -> Frame:
    """The frame of these extents, kept while few others are asked for and few masks used it."""
    found = _frame(at, device)
    if len(found.known) > _MOST_KNOWN:
        _frame.cache_clear()
        found = _frame(at, device)
    return found


class DeviceTensors:
    """The captured tensors of one mask. Equal ways of cutting one are shared."""

    def __init__(self, values: Mapping[str, Any], within: Frame) -> None:
        self._values, self._frame = values, within
        self._aligned = {"q": within.at.block_q, "k": within.at.block_k}
        self._built: dict[tuple[object, ...], Windows] = {}

    def read(self, load: Load, indices: list[Interval]) -> Interval:
        """The extremes of a load over intervals of its indices. Raises MissingTensorError, ShapeError."""
        tensor: Tensor = given(self._values, load.tensor)
        shape = tuple(tensor.shape)
        check_axes(load, shape)
        blocks = axis_blocks(load, shape, self._aligned)
        cuts = zip(load.indices, shape, blocks, strict=True)
        levels = tuple(self._frame.levels(index, size, block) for index, size, block in cuts)
        key = (load.tensor, blocks, levels)
        if key not in self._built:
            self._built[key] = Windows(tensor, blocks, levels)
        return self._built[key].query(indices)


class Windows:
    """The extremes of a tensor over all windows of `1, 2, 4, ...` blocks along each axis, `levels` of them."""

    def __init__(self, tensor: Tensor, blocks: tuple[Blocks | None, ...], levels: tuple[int, ...]) -> None:
        self._sizes = tuple(tensor.shape)
        blocks = _coarse_enough(self._sizes, blocks, levels)
        self._blocks, self._levels = blocks, levels
        low = high = tensor
        for axis, block in enumerate(blocks):
            if block is not None and block.length > 1 and tensor.numel():
                low, high = _blocked(low, axis, block, "amin"), _blocked(high, axis, block, "amax")
        for axis in reversed(range(tensor.dim())):
            if levels[axis] > 1 and tensor.numel():
                low = _windowed(low, axis, levels[axis], torch.minimum)
                high = _windowed(high, axis, levels[axis], torch.maximum)
        self._low, self._high = low, high

    def query(self, index: list[Interval]) -> Interval:
        """The extremes over a box of indices per tile; indices are clamped to their axes as kernels do."""
        if 0 in self._sizes:
            unknown = torch.full((), float("nan"), dtype=torch.float64, device=self._low.device)
            return Interval(unknown, unknown)
        corners: list[list[tuple[Tensor, ...]]] = []
        for x, size, block, levels in zip(index, self._sizes, self._blocks, self._levels, strict=True):
            lo = x.lo.clip(0, size - 1)
            first = lo if block is None else block.of(lo)
            if block is None or levels == 1:
                corners.append([(first,)])
                continue
            last = block.of(x.hi.clip(0, size - 1))
            # frexp(n) gives e with 2**(e - 1) <= n < 2**e: the largest window within the range is e - 1
            level = torch.frexp((last - first + 1).to(torch.float64)).exponent.to(torch.int64) - 1
            side = (level * 0 + 1) << level
            corners.append([(level, first), (level, last - side + 1)])
        places = [tuple(x for corner in choice for x in corner) for choice in product(*corners)]
        if not self._sizes:
            return interval_of(self._low, self._high)
        lo = self._low[places[0]]
        hi = lo if self._high is self._low else self._high[places[0]]
        for place in places[1:]:
            lo, hi = torch.minimum(lo, self._low[place]), torch.maximum(hi, self._high[place])
        return interval_of(lo, hi)


def _coarse_enough(
    sizes: tuple[int, ...], blocks: tuple[Blocks | None, ...], levels: tuple[int, ...]
) -> tuple[Blocks | None, ...]:
    """Longer blocks where the windows of all axes together would be too many. Ranges get wider, never wrong."""
    counts = [1 if b is None else b.count(max(size, 1)) for size, b in zip(sizes, blocks, strict=True)]
    entries = prod(
        size if b is None else n * c for size, b, n, c in zip(sizes, blocks, levels, counts, strict=True)
    )
    if entries <= _MOST_ENTRIES or all(c == 1 for c, n in zip(counts, levels, strict=True) if n > 1):
        return blocks
    longer = tuple(
        Blocks(b.length * 2, b.shift) if b is not None and n > 1 else b
        for b, n in zip(blocks, levels, strict=True)
    )
    return _coarse_enough(sizes, longer, levels)


def _blocked(x: Tensor, axis: int, block: Blocks, how: str) -> Tensor:
    """The extremes of the blocks of an axis; the first and the last may be short."""
    size, length = x.shape[axis], block.length
    head = min(size, length - block.shift) if block.shift else 0
    whole = (size - head) // length
    parts: list[Tensor] = []
    if head:
        parts.append(getattr(x.narrow(axis, 0, head), how)(axis, keepdim=True))
    if whole:
        parts.append(
            getattr(x.narrow(axis, head, whole * length).unflatten(axis, (whole, length)), how)(axis + 1)
        )
    tail = size - head - whole * length
    if tail:
        parts.append(getattr(x.narrow(axis, size - tail, tail), how)(axis, keepdim=True))
    return torch.cat(parts, axis) if len(parts) > 1 else parts[0]


def _windowed(x: Tensor, axis: int, levels: int, pick: Any) -> Tensor:
    """All windows of an axis, a level each along a new axis before it. Those that reach past the end are never read."""
    out = [x]
    for level in range(1, levels):
        out.append(pick(out[-1], torch.roll(out[-1], -(1 << (level - 1)), axis)))
    return torch.stack(out, axis)
