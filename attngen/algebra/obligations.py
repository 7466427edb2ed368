"""What each rule had to show, as readable text: the record behind `attngen explain`."""

from __future__ import annotations

import math
from collections.abc import Mapping

from attngen.algebra.canonical import Canonical, NotPointwise, Scope, canonicalise
from attngen.algebra.defer import Deferral
from attngen.algebra.distribute import rows_for
from attngen.algebra.fold import Let, Obligation, RuleUse, State, Step
from attngen.algebra.linear import Linear
from attngen.algebra.mp_ops import DIGITS
from attngen.algebra.orbit import Orbit
from attngen.algebra.record import einsum_text, let_text, state_text
from attngen.algebra.separate import POINTS, Inseparable, Ratio
from attngen.lang.expr import Apply, Expr, children, free_vars
from attngen.lang.ops import REDUCERS
from attngen.lang.print import print_expr
from attngen.lang.program import Einsum

_GROUP_OPS = frozenset({"add", "sub", "mul", "div", "neg", "float", "finite"})


def monoid_laws(op: str) -> Obligation:
    """PO1: tiles may be absorbed in any grouping."""
    reducer = REDUCERS[op]
    laws = "associative, commutative" if reducer.commutative else "associative"
    return Obligation("PO1", f"{op} is {laws}, identity {reducer.identity:g}", "table")


def d1_use(einsum: Einsum, op: str) -> RuleUse:
    """No statistic is read: plain accumulation."""
    text = einsum_text(einsum)
    return RuleUse("D1", einsum.target, text, text, (monoid_laws(op),))


def d2_use(
    before: Einsum, after: tuple[Einsum, ...], deferral: Deferral | None, linear: Linear | None
) -> RuleUse:
    """Factors that left the reduction, and logarithms that left one of its factors."""
    laws = [] if deferral is None else [deferral.row.law()]
    laws += [] if linear is None else ["sum(x * (y + c)) = sum(x * y) + sum(x) * c"]
    proofs = tuple(Obligation("PO2", law, "table") for law in laws)
    text = "; ".join(einsum_text(e) for e in after)
    return RuleUse("D2", before.target, einsum_text(before), text, proofs)


def d3_use(einsum: Einsum, state: State, ratio: Ratio, canonical: Canonical) -> RuleUse:
    """An accumulator that is rescaled as its statistics change."""
    shape = print_expr(canonical.shape.body)
    names = ", ".join(f"{n} = {print_expr(e)}" for n, e in canonical.atoms.items())
    proofs = (
        monoid_laws(state.reduce),
        Obligation("PO2", ratio.row.law(), "table"),
        Obligation(
            "PO3",
            f"{ratio.identity} for F = {shape} with {names}, at {ratio.base}",
            f"{POINTS} random points at {DIGITS} digits, then symbolic",
        ),
    )
    return RuleUse("D3", einsum.target, einsum_text(einsum), state_text(state), proofs)


def d4_use(
    einsum: Einsum,
    states: tuple[State, ...],
    orbit: Orbit,
    canonical: Canonical,
    ranks_of: Mapping[str, tuple[str, ...]],
) -> RuleUse:
    """An accumulator that is rescaled together with others, and the ones that were added for it."""
    names = ", ".join(f"{n} = {print_expr(e)}" for n, e in canonical.atoms.items())
    basis = [print_expr(m.body) for m in orbit.members]
    proofs = [
        monoid_laws("sum"),
        Obligation("PO2", rows_for("sum")[0].law(), "table"),
        Obligation("PO3", f"basis {'; '.join(basis)} with {names}", f"values at {DIGITS} digits"),
    ]
    for member, row in zip(orbit.members, orbit.rows, strict=True):
        if row is None:
            continue
        shares = [f"({print_expr(e)}) * ({basis[j]})" for j, e in row.shares]
        own = "" if row.own is None else f"({print_expr(row.own)}) * "
        body = print_expr(member.body)
        statement = f"{body} = {' + '.join([f'{own}({body})', *shares])}, the basis at the old statistics"
        proofs.append(Obligation("PO3", statement, "solved at the base points, then symbolic for every x"))
        proofs.append(Obligation("PO4", f"the basis is independent at {row.base}", f"{DIGITS} digits"))
    text = "; ".join(state_text(s, ranks_of=ranks_of) for s in states)
    return RuleUse("D4", einsum.target, einsum_text(einsum), text, tuple(proofs))


def isolate_use(before: Einsum, after: tuple[Einsum, ...]) -> RuleUse:
    """Reductions over the keys that got Einsums of their own."""
    return RuleUse("isolate", before.target, einsum_text(before), "; ".join(einsum_text(e) for e in after))


def guard_use(before: Step, after: Step, ranks_of: Mapping[str, tuple[str, ...]]) -> RuleUse:
    """A step that reads a statistic which may have seen nothing, or be zero where something divides by it."""
    proofs: tuple[Obligation, ...] = ()
    if isinstance(after, State) and (after.rescale is not None or after.mix):
        identity = f"{REDUCERS[after.reduce].identity:g}"
        statement = f"the rescale keeps {identity} in a row that has kept no key"
        proofs = (Obligation("PO4", statement, "evaluated with every state at its identity"),)
    return RuleUse("guard", after.name, _step_text(before, ranks_of), _step_text(after, ranks_of), proofs)


def check_use(outputs: tuple[str, ...], trials: int, error: float) -> RuleUse:
    """The randomised check of the finished Fold."""
    statement = "random tilings and merge trees agree with the program as written"
    method = f"{trials} random problems in float64, largest relative error below {_ceiling(error)}"
    names = ", ".join(outputs)
    return RuleUse("check", names, names, names, (Obligation("PO5", statement, method),))


def _ceiling(error: float) -> str:
    """The next power of ten: the digits of a rounding error are nobody's business."""
    return f"1e{max(-15, math.ceil(math.log10(error))) if error > 0 else -15}"


def _step_text(step: Step, ranks_of: Mapping[str, tuple[str, ...]]) -> str:
    return let_text(step) if isinstance(step, Let) else state_text(step, ranks_of=ranks_of)


def refusal_reason(op: str, core: Expr, stats: frozenset[str], found: Inseparable, scope: Scope) -> str:
    """Which reduction cannot follow which statistic, through which operator, and how far off it is."""
    who = " and ".join(sorted(stats))
    parts = [f"{op}[k]({print_expr(core)}) cannot follow {who} as more keys arrive: {found.reason}"]
    between = _mixers(core, scope)
    if between:
        verb = "mixes" if len(between) == 1 else "mix"
        parts.append(f"{' and '.join(between)} {verb} the key's value with the statistic")
    if found.rank is not None and found.rank > 1:
        parts.append(f"the body has separable rank {found.rank}")
    if found.orbit:
        parts.append(f"{found.orbit}")
    return "; ".join(parts)


def _mixers(core: Expr, scope: Scope) -> tuple[str, ...]:
    """Operators on both a stream and a statistic, except those that a group separates again."""
    try:
        body = canonicalise(core, scope).shape.body
    except NotPointwise:
        return ()
    found: dict[str, None] = {}

    def visit(node: Expr) -> bool:
        """Whether `node` mixes a stream with a statistic."""
        inside = [visit(c) for c in children(node)]
        letters = {name[0] for name in free_vars(node)}
        if isinstance(node, Apply) and node.op not in _GROUP_OPS and {"x", "d"} <= letters:
            found[f"{node.op}()"] = None
        return any(inside)

    visit(body)
    return tuple(found)
