"""PO6: whether an output depends on the exact value of the statistics that its accumulators follow.

Write each accumulator as G (x) rho(ref, M) with G free of M. If dO/dM = 0, any M would do: it may be
treated as a constant in a backward pass, and updated lazily.

An accumulator of an orbit is a combination of several G instead of one.

    O = O_acc / Z  with  O_acc = G1 * exp(ref - M), Z = G2 * exp(ref - M)   ->   dO/dM = 0
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from attngen.algebra.bounded import bounded
from attngen.algebra.canonical import Scope
from attngen.algebra.fold import OLD, Let, Obligation, RuleUse, State, Step, is_old
from attngen.algebra.separate import zero_or_rest
from attngen.algebra.shown import shown
from attngen.algebra.signs import Sign
from attngen.algebra.to_sympy import to_sympy
from attngen.lang.expr import Apply, Const, Expr, Load, apply, loads, map_children, walk
from attngen.lang.print import print_expr

_SECONDS = 2.0
_FREE = ".free"


def invariance(outputs: tuple[str, ...], steps: Mapping[str, Step], scope: Scope) -> tuple[RuleUse, ...]:
    """One record an output, of its derivative in every statistic that is followed; none if none is."""
    followed = dict.fromkeys(
        ld
        for s in steps.values()
        if isinstance(s, State)
        for ratio in _ratios(s)
        for ld in _new_reads(ratio, scope)
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


def _ratios(state: State) -> list[Expr]:
    rescale = [] if state.rescale is None else [state.rescale]
    return rescale + [m.factor for m in state.mix]


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
        out: Expr = Load(f"{step.name}.free", expr.indices)
        if step.rescale is not None and step.combine is not None:
            out = apply(step.combine, out, step.rescale)
        for mix in step.mix:
            out = apply("add", out, apply("mul", Load(f"{mix.state}.free", expr.indices), mix.factor))
        return out
    return map_children(expr, lambda c: _closed(c, steps, followed))


def _derivative(output: str, closed: Expr, statistic: Load, scope: Scope) -> Obligation:
    name = statistic.tensor
    keys = dict.fromkeys(_key(n) for n in walk(closed) if not isinstance(n, Apply | Const))
    signs = ((key, scope.signs.get(key.removesuffix(OLD).removesuffix(_FREE), Sign.ANY)) for key in keys)
    rest = _decided(closed, name, tuple(signs))
    return Obligation("PO6", f"d{output} / d{name} = 0", "symbolic", rest)


@lru_cache(maxsize=256)
def _decided(closed: Expr, statistic: str, signs: tuple[tuple[str, Sign], ...]) -> str:
    late = "not decided within the time bound"
    return bounded(lambda: _differentiate(closed, statistic, dict(signs)), _SECONDS, late)


def _key(node: Expr) -> str:
    return node.tensor if isinstance(node, Load) else repr(node)


def _differentiate(closed: Expr, statistic: str, signs: Mapping[str, Sign]) -> str:
    import sympy as sp

    symbols: dict[str, Any] = {}
    atoms: dict[Expr, Any] = {}
    for node in walk(closed):
        if isinstance(node, Apply | Const):
            continue
        key = _key(node)
        if key not in symbols:
            kind = {"positive": True} if signs[key] else {"real": True}
            symbols[key] = sp.Symbol(_readable(node), **kind)
        atoms[node] = symbols[key]
    slope = sp.diff(to_sympy(closed, atoms), symbols[statistic])
    if _refuted(slope):
        return shown(slope)
    rest = zero_or_rest(slope)
    return "0" if rest == 0 else str(rest)


def _refuted(slope: Any) -> bool:
    """Whether a derivative is not 0 at a random point: then no proof is tried."""
    import sympy as sp

    rng = random.Random(4)
    at = {s: sp.Rational(rng.randint(1, 3000), 997) for s in sorted(slope.free_symbols, key=str)}
    try:
        value = sp.N(slope.subs(at), 30)
    except (TypeError, ValueError, ZeroDivisionError):
        return False
    return bool(value.is_number and value.is_finite and abs(value) > sp.Float(10) ** -20)


def _readable(node: Expr) -> str:
    if not isinstance(node, Load):
        return print_expr(node)
    return node.tensor.replace(".old", "_ref").replace(".free", "_free")
