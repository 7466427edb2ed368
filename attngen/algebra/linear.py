"""D2 by linearity: logarithms of the row leave a sum of products.

    sum[k](E * (S - M - log(Z)))   ->   sum[k](E * (S - M)) - sum[k](E) * log(Z)

The second sum exists as a rule (it is Z). Only a logarithm leaves, and only where a difference of stream and
statistic stays behind: S - M is never split, since sum(E * S) and M * sum(E) may be huge and nearly equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from attngen.algebra.canonical import Scope
from attngen.lang.expr import Apply, Const, Expr, apply


@dataclass(frozen=True, slots=True)
class Linear:
    """`sum(body) = sum(core) + sum(rest) * (terms)`; True for a term that is subtracted."""

    core: Expr
    rest: Expr
    terms: tuple[tuple[Expr, bool], ...]

    def joined(self, core: Expr, rest: Expr) -> Expr:
        """What the sum was, from the two that replace it. A logarithm of an empty row is read as 0."""
        added = [apply("finite", t) for t, negative in self.terms if not negative]
        taken = [apply("finite", t) for t, negative in self.terms if negative]
        if not added:
            return apply("sub", core, apply("mul", rest, _chained("add", taken)))
        return apply("add", core, apply("mul", rest, _chained("sub", [_chained("add", added), *taken])))


def _chained(op: str, operands: Sequence[Expr]) -> Expr:
    return reduce(lambda a, b: apply(op, a, b), operands)


def split_logs(body: Expr, scope: Scope) -> Linear | None:
    """The logarithms of the row that can leave one factor of `body`, or None if there are none."""
    match body:
        case Apply("mul", (a, b)):
            for inner, outer, first in ((b, a, False), (a, b, True)):
                found = split_logs(inner, scope)
                if found is not None:
                    core = apply("mul", found.core, outer) if first else apply("mul", outer, found.core)
                    return Linear(core, _times(outer, found.rest), found.terms)
            return None
        case Apply("neg", (a,)):
            found = split_logs(a, scope)
            return found and Linear(apply("neg", found.core), apply("neg", found.rest), found.terms)
        case Apply("div", (a, b)):
            found = split_logs(a, scope)
            return found and Linear(apply("div", found.core, b), apply("div", found.rest, b), found.terms)
        case Apply("add" | "sub", _):
            core, terms = _split_sum(body, scope)
            if core is None or not terms or not (scope.statistics(core) and scope.varies(core)):
                return None
            return Linear(core, Const(1.0), terms)
        case _:
            return None


def _times(outer: Expr, rest: Expr) -> Expr:
    return outer if rest == Const(1.0) else apply("mul", outer, rest)


def _split_sum(expr: Expr, scope: Scope) -> tuple[Expr | None, tuple[tuple[Expr, bool], ...]]:
    """A sum without its logarithms of the row, and those; None for the sum if nothing else is in it."""
    match expr:
        case Apply("log" | "log2", (a,)) if scope.statistics(a) and not scope.varies(a):
            return None, ((expr, False),)
        case Apply("neg", (a,)):
            core, terms = _split_sum(a, scope)
            return (None if core is None else apply("neg", core)), _flipped(terms)
        case Apply("add" | "sub" as op, (a, b)):
            left, first = _split_sum(a, scope)
            right, second = _split_sum(b, scope)
            terms = first + (second if op == "add" else _flipped(second))
            if not terms:
                return expr, ()
            if right is None:
                return left, terms
            if left is None:
                return (right if op == "add" else apply("neg", right)), terms
            return apply(op, left, right), terms
        case _:
            return expr, ()


def _flipped(terms: tuple[tuple[Expr, bool], ...]) -> tuple[tuple[Expr, bool], ...]:
    return tuple((t, not negative) for t, negative in terms)
