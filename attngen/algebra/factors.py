"""Split a product into the part that holds statistics and the factors of the key alone.

    (S - M) * exp(S - M) * V[k, e] / w[k]   ->   (S - M) * exp(S - M),  times V[k, e], over w[k]

The factors stand on both sides of every identity about the part, so proofs leave them out.
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.algebra.canonical import Scope
from attngen.lang.expr import Apply, Const, Expr, apply

_ONE = Const(1.0)


@dataclass(frozen=True, slots=True)
class Split:
    """A body as `part` times factors that vary with the key and hold no statistic; True for a divisor."""

    part: Expr
    factors: tuple[tuple[Expr, bool], ...]

    def joined(self, part: Expr) -> Expr:
        """The same factors on another part."""
        out = part
        for factor, inverse in self.factors:
            out = apply("div", out, factor) if inverse else _product(out, factor)
        return out


def split(expr: Expr, scope: Scope) -> Split:
    """Take the factors without a statistic from a product."""
    if not scope.statistics(expr) and scope.varies(expr):
        match expr:
            case Apply("mul", (a, b)):
                return Split(_ONE, split(a, scope).factors + split(b, scope).factors)
            case _:
                return Split(_ONE, ((expr, False),))
    match expr:
        case Apply("mul", (a, b)):
            left, right = split(a, scope), split(b, scope)
            part = _product(left.part, right.part)
            return Split(part, left.factors + right.factors)
        case Apply("div", (a, b)) if not scope.statistics(b):
            top = split(a, scope)
            if scope.varies(b):
                return Split(top.part, (*top.factors, (b, True)))
            return Split(apply("div", top.part, b), top.factors)
        case Apply("neg", (a,)):
            inner = split(a, scope)
            return Split(apply("neg", inner.part), inner.factors)
        case _:
            return Split(expr, ())


def _product(a: Expr, b: Expr) -> Expr:
    return b if a == _ONE else a if b == _ONE else apply("mul", a, b)
