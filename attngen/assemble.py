"""Putting a mask, a score function and a cascade together into one linked program with its bound values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attngen.errors import ProgramTypeError
from attngen.lang.domain import SIZE_PREFIX
from attngen.lang.expr import Expr, Load, Param, rewrite
from attngen.lang.fresh import fresh_name
from attngen.lang.program import IMPLICIT_PARAMS, INPUT_RANKS, Program
from attngen.value import value

if TYPE_CHECKING:
    from attngen.capture import Captured, Mask, Score

Part = TypeVar("Part", bound="Captured")


@value
class Parts:
    """The three parts of a specification, traced; compared by identity."""

    mask: Mask | None
    score: Score | None
    cascade: Program


def resolve(
    mask: Mask | Callable[..., Any] | str | None,
    score: Score | Callable[..., Any] | str | None,
    cascade: str | Program,
) -> Parts:
    """Trace or parse what was given; the same object traced again gives the same part."""
    from attngen.capture import as_mask, as_score

    return Parts(
        as_mask(mask), as_score(score), cascade if isinstance(cascade, Program) else _cascade(cascade)
    )


def assemble(parts: Parts, name: str) -> tuple[Program, dict[str, object]]:
    """The linked program of the parts, and the values their captures bind.

    Names that mask and score use for different things are made unique; the same tensor captured by both is
    one input.
    """
    taken = _names_of_cascade(parts.cascade)
    mask = parts.mask and _renamed(parts.mask, {}, taken)
    score = parts.score and _renamed(parts.score, {} if mask is None else mask.values, taken)
    given = [p for p in (mask, score) if p is not None]
    params = tuple(dict.fromkeys(d for p in given for d in p.params))
    tensors = tuple(dict.fromkeys(d for p in given for d in p.tensors))
    program = Program(
        name=name,
        doc="",
        params=params,
        tensors=tensors,
        mask=None if mask is None else mask.expr,
        cascade=(),
        outputs=(),
        score=None if score is None else score.expr,
        cascade_name=parts.cascade.name,
        grid=_grid_of(given),
    )
    values: dict[str, object] = {n: v for p in given for n, v in p.values.items()}
    same = tuple(_Same(e) for e in (program.mask, program.score, parts.cascade))
    return _finished(program, parts.cascade, same), values


class _Same:
    """A key of a cache that only the very same object matches: an equal one may come from another place."""

    __slots__ = ("of",)

    def __init__(self, of: object) -> None:
        self.of = of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.of is self.of

    def __hash__(self) -> int:
        return id(self.of)


@lru_cache(maxsize=128)
def _finished(program: Program, cascade: Program, _same: tuple[_Same, ...]) -> Program:
    """`finish_program`, once for a mask and a score that are used again: in every layer of a model, say."""
    return finish_program(program, cascade)


def _grid_of(parts: Sequence[Captured]) -> tuple[str, ...]:
    """The grid that the parts share; a part on a line joins any."""
    grids = [p.grid for p in parts if p.grid]
    if len(set(grids)) > 1:
        raise ProgramTypeError("the mask and the score are laid out on different grids of tokens")
    return grids[0] if grids else ()


def finish_program(program: Program, cascade: Program | None = None) -> Program:
    """Link (with `cascade`, or the one the program names), verify and desugar."""
    from attngen.lang.desugar import desugar
    from attngen.lang.link import link
    from attngen.lang.verify import verify

    linked = link(program, _cascade if cascade is None else lambda _name: cascade)
    verify(linked)
    return replace(desugar(linked), doc=program.doc, name=program.name)


def load_linked(name_or_path: str | Path) -> Program:
    """A program of `ir/` or of a file, linked and verified; kept in the cache by the file's bytes."""
    from attngen.lang.library import find_program, parse_bytes

    path = find_program(name_or_path)
    return _remembered(
        "program", path, lambda data: finish_program(parse_bytes(data, name=path.stem, file=str(path)))
    )


def _remembered(kind: str, path: Path, make: Callable[[bytes], Program]) -> Program:
    """The linked program that `make` gives for a file's bytes, from the cache if an earlier process made it.

    `kind` says what it was made into: a file of a cascade is a program, and a part of others as it is written.
    """
    from attngen.analysed import recall, remember
    from attngen.lang.library import read_program
    from attngen.lang.serialize import program_from_json, program_to_json
    from attngen.store.fingerprint import fingerprint

    data = read_program(path)
    key = {"sha256": sha256(data).hexdigest(), "file": str(path), "sources": fingerprint("lang", "ir")}
    known = recall(kind, key)
    if known is not None:
        return program_from_json(known)
    program = make(data)
    remember(kind, key, program_to_json(program))
    return program


def _names_of_cascade(cascade: Program) -> set[str]:
    declared = {p.name for p in cascade.params} | {t.name for t in cascade.tensors}
    return declared | {e.target for e in cascade.cascade} | set(IMPLICIT_PARAMS) | set(INPUT_RANKS)


def _renamed(part: Part, shared: Mapping[str, object], taken: set[str]) -> Part:
    """The part with names nobody else uses for another thing; `taken` grows by its names.

    A name of `shared` (what the mask is bound to) stays if the part means the very same value by it.

        mask reads bias[h], cascade has a parameter bias   ->   mask reads bias_2[h]
    """
    new: dict[str, str] = {}
    for name in (*(t.name for t in part.tensors), *(p.name for p in part.params)):
        value = part.values.get(name)
        if name.startswith(SIZE_PREFIX):  # the extent of an axis, which mask and score share
            new[name] = name
            continue
        same = name in shared and value is not None and _is_same(shared[name], value)
        new[name] = name if same else fresh_name(name, taken)
    taken.update(new.values())
    if all(old == name for old, name in new.items()):
        return part

    def rename(node: Expr) -> Expr | None:
        match node:
            case Load(tensor, indices) if tensor in new:
                return Load(new[tensor], indices, loc=node.loc)
            case Param(name) if name in new:
                return Param(new[name], loc=node.loc)
            case _:
                return None

    return replace(
        part,
        expr=rewrite(part.expr, rename),
        params=tuple(replace(p, name=new[p.name]) for p in part.params),
        tensors=tuple(replace(t, name=new[t.name]) for t in part.tensors),
        values={new[n]: v for n, v in part.values.items()},
    )


def _is_same(a: object, b: object) -> bool:
    return a is b or (type(a) is type(b) and isinstance(a, int | float) and a == b)


@cache
def _cascade(name_or_text: str) -> Program:
    """A cascade by name, kept in the cache like a program, or from its text."""
    if not name_or_text.isidentifier():
        from attngen.cascades import cascade

        return cascade(name_or_text)
    from attngen.lang.library import find_cascade, load_cascade

    return _remembered("cascade", find_cascade(name_or_text), lambda _data: load_cascade(name_or_text))
