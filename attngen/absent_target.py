"""What a kernel is specialised on where there is no call to tell: for a machine that need not be here."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from attngen import arguments, forms, pipeline
from attngen.analysed import Analysed, analyse, specialised
from attngen.emit.target import parse_target
from attngen.errors import ParameterError
from attngen.lang.extents import rank_extents
from attngen.lang.ops import Kind
from attngen.lang.program import Program, TensorDecl

_BY_KIND = {Kind.INT: "int32", Kind.FLOAT: "float32", Kind.BOOL: "bool"}


_LENGTH, _HEADS, _EXTENT = 1024, 8, 16


def specs_for_target(
    analysed: Analysed,
    values: Mapping[str, object],
    target: str,
    dtype: str,
    head_dim: int,
    value_dim: int | None,
) -> tuple[tuple[pipeline.KernelSpec, ...], pipeline.Target]:
    """The specifications of all kernels of a program for `target`, as `spec_for_target` gives each."""
    from attngen.algebra.steps import Sweep

    final = frozenset(analysed.program.outputs)
    extents = nominal_extents(analysed.program, values, head_dim, value_dim or head_dim)
    sweeps = forms.sweeps_of(analysed)
    specs: list[pipeline.KernelSpec] = []
    for step in sweeps.steps:
        if isinstance(step, Sweep):
            exact = frozenset(step.program.outputs) - (final if sweeps.single else frozenset())
            part = analyse(step.program, written=sweeps.single)
            specs.append(spec_for_target(part, values, target, dtype, head_dim, value_dim, exact, extents)[0])
    return tuple(specs), parse_target(target)


def spec_for_target(
    analysed: Analysed,
    values: Mapping[str, object],
    target: str,
    dtype: str,
    head_dim: int,
    value_dim: int | None,
    exact: frozenset[str] = frozenset(),
    extents: Mapping[str, int] | None = None,
) -> tuple[pipeline.KernelSpec, pipeline.Target]:
    """The specification of a kernel for `target`; kinds stand for the dtypes of unbound tensors.

    `extents` are those of the ranks of the whole program, where this is one sweep of it.

    Boxes are those of the grid that `values` give, or of a nominal one. Raises TargetError, DTypeError,
    ParameterError.
    """
    where = parse_target(target)
    if extents is None:
        extents = nominal_extents(analysed.program, values, head_dim, value_dim or head_dim)
    special = special_for_target(
        analysed, values, where, dtype, head_dim, value_dim, exact=exact, extents=extents
    )
    return pipeline.kernel_spec(analysed, special), where


def special_for_target(
    analysed: Analysed,
    values: Mapping[str, object],
    where: pipeline.Target,
    dtype: str,
    head_dim: int,
    value_dim: int | None,
    *,
    exact: frozenset[str],
    extents: Mapping[str, int],
    dtypes: Mapping[str, str] | None = None,
) -> pipeline.Specialisation:
    """What a kernel of a program is specialised on; `dtypes` are those of tensors that are known to come in them."""
    if head_dim < 1 or (value_dim is not None and value_dim < 1):
        raise ParameterError("head_dim and value_dim must be at least 1")
    program, known = analysed.program, dtypes or {}
    tensor_dtypes = tuple(
        (
            t.name,
            str(bound.dtype).removeprefix("torch.")
            if isinstance(bound := values.get(t.name), torch.Tensor)
            else known.get(t.name) or _nominal_dtype(t, dtype),
            len(t.ranks),
        )
        for t in program.tensors
    )
    consts = tuple(
        (p.name, arguments.checked_param(p, values.get(p.name, p.default)))
        for p in program.params
        if p.const and not p.rank
    )
    widths = (arguments.dtype_named(dtype), head_dim, value_dim or head_dim)
    special = specialised(analysed, consts)
    plan = pipeline.box_plan(special)
    boxes = None
    if plan is not None:
        from attngen.planner.choose_boxes import nominal_boxes

        home = "cpu" if where.kind == "cpu" else "triton"
        numbers = {p.name: p.default for p in program.params if p.default is not None}
        numbers |= {n: v for n, v in values.items() if isinstance(v, int | float)}
        volume = pipeline.tile_volume(home, where, *widths, special.program)
        boxes = nominal_boxes(special.program, plan, numbers, *volume)
    widths_of_ranks = pipeline.kernel_extents(special, extents)
    return pipeline.Specialisation(*widths, tensor_dtypes, consts, True, boxes, widths_of_ranks, exact)


def _nominal_dtype(decl: TensorDecl, dtype: str) -> str:
    """The dtype of a tensor that is not bound: rows of features come as the inputs do, anything else as its kind."""
    ranks = decl.ranks[-2:]
    rows = decl.kind is Kind.FLOAT and len(ranks) == 2 and ranks[0] in ("q", "k")
    return arguments.dtype_named(dtype) if rows and ranks[1] not in ("q", "k") else _BY_KIND[decl.kind]


def nominal_extents(
    program: Program,
    values: Mapping[str, object],
    head_dim: int,
    value_dim: int,
    given: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Extents of the program's own ranks where no call tells them: given, bound, declared, or nominal."""
    sizes = {
        "n_q": _LENGTH,
        "n_k": _LENGTH,
        "n_b": 1,
        "n_h": _HEADS,
        "n_g": _HEADS,
        "D": head_dim,
        "E": value_dim,
    }
    known = {"b": 1, "h": _HEADS, "g": _HEADS, "q": _LENGTH, "k": _LENGTH, "d": head_dim, "e": value_dim}
    numbers = {p.name: p.default for p in program.params if p.default is not None}
    numbers |= {p.name: _EXTENT for p in program.params if p.rank and p.default is None and p.extent is None}
    numbers |= {n: v for n, v in values.items() if isinstance(v, int | float)}
    declared = {p.name: int(numbers[p.name]) for p in program.params if p.rank and p.name in numbers}
    told = {
        rank: int(extent)
        for t in program.tensors
        if isinstance(bound := values.get(t.name), torch.Tensor)
        for rank, extent in zip(t.ranks, bound.shape, strict=True)
    }
    known = {**told, **declared, **(given or {}), **known}
    shapes = {
        t.name: tuple(bound.shape)
        if isinstance(bound := values.get(t.name), torch.Tensor)
        else tuple(known.get(r, _EXTENT) for r in t.ranks)
        for t in program.tensors
    }
    return rank_extents(program, sizes, shapes, numbers)
