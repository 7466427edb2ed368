"""The masks of the suite on a line of tokens: a specification, the same predicate for FlexAttention, the pairs kept.

A count is exact and takes no look at single pairs; the tests hold each to a dense mask of a short call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from attngen.api import Attention

Tensor = torch.Tensor
Keep = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Extents:
    """What a mask may depend on besides itself."""

    heads: int
    kv_heads: int
    n_q: int
    n_k: int

    @property
    def shift(self) -> int:
        """The position of the first query on the axis of the keys."""
        return self.n_k - self.n_q


class Mask(Protocol):
    """One mask. `per_head` where FlexAttention has to be told of heads, `causal` where no key comes after its query."""

    @property
    def causal(self) -> bool: ...  # noqa: D102

    @property
    def per_head(self) -> bool: ...  # noqa: D102

    def spec(self, at: Extents, device: torch.device) -> Attention:
        """The specification, with its tensors on `device`; the same at every call."""
        ...

    def keep(self, spec: Attention, at: Extents) -> Keep | None:
        """The predicate for FlexAttention, as a user writes it; None where every pair is kept."""
        ...

    def pairs(self, spec: Attention, at: Extents) -> int:
        """Pairs kept over all heads of one batch entry."""
        ...


@dataclass(frozen=True, slots=True)
class Full:
    """Every pair."""

    causal = False
    per_head = False

    def spec(self, at: Extents, device: torch.device) -> Attention:
        """Without a mask."""
        from attngen.api import Attention

        return Attention()

    def keep(self, spec: Attention, at: Extents) -> Keep | None:
        """Nothing to test."""
        return None

    def pairs(self, spec: Attention, at: Extents) -> int:
        """All."""
        return at.heads * at.n_q * at.n_k


@dataclass(frozen=True, slots=True)
class Window:
    """Causal, of `window` keys, all if None; and the first `sink` keys."""

    window: int | None = None
    sink: int = 0
    causal = True
    per_head = False

    def spec(self, at: Extents, device: torch.device) -> Attention:
        """`causal`, `sliding_window` or `sliding_window_sink`."""
        from attngen.api import load

        if self.window is None:
            return load("causal")
        if not self.sink:
            return load("sliding_window", window=self.window)
        return load("sliding_window_sink", window=self.window, sink=self.sink)

    def keep(self, spec: Attention, at: Extents) -> Keep | None:
        """Comparisons of positions."""
        shift, window, sink = at.shift, self.window, self.sink
        if window is None:
            return lambda b, h, q, k: k <= q + shift
        if not sink:
            return lambda b, h, q, k: (k <= q + shift) & (q + shift - k < window)
        return lambda b, h, q, k: (k <= q + shift) & ((k < sink) | (q + shift - k < window))

    def pairs(self, spec: Attention, at: Extents) -> int:
        """Row by row."""
        seen = (torch.arange(at.n_q) + at.shift + 1).clamp(0, at.n_k)
        near = seen if self.window is None else seen.clamp(max=self.window)
        return at.heads * int((near + (seen - near).clamp(max=self.sink)).sum())


@dataclass(frozen=True, slots=True)
class Documents:
    """Packed documents, causal; lengths are uniform between 1/8 and 15/8 of `mean`, the last one is cut off.

    With `offsets` the mask is made of where documents begin, and needs no lists.
    """

    mean: int
    offsets: bool = False
    causal = True
    per_head = False

    def lengths(self, n: int) -> list[int]:
        """The lengths, `n` tokens together."""
        generator = torch.Generator().manual_seed(0)
        low, high = max(self.mean // 8, 1), max(self.mean * 15 // 8, 1)
        drawn: list[int] = []
        while sum(drawn) < n:
            drawn.append(int(torch.randint(low, high + 1, (1,), generator=generator)))
        drawn[-1] -= sum(drawn) - n
        return drawn

    def numbers(self, n: int) -> Tensor:
        """The document of each token."""
        sizes = torch.tensor(self.lengths(n))
        return torch.arange(len(sizes), dtype=torch.int32).repeat_interleave(sizes)

    def spec(self, at: Extents, device: torch.device) -> Attention:
        """By the number of each token's document, or by offsets."""
        from attngen import masks
        from attngen.api import Attention, load

        if self.offsets:
            ends = torch.tensor([0, *self.lengths(at.n_k)]).cumsum(0).int()
            return Attention(masks.documents(offsets=ends.to(device)))
        return load("documents", doc=self.numbers(at.n_k)[None].to(device))

    def keep(self, spec: Attention, at: Extents) -> Keep | None:
        """By the number of each token's document."""
        device = next(t.device for t in spec.values.values() if isinstance(t, torch.Tensor))
        doc = self.numbers(at.n_k).to(device)
        return lambda b, h, q, k: (k <= q) & (doc[q] == doc[k])

    def pairs(self, spec: Attention, at: Extents) -> int:
        """A triangle for each document."""
        return at.heads * sum(n * (n + 1) // 2 for n in self.lengths(at.n_k))
