"""Cascades for Python users: those of `ir/cascades/` by name, and any other from its text."""

from __future__ import annotations

import inspect

from attngen.errors import ProgramTypeError
from attngen.lang.library import cascade_names, load_cascade
from attngen.lang.parse import parse_program
from attngen.lang.program import Program

__all__ = ["cascade", "names"]


def names() -> tuple[str, ...]:
    """The cascades that ship with attngen, sorted."""
    return cascade_names()


def cascade(text_or_name: str) -> Program:
    """A cascade from a name in `ir/cascades/`, or from the text of its Einsums.

        cascade("sigmoid")
        cascade('''
            S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale
            O[q, e] = sum[k](sigmoid(S[q, k]) * V[k, e])
            return O
        ''')

    Raises ProgramNotFoundError for an unknown name, ProgramTypeError for text without Einsums or with a mask
    or a score of its own, and what parsing raises.
    """
    if text_or_name.isidentifier():
        return load_cascade(text_or_name)
    program = parse_program(inspect.cleandoc(text_or_name), name="cascade", file="<cascade>")
    extra = [what for what in ("mask", "score") if getattr(program, what) is not None]
    if extra:
        raise ProgramTypeError(
            f"a cascade has no {' and no '.join(extra)} of its own", hint="pass them beside the cascade"
        )
    if not program.cascade:
        raise ProgramTypeError(
            "the text has no Einsums", hint="a cascade computes outputs: O[q, e] = ...; return O"
        )
    return program
