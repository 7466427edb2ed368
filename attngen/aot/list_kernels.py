"""The kernels that a call may run: of every form that was asked for, each sweep with what it is specialised on.

column_sums                     one_pass           0   M, Z          rows are queries
                                one_pass           1   C             rows are keys
sliding_window, both forms      one_pass           0   O
                                local_then_merge   0   M, Z, U       of a part of the keys
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attngen import forms as program_forms
from attngen.algebra.steps import Between, Carry, Sweep, Sweeps
from attngen.analysed import Analysed, analyse
from attngen.artefact.manifest import Form, identity
from attngen.lang.kinds import kinds_of
from attngen.lang.ops import Kind
from attngen.lang.program import Program
from attngen.run_fold import FoldRunner
from attngen.run_sweep import SweepRunner
from attngen.value import value


@value
class Part:
    """One sweep of one form.

    step     counts the sweeps of a form.
    dtypes   of the results of earlier steps that it reads: torch's names, "" for that of the inputs.
    """

    form: Form
    step: int
    analysed: Analysed
    rows: str
    exact: frozenset[str]
    dtypes: Mapping[str, str]


def list_kernels(analysed: Analysed, wanted: Iterable[Form]) -> tuple[tuple[Form, ...], tuple[Part, ...]]:
    """The forms of `wanted` that the program has, and the sweeps of all of them. Raises DerivationError."""
    known = program_forms.forms_of(analysed)
    wanted = tuple(wanted)
    parts: list[Part] = []
    for form in wanted:
        match form:
            case "one_pass":
                parts += _sweeps(analysed.program, program_forms.sweeps_of(analysed), form)
            case "reassociated" if known.products:
                sweeps = program_forms.sweeps_of(analysed, reassociate=True)
                parts += _sweeps(analysed.program, sweeps, form)
            case "local_then_merge" | "scan":
                parts += _partials(analysed, form, reassociated=known.products and "reassociated" in wanted)
            case _:
                pass
    present = {"one_pass", *(part.form for part in parts)}  # a cascade without pairs runs without a kernel
    return tuple(form for form in wanted if form in present), tuple(parts)


def _sweeps(program: Program, sweeps: Sweeps, form: Form) -> list[Part]:
    final = frozenset(program.outputs)
    kinds = kinds_of(sweeps.program)
    found: list[Part] = []
    dtypes: dict[str, str] = {}
    for step in sweeps.steps:
        match step:
            case Sweep(part, rows):
                exact = frozenset(part.outputs) - (final if sweeps.single else frozenset())
                read = {t.name: dtypes[t.name] for t in part.tensors if t.name in dtypes}
                made = analyse(part, written=sweeps.single)
                found.append(Part(form, len(found), made, rows, exact, read))
                dtypes |= {name: _dtype(kinds[name]) for name in part.outputs}
            case Between(targets, features):
                dtypes |= {name: _dtype(kinds[name]) for name in targets}
                dtypes |= dict.fromkeys(features, "")
            case Carry(target):
                dtypes[target] = "float32"
    return found


def _dtype(kind: Kind) -> str:
    """How a result of a step is kept for later ones (see `SweepsRunner`)."""
    return {Kind.INT: "int64", Kind.BOOL: "bool", Kind.FLOAT: "float32"}[kind]


def _partials(analysed: Analysed, form: Form, *, reassociated: bool) -> list[Part]:
    """The kernels for parts of the keys, of every sweep whose fold has that form.

    A call that takes products in the other order may take its sweeps so too, where both kinds are built.
    """
    sweeps = _sweeps(analysed.program, program_forms.sweeps_of(analysed), form)
    if reassociated:
        sweeps += _sweeps(analysed.program, program_forms.sweeps_of(analysed, reassociate=True), form)
    found: dict[tuple[object, ...], Part] = {}
    for part in sweeps:
        known = program_forms.forms_of(part.analysed)
        has = known.mergeable if form == "local_then_merge" else known.prefix
        if part.rows != "q" or not has:
            continue
        for runner in _runners(part, form):
            made = Part(form, len(found), runner.analysed, runner.rows, runner.exact, part.dtypes)
            found.setdefault(_computes(made), made)
    return list(found.values())


def _computes(part: Part) -> tuple[object, ...]:
    """Equal for parts that one kernel serves."""
    program = identity(part.analysed.text, part.analysed.program.outputs)
    return program, part.rows, part.exact, tuple(sorted(part.dtypes.items()))


def _runners(part: Part, form: Form) -> list[SweepRunner]:
    fold = FoldRunner(part.analysed, "q", part.exact)
    if form == "scan":
        scan = fold.scan_runner()
        return [scan.chunks, scan.rest]
    return [fold.split_runner(2).sweep]
