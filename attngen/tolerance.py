"""Checking a result against float64: the tolerance rule of the project, in one place.

A kernel's error may be at most `FACTOR` times the error PyTorch makes when it computes the same formula in
the same dtype, plus the rounding of the output itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from attngen import arguments
from attngen.backends.reference import reference
from attngen.lang.program import Program

Tensor = torch.Tensor

FACTOR = 2.0
# One rounding of fp32 at the magnitude of the result, at least 1: where the formula happens to be exact, a kernel may
# still round once.
FLOOR = torch.finfo(torch.float32).eps
_PAIRS_AT_ONCE = 1 << 24


@dataclass(frozen=True, slots=True)
class Check:
    """The largest error of one output over the rows checked, and what was allowed."""

    output: str
    error: float
    allowed: float
    rows: int

    @property
    def ok(self) -> bool:
        """Whether the error is within the rule; a NaN where none belongs is not."""
        return self.error <= self.allowed


def check_rows(
    program: Program,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    outputs: Mapping[str, Tensor],
    *,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, arguments.Number],
    factor: float = FACTOR,
) -> list[Check]:
    """Compare outputs with dense float64, on all rows or on evenly spaced ones if there are many."""
    rows = _rows(query, key)

    def dense(dtype: torch.dtype) -> dict[str, Tensor]:
        return reference(program, query, key, value, tensors=tensors, params=params, dtype=dtype, rows=rows)

    exact, rounded = dense(torch.float64), dense(query.dtype)
    return [
        compare(name, out[:, :, rows], exact[name], rounded[name], factor) for name, out in outputs.items()
    ]


def compare(name: str, out: Tensor, exact: Tensor, formula: Tensor, factor: float = FACTOR) -> Check:
    """One output against float64 (`exact`) and against the same formula in the output's dtype (`formula`)."""
    allowed = (
        factor * max_error(formula, exact)
        + output_rounding(exact, out.dtype)
        + FLOOR * max(1.0, largest(exact))
    )
    return Check(name, max_error(out, exact), allowed, exact.shape[2] if exact.dim() > 2 else 0)


def max_error(out: Tensor, exact: Tensor) -> float:
    """Largest absolute difference; infinities and NaNs must stand in the same places, else infinity."""
    if out.numel() == 0:
        return 0.0
    out = out.double()
    same = (out == exact) | (out.isnan() & exact.isnan())
    return float(torch.where(same, 0.0, (out - exact).abs()).nan_to_num(float("inf")).max())


def output_rounding(exact: Tensor, dtype: torch.dtype) -> float:
    """Half a unit in the last place of the output's dtype at the largest magnitude of the result."""
    return largest(exact) * torch.finfo(dtype).eps / 2


def largest(exact: Tensor) -> float:
    """The largest finite magnitude."""
    finite = exact[exact.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _rows(query: Tensor, key: Tensor) -> Tensor:
    batch, heads, n_q, _ = query.shape
    most = max(1, _PAIRS_AT_ONCE // max(1, batch * heads * key.shape[2]))
    if n_q <= most:
        return torch.arange(n_q, device=query.device)
    return torch.linspace(0, n_q - 1, most, device=query.device).round().long().unique()
