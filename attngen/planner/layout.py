"""How the tokens of a rank are cut into tiles where they do not simply follow each other: boxes of a grid, residues.

A tile is a box: a product of runs of coordinates. Lane `l` of a tile has coordinates `lo + l`, in mixed radix over the
shape of the box, and a token's number is a sum of coordinates times strides. So the addresses of a tile are one scalar
plus offsets that no tile changes, and nothing is permuted or copied.

    tokens = grid(t, y, x)                 axes t, y, x with strides size_y * size_x, size_x, 1
    y only meets y of its residue mod d    axis y becomes y_residue (one value a tile) and y_step

Layouts are symbolic: box shapes and the origins of the tiling are `Var`s until `Boxes` gives them numbers.
"""

from __future__ import annotations

from typing import Literal

from attngen.lang.expr import Const, Expr, Var
from attngen.value import value

TokenRank = Literal["q", "k"]


def lo_name(axis: str) -> str:
    """The first coordinate of a query tile on an axis, counted from the origin of the tiling."""
    return f"q_lo_{axis}"


def hi_name(axis: str) -> str:
    """The last (inclusive) valid coordinate of a query tile on an axis, counted from the origin of the tiling."""
    return f"q_hi_{axis}"


def box_name(rank: TokenRank, axis: str) -> str:
    """Coordinates of an axis that a tile of this rank holds."""
    return f"box_{rank}_{axis}"


def origin_name(axis: str) -> str:
    """How far before coordinate 0 the first tile of an axis begins."""
    return f"origin_{axis}"


@value
class Axis:
    """One coordinate of a tiled rank.

    name     `y`, or for a residue split `y_step` (the place within a residue class) and `y_residue` (the class).
    low      the least coordinate; 0 but for the steps of queries that are aligned with the last key.
    extent   how many there are from `low` on; may read the group, which a tile has one of.
    whole    how many of them have all their tokens: less than `extent` where the last plane of a grid is cut short.
    most     a bound on `extent` that reads no group: how many tiles there are follows from it.
    stride   tokens from one coordinate to the next.
    group    whether a tile holds one value only, the same for queries and keys.
    """

    name: str
    low: Expr
    extent: Expr
    whole: Expr
    most: Expr
    stride: Expr
    group: bool = False


@value
class Layout:
    """The tiled coordinates of a rank, slowest first.

    A token is `sum(coordinate * stride) - shift`; it exists if that lies in `0 .. count - 1`. `coordinates` gives the
    grid's own coordinates, and `("", ...)` the position on a line, as expressions of `Var(rank, axis)`.
    """

    rank: TokenRank
    axes: tuple[Axis, ...]
    shift: Expr
    count: Expr
    coordinates: tuple[tuple[str, Expr], ...]

    def axis(self, name: str) -> Axis:
        """The axis of that name."""
        return next(a for a in self.axes if a.name == name)


@value
class Shape:
    """The boxes of a call: for each axis, coordinates a query tile holds, a key tile holds, and the origin."""

    axis: str
    q: int
    k: int
    origin: int = 0


@value
class Boxes:
    """Box shapes, an entry an axis in the order of the layout.

    `cut` says that the last plane of the grid may lack tokens, so that a box within the extents may lack keys;
    `tight` that every key of a hull is seen by some row of the tile, for the values of the call.
    """

    shapes: tuple[Shape, ...]
    cut: bool = False
    tight: bool = False

    def volume(self, rank: TokenRank) -> int:
        """Lanes a tile uses."""
        out = 1
        for shape in self.shapes:
            out *= shape.q if rank == "q" else shape.k
        return out

    def numbers(self) -> dict[str, int]:
        """The values of the layout's variables, by name."""
        out: dict[str, int] = {}
        for s in self.shapes:
            out |= {box_name("q", s.axis): s.q, box_name("k", s.axis): s.k, origin_name(s.axis): s.origin}
        return out

    def text(self, rank: TokenRank) -> str:
        """`2 x 8 x 8`."""
        return " x ".join(str(s.q if rank == "q" else s.k) for s in self.shapes)


ZERO, ONE = Const(0), Const(1)


def origin(axis: str) -> Var:
    """The origin of an axis's tiling as a plan's variable."""
    return Var(origin_name(axis))
