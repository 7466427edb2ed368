"""Block lists for any mask: interval arithmetic on a quadtree of tiles.

Coarse squares of tiles are classified first, and only those that are neither empty nor full are cut in four, down to
the tile. Cost and memory follow the boundary of the mask, not its area; no pair is ever evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngen.errors import InternalError, MissingTensorError, ShapeError
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Size, Var, free_vars, walk
from attngen.lang.ops import OPS, Rule
from attngen.lang.program import Program
from attngen.planner.bounds import INTERVAL_OPS, Interval, interval, truth
from attngen.planner.evaluate_plan import Extents, with_defaults
from attngen.planner.plan import BlockLists
from attngen.planner.pyramid import Pyramid

_ROOTS = 8  # squares along the longer side to start from
_CHUNK = 1 << 16  # tiles classified at once
_TABLE = (
    1 << 16
)  # entries of an axis of a table that is read at computed indices, before it is cut into blocks

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Squares:
    """Squares of `2**level` tiles a side: batch, head, row and column, one entry each."""

    b: IntArray
    h: IntArray
    i: IntArray
    j: IntArray

    def __len__(self) -> int:
        return self.b.size

    def at(self, where: Any) -> _Squares:
        return _Squares(self.b[where], self.h[where], self.i[where], self.j[where])


def build_blocks(
    program: Program,
    values: Mapping[str, Any],
    *,
    n_q: int,
    n_k: int,
    batch: int,
    heads: int,
    block_q: int,
    block_k: int,
) -> BlockLists:
    """The partial and the full tiles of a mask, by row.

    `values` maps parameters to numbers and captured tensors to numpy arrays. Sound: no kept pair lies in a tile that
    is not listed, no dropped pair in one listed as full. A tile that overhangs the keys is never full.
    Raises MissingTensorError for a name the mask reads that is not in `values`.
    """
    extents = Extents(n_q, n_k, batch, heads, block_q, block_k)
    mask = program.mask if program.mask is not None else Const(True)
    reads = free_vars(mask)
    shape = (batch if "b" in reads else 1, heads if "h" in reads else 1)
    found = _Found(extents, shape)
    if extents.q_tiles and extents.k_tiles:
        classify = Classifier(mask, with_defaults(program, values), extents)
        _descend(classify, extents, shape, found)
    return found.lists()


def _descend(classify: Classifier, at: Extents, shape: tuple[int, int], found: _Found) -> None:
    level = max(0, (max(at.q_tiles, at.k_tiles) - 1) // _ROOTS).bit_length()
    grid = np.indices((*shape, -(-at.q_tiles >> level) or 1, -(-at.k_tiles >> level) or 1))
    squares = _Squares(*(axis.reshape(-1) for axis in grid))
    while len(squares):
        undecided: list[_Squares] = []
        for start in range(0, len(squares), _CHUNK):
            chunk = squares.at(slice(start, start + _CHUNK))
            full, empty = classify(chunk, level)
            found.add_full(chunk.at(full), level)
            undecided.append(chunk.at(~(full | empty)))
        rest = _Squares(*(np.concatenate([getattr(u, f) for u in undecided]) for f in ("b", "h", "i", "j")))
        if level == 0:
            found.add_partial(rest)
            return
        level -= 1
        squares = _quarters(rest, -(-at.q_tiles >> level), -(-at.k_tiles >> level))


def _quarters(squares: _Squares, rows: int, columns: int) -> _Squares:
    """The four squares of half the size, as far as they hold tiles."""
    b, h = np.repeat(squares.b, 4), np.repeat(squares.h, 4)
    i = np.repeat(squares.i * 2, 4) + np.tile([0, 0, 1, 1], len(squares))
    j = np.repeat(squares.j * 2, 4) + np.tile([0, 1, 0, 1], len(squares))
    return _Squares(b, h, i, j).at((i < rows) & (j < columns))


class Classifier:
    """Evaluates a mask on squares of tiles by interval arithmetic."""

    def __init__(self, mask: Expr, values: Mapping[str, Any], at: Extents) -> None:
        self._mask = mask
        self._values = values
        self._at = at
        self._pyramids: dict[Load, Pyramid] = {}

    def __call__(self, squares: _Squares, level: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where every valid pair is kept, and where none is."""
        at = self._at
        tall, wide = at.block_q << level, at.block_k << level
        known = {
            "b": interval(squares.b),
            "h": interval(squares.h),
            "q": interval(squares.i * tall, np.minimum((squares.i + 1) * tall, at.n_q) - 1),
            "k": interval(squares.j * wide, np.minimum((squares.j + 1) * wide, at.n_k) - 1),
        }

        def leaf(expr: Expr) -> Interval:
            match expr:
                case Const(value):
                    return interval(value)
                case Var(name) if name in known:
                    return known[name]
                case Size(name):
                    size = at.size(name)
                    return interval(1, 1 << 31) if size is None else interval(size)
                case Param(name):
                    return interval(self._given(name))
                case Load(_, indices):
                    return self._pyramid(expr).query([evaluate(i, leaf, INTERVAL_OPS) for i in indices])
                case _:
                    raise InternalError("a mask reads something that is not a mask's to read", loc=expr.loc)

        full, empty = truth(evaluate(self._mask, leaf, INTERVAL_OPS))
        return np.broadcast_to(full, squares.b.shape), np.broadcast_to(empty, squares.b.shape)

    def _given(self, name: str) -> Any:
        if name not in self._values:
            raise MissingTensorError(f"the mask reads `{name}`, which was not given")
        return self._values[name]

    def _pyramid(self, load: Load) -> Pyramid:
        found = self._pyramids.get(load)
        if found is None:
            tensor = np.asarray(self._given(load.tensor))
            if tensor.ndim != len(load.indices):
                raise ShapeError(
                    f"`{load.tensor}` has {tensor.ndim} axes, but the mask reads it with {len(load.indices)} indices",
                    loc=load.loc,
                )
            blocks = [self._block(i, size) for i, size in zip(load.indices, tensor.shape, strict=True)]
            found = self._pyramids[load] = Pyramid(tensor, tuple(blocks))
        return found

    def _block(self, index: Expr, size: int) -> int | None:
        """Block length of an axis: the tile's for a plain index, None for an index that no tile varies."""
        match index:
            case Var("q"):
                return self._at.block_q
            case Var("k"):
                return self._at.block_k
            case _:
                return None if _is_single(index) else -(-size // _TABLE) or 1


def _is_single(index: Expr) -> bool:
    """Whether the interval of an index is always one value: integer arithmetic on neither query nor key."""
    exact = {Rule.ARITH, Rule.COMPARE, Rule.LOGIC, Rule.SELECT}
    return not free_vars(index) & {"q", "k"} and all(
        OPS[n.op].rule in exact and n.op not in ("pow",) for n in walk(index) if isinstance(n, Apply)
    )


class _Found:
    """Collects tiles and compresses them into lists."""

    def __init__(self, at: Extents, shape: tuple[int, int]) -> None:
        self._at = at
        self._shape = shape
        self._rows = shape[0] * shape[1] * at.q_tiles
        self._full: list[IntArray] = []
        self._partial: list[IntArray] = []

    def _row(self, b: IntArray, h: IntArray, i: IntArray) -> IntArray:
        return (b * self._shape[1] + h) * self._at.q_tiles + i

    def add_partial(self, tiles: _Squares) -> None:
        self._partial.append(self._row(tiles.b, tiles.h, tiles.i) * self._at.k_tiles + tiles.j)

    def add_full(self, squares: _Squares, level: int) -> None:
        """All tiles of the squares; those that overhang the keys are partial."""
        if not len(squares):
            return
        at, side = self._at, 1 << level
        heights = np.minimum(side, at.q_tiles - squares.i * side)
        owner = np.repeat(np.arange(len(squares)), heights)
        row = squares.i[owner] * side + _counting(heights)
        base = self._row(squares.b[owner], squares.h[owner], row) * at.k_tiles + squares.j[owner] * side
        widths = np.minimum(side, at.k_tiles - squares.j[owner] * side)
        tiles = np.repeat(base, widths) + _counting(widths)
        if at.n_k % at.block_k:
            over = tiles % at.k_tiles == at.k_tiles - 1
            self._partial.append(tiles[over])
            tiles = tiles[~over]
        self._full.append(tiles)

    def lists(self) -> BlockLists:
        partial, full = (self._compress(tiles) for tiles in (self._partial, self._full))
        return BlockLists(*self._shape, self._at.q_tiles, self._at.k_tiles, *partial, *full)

    def _compress(self, parts: list[IntArray]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        tiles = np.sort(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)
        check_count(tiles.size)
        row, column = np.divmod(tiles, max(self._at.k_tiles, 1))
        ptr = np.zeros(self._rows + 1, dtype=np.int32)
        ptr[1:] = np.cumsum(np.bincount(row, minlength=self._rows))
        return ptr, column.astype(np.int32)


def check_count(n_tiles: int) -> None:
    """Raise ShapeError where int32 lists cannot hold this many tiles."""
    if n_tiles > np.iinfo(np.int32).max:
        raise ShapeError(
            f"block lists of {n_tiles} tiles do not fit 32-bit indices",
            hint="use larger tiles, or a mask that has closed-form ranges",
        )


def _counting(lengths: IntArray) -> IntArray:
    """`0 .. n - 1` for each length `n`, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if ends.size else 0, dtype=np.int64) - np.repeat(ends - lengths, lengths)
