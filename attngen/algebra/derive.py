"""Derive the one-pass form of a cascade: rules D1, D2 and D3, in that order, or a refusal with its reason.

    S[q, k] = ...                          Let   S
    M[q]    = max[k](S[q, k])              State M      max, D1: nothing running is read
    E[q, k] = exp(S[q, k] - M[q])          Let   E      exp(S - finite(M))
    Z[q]    = sum[k](E[q, k])              State Z      sum, D3: rescale exp(M.old - finite(M))
    O[q, e] = sum[k](E / Z * V[k, e])      State O_acc  sum, D2 then D3: E * V, the same rescale
                                           finish O   = where(Z == 0, 0, O_acc / Z)

Nothing here knows a cascade by name: the form above falls out of a table of laws and an identity in F(x, d).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from attngen.algebra.canonical import Canonical, NotPointwise, Scope, body_at, canonicalise
from attngen.algebra.check import check_fold
from attngen.algebra.defer import defer, joined
from attngen.algebra.fold import Derivation, Fold, Let, Refusal, RuleUse, State, Step, old
from attngen.algebra.guarding import guarded_fold
from attngen.algebra.invariance import invariance
from attngen.algebra.isolate import isolate, names_of
from attngen.algebra.obligations import check_use, d1_use, d2_use, d3_use, isolate_use, refusal_reason
from attngen.algebra.passes import PassCount, count_passes
from attngen.algebra.prune import prune
from attngen.algebra.separate import Inseparable, Ratio, instantiate, separate
from attngen.algebra.signs import sign_of
from attngen.errors import OutputError, UnsupportedError
from attngen.lang.expr import Apply, Expr, Load, Reduce, Var, apply, loads, map_children, rewrite, walk
from attngen.lang.fresh import fresh_name
from attngen.lang.program import Einsum, Program

RANK = "k"
# Reductions whose state is one number a row and whose (+) is an operator; the others need pairs or lists.
_SCALAR = frozenset({"sum", "max", "min", "prod", "any", "all", "logaddexp"})

# Random problems of the check that ends each derivation, and the error that a float64 rescale may leave.
_TRIALS = 4
_TOLERANCE = 1e-6


def derive(program: Program) -> Fold:
    """The Fold of a linked and desugared program.

    If the cascade cannot be folded, `absorb` and `finish` are empty and `derivation.refusals` says why.
    Raises OutputError for an output that the cascade does not define or that is a value per key.
    """
    source = program
    isolated = isolate(program, RANK)
    program = prune(isolated)
    for name in program.outputs:
        einsum = program.einsum(name)
        if einsum is not None and RANK in einsum.ranks and "q" in einsum.ranks:
            raise OutputError(
                f"{name}[{', '.join(einsum.ranks)}] is a value per pair, not a row of the cascade",
                loc=einsum.loc,
            )
    return _Deriver(program, _preparation(source, isolated, program)).run()


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What happened before any rule: reductions isolated, Einsums dropped."""

    uses: tuple[RuleUse, ...]
    notes: tuple[str, ...]


def _preparation(source: Program, isolated: Program, pruned: Program) -> _Prepared:
    kept = {e.target for e in pruned.cascade}
    written = {e.target for e in source.cascade}
    uses: list[RuleUse] = []
    made: list[Einsum] = []
    for einsum in isolated.cascade:
        made.append(einsum)
        if einsum.target not in written:
            continue
        if len(made) > 1 and einsum.target in kept:
            before = next(e for e in source.cascade if e.target == einsum.target)
            uses.append(isolate_use(before, tuple(made)))
        made = []
    dropped = [e.target for e in source.cascade if e.target not in kept]
    notes = (f"dropped, since no output reads it: {', '.join(dropped)}",) if dropped else ()
    return _Prepared(tuple(uses), notes)


