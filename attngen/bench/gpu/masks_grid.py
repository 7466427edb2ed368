"""Masks of the suite that a program of `ir/` states: neighbourhoods, shifted windows, stripes of blocks, dilation."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from attngen.bench.gpu.masks import Extents, Keep, Tensor

if TYPE_CHECKING:
    from attngen.api import Attention

_AXES = "tyx"


@dataclass(frozen=True, slots=True)
class Near:
    """The nearest tokens of a grid: a window and a stride along each axis (NATTEN's rule, not causal)."""

    grid: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    causal = False
    per_head = False

    def spec(self, at: Extents, device: torch.device) -> Attention:
        """`neighborhood_1d`, `_2d` or `_3d`."""
        from attngen.api import load

        axes = _AXES[-len(self.grid) :]
        values: dict[str, Any] = {f"window_{a}": w for a, w in zip(axes, self.window, strict=True)}
        values |= {f"stride_{a}": s for a, s in zip(axes, self.stride, strict=True)}
        return load(f"neighborhood_{len(axes)}d", grid=self.grid, **values)

    def keep(self, spec: Attention, at: Extents) -> Keep | None:
        """The rule on the numbers of tokens, which FlexAttention has no other way to say."""
        axes = list(zip(self.grid, self.window, self.stride, strict=True))[::-1]

        def near(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            keep = k >= 0
            for size, window, stride in axes:
                here, there = q % size, k % size
                q, k = q // size, k // size
                first = (here // stride * stride + stride // 2 - window // 2).clamp(0, size - window)
                keep = keep & (there >= first) & (there < first + window)
            return keep

        return near

    def pairs(self, spec: Attention, at: Extents) -> int:
        """Every token sees a whole window."""
        return at.heads * prod(self.grid) * prod(self.window)


@dataclass(frozen=True, slots=True)
class Swin:
    """Shifted windows of an image with their bias; a score function makes it more than a mask."""

    side: int
    window: int
    shift: int
    causal = False
    per_head = False

    def spec(self, at: Extents, device: torch.device) -> Attention:
        """`swin`."""
        from attngen.api import load

        generator = torch.Generator().manual_seed(0)
        bias = torch.randn((2 * self.window - 1) ** 2, at.heads, generator=generator)
        grid = (self.side, self.side)
        return load("swin", grid=grid, window=self.window, shift=self.shift, bias=bias.to(device))

    def keep(self, spec: Attention, at: Extents) -> Keep | None:
        """No peer is asked: the bias is no mask."""
        return None

    def pairs(self, spec: Attention, at: Extents) -> int:
        """Windows, those at the borders cut."""
        parts = torch.bincount((torch.arange(self.side) + self.window - self.shift) // self.window)
        return at.heads * int((parts**2).sum()) ** 2


@dataclass(frozen=True, slots=True)
class Stripes:
    """S2-Attention: local blocks, and every `stride`th block, counted from another one in each head; causal."""

    local: int
    stride: int
    causal = True
    per_head = True

    def spec(self, at: Extents, device: torch.device) -> Attention:
        """`s2_attention`."""
        from attngen.api import load

        return load("s2_attention", local_blocks=self.local, stride=self.stride)

    def keep(self, spec: Attention, at: Extents) -> Keep | None:
        """Blocks of 64 tokens."""
        local, stride, step = self.local, self.stride, max(1, self.stride // at.heads)
        return lambda b, h, q, k: (
            (k <= q) & ((q // 64 - k // 64 < local) | ((k // 64 + h * step) % stride == 0))
        )

    def pairs(self, spec: Attention, at: Extents) -> int:
        """Whole blocks below the diagonal, and triangles on it."""
        assert at.n_q == at.n_k
        assert at.n_k % 64 == 0
        block = torch.arange(at.n_k // 64)
        below = (block[:, None] - block).tril(-1)
        stripes = (block + torch.arange(at.heads)[:, None] * max(1, self.stride // at.heads)) % self.stride
        kept = (below > 0) & ((below < self.local) | (stripes == 0)[:, None])
        return int(kept.sum()) * 64 * 64 + at.heads * len(block) * (64 * 65 // 2)


@dataclass(frozen=True, slots=True)
class Dilated:
    """`window` keys `dilation` apart, causal."""

    window: int
    dilation: int
    causal = True
    per_head = False

    def spec(self, at: Extents, device: torch.device) -> Attention:
        """`dilated`."""
        from attngen.api import load

        return load("dilated", window=self.window, dilation=self.dilation)

    def keep(self, spec: Attention, at: Extents) -> Keep | None:
        """Distances that are multiples."""
        reach, dilation = self.window * self.dilation, self.dilation
        return lambda b, h, q, k: (k <= q) & (q - k < reach) & ((q - k) % dilation == 0)

    def pairs(self, spec: Attention, at: Extents) -> int:
        """Row by row."""
        seen = torch.arange(at.n_q) // self.dilation + 1
        return at.heads * int(seen.clamp(max=self.window).sum())
