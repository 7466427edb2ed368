"""Place the steps of a derivation in the loop or after it, and put guards where they are needed.

Row Einsums that a value in the loop reads (`M = max(M_0, sink)` in `exp(S - M)`) are recomputed for every
tile; the others wait for the last key. What no output needs is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from attngen.algebra.canonical import Scope, inlined
from attngen.algebra.distribute import unit_of
from attngen.algebra.factors import split
from attngen.algebra.fold import OLD, Let, Mix, Refusal, RuleUse, State, Step, is_old, old
from attngen.algebra.guards import (
    EmptyRow,
    finite_exponents,
    finite_reads,
    guard_quotients,
    identity_test,
    is_extreme,
    keeps_identity,
    share_vanishes,
    vanishing_factor,
    writes_infinity,
)
from attngen.algebra.obligations import guard_use
from attngen.algebra.poles import denominators, monotone, value_at_pole, vanishes_when_empty
from attngen.algebra.select import VALUES_OF, values_of
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
    ranks_of = {s.name: s.ranks for s in steps.values()}
    out.uses = tuple(
        guard_use(a, b, ranks_of) for a, b in changed if a != b or (isinstance(b, State) and ratios_of(b))
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
        if isinstance(step, State):
            stack.extend(ld.tensor for ratio in ratios_of(step) for ld in loads(ratio))
            stack.extend(m.state for m in step.mix)
            if step.reduce in VALUES_OF:
                states = tuple(s for s in steps.values() if isinstance(s, State))
                stack.append(values_of(step, states).name)
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
        let = replace(let, body=guard_quotients(body, self.empty, self.scope.running, signs))
        self.empty.steps[let.name] = let
        return let

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
        state = replace(state, body=self._vanishing(state, self._per_key(state.name, state.body)))
        if state.rescale is not None:
            state = self._rescaled(state)
        return replace(state, mix=tuple(self._share(state.name, m) for m in state.mix))

    def _vanishing(self, state: State, body: Expr) -> Expr:
        """`E * (S - M)` as 0 where E is 0: a score of minus infinity must not become 0 * inf.

        Only where a score can be one: where the program writes an infinity.
        """
        if state.reduce != "sum" or not writes_infinity(inlined(state.body, self.scope)):
            return body
        whole = split(body, self.scope)
        weight = vanishing_factor(whole.part, self.scope)
        if weight is None or weight == whole.part:
            return body
        return whole.joined(apply("where", apply("eq", weight, Const(0)), Const(0.0), whole.part))

    def _share(self, name: str, mix: Mix) -> Mix:
        """A share of an accumulator that has seen nothing is 0, whatever its factor is there."""
        tests: list[Expr] = []
        for bottom in denominators(_as_new(mix.factor), self.scope):
            if not vanishes_when_empty(bottom, self.steps, self.scope):
                what = f"{print_expr(bottom)} may be 0 after some keys"
                self.refused[name] = Refusal(name, f"{what}, and its accumulators divide by it")
            tests.append(apply("eq", _renamed_old(bottom, self.scope), Const(0)))
        factor = finite_reads(mix.factor, self.extremes)
        guarded = self._unless(tests, factor, Const(0.0))
        if not share_vanishes(guarded, self.empty):
            tests = _merged([*tests, *identity_test((mix.factor,), self.empty)])
            guarded = self._unless(tests, factor, Const(0.0))
        if not share_vanishes(guarded, self.empty):
            self.refused[name] = Refusal(name, "no guard keeps its shares defined before the first kept key")
        return replace(mix, factor=guarded)

    def _rescaled(self, state: State) -> State:
        assert state.rescale is not None
        assert state.combine is not None
        combine = state.combine
        poles = denominators(_as_new(state.rescale), self.scope)
        tests = [t for bottom in poles for t in self._pole_tests(bottom)]
        rescale = finite_reads(state.rescale, self.extremes)
        unit = Const(unit_of(combine))
        state = replace(state, rescale=self._unless(tests, rescale, unit))
        if not keeps_identity(state, self.empty):
            tests = _merged([*tests, *identity_test((rescale,), self.empty)])
            state = replace(state, rescale=self._unless(tests, rescale, unit))
        if not keeps_identity(state, self.empty):
            reason = "no guard keeps its rescale defined before the first kept key"
            self.refused[state.name] = Refusal(state.name, reason)
        return state

    def _pole_tests(self, bottom: Expr) -> list[Expr]:
        """Where the old or the new denominator is 0, everything absorbed so far keeps its value."""
        tests: list[Expr] = [apply("eq", _renamed_old(bottom, self.scope), Const(0))]
        if not monotone(bottom, self.steps, self.scope):
            tests.append(apply("eq", finite_reads(bottom, self.extremes), Const(0)))
        return tests

    def _unless(self, tests: list[Expr], ratio: Expr, unit: Const) -> Expr:
        if not tests:
            return ratio
        condition = tests[0]
        for test in tests[1:]:
            condition = apply("or", condition, test)
        return apply("where", condition, unit, ratio)


def ratios_of(state: State) -> list[Expr]:
    """What an accumulator and its shares are multiplied by as statistics change."""
    return ([] if state.rescale is None else [state.rescale]) + [m.factor for m in state.mix]


def _renamed_old(expr: Expr, scope: Scope) -> Expr:
    def rename(node: Expr) -> Expr | None:
        if isinstance(node, Load) and node.tensor in scope.running:
            return Load(old(node.tensor), node.indices)
        return None

    return rewrite(expr, rename)


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
