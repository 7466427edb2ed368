"""Inputs, and the tolerance rule: at most twice PyTorch's own error in the dtype, against float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attngen import arguments
from attngen.api import Attention
from attngen.tolerance import check_rows, shapes_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Shape:
    """Extents of one call; `e` is the value width, `hkv` the key/value heads."""

    b: int = 1
    h: int = 2
    hkv: int = 2
    n_q: int = 64
    n_k: int = 64
    d: int = 32
    e: int = 32

    def __str__(self) -> str:
        return f"b{self.b}h{self.h}kv{self.hkv}q{self.n_q}k{self.n_k}d{self.d}e{self.e}"


def make_inputs(
    shape: Shape, dtype: str = "fp32", device: str = "cpu", seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Standard normal query, key and value."""
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(shape.b, shape.h, shape.n_q, shape.d, generator=g)
    k = torch.randn(shape.b, shape.hkv, shape.n_k, shape.d, generator=g)
    v = torch.randn(shape.b, shape.hkv, shape.n_k, shape.e, generator=g)
    return tuple(t.to(device, DTYPES[dtype]) for t in (q, k, v))  # type: ignore[return-value]


def assert_matches_reference(
    spec: Attention,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    backend: str | None = None,
    scale: float | None = None,
    **given: object,
) -> dict[str, torch.Tensor]:
    """Run the spec and hold every output to the tolerance rule; returns the outputs by name."""
    result = spec(query, key, value, backend=backend, scale=scale, **given)
    outs = dict(zip(spec.outputs, result if isinstance(result, tuple) else (result,), strict=True))
    tensors, params = arguments.bind(spec.program, spec.values, given)
    params["scale"] = arguments.default_scale(query.shape[-1], scale)
    params |= arguments.own_extents(spec.program, tensors, params, shapes_of(query, key, value))
    checks = check_rows(spec.program, query, key, value, outs, tensors=tensors, params=params)
    for check in checks:
        assert check.ok, f"{check.output}: error {check.error:.3e}, allowed {check.allowed:.3e}"
    return outs
