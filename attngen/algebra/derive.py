"""Derive the one-pass form of a cascade: rules D1 to D5, or a refusal with its reason.

    S[q, k] = ...                          Let   S
    M[q]    = max[k](S[q, k])              State M      max, D1: nothing running is read
    E[q, k] = exp(S[q, k] - M[q])          Let   E      exp(S - finite(M))
    Z[q]    = sum[k](E[q, k])              State Z      sum, D3: rescale exp(M.old - finite(M))
    O[q, e] = sum[k](E / Z * V[k, e])      State O_acc  sum, D2 then D3: E * V, the same rescale
                                           finish O   = where(Z == 0, 0, O_acc / Z)

In order: D1 accumulate, D5 select keys, D2 defer what does not vary, D3 rescale by a ratio, D4 rescale in an
orbit of several accumulators. A Fold that a randomised check contradicts is refused whatever was proved.

Nothing here knows a cascade by name: the form above falls out of a table of laws and an identity in F(x, d).
"""

from __future__ import annotations

from dataclasses import replace

from attngen.algebra.canonical import Scope, inlined, opened
from attngen.algebra.check import check_fold
from attngen.algebra.defer import defer, joined
from attngen.algebra.fold import Derivation, Fold, Let, Refusal, RuleUse, State, Step
from attngen.algebra.follow import einsum_of, follow
from attngen.algebra.guarding import guarded_fold
from attngen.algebra.invariance import invariance
from attngen.algebra.isolate import names_of
from attngen.algebra.linear import split_logs
from attngen.algebra.obligations import check_use, d1_use, d2_use, refusal_reason
from attngen.algebra.passes import PassCount, count_passes
from attngen.algebra.plain import Plain, plain
from attngen.algebra.prepare import Prepared, prepare
from attngen.algebra.select import SELECTIONS, select
from attngen.algebra.separate import Inseparable
from attngen.algebra.signs import kept_sign_of, sign_of
from attngen.errors import OutputError, UnsupportedError
from attngen.lang.expr import Expr, Load, Reduce, Var, free_vars, loads, walk
from attngen.lang.fresh import fresh_name
from attngen.lang.program import Einsum, Program

RANK = "k"
# Random problems of the check that ends each derivation, and the error that a float64 rescale may leave.
_TRIALS = 4
_TOLERANCE = 1e-6


def derive(program: Program, *, follow_statistics: bool = True) -> Fold:
    """The Fold of a linked and desugared program.

    Without `follow_statistics`, rules D3 and D4 are not tried: what reads a running statistic is refused.
    If the cascade cannot be folded, `absorb` and `finish` are empty and `derivation.refusals` says why.
    Raises OutputError for an output that the cascade does not define or that is a value per key.
    """
    found = plain(program)
    if found.refusals:
        passes = found.passes_written
        record = Derivation(RANK, passes, passes, (), found.refusals, found.tensor_passes)
        return Fold(RANK, (), (), program.outputs, record)
    fold = _derive(found.program, follow_statistics)
    return replace(fold, derivation=with_source(fold.derivation, found)) if found.uses else fold


def with_source(record: Derivation, source: Plain) -> Derivation:
    """The record of a plain cascade as that of the cascade it was made of."""
    return replace(
        record,
        passes_written=source.passes_written,
        tensor_passes=source.tensor_passes,
        rules=(*source.uses, *record.rules),
    )


def _derive(program: Program, follow_statistics: bool) -> Fold:
    prepared = prepare(program, RANK)
    program = prepared.program
    for name in program.outputs:
        einsum = program.einsum(name)
        if einsum is not None and RANK in einsum.ranks and "q" in einsum.ranks:
            raise OutputError(
                f"{name}[{', '.join(einsum.ranks)}] is a value per pair, not a row of the cascade",
                loc=einsum.loc,
            )
    return _Deriver(prepared, follow_statistics).run()


