"""How a cascade became what runs, in words: its passes, and each step with its Einsums, rules, reasons and Fold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from attngen import forms
from attngen.algebra.record import (
    einsum_text,
    format_derivation,
    passes_lines,
    print_fold,
    refusal_lines,
    rule_lines,
)
from attngen.algebra.steps import Between, Carry, Step, Sweep, Sweeps
from attngen.analysed import Analysed, analyse
from attngen.lang.expr import loads
from attngen.lang.program import Einsum, Program

_INDENT = "  "


def title_of(step: Step, number: int) -> str:
    """A line about a step; the sweeps of a program count from 0, as `attngen inspect --sweep` does."""
    return step.describe().replace("sweep ", f"sweep {number} ", 1)


def numbered(steps: Iterable[Step]) -> list[tuple[str, Step]]:
    """Steps with their titles, in order."""
    out: list[tuple[str, Step]] = []
    sweeps = 0
    for step in steps:
        out.append((title_of(step, sweeps) if isinstance(step, Sweep) else step.describe(), step))
        sweeps += isinstance(step, Sweep)
    return out


def derivation_text(analysed: Analysed, sweeps: Sweeps | None) -> str:
    """Passes, rules and Folds; of a program of several steps, step by step. None stands for a refused cascade."""
    record = forms.record_of(analysed)
    if sweeps is None:
        return format_derivation(record)
    if sweeps.single:
        return f"{format_derivation(record)}\n{print_fold(forms.fold_of(analysed))}"
    made: list[str] = []
    parts = ["\n".join(passes_lines(record))]
    explained: set[str] = set()
    for title, step in numbered(sweeps.steps):
        lines, about = _step(step, sweeps, made)
        explained |= about
        parts.append("\n".join([title, *(f"{_INDENT}{line}".rstrip() for line in lines)]))
        made += results_of(step)
    rest = [r for r in sweeps.refusals if r.target not in explained]
    if rest:
        parts.append("\n".join(refusal_lines(rest)))
    return "\n\n".join(parts) + "\n"


def results_of(step: Step) -> tuple[str, ...]:
    """The Einsums that a step leaves."""
    match step:
        case Sweep(program, _):
            return program.outputs
        case Between(targets, _):
            return targets
        case Carry():
            return (step.target,)


def _step(step: Step, sweeps: Sweeps, made: Sequence[str]) -> tuple[list[str], set[str]]:
    """The lines below a step's title, and the Einsums whose refusals are among them."""
    match step:
        case Sweep():
            return _sweep(step, sweeps, made)
        case Between(targets, features):
            lines = [einsum_text(e) for e in _needed(sweeps.program, targets, made)]
            if features:
                lines.append(f"rounded to the dtype of the inputs: {', '.join(features)}")
            return lines, set()
        case Carry():
            decay = f", times {step.step} from chunk to chunk" if step.step else ""
            return [
                f"state before each chunk: sum of {step.key} x {step.value}{decay}",
                f"{step.target} = {step.query} . state of the chunk in which {step.end} lies",
            ], set()


def _sweep(step: Sweep, sweeps: Sweeps, made: Sequence[str]) -> tuple[list[str], set[str]]:
    program = step.program
    targets = {e.target for e in program.cascade}
    refused = [r for r in sweeps.refusals if r.target in targets]
    read = [t.name for t in program.tensors if t.name in made]
    lines: list[str] = []
    if read:
        lines.append(f"after the steps above, for it reads {', '.join(read)}")
    lines += refusal_lines(refused)
    if step.rows == "k":
        lines.append("queries and keys exchanged: below, q are the keys of the call and k its queries")
    lines += ["", *(einsum_text(e) for e in program.cascade)]
    fold = forms.fold_of(analyse(program, written=sweeps.single))
    if fold.derivation.rules:
        lines.append("")
    for use in fold.derivation.rules:
        lines += rule_lines(use)
    return [*lines, "", *print_fold(fold).splitlines()], {r.target for r in refused}


def _needed(program: Program, targets: Collection[str], made: Collection[str]) -> list[Einsum]:
    """The Einsums of `targets` and those computed anew for them, in order."""
    needed = set(targets)
    for einsum in reversed(program.cascade):
        if einsum.target in needed:
            needed |= {ld.tensor for ld in loads(einsum.body)} - set(made)
    return [e for e in program.cascade if e.target in needed]
