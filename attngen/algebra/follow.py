"""D3 and D4: the accumulators by which a reduction follows statistics that change as keys arrive.

    Z[q] = sum[k](E[q, k])                 ->  Z <- Z * exp(M.old - M) + sum(E)                            D3
    T[q] = sum[k](E[q, k] * (S - M))       ->  T <- T * exp(M.old - M)
                                                  + Z.old * exp(M.old - M) * (M.old - M) + sum(E * (S - M))  D4

Factors that vary with the key but hold no statistic (`V[k, e]`) are left out of the proof: they stand on both
sides of it. Sums that exist with the same such factors may join an orbit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from attngen.algebra.canonical import Canonical, NotPointwise, Scope, canonicalise, inlined
from attngen.algebra.factors import Split, split
from attngen.algebra.fold import Let, Mix, RuleUse, State, Step, old
from attngen.algebra.obligations import d3_use, d4_use
from attngen.algebra.orbit import NoOrbit, Orbit, find_orbit
from attngen.algebra.separate import Inseparable, Ratio, instantiate, separate
from attngen.lang.expr import Apply, Expr, Load, Reduce, Var, free_vars, rewrite, substitute
from attngen.lang.fresh import fresh_name
from attngen.lang.program import Einsum


@dataclass(frozen=True, slots=True)
class Followed:
    """The states of a reduction, those it needs beside its own first, and the rule that gave them."""

    states: tuple[State, ...]
    use: RuleUse


def follow(
    acc: Einsum, op: str, body: Expr, steps: Mapping[str, Step], scope: Scope, taken: set[str]
) -> Followed | Inseparable:
    """How `acc`, the `op` over the keys of `body`, follows its statistics: by a ratio, or in an orbit."""
    found = _separated(op, body, scope)
    if isinstance(found, Inseparable):
        if op != "sum":
            return found
        orbit = _in_orbit(acc, body, steps, scope, taken)
        return replace(found, orbit=orbit.reason) if isinstance(orbit, NoOrbit) else orbit
    ratio, canonical = found
    state = State(acc.target, acc.ranks, op, body, None, None, "D3")
    if ratio.ratio is not None:
        rescale = instantiate(ratio.ratio, dict(canonical.atoms), _olds(canonical, scope))
        state = replace(state, combine=ratio.row.op, rescale=rescale)
    return Followed((state,), d3_use(acc, state, ratio, canonical))


def _separated(op: str, body: Expr, scope: Scope) -> tuple[Ratio, Canonical] | Inseparable:
    """Rule D3 on the factors of `body` that hold a statistic, abstracted as far as possible first."""
    part = split(body, scope).part if op == "sum" else body
    result: Ratio | Inseparable = Inseparable("", "")
    for whole in (True, False):
        try:
            canonical = canonicalise(part, scope, whole=whole)
        except NotPointwise:
            return Inseparable("a running statistic stands inside a contraction over another rank", "")
        result = separate(op, canonical.shape)
        if isinstance(result, Ratio):
            return result, canonical
    return result


def _in_orbit(
    acc: Einsum, body: Expr, steps: Mapping[str, Step], scope: Scope, taken: set[str]
) -> Followed | NoOrbit:
    own = split(body, scope)
    fellows = _fellows(acc, own, steps, scope)
    result: Orbit | NoOrbit = NoOrbit("")
    for whole in (True, False):
        parts = (own.part, *(s.part for _, s in fellows))
        canonical = canonicalise(Apply("all of", parts), scope, whole=whole)
        assert isinstance(canonical.shape.body, Apply)
        shape, *others = canonical.shape.body.args
        result = find_orbit(shape, tuple(others), canonical.shape.signs)
        if isinstance(result, Orbit):
            states = _states(acc, body, own, result, canonical, fellows, steps, scope, taken)
            ranks_of = {s.name: s.ranks for s in (*steps.values(), *states)}
            return Followed(states, d4_use(acc, states, result, canonical, ranks_of))
    return result


def _fellows(acc: Einsum, own: Split, steps: Mapping[str, Step], scope: Scope) -> list[tuple[State, Split]]:
    """Sums with the same key factors, kept for ranks that `acc` has too."""
    wanted = _key_factors(own, scope)
    out: list[tuple[State, Split]] = []
    for step in steps.values():
        if isinstance(step, State) and step.reduce == "sum" and set(step.ranks) <= set(acc.ranks):
            other = split(step.body, scope)
            if _key_factors(other, scope) == wanted and _pointwise(other.part, scope):
                out.append((step, other))
    return out


def _key_factors(of: Split, scope: Scope) -> Counter[tuple[Expr, bool]]:
    return Counter((inlined(f, scope), inverse) for f, inverse in of.factors)


def _pointwise(expr: Expr, scope: Scope) -> bool:
    try:
        canonicalise(expr, scope)
    except NotPointwise:
        return False
    return True


def _states(
    acc: Einsum,
    body: Expr,
    own: Split,
    orbit: Orbit,
    canonical: Canonical,
    fellows: list[tuple[State, Split]],
    steps: Mapping[str, Step],
    scope: Scope,
    taken: set[str],
) -> tuple[State, ...]:
    atoms, olds = dict(canonical.atoms), _olds(canonical, scope)
    names: list[str] = [acc.target]
    bodies: list[Expr] = [body]
    for member in orbit.members[1:]:
        if member.known is not None:
            names.append(fellows[member.known][0].name)
            bodies.append(fellows[member.known][0].body)
        else:
            names.append(fresh_name(f"{acc.target}_part", taken))
            bodies.append(own.joined(_named(instantiate(member.body, atoms, olds), steps, scope)))
    out: list[State] = []
    for name, term, row in zip(names, bodies, orbit.rows, strict=True):
        if row is None:
            continue
        free = free_vars(term)
        ranks = acc.ranks if name == acc.target else tuple(r for r in acc.ranks if r in free or r == "q")
        rescale = None if row.own is None else instantiate(row.own, atoms, olds)
        mix = tuple(Mix(names[j], instantiate(e, atoms, olds)) for j, e in row.shares)
        combine = None if rescale is None else "mul"
        out.append(State(name, ranks, "sum", term, combine, rescale, "D4", mix))
    return (*out[1:], out[0])


def _named(expr: Expr, steps: Mapping[str, Step], scope: Scope) -> Expr:
    """`expr` with what a per-pair value holds read from it: `E[q, k]` for `exp(S - M)`."""
    mapping: dict[Expr, Expr] = {
        step.body: Load(step.name, (Var("q"), Var(scope.rank)))
        for step in steps.values()
        if isinstance(step, Let) and step.ranks == ("q", scope.rank)
    }
    return substitute(expr, mapping)


def _olds(canonical: Canonical, scope: Scope) -> dict[str, Expr]:
    return {n: _as_old(e, scope) for n, e in canonical.atoms.items() if n.startswith("d")}


def _as_old(expr: Expr, scope: Scope) -> Expr:
    def rename(node: Expr) -> Expr | None:
        if isinstance(node, Load) and node.tensor in scope.running:
            return Load(old(node.tensor), node.indices, loc=node.loc)
        return None

    return rewrite(expr, rename)


def einsum_of(state: State, rank: str) -> Einsum:
    """The reduction that a state accumulates."""
    return Einsum(state.name, state.ranks, Reduce(state.reduce, (rank,), state.body))
