"""Rewrites a mask so that interval arithmetic decides it as sharply and as cheaply as it can.

Values known before tiles are looked at become literals. Every comparison of integers becomes one polynomial, in which
a variable that occurs twice cancels, and whose terms are then parted: what reads the key alone on one side, the
rest on the other.

    before   q + k - q < pos(q) - w + 1      with n_q = n_k = 4096, w = 512
    after    k < q - 511

Each side then has one interval a query tile or a key tile, and where no variable is left twice the comparison of two
intervals is exact. Comparisons of floats stay as they are: moving terms would change how they round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from attngen.errors import MissingTensorError
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Size, Var, free_vars, rewrite, substitute
from attngen.lang.kinds import kind_of
from attngen.lang.ops import Kind
from attngen.planner.poly import Poly, make_poly, to_expr, to_poly
from attngen.planner.solve import magnitude

_COMPARE = frozenset(("lt", "le", "gt", "ge", "eq", "ne"))
_LIMIT = 1 << 62


def literal(mask: Expr, values: Mapping[str, Any], sizes: Mapping[str, int | None]) -> Expr:
    """The mask with parameters and known extents as constants. Raises MissingTensorError for an absent parameter."""

    def known(node: Expr) -> Expr | None:
        match node:
            case Param(name):
                if name not in values:
                    raise MissingTensorError(f"the mask reads `{name}`, which was not given")
                value = values[name]
                return Const(value.item() if isinstance(value, np.generic) else value, loc=node.loc)
            case Size(name) if (size := sizes.get(name)) is not None:
                return Const(size, loc=node.loc)
            case _:
                return None

    return rewrite(mask, known)


def separate(mask: Expr, kinds: Mapping[str, Kind]) -> Expr:
    """The mask with every comparison of integers, and every index, in normal form."""

    def normal(node: Expr) -> Expr | None:
        match node:
            case Apply(op, (a, b)) if op in _COMPARE and kind_of(a, kinds) is kind_of(b, kinds) is Kind.INT:
                return _parted(node)
            case Load(tensor, indices):
                return Load(tensor, tuple(_canonical(i) for i in indices), loc=node.loc)
            case _:
                return None

    return rewrite(mask, normal)


def _parted(compare: Apply) -> Expr:
    hidden: dict[Expr, Expr] = {}
    a, b = (to_poly(_hide(x, hidden)) for x in compare.args)
    if magnitude(a) >= _LIMIT or magnitude(b) >= _LIMIT:
        return compare  # beyond what 64 bits hold, sides that wrap compare otherwise than their difference
    difference = a - b
    if hidden:
        open_ = to_poly(compare.args[0]) - to_poly(compare.args[1])
        if len(open_.moving) < len(difference.moving):  # q - q % c is c * (q // c)
            difference, hidden = open_, {}
    of_key = make_poly({m: c for m, c in difference.terms if _is_of_key(m, hidden)})
    sides = [difference - of_key, -of_key]
    if of_key.moving and of_key.moving[0][1] > 0:  # key <= rest reads better than -rest <= -key
        sides = [of_key, of_key - difference]
    return Apply(compare.op, tuple(_shown(side, hidden) for side in sides), loc=compare.loc)


def _canonical(index: Expr) -> Expr:
    """An index as a polynomial."""
    hidden: dict[Expr, Expr] = {}
    poly = to_poly(_hide(index, hidden))
    return _shown(poly, hidden) if magnitude(poly) < _LIMIT else index


def _hide(expr: Expr, hidden: dict[Expr, Expr]) -> Expr:
    """Remainders as opaque names: written out, as `a - b * (a // b)`, one has its operand twice."""

    def hide(node: Expr) -> Expr | None:
        if not isinstance(node, Apply) or node.op != "mod":
            return None
        inner = tuple(_shown(to_poly(arg), hidden) for arg in node.args)
        name = Var(f"mod {len(hidden)}")
        hidden[name] = Apply("mod", inner, loc=node.loc)
        return name

    return rewrite(expr, hide)


def _shown(poly: Poly, hidden: dict[Expr, Expr]) -> Expr:
    expr = to_expr(poly)
    return substitute(expr, hidden) if hidden else expr


def _is_of_key(mono: tuple[Expr, ...], hidden: dict[Expr, Expr]) -> bool:
    """Whether a term reads the key and not the query."""
    factors = (substitute(f, hidden) if hidden else f for f in mono)
    reads = frozenset[str]().union(*(free_vars(f) for f in factors))
    return "k" in reads and "q" not in reads
