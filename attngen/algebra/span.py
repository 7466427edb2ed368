"""Prove that a function at new statistics is a combination of a basis at old ones, and find the coefficients.

    F(x; d) = a_0 F(x; d_old) + a_1 B_1(x; d_old) + ...

At as many base points x_i as there are functions the identity is a linear system for the coefficients; with
them, it is checked for every x. A stream that occurs as `x0 - d0` is tried at d0_old, d0_old + 1, ...: the
matrix is then one of numbers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

from attngen.algebra.bounded import bounded
from attngen.algebra.canonical import Shape, names_in
from attngen.algebra.from_sympy import OLD_SUFFIX, from_sympy
from attngen.algebra.mp_ops import DIGITS, Undefined
from attngen.algebra.numeric import matrix_rank, sample, value_at
from attngen.algebra.separate import (
    PROOF_SECONDS,
    Symbols,
    zero_or_rest,
)
from attngen.algebra.signs import Sign
from attngen.errors import InternalError
from attngen.lang.expr import Apply, Const, Expr, Var, apply, children, substitute
from attngen.lang.print import print_expr

_MAX_POINTS = 256
_SHORT_OPS = 3


@dataclass(frozen=True, slots=True)
class Combination:
    """`own * F + sum of share * member`: coefficients over Vars d0 (new), d0_old and constants.

    own     coefficient of the function itself, None if it is 1.
    shares  (index of the other function, coefficient), without those that are 0.
    base    the base points, readable.
    """

    own: Expr | None
    shares: tuple[tuple[int, Expr], ...]
    base: str

    def over(self, indices: tuple[int, ...]) -> Combination:
        """The same with the functions renumbered."""
        return replace(self, shares=tuple((indices[j], e) for j, e in self.shares))


def prove_combination(
    body: Expr, basis: tuple[Expr, ...], signs: tuple[tuple[str, Sign], ...]
) -> Combination | str:
    """The coefficients of `body` over `basis`, itself first; a reason where no proof was found in time."""
    late = f"no proof within {PROOF_SECONDS:g} s that its accumulators follow"
    return bounded(lambda: _prove(body, basis, signs), PROOF_SECONDS, late)


def _prove(body: Expr, basis: tuple[Expr, ...], signs: tuple[tuple[str, Sign], ...]) -> Combination | str:
    joint = Shape(Apply("all of", (body, *basis)), signs)
    points = _base_points(basis, joint)
    if points is None:
        return "its basis is singular at the points tried"
    symbols = Symbols(joint)
    aged = _aged(joint)
    system = [_row(body, basis, point, aged, symbols) for point in points]
    solution = _solved(system)
    old_basis = [symbols.of(substitute(b, aged)) for b in basis]
    rest = zero_or_rest(
        _trig(symbols.of(body) - sum(a * b for a, b in zip(solution, old_basis, strict=True)))
    )
    if rest != 0:
        return f"the combination of its accumulators leaves {rest}"
    try:
        coefficients = [from_sympy(a, symbols.back()) for a in solution]
    except InternalError as err:
        return err.message
    shares = tuple((j, e) for j, e in enumerate(coefficients) if j and solution[j] != 0)
    base = ", ".join(
        " and ".join(f"{n} = {print_expr(e)}" for n, e in point.items()) or "any x" for point in points
    )
    return Combination(None if solution[0] == 1 else coefficients[0], shares, base)


def _aged(shape: Shape) -> dict[Expr, Expr]:
    return {Var(d): Var(d + OLD_SUFFIX) for d in names_in(shape.body, "d")}


def _row(
    body: Expr, basis: tuple[Expr, ...], point: Mapping[str, Expr], aged: dict[Expr, Expr], symbols: Symbols
) -> list[Any]:
    """One equation `sum_j a_j B_j = F`, over its first entry with a symbol: exponentials cancel."""
    import sympy as sp

    at: dict[Expr, Expr] = {Var(n): e for n, e in point.items()}
    entries = [symbols.of(substitute(substitute(b, aged), at)) for b in basis]
    entries.append(symbols.of(substitute(body, at)))
    pivot = next((e for e in entries[:-1] if e.free_symbols), sp.S.One)
    return [sp.powsimp(sp.expand(e / pivot)) for e in entries]


def _solved(system: list[list[Any]]) -> list[Any]:
    """The coefficients. A matrix of numbers is inverted; Cramer's rule needs no pivot recognised as 0."""
    import sympy as sp

    size = len(system)
    matrix = sp.Matrix([row[:size] for row in system])
    right = sp.Matrix([row[size] for row in system])
    if all(e.is_Rational for row in system for e in row[:size]):
        return [_short(v) for v in matrix.inv() * right]
    whole = sp.expand(matrix.det(method="berkowitz"))
    out: list[Any] = []
    for j in range(size):
        part = matrix.copy()
        part[:, j] = right
        top = sp.expand(part.det(method="berkowitz"))
        out.append(_short(top / whole))
    return out


