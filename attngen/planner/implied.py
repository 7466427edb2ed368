"""Adds to a mask the comparisons that two of its own imply, so that tiles which pass each part but not all are empty.

    before   (k <= q) & (q - w < k)                               with w = 0, or w[h]
    after    (k <= q) & (q - w < k) & (1 <= w)                    the sum of both: k cancels

    before   (k <= q) & ((k < s) | (q - k < w))
    after    (k <= q) & ((k < s) | (q - k < w) | (s + w > q))     the sum of what holds where neither does

What is added to a disjunction is itself joined with the comparisons around it: of `s + w > q` above, the rows in
which `k <= q` cannot hold as well are empty. The mask keeps the same pairs. Intervals bound each comparison by itself;
the new ones, which read one side alone or neither, carry what two say together, and cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from itertools import combinations, product
from typing import Literal

from attngen.lang.expr import Apply, Const, Expr, apply, free_vars
from attngen.lang.kinds import kind_of
from attngen.lang.ops import Kind
from attngen.planner.build import at_least_zero
from attngen.planner.poly import Poly, to_poly
from attngen.planner.solve import magnitude

Joint = Literal["and", "or"]
Known = Mapping[Joint, tuple[Poly, ...]]

_OTHER: dict[Joint, Joint] = {"and": "or", "or": "and"}
_LIMIT = 1 << 62
_LONGEST_CHAIN = 64
_MOST = 8  # comparisons of one conjunction that are paired


def imply(mask: Expr, kinds: Mapping[str, Kind]) -> Expr:
    """The mask with the comparisons its own imply."""
    return _joined(mask, {"and": (), "or": ()}, kinds)


def _joined(expr: Expr, known: Known, kinds: Mapping[str, Kind]) -> Expr:
    """One expression among others.

    `known` holds polynomials that are at most 0 where the expression matters: those of comparisons beside it in
    conjunctions ("and"), and of the opposites of comparisons beside it in disjunctions ("or").
    """
    if not isinstance(expr, Apply) or expr.op not in ("and", "or") or kind_of(expr, kinds) is not Kind.BOOL:
        return expr
    op: Joint = "and" if expr.op == "and" else "or"
    children = _chain(expr, op)
    atoms = [_at_most_zero(c, kinds, negate=op == "or") for c in children]
    own = tuple(p for ps in atoms for p in ps)[:_MOST]
    below: Known = {op: (known[op] + own)[:_MOST], _OTHER[op]: known[_OTHER[op]]}
    parts: list[Expr] = []
    for child in children:
        inner = _joined(child, below, kinds)
        if known[_OTHER[op]]:
            inner = _with_context(inner, _OTHER[op], known[_OTHER[op]], kinds)
        parts.append(inner)
    out = _chained(op, parts, expr)
    pairs = [*combinations(own, 2), *product(own, known[op])]
    return _extended(out, op, _sums(pairs), known[_OTHER[op]])


def _chained(op: Joint, parts: list[Expr], like: Expr) -> Expr:
    """One after the other, as people write them; more than a few as a tree, which passes can walk down."""
    if len(parts) > _LONGEST_CHAIN:
        half = len(parts) // 2
        left, right = (_chained(op, p, like) for p in (parts[:half], parts[half:]))
        return apply(op, left, right, loc=like.loc)
    return reduce(lambda a, b: apply(op, a, b, loc=like.loc), parts)


def _with_context(atom: Expr, op: Joint, known: tuple[Poly, ...], kinds: Mapping[str, Kind]) -> Expr:
    """One alternative with what it implies together with the comparisons around it."""
    own = _at_most_zero(atom, kinds, negate=op == "or")
    return _extended(atom, op, _sums([*product(own, known)]))


def _extended(expr: Expr, op: Joint, sums: list[Poly], around: tuple[Poly, ...] = ()) -> Expr:
    """`expr` with what the sums say, each with what it implies together with the comparisons around it."""
    for poly in sums:
        more = at_least_zero(-poly) if op == "and" else at_least_zero(poly - 1)
        if poly.value is not None:
            more = Const(op == "or")
        elif around:
            more = _extended(more, _OTHER[op], _sums([*product((-(poly - 1),), around)]))
        expr = apply(op, expr, more, loc=expr.loc)
    return expr


def _sums(pairs: list[tuple[Poly, Poly]]) -> list[Poly]:
    """Sums in which the query or the key cancels; those that say nothing are left out."""
    out: dict[Poly, None] = {}
    for a, b in pairs:
        both = a + b
        gone = (_reads(a) & _reads(b) & {"q", "k"}) - _reads(both)
        if gone and magnitude(both) < _LIMIT and (both.value is None or both.value > 0):
            out[both] = None
    return list(out)


def _at_most_zero(expr: Expr, kinds: Mapping[str, Kind], *, negate: bool) -> list[Poly]:
    """Polynomials that are at most 0 where a comparison of integers holds, or where it does not."""
    match expr:
        case Apply("lt" | "le" | "gt" | "ge" | "eq" | "ne" as op, (a, b)) if (
            kind_of(a, kinds) is kind_of(b, kinds) is Kind.INT
        ):
            op = _NEGATED[op] if negate else op
            x, y = to_poly(a), to_poly(b)
            if magnitude(x) >= _LIMIT or magnitude(y) >= _LIMIT:
                return []
            forms = {"le": [x - y], "lt": [x - y + 1], "ge": [y - x], "gt": [y - x + 1], "eq": [x - y, y - x]}
            return forms.get(op, [])
        case _:
            return []


_NEGATED = {"lt": "ge", "ge": "lt", "le": "gt", "gt": "le", "eq": "ne", "ne": "eq"}


def _chain(expr: Expr, op: Joint) -> list[Expr]:
    if isinstance(expr, Apply) and expr.op == op:
        return [part for arg in expr.args for part in _chain(arg, op)]
    return [expr]


def _reads(poly: Poly) -> frozenset[str]:
    return frozenset[str]().union(*(free_vars(f) for m, _ in poly.terms for f in m))
