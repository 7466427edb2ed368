"""The shape of a reduction's body, with names and sizes abstracted away.

    exp(S[q, k] - M[q])                       ->  exp(x0 - d0)
    abs(S[q, k] * slope[h] / (A[q] + 1e-6))   ->  abs(x0 / d0)

x are streams (they vary with the key), d statistics (row values that are still running), c constants of the
row. The largest subexpression without a statistic is one stream: a proof for every x0 is a proof for what
it stands for, and every cascade with the same shape shares it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attngen.algebra.signs import Sign, sign_of
from attngen.lang.expr import Const, Expr, Load, Reduce, Var, free_vars, loads, map_children, substitute, walk
from attngen.lang.program import Einsum


@dataclass(slots=True)
class Scope:
    """What the names read by a body are, at one point of a cascade.

    running  row values that change as keys arrive: states, and row Einsums computed from them.
    lets     per-key Einsums, added by `define`.
    signs    sign of every Einsum's value.
    kept_signs  the same in a row that has kept a key, where a sum of positive terms is positive.
    """

    rank: str
    running: set[str] = field(default_factory=set)
    lets: dict[str, Einsum] = field(default_factory=dict)
    signs: dict[str, Sign] = field(default_factory=dict)
    kept_signs: dict[str, Sign] = field(default_factory=dict)
    _under: dict[str, frozenset[str]] = field(default_factory=dict)

    def define(self, einsum: Einsum) -> None:
        """Add a per-key Einsum; what it depends on is known by then, since targets are read after they are written."""
        self._under[einsum.target] = self.statistics(einsum.body)
        self.lets[einsum.target] = einsum

    def statistics(self, expr: Expr) -> frozenset[str]:
        """Names of the running row values that `expr` depends on, through per-key Einsums too."""
        out: set[str] = set()
        for load in loads(expr):
            if load.tensor in self.running:
                out.add(load.tensor)
            else:
                out |= self._under.get(load.tensor, frozenset())
        return frozenset(out)

    def varies(self, expr: Expr) -> bool:
        """Whether `expr` differs from key to key."""
        return self.rank in free_vars(expr)

    def definition(self, expr: Expr) -> Expr | None:
        """The body of the per-key Einsum that `expr` reads, if it is such a read."""
        if isinstance(expr, Load) and expr.tensor in self.lets:
            return body_at(self.lets[expr.tensor], expr)
        return None


def body_at(einsum: Einsum, load: Load) -> Expr:
    """The body of `einsum` at the indices of `load`."""
    wanted: dict[Expr, Expr] = {
        Var(r): index for r, index in zip(einsum.ranks, load.indices, strict=True) if Var(r) != index
    }
    return substitute(einsum.body, wanted) if wanted else einsum.body


def opened(expr: Expr, scope: Scope) -> Expr:
    """`expr` with per-key Einsums that are no (q, k) values written out."""
    if scope.definition(expr) is not None and isinstance(expr, Load):
        if scope.lets[expr.tensor].ranks == ("q", scope.rank) and expr.indices == (Var("q"), Var(scope.rank)):
            return expr
        return opened(body_at(scope.lets[expr.tensor], expr), scope)
    return map_children(expr, lambda c: opened(c, scope))


def inlined(expr: Expr, scope: Scope) -> Expr:
    """`expr` with every per-key Einsum written out: they are recomputed freely in any pass."""
    definition = scope.definition(expr)
    if definition is not None:
        return inlined(definition, scope)
    return map_children(expr, lambda c: inlined(c, scope))


@dataclass(frozen=True, slots=True)
class Shape:
    """`body` over Vars x0.., c0.., d0..; equal shapes have equal proofs. `signs` holds what is not ANY."""

    body: Expr
    signs: tuple[tuple[str, Sign], ...]


@dataclass(frozen=True, slots=True)
class Canonical:
    """A shape, and what its names stand for in one program."""

    shape: Shape
    atoms: Mapping[str, Expr]


class NotPointwise(Exception):
    """A running statistic stands inside a contraction over another rank."""


def canonicalise(expr: Expr, scope: Scope, *, whole: bool = True) -> Canonical:
    """The shape of `expr`. With `whole`, a largest key-free part is one statistic, else each read is.

    Raises NotPointwise where a statistic stands inside a contraction.
    """
    names: dict[Expr, str] = {}

    def atom(letter: str, node: Expr) -> Expr:
        if node not in names:
            names[node] = f"{letter}{sum(n.startswith(letter) for n in names.values())}"
        return Var(names[node])

    def go(node: Expr) -> Expr:
        if isinstance(node, Const):
            return node
        stats, varies = scope.statistics(node), scope.varies(node)
        if not stats:
            return atom("x" if varies else "c", node)
        if not varies and (whole or isinstance(node, Load)):
            return atom("d", node)
        definition = scope.definition(node)
        if definition is not None:
            return go(definition)
        if isinstance(node, Reduce | Load):
            raise NotPointwise
        return map_children(node, go)

    body = go(expr)
    atoms = {name: node for node, name in names.items()}
    signs = {name: sign_of(node, scope.signs) for name, node in atoms.items()}
    return Canonical(Shape(body, tuple((n, s) for n, s in signs.items() if s)), atoms)


def names_in(body: Expr, letter: str) -> tuple[str, ...]:
    """The streams (`x`), constants (`c`) or statistics (`d`) of a shape, in order of first occurrence."""
    found = (n.name for n in walk(body) if isinstance(n, Var) and n.name.startswith(letter))
    return tuple(dict.fromkeys(found))