class _Deriver:
    """One derivation in progress: `steps` holds unguarded Lets and States in program order."""

    def __init__(self, prepared: Prepared, follow_statistics: bool) -> None:
        self.follow_statistics = follow_statistics
        self.program, self.written = prepared.program, prepared.written
        self.notes = prepared.notes
        self.scope = Scope(RANK)
        self.taken = names_of(self.program) | names_of(self.written)
        self.steps: dict[str, Step] = {}
        self.rules: list[RuleUse] = list(prepared.uses)
        # Einsum of the program -> the reduction refused, which has another name if a factor left it.
        self.refused: dict[str, Refusal] = {}
        # The cascade after deferral, with per-key values written out: what the passes are counted on.
        self.rewritten: list[Einsum] = []
        self.follows: dict[str, frozenset[str]] = {}
        self.deferred: dict[str, tuple[Expr, ...]] = {}

    def run(self) -> Fold:
        written = count_passes(self.written.cascade, RANK)
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
            error = check_fold(fold, self.written, trials=_TRIALS)
        except UnsupportedError as err:
            self.notes += (f"no randomised check: {err.message}",)
            return
        if error > _TOLERANCE:
            reason = "a randomised check disagrees with the program as written"
            self.refused.update((n, Refusal(n, reason, f"{error:.3g}")) for n in self.program.outputs)
        else:
            self.rules.append(check_use(self.program.outputs, _TRIALS, error))

    def _einsum(self, einsum: Einsum) -> None:
        self._sign(einsum)
        nodes = list(walk(einsum.body))
        over_q = any(isinstance(n, Reduce) and "q" in n.ranks for n in nodes)
        over_h = any(isinstance(n, Reduce) and "h" in n.ranks for n in nodes)
        elsewhere = any(isinstance(n, Load) and self._of_another_row(n) for n in nodes)
        per_key = RANK in einsum.ranks
        if over_q or (per_key and einsum.target in self.program.outputs):
            self._refuse(einsum, "it combines query rows, and a fold over the keys stays within one row")
        elif over_h:
            self._refuse(einsum, "it combines heads, and a fold over the keys stays within one head")
        elif elsewhere:
            self._refuse(einsum, "it reads the value of another row, and a fold stays within one")
        elif per_key:
            self._per_key(einsum)
        elif isinstance(einsum.body, Reduce) and RANK in einsum.body.ranks:
            self._reduction(einsum, einsum.body)
        else:
            self._row(einsum)

    def _of_another_row(self, load: Load) -> bool:
        """Whether a value of the cascade is read at another query than the row's own."""
        einsum = self.program.einsum(load.tensor)
        if einsum is None:
            return False
        return any(r == "q" and i != Var("q") for r, i in zip(einsum.ranks, load.indices, strict=True))

    def _refuse(
        self, einsum: Einsum, reason: str, residual: str = "", *, counted: Einsum | None = None
    ) -> None:
        """Refuse `einsum`; `counted` is the reduction that takes the pass, if a factor left it."""
        acc = counted or einsum
        self.refused[einsum.target] = Refusal(acc.target, reason, residual)
        self.rewritten.append(replace(acc, body=inlined(acc.body, self.scope)))
        if RANK not in acc.ranks:
            self.scope.running.add(acc.target)

    def _per_key(self, einsum: Einsum) -> None:
        """A value per pair is kept as a Let; one with other ranks is written out where it is read."""
        self.scope.define(einsum)
        if einsum.ranks == ("q", RANK):
            self.steps[einsum.target] = Let(einsum.target, einsum.ranks, opened(einsum.body, self.scope))

    def _row(self, einsum: Einsum) -> None:
        if self.scope.statistics(einsum.body):
            self.scope.running.add(einsum.target)
        self.steps[einsum.target] = Let(einsum.target, einsum.ranks, einsum.body)
        self.rewritten.append(einsum)

    def _reduction(self, einsum: Einsum, reduction: Reduce) -> None:
        op, body = reduction.op, opened(reduction.body, self.scope)
        if op in SELECTIONS:
            return self._selection(einsum, reduction)
        if "q" not in einsum.ranks:
            return self._refuse(einsum, "its accumulator does not belong to a query row")
        if not self.scope.statistics(body):
            self._state(State(einsum.target, einsum.ranks, op, body, None, None, "D1"))
            self.rules.append(d1_use(einsum, op))
            return None
        deferral = defer(op, body, self.scope)
        core = body if deferral is None else deferral.core
        linear = split_logs(core, self.scope) if op == "sum" else None
        if deferral is None and linear is None:
            self._accumulate(einsum, einsum, op, body)
            return None
        acc = self._acc_of(einsum, op, core if linear is None else linear.core)
        row: Expr = _read(acc)
        parts = [acc]
        if linear is not None:
            parts.append(self._sum_of(einsum, acc, linear.rest))
            row = linear.joined(row, _read(parts[-1]))
        if deferral is not None:
            self.deferred[einsum.target] = deferral.spread()
            row = joined(row, deferral)
        finish = replace(einsum, body=row)
        self.rules.append(d2_use(einsum, (*parts, finish), deferral, linear))
        self._accumulate(einsum, acc, op, core if linear is None else linear.core)
        self._row(finish)
        return None

    def _acc_of(self, einsum: Einsum, op: str, core: Expr) -> Einsum:
        name = fresh_name(f"{einsum.target}_acc", self.taken)
        return Einsum(name, einsum.ranks, Reduce(op, (RANK,), core), loc=einsum.loc)

    def _sum_of(self, einsum: Einsum, acc: Einsum, body: Expr) -> Einsum:
        """The sum of `body` over the keys: an accumulator that exists, or a new one."""
        wanted = inlined(body, self.scope)
        for step in self.steps.values():
            if not isinstance(step, State) or step.reduce != "sum" or not set(step.ranks) <= set(acc.ranks):
                continue
            if inlined(step.body, self.scope) == wanted:
                return einsum_of(step, RANK)
        free = free_vars(body) | {"q"}
        name = fresh_name(f"{acc.target}_rest", self.taken)
        rest = Einsum(name, tuple(r for r in acc.ranks if r in free), Reduce("sum", (RANK,), body))
        self._accumulate(einsum, rest, "sum", body)
        return rest

    def _selection(self, einsum: Einsum, reduction: Reduce) -> None:
        if "q" not in einsum.ranks:
            return self._refuse(einsum, "its accumulator does not belong to a query row")
        found = select(einsum, reduction, self.steps, self.scope, self.taken)
        if isinstance(found, str):
            return self._refuse(einsum, found)
        for state in found.states:
            self._state(state)
        self.rules.append(found.use)
        if found.row is not None:
            self._row(found.row)
        return None

    def _accumulate(self, einsum: Einsum, acc: Einsum, op: str, body: Expr) -> None:
        """The state of `acc`, which accumulates for `einsum`: rescaled if a statistic is left in it."""
        stats = self.scope.statistics(body)
        self._sign(acc)
        if not stats:
            self._state(State(acc.target, acc.ranks, op, body, None, None, "D2"))
            return
        columns = sorted(n for n in stats if n in self.steps and len(self.steps[n].ranks) > 1)
        if columns:
            reason = (
                f"{' and '.join(columns)} is a statistic of each column, and only those of a row are followed"
            )
            self._refuse(einsum, reason, counted=acc)
            return
        if not self.follow_statistics:
            names = " and ".join(sorted(stats))
            self._refuse(einsum, f"it was asked to wait for {names}, in a pass of its own", counted=acc)
            return
        found = follow(acc, op, body, self.steps, self.scope, self.taken)
        if isinstance(found, Inseparable):
            reason = refusal_reason(op, body, stats, found, self.scope)
            self._refuse(einsum, reason, found.residual, counted=acc)
            return
        self.rules.append(found.use)
        for state in found.states:
            self.follows[state.name] = self.scope.statistics(state.body)
            self._state(state)

    def _state(self, state: State) -> None:
        einsum = einsum_of(state, RANK)
        if state.name not in self.scope.signs:
            self._sign(einsum)
        self.scope.running.add(state.name)
        self.steps[state.name] = state
        self.rewritten.append(replace(einsum, body=inlined(einsum.body, self.scope)))

    def _sign(self, einsum: Einsum) -> None:
        self.scope.signs[einsum.target] = sign_of(einsum.body, self.scope.signs)
        self.scope.kept_signs[einsum.target] = kept_sign_of(einsum.body, RANK, self.scope.kept_signs)


def _read(einsum: Einsum) -> Load:
    return Load(einsum.target, tuple(Var(r) for r in einsum.ranks))


def _cost(target: str, count: PassCount) -> str:
    """The pass a refused reduction runs in; nothing for a value that does not iterate the keys."""
    level = count.levels.get(target, 0)
    return f"; {target} runs in pass {level} of {count.passes} over {RANK}" if level else ""
