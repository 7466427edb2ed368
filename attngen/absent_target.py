"""What a kernel is specialised on where there is no call to tell: for a machine that need not be here."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from attngen import arguments, pipeline
from attngen.emit.target import parse_target
from attngen.errors import ParameterError
from attngen.lang.ops import Kind

_BY_KIND = {Kind.INT: "int32", Kind.FLOAT: "float32", Kind.BOOL: "bool"}


def spec_for_target(
    analysed: pipeline.Analysed,
    values: Mapping[str, object],
    target: str,
    dtype: str,
    head_dim: int,
    value_dim: int | None,
) -> tuple[pipeline.KernelSpec, pipeline.Target]:
    """The specification of a kernel for `target`; kinds stand for the dtypes of unbound tensors.

    Boxes are those of the grid that `values` give, or of a nominal one. Raises TargetError, DTypeError,
    ParameterError.
    """
    where = parse_target(target)
    if head_dim < 1 or (value_dim is not None and value_dim < 1):
        raise ParameterError("head_dim and value_dim must be at least 1")
    program = analysed.program
    tensor_dtypes = tuple(
        (
            t.name,
            str(bound.dtype).removeprefix("torch.")
            if isinstance(bound := values.get(t.name), torch.Tensor)
            else _BY_KIND[t.kind],
            len(t.ranks),
        )
        for t in program.tensors
    )
    consts = tuple(
        (p.name, arguments.checked_param(p, values.get(p.name, p.default))) for p in program.params if p.const
    )
    widths = (arguments.dtype_named(dtype), head_dim, value_dim or head_dim)
    special = pipeline.specialised(analysed, consts)
    plan = pipeline.box_plan(special)
    boxes = None
    if plan is not None:
        from attngen.planner.choose_boxes import nominal_boxes

        home = "cpu" if where.kind == "cpu" else "triton"
        numbers = {p.name: p.default for p in program.params if p.default is not None}
        numbers |= {n: v for n, v in values.items() if isinstance(v, int | float)}
        volume = pipeline.tile_volume(home, where, *widths, special.program)
        boxes = nominal_boxes(special.program, plan, numbers, *volume)
    spec = pipeline.kernel_spec(analysed, *widths, tensor_dtypes, consts, True, boxes)
    return spec, where
