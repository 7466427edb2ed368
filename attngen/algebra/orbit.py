"""D4: which functions a sum has to keep beside its own so that all of them can follow a statistic.

    F(x; d) = sum_j a_j(d, d_old) * B_j(x; d_old)       B_0 = F

    (x0 - d0) * exp(x0 - d0)   ->   exp(x0 - d0)                 2 accumulators
    (x0 - d0) ** 2             ->   x0 - d0, 1                   3: the merge of variances
    cos(x0 - d0)               ->   sin(x0 - d0)                 2

The candidates are sums that the cascade keeps anyway and that follow the same statistics, then derivatives
of F by them. Derivatives keep `x0 - d0` together: a basis of powers of x0 would hold the same functions and
lose every digit to cancellation. Which candidates are needed is found from values at 40 digits; `span` then
proves it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

from attngen.algebra.canonical import Shape, names_in
from attngen.algebra.mp_ops import DIGITS, Undefined
from attngen.algebra.numeric import matrix_rank, profile, sample, value_at
from attngen.algebra.signs import Sign
from attngen.algebra.span import Combination, prove_combination
from attngen.lang.expr import Apply, Const, Expr, Var, apply, walk

MAX_MEMBERS = 4
_MAX_POOL = 10
_ORDERS = 3
_EXTRA_POINTS = 4
_LEAST_POINTS = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A function of the basis. `known` is its index among the sums that exist already, None if it is new."""

    body: Expr
    known: int | None


@dataclass(frozen=True, slots=True)
class Orbit:
    """A closed basis, the function itself first. `rows[i]` is how a new member follows; None for a known one."""

    members: tuple[Member, ...]
    rows: tuple[Combination | None, ...]


@dataclass(frozen=True, slots=True)
class NoOrbit:
    """Why there is none."""

    reason: str


@lru_cache(maxsize=512)
def find_orbit(
    body: Expr, existing: tuple[Expr, ...], signs: tuple[tuple[str, Sign], ...]
) -> Orbit | NoOrbit:
    """The smallest closed basis of at most four functions with `body` in it, over Vars x0.., c0.., d0..

    `existing` are the bodies of sums that are kept already: they cost nothing, and follow by themselves.
    """
    import mpmath as mp

    if any(derivative_terms(body, name) is None for name in names_in(body, "d")):
        return NoOrbit("it has no derivative by its statistic from which other accumulators could be taken")
    with mp.workdps(DIGITS):
        pool = _candidates(body, existing, signs)
        bodies = [body, *(m.body for m in pool)]
        table = _Values(bodies, signs)
        if table.points < len(bodies):
            return NoOrbit("it has real values at too few points")
        chosen = _closed(len(bodies), [m.known is None for m in pool], table)
    if chosen is None:
        return NoOrbit(f"no {MAX_MEMBERS} functions or fewer, among them its derivatives, follow together")
    return _proved([Member(body, None), *pool], chosen, signs)


def _proved(
    pool: list[Member], chosen: dict[int, tuple[int, ...]], signs: tuple[tuple[str, Sign], ...]
) -> Orbit | NoOrbit:
    order = list(dict.fromkeys([0, *chosen, *(j for js in chosen.values() for j in js)]))
    rows: list[Combination | None] = []
    for i in order:
        if pool[i].known is not None:
            rows.append(None)
            continue
        basis = (i, *chosen[i])
        found = prove_combination(pool[i].body, tuple(pool[j].body for j in basis), signs)
        if isinstance(found, str):
            return NoOrbit(found)
        rows.append(found.over(tuple(order.index(j) for j in basis)))
    return Orbit(tuple(pool[i] for i in order), tuple(rows))


