"""PO6: whether an output depends on the exact value of the statistics that its accumulators follow.

Write each accumulator as G (x) rho(ref, M) with G free of M. If dO/dM = 0, any M would do: it may be
treated as a constant in a backward pass, and updated lazily.

    O = O_acc / Z  with  O_acc = G1 * exp(ref - M), Z = G2 * exp(ref - M)   ->   dO/dM = 0
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attngen.algebra.bounded import bounded
from attngen.algebra.canonical import Scope
from attngen.algebra.fold import Let, Obligation, RuleUse, State, Step, is_old
from attngen.algebra.separate import zero_or_rest
from attngen.algebra.signs import Sign
from attngen.algebra.to_sympy import to_sympy
from attngen.lang.expr import Apply, Const, Expr, Load, apply, loads, map_children, walk
from attngen.lang.print import print_expr

_SECONDS = 2.0


def invariance(outputs: tuple[str, ...], steps: Mapping[str, Step], scope: Scope) -> tuple[RuleUse, ...]:
    """One record an output, of its derivative in every statistic that is followed; none if none is."""
    followed = dict.fromkeys(
        ld
        for s in steps.values()
        if isinstance(s, State) and s.rescale is not None
        for ld in _new_reads(s.rescale, scope)
    )
    uses: list[RuleUse] = []
    for name in outputs:
        closed = _closed(Load(name, ()), steps, frozenset(ld.tensor for ld in followed))
        proofs = tuple(
            _derivative(name, closed, statistic, scope)
            for statistic in followed
            if any(ld.tensor == statistic.tensor for ld in loads(closed))
        )
        if proofs:
            unchanged = all(p.residual == "0" for p in proofs)
            after = (
                "does not depend on the statistics followed"
                if unchanged
                else "depends on a statistic followed"
            )
            uses.append(RuleUse("PO6", name, name, after, proofs))
    return tuple(uses)


def _new_reads(rescale: Expr, scope: Scope) -> list[Load]:
    return [ld for ld in loads(rescale) if not is_old(ld.tensor) and ld.tensor in scope.running]


def _closed(expr: Expr, steps: Mapping[str, Step], followed: frozenset[str]) -> Expr:
    """`expr` over statistics, free accumulators and inputs; rows written out, states as G (x) rho."""
    if isinstance(expr, Load):
        step = steps.get(expr.tensor)
        if expr.tensor in followed or step is None:
            return expr
        if isinstance(step, Let):
            return _closed(step.body, steps, followed)
        free = Load(f"{step.name}.free", expr.indices)
        if step.rescale is None or step.combine is None:
            return free
        return apply(step.combine, free, step.rescale)
    return map_children(expr, lambda c: _closed(c, steps, followed))


def _derivative(output: str, closed: Expr, statistic: Load, scope: Scope) -> Obligation:
    name = statistic.tensor
    rest = bounded(lambda: _differentiate(closed, name, scope), _SECONDS, "not decided within the time bound")
    return Obligation("PO6", f"d{output} / d{name} = 0", "symbolic", rest)


def _differentiate(closed: Expr, statistic: str, scope: Scope) -> str:
    import sympy as sp

    symbols: dict[str, Any] = {}
    atoms: dict[Expr, Any] = {}
    for node in walk(closed):
        if isinstance(node, Apply | Const):
            continue
        key = node.tensor if isinstance(node, Load) else repr(node)
        if key not in symbols:
            sign = scope.signs.get(key.removesuffix(".old").removesuffix(".free"), Sign.ANY)
            symbols[key] = (
                sp.Symbol(_readable(node), positive=True) if sign else sp.Symbol(_readable(node), real=True)
            )
        atoms[node] = symbols[key]
    rest = zero_or_rest(sp.diff(to_sympy(closed, atoms), symbols[statistic]))
    return "0" if rest == 0 else str(rest)


def _readable(node: Expr) -> str:
    if not isinstance(node, Load):
        return print_expr(node)
    return node.tensor.replace(".old", "_ref").replace(".free", "_free")
