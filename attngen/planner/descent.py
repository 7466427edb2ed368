"""The descent: squares of tiles classified from coarse to fine, by the interval of a mask on each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attngen.planner.bounds import INTERVAL_OPS, Interval, truth
from attngen.planner.found import Found
from attngen.planner.pyramid import coarser
from attngen.planner.sides import Sides
from attngen.planner.squares import Grid, Squares

_ROOTS = 8  # squares along the longest axis to start from
_CHUNK = 1 << 16  # squares classified at once


def descend(classify: Classifier, grid: Grid, found: Found) -> None:
    """Classify squares from coarse to fine; `found` gets the full ones, and the tiles left undecided as partial."""
    level = max(0, (max(grid.tiles) - 1) // _ROOTS).bit_length()
    pending = iter([grid.all_at(level)])
    while True:
        undecided: list[Squares] = []
        for squares in pending:
            full, empty = classify(squares, level)
            found.add(squares.at(full), level, full=True)
            undecided.append(squares.at(~(full | empty)))
        if level == 0:
            for squares in undecided:
                found.add(squares, 0, full=False)
            return
        rest = Squares.joined(undecided)
        if not len(rest):
            return
        level -= 1
        pieces = (rest.at(slice(i, i + _CHUNK // 4)) for i in range(0, len(rest), _CHUNK // 4))
        pending = (grid.parts_of(piece, level) for piece in pieces)


class Classifier:
    """Evaluates a mask on squares of tiles by interval arithmetic.

    `exists` holds booleans of one side, from whether all tokens of a tile exist to whether any does. A tile that has
    not all its keys is never full; rows beyond the last count nowhere.
    """

    def __init__(self, sides: Sides, grid: Grid, exists: Sequence[Interval]) -> None:
        self._sides, self._grid = sides, grid
        self._levels = [[*sides.parts, *(x for x in exists if not (x.lo.all() and x.hi.all()))]]

    def __call__(self, squares: Squares, level: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where every valid pair is kept, and where none is."""
        tables = self._tables(level)
        index = self._grid.lookup(squares, level)

        def part(number: int) -> Interval:
            table = tables[number]
            shape = table.lo.shape
            where = index(shape)
            if where is None:
                return Interval(table.lo.reshape(()), table.hi.reshape(()), table.literal)
            lo = table.lo.reshape(-1).take(where)
            return Interval(lo, lo if table.lo is table.hi else table.hi.reshape(-1).take(where))

        kept = self._sides.join(part)
        for number in range(len(self._sides.parts), len(tables)):
            kept = INTERVAL_OPS["and"](kept, part(number))
        full, empty = truth(kept)
        return np.broadcast_to(full, (len(squares),)), np.broadcast_to(empty, (len(squares),))

    def _tables(self, level: int) -> list[Interval]:
        """The parts over squares of `2**level` tiles a side: each what its tiles span together."""
        while len(self._levels) <= level:
            self._levels.append([self._coarser(x) for x in self._levels[-1]])
        return self._levels[level]

    def _coarser(self, x: Interval) -> Interval:
        lo, hi = x.lo, x.hi
        for axis in range(2, lo.ndim):
            if lo.shape[axis] > 1:
                lo, hi = coarser(lo, hi, axis)
        return Interval(lo, hi, x.literal)
