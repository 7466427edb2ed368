"""Squares of tiles: which tiles there are, how coarse squares of them are cut, and where a table holds theirs.

Query tiles and key tiles each fill a grid of one axis or more; a square of level `l` spans `2**l` tiles along each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


class Squares:
    """Squares of one level, one entry each: `lead` counts batch entries and heads, `place` the axes of the tiles."""

    __slots__ = ("lead", "place")

    def __init__(self, lead: IntArray, place: Sequence[IntArray]) -> None:
        self.lead, self.place = lead, tuple(place)

    def __len__(self) -> int:
        return self.lead.size

    def at(self, where: Any) -> Squares:
        """Those that a mask, an index array or a slice picks."""
        return Squares(self.lead[where], [p[where] for p in self.place])

    @staticmethod
    def joined(parts: list[Squares]) -> Squares:
        """All of them, in order."""
        lead = np.concatenate([p.lead for p in parts])
        return Squares(lead, [np.concatenate(axis) for axis in zip(*(p.place for p in parts), strict=True)])


class Grid:
    """The tiles of a schedule: batch entries, heads, and the extents in tiles of the queries and of the keys."""

    def __init__(self, batch: int, heads: int, q: tuple[int, ...], k: tuple[int, ...]) -> None:
        self.batch, self.heads, self.q, self.k = batch, heads, q, k

    @property
    def tiles(self) -> tuple[int, ...]:
        """Extents of all axes, those of the queries first."""
        return self.q + self.k

    @cached_property
    def rows(self) -> int:
        """Query tiles of all batch entries and heads."""
        return self.batch * self.heads * prod(self.q)

    @cached_property
    def columns(self) -> int:
        """Key tiles."""
        return prod(self.k)

    def extents(self, level: int) -> tuple[int, ...]:
        """Squares along each axis."""
        return tuple(-(-n >> level) for n in self.tiles)

    def all_at(self, level: int) -> Squares:
        """Every square of a level."""
        lead, *place = np.indices((self.batch * self.heads, *self.extents(level))).reshape(
            1 + len(self.tiles), -1
        )
        return Squares(lead, place)

    def parts_of(self, squares: Squares, level: int) -> Squares:
        """The squares of `level` in squares of the level above, as far as they hold tiles."""
        corners = np.array(list(product((0, 1), repeat=len(self.tiles)))).T
        n = corners.shape[1]
        place = [((p * 2)[:, None] + c).reshape(-1) for p, c in zip(squares.place, corners, strict=True)]
        parts = Squares(np.repeat(squares.lead, n), place)
        inside = None
        for p, extent in zip(place, self.extents(level), strict=True):
            if extent % 2:
                fits = p < extent
                inside = fits if inside is None else inside & fits
        return parts if inside is None else parts.at(inside)

    def lookup(self, squares: Squares, level: int) -> Callable[[tuple[int, ...]], IntArray | None]:
        """From the shape of a table `[B|1, H|1, ...|1]` of this level to where it holds the squares, flattened.

        None for a table of one entry.
        """
        known: dict[tuple[int, ...], IntArray | None] = {}
        batch, heads = self.batch, self.heads

        def where(shape: tuple[int, ...]) -> IntArray | None:
            if shape in known:
                return known[shape]
            out: IntArray | None = None
            for axis, extent in enumerate(shape):
                if extent > 1:
                    if axis == 0:
                        step = squares.lead // heads if heads > 1 else squares.lead
                    elif axis == 1:
                        step = squares.lead % heads if batch > 1 else squares.lead
                    else:
                        step = squares.place[axis - 2]
                    out = step if out is None else out * extent + step
            known[shape] = out
            return out

        return where
