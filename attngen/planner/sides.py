"""The parts of a mask that one side decides, each with one interval a query tile or a key tile.

    before   (doc[b, q] == doc[b, k]) & (k <= q)          for every pair of tiles
    after    (part 0    == part 1   ) & (part 2 <= part 3)
             part 0: doc[b, q] over [B, 1, query tiles, 1]        part 1: doc[b, k] over [B, 1, 1, key tiles]

What is left joins two sides and is evaluated on pairs of tiles. Arrays have one axis for the batch, one for the heads,
then those of the query tiles, then those of the key tiles, each of extent 1 where nothing depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attngen.errors import InternalError
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Apply, Const, Expr, Load, Size, Var, children, free_vars, loads
from attngen.planner.bounds import INTERVAL_OPS, Array, Interval, interval, interval_of
from attngen.planner.evaluate_plan import Extents

Read = Callable[[Load, list[Interval]], Interval]


def tile_leaves(at: Extents, counting: Callable[[int], Array]) -> dict[Expr, Interval]:
    """The interval of each index over the tiles of a line; `counting(n)` is the array `0 .. n - 1` in int64."""

    def exact(n: int, shape: tuple[int, ...]) -> Interval:
        values = counting(n).reshape(shape)
        return Interval(values, values)

    def span(tiles: int, block: int, n: int, shape: tuple[int, ...]) -> Interval:
        first = (counting(tiles) * block).reshape(shape)
        return interval_of(first, (first + (block - 1)).clip(max=n - 1))

    return {
        Var("b"): exact(at.batch, (-1, 1, 1, 1)),
        Var("h"): exact(at.heads, (1, -1, 1, 1)),
        Var("q"): span(at.q_tiles, at.block_q, at.n_q, (1, 1, -1, 1)),
        Var("k"): span(at.k_tiles, at.block_k, at.n_k, (1, 1, 1, -1)),
    }


class Sides:
    """A mask in two steps: its one-sided parts over all tiles, then the whole over any pairs of tiles.

    leaves  the interval of each index over all tiles.
    read    the interval of a load at intervals of its indices.
    lift    brings the interval of a constant to where the arrays are.
    known   parts that read no data, from earlier masks over the same leaves; it grows.
    """

    def __init__(
        self,
        mask: Expr,
        leaves: Mapping[Expr, Interval],
        read: Read,
        lift: Callable[[Interval], Interval] = lambda x: x,
        known: dict[Expr, Interval] | None = None,
    ) -> None:
        self._mask, self._leaves, self._lift, self._read = mask, leaves, lift, read
        self._known = {} if known is None else known
        self._number: dict[int, int] = {}
        parts: dict[Expr, int] = {}
        self._collect(mask, parts)
        self.parts = [self._of_one_side(expr) for expr in parts]

    def _collect(self, expr: Expr, parts: dict[Expr, int]) -> None:
        """Number the largest expressions that read the query or the key, not both."""
        if len(free_vars(expr) & {"q", "k"}) < 2:
            self._number[id(expr)] = parts.setdefault(expr, len(parts))
        else:
            for child in children(expr):
                self._collect(child, parts)

    def _of_one_side(self, expr: Expr) -> Interval:
        if any(loads(expr)):
            return self._evaluated(expr)
        if expr not in self._known:
            self._known[expr] = self._evaluated(expr)
        return self._known[expr]

    def _evaluated(self, expr: Expr) -> Interval:
        def leaf(node: Expr) -> Interval:
            match node:
                case Const(value):
                    return self._lift(interval(value))
                case Size():
                    return self._lift(interval(1, 1 << 31))  # not an extent of the schedule
                case Load(_, indices):
                    return self._read(node, [self._of_one_side(i) for i in indices])
                case Var() if node in self._leaves:
                    return self._leaves[node]
                case _:
                    raise InternalError("a mask reads something that is not a mask's to read", loc=node.loc)

        return evaluate(expr, leaf, INTERVAL_OPS)

    def join(self, part: Callable[[int], Interval]) -> Interval:
        """The interval of the mask on pairs of tiles; `part` gives that of each part, in arrays that broadcast."""
        return self._join(self._mask, part)

    def _join(self, expr: Expr, part: Callable[[int], Interval]) -> Interval:
        number = self._number.get(id(expr))
        if number is not None:
            return part(number)
        match expr:
            case Apply(op, args):
                return INTERVAL_OPS[op](*[self._join(a, part) for a in args])
            case Load(_, indices):
                return self._read(expr, [self._join(i, part) for i in indices])
            case _:
                raise InternalError("a mask joins its sides by something else than an operator", loc=expr.loc)
