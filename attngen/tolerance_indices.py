"""Checking indices of largest values: where values are nearly tied, rounding decides, and either index is right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from attngen.lang.domain import is_masked
from attngen.lang.expr import Const, Reduce, Var, apply, free_vars
from attngen.lang.ops import INDEXING
from attngen.lang.program import Einsum, Program
from attngen.tolerance import Check, compare
from attngen.value import value

Tensor = torch.Tensor


@value
class Selection:
    """An output that is the index of a largest value, and the values among which it was found.

    values  an Einsum with the values, whose last rank is the one selected from; varies with the head.
    kept    one with the same ranks that is 1 where there is a value to select, 0 elsewhere.
    """

    index: Einsum
    values: Einsum
    kept: Einsum


def selections(program: Program) -> dict[str, Selection]:
    """The outputs of a program that are indices, by name."""
    out: dict[str, Selection] = {}
    for name in program.outputs:
        einsum = program.einsum(name)
        if einsum is not None and isinstance(einsum.body, Reduce) and einsum.body.op in INDEXING:
            out[name] = _selection(einsum, einsum.body)
    return out


def _selection(einsum: Einsum, body: Reduce) -> Selection:
    read = free_vars(body.body)
    masked = is_masked(body.ranks, einsum.ranks)
    ranks = (*(r for r in einsum.ranks if r in read or (masked and r in ("q", "k"))), *body.ranks)
    always = apply("eq", Var("h"), Var("h"))  # so that both have an axis for heads
    values = Einsum(f"{einsum.target} values", ranks, apply("where", always, body.body, Const(0.0)))
    kept = Einsum(f"{einsum.target} kept", ranks, apply("where", always, Const(1.0), Const(1.0)))
    return Selection(einsum, values, kept)


def with_values(program: Program, selected: Mapping[str, Selection]) -> Program:
    """The program returning the values behind its indices as well."""
    extra = tuple(e for s in selected.values() for e in (s.values, s.kept))
    if not extra:
        return program
    outputs = (*program.outputs, *(e.target for e in extra))
    return replace(program, cascade=(*program.cascade, *extra), outputs=outputs)


def compare_indices(
    selection: Selection,
    out: Tensor,
    exact: Mapping[str, Tensor],
    formula: Mapping[str, Tensor],
    factor: float,
) -> Check:
    """Each index is the right one, or that of a value as large, up to what such values may be wrong by.

    The error is the largest difference of such values; infinity where an index names nothing that is kept.
    """
    name, values_name = selection.index.target, selection.values.target
    values, kept = exact[values_name], exact[selection.kept.target] > 0
    among = torch.where(kept, values, 0.0)
    rule = compare(name, among.float(), among, torch.where(kept, formula[values_name].double(), 0.0), factor)
    ranks = selection.index.ranks
    found, right = (t if t.dim() == len(ranks) + 2 else t[:, None] for t in (out.long(), exact[name].long()))
    if not found.numel() or not values.shape[-1]:
        return replace(rule, error=0.0 if bool((found == right).all()) else math.inf, entries=out.numel())
    shape = (*found.shape[:1], values.shape[1], *found.shape[2:])
    found, right = found.expand(shape), right.expand(shape)
    values, kept = (_spread(t, ranks, selection.values.ranks, shape) for t in (values, kept))
    real = (found >= 0) & (found < values.shape[-1]) & (right >= 0)
    usable = real & _at(kept, found)
    apart = torch.where(usable, (_at(values, found) - _at(values, right)).abs(), math.inf)
    error = float(torch.where(found == right, 0.0, apart).nan_to_num(math.inf).max())
    return replace(rule, error=error, entries=out.numel())


def _spread(t: Tensor, ranks: tuple[str, ...], own: tuple[str, ...], shape: tuple[int, ...]) -> Tensor:
    """`[B, H, *own]` as `[*shape, selected]`, where `own` are some of `ranks` and the selected one."""
    for i, rank in enumerate(ranks):
        if rank not in own:
            t = t.unsqueeze(2 + i)
    return t.expand(*shape, t.shape[-1])


def _at(t: Tensor, index: Tensor) -> Tensor:
    """`t[..., index]`, of an index that is pulled into range."""
    return t.gather(-1, index.clamp(0, t.shape[-1] - 1)[..., None])[..., 0]