class _Deriver:
    """One derivation in progress: `steps` holds unguarded Lets and States in program order."""

    def __init__(self, program: Program, prepared: _Prepared) -> None:
        self.program = program
        self.notes = prepared.notes
        self.scope = Scope(RANK)
        self.taken = names_of(program)
        self.steps: dict[str, Step] = {}
        self.rules: list[RuleUse] = list(prepared.uses)
        # Einsum of the program -> the reduction refused, which has another name if a factor left it.
        self.refused: dict[str, Refusal] = {}
        # The cascade after deferral, with per-key values written out: what the passes are counted on.
        self.rewritten: list[Einsum] = []
        self.follows: dict[str, frozenset[str]] = {}
        self.deferred: dict[str, tuple[Expr, ...]] = {}

    def run(self) -> Fold:
        written = count_passes(self.program.cascade, RANK)
        for einsum in self.program.cascade:
            self._einsum(einsum)
        absorb, finish = self._place() if not self.refused else ((), ())
        if not self.refused:
            self._check(absorb, finish)
        after = count_passes(self.rewritten, RANK, running=self._followed())
        derivation = Derivation(
            rank=RANK,
            passes_written=written.passes,
            passes=after.passes,
            rules=tuple(self.rules),
            refusals=tuple(
                Refusal(target, r.reason + _cost(r.target, after), r.residual)
                for target, r in self.refused.items()
            ),
            tensor_passes=tuple(sorted(written.tensor_passes.items())),
            notes=self.notes,
        )
        if self.refused:
            absorb, finish = (), ()
        return Fold(RANK, absorb, finish, self.program.outputs, derivation)

    def _followed(self) -> dict[str, frozenset[str]]:
        """What follows which statistics, without what was refused after all."""
        unsafe = set(self.refused)
        reads_unsafe = {
            name for name in self.follows if any(ld.tensor in unsafe for ld in loads(self.steps[name].body))
        }
        return {n: stats for n, stats in self.follows.items() if n not in unsafe | reads_unsafe}

    def _place(self) -> tuple[tuple[Step, ...], tuple[Let, ...]]:
        """The steps in the loop and after it, with guards."""
        guarded = guarded_fold(self.program.outputs, self.steps, self.scope, self.deferred)
        self.refused.update(guarded.refused)
        self.rules.extend(guarded.uses)
        self.rules.extend(invariance(self.program.outputs, self.steps, self.scope))
        return guarded.absorb, guarded.finish

    def _check(self, absorb: tuple[Step, ...], finish: tuple[Let, ...]) -> None:
        """PO5. A Fold that disagrees with its program is refused, whatever was proved."""
        fold = Fold(RANK, absorb, finish, self.program.outputs, Derivation(RANK, 0, 0, ()))
        try:
            error = check_fold(fold, self.program, trials=_TRIALS)
        except UnsupportedError as err:
            self.notes += (f"no randomised check: {err.message}",)
            return
        if error > _TOLERANCE:
            reason = "a randomised check disagrees with the program as written"
            self.refused.update((n, Refusal(n, reason, f"{error:.3g}")) for n in self.program.outputs)
        else:
            self.rules.append(check_use(self.program.outputs, _TRIALS, error))

    def _einsum(self, einsum: Einsum) -> None:
        self.scope.signs[einsum.target] = sign_of(einsum.body, self.scope.signs)
        over_q = any(isinstance(n, Reduce) and "q" in n.ranks for n in walk(einsum.body))
        per_key = RANK in einsum.ranks
        if over_q or (per_key and einsum.target in self.program.outputs):
            self._refuse(einsum, "it combines query rows, and a fold over the keys stays within one row")
        elif per_key:
            self._per_key(einsum)
        elif isinstance(einsum.body, Reduce) and RANK in einsum.body.ranks:
            self._reduction(einsum, einsum.body)
        else:
            self._row(einsum)

    def _refuse(
        self, einsum: Einsum, reason: str, residual: str = "", *, counted: Einsum | None = None
    ) -> None:
        """Refuse `einsum`; `counted` is the reduction that takes the pass, if a factor left it."""
        acc = counted or einsum
        self.refused[einsum.target] = Refusal(acc.target, reason, residual)
        self.rewritten.append(replace(acc, body=self._inline(acc.body)))
        if RANK not in acc.ranks:
            self.scope.running.add(acc.target)

    def _per_key(self, einsum: Einsum) -> None:
        """A value per pair is kept as a Let; one with other ranks is written out where it is read."""
        self.scope.define(einsum)
        if einsum.ranks == ("q", RANK):
            self.steps[einsum.target] = Let(einsum.target, einsum.ranks, self._open(einsum.body))

    def _row(self, einsum: Einsum) -> None:
        if self.scope.statistics(einsum.body):
            self.scope.running.add(einsum.target)
        self.steps[einsum.target] = Let(einsum.target, einsum.ranks, einsum.body)
        self.rewritten.append(einsum)

    def _reduction(self, einsum: Einsum, reduction: Reduce) -> None:
        op, body = reduction.op, self._open(reduction.body)
        if op not in _SCALAR:
            return self._refuse(
                einsum, f"{op} keeps more than a number a row, and no rule here accumulates that"
            )
        if "q" not in einsum.ranks:
            return self._refuse(einsum, "its accumulator does not belong to a query row")
        if not self.scope.statistics(body):
            self._state(State(einsum.target, einsum.ranks, op, body, None, None, "D1"), einsum)
            self.rules.append(d1_use(einsum, op))
            return None
        deferral = defer(op, body, self.scope)
        acc = replace(einsum, body=Reduce(op, (RANK,), body))
        if deferral is not None:
            name = fresh_name(f"{einsum.target}_acc", self.taken)
            acc = Einsum(name, einsum.ranks, Reduce(op, (RANK,), deferral.core), loc=einsum.loc)
            self.rules.append(d2_use(einsum, acc, deferral))
        self._accumulate(einsum, acc, op, body if deferral is None else deferral.core)
        if deferral is not None:
            self.deferred[einsum.target] = deferral.spread()
            read = Load(acc.target, tuple(Var(r) for r in einsum.ranks))
            self._row(replace(einsum, body=joined(read, deferral)))
        return None

    def _accumulate(self, einsum: Einsum, acc: Einsum, op: str, body: Expr) -> None:
        """The state of `acc`, which accumulates for `einsum`: rescaled if a statistic is left in it."""
        stats = self.scope.statistics(body)
        self.scope.signs[acc.target] = sign_of(acc.body, self.scope.signs)
        if not stats:
            self._state(State(acc.target, acc.ranks, op, body, None, None, "D2"), acc)
            return
        found = self._separate(op, body)
        if isinstance(found, Inseparable):
            reason = refusal_reason(op, body, stats, found, self.scope)
            self._refuse(einsum, reason, found.residual, counted=acc)
            return
        ratio, canonical = found
        combine, rescale = None, None
        if ratio.ratio is not None:
            olds = {n: self._as_old(e) for n, e in canonical.atoms.items() if n.startswith("d")}
            combine, rescale = ratio.row.op, instantiate(ratio.ratio, dict(canonical.atoms), olds)
        state = State(acc.target, acc.ranks, op, body, combine, rescale, "D3")
        self.follows[acc.target] = stats
        self.rules.append(d3_use(acc, state, ratio, canonical))
        self._state(state, acc)

    def _separate(self, op: str, core: Expr) -> tuple[Ratio, Canonical] | Inseparable:
        """Rule D3 on the factors of `core` that hold a statistic, abstracted as far as possible first."""
        part = self._running_part(core) if op == "sum" else core
        result: Ratio | Inseparable = Inseparable("", "")
        for whole in (True, False):
            try:
                canonical = canonicalise(part, self.scope, whole=whole)
            except NotPointwise:
                return Inseparable("a running statistic stands inside a contraction over another rank", "")
            result = separate(op, canonical.shape)
            if isinstance(result, Ratio):
                return result, canonical
        return result

    def _running_part(self, core: Expr) -> Expr:
        """The product of the factors with a statistic: a factor without one is part of G whatever it is."""
        match core:
            case Apply("mul", (a, b)):
                left, right = self.scope.statistics(a), self.scope.statistics(b)
                if left and right:
                    return apply("mul", self._running_part(a), self._running_part(b))
                return self._running_part(a if left else b)
            case Apply("div", (a, b)) if not self.scope.statistics(b):
                return self._running_part(a)
            case Apply("neg", (a,)):
                return self._running_part(a)
            case _:
                return core

    def _state(self, state: State, einsum: Einsum) -> None:
        self.scope.running.add(state.name)
        self.steps[state.name] = state
        self.rewritten.append(replace(einsum, body=self._inline(einsum.body)))

    def _as_old(self, expr: Expr) -> Expr:
        def rename(node: Expr) -> Expr | None:
            if isinstance(node, Load) and node.tensor in self.scope.running:
                return Load(old(node.tensor), node.indices, loc=node.loc)
            return None

        return rewrite(expr, rename)

    def _open(self, expr: Expr) -> Expr:
        """`expr` with per-key Einsums that are no (q, k) values written out."""
        definition = self.scope.definition(expr)
        if definition is not None and isinstance(expr, Load):
            if self.scope.lets[expr.tensor].ranks == ("q", RANK) and expr.indices == (Var("q"), Var(RANK)):
                return expr
            return self._open(body_at(self.scope.lets[expr.tensor], expr))
        return map_children(expr, self._open)

    def _inline(self, expr: Expr) -> Expr:
        """`expr` with every per-key Einsum written out: they are recomputed freely in any pass."""
        definition = self.scope.definition(expr)
        return self._inline(definition) if definition is not None else map_children(expr, self._inline)


def _cost(target: str, count: PassCount) -> str:
    """The pass a refused reduction runs in; nothing for a value that does not iterate the keys."""
    level = count.levels.get(target, 0)
    return f"; {target} runs in pass {level} of {count.passes} over {RANK}" if level else ""
