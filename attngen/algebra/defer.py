"""D2: take factors that do not vary with the key out of a reduction.

    O[q, e] = sum[k](E[q, k] / Z[q] * V[k, e])   ->   O_acc[q, e] = sum[k](E[q, k] * V[k, e])
                                                      O[q, e]     = O_acc[q, e] / Z[q]

Only factors that stand outside as written are taken: (s / a) ** 3 is left whole and exp(s - m) is never
split, since s ** 3 and exp(s) may overflow where the quotients do not. Per-key Einsums are looked through:
P = E / Z in P * V is E * V with 1 / Z deferred. Factors that are not running statistics stay: deferring
them would save nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.algebra.canonical import Scope
from attngen.algebra.distribute import Distributes, rows_for
from attngen.algebra.signs import Sign, sign_of
from attngen.lang.expr import Apply, Const, Expr, apply
from attngen.lang.ops import REDUCERS


@dataclass(frozen=True, slots=True)
class Factor:
    """A deferred operand of (x); `inverse` if it divides (or is subtracted)."""

    expr: Expr
    inverse: bool = False


@dataclass(frozen=True, slots=True)
class Deferral:
    """`reducer[k](body)` = `reducer[k](core)` (x) factors."""

    row: Distributes
    core: Expr
    factors: tuple[Factor, ...]

    def spread(self) -> tuple[Expr, ...]:
        """Factors that spoil the identity where they are infinite: 0 * inf, inf / inf, -inf - -inf; 0 / inf is 0."""
        harmless = REDUCERS[self.row.reducer].identity == 0
        return tuple(f.expr for f in self.factors if not (f.inverse and harmless))


def defer(reducer: str, body: Expr, scope: Scope) -> Deferral | None:
    """The deferral of every running factor of `body`, or None if there is none to take."""
    for row in rows_for(reducer):
        core, factors = _SPLIT[row.op](body, scope)
        if not factors or row.invariant:
            continue
        if any(sign_of(f.expr, scope.signs) < min(row.factor, Sign.NONNEG) for f in factors):
            continue
        rest = Const(1.0) if core is None else core
        if row.operand and sign_of(rest, scope.signs) < row.operand:
            continue
        return Deferral(row, rest, factors)
    return None


def joined(acc: Expr, deferral: Deferral) -> Expr:
    """`acc` (x) the factors: what the reduction as written equals."""
    forward, backward = {"mul": ("mul", "div"), "add": ("add", "sub")}.get(
        deferral.row.op, (deferral.row.op, deferral.row.op)
    )
    out = acc
    for factor in deferral.factors:
        if not factor.inverse:
            out = apply(forward, out, factor.expr)
    divisors = [f.expr for f in deferral.factors if f.inverse]
    if divisors:
        whole = divisors[0]
        for divisor in divisors[1:]:
            whole = apply(forward, whole, divisor)
        out = apply(backward, out, whole)
    return out


_Split = tuple[Expr | None, tuple[Factor, ...]]


def _deferrable(expr: Expr, scope: Scope) -> bool:
    return not scope.varies(expr) and bool(scope.statistics(expr))


def _split_product(expr: Expr, scope: Scope) -> _Split:
    return _split_group(expr, scope, "mul", "div", 1.0)


def _split_sum(expr: Expr, scope: Scope) -> _Split:
    return _split_group(expr, scope, "add", "sub", 0.0)


def _split_group(expr: Expr, scope: Scope, times: str, over: str, unit: float) -> _Split:
    """`expr` as core (x) factors, where (x) has an inverse; core None stands for the unit."""
    if _deferrable(expr, scope):
        return None, (Factor(expr),)
    definition = scope.definition(expr)
    if definition is not None:
        core, factors = _split_group(definition, scope, times, over, unit)
        return (core, factors) if factors else (expr, ())
    match expr:
        case Apply("neg", (a,)) if times == "mul":
            core, factors = _split_group(a, scope, times, over, unit)
            return (apply("neg", Const(1.0) if core is None else core), factors) if factors else (expr, ())
        case Apply(op, (a, b)) if op in (times, over):
            left, taken = _split_group(a, scope, times, over, unit)
            right, more = _split_group(b, scope, times, over, unit)
            if not taken and not more:
                return expr, ()
            if op == over:
                more = tuple(Factor(f.expr, not f.inverse) for f in more)
            if right is None:
                return left, taken + more
            if left is None:
                left = None if op == times else Const(unit)
            return (right if left is None else apply(op, left, right)), taken + more
        case _:
            return expr, ()


def _split_power(expr: Expr, scope: Scope) -> _Split:
    match expr:
        case Apply("pow", (base, exponent)) if _deferrable(exponent, scope):
            return base, (Factor(exponent),)
        case _:
            return expr, ()


def _split_logic(name: str, expr: Expr, scope: Scope) -> _Split:
    match expr:
        case Apply(op, (a, b)) if op == name and _deferrable(b, scope):
            return a, (Factor(b),)
        case Apply(op, (a, b)) if op == name and _deferrable(a, scope):
            return b, (Factor(a),)
        case _:
            return expr, ()


_SPLIT = {
    "mul": _split_product,
    "add": _split_sum,
    "pow": _split_power,
    "and": lambda expr, scope: _split_logic("and", expr, scope),
    "or": lambda expr, scope: _split_logic("or", expr, scope),
}
