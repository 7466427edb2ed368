"""Hold a call's outputs to the tolerance rule, or those of a shorter call where the whole one cannot be checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attngen import arguments
from attngen.arguments import Number
from attngen.sample_values import Qkv, with_samples
from attngen.tolerance import Check, check_rows, mixes_rows, shapes_of, tokens_at_once

if TYPE_CHECKING:
    import torch

    from attngen.api import Attention, Output


def checked(
    spec: Attention, qkv: Qkv, given: Mapping[str, Any], tensors: Mapping[str, Any], result: Output
) -> tuple[list[Check], int | None]:
    """The checks of a call's outputs, and None; or the checks of a shorter call, and its tokens.

    A call is cut short where its rows depend on each other and all of them are too many for a dense evaluation.
    `given` are the values a user gave, among `tensors`, all of the call.
    """
    captured, params = _bound(spec, qkv, tensors)
    fewer = _fewer_tokens(spec, qkv, captured, params)
    if fewer is not None:
        qkv, short = _shorter(spec, qkv, given, fewer)
        result = spec(*qkv, **short)
        captured, params = _bound(spec, qkv, short)
    outs = result if isinstance(result, tuple) else (result,)
    named = dict(zip(spec.outputs, outs, strict=True))
    return check_rows(spec.program, *qkv, named, tensors=captured, params=params), fewer


def _bound(
    spec: Attention, qkv: Qkv, tensors: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Number]]:
    """Captured tensors and parameters of a call, extents of the program's ranks among these."""
    captured, params = arguments.bind(spec.program, spec.values, tensors)
    params["scale"] = arguments.default_scale(qkv[0].shape[-1], None)
    return captured, params | arguments.own_extents(spec.program, captured, params, shapes_of(*qkv))


def _fewer_tokens(
    spec: Attention, qkv: Qkv, captured: Mapping[str, torch.Tensor], params: Mapping[str, Number]
) -> int | None:
    """The tokens of the call that is checked in place of one that is too long; None where all rows can be."""
    shapes = shapes_of(*qkv)
    worked_out = {p.name for p in spec.program.params if p.extent is not None}
    free = {n: v for n, v in params.items() if n not in worked_out}
    fewer = tokens_at_once(spec.program, shapes, captured, free)
    if spec.program.grid or fewer >= max(shapes.n_q, shapes.n_k):
        return None  # a grid has as many tokens as it has
    return fewer if mixes_rows(spec.program, *qkv, captured, params) else None


def _shorter(spec: Attention, qkv: Qkv, given: Mapping[str, Any], n: int) -> tuple[Qkv, dict[str, Any]]:
    """The first `n` tokens of a call; what was made for it is made anew."""
    query, key, value = (t[:, :, :n] for t in qkv)
    cut = dict(given)
    for decl in spec.program.tensors:
        if decl.name in cut:
            index = tuple(slice(n) if r in ("q", "k") else slice(None) for r in decl.ranks)
            cut[decl.name] = cut[decl.name][index]
    return (query, key, value), with_samples(spec, (query, key, value), cut)
