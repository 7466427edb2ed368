"""Values of shapes at random points, at 40 digits, and the rank of a matrix of them.

These refute an identity before anything is proved: one point where it fails is a disproof.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from attngen.algebra.canonical import Shape, names_in
from attngen.algebra.mp_ops import Undefined, mp_ops, real
from attngen.algebra.signs import Sign
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Apply, Const, Expr, Var, children, walk


def sample(shape: Shape, letter: str, rng: random.Random) -> dict[str, Any]:
    """Random values for the streams, the statistics or the constants of a shape, of the signs they have."""
    signs, conditions = dict(shape.signs), conditions_in(shape.body)
    return {name: _drawn(name, signs, conditions, rng) for name in names_in(shape.body, letter)}


def profile(shape: Shape, points: int) -> list[Any]:
    """Values of a shape at the same points for every shape with the same names; None where it has none.

    Streams differ from point to point, statistics and constants do not: what is one function times a factor free of
    streams has proportional profiles.
    """
    signs, conditions = dict(shape.signs), conditions_in(shape.body)
    names = dict.fromkeys(n.name for n in walk(shape.body) if isinstance(n, Var))
    out: list[Any] = []
    for point in range(points):
        at: dict[str, Any] = {}
        for name in names:
            rng = random.Random(f"{name} {point if name.startswith('x') else ''}")
            at[name] = _drawn(name, signs, conditions, rng)
        try:
            out.append(value_at(shape, at))
        except Undefined:
            out.append(None)
    return out


def _drawn(name: str, signs: Mapping[str, Sign], conditions: set[str], rng: random.Random) -> Any:
    """A value for one name: a boolean where it is a condition, else a number of its sign."""
    import mpmath as mp

    if name in conditions:
        return rng.random() < 0.5
    value = mp.mpf(rng.randint(-3000, 3000)) / 997
    return abs(value) + mp.mpf(1) / 7 if signs.get(name, Sign.ANY) else value


def conditions_in(body: Expr) -> set[str]:
    """The names that a body reads as booleans."""
    out: set[str] = set()

    def visit(node: Expr, test: bool) -> None:
        match node:
            case Var(name):
                if test:
                    out.add(name)
            case Apply("where", (condition, a, b)):
                visit(condition, True)
                visit(a, test)
                visit(b, test)
            case Apply("and" | "or" | "xor" | "not"):
                for child in children(node):
                    visit(child, test)
            case _:
                for child in children(node):
                    visit(child, False)

    visit(body, False)
    return out


def value_at(shape: Shape, at: dict[str, Any]) -> Any:
    """The value of a shape's body at a point. Raises Undefined where it has no finite real one."""

    def leaf(node: Expr) -> Any:
        if isinstance(node, Var):
            return at[node.name]
        if isinstance(node, Const):
            return node.value if isinstance(node.value, bool) else real(repr(node.value))
        raise Undefined

    return real(evaluate(shape.body, leaf, mp_ops()))


def matrix_rank(rows: list[list[Any]]) -> int:
    """Gaussian elimination with full pivoting; a pivot 25 digits below the largest entry is zero."""
    import mpmath as mp

    scale = max(abs(v) for row in rows for v in row) or mp.mpf(1)
    rank = 0
    while rows:
        i, j = max(
            ((i, j) for i in range(len(rows)) for j in range(len(rows[0]))),
            key=lambda ij: abs(rows[ij[0]][ij[1]]),
        )
        pivot = rows[i][j]
        if abs(pivot) <= scale * mp.mpf(10) ** -25:
            break
        rank += 1
        rest = [row for n, row in enumerate(rows) if n != i]
        rows = [[v - row[j] / pivot * p for v, p in zip(row, rows[i], strict=True)] for row in rest]
    return rank
