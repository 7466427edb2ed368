"""A program with its canonical text, the key of everything that is made of it; and what is worked into a program."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from attngen.documents import kept, noted, shipped
from attngen.errors import CacheError, OutputError
from attngen.lang.expr import Const, Expr, Param, Size, Var, apply, free_vars, rewrite
from attngen.lang.program import Einsum, Program
from attngen.limit_time import within_time
from attngen.value import value

if TYPE_CHECKING:
    from attngen.algebra.fold import Fold
    from attngen.algebra.plain import Plain

log = logging.getLogger("attngen")

Number = int | float | bool


@value
class Analysed:
    """A program with its canonical text, by which alone it compares: the key of all that follows.

    fold     where the program is made of a Fold that is known, that Fold.
    written  whether it is a program of the language: a step's program reads inputs in other ways.
    source   where the program was made of another, with recurrences or tiles of its own: that; `plain` says how.
    """

    program: Program = field(compare=False)
    text: str
    fold: Fold | None = field(default=None, compare=False)
    written: bool = field(default=True, compare=False)
    source: Program | None = field(default=None, compare=False)
    plain: Plain | None = field(default=None, compare=False)

    @property
    def as_written(self) -> Program:
        """The program as its user wrote it."""
        return self.program if self.source is None else self.source


def cascade_text(analysed: Analysed) -> str:
    """The canonical text of a program without its mask, which the algebra never sees."""
    from attngen.lang.print import print_program

    return print_program(replace(analysed.program, mask=None), doc=False)


def with_extents(program: Program, extents: Mapping[str, int]) -> Program:
    """Work the extents of features into the program: `n_j` becomes a literal."""
    if not extents:
        return program
    return replace(
        program,
        mask=None if program.mask is None else with_literals(program.mask, {}, extents),
        cascade=tuple(replace(e, body=with_literals(e.body, {}, extents)) for e in program.cascade),
    )


def analyse(program: Program, fold: Fold | None = None, *, written: bool = True) -> Analysed:
    """Pair a linked, desugared program, made plain, with its canonical text, and with its Fold if that is known."""
    if fold is None and written and _may_change(program):
        found = _plain(program)
        if found.uses or found.refusals:
            return Analysed(found.program, _canonical(found.program), None, True, source=program, plain=found)
    return Analysed(program, _canonical(program), fold, written)


def _may_change(program: Program) -> bool:
    """Whether it may have recurrences or tiles; a look that costs no import."""
    return any(p.rank for p in program.params) or any(e.step is not None for e in program.cascade)


@kept(256)
def _plain(program: Program) -> Plain:
    """The program without recurrences and tiles, from this process, from disk, or worked out now."""
    from attngen.algebra.plain import plain
    from attngen.algebra.serialize import plain_from_json, plain_to_json
    from attngen.store.fingerprint import fingerprint

    key = {"text": _canonical(program), "sources": fingerprint("lang", "algebra")}
    known = recall("plain", key)
    if known is not None:
        return plain_from_json(known, program)
    found = within_time(f"deriving {program.name}", lambda: plain(program))
    if not found.refusals:
        remember("plain", key, plain_to_json(found))
    return found


@lru_cache(maxsize=256)
def _canonical(program: Program) -> str:
    from attngen.lang.print import print_program

    return print_program(program, doc=False)


def with_consts(program: Program, values: Mapping[str, Number]) -> Program:
    """Work the values of `const` parameters into the program: `Param(n)` becomes a literal."""
    if not values:
        return program
    return replace(
        program,
        params=tuple(
            p if p.extent is None else replace(p, extent=with_literals(p.extent, values, {}))
            for p in program.params
            if p.name not in values
        ),
        mask=None if program.mask is None else with_literals(program.mask, values, {}),
        cascade=tuple(replace(e, body=with_literals(e.body, values, {})) for e in program.cascade),
    )


def with_literals(expr: Expr, params: Mapping[str, Number], extents: Mapping[str, int]) -> Expr:
    """`expr` with these parameters, and the extents `n_j` of these ranks, as literals."""
    sizes = {f"n_{rank}": extent for rank, extent in extents.items()}

    def literal(node: Expr) -> Expr | None:
        match node:
            case Param(name) if name in params:
                return Const(params[name])
            case Size(name) if name in sizes:
                return Const(sizes[name])
            case _:
                return None

    return rewrite(expr, literal)


@lru_cache(maxsize=256)
def specialised(analysed: Analysed, consts: tuple[tuple[str, Number], ...]) -> Analysed:
    """The program with the values of its `const` parameters worked in: what a kernel and its schedule are made of."""
    if not consts:
        return analysed
    values = dict(consts)
    fold = analysed.fold
    if fold is not None:
        from attngen.algebra.partials import map_fold

        fold = map_fold(fold, lambda e: with_literals(e, values, {}))
    return analyse(with_consts(analysed.program, values), fold, written=analysed.written)


@lru_cache(maxsize=256)
def scheduled(analysed: Analysed, consts: tuple[tuple[str, Number], ...], group: int) -> Analysed:
    """The program as its schedule is worked out for a call: constants in, and `g` as `h // group` in the mask."""
    special = specialised(analysed, consts)
    mask = special.program.mask
    if mask is None or "g" not in free_vars(mask):
        return special
    shared = apply("floordiv", Var("h"), Const(group))
    mask = rewrite(mask, lambda n: shared if n == Var("g") else None)
    return analyse(replace(special.program, mask=mask), special.fold, written=special.written)


def consts_of(program: Program, params: Mapping[str, Number]) -> tuple[tuple[str, Number], ...]:
    """The `const` parameters of a program with their values."""
    return tuple((p.name, params[p.name]) for p in program.params if p.const and not p.rank)


def with_outputs(program: Program, outputs: tuple[str, ...] | None) -> Program:
    """The program returning `outputs`; raises OutputError for a name that the cascade does not define."""
    if outputs is None:
        return program
    for name in outputs:
        if program.einsum(name) is None:
            names = ", ".join(e.target for e in program.cascade)
            raise OutputError(f"the cascade has no output {name!r}", hint=f"it defines: {names or 'none'}")
    if not outputs:
        raise OutputError("outputs must name at least one Einsum of the cascade")
    return replace(program, outputs=tuple(outputs))


def is_pair(einsum: Einsum | None) -> bool:
    """Whether an Einsum's result has one entry a pair."""
    return einsum is not None and {"q", "k"} <= set(einsum.ranks)


def forget() -> None:
    """Let what this process worked out go, so that it is asked for anew: of disk, or of an artefact."""
    for known in (_plain, _canonical, specialised, scheduled):
        known.cache_clear()


def recall(kind: str, key: Mapping[str, object]) -> dict[str, Any] | None:
    """A small document that the artefact which is being called ships, or else that an earlier process left."""
    artefact = shipped()
    if artefact is not None:
        return artefact.find(kind, key)
    from attngen.store.cache import default_store

    known = default_store().get_json(kind, key)
    if not isinstance(known, dict):
        return None
    document = cast("dict[str, Any]", known)
    notes = noted()
    if notes is not None:
        notes.add(kind, key, document)
    return document


def remember(kind: str, key: Mapping[str, object], document: Mapping[str, object]) -> None:
    """Leave a small document for later processes; a cache that cannot be written costs them time only."""
    notes = noted()
    if notes is not None:
        notes.add(kind, key, document)
    if shipped() is not None:
        return
    from attngen.store.cache import default_store

    try:
        default_store().put_json(kind, key, document)
    except CacheError as error:
        log.info("not remembered: %s", error.message)
