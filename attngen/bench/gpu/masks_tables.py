"""Masks of the suite that are tables: maps of blocks, vertical lines and slashes, blocks chosen for each query."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from attngen.bench.gpu.masks import Extents, Keep, Tensor

if TYPE_CHECKING:
    from attngen.api import Attention
    from attngen.lang.program import Program


@dataclass(frozen=True, slots=True)
class Blocks:
    """A random map of blocks for each head, of which a part `density` is kept."""

    size: int
    density: float
    causal = False
    per_head = True

    def spec(self, at: Extents, device: torch.device) -> Attention:
        """By `conversions.from_blocks`."""
        from attngen.api import Attention
        from attngen.conversions import from_blocks

        generator = torch.Generator().manual_seed(0)
        shape = (1, at.heads, -(-at.n_q // self.size), -(-at.n_k // self.size))
        kept = torch.rand(shape, generator=generator) < self.density
        return Attention(from_blocks(kept.to(device), self.size, self.size))

    @staticmethod
    def _map(spec: Attention) -> Tensor:
        kept = next(t for t in spec.values.values() if isinstance(t, torch.Tensor))
        return kept.reshape(-1, *kept.shape[-2:])

    def keep(self, spec: Attention, at: Extents) -> Keep | None:
        """A look-up in the map."""
        kept, size = self._map(spec), self.size
        return lambda b, h, q, k: kept[h, q // size, k // size]

    def pairs(self, spec: Attention, at: Extents) -> int:
        """Kept blocks by their sizes."""
        kept = self._map(spec).cpu().long()
        rows, columns = (_sizes(n, self.size) for n in (at.n_q, at.n_k))
        return int((kept * rows[:, None] * columns).sum())


def _sizes(n: int, size: int) -> Tensor:
    """The lengths of the blocks of `n` tokens."""
    return (n - torch.arange(-(-n // size)) * size).clamp(max=size)


_SLASHES = """
vertical[h, k]: bool
slash[h, k]: bool
mask = (k <= pos(q)) & (vertical[h, k] | slash[h, pos(q) - k])
"""
_SELECTED = """
block: int = 64
chosen[b, g, q, j]: bool
mask = (k <= pos(q)) & chosen[b, g, q, k // block]
"""


@cache
def _program(name: str, text: str) -> Program:
    from attngen.lang.parse import parse_program

    return parse_program(text, name=name, file=name)


@dataclass(frozen=True, slots=True)
class Slashes:
    """Vertical lines and slashes, causal: a third of each at the front, the rest anywhere, others for each head."""

    verticals: int
    slashes: int
    causal = True
    per_head = True

    def spec(self, at: Extents, device: torch.device) -> Attention:
        """By a boolean for each key, and one for each distance."""
        from attngen.api import Attention

        generator = torch.Generator().manual_seed(0)
        tables = {
            name: _drawn(at.heads, at.n_k, min(count, at.n_k), generator).to(device)
            for name, count in (("vertical", self.verticals), ("slash", self.slashes))
        }
        return Attention.from_program(_program("vertical_slash", _SLASHES), tables)

    @staticmethod
    def _tables(spec: Attention) -> tuple[Tensor, Tensor]:
        vertical, slash = spec.values["vertical"], spec.values["slash"]
        assert isinstance(vertical, torch.Tensor)
        assert isinstance(slash, torch.Tensor)
        return vertical, slash

    def keep(self, spec: Attention, at: Extents) -> Keep | None:
        """Two look-ups."""
        (vertical, slash), shift = self._tables(spec), at.shift
        return lambda b, h, q, k: (k <= q + shift) & (vertical[h, k] | slash[h, (q + shift - k).clamp(min=0)])

    def pairs(self, spec: Attention, at: Extents) -> int:
        """Lines and slashes up to each row, less the places where they cross."""
        total = 0
        for vertical, slash in zip(*(t.cpu() for t in self._tables(spec)), strict=True):
            seen = vertical.long().cumsum(0) + slash.long().cumsum(0)
            crossed = (vertical.nonzero() + slash.nonzero().T).flatten()
            crossings = torch.bincount(crossed[crossed < at.n_k], minlength=at.n_k)
            total += int((seen - crossings)[at.shift :].sum())
        return total


def _drawn(heads: int, n: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` of `n` places for each head, the first third of them at the front."""
    out = torch.zeros(heads, n, dtype=torch.bool)
    front = count // 3
    out[:, :front] = True
    for row in out:
        row[front + torch.randperm(n - front, generator=generator)[: count - front]] = True
    return out


@dataclass(frozen=True, slots=True)
class Selected:
    """Each query sees the `top` blocks of `size` keys chosen for it and its key head, causal; its own is among them."""

    top: int
    size: int
    causal = True
    per_head = True

    def spec(self, at: Extents, device: torch.device) -> Attention:
        """By a boolean for each query, key head and block."""
        from attngen.api import Attention

        blocks = -(-at.n_k // self.size)
        generator = torch.Generator().manual_seed(0)
        own = (torch.arange(at.n_q) + at.shift) // self.size
        drawn = torch.rand(1, at.kv_heads, at.n_q, blocks, generator=generator)
        drawn = drawn.masked_fill(torch.arange(blocks) > own[:, None], -1.0)
        drawn.scatter_(-1, own[:, None].expand(1, at.kv_heads, -1, 1), 2.0)
        index = drawn.topk(min(self.top, blocks), dim=-1).indices
        chosen = torch.zeros_like(drawn, dtype=torch.bool).scatter_(-1, index, True)
        values: dict[str, Any] = {"chosen": chosen.to(device), "block": self.size}
        return Attention.from_program(_program("selected_blocks", _SELECTED), values)

    @staticmethod
    def _chosen(spec: Attention) -> Tensor:
        chosen = spec.values["chosen"]
        assert isinstance(chosen, torch.Tensor)
        return chosen

    def keep(self, spec: Attention, at: Extents) -> Keep | None:
        """A look-up for each pair."""
        chosen, size, shift = self._chosen(spec)[0], self.size, at.shift
        group = at.heads // at.kv_heads
        return lambda b, h, q, k: (k <= q + shift) & chosen[h // group, q, k // size]

    def pairs(self, spec: Attention, at: Extents) -> int:
        """Keys of each chosen block that do not come after the query."""
        blocks = torch.arange(-(-at.n_k // self.size)) * self.size
        last = torch.arange(at.n_q)[:, None] + at.shift + 1
        keys = (last - blocks).clamp(0, self.size)
        return int((self._chosen(spec).cpu() * keys).sum()) * (at.heads // at.kv_heads)
