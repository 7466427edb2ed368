"""D5: selections, whose state is more than a number a row: argmax, topk and argtopk over the keys.

    R[q, j] = topk[k](exp(S - M) / Z, j)      ->   State R_top[q, j]  topk of S
                                                   finish R = where(R_top == -inf, -inf, exp(R_top - M) / Z)
    I[q, j] = argtopk[k](exp(S - M) / Z, j)   ->   State I[q, j]      argtopk of S

A strictly increasing map moves no key: it leaves a choice of keys alone and applies to chosen values after
the last key. So a selection never has to follow a statistic. Keys are merged with the values they were chosen
by: a state of keys always has one of values over the same body beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attngen.algebra.canonical import Scope, opened
from attngen.algebra.distribute import rows_for
from attngen.algebra.fold import Obligation, RuleUse, State, Step
from attngen.algebra.obligations import monoid_laws
from attngen.algebra.record import einsum_text, state_text
from attngen.algebra.signs import Sign, sign_of
from attngen.lang.expr import Apply, Const, Expr, Load, Reduce, Var, apply, free_vars, substitute
from attngen.lang.fresh import fresh_name
from attngen.lang.ops import REDUCERS
from attngen.lang.program import Einsum

# A selection of keys -> the reduction that keeps the values they are chosen by.
VALUES_OF = {"argmax": "max", "argtopk": "topk"}
SELECTIONS = frozenset({"argmax", "topk", "argtopk"})

# Strictly increasing wherever they are defined.
_INCREASING = frozenset({"exp", "exp2", "log", "log2", "sqrt", "tanh", "sigmoid", "erf", "float"})
_HOLE = Var("selected")


@dataclass(frozen=True, slots=True)
class Selected:
    """The states of a selection, and the row that maps chosen values to what was asked for, if it is needed."""

    states: tuple[State, ...]
    row: Einsum | None
    use: RuleUse


def select(
    einsum: Einsum, reduction: Reduce, steps: Mapping[str, Step], scope: Scope, taken: set[str]
) -> Selected | str:
    """The states that a selection keeps, or why there are none."""
    op = reduction.op
    if op != "argmax" and (
        not isinstance(reduction.at, Var)
        or reduction.at.name not in einsum.ranks
        or reduction.at.name in free_vars(reduction.body)
    ):
        return f"the slot of {op} has to be a rank of {einsum.target}, and the values must not depend on it"
    if set(einsum.ranks) != ({"q"} if reduction.at is None else {"q", *free_vars(reduction.at)}):
        return f"{op} keeps a list a row, not one for each of {', '.join(einsum.ranks)}"
    core, outer = _peeled(opened(reduction.body, scope), scope)
    if scope.statistics(core):
        return f"no increasing map takes {', '.join(sorted(scope.statistics(core)))} out of {op}"
    mapped = op == "topk" and outer != _HOLE
    name = fresh_name(f"{einsum.target}_top", taken) if mapped else einsum.target
    states: list[State] = []
    if op in VALUES_OF and _values_state(op, einsum.ranks, core, steps) is None:
        values = fresh_name(f"{einsum.target}_value", taken)
        states.append(State(values, einsum.ranks, VALUES_OF[op], core, None, None, "D5"))
    states.append(State(name, einsum.ranks, op, core, None, None, "D5"))
    row = None
    if mapped:
        read = Load(name, tuple(Var(r) for r in einsum.ranks))
        row = Einsum(einsum.target, einsum.ranks, _present(read, outer), loc=einsum.loc)
    return Selected(tuple(states), row, _use(einsum, tuple(states), row, op, outer))


def _values_state(op: str, ranks: tuple[str, ...], body: Expr, steps: Mapping[str, Step]) -> str | None:
    """A state that exists and keeps the values by which `op` chooses."""
    for step in steps.values():
        if (
            isinstance(step, State)
            and (step.reduce, step.ranks, step.body) == (VALUES_OF[op], ranks, body)
            and step.rescale is None
        ):
            return step.name
    return None


def values_of(state: State, states: tuple[State, ...]) -> State:
    """The state of a Fold that keeps the values by which `state` chooses keys."""
    wanted = (VALUES_OF[state.reduce], state.ranks, state.body)
    return next(s for s in states if (s.reduce, s.ranks, s.body) == wanted)


def _present(read: Expr, outer: Expr) -> Expr:
    """The map where there is a value; a slot that no key fills stays at minus infinity."""
    identity = Const(REDUCERS["topk"].identity)
    return apply("where", apply("eq", read, identity), identity, substitute(outer, {_HOLE: read}))


def _peeled(body: Expr, scope: Scope) -> tuple[Expr, Expr]:
    """`body` as an increasing map of a core: as much as is needed for the core to hold no statistic."""
    if not scope.statistics(body):
        return body, _HOLE
    definition = scope.definition(body)
    if definition is not None:
        return _peeled(opened(definition, scope), scope)

    def inside(part: Expr, wrap: Apply) -> tuple[Expr, Expr]:
        core, outer = _peeled(part, scope)
        return core, substitute(wrap, {_HOLE: outer})

    match body:
        case Apply(op, (a,)) if op in _INCREASING:
            return inside(a, apply(op, _HOLE))
        case Apply("add" | "sub" as op, (a, b)) if not scope.varies(b):
            return inside(a, apply(op, _HOLE, b))
        case Apply("add", (a, b)) if not scope.varies(a):
            return inside(b, apply("add", a, _HOLE))
        case Apply("mul" | "div" as op, (a, b)) if not scope.varies(b) and _positive(b, scope):
            return inside(a, apply(op, _HOLE, b))
        case Apply("mul", (a, b)) if not scope.varies(a) and _positive(a, scope):
            return inside(b, apply("mul", a, _HOLE))
        case _:
            return body, _HOLE


def _positive(expr: Expr, scope: Scope) -> bool:
    """Whether a row value is positive once a key is kept: >= 0 and, where it divides, not 0 for good."""
    return sign_of(expr, scope.kept_signs) is Sign.POSITIVE


def _use(einsum: Einsum, states: tuple[State, ...], row: Einsum | None, op: str, outer: Expr) -> RuleUse:
    parts = [state_text(s) for s in states]
    if row is not None:
        parts.append(einsum_text(row))
    proofs = [monoid_laws(op)]
    if outer != _HOLE:
        laws = [r.law() for r in rows_for(op)] or [f"{op} of increasing maps: the same keys"]
        proofs.append(Obligation("PO2", "; ".join([*laws, "an increasing map keeps the order"]), "table"))
    return RuleUse("D5", einsum.target, einsum_text(einsum), "; ".join(parts), tuple(proofs))
