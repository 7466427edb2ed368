"""Guards: what a fold does where a statistic has seen nothing yet, or is zero where something divides by it.

    exp(S - M)            ->  exp(S - finite(M))             M = -inf before the first kept key
    O_acc / Z             ->  where(Z == 0, 0, O_acc / Z)    0 / 0 in a row without a kept key
    (A.old / A) ** 3      ->  where(A.old <= 0, 1, (A.old / finite(A)) ** 3)

Old values are read as they are: a rescale from minus infinity is 0, and so is what it rescales.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from attngen.algebra.canonical import Scope
from attngen.algebra.fold import Let, State, Step, is_old, old
from attngen.algebra.signs import Sign, sign_of
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Apply, Const, Expr, Load, Var, apply, loads, map_children, walk
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import REDUCERS

_BOUNDED_OPS = frozenset({"exp", "exp2", "sigmoid", "tanh", "erf", "finite", "sin", "cos", "sign"})
_EXPONENTIALS = frozenset({"exp", "exp2", "sigmoid"})


def is_extreme(expr: Expr, extremes: set[str], zeros: set[str]) -> bool:
    """Whether `expr` may be infinite since no key was kept: it passes on an extreme, or the log of 0."""
    match expr:
        case Load(name, _):
            return name in extremes
        case Apply(op, _) if op in _BOUNDED_OPS:
            return False
        case Apply("log" | "log2", (Load(name, _),)) if name in zeros:
            return True
        case Apply(_, args):
            return any(is_extreme(a, extremes, zeros) for a in args)
        case _:
            return False


def finite_reads(expr: Expr, extremes: set[str]) -> Expr:
    """`expr` with every read of an extreme statistic wrapped in `finite`, once."""
    match expr:
        case Apply("finite", _):
            return expr
        case Load(name, _) if name in extremes:
            return apply("finite", expr)
        case _:
            return map_children(expr, lambda c: finite_reads(c, extremes))


def finite_exponents(expr: Expr, extremes: set[str]) -> Expr:
    """The same inside exponentials only: `M + log(Z)` must stay -inf, `exp(sink - M)` must not become NaN."""
    if isinstance(expr, Apply) and expr.op in _EXPONENTIALS:
        return finite_reads(expr, extremes)
    return map_children(expr, lambda c: finite_exponents(c, extremes))


class EmptyRow:
    """Values of row expressions before the first kept key: states at their identity, inputs arbitrary."""

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self.steps = dict(steps)

    def value(self, expr: Expr, salt: int = 0) -> float:
        """The value of `expr`; inputs take values that `salt` varies."""
        return float(evaluate(expr, lambda node: self._leaf(node, salt), NUMPY_OPS))

    def _leaf(self, node: Expr, salt: int) -> float:
        if isinstance(node, Const):
            return float(node.value)
        if isinstance(node, Load):
            name = node.tensor.removesuffix(".old")
            step = self.steps.get(name)
            if isinstance(step, State):
                return REDUCERS[step.reduce].identity
            if isinstance(step, Let):
                return self.value(step.body, salt)
        return 0.25 + (zlib.crc32(repr(node).encode()) + 977 * salt) % 1000 / 1000


def guard_quotients(expr: Expr, row: EmptyRow, running: set[str], signs: Mapping[str, Sign]) -> Expr:
    """`a / z` as `where(z == 0, 0, a / z)` wherever an empty row would give 0 / 0.

    A denominator that is positive without the help of an exponential, which may underflow, needs no guard, nor does one
    that the cascade tests itself, `where(z > 0, a / z, other)`.
    """
    match expr:
        case Apply("where", (test, Apply("div", (top, bottom)) as quotient, other)) if _excludes_zero(
            test, bottom
        ):
            parts = [guard_quotients(p, row, running, signs) for p in (top, bottom, other)]
            return apply("where", test, replace(quotient, args=(parts[0], parts[1])), parts[2], loc=expr.loc)
        case _:
            pass
    expr = map_children(expr, lambda c: guard_quotients(c, row, running, signs))
    match expr:
        case Apply("div", (top, bottom)) if any(ld.tensor in running for ld in loads(bottom)):
            known = {name: min(sign, Sign.NONNEG) for name, sign in signs.items()}
            if sign_of(bottom, known) is Sign.POSITIVE and not _has_exponential(bottom):
                return expr
            above = row.value(top)
            if above != 0 and not np.isnan(above):
                return expr
            return apply("where", apply("eq", bottom, Const(0)), Const(0.0), expr)
        case _:
            return expr


def _excludes_zero(test: Expr, bottom: Expr) -> bool:
    match test:
        case Apply("gt", (x, Const(least))) | Apply("lt", (Const(least), x)):
            return x == bottom and least >= 0
        case Apply("ne", (x, Const(value))) | Apply("ne", (Const(value), x)):
            return x == bottom and value == 0
        case _:
            return False


def _has_exponential(expr: Expr) -> bool:
    return isinstance(expr, Apply) and (
        expr.op in _EXPONENTIALS or any(_has_exponential(a) for a in expr.args)
    )


def keeps_identity(state: State, row: EmptyRow) -> bool:
    """Whether a rescaled identity is the identity, while statistics are at theirs or have just left it."""
    assert state.rescale is not None
    identity = REDUCERS[state.reduce].identity
    for rescale in (state.rescale, _arrived(state.rescale)):
        for salt in range(2):
            ratio = row.value(rescale, salt)
            with np.errstate(all="ignore"):
                after = (
                    np.float64(identity) * ratio if state.combine == "mul" else np.float64(identity) + ratio
                )
            if np.isnan(after) or after != identity:
                return False
    return True


def _arrived(expr: Expr) -> Expr:
    """`expr` with new statistics at ordinary values and old ones untouched."""
    if isinstance(expr, Load) and not is_old(expr.tensor):
        return Load(expr.tensor + ".new", expr.indices)
    return map_children(expr, _arrived)


def share_vanishes(factor: Expr, row: EmptyRow) -> bool:
    """Whether a share of an accumulator at 0 is 0, while statistics are at theirs or have just left it."""
    cases = [row.value(f, salt) for f in (factor, _arrived(factor)) for salt in range(2)]
    return bool(np.isfinite(cases).all())


def identity_test(ratios: tuple[Expr, ...], row: EmptyRow) -> tuple[Expr, ...]:
    """A condition on old values that holds before the first kept key; none if no state feeds the ratios."""
    feeding = [s for ratio in ratios for s in _states_under(ratio, row.steps)]
    extremes = [s for s in feeding if np.isinf(REDUCERS[s.reduce].identity)]
    if not feeding:
        return ()
    chosen = (extremes or feeding)[0]
    read = Load(old(chosen.name), tuple(Var(r) for r in chosen.ranks))
    return (apply("eq", read, Const(REDUCERS[chosen.reduce].identity)),)


def _states_under(expr: Expr, steps: Mapping[str, Step]) -> list[State]:
    found: dict[str, State] = {}
    for load in loads(expr):
        step = steps.get(load.tensor.removesuffix(".old"))
        if isinstance(step, State):
            found[step.name] = step
        elif isinstance(step, Let):
            found.update((s.name, s) for s in _states_under(step.body, steps))
    return list(found.values())


def writes_infinity(expr: Expr) -> bool:
    """Whether an infinity stands in an expression: then a score may be one."""
    return any(isinstance(n, Const) and math.isinf(n.value) for n in walk(expr))


def vanishing_factor(product: Expr, scope: Scope) -> Expr | None:
    """A factor of a product that is an exponential of the key, and so is 0 where its score is -inf."""
    match product:
        case Apply("mul", (a, b)):
            return vanishing_factor(a, scope) or vanishing_factor(b, scope)
        case Apply("exp" | "exp2", _) if scope.varies(product):
            return product
        case Load() if isinstance(scope.definition(product), Apply):
            inner = scope.definition(product)
            return product if isinstance(inner, Apply) and inner.op in ("exp", "exp2") else None
        case _:
            return None