def _candidates(body: Expr, existing: tuple[Expr, ...], signs: tuple[tuple[str, Sign], ...]) -> list[Member]:
    """What may join `body` in a basis: known sums that follow the same statistics, then derivatives."""
    moving = set(names_in(body, "d"))
    out: list[Member] = []

    def add(member: Member) -> bool:
        others = [body, *(m.body for m in out)]
        if len(out) >= _MAX_POOL or _proportional(member.body, others, signs) is not None:
            return False
        out.append(member)
        return True

    for i, other in enumerate(existing):
        statistics = set(names_in(other, "d"))
        if statistics and statistics <= moving:
            add(Member(other, i))
    level, seen = [body], {body}
    for _ in range(_ORDERS):
        fresh: list[Expr] = []
        for function in level:
            for name in names_in(function, "d"):
                terms = derivative_terms(function, name) or ()
                fresh.extend(t for t in map(_moving_part, terms) if t not in seen)
                seen.update(fresh)
        for term in dict.fromkeys(fresh):
            at = _proportional(term, list(existing), signs)
            add(Member(term, None) if at is None else Member(existing[at], at))
        level = fresh
    return out


def derivative_terms(expr: Expr, name: str) -> tuple[Expr, ...] | None:
    """Functions whose sum, with factors free of x, is the derivative by `name`; None where there is no rule.

    The terms are built from the parts of `expr` as they are written, so a difference stays one.
    """
    if Var(name) not in walk(expr):
        return ()
    match expr:
        case Var():
            return (Const(1.0),)
        case Apply("add" | "sub", (a, b)):
            return _both(derivative_terms(a, name), derivative_terms(b, name))
        case Apply("neg" | "float" | "finite", (a,)):
            return derivative_terms(a, name)
        case Apply("mul", (a, b)):
            left, right = derivative_terms(a, name), derivative_terms(b, name)
            return _both(_times(left, b), _times(right, a))
        case Apply("div", (a, b)):
            top, bottom = derivative_terms(a, name), derivative_terms(b, name)
            square = apply("mul", b, b)
            return _both(_over(top, b), _over(_times(bottom, a), square))
        case Apply("exp" | "exp2", (a,)):
            return _times(derivative_terms(a, name), expr)
        case Apply("sin" | "cos" as op, (a,)):
            return _times(derivative_terms(a, name), apply("cos" if op == "sin" else "sin", a))
        case Apply("log" | "log2", (a,)):
            return _over(derivative_terms(a, name), a)
        case Apply("pow", (a, Const(n))) if n == int(n) and n >= 1:
            lower = Const(1.0) if n == 1 else a if n == 2 else apply("pow", a, Const(type(n)(n - 1)))
            return _times(derivative_terms(a, name), lower)
        case Apply("where", (c, a, b)) if Var(name) not in walk(c):
            left, right = derivative_terms(a, name), derivative_terms(b, name)
            if left is None or right is None:
                return None
            kept = tuple(apply("where", c, t, Const(0.0)) for t in left)
            return kept + tuple(apply("where", c, Const(0.0), t) for t in right)
        case _:
            return None


def _moving_part(term: Expr) -> Expr:
    """`term` without factors that are the same for every key: they are coefficients."""
    match term:
        case Apply("mul", (a, b)):
            left, right = _moving_part(a), _moving_part(b)
            return left if right == Const(1.0) else right if left == Const(1.0) else apply("mul", left, right)
        case Apply("div", (a, b)) if not names_in(b, "x"):
            return _moving_part(a)
        case Apply("neg", (a,)):
            return _moving_part(a)
        case Apply("pow", (Apply("div", (a, b)), n)) if not names_in(b, "x"):
            return apply("pow", a, n)
        case _:
            return term if names_in(term, "x") else Const(1.0)


_Terms = tuple[Expr, ...] | None


def _both(a: _Terms, b: _Terms) -> _Terms:
    return None if a is None or b is None else a + b


def _times(terms: _Terms, factor: Expr) -> _Terms:
    if terms is None:
        return None
    return tuple(
        factor if t == Const(1.0) else t if factor == Const(1.0) else apply("mul", factor, t) for t in terms
    )


