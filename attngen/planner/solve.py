"""One comparison of integers, solved for the key: what it says about `k`, about `q`, or about neither.

    q - window < k          k >= q - window + 1
    k // c <= g             k <= c * g + c - 1          (c > 0)
    q // c == k // c        k >= c * (q // c)  and  k <= c * (q // c) + c - 1
    abs(q - k) <= w         k >= q - w  and  k <= q + w
    q < g                   q <= g - 1
    k < end[q]              k <= end[q] - 1             (a value of the row, of which nothing is known)
    flag[q]                 a condition on the row
    (q - k) % s == 0        a residual: no bound, decided element by element

Coefficients and divisors of the key must be literals, or parameters that a call may only set to 1 or more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from attngen.lang.expr import Apply, Const, Expr, Load, Param, Var, children, free_vars, loads, walk
from attngen.lang.kinds import kind_of
from attngen.lang.ops import Kind
from attngen.lang.print import print_expr
from attngen.planner.build import at_least_zero
from attngen.planner.normalize import All, AnyOf, Formula, Leaf
from attngen.planner.poly import Mono, Poly, factor, floordiv, make_poly, to_expr, to_poly


@dataclass(frozen=True, slots=True)
class Bound:
    """`var >= bound` ("lower") or `var <= bound` ("upper"); a key's bound may read `q`, a query's may not."""

    var: Literal["k", "q"]
    side: Literal["lower", "upper"]
    bound: Poly


@dataclass(frozen=True, slots=True)
class Condition:
    """A boolean that no key changes: one answer for a whole head, or, where it reads `q`, one for each row."""

    expr: Expr

    @property
    def of_row(self) -> bool:
        """Whether it may differ from row to row."""
        return "q" in free_vars(self.expr)


@dataclass(frozen=True, slots=True)
class Residual:
    """A comparison decided element by element. `hard` says why ranges may not carry it, None if they may."""

    expr: Expr
    hard: str | None = None


Fact = Bound | Condition | Residual


class _UnsolvedError(Exception):
    """This comparison has no closed form; `reason` says why where that keeps it out of ranges altogether."""

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Solver:
    """Solves the atoms of one mask. `notes` collects a line per solved atom.

    `rows` says whether the plan may read values of each row of a tile (`rows.RowExtreme`).
    """

    kinds: Mapping[str, Kind]
    positive: frozenset[Expr]
    rows: bool = True
    notes: dict[str, None] = field(default_factory=dict[str, None])

    def atom(self, expr: Expr) -> Formula[Fact]:
        """The formula of one comparison or boolean value, as `normal_form` hands it over."""
        formula = self._solve(expr)
        self.notes[f"{print_expr(expr)} => {describe(formula)}"] = None
        return formula

    def _solve(self, expr: Expr) -> Formula[Fact]:
        reads = free_vars(expr)
        if not reads & {"q", "k"}:
            return Leaf(Condition(expr))
        reason = _obstacle(expr) if self.rows else _reads_row(expr) or _obstacle(expr)
        if reason is None and isinstance(expr, Apply) and expr.op in _COMPARE:
            if Kind.FLOAT in (kind_of(a, self.kinds) for a in expr.args):
                return Leaf(Residual(expr, "it compares floats of the query or the key"))
            try:
                return self._compare(expr.op, to_poly(expr.args[0]), to_poly(expr.args[1]))
            except _UnsolvedError as unsolved:
                reason = unsolved.reason
        if self.rows and "k" not in reads and self._is_whole(expr):
            return Leaf(Condition(expr))
        return Leaf(Residual(expr, reason or _reads_row(expr)))

    def _is_whole(self, expr: Expr) -> bool:
        """Whether no float has a part in the value, so that every evaluation of it gives the same."""
        return all(kind_of(node, self.kinds) is not Kind.FLOAT for node in walk(expr))

    def _compare(self, op: str, a: Poly, b: Poly) -> Formula[Fact]:
        match op:
            case "le":
                return self._le(a - b)
            case "lt":
                return self._le(a - b + 1)
            case "ge":
                return self._le(b - a)
            case "gt":
                return self._le(b - a + 1)
            case "eq":
                return All((self._le(a - b), self._le(b - a)))
            case _:
                return AnyOf((self._le(a - b + 1), self._le(b - a + 1)))

    def _le(self, poly: Poly) -> Formula[Fact]:
        """`poly <= 0`."""
        split = self._split(poly)
        if split is not None:
            return split
        names = _reads(poly)
        if "k" in names:
            return self._isolate(poly, "k")
        if "q" in names:
            try:
                return self._isolate(poly, "q")
            except _UnsolvedError:
                if not self.rows or magnitude(poly) >= _LIMIT:
                    raise
                return Leaf(Condition(at_least_zero(-poly)))
        if poly.value is not None:
            return All(()) if poly.value <= 0 else AnyOf(())
        return Leaf(Condition(at_least_zero(-poly)))

    def _split(self, poly: Poly) -> Formula[Fact] | None:
        """`max(a, b) + r <= 0` is `a + r <= 0 and b + r <= 0`; the same for `-min` and `abs`, and their duals."""
        reads = _reads(poly)
        for mono, c in poly.terms:
            if len(mono) != 1 or not isinstance(mono[0], Apply):
                continue
            term, args = mono[0], mono[0].args
            if term.op not in ("abs", "min", "max") or not free_vars(term) & {"q", "k"}:
                continue
            ends = [to_poly(args[0]), -to_poly(args[0])] if term.op == "abs" else [to_poly(a) for a in args]
            rest = poly - factor(term) * c
            conjunction = (c > 0) != (term.op == "min")
            if conjunction or term.op == "abs" or "k" in free_vars(term) or "k" not in reads:
                parts = tuple(self._le(rest + e * c) for e in ends)
                return All(parts) if conjunction else AnyOf(parts)
        return None

    def _isolate(self, poly: Poly, var: Literal["k", "q"]) -> Formula[Fact]:
        """`coefficient * term + rest <= 0` with `var` in `term` alone: a bound on the term."""
        holders = [(m, c) for m, c in poly.terms if any(var in free_vars(f) for f in m)]
        if len(holders) != 1:
            raise _UnsolvedError
        mono, c = holders[0]
        term, scale = self._one_factor(mono, var)
        rest = poly - make_poly({mono: c})
        by = make_poly({scale: abs(c)})
        if c > 0:
            return self._bound_term(term, "upper", floordiv(-rest, by), var)
        return self._bound_term(term, "lower", -floordiv(-rest, by), var)

    def _one_factor(self, mono: Mono, var: str) -> tuple[Expr, Mono]:
        inside = [f for f in mono if var in free_vars(f)]
        scale = tuple(f for f in mono if var not in free_vars(f))
        if len(inside) != 1 or any("q" in free_vars(f) for f in scale):
            raise _UnsolvedError("it multiplies queries and keys")
        if not self.positive.issuperset(scale):
            raise _UnsolvedError(f"{'the key' if var == 'k' else 'the query'} has a factor of unknown sign")
        return inside[0], scale

    def _bound_term(
        self, term: Expr, side: Literal["lower", "upper"], g: Poly, var: Literal["k", "q"]
    ) -> Formula[Fact]:
        match term:
            case Var(name) if name == var:
                self._check(g)
                return Leaf(Bound(var, side, g))
            case Apply("floordiv", (inner, by)) if self._is_positive(by):
                d = to_poly(by)
                if side == "upper":
                    return self._le(to_poly(inner) - g * d - d + 1)
                return self._le(g * d - to_poly(inner))
            case Apply("min" | "max" | "abs"):
                return self._le(factor(term) - g if side == "upper" else g - factor(term))
            case _:
                raise _UnsolvedError

    def _is_positive(self, by: Expr) -> bool:
        return by in self.positive or (isinstance(by, Const) and by.value > 0)

    def _check(self, bound: Poly) -> None:
        """A bound must fit 64 bits where its values fit 32, and be made of operators that intervals know."""
        if magnitude(bound) >= _LIMIT:
            raise _UnsolvedError("its bound multiplies values beyond 64 bits")
        for node in (n for m, _ in bound.terms for f in m for n in _arithmetic(f)):
            if not isinstance(node, Apply) or "q" not in free_vars(node):
                continue
            if node.op not in _BOUNDABLE or (node.op == "floordiv" and not self._is_positive(node.args[1])):
                raise _UnsolvedError


_VALUE = 1 << 31
_LIMIT = (1 << 63) - (1 << 48)  # leaves room for lengths and tile sizes to be added
_COMPARE = frozenset(("lt", "le", "gt", "ge", "eq", "ne"))
_BOUNDABLE = frozenset(("add", "sub", "mul", "neg", "floordiv", "min", "max", "abs"))


def describe(formula: Formula[Fact]) -> str:
    """What a solved comparison says, for a reader."""
    match formula:
        case Leaf(value):
            return _describe_fact(value)
        case All(parts):
            return " and ".join(describe(p) for p in parts) or "always"
        case AnyOf(parts):
            return " or ".join(describe(p) for p in parts) or "never"


def _describe_fact(fact: Fact) -> str:
    match fact:
        case Bound(var, side, bound):
            return f"{var} {'>=' if side == 'lower' else '<='} {print_expr(to_expr(bound))}"
        case Condition():
            return "one answer for a whole row" if fact.of_row else "one answer for a whole head"
        case Residual(_, hard):
            return hard or "no closed form, decided element by element"


def divisors(expr: Expr) -> frozenset[Expr]:
    """Parameters that something is divided by."""
    return frozenset(
        node.args[1]
        for node in walk(expr)
        if isinstance(node, Apply) and node.op in ("floordiv", "mod") and isinstance(node.args[1], Param)
    )


def magnitude(poly: Poly) -> int:
    """The most the value can be in magnitude when indices, sizes, parameters and loads are at most 2**31."""
    return sum(abs(c) * _magnitude_of_term(m) for m, c in poly.terms)


def _magnitude_of_term(mono: Mono) -> int:
    for f in mono:
        if isinstance(f, Apply) and f.op == "floordiv" and f.args[1] in mono and len(mono) == 2:
            return magnitude(to_poly(f.args[0])) + _VALUE  # c * (x // c) lies within c of x
    return prod(_magnitude_of_factor(f) for f in mono)


def _magnitude_of_factor(expr: Expr) -> int:
    match expr:
        case Apply("floordiv" | "abs", (a, *_)):
            return magnitude(to_poly(a))
        case Apply("min" | "max", args):
            return max(magnitude(to_poly(a)) for a in args)
        case Apply("where", (_, a, b)):
            return max(magnitude(to_poly(a)), magnitude(to_poly(b)))
        case Const(value):
            return int(abs(value))
        case Apply():
            return _LIMIT
        case _:
            return _VALUE


def _reads(poly: Poly) -> set[str]:
    return {name for m, _ in poly.terms for f in m for name in free_vars(f)}


def _arithmetic(expr: Expr) -> Iterator[Expr]:
    """The nodes of an expression, loads among them, but nothing of what indexes a load."""
    yield expr
    if not isinstance(expr, Load):
        for child in children(expr):
            yield from _arithmetic(child)


def _reads_row(expr: Expr) -> str | None:
    """Why a comparison that was not solved needs lists, where it reads data of the query: they bound it by its data."""
    for load in loads(expr):
        if "q" in free_vars(load):
            return f"it reads `{load.tensor}` at the query"
    return None


def _obstacle(expr: Expr) -> str | None:
    """Why a comparison needs data or arithmetic that ranges may not carry even as a residual."""
    for load in loads(expr):
        used = [v for v in ("q", "k") if any(v in free_vars(i) for i in load.indices)]
        if "k" in used:
            named = " and ".join({"q": "the query", "k": "the key"}[v] for v in used)
            return f"it reads `{load.tensor}` at {named}"
    body = expr.args[0] if isinstance(expr, Apply) and expr.op == "not" else expr
    for node in _arithmetic(body):
        if not isinstance(node, Apply) or not free_vars(node) & {"q", "k"}:
            continue
        if node.op in ("and", "or", "xor", "not"):
            return "it works on the bits of the query or the key"
        if node.op == "mul" and all(free_vars(a) & {"q", "k"} for a in node.args):
            return "it multiplies queries and keys"
        if node.op in ("pow", "shl", "shr") and free_vars(node.args[1]) & {"q", "k"}:
            return "it has the query or the key in an exponent"
        if node.op == "pow":
            return "it is a power of the query or the key"
    return None
