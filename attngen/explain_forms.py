"""The forms in which a call may run, what the cost model makes of each, and which one it takes, in words.

The choice is the one that a call makes (`choose_algorithm`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from attngen import choose_algorithm as cost
from attngen import forms
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
    state, quadratic = cost.product_seconds(shapes, machine, masked=analysed.program.mask is not None)
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
    return cost.kept_part(shapes, prefix=rows == "q" and forms.forms_of(analysed).prefix)


def fold_forms(analysed: Analysed, rows: Rows, shapes: Shapes, machine: Machine) -> tuple[Form, ...]:
    """In one go, over parts of the keys that are merged, or as a scan; one of them is chosen."""
    if rows != "q":
        one = _one_pass(analysed, rows, shapes, machine)
        return (Form("one_pass", one, "the only form of such a sweep", chosen=True),)
    known = forms.forms_of(analysed)
    found = cost.fold_forms(
        forms.fold_of(analysed), shapes, machine, mergeable=known.mergeable, prefix=known.prefix
    )
    taken, why = cost.chosen_form(found), "the least estimate"
    if len(found) == 1:
        why = "the only form"
    elif not known.prefix and cost.has_rows_for_all(shapes, machine):
        taken, why = found[0], "every unit has rows of its own"
    of = {f.name: f for f in found}
    lines: list[Form] = []
    for name, absent in _FOLD_FORMS.items():
        form = of.get(name)
        if form is None:
            lines.append(Form(name, None, absent))
            continue
        note, seconds = _note(form), None if math.isinf(form.seconds) else form.seconds
        chosen = form is taken
        note = "; ".join(n for n in (note, why if chosen else "") if n)
        lines.append(Form(name, seconds, note, chosen))
    return tuple(lines)


_FOLD_FORMS = {
    "one_pass": "",
    "local_then_merge": "its states do not merge",
    "scan": "queries do not share the keys before their end",
}


def _note(form: cost.FoldForm) -> str:
    if form.splits == 1:
        return ""
    if form.splits == 0:
        return f"chunks of {cost.SCAN_CHUNK}"
    return "too few keys to split" if math.isinf(form.seconds) else f"{form.splits} parts of the keys"
