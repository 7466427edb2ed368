"""Hold a candidate's results to the default's and to float64.

    the call itself   every number beside the default's; evenly spaced rows beside dense float64
    a small call      the first tokens and heads of it, an odd number of tokens: beside dense float64

The small call is left out where tensors or a grid belong to the lengths of the call. A sweep that float64 does not
know as a program of its own (part of a cascade, with other rows or heads) is compared with the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from attngen.backends.reference import reference
from attngen.errors import AttngenError
from attngen.run_sweep import SweepCall
from attngen.tolerance import FACTOR, FLOOR, compare, dense_numbers, largest, max_error, output_rounding

if TYPE_CHECKING:
    from attngen.emit.configs import Config

Tensor = torch.Tensor

_ROWS = 64
_AT_ONCE = 1 << 24
_SMALL = 193
# Of sums in another order, where float64 says nothing: roundings of fp32 that may add up.
_ROUNDINGS = 256


@dataclass(frozen=True, slots=True)
class Expected:
    """Results of a call that a candidate is held to.

    outputs  the default's, whole.
    allowed  the difference from them that each output may have.
    rows     query rows at which `exact` and `formula` are known; None for all.
    exact    in float64; empty where it cannot be computed.
    formula  the same formula in the dtype of the call.
    """

    call: SweepCall
    outputs: Mapping[str, Tensor]
    allowed: Mapping[str, float]
    rows: Tensor | None
    exact: Mapping[str, Tensor]
    formula: Mapping[str, Tensor]


def expected_of(call: SweepCall, default: Config | None = None) -> Expected:
    """The results of the default configuration and of float64; a smaller one may stand for one too big."""
    outputs = call.runner.allocate(call)
    call.runner.ready(call, call.shapes, outputs, default).launch()
    rows, exact, formula = _dense(call)
    allowed: dict[str, float] = {}
    for name, out in outputs.items():
        if name in exact:
            found = compare(name, _at(out, rows), exact[name], formula[name], FACTOR)
            allowed[name] = 2 * max(found.allowed, found.error)  # either may be off by that much
        else:
            rounding = 2 * output_rounding(out.double(), out.dtype) if out.is_floating_point() else 0.0
            allowed[name] = rounding + _ROUNDINGS * FLOOR * max(1.0, largest(out.double()))
    return Expected(call, outputs, allowed, rows, exact, formula)


def mistake_of(expected: Expected, config: Config) -> str | None:
    """What is wrong with a candidate's results; None where nothing is. Raises what a launch raises."""
    call = expected.call
    outs = {n: _poisoned(t) for n, t in call.runner.allocate(call).items()}
    call.runner.ready(call, call.shapes, outs, config).launch()
    for name, out in outs.items():
        error = max_error(out, expected.outputs[name].double())
        if not error <= expected.allowed[name]:
            return f"{name} differs from the default's by {error:.2e}, allowed {expected.allowed[name]:.2e}"
        if name in expected.exact:
            exact, formula = expected.exact[name], expected.formula[name]
            found = compare(name, _at(out, expected.rows), exact, formula, FACTOR)
            if not found.ok:
                return f"{name} differs from float64 by {found.error:.2e}, allowed {found.allowed:.2e}"
    return None


def small_call(call: SweepCall) -> SweepCall | None:
    """The first tokens of the call, and the heads of one group of its first batch entry; None where it has no part."""
    inputs, program = call.inputs, call.runner.program
    plain = not (program.tensors or program.grid or inputs.extents or program.own_ranks)
    if not plain or call.runner.rows != "q" or call.heads is not None or call.rows is not None:
        return None
    n_q, n_k = min(_SMALL, inputs.shapes.n_q), min(_SMALL, inputs.shapes.n_k)
    group = inputs.shapes.heads // inputs.shapes.kv_heads
    query = inputs.query[:1, :group, :n_q]
    key, value = (t[:1, :1, :n_k] for t in (inputs.key, inputs.value))
    shapes = replace(inputs.shapes, batch=1, heads=group, kv_heads=1, n_q=n_q, n_k=n_k)
    return replace(call, inputs=replace(inputs, query=query, key=key, value=value, shapes=shapes))


def _dense(call: SweepCall) -> tuple[Tensor | None, Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Rows, and the outputs there in float64 and in the call's dtype; nothing where float64 does not know the sweep."""
    runner, inputs, shapes = call.runner, call.inputs, call.shapes
    nothing: tuple[None, dict[str, Tensor], dict[str, Tensor]] = (None, {}, {})
    if runner.rows != "q" or call.heads is not None or call.rows is not None or not runner.analysed.written:
        return nothing
    program, tensors = runner.program, {t.name: inputs.tensors[t.name] for t in runner.program.tensors}
    if any("q" not in e.ranks for n in program.outputs if (e := program.einsum(n)) is not None):
        return nothing
    count = min(_ROWS, shapes.n_q)
    try:
        while count > 1 and dense_numbers(program, shapes, tensors, inputs.params, rows=count) > _AT_ONCE:
            count //= 2
        rows = torch.linspace(0, shapes.n_q - 1, count, device=inputs.query.device).round().long().unique()

        def dense(dtype: torch.dtype) -> dict[str, Tensor]:
            found = reference(
                program, inputs.query, inputs.key, inputs.value, tensors=tensors, params=inputs.params,
                dtype=dtype, rows=rows,
            )  # fmt: skip
            return {n: t if t.dim() == outs[n] else t[:, None].expand(-1, shapes.heads, *t.shape[1:])
                    for n, t in found.items()}  # fmt: skip

        outs = {n: 2 + len(e.ranks) for n in program.outputs if (e := program.einsum(n)) is not None}
        return rows, dense(torch.float64), dense(inputs.query.dtype)
    except AttngenError:  # rows that depend on others, or what the reference has no meaning for
        return nothing


def _at(out: Tensor, rows: Tensor | None) -> Tensor:
    return out if rows is None else out.index_select(2, rows)


def _poisoned(out: Tensor) -> Tensor:
    """A kernel writes every element of most outputs; one that it leaves out shows. Filled ones stay filled."""
    filled = out.numel() > 0 and bool((out == out.flatten()[0]).all())
    return out if filled or not out.is_floating_point() else out.fill_(float("nan"))
