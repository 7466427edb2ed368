"""Pages of the papers whose operators are more than a mask: what programs compute, in how many passes, and agreement.

Everything but the rows' titles and notes is computed when the page is written; a number that a machine would change is
not printed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attngen import arguments
from attngen.analysed import analyse
from attngen.backends.reference import reference
from attngen.errors import AttngenError
from attngen.lang.library import cascade_names, load_program
from attngen.paper_samples import Sample, sample
from attngen.papers import TESTS, Paper
from attngen.papers_cdf import Group
from attngen.tolerance import FACTOR, FLOOR, Check, max_error, output_rounding

_LEGEND = """
*Passes* are those over the keys, as the cascade is written and after rewriting; *sweeps* are the kernels of a call,
each of which reads queries or keys once; none is needed where sums over the keys are products of matrices. *Agrees* is
computed when `attngen papers` writes this page: the call is run on the CPU in fp32, with lengths that nothing divides
and grouped heads, and compared with the program evaluated densely in float64; it may err by a small factor of what
PyTorch errs with the same formula in fp32. The test holds the program to the paper's definition, which is written by
hand and knows nothing of the language; [another](../../tests/papers/test_policies.py) does so for `attngen.policies`,
which put together what is more than one program.
"""
_SLACK = 3  # the yardstick is the largest of few numbers: a row of sums may be luckier than another


@dataclass(frozen=True, slots=True)
class Found:
    """What was found out about a program: passes as written and left, sweeps, and the verdict on its call."""

    first_line: str
    written: int
    passes: int
    sweeps: int
    verdict: str


def agreement(
    call: Sample,
    backend: str | None = "cpu",
    algorithm: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[Check]:
    """The call's outputs on a backend against float64, by the tolerance rule with some slack.

    With the backend None the call is run on the current GPU.
    """
    device = "cuda" if backend is None else "cpu"
    spec = call.spec(algorithm=algorithm)
    q, k, v = (x.to(device, dtype) for x in call.inputs())
    tensors, params = arguments.bind(spec.program, spec.values, {})
    tensors = {n: x.to(device) for n, x in tensors.items()}
    result = spec.run(q, k, v, backend=backend, tensors=tensors)
    outs = result if isinstance(result, tuple) else (result,)
    params["scale"] = arguments.default_scale(q.shape[-1], None)
    exact, formula = (
        reference(spec.program, q, k, v, tensors=tensors, params=params, dtype=kind)
        for kind in (torch.float64, dtype)
    )
    return [_check(n, out, exact[n], formula[n]) for n, out in zip(spec.outputs, outs, strict=True)]


def _check(name: str, out: torch.Tensor, exact: torch.Tensor, formula: torch.Tensor) -> Check:
    if out.shape != exact.shape:
        return Check(name, float("inf"), 0.0, 0)
    if not out.is_floating_point():
        return Check(name, float((out != exact).sum()), 0.0, 0)
    finite = exact[exact.isfinite()].abs()
    largest = float(finite.max()) if finite.numel() else 0.0
    size = min(1.0, largest) or 1.0  # one rounding at magnitude 1 is no tolerance for numbers far below it
    allowed = _SLACK * FACTOR * max_error(formula, exact) + output_rounding(exact, out.dtype) + FLOOR * size
    return Check(name, max_error(out, exact), allowed, 0)


def find(name: str) -> Found:
    """Derive, plan and run a program's call."""
    from attngen import forms
    from attngen.algebra.steps import Sweep

    call = sample(name)
    analysed = analyse(call.spec().program)
    record = forms.record_of(analysed)
    sweeps = sum(isinstance(step, Sweep) for step in forms.sweeps_of(analysed).steps)
    try:
        bad = [c.output for c in agreement(call) if not c.ok]
        verdict = "yes" if not bad else f"no: {', '.join(bad)}"
    except AttngenError as error:
        verdict = f"no: {error.code}"
    first = load_program(name).doc.partition("\n")[0]
    return Found(first, record.passes_written, record.passes, sweeps, verdict)


def page(group: Group) -> str:
    """The page of a group as Markdown."""
    rows = [row for section in group.sections for row in section.papers]
    found = {name: find(name) for name in sorted({p for row in rows for p in row.programs})}
    lines = [f"# {group.title}", "", group.intro.strip(), _LEGEND.rstrip()]
    for section in group.sections:
        lines += ["", f"## {section.title}", ""]
        lines += ["| paper | program | computes | passes | sweeps | agrees | test |"]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        for paper in section.papers:
            lines += [_line(paper, name, found[name], first=i == 0) for i, name in enumerate(paper.programs)]
        notes = [f"- {_label(paper)}: {paper.note}." for paper in section.papers if paper.note]
        lines += ["", *notes] if notes else []
    return "\n".join(lines) + "\n"


def _label(paper: Paper) -> str:
    return f"{paper.number}. {paper.title}" if paper.number else paper.title


def _line(paper: Paper, name: str, found: Found, *, first: bool) -> str:
    folder = "ir/cascades" if name in cascade_names() else "ir"
    passes = f"{found.written}" if found.written == found.passes else f"{found.written} → {found.passes}"
    cells = (
        _label(paper) if first else "",
        f"[`{name}`](../../{folder}/{name}.attn)",
        found.first_line.rstrip("."),
        passes,
        str(found.sweeps),
        found.verdict,
        f"[test](../../{TESTS}/{paper.test})",
    )
    return "| " + " | ".join(cells) + " |"
