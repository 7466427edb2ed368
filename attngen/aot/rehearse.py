"""Find out what a process that runs a program asks of earlier ones: the documents that its artefact ships."""

from __future__ import annotations

from collections.abc import Sequence

from attngen import analysed as programs
from attngen import forms, pipeline
from attngen.aot.list_kernels import list_kernels
from attngen.artefact.manifest import Form, Kernel
from attngen.documents import Documents, noting
from attngen.lang.program import Program


def rehearse(program: Program, wanted: tuple[Form, ...], kernels: Sequence[Kernel]) -> Documents:
    """The documents of a call of any of the kernels: what became of the program, its forms, its Folds."""
    programs.forget()
    forms.forget()
    pipeline.feature_ranks.cache_clear()
    with noting() as found:
        _, parts = list_kernels(programs.analyse(program), wanted)
        for part in parts:
            forms.forms_of(part.analysed)
            of_part = (k.special.consts for k in kernels if (k.form, k.step) == (part.form, part.step))
            for consts in dict.fromkeys(of_part):
                pipeline.feature_ranks(programs.specialised(part.analysed, consts))
    return found
