"""Find out what a process that runs a program asks of earlier ones: the documents that its artefact ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attngen import analysed as programs
from attngen import forms, pipeline
from attngen.aot.list_kernels import list_kernels
from attngen.artefact.manifest import Form, Kernel
from attngen.documents import Documents, noting
from attngen.lang.program import Program


def rehearse(program: Program, wanted: tuple[Form, ...], kernels: Sequence[Kernel]) -> Documents:
    """The documents of a call of any of the kernels: what became of the program, its forms, its Folds."""
    forget()
    with noting() as found:
        _, parts = list_kernels(programs.analyse(program), wanted)
        for part in parts:
            forms.forms_of(part.analysed)
            of_part = (k.special.consts for k in kernels if (k.form, k.step) == (part.form, part.step))
            for consts in dict.fromkeys(of_part):
                pipeline.feature_ranks(programs.specialised(part.analysed, consts))
    return Documents({name: _anywhere(document) for name, document in found.known.items()})


def forget() -> None:
    """Let go what this process knows: programs of one text share it, and with it a name and a documentation."""
    programs.forget()
    forms.forget()
    pipeline.feature_ranks.cache_clear()
    pipeline.kernel_spec.cache_clear()


def _anywhere(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document without paths of this machine, and without prose, which depends on who made it first."""
    program = document.get("program")
    return document if program is None else {**document, "program": {**without_places(program), "doc": ""}}


def without_places(program: Mapping[str, Any]) -> dict[str, Any]:
    """A program's JSON without where its declarations stand, which is a path of the machine that built it."""
    return {
        **program,
        "params": [[*fields[:-1], None] for fields in program["params"]],
        "tensors": [[*fields[:-1], None] for fields in program["tensors"]],
    }
