"""Least and greatest value of a captured tensor over ranges of indices, without reading the ranges.

Blocks keep it small; ranges are rounded outward to whole blocks, which is exact for aligned tiles. Above them lie two
families of windows of `2**j` neighbouring blocks: those at multiples of their length, a fraction of the tensor in all,
for queries that are such windows; and those at every block, of which two overlapping ones cover any range. Windows are
built when a query needs them.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngen.planner.bounds import Interval, interval
from attngen.value import value

Array = NDArray[Any]
Level = tuple[int, ...]


@value
class Blocks:
    """How an axis is cut: `length` indices a block, the second block beginning at `length - shift`."""

    length: int
    shift: int = 0

    def of(self, index: Any) -> Any:
        """The block that holds an index."""
        if self.length == 1:
            return index
        return (index + self.shift if self.shift else index) // self.length

    def count(self, size: int) -> int:
        """Blocks of an axis of `size` indices."""
        return (size - 1 + self.shift) // self.length + 1


class Pyramid:
    """The extremes of one tensor.

    `blocks` says, per axis, how it is cut, or None for an axis that is always read at a single index. Queries take
    one interval per axis.
    """

    def __init__(self, tensor: Array, blocks: tuple[Blocks | None, ...]) -> None:
        self._ranged = [a for a, block in enumerate(blocks) if block is not None]
        self._single = [a for a, block in enumerate(blocks) if block is None]
        self._sizes = [tensor.shape[a] for a in self._single + self._ranged]
        self._blocks = [b for b in blocks if b is not None]
        self._empty = 0 in tensor.shape
        low = high = tensor.transpose(self._single + self._ranged)
        if not self._empty:
            for axis, block in enumerate(self._blocks, len(self._single)):
                if block.length > 1:
                    starts = np.arange(block.count(low.shape[axis])) * block.length - block.shift
                    starts[0] = 0
                    low = np.minimum.reduceat(low, starts, axis=axis)
                    high = np.maximum.reduceat(high, starts, axis=axis)
        bottom: Level = (0,) * len(self._blocks)
        self._aligned: dict[Level, tuple[Array, Array]] = {bottom: (low, high)}
        self._anywhere: dict[Level, tuple[Array, Array]] = {bottom: (low, high)}

    def query(self, index: list[Interval]) -> Interval:
        """The extremes over a box of indices per tile; indices are clamped to their axes as kernels do."""
        ordered = [index[a] for a in self._single + self._ranged]
        shape = np.broadcast_shapes(*(x.lo.shape for x in ordered)) if ordered else ()
        if self._empty:
            return interval(np.full(shape, np.nan))
        ends = [
            (x.lo.clip(0, size - 1), x.hi.clip(0, size - 1))
            for x, size in zip(ordered, self._sizes, strict=True)
        ]
        n = len(self._single)
        single = [lo for lo, _ in ends[:n]]
        first = [block.of(lo) for (lo, _), block in zip(ends[n:], self._blocks, strict=True)]
        last = [block.of(hi) for (_, hi), block in zip(ends[n:], self._blocks, strict=True)]
        return interval(*self._look_up(shape, single, first, last))

    def _look_up(
        self, shape: tuple[int, ...], single: list[Array], first: list[Array], last: list[Array]
    ) -> tuple[Array, Array]:
        level = self._aligned_level(first, last)
        if level is not None:
            low, high = self._aligned_windows(level)
            place = (*single, *(a >> j for a, j in zip(first, level, strict=True)))
            return (v[place] if place else v for v in (low, high))  # pyright: ignore[reportReturnType]
        flat = [[np.broadcast_to(x, shape).reshape(-1) for x in xs] for xs in (single, first, last)]
        lo, hi = self._windows_anywhere(*flat)
        return lo.reshape(shape), hi.reshape(shape)

    def _aligned_level(self, first: list[Array], last: list[Array]) -> Level | None:
        """The level whose windows at multiples of their length are the ranges; the last one may be cut short."""
        level: list[int] = []
        for axis, (a, b) in enumerate(zip(first, last, strict=True)):
            j = int((b - a).max(initial=0)).bit_length()
            side, end = 1 << j, self._blocks[axis].count(self._sizes[len(self._single) + axis]) - 1
            if j and not (((a & (side - 1)) == 0) & ((b == a + (side - 1)) | (b == end))).all():
                return None
            level.append(j)
        return tuple(level)

    def _windows_anywhere(
        self, single: list[Array], first: list[Array], last: list[Array]
    ) -> tuple[Array, Array]:
        """Each range as two overlapping windows an axis, of the largest length within it."""
        # frexp(n) gives the exponent e with 2**(e - 1) <= n < 2**e: the largest window within the range is e - 1
        levels = [np.frexp((b - a + 1).astype(np.float64))[1] - 1 for a, b in zip(first, last, strict=True)]
        low, high = self._anywhere[(0,) * len(first)]
        lo, hi = np.empty(first[0].shape, dtype=low.dtype), np.empty(first[0].shape, dtype=high.dtype)
        code = np.ravel_multi_index(levels, (64,) * len(levels))
        for one in np.unique(code):
            at = np.flatnonzero(code == one)
            level = tuple(int(j) for j in np.unravel_index(one, (64,) * len(levels)))
            low, high = self._windows(level)
            corners = [(a[at], b[at] - (1 << j) + 1) for a, b, j in zip(first, last, level, strict=True)]
            places = [tuple([s[at] for s in single] + list(c)) for c in product(*corners)]
            lo[at] = np.minimum.reduce([low[p] for p in places])
            hi[at] = np.maximum.reduce([high[p] for p in places])
        return lo, hi

    def _windows(self, level: Level) -> tuple[Array, Array]:
        """Windows that begin at every block."""
        found = self._anywhere.get(level)
        if found is None:
            below, axis = self._below(level)
            step = 1 << (level[axis - len(self._single)] - 1)
            low, high = self._windows(below)
            left, right = _slices(axis, slice(None, -step)), _slices(axis, slice(step, None))
            found = np.minimum(low[left], low[right]), np.maximum(high[left], high[right])
            self._anywhere[level] = found
        return found

    def _aligned_windows(self, level: Level) -> tuple[Array, Array]:
        """Windows that begin at multiples of their length."""
        found = self._aligned.get(level)
        if found is None:
            below, axis = self._below(level)
            low, high = self._aligned_windows(below)
            found = coarser(low, high, axis)
            self._aligned[level] = found
        return found

    def _below(self, level: Level) -> tuple[Level, int]:
        i = max(range(len(level)), key=lambda axis: level[axis])
        return (*level[:i], level[i] - 1, *level[i + 1 :]), len(self._single) + i


def coarser(low: Array, high: Array, axis: int) -> tuple[Array, Array]:
    """The extremes of pairs of neighbours along an axis; an odd one at the end is its own pair."""
    n = low.shape[axis]
    if low.dtype == np.bool_ and axis == low.ndim - 1 and n % 2 == 0 and _is_plain(low) and _is_plain(high):
        return low.view(np.uint16) == 0x0101, high.view(np.uint16) != 0  # both of two, any of two
    even, odd = _slices(axis, slice(0, n - n % 2, 2)), _slices(axis, slice(1, None, 2))
    lo, hi = np.minimum(low[even], low[odd]), np.maximum(high[even], high[odd])
    if n % 2:
        end = _slices(axis, slice(n - 1, None))
        lo, hi = np.concatenate([lo, low[end]], axis), np.concatenate([hi, high[end]], axis)
    return lo, hi


def _is_plain(x: Array) -> bool:
    return x.flags.c_contiguous


def _slices(axis: int, last: slice) -> tuple[slice, ...]:
    return (*(slice(None) for _ in range(axis)), last)
