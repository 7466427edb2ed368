"""Block lists for any mask: interval arithmetic on a quadtree of tiles.

Coarse squares of tiles are classified first, and only those that are neither empty nor full are cut in four, down to
the tile. What one side of a mask decides is bounded once a query tile or key tile (see `sides`) and looked up. Cost
and memory follow the boundary of the mask, not its area; no pair is ever evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from attngen.lang.expr import Const, Expr, Var, free_vars
from attngen.lang.ops import Kind
from attngen.lang.program import IMPLICIT_PARAMS, Program
from attngen.planner.bounds import Interval
from attngen.planner.descent import Classifier, descend
from attngen.planner.evaluate_plan import Extents, with_defaults
from attngen.planner.found import Found
from attngen.planner.implied import imply
from attngen.planner.plan import BlockLists
from attngen.planner.separate import literal, separate
from attngen.planner.sides import Sides, tile_leaves
from attngen.planner.squares import Grid
from attngen.planner.tensors import Pyramids


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
    return build_blocks_at(program, values, Extents(n_q, n_k, batch, heads, block_q, block_k))


def build_blocks_at(program: Program, values: Mapping[str, Any], at: Extents) -> BlockLists:
    """`build_blocks` for extents that are one value."""
    mask = prepared(program, values, at)
    shape = leading(mask, at)
    grid = Grid(*shape, (at.q_tiles,), (at.k_tiles,))
    found = Found(grid)
    if at.q_tiles and at.k_tiles:
        tensors = with_defaults(program, values)
        leaves = tile_leaves(at, np.arange)
        read = Pyramids(tensors, {"q": at.block_q, "k": at.block_k}).read
        whole = leaves[Var("k")].lo + at.block_k <= at.n_k
        exists = Interval(whole, np.ones_like(whole))
        descend(Classifier(Sides(mask, leaves, read), grid, [exists]), grid, found)
    return found.lists()


class Sizes(Protocol):
    """The extents of a schedule, of tiles that are runs of tokens or boxes."""

    @property
    def batch(self) -> int:
        """Batch entries."""
        ...

    @property
    def heads(self) -> int:
        """Query heads."""
        ...

    def size(self, name: str) -> int | None:
        """The value of a `Size`, None for those that a schedule does not know."""
        ...


def prepared(program: Program, values: Mapping[str, Any], at: Sizes) -> Expr:
    """The mask of a program at these extents and values, in the form intervals are sharp on.

    Raises MissingTensorError for a parameter that is not in `values`.
    """
    if program.mask is None:
        return Const(True)
    given = with_defaults(program, values)
    names = [*(p.name for p in program.params), *IMPLICIT_PARAMS]
    numbers = tuple((n, given[n], type(given[n])) for n in names if n in given)  # 1, 1.0 and True are equal
    kinds = tuple((t.name, t.kind) for t in program.tensors)
    return _prepared(program.mask, numbers, tuple((name, at.size(name)) for name in _SIZES), kinds)


_SIZES = ("n_q", "n_k", "n_b", "n_h")


@lru_cache(maxsize=64)
def _prepared(
    mask: Expr,
    numbers: tuple[tuple[str, Any, type], ...],
    sizes: tuple[tuple[str, int | None], ...],
    kinds: tuple[tuple[str, Kind], ...],
) -> Expr:
    of = dict(kinds)
    return separate(imply(literal(mask, {name: value for name, value, _ in numbers}, dict(sizes)), of), of)


def leading(mask: Expr, at: Sizes) -> tuple[int, int]:
    """Batch entries and heads that lists tell apart: one where the mask does not depend on them."""
    reads = free_vars(mask)
    return (at.batch if "b" in reads else 1, at.heads if "h" in reads else 1)
