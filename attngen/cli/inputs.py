"""Inputs for the verbs that run a program: read from a file, or made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from attngen.errors import InputFileError, MissingTensorError, UnsupportedError
from attngen.lang.ops import Kind

if TYPE_CHECKING:
    from attngen.lang.program import Program, TensorDecl

Tensor = torch.Tensor
TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SEED = 0
_SEGMENTS = 4


def make_qkv(
    batch: int, heads: int, kv_heads: int, n_q: int, n_k: int, head_dim: int, value_dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Standard normal fp32 tensors, the same at every call."""
    generator = torch.Generator().manual_seed(_SEED)
    shapes = (
        (batch, heads, n_q, head_dim),
        (batch, kv_heads, n_k, head_dim),
        (batch, kv_heads, n_k, value_dim),
    )
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return q, k, v


def read_qkv(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`query`, `key`, `value` (or `q`, `k`, `v`) of a safetensors file, and whatever else it holds."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UnsupportedError(
            "--qkv reads safetensors files, and the package safetensors is not installed",
            hint="pip install safetensors",
        ) from error
    try:
        held = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputFileError(f"{path} is not a safetensors file: {error}") from error
    qkv: dict[str, Tensor] = {}
    for name in ("query", "key", "value"):
        found = next((n for n in (name, name[0], name[0].upper()) if n in held), None)
        if found is None:
            raise MissingTensorError(f"{path} holds no {name!r}", hint=f"it holds: {', '.join(sorted(held))}")
        qkv[name] = held.pop(found)
    return qkv, held


def sample_tensors(
    program: Program, bound: Mapping[str, object], *, batch: int, heads: int, n_q: int, n_k: int
) -> dict[str, Tensor]:
    """A value for every tensor that has none: packed segments for token ids or their ends, lengths, small reals."""
    sizes = {"b": batch, "h": heads, "q": max(n_q, n_k), "k": max(n_q, n_k)}
    generator = torch.Generator().manual_seed(_SEED)
    return {t.name: _sample(t, sizes, generator) for t in program.tensors if t.name not in bound}


def _sample(decl: TensorDecl, sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    n = max(sizes["q"], 1)
    shape = [sizes.get(rank, n) for rank in decl.ranks]
    match decl.kind:
        case Kind.INT if decl.name in ("first", "last") and decl.ranks == ("q",):
            # the runs of `varlen`: each row sees its own segment, segments are of equal length
            length = -(-n // _SEGMENTS)
            first = torch.arange(n, dtype=torch.int32) // length * length
            return first if decl.name == "first" else first + length
        case Kind.INT if decl.ranks and decl.ranks[-1] in ("q", "k"):
            # token ids: a few segments of equal id, ascending, as packed documents have
            cuts = torch.rand((*shape[:-1], _SEGMENTS - 1), generator=generator).sort(-1).values * n
            return (torch.arange(n) >= cuts.unsqueeze(-1)).sum(-2).to(torch.int32)
        case Kind.INT:
            return torch.randint(n // 2, n + 1, shape, generator=generator, dtype=torch.int32)
        case Kind.BOOL:
            return torch.rand(shape, generator=generator) < 0.5
        case _:
            return torch.randn(shape, generator=generator) * 0.1
