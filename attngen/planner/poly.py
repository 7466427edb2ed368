"""Integer expressions as polynomials: the normal form in which bounds are compared, merged and printed.

A `Poly` is a sum of integer multiples of products of *factors*: expressions that are not sums or products of
integers themselves (`q`, `n_k`, a parameter, `q // c`, `max(a, b)`).

    before   q - (window - 1), (q // 4 * 4 + 8) // 4, q - q % c
    after    1 + q - window,   q // 4 + 2,            c * (q // c)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from attngen.lang.expr import Apply, Const, Expr, Load, Param, Size, Var, apply

Mono = tuple[Expr, ...]


_RANK: dict[type[Expr], int] = {Apply: 0, Var: 1, Load: 2, Param: 3, Size: 4}


@lru_cache(maxsize=4096)
def _key(expr: Expr) -> tuple[int, str]:
    """Indices before inputs before sizes, as a reader would write them."""
    return (_RANK.get(type(expr), 9), repr(expr))


@lru_cache(maxsize=4096)
def _mono_key(mono: Mono) -> tuple[int, tuple[tuple[int, str], ...]]:
    return (1 if mono else 0, tuple(_key(f) for f in mono))


@dataclass(frozen=True, slots=True)
class Poly:
    """`sum(coefficient * product(factors))`; terms sorted, no zero coefficients, `()` is the constant's product."""

    terms: tuple[tuple[Mono, int], ...]

    def __add__(self, other: Poly | int) -> Poly:
        out = dict(self.terms)
        for mono, c in _lift(other).terms:
            out[mono] = out.get(mono, 0) + c
        return make_poly(out)

    def __neg__(self) -> Poly:
        return Poly(tuple((m, -c) for m, c in self.terms))

    def __sub__(self, other: Poly | int) -> Poly:
        return self + (-_lift(other))

    def __mul__(self, other: Poly | int) -> Poly:
        if isinstance(other, int):
            return Poly(tuple((m, c * other) for m, c in self.terms)) if other else Poly(())
        out: dict[Mono, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in other.terms:
                mono = tuple(sorted(m1 + m2, key=_key))
                out[mono] = out.get(mono, 0) + c1 * c2
        return make_poly(out)

    @property
    def value(self) -> int | None:
        """The integer this is, or None if it is not constant."""
        if not self.terms:
            return 0
        return self.terms[0][1] if len(self.terms) == 1 and not self.terms[0][0] else None

    @property
    def moving(self) -> tuple[tuple[Mono, int], ...]:
        """The terms apart from the constant, which sorts first."""
        return self.terms[1:] if self.terms and not self.terms[0][0] else self.terms

    @property
    def constant(self) -> int:
        """The constant term."""
        return self.terms[0][1] if self.terms and not self.terms[0][0] else 0

    @property
    def degree(self) -> int:
        """The longest product in it."""
        return max((len(m) for m, _ in self.terms), default=0)


def make_poly(terms: Mapping[Mono, int]) -> Poly:
    """The polynomial with these terms, in canonical order."""
    kept = [(m, c) for m, c in terms.items() if c != 0]
    if len(kept) < 2:
        return Poly(tuple(kept))
    return Poly(tuple(sorted(kept, key=lambda t: _mono_key(t[0]))))


def number(value: int) -> Poly:
    """A constant polynomial."""
    return make_poly({(): value})


def factor(expr: Expr) -> Poly:
    """The polynomial that is one factor."""
    return Poly((((expr,), 1),))


def product(factors: Iterable[Expr], coefficient: int = 1) -> Poly:
    """`coefficient * f1 * f2 * ...`."""
    return make_poly({tuple(sorted(factors, key=_key)): coefficient})


def _lift(x: Poly | int) -> Poly:
    return number(x) if isinstance(x, int) else x


@lru_cache(maxsize=4096)
def to_poly(expr: Expr) -> Poly:
    """The polynomial of an integer expression. Booleans in arithmetic stay factors."""
    match expr:
        case Const(value) if not isinstance(value, float):
            return number(int(value))
        case Apply("add", (a, b)):
            return to_poly(a) + to_poly(b)
        case Apply("sub", (a, b)):
            return to_poly(a) - to_poly(b)
        case Apply("mul", (a, b)):
            return to_poly(a) * to_poly(b)
        case Apply("neg", (a,)):
            return -to_poly(a)
        case Apply("floordiv", (a, b)):
            return floordiv(to_poly(a), to_poly(b))
        case Apply("mod", (a, Const() | Param() as b)) if b != Const(0):
            pa, pb = to_poly(a), to_poly(b)
            return pa - pb * floordiv(pa, pb)
        case Apply("shl", (a, Const(int(n)))) if 0 <= n < 32:
            return to_poly(a) * (1 << n)
        case Apply("shr", (a, Const(int(n)))) if 0 <= n < 32:
            return floordiv(to_poly(a), number(1 << n))
        case Apply("min" | "max" | "abs" as op, args):
            return factor(Apply(op, tuple(to_expr(to_poly(a)) for a in args)))
        case Apply("where", (c, a, b)):
            return factor(apply("where", c, to_expr(to_poly(a)), to_expr(to_poly(b))))
        case Apply("floor" | "ceil" | "round" | "finite", (a,)):
            return to_poly(a)  # of an integer: itself
        case _:
            return factor(expr)


def floordiv(a: Poly, b: Poly) -> Poly:
    """`a // b`, with every part of `a` that `b` divides taken out: `(2 * x + y) // 2 = x + y // 2`.

    Only for literals and parameters, which a call keeps from being 0; `x // 0` is 0 for any other divisor.
    """
    divisor = b.value
    if divisor is not None and divisor != 0:
        if divisor < 0:
            a, divisor = -a, -divisor
        outside = make_poly({m: c // divisor for m, c in a.terms if m != () and c % divisor == 0})
        carry, _ = divmod(a.constant, divisor)
        inside = a - outside * divisor - carry * divisor
        outside = outside + carry
        if inside.value is not None:
            return outside + inside.value // divisor
        return outside + factor(apply("floordiv", to_expr(inside), Const(divisor)))
    by = to_expr(b)
    if isinstance(by, Param):
        inside = make_poly({m: c for m, c in a.terms if by not in m})
        outside = make_poly({_without(m, by): c for m, c in a.terms if by in m})
        if not inside.terms:
            return outside
        return outside + factor(apply("floordiv", to_expr(inside), by))
    return factor(apply("floordiv", to_expr(a), by))


def _without(mono: Mono, f: Expr) -> Mono:
    at = mono.index(f)
    return mono[:at] + mono[at + 1 :]


def to_expr(poly: Poly) -> Expr:
    """A readable expression: positive terms, then subtracted ones, the constant last."""
    terms = poly.moving
    ordered = [t for t in terms if t[1] > 0] + [t for t in terms if t[1] < 0]
    constant = poly.constant
    if constant > 0 and (not ordered or ordered[0][1] < 0):
        out: Expr | None = Const(constant)
        constant = 0
    else:
        out = None
    for mono, c in ordered:
        term = _term(mono, abs(c))
        if out is not None:
            term = apply("add" if c > 0 else "sub", out, term)
        elif c < 0:
            term = apply("neg", term)
        out = term
    if out is None:
        return Const(constant)
    if constant:
        out = apply("add" if constant > 0 else "sub", out, Const(abs(constant)))
    return out


def _term(mono: Mono, coefficient: int) -> Expr:
    out: Expr | None = Const(coefficient) if coefficient != 1 else None
    for f in mono:
        out = f if out is None else apply("mul", out, f)
    return Const(coefficient) if out is None else out
