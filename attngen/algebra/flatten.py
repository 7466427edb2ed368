"""Reduce tiles of the keys, and then the tiles, as one reduction over the keys: statistics of a tile cancel.

    LM[q, m] = max[k](where(k // 64 == m, S[q, k], -inf))
    LD[q, m] = sum[k](where(k // 64 == m, exp(S[q, k] - LM[q, m]), 0.0))
    M[q]     = max[m](LM[q, m])
    Z[q]     = sum[m](LD[q, m] * exp(LM[q, m] - M[q]))
->
    M[q]     = max[k](S[q, k])
    Z[q]     = sum[k](exp(S[q, k] - M[q]))

A reduction of reductions of the same kind is one. A sum takes factors of a tile inside, and the sum is flat only if
nothing of the tile is left in it. What a tile without keys contributes is the identity in both forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from attngen.algebra.bounded import bounded
from attngen.algebra.canonical import NotPointwise, Scope, Shape, canonicalise, names_in
from attngen.algebra.fold import Obligation, RuleUse
from attngen.algebra.from_sympy import from_sympy
from attngen.algebra.record import einsum_text
from attngen.algebra.separate import PROOF_SECONDS, Symbols
from attngen.algebra.tiles import tile_of, tile_ranks, unguarded, with_factors, written_out
from attngen.errors import InternalError
from attngen.lang.expr import Apply, Expr, Load, Reduce, Var, loads, rewrite, substitute, walk
from attngen.lang.program import Einsum, Program


@dataclass(frozen=True, slots=True)
class Flattened:
    """The program with flat reductions, and what was rewritten."""

    program: Program
    uses: tuple[RuleUse, ...] = ()


def flatten(program: Program) -> Flattened:
    """Every reduction that can be made flat is."""
    ranks = tile_ranks(program.cascade)
    if not ranks:
        return Flattened(program)
    einsums = {e.target: e for e in program.cascade}
    of_tiles = {n: e for n, e in einsums.items() if ranks & set(e.ranks)}
    per_key: dict[str, Einsum] = {}  # values of keys that read statistics of their tile
    for name, einsum in einsums.items():
        if "k" in einsum.ranks and _reads(einsum.body, {**of_tiles, **per_key}):
            per_key[name] = einsum
    cascade: list[Einsum] = []
    uses: list[RuleUse] = []
    for einsum in program.cascade:
        flat = _flat(einsum, ranks, of_tiles, per_key, program)
        cascade.append(flat)
        if flat is not einsum:
            law = "a reduction of all tiles of a reduction in each is one over all keys"
            proof = Obligation("PO2", law, "table; statistics of tiles cancel symbolically")
            uses.append(RuleUse("flatten", einsum.target, einsum_text(einsum), einsum_text(flat), (proof,)))
    return Flattened(replace(program, cascade=tuple(cascade)), tuple(uses)) if uses else Flattened(program)


def _reads(expr: Expr, einsums: Mapping[str, Einsum]) -> bool:
    return any(ld.tensor in einsums for ld in loads(expr))


def _flat(
    einsum: Einsum,
    ranks: frozenset[str],
    of_tiles: Mapping[str, Einsum],
    per_key: Mapping[str, Einsum],
    program: Program,
) -> Einsum:
    """The Einsum with its reductions flat; the same object where some statistic of a tile would be left."""
    if ranks & set(einsum.ranks) or "k" in einsum.ranks or not _reads(einsum.body, {**of_tiles, **per_key}):
        return einsum

    def level(node: Expr) -> Expr | None:
        match node:
            case Reduce(op, (rank,), body) if rank in ranks:
                tile = tile_of(with_factors(_opened(body, rank, of_tiles)), rank)
                return tile.whole(tile.body, program) if tile is not None and tile.op == op else None
            case _:
                return None

    def cancel(node: Expr) -> Expr | None:
        if not isinstance(node, Reduce) or node.ranks != ("k",):
            return None
        body = unguarded(written_out(node.body, per_key), extremes)
        return replace(node, body=_cancelled(body, set(of_tiles)))

    extremes = {e.target for e in program.cascade if _is_extreme(e, ranks)}
    body = rewrite(rewrite(einsum.body, level), cancel)
    flat = not _reads(body, {**of_tiles, **per_key}) and not _over(body, ranks)
    return replace(einsum, body=body) if flat else einsum


def _is_extreme(einsum: Einsum, ranks: frozenset[str]) -> bool:
    """Whether it is a maximum or minimum of all keys of a row or a tile."""
    match einsum.body:
        case Reduce("max" | "min", (over,), _) if over == "k" or over in ranks:
            tiles = [t for r in ranks if (t := tile_of(einsum.body, r)) is not None]
            return not any(t.rest for t in tiles)
        case _:
            return False


def _over(expr: Expr, ranks: frozenset[str]) -> bool:
    return any(isinstance(n, Reduce) and ranks & set(n.ranks) for n in walk(expr))


def _opened(expr: Expr, rank: str, of_tiles: Mapping[str, Einsum]) -> Expr:
    """`expr` with the factors that are reductions of tile `rank` in the place of their names."""
    match expr:
        case Load(name, _) if name in of_tiles and rank in of_tiles[name].ranks:
            body = written_out(expr, {name: of_tiles[name]})
            return body if tile_of(body, rank) is not None else _opened_again(expr, body, rank, of_tiles)
        case Apply("mul" | "div" as op, args):
            return Apply(op, tuple(_opened(a, rank, of_tiles) for a in args), loc=expr.loc)
        case _:
            return expr


def _opened_again(read: Expr, body: Expr, rank: str, of_tiles: Mapping[str, Einsum]) -> Expr:
    """A read whose body is a product: open that, or leave the read alone."""
    inner = _opened(body, rank, of_tiles)
    return inner if inner is not body and any(isinstance(n, Reduce) for n in walk(inner)) else read


def _cancelled(body: Expr, names: set[str]) -> Expr:
    """`body` without statistics of tiles, if they cancel; else as it is."""
    match body:
        case Apply("where", (test, x, other)):
            return Apply("where", (test, _cancelled(x, names), other), loc=body.loc)
        case _ if not any(ld.tensor in names for ld in loads(body)):
            return body
        case _:
            pass
    reads = [ld for ld in dict.fromkeys(loads(body)) if ld.tensor in names]
    rows = {
        ld: Load(f"{ld.tensor}.{i}", ()) for i, ld in enumerate(reads)
    }  # of the key's tile: a statistic like another
    scope = Scope("k", running={row.tensor for row in rows.values()})
    try:
        canonical = canonicalise(substitute(body, {**rows}), scope, whole=False)
    except NotPointwise:
        return body
    left = without_statistics(canonical.shape)
    if left is None:
        return body
    return substitute(left, {Var(n): e for n, e in canonical.atoms.items()})


@lru_cache(maxsize=256)
def without_statistics(shape: Shape) -> Expr | None:
    """A body equal to that of a shape and free of its statistics; None where there is none."""
    return bounded(lambda: _without(shape), PROOF_SECONDS, None)


def _without(shape: Shape) -> Expr | None:
    import sympy as sp

    symbols = Symbols(shape)
    value: Any = sp.powsimp(sp.expand(symbols.of(shape.body)))
    stats = {symbols(n) for n in names_in(shape.body, "d")}
    if stats & value.free_symbols:
        value = sp.simplify(value)
    if stats & value.free_symbols:
        return None
    try:
        return from_sympy(value, symbols.back())
    except InternalError:
        return None
