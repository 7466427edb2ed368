"""Tiles found square by square become compressed lists.

A square gives one run of key tiles a row. Runs are ordered by row and first tile, which is cheap since there are far
fewer of them than tiles, and then written out.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from attngen.errors import ShapeError
from attngen.planner.plan import BlockLists
from attngen.planner.squares import Grid, IntArray, Squares

_LEVEL_BITS = 6
_WRITTEN = 1 << 20  # tiles written out at once


class Found:
    """Collects squares of one class or the other."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._column_bits = max(grid.columns - 1, 1).bit_length()
        self._partial: list[IntArray] = []
        self._full: list[IntArray] = []

    def add(self, squares: Squares, level: int, *, full: bool) -> None:
        """All tiles of the squares."""
        if len(squares):
            (self._full if full else self._partial).append(self._runs(squares, level))

    def _runs(self, squares: Squares, level: int) -> IntArray:
        """The runs as sortable numbers: row, first column and level, packed."""
        grid = self._grid
        place = [p << level for p in squares.place]
        lead = squares.lead
        for axis, extent in enumerate(grid.tiles[:-1]):
            if level:
                lengths = np.minimum(1 << level, extent - place[axis])
                owner = np.repeat(np.arange(lengths.size), lengths)
                lead, place = lead[owner], [p[owner] for p in place]
                place[axis] = place[axis] + counting(lengths)
        n_q = len(grid.q)
        row = _ravel([lead, *place[:n_q]], (0, *grid.q))
        column = _ravel(place[n_q:], grid.k)
        return ((row << self._column_bits | column) << _LEVEL_BITS) | level

    def lists(self) -> BlockLists:
        """The lists. Raises ShapeError where 32 bits cannot hold them."""
        grid = self._grid
        partial, full = self._compress(self._partial), self._compress(self._full)
        return BlockLists(grid.batch, grid.heads, prod(grid.q), grid.columns, *partial, *full)

    def _compress(self, parts: list[IntArray]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        ptr = np.zeros(self._grid.rows + 1, dtype=np.int32)
        if not parts:
            return ptr, np.zeros(0, dtype=np.int32)
        runs = np.concatenate(parts)
        parts.clear()
        runs.sort()
        start = runs >> _LEVEL_BITS & (1 << self._column_bits) - 1
        lengths = np.int64(1) << (runs & (1 << _LEVEL_BITS) - 1)
        last = self._grid.k[-1]
        np.minimum(lengths, last - (start if len(self._grid.k) == 1 else start % last), out=lengths)
        ends = lengths.cumsum()
        check_count(int(ends[-1]))
        rows = np.arange(1, self._grid.rows + 1) << (self._column_bits + _LEVEL_BITS)
        before = np.searchsorted(runs, rows)
        ptr[1:] = np.where(before > 0, ends[before - 1], 0)
        return ptr, _written(start, lengths, ends)


def _written(start: IntArray, lengths: IntArray, ends: IntArray) -> NDArray[np.int32]:
    """The tiles of runs, one run after the other."""
    if lengths.size == ends[-1]:
        return start.astype(np.int32)
    out = np.arange(ends[-1], dtype=np.int32)
    shift = (start - (ends - lengths)).astype(np.int32)
    edges = np.searchsorted(ends, np.arange(_WRITTEN, int(ends[-1]), _WRITTEN))
    for runs in np.split(np.arange(lengths.size), edges):
        if runs.size:
            tiles = slice(int(ends[runs[0]] - lengths[runs[0]]), int(ends[runs[-1]]))
            out[tiles] += np.repeat(shift[runs], lengths[runs])
    return out


def _ravel(place: list[IntArray], extents: tuple[int, ...]) -> IntArray:
    out = place[0]
    for p, extent in zip(place[1:], extents[1:], strict=True):
        out = out * extent + p
    return out


def check_count(n_tiles: int) -> None:
    """Raise ShapeError where int32 lists cannot hold this many tiles."""
    if n_tiles > np.iinfo(np.int32).max:
        raise ShapeError(
            f"block lists of {n_tiles} tiles do not fit 32-bit indices",
            hint="use larger tiles, or a mask that has closed-form ranges",
        )


def counting(lengths: IntArray) -> IntArray:
    """`0 .. n - 1` for each length `n`, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if ends.size else 0, dtype=np.int64) - np.repeat(ends - lengths, lengths)
