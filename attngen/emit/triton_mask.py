"""Arrange a mask so that a pair costs one comparison: row terms on one side, key terms on the other.

    pos_q - k < window          ->  k > pos_q - window
    (pos_q - k) % dilation == 0 ->  k % dilation == pos_q % dilation

Each side is then a vector, computed once per query tile or once per key tile.
"""

from __future__ import annotations

from collections.abc import Mapping

from attngen.lang.expr import Apply, Const, Expr, Size, Var, apply, free_vars, rewrite
from attngen.lang.kinds import kind_of
from attngen.lang.ops import Kind
from attngen.planner.facts import Facts
from attngen.planner.poly import factor, to_poly

_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}
_K, _N_K = Var("k"), Size("n_k")


def separate(mask: Expr, kinds: Mapping[str, Kind]) -> Expr:
    """The same predicate with rows and keys apart wherever a comparison of integers allows it."""

    def comparison(node: Expr) -> Expr | None:
        match node:
            case Apply(op, (left, right)) if op in _MIRRORED and _mixed(left) | _mixed(right):
                if Kind.FLOAT in (kind_of(left, kinds), kind_of(right, kinds)):
                    return None
                return _congruence(op, left, right) or _linear(op, left, right)
            case _:
                return None

    return rewrite(mask, comparison)


def bounds_keys(mask: Expr) -> bool:
    """Whether the mask drops every key past the end for every row before the end: then no bound is printed."""
    match mask:
        case Apply("and", (a, b)):
            return bounds_keys(a) or bounds_keys(b)
        case Apply("or", (a, b)):
            return bounds_keys(a) and bounds_keys(b)
        case Apply("le" | "lt" as op, (left, right)) if left == _K and "k" not in free_vars(right):
            return _below_end(right, 0 if op == "le" else 1)
        case Apply("ge" | "gt" as op, (left, right)) if right == _K and "k" not in free_vars(left):
            return _below_end(left, 0 if op == "ge" else 1)
        case Apply("eq", (left, right)) if left == _K and "k" not in free_vars(right):
            return _below_end(right, 0)
        case _:
            return False


def _below_end(bound: Expr, gap: int) -> bool:
    """Whether `bound - gap <= n_k - 1` for every row."""
    return Facts({}).holds(factor(_N_K) - 1 - to_poly(bound) + gap)


def _mixed(expr: Expr) -> bool:
    free = free_vars(expr)
    return "q" in free and "k" in free


def _congruence(op: str, left: Expr, right: Expr) -> Expr | None:
    """`(row - key) % m == 0` as `key % m == row % m`: equal for every m, zero included."""
    match left, right:
        case Apply("mod", (difference, m)), Const(0) if op in ("eq", "ne") and not free_vars(m) & {"q", "k"}:
            row, key = _split(difference)
            if row is None or key is None or _mixed(row) or _mixed(key):
                return None
            if isinstance(key, Apply) and key.op == "neg":
                return apply(op, apply("mod", key.args[0], m), apply("mod", row, m))
            return apply(op, apply("mod", key, m), apply("mod", apply("neg", row), m))
        case _:
            return None


def _linear(op: str, left: Expr, right: Expr) -> Expr | None:
    """`left op right` with the key terms on the left and the rest on the right, if every term is of one side."""
    row, key = _split(apply("sub", left, right))
    if row is None or key is None or _mixed(row) or _mixed(key):
        return None
    if isinstance(key, Apply) and key.op == "neg":
        return apply(_MIRRORED[op], key.args[0], row)
    return apply(op, key, _negated(row))


def _split(expr: Expr) -> tuple[Expr | None, Expr | None]:
    """The sum of the terms without `k` and of those with it; a key sum of negative terms alone is a `neg`."""
    row: list[tuple[int, Expr]] = []
    key: list[tuple[int, Expr]] = []
    for sign, term in _terms(expr, 1):
        (key if "k" in free_vars(term) else row).append((sign, term))
    return _sum(row), _sum(key)


def _terms(expr: Expr, sign: int) -> list[tuple[int, Expr]]:
    match expr:
        case Apply("add", (a, b)):
            if "q" not in free_vars(expr) and "k" not in free_vars(expr):
                return [(sign, expr)]
            return _terms(a, sign) + _terms(b, sign)
        case Apply("sub", (a, b)):
            if "q" not in free_vars(expr) and "k" not in free_vars(expr):
                return [(sign, expr)]
            return _terms(a, sign) + _terms(b, -sign)
        case Apply("neg", (a,)):
            return _terms(a, -sign)
        case _:
            return [(sign, expr)]


def _sum(terms: list[tuple[int, Expr]]) -> Expr | None:
    """The terms added up, positive ones first."""
    plus = [t for s, t in terms if s > 0]
    minus = [t for s, t in terms if s < 0]
    if not plus and not minus:
        return None
    out, rest = (plus[0], plus[1:]) if plus else (minus[0], [])
    for term in rest:
        out = apply("add", out, term)
    for term in minus if plus else minus[1:]:
        out = apply("sub" if plus else "add", out, term)
    return out if plus else apply("neg", out)


def _negated(expr: Expr) -> Expr:
    """`-expr` without a leading minus where there is a term to subtract from."""
    terms = [(-s, t) for s, t in _terms(expr, 1)]
    out = _sum(terms)
    assert out is not None
    return out
