"""The forms in which a call may run, what the cost model makes of each, and which one it takes, in words.

The choice itself is made where a call runs (`run_program`, `run_fold`); a test holds this account to it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from attngen import choose_algorithm as cost
from attngen import forms
from attngen.algebra.reassociate import CHUNK
from attngen.algebra.steps import Rows, Sweep, Sweeps
from attngen.analysed import Analysed, analyse
from attngen.explain_steps import numbered
from attngen.value import value

if TYPE_CHECKING:
    from attngen.arguments import Shapes
    from attngen.choose_algorithm import Machine

HEAD_DIM = 64


@value
class Form:
    """One way of running: its estimate, None where the program does not have it, and a word about it."""

    name: str
    seconds: float | None
    note: str = ""
    chosen: bool = False

    def text(self) -> str:
        """One line."""
        time = "-" if self.seconds is None else f"{self.seconds * 1e3:.3g} ms"
        note = f"chosen: {self.note}" if self.chosen else self.note
        return f"{self.name:<18}{time:>12}  {note}".rstrip()


def forms_text(analysed: Analysed, sweeps: Sweeps, shapes: Shapes, machine: Machine) -> str:
    """What each form of a program, and of each of its sweeps, is estimated to take."""
    head = (
        f"estimates for {shapes.batch} x {shapes.heads} heads, {shapes.n_q} queries, {shapes.n_k} keys, "
        f"head_dim {shapes.head_dim} on this machine ({machine.units} units); they rank, they do not predict"
    )
    if not (shapes.batch and shapes.heads and shapes.n_q and shapes.n_k):
        return f"{head}\nnothing to do: no pairs"
    whole = program_forms(analysed, sweeps, shapes, machine)
    lines = [head, "the cascade", *(f"  {f.text()}" for f in whole)]
    planned = sweeps
    if whole[1].chosen:
        planned = forms.sweeps_of(analysed, reassociate=True)
        lines += [f"    {title}" for title, _ in numbered(planned.steps)]
    for title, step in numbered(planned.steps):
        if isinstance(step, Sweep):
            part = analysed if planned.single else analyse(step.program, written=planned.single)
            lines.append(title)
            lines += [f"  {f.text()}" for f in fold_forms(part, step.rows, shapes, machine)]
    return "\n".join(lines)


def program_forms(analysed: Analysed, sweeps: Sweeps, shapes: Shapes, machine: Machine) -> tuple[Form, ...]:
    """How the reductions of a cascade are taken: as derived, through a state, or without following statistics."""
    kernels = [s for s in sweeps.steps if isinstance(s, Sweep)]
    derived = Form(_sweeps(len(kernels)), _swept(sweeps, shapes, machine), "as derived above", True)
    several = _several(analysed, shapes, machine)
    if not forms.forms_of(analysed).products:
        return derived, Form("reassociated", None, "no sum of plain products"), several
    masked = analysed.program.mask is not None
    pair = shapes.head_dim + shapes.value_dim + 8.0
    state = cost.reassociated_seconds(shapes, machine, pair, CHUNK if masked else 0)
    quadratic = cost.one_pass_seconds(shapes, machine, pair, 0.5 if masked else 1.0)
    pays = state < quadratic
    why = f"a state against {quadratic * 1e3:.3g} ms for the pairs of a plain sum"
    return (
        replace(derived, chosen=not pays),
        Form("reassociated", state, why, pays),
        several,
    )


def _several(analysed: Analysed, shapes: Shapes, machine: Machine) -> Form:
    """The form in which no accumulator follows a running statistic; taken on request only."""
    from attngen.errors import DerivationError

    try:
        sweeps = forms.sweeps_of(analysed, follow=False)
    except DerivationError:
        return Form("several_passes", None, "there is no such form")
    count = sum(isinstance(s, Sweep) for s in sweeps.steps)
    seconds = _swept(sweeps, shapes, machine)
    return Form("several_passes", seconds, f"no statistic followed: {_sweeps(count)}; on request only")


def _sweeps(count: int) -> str:
    return "1 sweep" if count == 1 else f"{count} sweeps"


def _swept(sweeps: Sweeps, shapes: Shapes, machine: Machine) -> float:
    """All sweeps in one pass each, one after the other."""
    total = 0.0
    for step in sweeps.steps:
        if isinstance(step, Sweep):
            total += _one_pass(analyse(step.program, written=sweeps.single), step.rows, shapes, machine)
    return total


def _one_pass(analysed: Analysed, rows: Rows, shapes: Shapes, machine: Machine) -> float:
    own = shapes.swapped() if rows == "k" else shapes
    pair = cost.pair_cost(forms.fold_of(analysed), shapes.head_dim, shapes.value_dim)
    return cost.one_pass_seconds(own, machine, pair, _kept(analysed, rows, shapes))


def _kept(analysed: Analysed, rows: Rows, shapes: Shapes) -> float:
    """The part of the pairs that the cost model takes a mask to keep."""
    prefix = rows == "q" and forms.forms_of(analysed).prefix
    return 0.5 if prefix and shapes.n_q == shapes.n_k else 1.0


def fold_forms(analysed: Analysed, rows: Rows, shapes: Shapes, machine: Machine) -> tuple[Form, ...]:
    """In one go, over parts of the keys that are merged, or as a scan; one of them is chosen."""
    one = _one_pass(analysed, rows, shapes, machine)
    if rows != "q":
        return (Form("one_pass", one, "the only form of such a sweep", chosen=True),)
    known = forms.forms_of(analysed)
    fold = forms.fold_of(analysed)
    pair = cost.pair_cost(fold, shapes.head_dim, shapes.value_dim)
    kept, states = _kept(analysed, rows, shapes), len(fold.states)
    splits, split = cost.best_split(shapes, machine, pair, kept, states)
    merge = Form("local_then_merge", None, "its states do not merge")
    if known.mergeable:
        few = Form("local_then_merge", None, "too few keys to split")
        merge = few if math.isinf(split) else replace(few, seconds=split, note=f"{splits} parts of the keys")
    scan = Form("scan", None, "queries do not share the keys before their end")
    if known.prefix:
        scan = Form("scan", cost.scan_seconds(shapes, machine, pair, states), f"chunks of {cost.SCAN_CHUNK}")
    found = (Form("one_pass", one), merge, scan)
    taken, why = _taken(found, known, shapes, machine)
    return tuple(
        replace(f, chosen=f.name == taken, note="; ".join(n for n in (f.note, why) if n))
        if f.name == taken
        else f
        for f in found
    )


def _taken(found: tuple[Form, ...], known: forms.Forms, shapes: Shapes, machine: Machine) -> tuple[str, str]:
    """Which form a call takes, and why."""
    if not (known.mergeable or known.prefix):
        return "one_pass", "the only form"
    if not known.prefix and shapes.batch * shapes.heads * shapes.n_q >= 64 * machine.units:
        return "one_pass", "every unit has rows of its own"
    possible = [(f.seconds, f.name) for f in found if f.seconds is not None]
    # the first of equal ones, as the call has it
    return min(possible, key=lambda p: p[0])[1], "the least estimate"
