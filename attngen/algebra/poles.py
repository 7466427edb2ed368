"""Zeros of denominators inside a per-key body: where they can occur, and what the body is there.

    A[q] = max[k](abs(S[q, k]));  E[q, k] = (S[q, k] / A[q]) ** 3

A is 0 only if every score so far is 0, and there (S / a) ** 3 is 0 for every later a: the guard `where(A ==
0, 0, ...)` is exact. If the body could be anything else there, no guard would be, and the fold is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attngen.algebra.bounded import bounded
from attngen.algebra.canonical import NotPointwise, Scope, canonicalise, names_in
from attngen.algebra.fold import State, Step
from attngen.algebra.separate import PROOF_SECONDS, Symbols
from attngen.algebra.signs import Sign, sign_of
from attngen.algebra.to_sympy import to_sympy
from attngen.lang.expr import Apply, Const, Expr, Load, Var, map_children, substitute, walk


def denominators(expr: Expr, scope: Scope) -> tuple[Expr, ...]:
    """Running row values that `expr` divides by, or takes the log of, and that may be 0; in order."""
    found = dict.fromkeys(_divisors(expr))
    return tuple(
        d
        for d in found
        if scope.statistics(d) and not scope.varies(d) and sign_of(d, scope.signs) is not Sign.POSITIVE
    )


def _divisors(expr: Expr) -> Iterator[Expr]:
    for node in walk(expr):
        match node:
            case Apply("div", (_, bottom)):
                yield bottom
            case Apply("log" | "log2", (a,)):
                yield a
            case Apply("pow", (base, Const(n))) if n < 0:
                yield base
            case Apply("pow", (base, Apply("neg", _))):
                yield base
            case _:
                pass


def monotone(denominator: Expr, steps: Mapping[str, Step], scope: Scope) -> bool:
    """Whether a denominator, once it is not 0, never is again: a maximum or a sum of values >= 0."""
    root = _root(denominator)
    step = steps.get(root.tensor) if isinstance(root, Load) else None
    return isinstance(step, State) and step.rescale is None and _of_nonnegative_terms(step, scope)


def vanishes_when_empty(denominator: Expr, steps: Mapping[str, Step], scope: Scope) -> bool:
    """Whether a denominator is 0 only in a row that has kept no key: its terms are positive."""
    root = _root(denominator)
    step = steps.get(root.tensor) if isinstance(root, Load) else None
    return (
        isinstance(step, State)
        and _of_nonnegative_terms(step, scope)
        and sign_of(step.body, scope.signs) is Sign.POSITIVE
    )


def value_at_pole(body: Expr, denominator: Expr, steps: Mapping[str, Step], scope: Scope) -> float | None:
    """The value that `body` takes for every key seen while `denominator` is 0, whatever comes later.

    None if there is no such value, or none can be shown. Where the denominator cannot be 0 once a key is
    kept, any value will do, and 0 is given.
    """
    root = _root(denominator)
    statistic = steps.get(root.tensor) if isinstance(root, Load) else None
    if not isinstance(statistic, State) or not _of_nonnegative_terms(statistic, scope):
        return None
    if sign_of(statistic.body, scope.signs) is Sign.POSITIVE:
        return 0.0
    return bounded(lambda: _solve(body, statistic.body, scope), PROOF_SECONDS, None)


def _of_nonnegative_terms(state: State, scope: Scope) -> bool:
    """Whether `state` is 0 only where each of its terms is."""
    return state.reduce in ("sum", "max") and sign_of(state.body, scope.signs) >= Sign.NONNEG


def _root(denominator: Expr) -> Expr:
    """What is zero exactly where `denominator` is."""
    match denominator:
        case Apply("sqrt" | "abs" | "finite" | "neg", (a,)):
            return _root(a)
        case Apply("pow", (a, Const(n))) if n > 0:
            return _root(a)
        case Apply("mul", (a, Const(c))) | Apply("mul", (Const(c), a)) if c != 0:
            return _root(a)
        case Apply("div", (a, Const(c))) if c != 0:
            return _root(a)
        case _:
            return denominator


def _solve(body: Expr, term: Expr, scope: Scope) -> float | None:
    import sympy as sp

    try:
        canonical = canonicalise(body, scope)
    except NotPointwise:
        return None
    symbols = Symbols(canonical.shape)
    atoms: dict[Expr, Expr] = {
        node: Var(name) for name, node in canonical.atoms.items() if name.startswith("x")
    }
    term = _inlined(term, atoms, scope)
    if any(isinstance(n, Load) for n in walk(term)):
        return None
    streams = names_in(term, "x")
    f = symbols.of(canonical.shape.body)
    if len(streams) != 1:
        return None
    # The symbol of a stream may be assumed positive; a plain real one finds the zero itself.
    x = sp.Symbol("x", real=True)
    g = _as_real(term, streams[0], x)
    zeros: Any = sp.solveset(g, x, sp.S.Reals)
    if zeros is sp.S.EmptySet:
        return 0.0
    if not isinstance(zeros, sp.FiniteSet):
        return None
    f = f.subs(symbols(streams[0]), x)
    values = {sp.simplify(f.subs(x, zero)) for zero in zeros}
    if len(values) != 1:
        return None
    value = values.pop()
    return float(value) if value.is_number and value.is_finite else None


def _inlined(expr: Expr, atoms: dict[Expr, Expr], scope: Scope) -> Expr:
    """`expr` over the streams of the body; per-key Einsums are opened where that is needed to find them."""
    if expr in atoms:
        return atoms[expr]
    definition = scope.definition(expr)
    if definition is not None:
        return _inlined(definition, atoms, scope)
    return map_children(substitute(expr, atoms), lambda c: _inlined(c, atoms, scope))


def _as_real(term: Expr, stream: str, x: Any) -> Any:
    return to_sympy(term, {Var(stream): x})
