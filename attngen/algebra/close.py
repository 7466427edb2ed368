"""Close recurrences: what is carried from step to step along a rank becomes a reduction over it.

    RM[q, 0] = -inf
    RM[q, m + 1] = max(RM[q, m], max[k](where(k // 64 == m, S[q, k], -inf)))
    RD[q, 0] = 0.0
    RD[q, m + 1] = RD[q, m] * exp(RM[q, m] - RM[q, m + 1])
                   + sum[k](where(k // 64 == m, exp(S[q, k] - RM[q, m + 1]), 0.0))
    L[q] = RM[q, n_m] + log(RD[q, n_m])
->
    RM[q] = max[k](S[q, k])
    RD[q] = sum[k](exp(S[q, k] - RM[q]))
    L[q] = RM[q] + log(RD[q])

By induction over the steps. A step that joins a term to what is carried, `X (+) t`, reduces the terms. A step
`c * X + t` whose terms read other recurrences, `t = sum F(k; R[m + 1])`, keeps the sum of `F(k; R[m])` over the keys
before `m` if

    F(k; R[m]) * c = F(k; R[m + 1])        for every k and all values of R

so that what is left after the last step is the sum over all keys at the last `R`: the law of D3, read backwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from attngen.algebra.affine import affine_in
from attngen.algebra.canonical import NotPointwise, Scope, canonicalise
from attngen.algebra.fold import OLD, Obligation, Refusal, RuleUse
from attngen.algebra.mp_ops import DIGITS
from attngen.algebra.obligations import monoid_laws
from attngen.algebra.record import einsum_text
from attngen.algebra.separate import POINTS
from attngen.algebra.tiles import JOIN, Tile, tile_of, unguarded, with_factors, written_out
from attngen.algebra.vanish import remainder
from attngen.lang.expr import (
    Apply,
    Const,
    Expr,
    Load,
    Reduce,
    Var,
    apply,
    free_vars,
    loads,
    map_children,
    substitute,
    walk,
)
from attngen.lang.ops import REDUCERS
from attngen.lang.print import print_expr
from attngen.lang.program import Einsum, Program
from attngen.lang.recurrences import following, last


@dataclass(frozen=True, slots=True)
class Closed:
    """The program without recurrences, and how; with refusals, the program as it was."""

    program: Program
    uses: tuple[RuleUse, ...] = ()
    refusals: tuple[Refusal, ...] = ()


class _NotClosed(Exception):
    """Why a recurrence is no reduction."""

    def __init__(self, target: str, reason: str, residual: str = "") -> None:
        self.refusal = Refusal(target, reason, residual)
        super().__init__(reason)


@lru_cache(maxsize=64)
def close_recurrences(program: Program) -> Closed:
    """The linked program with every recurrence closed."""
    if all(e.step is None for e in program.cascade):
        return Closed(program)
    try:
        return _Closer(program).run()
    except _NotClosed as error:
        return Closed(program, refusals=(error.refusal,))


# The tile of a key, None for the key itself, and what it must fulfil.
_Keys = tuple[Expr | None, tuple[Expr, ...]]


@dataclass(frozen=True, slots=True)
class _Term:
    """What one key, or one step where none is read, adds: `body` without its conditions, which `keys` holds."""

    body: Expr
    keys: _Keys


@dataclass(slots=True)
class _Closer:
    """One program in progress.

    inner   Einsums that exist from step to step only: they read a recurrence before its end.
    made    the cascade so far; `steps` the recurrences closed, by name.
    maxima  of those that are plain maxima, the tiles and keys they are taken over.
    sums    of those that are sums of one term and start at 0, that term.
    """

    program: Program
    inner: dict[str, Einsum] = field(default_factory=dict[str, Einsum])
    steps: dict[str, Einsum] = field(default_factory=dict[str, Einsum])
    made: list[Einsum] = field(default_factory=list[Einsum])
    maxima: dict[str, _Keys] = field(default_factory=dict[str, "_Keys"])
    sums: dict[str, _Term] = field(default_factory=dict[str, "_Term"])
    uses: list[RuleUse] = field(default_factory=list[RuleUse])

    def run(self) -> Closed:
        for einsum in self.program.cascade:
            if einsum.step is not None:
                self._recurrence(einsum, einsum.step)
                continue
            body = self._at_end(einsum.body)
            if any(ld.tensor in self.steps or ld.tensor in self.inner for ld in self._early(body)):
                if einsum.target in self.program.outputs:
                    raise _NotClosed(einsum.target, self._why_early(body))
                self.inner[einsum.target] = replace(einsum, body=body)
            else:
                self.made.append(replace(einsum, body=body) if body is not einsum.body else einsum)
        return Closed(replace(self.program, cascade=tuple(self.made)), tuple(self.uses))

    def _at_end(self, expr: Expr) -> Expr:
        """`expr` reading closed recurrences by their rows where it reads their last values."""
        expr = map_children(expr, self._at_end)
        if not isinstance(expr, Load) or expr.tensor not in self.steps:
            return expr
        einsum = self.steps[expr.tensor]
        at = einsum.ranks.index(einsum.step or "")
        if expr.indices[at] != last(einsum):
            return expr
        return Load(expr.tensor, expr.indices[:at] + expr.indices[at + 1 :], loc=expr.loc)

    def _early(self, expr: Expr) -> Iterable[Load]:
        """Reads of recurrences before their end, and of what exists from step to step only."""
        for load in loads(expr):
            step = self.steps.get(load.tensor)
            if load.tensor in self.inner or (step is not None and len(load.indices) == len(step.ranks)):
                yield load

    def _why_early(self, expr: Expr) -> str:
        load = next(iter(self._early(expr)))
        return f"it reads {print_expr(load)}, and only the last value of a recurrence outlives its steps"

    def _recurrence(self, einsum: Einsum, rank: str) -> None:
        self._check_start(einsum)
        along = {e.target: e for e in self.made if rank in e.ranks and rank != "k"}
        whole = {n for n, (_, tests) in self.maxima.items() if not tests}
        body = unguarded(written_out(self._at_end(einsum.body), {**along, **self.inner}), whole)
        me = Load(einsum.target, tuple(map(Var, einsum.ranks)))
        row, proofs = self._closed(einsum, rank, body, me)
        ranks = tuple(r for r in einsum.ranks if r != rank)
        closed = Einsum(einsum.target, ranks, row, loc=einsum.loc)
        self.steps[einsum.target] = einsum
        self.made.append(closed)
        self.uses.append(RuleUse("close", einsum.target, einsum_text(einsum), einsum_text(closed), proofs))

    def _check_start(self, einsum: Einsum) -> None:
        if einsum.start is not None and any(ld.tensor in self.inner for ld in loads(einsum.start)):
            raise _NotClosed(einsum.target, "its start reads a value of a step")

    def _closed(self, einsum: Einsum, rank: str, body: Expr, me: Load) -> tuple[Expr, tuple[Obligation, ...]]:
        """The value after the last step, and what had to be shown."""
        start = self._at_end(einsum.start or Const(0.0))
        for op, join in JOIN.items():
            term = _joined_term(body, join, me)
            if term is None or me in set(loads(term)):
                continue
            if any(self._early(term)):
                if op == "sum":
                    break  # `X + t` with t of running values: c is 1, and the law below decides
                raise _NotClosed(einsum.target, f"{op} joins terms that read {self._names(term)} as it runs")
            whole = self._over_all(op, term, rank)
            if op == "sum" and _is(start, 0.0):
                self.sums[einsum.target] = _term(term, rank)
            if op == "max" and _is(start, -math.inf):
                self.maxima[einsum.target] = _term(term, rank, "max").keys
            joined = whole if _is(start, REDUCERS[op].identity) else apply(join, start, whole)
            return joined, (monoid_laws(op),)
        factor, terms = self._taken_apart(einsum, rank, body, me, empty=_is(start, 0.0))
        own, coupled = self._coupled(einsum, rank, terms)
        if not own:
            raise _NotClosed(einsum.target, "nothing is added in a step")
        if coupled and (len(own) > 1 or not _is(start, 0.0)):
            reason = "it is coupled with another recurrence, and has a start or several terms of its own"
            raise _NotClosed(einsum.target, reason)
        proofs: list[Obligation] = [monoid_laws("sum")]
        out: Expr | None = None
        if not _is(start, 0.0):
            out = apply("mul", start, self._from_start(einsum, factor, rank))
        for term in own:
            whole, law = self._rescaled(einsum, rank, factor, term, coupled)
            out = whole if out is None else apply("add", out, whole)
            proofs.append(law)
        assert out is not None
        if len(own) == 1 and _is(start, 0.0):
            self.sums[einsum.target] = own[0]
        return out, tuple(proofs)

    def _taken_apart(
        self, einsum: Einsum, rank: str, body: Expr, me: Load, *, empty: bool
    ) -> tuple[Expr, list[_Term]]:
        """`c` and the terms of `c * X + t1 + t2 + ...`."""
        found = affine_in(body, me, frozenset())
        if found is not None and _tests_infinity(found[0]):
            found = None
        if found is None and empty:
            found = affine_in(body, me, frozenset(self.maxima))
            if found is not None and _tests_infinity(found[0]):
                found = None
        if found is None:
            raise _NotClosed(einsum.target, "its step is neither X (+) t nor c * X + t with c free of X")
        factor, terms = found[0], [self._unguarded(einsum, _term(t, rank)) for t in found[1]]
        if not all(self._is_guarded(n, terms) for n in self._guards_in(body)):
            reason = "a maximum that is -inf does not tell that nothing was added yet: it is over other keys"
            raise _NotClosed(einsum.target, reason)
        return factor, terms

    def _unguarded(self, einsum: Einsum, term: _Term) -> _Term:
        """A term without tests of its own that some maximum has left -inf: it has, where a key of its own is there."""
        at, tests = term.keys
        kept = tuple(t for t in tests if not self._early_maximum(t))
        if any(list(self._early(t)) for t in kept):
            raise _NotClosed(einsum.target, "a test of what it adds reads a running value")
        plain = _Term(term.body, (at, kept))
        guards = {ld.tensor for t in tests if t not in kept for ld in loads(t)}
        if not all(self._is_guarded(n, [plain]) for n in guards):
            raise _NotClosed(einsum.target, "it tests a maximum over other keys than it adds")
        return plain

    def _early_maximum(self, test: Expr) -> bool:
        match test:
            case Apply("gt", (Load(name, _), Const(low))):
                return name in self.maxima and low == -math.inf
            case _:
                return False

    def _coupled(
        self, einsum: Einsum, rank: str, terms: list[_Term]
    ) -> tuple[list[_Term], list[tuple[Expr, _Term]]]:
        """Terms that are sums over keys, and multiples `b * Y` of other sums before the step as `(b, term of Y)`."""
        own: list[_Term] = []
        coupled: list[tuple[Expr, _Term]] = []
        for term in terms:
            named = self._named(einsum, term.body, rank)
            before = [
                ld for ld in loads(named) if ld.tensor.removesuffix(OLD) in self.sums and OLD in ld.tensor
            ]
            if not before:
                own.append(term)
                continue
            found = affine_in(named, before[0], frozenset())
            if len(set(before)) > 1 or found is None or found[1]:
                raise _NotClosed(
                    einsum.target, f"it reads {self._names(term.body)} in more than a multiple of one"
                )
            coupled.append((found[0], self.sums[before[0].tensor.removesuffix(OLD)]))
        return own, coupled

    def _over_all(self, op: str, term: Expr, rank: str) -> Expr:
        """All terms reduced: over the keys where each belongs to keys of its own, else over the steps."""
        tile = tile_of(with_factors(term), rank)
        if tile is not None and tile.op == op:
            return tile.whole(tile.body, self.program)
        return Reduce(op, (rank,), term)

    def _rescaled(
        self, einsum: Einsum, rank: str, factor: Expr, term: _Term, coupled: list[tuple[Expr, _Term]]
    ) -> tuple[Expr, Obligation]:
        """The sum of one term over all keys at the last statistics, if the factor follows them."""
        new = self._named(einsum, term.body, rank)
        if any(OLD in ld.tensor for ld in loads(new)):
            raise _NotClosed(einsum.target, f"it adds {print_expr(term.body)}, of before the step")
        c = self._named(einsum, factor, rank)
        for x in (c, *(b for b, _ in coupled)):
            if free_vars(x) & {"k", rank}:  # it meets what earlier steps added
                raise _NotClosed(einsum.target, f"its factor {print_expr(x)} differs from step to step")
        law: Expr = apply("mul", self._before(new), c)
        for b, other in coupled:
            if other.keys != term.keys:
                raise _NotClosed(einsum.target, "it is coupled with a sum over other keys")
            law = apply("add", law, apply("mul", self._before(self._named(einsum, other.body, rank)), b))
        residual = self._residual(apply("sub", law, new))
        if residual != "0":
            reason = (
                f"no sum over {rank}: {print_expr(factor)} times the value before does not keep "
                f"{print_expr(term.body)} at the statistics after the step"
            )
            raise _NotClosed(einsum.target, reason, residual)
        others = "".join(f" + F{i} * b{i}" for i in range(len(coupled)))
        given = "".join(
            f", F{i} = {print_expr(self._named(einsum, o.body, rank))}, b{i} = {print_expr(b)}"
            for i, (b, o) in enumerate(coupled)
        )
        statement = f"F(x; R) * c{others} = F(x; R') for F = {print_expr(new)}, c = {print_expr(c)}{given}"
        proof = Obligation("PO3", statement, f"{POINTS} random points at {DIGITS} digits, then symbolic")
        at, tests = term.keys
        if at is not None:
            return Tile("sum", rank, at, new, tests).whole(new, self.program), proof
        for test in reversed(tests):
            new = apply("where", test, new, Const(0.0))
        return Reduce("sum", (rank,), new), proof

    def _before(self, new: Expr) -> Expr:
        """A term at the statistics before the step."""
        return substitute(new, {n: _old(n) for n in _running(new, self.steps)})

    def _named(self, einsum: Einsum, expr: Expr, rank: str) -> Expr:
        """`expr` with recurrences after the step, `R[m + 1]`, as rows `R`, and before it, `R[m]`, as `R.old`."""
        expr = map_children(expr, lambda c: self._named(einsum, c, rank))
        step = self.steps.get(expr.tensor) if isinstance(expr, Load) else None
        if not isinstance(expr, Load) or step is None or len(expr.indices) != len(step.ranks):
            return expr
        at = step.ranks.index(step.step or "")
        rest = expr.indices[:at] + expr.indices[at + 1 :]
        if step.step == rank and expr.indices[at] == following(rank):
            return Load(expr.tensor, rest)
        if step.step == rank and expr.indices[at] == Var(rank):
            return Load(expr.tensor + OLD, rest)
        raise _NotClosed(einsum.target, f"it reads {print_expr(expr)}, neither before nor after the step")

    def _from_start(self, einsum: Einsum, factor: Expr, rank: str) -> Expr:
        """What the start is multiplied with by all steps: the factor from the first statistics to the last."""

        def at(expr: Expr) -> Expr:
            expr = map_children(expr, at)
            if isinstance(expr, Load) and OLD in expr.tensor:
                return self._at_end(self.steps[expr.tensor.removesuffix(OLD)].start or Const(0.0))
            return expr

        return at(self._named(einsum, factor, rank))

    def _guards_in(self, body: Expr) -> set[str]:
        """Maxima that `body` compares with -inf."""
        return {
            load.tensor
            for node in walk(body)
            if isinstance(node, Apply) and node.op == "where" and _tests_infinity(node.args[0])
            for load in loads(node.args[0])
            if load.tensor in self.maxima
        }

    def _is_guarded(self, maximum: str, terms: list[_Term]) -> bool:
        """Whether nothing is added before a maximum leaves -inf: it is over the same tiles, and no fewer keys."""
        at, needed = self.maxima[maximum]
        return all(t.keys[0] == at and set(needed) <= set(t.keys[1]) for t in terms)

    def _names(self, expr: Expr) -> str:
        return " and ".join(dict.fromkeys(ld.tensor for ld in self._early(expr)))

    def _residual(self, law: Expr) -> str:
        running = {n for ld in loads(law) if (n := ld.tensor).removesuffix(OLD) in self.steps}
        try:
            shape = canonicalise(law, Scope("k", running=running), whole=False).shape
        except NotPointwise:
            return "a statistic stands inside a contraction"
        return remainder(shape)


def _joined_term(body: Expr, join: str, me: Load) -> Expr | None:
    """`t` of `X (+) t`; also of chains, `max(max(X, a), b)`."""
    match body:
        case Apply(op, (a, b)) if op == join:
            for mine, other in ((a, b), (b, a)):
                if mine == me:
                    return other
                inner = _joined_term(mine, join, me)
                if inner is not None:
                    return apply(join, inner, other)
            return None
        case _:
            return None


def _term(expr: Expr, rank: str, op: str = "sum") -> _Term:
    """A term taken apart: of a reduction in tiles what a key adds to its tile, else the expression itself."""
    tile = tile_of(with_factors(expr), rank)
    if tile is not None and tile.op == op:
        return _Term(tile.body, (tile.at, tile.rest))
    tests: list[Expr] = []
    while isinstance(expr, Apply) and expr.op == "where" and _is(expr.args[2], REDUCERS[op].identity):
        tests.append(expr.args[0])
        expr = expr.args[1]
    return _Term(expr, (None, tuple(tests)))


def _tests_infinity(expr: Expr) -> bool:
    return any(
        isinstance(n, Const) and isinstance(n.value, float) and math.isinf(n.value) for n in walk(expr)
    )


def _running(expr: Expr, steps: dict[str, Einsum]) -> list[Load]:
    """Reads of recurrences at the row, in an expression from `_named`."""
    return [
        n for n in walk(expr)
        if isinstance(n, Load) and n.tensor in steps and len(n.indices) < len(steps[n.tensor].ranks)
    ]  # fmt: skip


def _old(load: Expr) -> Expr:
    assert isinstance(load, Load)
    return Load(load.tensor + OLD, load.indices)


def _is(expr: Expr, value: float) -> bool:
    return isinstance(expr, Const) and not isinstance(expr.value, bool) and expr.value == value
