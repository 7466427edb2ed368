"""Place the steps of a derivation in the loop or after it, and put guards where they are needed.

Row Einsums that a value in the loop reads (`M = max(M_0, sink)` in `exp(S - M)`) are recomputed for every
tile; the others wait for the last key. What no output needs is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from attngen.algebra.canonical import Scope
from attngen.algebra.distribute import unit_of
from attngen.algebra.fold import OLD, Let, Refusal, RuleUse, State, Step, is_old, old
from attngen.algebra.guards import (
    EmptyRow,
    finite_exponents,
    finite_reads,
    guard_quotients,
    identity_test,
    is_extreme,
    keeps_identity,
)
from attngen.algebra.obligations import guard_use
from attngen.algebra.poles import denominators, monotone, value_at_pole
from attngen.lang.expr import Apply, Const, Expr, Load, apply, loads, rewrite, substitute
from attngen.lang.ops import REDUCERS
from attngen.lang.print import print_expr


@dataclass(slots=True)
class Guarded:
    """The steps of a Fold and their guards, or why no guard makes a step safe, by its name."""

    absorb: tuple[Step, ...] = ()
    finish: tuple[Let, ...] = ()
    refused: dict[str, Refusal] = field(default_factory=dict)
    uses: tuple[RuleUse, ...] = ()


def guarded_fold(
    outputs: tuple[str, ...],
    steps: Mapping[str, Step],
    scope: Scope,
    deferred: Mapping[str, tuple[Expr, ...]],
) -> Guarded:
    """Live steps, placed and guarded. `steps` are in program order and unguarded.

    `deferred` names the factors that left a reduction, by the row that applies them: they are read as finite.
    """
    live = _reachable(outputs, steps)
    in_loop = _reachable([n for n in live if isinstance(steps[n], State)], steps)
    guards = _Guards(steps, scope, deferred)
    out = Guarded(refused=guards.refused)
    out.absorb = tuple(guards.step(s) for n, s in steps.items() if n in in_loop)
    out.finish = tuple(guards.row(s) for n, s in steps.items() if n in live - in_loop and isinstance(s, Let))
    changed = ((steps[s.name], s) for s in (*out.absorb, *out.finish))
    out.uses = tuple(
        guard_use(a, b) for a, b in changed if a != b or (isinstance(b, State) and b.rescale is not None)
    )
    return out


def _reachable(roots: list[str] | tuple[str, ...], steps: Mapping[str, Step]) -> set[str]:
    seen: set[str] = set()
    stack = list(roots)
    while stack:
        name = stack.pop().removesuffix(OLD)
        step = steps.get(name)
        if step is None or name in seen:
            continue
        seen.add(name)
        stack.extend(ld.tensor for ld in loads(step.body))
        if isinstance(step, State) and step.rescale is not None:
            stack.extend(ld.tensor for ld in loads(step.rescale))
    return seen


class _Guards:
    def __init__(
        self, steps: Mapping[str, Step], scope: Scope, deferred: Mapping[str, tuple[Expr, ...]]
    ) -> None:
        self.steps = steps
        self.deferred = deferred
        self.scope = scope
        self.empty = EmptyRow(steps)
        self.extremes: set[str] = set()
        self.refused: dict[str, Refusal] = {}
        zeros = {s.name for s in steps.values() if isinstance(s, State) and s.reduce == "sum"}
        for step in steps.values():
            if isinstance(step, State):
                infinite = abs(REDUCERS[step.reduce].identity) == float("inf")
                if infinite:
                    self.extremes.add(step.name)
            elif "k" not in step.ranks and is_extreme(step.body, self.extremes, zeros):
                self.extremes.add(step.name)

    def step(self, step: Step) -> Step:
        if isinstance(step, State):
            return self._state(step)
        if self.scope.rank in step.ranks:
            return replace(step, body=self._per_key(step.name, step.body))
        return self.row(step)

    def row(self, let: Let) -> Let:
        spread: dict[Expr, Expr] = {
            f: finite_reads(f, self.extremes) for f in self.deferred.get(let.name, ())
        }
        body = finite_exponents(substitute(let.body, spread), self.extremes)
        signs = {name: sign for name, sign in self.scope.signs.items() if name in self.scope.running}
        return replace(let, body=guard_quotients(body, self.empty, self.scope.running, signs))

    def _per_key(self, name: str, body: Expr) -> Expr:
        """Guard the factor that has the pole: a product with `V[k, e]` stays one."""
        match body:
            case Apply("mul", (a, b)) if not denominators(b, self.scope):
                return apply("mul", self._per_key(name, a), finite_reads(b, self.extremes))
            case Apply("mul", (a, b)) if not denominators(a, self.scope):
                return apply("mul", finite_reads(a, self.extremes), self._per_key(name, b))
            case _:
                return self._guarded(name, body)

    def _guarded(self, name: str, body: Expr) -> Expr:
        guarded = finite_reads(body, self.extremes)
        for bottom in denominators(body, self.scope):
            value = value_at_pole(body, bottom, self.steps, self.scope)
            if value is None:
                what = f"{print_expr(bottom)} may be 0 while keys arrive"
                self.refused[name] = Refusal(name, f"{what}, and what {name} is there depends on later keys")
                continue
            test = apply("eq", finite_reads(bottom, self.extremes), Const(0))
            guarded = apply("where", test, Const(value), guarded)
        return guarded

    def _state(self, state: State) -> State:
        body = self._per_key(state.name, state.body)
        if state.rescale is None:
            return replace(state, body=body)
        assert state.combine is not None
        combine = state.combine
        poles = denominators(_as_new(state.rescale), self.scope)
        tests = [t for bottom in poles for t in self._pole_tests(bottom)]
        rescale = finite_reads(state.rescale, self.extremes)
        state = replace(state, body=body, rescale=self._unless(tests, rescale, combine))
        if not keeps_identity(state, self.empty):
            tests = _merged([*tests, *identity_test(state, self.empty)])
            state = replace(state, rescale=self._unless(tests, rescale, combine))
        if not keeps_identity(state, self.empty):
            reason = "no guard keeps its rescale defined before the first kept key"
            self.refused[state.name] = Refusal(state.name, reason)
        return state

    def _pole_tests(self, bottom: Expr) -> list[Expr]:
        """Where the old or the new denominator is 0, everything absorbed so far keeps its value."""

        def rename(node: Expr) -> Expr | None:
            if isinstance(node, Load) and node.tensor in self.scope.running:
                return Load(old(node.tensor), node.indices)
            return None

        tests: list[Expr] = [apply("eq", rewrite(bottom, rename), Const(0))]
        if not monotone(bottom, self.steps, self.scope):
            tests.append(apply("eq", finite_reads(bottom, self.extremes), Const(0)))
        return tests

    def _unless(self, tests: list[Expr], rescale: Expr, combine: str) -> Expr:
        if not tests:
            return rescale
        condition = tests[0]
        for test in tests[1:]:
            condition = apply("or", condition, test)
        return apply("where", condition, Const(unit_of(combine)), rescale)


def _as_new(expr: Expr) -> Expr:
    """`expr` with old values renamed to new ones, so that the denominators on both sides are the same."""
    return rewrite(
        expr,
        lambda n: (
            Load(n.tensor.removesuffix(OLD), n.indices) if isinstance(n, Load) and is_old(n.tensor) else None
        ),
    )


def _merged(tests: list[Expr]) -> list[Expr]:
    """`x == 0` and `x == -inf` as `x <= 0`: a maximum of values >= 0 is never between."""
    out: list[Expr] = []
    for test in tests:
        match test:
            case Apply("eq", (x, Const(v))) if v == float("-inf") and apply("eq", x, Const(0)) in out:
                out[out.index(apply("eq", x, Const(0)))] = apply("le", x, Const(0))
            case _:
                out.append(test)
    return out