def _over(terms: _Terms, divisor: Expr) -> _Terms:
    return None if terms is None else tuple(apply("div", t, divisor) for t in terms)


class _Values:
    """Values of some functions at random keys, at old statistics and at new ones."""

    def __init__(self, bodies: list[Expr], signs: tuple[tuple[str, Sign], ...]) -> None:
        rng = random.Random(2)
        joint = Shape(Apply("all of", tuple(bodies)), signs)
        d_old, d_new, c = (sample(joint, letter, rng) for letter in ("d", "d", "c"))
        self.old: list[list[Any]] = [[] for _ in bodies]
        self.new: list[list[Any]] = [[] for _ in bodies]
        wanted = len(bodies) + _EXTRA_POINTS
        for _ in range(2 * wanted):
            x = sample(joint, "x", rng)
            try:
                before = [value_at(Shape(b, signs), x | d_old | c) for b in bodies]
                after = [value_at(Shape(b, signs), x | d_new | c) for b in bodies]
            except Undefined:
                continue
            for i, (u, v) in enumerate(zip(before, after, strict=True)):
                self.old[i].append(u)
                self.new[i].append(v)
            if self.points == wanted:
                break

    @property
    def points(self) -> int:
        """Keys at which every function has a value."""
        return len(self.old[0])

    def spanned(self, target: int, basis: tuple[int, ...]) -> bool:
        """Whether `target` at the new statistics is a combination of `basis` at the old ones."""
        rows = [_scaled(self.old[j]) for j in basis]
        return matrix_rank([*rows, _scaled(self.new[target])]) == matrix_rank(rows)


def _scaled(row: list[Any]) -> list[Any]:
    """A row over its largest entry: functions of very different size must not hide one another."""
    top = max(abs(v) for v in row)
    return [v / top for v in row] if top else row


def _proportional(body: Expr, others: list[Expr], signs: tuple[tuple[str, Sign], ...]) -> int | None:
    """The first of `others` that is `body` times a factor free of x."""
    for i, other in enumerate(others):
        if body == other:
            return i
        pairs = [p for p in zip(_profile(body, signs), _profile(other, signs), strict=True) if None not in p]
        if (
            len(pairs) >= _LEAST_POINTS
            and matrix_rank([_scaled(list(r)) for r in zip(*pairs, strict=True)]) == 1
        ):
            return i
    return None


@lru_cache(maxsize=1024)
def _profile(body: Expr, signs: tuple[tuple[str, Sign], ...]) -> tuple[Any, ...]:
    import mpmath as mp

    with mp.workdps(DIGITS):
        return tuple(profile(Shape(body, signs), 2 * (2 + _EXTRA_POINTS)))


def _closed(count: int, new: list[bool], table: _Values) -> dict[int, tuple[int, ...]] | None:
    """Each new function of a smallest closed basis -> the others that it takes shares of."""
    chosen: dict[int, tuple[int, ...]] = {}
    waiting = [0]
    members = {0}
    while waiting:
        target = waiting.pop(0)
        if not table.spanned(target, tuple(range(count))):
            return None
        picked = _pick(target, count, members, new, table)
        if picked is None:
            return None
        chosen[target] = picked
        for j in picked:
            if j not in members and new[j - 1]:
                waiting.append(j)
        members |= set(picked)
        if len(members) > MAX_MEMBERS:
            return None
    return chosen


def _pick(
    target: int, count: int, members: set[int], new: list[bool], table: _Values
) -> tuple[int, ...] | None:
    """The fewest other functions that `target` needs; those that are kept anyway before new ones."""
    others = [j for j in range(count) if j != target]
    for size in range(MAX_MEMBERS):
        fits = [p for p in combinations(others, size) if table.spanned(target, (target, *p))]
        if fits:
            return min(fits, key=lambda p: sum(j not in members and new[j - 1] for j in p))
    return None
