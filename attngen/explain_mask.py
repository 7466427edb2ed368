"""A specification reduced to its mask: what is planned needs no value that the mask does not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from attngen import arguments
from attngen.errors import UnexpectedArgumentError
from attngen.lang.domain import extent_name, size_param, with_grid_sizes
from attngen.lang.expr import Const, Load, Param, Size, walk
from attngen.lang.program import Einsum

if TYPE_CHECKING:
    from attngen.api import Attention
    from attngen.lang.program import Program

_NOTHING = Einsum("O", ("q",), Const(0.0))  # a program has a cascade; planning reads none


def mask_spec(spec: Attention, given: Mapping[str, object]) -> Attention:
    """The specification with the tensors and parameters of its mask alone, bound to their values.

    Raises UnexpectedArgumentError for a value of nothing, MissingTensorError for one the mask needs, and its kin.
    """
    program = spec.program
    values = {**spec.values, **with_grid_sizes(program.grid, given)}
    declared = {t.name for t in program.tensors} | {p.name for p in program.params} | {"scale"}
    for name in values:
        if name not in declared:
            raise UnexpectedArgumentError(
                f"the program has no tensor or parameter {name!r}",
                hint=f"it declares: {', '.join(sorted(declared - {'scale'})) or 'none'}",
            )
    read = _read(program)
    masked = replace(
        program,
        tensors=tuple(t for t in program.tensors if t.name in read),
        params=tuple(p for p in program.params if p.name in read),
        cascade=(_NOTHING,),
        outputs=(_NOTHING.target,),
    )
    kept = {n: v for n, v in values.items() if n in read}
    arguments.bind(masked, kept, {})
    return spec.from_linked(masked, kept)


def _read(program: Program) -> set[str]:
    """The names of what a mask reads; a rank whose extent it reads is a parameter like any other."""
    nodes = list(walk(program.mask)) if program.mask is not None else []
    read = {n.tensor for n in nodes if isinstance(n, Load)} | {n.name for n in nodes if isinstance(n, Param)}
    sizes = {n.name for n in nodes if isinstance(n, Size)}
    ranks = {p.name for p in program.params if p.rank and extent_name(p.name) in sizes}
    return read | ranks | {size_param(axis) for axis in program.grid}
