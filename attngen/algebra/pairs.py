"""Which Einsums range over pairs of a query and a key, and which reduce them."""

from __future__ import annotations

from collections.abc import Iterable

from attngen.algebra.fold import Derivation, Fold, Let
from attngen.algebra.prune import prune
from attngen.lang.expr import Apply, Expr, Load, Reduce, Var, free_vars, loads, walk
from attngen.lang.program import Einsum, Program


def may_be_one(program: Program) -> bool:
    """Whether one fold over the keys may do everything: it computes rows, and reduces pairs by their keys only."""
    outputs = [program.einsum(n) for n in program.outputs]
    if any(e is None or e.ranks[:1] != ("q",) or "k" in e.ranks or len(e.ranks) > 2 for e in outputs):
        return False
    ranks = {e.target: e.ranks for e in program.cascade}
    live = prune(program).cascade
    if any(
        ld.indices != tuple(map(Var, ranks[ld.tensor]))
        for e in live
        for ld in loads(e.body)
        if ld.tensor in ranks
    ):
        return False
    if any(is_blocked(e) for e in live):
        return False
    found = [(e, n) for e in live for n in reductions(e.body)]
    return all("k" in n.ranks and not {"q", "h"} & set(n.ranks) and reduces_pairs(e, "k") for e, n in found)


def pair_fold(program: Program) -> Fold:
    """The Fold of a sweep that stores values of pairs: nothing is carried from tile to tile."""
    absorb = tuple(Let(e.target, e.ranks, e.body) for e in program.cascade)
    return Fold("k", absorb, (), program.outputs, Derivation("k", 1, 1, ()))


def own_indices(einsum: Einsum) -> tuple[Expr, ...]:
    """The indices at which an Einsum is read most often: its own ranks."""
    return tuple(Var(r) for r in einsum.ranks)


def is_pair(einsum: Einsum) -> bool:
    """Whether an Einsum has one value a pair."""
    return {"q", "k"} <= set(einsum.ranks)


def is_blocked(einsum: Einsum, rows: str = "q") -> bool:
    """Whether it reduces blocks of tokens, `where(k // 64 == j, x, ...)`, to a column each.

    There are as many columns as blocks, so they are stored as they come and never rescaled: what x reads is final.
    """
    if len(einsum.ranks) != 2 or not isinstance(einsum.body, Reduce):
        return False
    token, column = Var(other_rank(rows)), Var(einsum.ranks[1])
    for node in walk(einsum.body.body):
        match node:
            case Apply("eq", (Apply("floordiv", (t, _)), c)) | Apply("eq", (c, Apply("floordiv", (t, _)))):
                if t == token and c == column:
                    return True
            case _:
                pass
    return False


def other_rank(rows: str) -> str:
    """The rank that is reduced where `rows` are kept."""
    return "k" if rows == "q" else "q"


def reduces_pairs(einsum: Einsum, rank: str) -> bool:
    """Whether it reduces `rank` of values that differ from pair to pair."""
    rows = other_rank(rank)
    return any(
        rank in node.ranks and (rows in einsum.ranks or rows in free_vars(node.body) or rows in node.ranks)
        for node in reductions(einsum.body)
    )


def reductions(expr: Expr) -> list[Reduce]:
    """Reductions, but contractions of the features of two tokens: they are part of a pair's value."""
    return [
        n for n in walk(expr)
        if isinstance(n, Reduce) and not (_is_contraction(n))
    ]  # fmt: skip


def _is_contraction(node: Reduce) -> bool:
    """`sum[d](Q[q, d] * K[k, d])`: over a rank that is no token's, of values of a query and of a key."""
    inside = free_vars(node.body)
    return node.op == "sum" and not {"q", "k", "h"} & set(node.ranks) and {"q", "k"} <= inside


def operand_loads(expr: Expr) -> Iterable[Load]:
    """Reads inside a contraction or of a value row: what a kernel multiplies in the dtype of the inputs."""
    for load in loads(expr):
        names = [i.name for i in load.indices if isinstance(i, Var)]
        if len(names) == 2 and names[0] in ("q", "k") and names[1] not in ("q", "k"):
            yield load
