"""Calls whose kernels are measured: masks of every kind of schedule, scores, cascades, lengths, widths, dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_NO: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class CostCase:
    """One call: batch 1, `heads` query heads and `kv_heads` of keys and values; `values` of parameters and grids."""

    program: str
    n_q: int
    n_k: int
    heads: int = 2
    kv_heads: int = 2
    head_dim: int = 64
    value_dim: int = 64
    dtype: str = "fp32"
    values: Mapping[str, int] = field(default_factory=lambda: dict(_NO))

    @property
    def name(self) -> str:
        """As a report calls it."""
        given = "".join(f" {n}={v}" for n, v in self.values.items())
        heads = f"{self.heads}/{self.kv_heads}" if self.heads != self.kv_heads else f"{self.heads}"
        dims = f"{self.head_dim}" if self.head_dim == self.value_dim else f"{self.head_dim}/{self.value_dim}"
        return f"{self.program}{given} {heads}x{self.n_q}x{self.n_k}x{dims} {self.dtype}"


def _line(program: str, **values: int) -> tuple[CostCase, ...]:
    """A mask over tokens in a row: long fp32, wide bf16, short fp16, and few queries."""
    return (
        CostCase(program, 2048, 2048, values=values),
        CostCase(program, 1024, 1024, head_dim=128, value_dim=128, dtype="bf16", values=values),
        CostCase(program, 512, 512, heads=4, kv_heads=4, dtype="fp16", values=values),
        CostCase(program, 64, 3000, heads=4, kv_heads=1, values=values),
    )


def _grid(program: str, sizes: Mapping[str, int], **values: int) -> tuple[CostCase, ...]:
    n = 1
    for size in sizes.values():
        n *= size
    given = {**sizes, **values}
    return (
        CostCase(program, n, n, values=given),
        CostCase(program, n, n, head_dim=32, value_dim=32, dtype="bf16", values=given),
    )


CASES: tuple[CostCase, ...] = (
    *_line("causal"),
    *_line("sliding_window", window=256),
    *_line("sliding_window_sink", window=512),
    *_line("bidirectional_window", radius=32),
    *_line("prefix_lm"),
    *_line("chunked", chunk=256),
    *_line("dilated"),
    *_line("documents"),
    *_line("alibi"),
    *_line("entropy_scale", trained=256),
    *_line("global_tokens"),
    *_line("t5_bias"),
    *_grid("neighborhood_2d", {"size_y": 32, "size_x": 48}),
    *_grid("vitdet_window", {"size_y": 28, "size_x": 28}),
    CostCase("causal", 1, 8192, heads=8),
    CostCase("causal", 128, 4096, heads=1, kv_heads=1),
    CostCase("prefix_lm", 192, 4096, heads=1, kv_heads=1, dtype="bf16"),
    CostCase("causal", 4096, 4096, heads=1, kv_heads=1),
    CostCase("sliding_window", 4096, 4096, heads=1, kv_heads=1, value_dim=32, values={"window": 1024}),
)
