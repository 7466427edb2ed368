"""Reductions over the keys of one tile, `op[k](where(k // tile == m, x, identity))`, as reductions over all keys.

A tile's index is written as `g(k) == m` with `g` free of `m`. Every key lies in exactly one tile where `g(k)` is within
the extent of `m`; `k // tile` is, where that extent is `(n_k + tile - 1) // tile`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from attngen.algebra.canonical import body_at
from attngen.lang.domain import extent_name
from attngen.lang.expr import (
    Apply,
    Const,
    Expr,
    Load,
    Reduce,
    Size,
    Var,
    apply,
    conjuncts,
    free_vars,
    map_children,
    rewrite,
    substitute,
    walk,
)
from attngen.lang.ops import REDUCERS
from attngen.lang.program import Einsum, Program

# The operator that joins two partial results, for reducers that have one.
JOIN: dict[str, str] = {"sum": "add", "max": "max", "min": "min", "prod": "mul", "any": "or", "all": "and"}


@dataclass(frozen=True, slots=True)
class Tile:
    """`op[k](where(at == m, body, identity))`: what key `k` adds to tile `m`, which `body` calls `m`, never `at`.

    rest  conditions beside that of the tile: keys that fail them add nothing.
    """

    op: str
    rank: str
    at: Expr
    body: Expr
    rest: tuple[Expr, ...]

    def whole(self, body: Expr, program: Program) -> Reduce:
        """The reduction of `body`, over `m`, in all tiles, as one over all keys."""
        inner = substitute(body, {Var(self.rank): self.at})
        tests = [substitute(c, {Var(self.rank): self.at}) for c in self.rest]
        if not covers(self, program):
            tests.append(apply("ge", self.at, Const(0)))
            tests.append(apply("lt", self.at, Size(extent_name(self.rank))))
        for test in tests:
            inner = apply("where", test, inner, Const(REDUCERS[self.op].identity))
        return Reduce(self.op, ("k",), inner)


def tile_of(node: Expr, rank: str) -> Tile | None:
    """A reduction over the keys of tile `rank`; None for any other expression."""
    match node:
        case Reduce(op, ("k",), Apply("where", (_, _, Const(other)))) if (
            op in JOIN and other == REDUCERS[op].identity
        ):
            body, parts = node.body, list[Expr]()
        case _:
            return None
    while isinstance(body, Apply) and body.op == "where" and _is_identity(body.args[2], node.op):
        parts += conjuncts(body.args[0])
        body = body.args[1]
    for i, part in enumerate(parts):
        at = _index(part, rank)
        if at is not None:
            inner = substitute(body, {at: Var(rank)})
            return Tile(node.op, rank, at, inner, tuple(parts[:i] + parts[i + 1 :]))
    return None


def _is_identity(value: Expr, op: str) -> bool:
    return isinstance(value, Const) and value.value == REDUCERS[op].identity


def _index(test: Expr, rank: str) -> Expr | None:
    match test:
        case Apply("eq", (at, Var(name, None))) | Apply("eq", (Var(name, None), at)) if name == rank:
            free = free_vars(at)
            return at if rank not in free and "k" in free else None
        case _:
            return None


def covers(tile: Tile, program: Program) -> bool:
    """Whether every key's tile is within the extent of the rank, by the form in which both are written."""
    decl = program.param(tile.rank)
    match tile.at:
        case Apply("floordiv", (Var("k", None), width)):
            top = apply("sub", apply("add", Size("n_k"), width), Const(1))
            extents = [apply("floordiv", top, width)]
            if isinstance(width, Const) and isinstance(width.value, int):
                extents.append(apply("floordiv", apply("add", Size("n_k"), Const(width.value - 1)), width))
            return decl is not None and decl.extent in extents
        case _:
            return False


def tile_ranks(cascade: Iterable[Einsum]) -> frozenset[str]:
    """The ranks that number tiles of the keys in some reduction."""
    return frozenset(
        rank
        for einsum in cascade
        for node in walk(einsum.body)
        if isinstance(node, Reduce)
        for rank in einsum.ranks
        if tile_of(node, rank) is not None
    )


def with_factors(expr: Expr) -> Expr:
    """Factors of a sum over keys moved into it.

    c[m] * sum[k](where(p, x, 0))   ->   sum[k](where(p, x * c[m], 0))
    """

    def moved(node: Expr) -> Expr | None:
        match node:
            case Apply("mul", (Reduce("sum", ("k",)) as total, factor)) if "k" not in free_vars(factor):
                return _into(total, "mul", factor)
            case Apply("mul", (factor, Reduce("sum", ("k",)) as total)) if "k" not in free_vars(factor):
                return _into(total, "mul", factor)
            case Apply("div", (Reduce("sum", ("k",)) as total, factor)) if "k" not in free_vars(factor):
                return _into(total, "div", factor)
            case _:
                return None

    return rewrite(expr, moved)


def _into(total: Reduce, op: str, factor: Expr) -> Expr:
    def inside(body: Expr) -> Expr:
        match body:
            case Apply("where", (test, x, other)) if _is_identity(other, "sum"):
                return apply("where", test, inside(x), other)
            case _:
                return apply(op, body, factor)

    return Reduce("sum", ("k",), inside(total.body), loc=total.loc)


def written_out(expr: Expr, einsums: Mapping[str, Einsum]) -> Expr:
    """`expr` with reads of these Einsums replaced by their bodies, through and through.

    A read at an index that a reduction of the body would capture stays.
    """
    if isinstance(expr, Load) and expr.tensor in einsums and not _captures(einsums[expr.tensor], expr):
        return written_out(body_at(einsums[expr.tensor], expr), einsums)
    return map_children(expr, lambda c: written_out(c, einsums))


def _captures(einsum: Einsum, load: Load) -> bool:
    inside = {r for n in walk(einsum.body) if isinstance(n, Reduce) for r in n.ranks}
    moved = (i for r, i in zip(einsum.ranks, load.indices, strict=True) if i != Var(r))
    return any(free_vars(i) & inside for i in moved)


def unguarded(expr: Expr, extremes: Collection[str]) -> Expr:
    """`finite(x)` as x where x reads one of `extremes`: maxima and minima of keys, which a fold guards itself."""

    def bare(node: Expr) -> Expr | None:
        match node:
            case Apply("finite", (Load(name, _) as x,)) if name in extremes:
                return x
            case _:
                return None

    return rewrite(expr, bare)
