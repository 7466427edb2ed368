"""Least and greatest value of a captured tensor over ranges of indices, without reading the ranges.

A sparse table: level `j` of an axis holds the extreme of every window of `2**j` neighbouring blocks, so any range is
the extreme of two overlapping windows. Blocks keep it small; ranges are rounded outward to whole blocks, which is
exact for aligned tiles. Levels are built when a query needs them.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngen.planner.bounds import Interval, interval

Array = NDArray[Any]


class Pyramid:
    """The extremes of one tensor.

    `blocks` gives, per axis, the number of indices in a block, or None for an axis that is always read at a single
    index. Queries take one interval per axis.
    """

    def __init__(self, tensor: Array, blocks: tuple[int | None, ...]) -> None:
        self._ranged = [a for a, block in enumerate(blocks) if block is not None]
        self._single = [a for a, block in enumerate(blocks) if block is None]
        self._sizes = [tensor.shape[a] for a in self._single + self._ranged]
        self._blocks = [b for b in blocks if b is not None]
        base = tensor.transpose(self._single + self._ranged)
        self._empty = 0 in tensor.shape
        low = high = base
        if not self._empty:
            for i, block in enumerate(self._blocks):
                axis = len(self._single) + i
                starts = np.arange(0, base.shape[axis], block)
                if block > 1:
                    low = np.minimum.reduceat(low, starts, axis=axis)
                    high = np.maximum.reduceat(high, starts, axis=axis)
        self._levels: dict[tuple[int, ...], tuple[Array, Array]] = {(0,) * len(self._blocks): (low, high)}

    def query(self, index: list[Interval]) -> Interval:
        """The extremes over a box of indices per tile; indices are clamped to their axes as kernels do."""
        ordered = [index[a] for a in self._single + self._ranged]
        shape = np.broadcast_shapes(*(x.lo.shape for x in ordered)) if ordered else ()
        if self._empty:
            return interval(np.full(shape, np.nan))
        ends = [
            (np.clip(x.lo, 0, size - 1), np.clip(x.hi, 0, size - 1))
            for x, size in zip(ordered, self._sizes, strict=True)
        ]
        n = len(self._single)
        single = [np.broadcast_to(lo, shape).reshape(-1) for lo, _ in ends[:n]]
        first = [
            np.broadcast_to(lo // b, shape).reshape(-1)
            for (lo, _), b in zip(ends[n:], self._blocks, strict=True)
        ]
        last = [
            np.broadcast_to(hi // b, shape).reshape(-1)
            for (_, hi), b in zip(ends[n:], self._blocks, strict=True)
        ]
        lo, hi = self._look_up(single, first, last)
        return interval(lo.reshape(shape), hi.reshape(shape))

    def _look_up(self, single: list[Array], first: list[Array], last: list[Array]) -> tuple[Array, Array]:
        if not first:
            values = self._levels[()][0][tuple(single)]
            return values, values
        # frexp(n) gives the exponent e with 2**(e - 1) <= n < 2**e: the largest window within the range is e - 1
        levels = [np.frexp((b - a + 1).astype(np.float64))[1] - 1 for a, b in zip(first, last, strict=True)]
        low, high = self._levels[(0,) * len(first)]
        lo, hi = np.empty(first[0].shape, dtype=low.dtype), np.empty(first[0].shape, dtype=high.dtype)
        code = np.ravel_multi_index(levels, (64,) * len(levels))
        for one in np.unique(code):
            at = np.flatnonzero(code == one)
            level = tuple(int(j) for j in np.unravel_index(one, (64,) * len(levels)))
            low, high = self._level(level)
            corners = [(a[at], b[at] - (1 << j) + 1) for a, b, j in zip(first, last, level, strict=True)]
            places = [tuple([s[at] for s in single] + list(c)) for c in product(*corners)]
            lo[at] = np.minimum.reduce([low[p] for p in places])
            hi[at] = np.maximum.reduce([high[p] for p in places])
        return lo, hi

    def _level(self, level: tuple[int, ...]) -> tuple[Array, Array]:
        found = self._levels.get(level)
        if found is not None:
            return found
        i = max(range(len(level)), key=lambda axis: level[axis])
        below = (*level[:i], level[i] - 1, *level[i + 1 :])
        low, high = self._level(below)
        axis, step = len(self._single) + i, 1 << (level[i] - 1)
        here = tuple(slice(None) for _ in range(axis))
        left, right = (*here, slice(None, -step)), (*here, slice(step, None))
        built = np.minimum(low[left], low[right]), np.maximum(high[left], high[right])
        self._levels[level] = built
        return built
