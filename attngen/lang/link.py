"""Link a program: put the cascade's Einsums into it and work its score into them.

    slope[h]: float
    score = S + slope[h] * (k - q)
    cascade = softmax
->
    slope[h]: float
    S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale + slope[h] * (k - q)
    M[q] = max[k](S[q, k])
    ...

A score that reads `S` once is the body of `S` with the old body in its place; one that reads it several times
gets the old body as an Einsum of its own, `S_raw[q, k]`; one that does not read it replaces the body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from attngen.errors import LinkError
from attngen.lang.expr import Expr, Load, Var, loads, substitute
from attngen.lang.program import Einsum, ParamDecl, Program, TensorDecl
from attngen.lang.verify import verify
from attngen.lang.words import SCORE

DEFAULT_CASCADE = "softmax"
_PAIR = ("q", "k")
_SCORE = Load(SCORE, ())

_Decl = TypeVar("_Decl", ParamDecl, TensorDecl)


def link(program: Program, cascades: Callable[[str], Program]) -> Program:
    """The linked program: its mask, its Einsums or its cascade's with the score worked in, its outputs.

    `cascades` gives the program of a cascade's name; the cascade is softmax if the program has no Einsums and
    names none. The program's own `return` wins over the cascade's. Raises LinkError if the two declare a name
    differently, or if there is a score and no `S[q, k]` for it to modify; and what `verify` raises.
    """
    if program.linked:
        return program
    merged = program if program.cascade else _with_cascade(program, cascades)
    if merged.score is not None:
        merged = replace(merged, cascade=_with_score(merged, merged.score), score=None)
    verify(merged)
    return merged


def _with_cascade(program: Program, cascades: Callable[[str], Program]) -> Program:
    name = program.cascade_name or DEFAULT_CASCADE
    cascade = cascades(name)
    if not cascade.linked or cascade.mask is not None:
        raise LinkError(
            f"`{name}` is not a cascade", hint="a cascade has Einsums, and neither a mask nor a score"
        )
    _refuse_clashes(program, cascade, name)
    return replace(
        program,
        params=_joined(program.params, cascade.params, name),
        tensors=_joined(program.tensors, cascade.tensors, name),
        cascade=cascade.cascade,
        cascade_name=None,
        outputs=program.outputs or cascade.outputs,
    )


def _joined(own: tuple[_Decl, ...], theirs: tuple[_Decl, ...], cascade: str) -> tuple[_Decl, ...]:
    """The declarations of both; one that both make is made once."""
    mine = {decl.name: decl for decl in own}
    for decl in theirs:
        if decl.name in mine and mine[decl.name] != decl:
            raise LinkError(
                f"`{decl.name}` is declared differently by the cascade `{cascade}`",
                loc=mine[decl.name].loc,
                hint="choose another name",
            )
    return own + tuple(decl for decl in theirs if decl.name not in mine)


def _refuse_clashes(program: Program, cascade: Program, name: str) -> None:
    """A name that both use for different things: `_joined` sees only parameters or only tensors."""
    theirs = {d.name for d in (*cascade.params, *cascade.tensors)} | {e.target for e in cascade.cascade}
    for decl in (*program.params, *program.tensors):
        same_sort = cascade.param if isinstance(decl, ParamDecl) else cascade.tensor
        if decl.name in theirs and same_sort(decl.name) is None:
            raise LinkError(
                f"`{decl.name}` is also a name of the cascade `{name}`",
                loc=decl.loc,
                hint="choose another name",
            )


def _with_score(program: Program, score: Expr) -> tuple[Einsum, ...]:
    target = program.einsum(SCORE)
    if target is None or target.ranks != _PAIR:
        raise LinkError(
            f"there is a score, but the cascade has no {SCORE}[q, k] for it to modify",
            loc=score.loc,
            hint=f"write the score into the Einsums, or name the dot product {SCORE}",
        )
    uses = sum(load == _SCORE for load in loads(score))
    if uses <= 1:
        new = (replace(target, body=substitute(score, {_SCORE: target.body})),)
    else:
        raw = _fresh(f"{SCORE}_raw", program)
        reads = Load(raw, tuple(map(Var, _PAIR)))
        new = (replace(target, target=raw), replace(target, body=substitute(score, {_SCORE: reads})))
    at = program.cascade.index(target)
    return program.cascade[:at] + new + program.cascade[at + 1 :]


def _fresh(name: str, program: Program) -> str:
    taken = {*(p.name for p in program.params), *(t.name for t in program.tensors)}
    taken |= {e.target for e in program.cascade}
    while name in taken:
        name += "_"
    return name
