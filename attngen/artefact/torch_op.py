"""Artefacts inside graphs: one operator of PyTorch through which `torch.compile` and `torch.export` call them.

    artefact(query, key, value, window=256)
->
    attngen::artefact(query, key, value, [], [256], [], None, "3f0c...|||window|")

A graph names an artefact by the hash of its manifest. A process that runs an exported program loads the artefact first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from attngen.errors import ArtefactError, ParameterError
from attngen.lang.domain import with_grid_sizes
from attngen.lang.extents import rank_extents
from attngen.lang.kinds import kinds_of
from attngen.lang.ops import Kind
from attngen.lang.varies import varying_heads

if TYPE_CHECKING:
    from attngen.artefact.load import Artefact
    from attngen.lang.program import Program

Tensor = torch.Tensor

_SCHEMA = (
    "artefact(Tensor query, Tensor key, Tensor value, Tensor[] tensors, SymInt[] ints, float[] floats, "
    "float? scale, str what) -> Tensor[]"
)
# For as long as the process lives: a graph may call an artefact that nobody else holds.
_loaded: dict[str, Artefact] = {}


def register(artefact: Artefact, digest: str) -> str:
    """Make an artefact known to graphs; its name there."""
    _library()
    _loaded[digest] = artefact
    return digest


def call_within_graph(
    artefact: Artefact,
    handle: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float | None,
    given: Mapping[str, Any],
) -> Tensor | tuple[Tensor, ...]:
    """A call as a graph holds it; tensors and numbers that are not given are those the artefact is bound to."""
    given = with_grid_sizes(artefact.program.grid, given)
    tensors = [n for n in given if isinstance(given[n], Tensor)]
    ints = [n for n in given if isinstance(given[n], int | torch.SymInt)]
    floats = [n for n in given if isinstance(given[n], float | torch.SymFloat)]
    for name in given:
        if name not in tensors and name not in ints and name not in floats:
            raise ParameterError(f"{name} is neither a tensor nor a number")
    what = f"{handle}|{','.join(tensors)}|{','.join(ints)}|{','.join(floats)}"
    outs = torch.ops.attngen.artefact(
        query,
        key,
        value,
        [given[n] for n in tensors],
        [given[n] for n in ints],
        [given[n] for n in floats],
        scale,
        what,
    )
    return outs[0] if len(artefact.outputs) == 1 else tuple(outs)


@cache
def _library() -> torch.library.Library:
    """The operator, defined when the first artefact is loaded."""
    library = torch.library.Library("attngen", "DEF")
    library.define(_SCHEMA)
    library.impl("artefact", _run, "CompositeExplicitAutograd")
    torch.library.register_fake("attngen::artefact", _shapes, lib=library)
    return library


def _named(
    what: str, tensors: Sequence[Tensor], ints: Sequence[int], floats: Sequence[float]
) -> tuple[Artefact, dict[str, Any]]:
    handle, *names = what.split("|")
    found = _loaded.get(handle)
    if found is None:
        raise ArtefactError(
            "the artefact of this graph is not loaded in this process",
            hint=f"attngen.load_artefact(path) loads it; its manifest has the sha256 {handle[:16]}...",
        )
    given: dict[str, Any] = {}
    for listed, values in zip(names, (tensors, ints, floats), strict=True):
        given |= zip(listed.split(","), values, strict=True) if listed else ()
    flags = {p.name for p in found.program.params if p.kind is Kind.BOOL}
    return found, {n: bool(v) if n in flags else v for n, v in given.items()}


def _run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tensors: Sequence[Tensor],
    ints: Sequence[int],
    floats: Sequence[float],
    scale: float | None,
    what: str,
) -> list[Tensor]:
    artefact, given = _named(what, tensors, ints, floats)
    outs = artefact.run(query, key, value, tensors=given, scale=scale)
    return [outs] if isinstance(outs, Tensor) else list(outs)


def _shapes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tensors: Sequence[Tensor],
    ints: Sequence[int],
    floats: Sequence[float],
    scale: float | None,
    what: str,
) -> list[Tensor]:
    del scale
    artefact, given = _named(what, tensors, ints, floats)
    return outputs_of(artefact.program, query, key, value, artefact.bound(given))


def outputs_of(
    program: Program, query: Tensor, key: Tensor, value: Tensor, given: Mapping[str, Any]
) -> list[Tensor]:
    """Empty tensors of the shapes and dtypes that a call returns; lengths may be symbols."""
    (n_b, n_h, n_q, d), (_, n_g, n_k, e) = query.shape, value.shape
    known: dict[str, Any] = {"b": n_b, "h": n_h, "g": n_g, "q": n_q, "k": n_k, "d": d, "e": e}
    if program.own_ranks:
        sizes = {"n_b": n_b, "n_h": n_h, "n_g": n_g, "n_q": n_q, "n_k": n_k, "D": d, "E": e}
        shapes = {n: t.shape for n, t in given.items() if isinstance(t, Tensor)}
        numbers = {p.name: p.default for p in program.params if p.default is not None}
        numbers |= {n: x for n, x in given.items() if not isinstance(x, Tensor)}
        known |= rank_extents(program, sizes, shapes, numbers)
    per_head, kinds = varying_heads(program), kinds_of(program)
    made: list[Tensor] = []
    for name in program.outputs:
        einsum = program.einsum(name)
        assert einsum is not None
        shape = [n_b, *([n_h] if per_head[name] else []), *(known[r] for r in einsum.ranks)]
        if kinds[name] is Kind.FLOAT:
            dtype = query.dtype if "e" in einsum.ranks else torch.float32
        else:
            dtype = torch.int64 if kinds[name] is Kind.INT else torch.bool
        made.append(query.new_empty(shape, dtype=dtype))
    return made
