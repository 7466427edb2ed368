"""Arrange a mask so that a pair costs one comparison: row terms on one side, key terms on the other.

    pos_q - k < window           ->  k > pos_q - window
    (pos_q - k) % dilation == 0  ->  k % dilation == pos_q % dilation

Each side is then a vector, computed once a row or once a key instead of once a pair.
"""

from __future__ import annotations

from collections.abc import Mapping

from attngen.lang.expr import Apply, Const, Expr, apply, free_vars, rewrite
from attngen.lang.kinds import kind_of
from attngen.lang.ops import Kind

_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}


def separate(mask: Expr, kinds: Mapping[str, Kind]) -> Expr:
    """The same predicate, rows and keys apart in every comparison of integers that allows it."""

    def comparison(node: Expr) -> Expr | None:
        match node:
            case Apply(op, (left, right)) if op in _MIRRORED and (_mixed(left) or _mixed(right)):
                if Kind.FLOAT in (kind_of(left, kinds), kind_of(right, kinds)):
                    return None  # moving a term across rounds differently
                return _congruence(op, left, right) or _linear(op, left, right)
            case _:
                return None

    return rewrite(mask, comparison)


def _congruence(op: str, left: Expr, right: Expr) -> Expr | None:
    """`(row - key) % m == 0` as `key % m == row % m`: the same for every m, zero (where both are 0) included."""
    match left, right:
        case Apply("mod", (difference, m)), Const(0) if op in ("eq", "ne") and not free_vars(m) & {"q", "k"}:
            row, key, sign = _split(difference)
            if row is None or key is None:
                return None
            other = row if sign < 0 else apply("neg", row)
            return apply(op, apply("mod", key, m), apply("mod", other, m))
        case _:
            return None


def _linear(op: str, left: Expr, right: Expr) -> Expr | None:
    """`left op right` with the key terms on the left and all others on the right."""
    row, key, sign = _split(apply("sub", left, right))
    if row is None or key is None:
        return None
    if sign < 0:
        return apply(_MIRRORED[op], key, row)
    return apply(op, key, _positive([(-s, t) for s, t in _terms(row, 1)]))


def _split(expr: Expr) -> tuple[Expr | None, Expr | None, int]:
    """`expr = row + sign * key`, with `row` free of k and `key` free of q; None where a term has both, or no term."""
    row: list[tuple[int, Expr]] = []
    key: list[tuple[int, Expr]] = []
    for sign, term in _terms(expr, 1):
        if _mixed(term):
            return None, None, 0
        (key if "k" in free_vars(term) else row).append((sign, term))
    if not row or not key:
        return None, None, 0
    if all(s < 0 for s, _ in key):
        return _positive(row), _sum([(1, t) for _, t in key])[0], -1
    return _positive(row), _sum(key)[0], 1


def _positive(terms: list[tuple[int, Expr]]) -> Expr:
    total, sign = _sum(terms)
    return total if sign > 0 else apply("neg", total)


def _terms(expr: Expr, sign: int) -> list[tuple[int, Expr]]:
    """The signed terms of a sum. A sum of scalars stays whole, so that a reader finds `n_k - n_q` again."""
    match expr:
        case Apply("add" | "sub" as op, (a, b)) if free_vars(expr) & {"q", "k"}:
            return _terms(a, sign) + _terms(b, sign if op == "add" else -sign)
        case Apply("neg", (a,)):
            return _terms(a, -sign)
        case _:
            return [(sign, expr)]


def _sum(terms: list[tuple[int, Expr]]) -> tuple[Expr, int]:
    """The terms added up, positive ones first, as `(total, sign)`: all-negative terms give a positive total and -1."""
    sign = 1 if any(s > 0 for s, _ in terms) else -1
    ordered = sorted(terms, key=lambda t: -t[0] * sign)
    total = ordered[0][1]
    for s, term in ordered[1:]:
        total = apply("add" if s == sign else "sub", total, term)
    return total, sign


def _mixed(expr: Expr) -> bool:
    return {"q", "k"} <= free_vars(expr)
