"""Divide a cascade into sweeps: programs of one fold each, and what is computed between them.

    M[q] = max[k](S);  Z[q] = sum[k](exp(S - M));  A[q, k] = exp(S - M) / Z;  C[k] = sum[q](A[q, k])
->
    sweep over the keys        M, Z                                  one fold, rows are queries
    between                    L[q] = M[q] + log(Z[q])
    sweep over the queries     C[k] = sum[q](exp(S - L[b, h, q]))     one fold, rows are keys

A fold over the keys stays within one query row. Whatever needs a finished statistic in another row, or a statistic
that its body cannot follow, waits for a later sweep, in which that statistic is a tensor like any other. Values of a
pair are never stored for it: they are computed again. What holds no pair (features of tokens, statistics of
statistics) is computed between sweeps, densely.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from attngen.algebra.canonical import body_at
from attngen.algebra.conditions import hoist_conditions
from attngen.algebra.fold import Refusal
from attngen.algebra.isolate import isolate, names_of
from attngen.algebra.logs import expand_logs
from attngen.algebra.pairs import (
    is_blocked,
    is_pair,
    operand_loads,
    other_rank,
    own_indices,
    reduces_pairs,
    reductions,
)
from attngen.algebra.plain import Plain, plain
from attngen.algebra.prune import prune
from attngen.algebra.reassociate import CHUNK, Product, as_product, carried_einsums
from attngen.algebra.replay import replay
from attngen.algebra.steps import Between, Carry, Derive, Step, Sweep, Sweeps
from attngen.algebra.swap import swapped
from attngen.errors import DerivationError
from attngen.lang.expr import Expr, Load, Reduce, Var, apply, loads, map_children
from attngen.lang.kinds import kinds_of
from attngen.lang.program import Einsum, Program, TensorDecl
from attngen.lang.varies import varying_heads


def plan_sweeps(
    program: Program, derive: Derive, *, reassociate: bool = False, made: Plain | None = None
) -> Sweeps:
    """The steps of a linked and desugared program.

    `derive` gives the Fold of a program of one fold, complete or refused. With `reassociate`, sums of plain products
    are taken apart (see `reassociate`) wherever that is legal. `made` is what is known of the program without
    recurrences and tiles, where its caller has that at hand. Raises DerivationError for an Einsum that no number of
    passes computes, with the reason.
    """
    found = plain(program) if made is None else made
    if found.refusals:
        reasons = "; ".join(f"{r.target}: {r.reason}" for r in found.refusals)
        raise DerivationError(
            f"a recurrence that is no reduction: {reasons}",
            loc=getattr(program.einsum(found.refusals[0].target), "loc", None),
            hint="spec.derivation() shows what was tried; backend='reference' steps through it",
        )
    return _Planner(found.program, derive, reassociate).run()


class _Planner:
    """One division in progress: `known` names what is a tensor by now, `pending` what is not computed yet."""

    def __init__(self, program: Program, derive: Derive, reassociate: bool) -> None:
        self.reassociate, self.reassociated = reassociate, False
        whole = hoist_conditions(program)
        for rank in ("k", "q", "h"):
            whole = isolate(whole, rank)
        for rank in ("d", "e", *whole.own_ranks):
            whole = isolate(whole, rank, pairs=False)
        self.program = prune(expand_logs(prune(whole), "k")[0])
        self.derive = derive
        self.outputs = program.outputs
        self.einsums = {e.target: e for e in self.program.cascade}
        self.pending = dict(self.einsums)
        self.known: set[str] = set()
        self.taken = names_of(self.program)
        self.steps: list[Step] = []
        self.refusals: list[Refusal] = []
        self.per_head = {n for n, varies in varying_heads(self.program).items() if varies}
        self.kinds = kinds_of(self.program)
        self.parts: dict[Load, Einsum] = {}
        self.stored_pairs = {
            e.target for e in self.program.cascade if is_pair(e) and e.target in program.outputs
        }

    def run(self) -> Sweeps:
        while self._unfinished():
            if not (
                self._between() or self._products() or self._fold("q") or self._fold("k") or self._pairs()
            ):
                self._give_up()
        return Sweeps(self.program, tuple(self.steps), tuple(self.refusals), self.reassociated)

    def _unfinished(self) -> bool:
        return any(name not in self.known for name in self.outputs)

    # What can be computed where

    def _is_let(self, einsum: Einsum) -> bool:
        """Pointwise at its own ranks: recomputed wherever it is read, unless it is asked for."""
        return not reductions(einsum.body) and not self._shifted(einsum)

    def _shifted(self, einsum: Einsum) -> bool:
        """Whether it reads an earlier Einsum elsewhere than at its own ranks."""
        return any(
            ld.tensor in self.einsums and ld.indices != own_indices(self.einsums[ld.tensor])
            for ld in loads(einsum.body)
        )

    def _reads(self, einsum: Einsum) -> set[str]:
        return {ld.tensor for ld in loads(einsum.body) if ld.tensor in self.einsums}

    def _lets_of(self, names: Iterable[str]) -> set[str]:
        """Those of `names`, and what they are recomputed from, down to what is known."""
        seen: set[str] = set()
        stack = list(names)
        while stack:
            name = stack.pop()
            if name in seen or name in self.known:
                continue
            seen.add(name)
            stack.extend(self._reads(self.einsums[name]))
        return seen

    def _recomputable(self) -> set[str]:
        """Lets that read inputs and known results only, through other such lets."""
        out: set[str] = set()
        for einsum in self.program.cascade:
            if (
                einsum.target not in self.known
                and self._is_let(einsum)
                and self._reads(einsum) <= out | self.known
            ):
                out.add(einsum.target)
        return out

    # Steps

    def _between(self) -> bool:
        """Everything that no pair enters and whose operands are there."""
        ready = self._recomputable()
        lets = {n for n in ready if not is_pair(self.einsums[n])}
        made: list[str] = []
        for einsum in self.program.cascade:
            name = einsum.target
            if name in self.known or (is_pair(einsum) and (name in ready or self._is_let(einsum))):
                continue
            if not self._reads(einsum) <= self.known | lets | set(made) or self._holds_pairs(einsum):
                continue
            if name in lets and name not in self.outputs and not self._wanted_whole(name):
                continue
            made.append(name)
        if made:
            self._add_between(made)
        return bool(made)

    def _wanted_whole(self, name: str) -> bool:
        """Whether something reads it elsewhere than at its own ranks."""
        own = own_indices(self.einsums[name])
        return any(
            ld.tensor == name and ld.indices != own for e in self.pending.values() for ld in loads(e.body)
        )

    def _holds_pairs(self, einsum: Einsum) -> bool:
        """Whether a reduction of its goes over pairs that are not stored."""
        return reduces_pairs(einsum, "k") or reduces_pairs(einsum, "q")

    def _add_between(self, names: list[str]) -> None:
        operands = {ld.tensor for e in self.pending.values() for ld in operand_loads(e.body)}
        features = tuple(n for n in names if n in operands and n not in self.outputs)
        self.steps.append(Between(tuple(names), features))
        self._finish(names)

    def _fold(self, rows: Literal["q", "k"]) -> bool:
        """The largest set of reductions of rows of one kind that make one fold now."""
        refused: set[str] = set()
        while True:
            group = self._group(rows, refused)
            if not any(reduces_pairs(self.einsums[n], other_rank(rows)) for n in group):
                return False
            wanted = self._wanted(group)
            if not wanted:
                return False
            program = self._fold_program(group, wanted, rows)
            fold = self.derive(program)
            if not fold.derivation.refusals:
                break
            reasons = {r.target: r for r in fold.derivation.refusals}
            new = {n for n in group if n in reasons} or set(wanted)
            self.refusals.extend(r for r in fold.derivation.refusals if r not in self.refusals)
            refused |= new
        self.steps.append(Sweep(program, rows))
        self._finish(wanted)
        return True

    def _products(self) -> bool:
        """Sums over keys of plain products of what is known, re-associated."""
        if not self.reassociate:
            return False
        found: list[tuple[Einsum, Product]] = []
        for einsum in self.program.cascade:
            body = einsum.body
            if einsum.target not in self.pending or not isinstance(body, Reduce) or body.op != "sum":
                continue
            if einsum.ranks[:1] != ("q",) or not reduces_pairs(einsum, "k"):
                continue
            if not self._reads(einsum) <= self._known_or_lets():
                continue
            parts = as_product(self._written_out(body.body), frozenset(einsum.ranks[1:]), self.program.mask)
            if parts is not None:
                found.append((einsum, parts))
        if found:
            self.reassociated = True
            self._reassociate(found)
        return bool(found)

    def _known_or_lets(self) -> set[str]:
        return self.known | self._recomputable()

    def _written_out(self, expr: Expr) -> Expr:
        """`expr` with lets written out down to inputs and known results."""
        if isinstance(expr, Load) and expr.tensor in self.einsums and expr.tensor not in self.known:
            return self._written_out(body_at(self.einsums[expr.tensor], expr))
        return map_children(expr, self._written_out)

    def _reassociate(self, found: list[tuple[Einsum, Product]]) -> None:
        """Put states in the place of sums; what lies near the diagonal stays a sweep, one for all."""
        shared: dict[tuple[tuple[str, ...], Expr], str] = {}
        carries: list[Carry] = []
        near: list[Einsum] = []
        window: Expr | None = None
        for einsum, parts in found:
            made = carried_einsums(einsum, parts, CHUNK, self.taken, shared)
            self._replace(einsum, made.einsums)
            if made.carry is not None:
                carries.append(made.carry)
                near.append(Einsum(made.rest, einsum.ranks, einsum.body, loc=einsum.loc))
                window = made.window
        if not carries:
            return
        names = [n for c in carries for n in (c.query, c.key, c.value, c.step, c.end) if n is not None]
        self._add_between(list(dict.fromkeys(names)))
        self.steps.extend(carries)
        self._finish(c.target for c in carries)
        assert window is not None
        mask = window if self.program.mask is None else apply("and", self.program.mask, window)
        needed = self._lets_of(r for e in near for r in self._reads(e))
        cascade = (*(e for e in self.program.cascade if e.target in needed), *near)
        program = self._sub(cascade, tuple(e.target for e in near))
        self.steps.append(Sweep(replace(program, mask=mask), "q"))
        self._finish(program.outputs)

    def _replace(self, einsum: Einsum, new: tuple[Einsum, ...]) -> None:
        """The Einsums `new` in the place of one; the last of them has its name."""
        at = next(i for i, e in enumerate(self.program.cascade) if e.target == einsum.target)
        cascade = (*self.program.cascade[:at], *new, *self.program.cascade[at + 1 :])
        self.program = replace(self.program, cascade=cascade)
        self.einsums = {e.target: e for e in cascade}
        self.pending |= {e.target: e for e in new}
        self.kinds = kinds_of(self.program)
        self.per_head = {n for n, varies in varying_heads(self.program).items() if varies}

    def _group(self, rows: Literal["q", "k"], refused: set[str]) -> list[str]:
        """Reductions and row values that follow from known results and from each other, in order."""
        final = self.known | self._recomputable()
        ok = set(final)
        group: list[str] = []
        for einsum in self.program.cascade:
            name = einsum.target
            if name in ok or name in refused or not self._reads(einsum) <= ok:
                continue
            if is_blocked(einsum, rows) and not self._reads(einsum) <= final:
                continue
            reduction = isinstance(einsum.body, Reduce) and reduces_pairs(einsum, other_rank(rows))
            if reduction and other_rank(rows) not in einsum.ranks:
                ok.add(name)
                group.append(name)
            elif self._is_let(einsum) and self._stays_in(einsum, group, rows):
                ok.add(name)
                if not is_pair(einsum):
                    group.append(name)
        return group

    def _stays_in(self, einsum: Einsum, group: list[str], rows: str) -> bool:
        """Whether a let is one of pairs, of rows, or of columns that the sweep accumulates; others come after it."""
        if is_pair(einsum):
            return True
        mine = [n for n in self._reads(einsum) if n in group]
        if any(is_blocked(self.einsums[n], rows) for n in mine):
            return False
        like = [n for n in mine if self.einsums[n].ranks == einsum.ranks]
        return einsum.ranks == (rows,) or (
            einsum.ranks[:1] == (rows,) and len(einsum.ranks) == 2 and bool(like)
        )

    def _wanted(self, group: list[str]) -> tuple[str, ...]:
        """What of a group is an output or read by what is left over."""
        rest = [n for n in self.pending if n not in group]
        roots = {n for n in rest if not self._is_let(self.einsums[n]) or n in self.outputs}
        wanted = set(self.outputs)
        stack = list(roots)
        while stack:
            for name in self._reads(self.einsums[stack.pop()]) - self.known - wanted:
                wanted.add(name)
                if name not in group:
                    stack.append(name)
        return tuple(n for n in group if n in wanted)

    def _fold_program(self, group: list[str], wanted: tuple[str, ...], rows: Literal["q", "k"]) -> Program:
        program = self._sub(self._replayed(self._lets_of(group)), wanted)
        return program if rows == "q" else swapped(program)

    def _replayed(self, names: set[str]) -> tuple[Einsum, ...]:
        """The Einsums of these names, with weights replayed from what is known; it is computed first."""
        before = dict(self.parts)
        cascade = tuple(e for e in self.program.cascade if e.target in names)
        cascade = replay(cascade, self.known, self.parts, self.taken)
        new = [e for below, e in self.parts.items() if below not in before]
        if new:
            self.program = replace(self.program, cascade=(*self.program.cascade, *new))
            self.einsums |= {e.target: e for e in new}
            self.per_head |= {e.target for e in new}
            self.kinds = kinds_of(self.program)
            self._add_between([e.target for e in new])
        return cascade

    def _pairs(self) -> bool:
        """Values of pairs that are asked for, or that something reads in another order than tiles come in."""
        ready = self._recomputable()
        wanted = [
            n for n in self.pending
            if n in ready and is_pair(self.einsums[n]) and (n in self.stored_pairs or self._read_across(n))
        ]  # fmt: skip
        if not wanted:
            return False
        cascade = self._replayed(self._lets_of(wanted))
        self.steps.append(Sweep(self._sub(cascade, tuple(wanted)), "pair"))
        self._finish(wanted)
        return True

    def _read_across(self, name: str) -> bool:
        """Whether a reduction over heads, or an index that is no rank, reads the pair."""
        for einsum in self.pending.values():
            if self._wanted_whole(name):
                return True
            for node in reductions(einsum.body):
                if "h" in node.ranks and any(ld.tensor == name for ld in loads(node)):
                    return True
        return False

    def _finish(self, names: Iterable[str]) -> None:
        for name in names:
            self.known.add(name)
            self.pending.pop(name, None)

    # Programs of steps

    def _sub(self, cascade: tuple[Einsum, ...], outputs: tuple[str, ...]) -> Program:
        """A program of these Einsums, in which known results are tensors and features of tokens written out."""
        tokens = {
            e.target: e for e in cascade if not is_pair(e) and self._is_let(e) and e.target not in outputs
        }
        kept = [
            replace(e, body=self._closed(e.body, tokens))
            for e in cascade
            if e.target not in tokens or e.ranks == ("q",)
        ]
        program = prune(replace(self.program, cascade=tuple(kept), outputs=outputs))
        read = {ld.tensor for e in program.cascade for ld in loads(e.body)}
        if self.program.mask is not None:
            read |= {ld.tensor for ld in loads(self.program.mask)}
        tensors = [t for t in self.program.tensors if t.name in read]
        for name in self.einsums:
            if name in self.known and name in read:
                lead = ("b", "h") if name in self.per_head else ("b",)
                tensors.append(TensorDecl(name, (*lead, *self.einsums[name].ranks), self.kinds[name]))
        return replace(program, tensors=tuple(tensors))

    def _closed(self, expr: Expr, tokens: dict[str, Einsum]) -> Expr:
        """`expr` reading known results as tensors, with lets of tokens written out."""
        match expr:
            case Load(name, indices) if name in tokens and tokens[name].ranks != ("q",):
                return self._closed(body_at(tokens[name], expr), tokens)
            case Load(name, indices) if name in self.known:
                lead = (Var("b"), Var("h")) if name in self.per_head else (Var("b"),)
                return Load(name, (*lead, *(self._closed(i, tokens) for i in indices)), loc=expr.loc)
            case _:
                return map_children(expr, lambda c: self._closed(c, tokens))

    def _give_up(self) -> None:
        left = [n for n in self.pending if n in self._lets_of(self.outputs)]
        reasons = [f"{r.target}: {r.reason}" for r in self.refusals if r.target in self.pending]
        raise DerivationError(
            "no number of passes computes "
            + ", ".join(left)
            + ("; " + "; ".join(reasons) if reasons else ""),
            loc=self.einsums[left[0]].loc if left else None,
            hint="spec.derivation() shows each step and what was left over",
        )