def _short(value: Any) -> Any:
    """A short form, in which no exponential has an argument of old values only, or of new ones."""
    import sympy as sp

    flat = _trig(sp.powsimp(sp.expand(value)))
    if sp.count_ops(flat) <= _SHORT_OPS and not _lonely(flat):
        return sp.factor_terms(flat)
    factored = sp.factor(flat)
    forms = [flat, _trig(sp.powsimp(factored)), _trig(sp.powsimp(sp.expand(factored)))]
    return min(forms, key=lambda form: (_lonely(form), sp.count_ops(form)))


def _lonely(value: Any) -> int:
    """Exponentials of a statistic at one time only: they may overflow where a difference does not."""
    import sympy as sp

    count = 0
    for power in value.atoms(sp.Pow, sp.exp):
        base, exponent = power.as_base_exp()
        names = {s.name for s in exponent.free_symbols if s.name.startswith("d")}
        aged = {n.endswith(OLD_SUFFIX) for n in names}
        count += (base == sp.E or base.is_number) and len(aged) == 1
    return count


def _trig(value: Any) -> Any:
    import sympy as sp

    return sp.trigsimp(sp.expand(value, trig=True)) if value.has(sp.sin, sp.cos) else value


def _base_points(basis: tuple[Expr, ...], joint: Shape) -> list[dict[str, Expr]] | None:
    """Points at which the functions of `basis`, at the old statistics, are linearly independent."""
    import mpmath as mp

    rng = random.Random(3)
    with mp.workdps(DIGITS):
        d, c = sample(joint, "d", rng), sample(joint, "c", rng)
        known = d | c | {n + OLD_SUFFIX: v for n, v in d.items()}
        found: list[dict[str, Expr]] = []
        rows: list[list[Any]] = []
        for point in _points(joint):
            try:
                x = {n: value_at(Shape(e, ()), known) for n, e in point.items()}
                row = [value_at(Shape(b, ()), x | known) for b in basis]
            except Undefined:
                continue
            if matrix_rank([*rows, row]) == len(rows) + 1:
                rows.append(row)
                found.append(point)
            if len(found) == len(basis):
                return found
    return None


def _points(shape: Shape) -> list[dict[str, Expr]]:
    streams = names_in(shape.body, "x")
    choices = [_values(n, shape) for n in streams]
    ordered = sorted(islice(product(*(range(len(c)) for c in choices)), _MAX_POINTS), key=sum)
    return [{n: choices[i][at[i]] for i, n in enumerate(streams)} for at in ordered]


def _values(stream: str, shape: Shape) -> tuple[Expr, ...]:
    """Values at which a stream is tried: at the statistic that it stands beside, if there is one."""
    positive = bool(dict(shape.signs).get(stream))
    steps: tuple[float, ...] = (1, 2, 3, 4) if positive else (0, 1, -1, 2)
    beside = _beside(stream, shape.body)
    if beside is None:
        return tuple(Const(s) for s in steps)
    old = Var(beside + OLD_SUFFIX)
    return tuple(old if s == 0 else apply("add", old, Const(s)) for s in steps)


def _beside(stream: str, body: Expr) -> str | None:
    """The d of `stream - d`, outside an exponential if there is such a place: an exponential cancels."""
    found = list(_paired(stream, body, inside=False))
    outside = (name for name, inside in found if not inside)
    return next(outside, found[0][0] if found else None)


def _paired(stream: str, expr: Expr, *, inside: bool) -> Iterator[tuple[str, bool]]:
    match expr:
        case Apply("sub" | "add", (Var(a), Var(b))) if stream in (a, b):
            other = b if a == stream else a
            if other.startswith("d"):
                yield other, inside
        case _:
            inside = inside or (isinstance(expr, Apply) and expr.op in ("exp", "exp2"))
            for child in children(expr):
                yield from _paired(stream, child, inside=inside)
