"""What the dense definitions of groups C, D and F share: masked softmax in float64, shared heads, and random inputs.

Shapes are Q[B, Hq, Tq, D], K[B, Hkv, Tk, D], V[B, Hkv, Tk, Dv]; `keep` is a boolean array that broadcasts to
[B, Hq, Tq, Tk]. A row that sees nothing has weights 0, O = 0 and LSE = -inf.
"""

from __future__ import annotations

from typing import Any

import torch

Tensor = torch.Tensor
Case = dict[str, Any]


def share(x: Tensor, heads: int) -> Tensor:
    """The key head of query head `h` is `h // (Hq // Hkv)`."""
    return x[:, torch.arange(heads) // (heads // x.shape[1])]


def scores(q: Tensor, k: Tensor, scale: float | None = None) -> Tensor:
    factor: float = float(q.shape[-1]) ** -0.5 if scale is None else scale
    return factor * torch.einsum("bhqd,bhkd->bhqk", q, share(k, q.shape[1]))


def masked(s: Tensor, keep: Tensor | None) -> Tensor:
    return s if keep is None else torch.where(keep, s, -torch.inf)


def log_sum(s: Tensor, keep: Tensor | None = None) -> Tensor:
    return torch.logsumexp(masked(s, keep), -1)


def softmax(s: Tensor, keep: Tensor | None = None) -> Tensor:
    """Over the last axis; 0 where nothing is kept."""
    s = masked(s, keep)
    top = s.amax(-1, keepdim=True)
    e = torch.exp(s - torch.where(torch.isfinite(top), top, 0.0))
    z = e.sum(-1, keepdim=True)
    return torch.where(z > 0, e / torch.where(z > 0, z, 1.0), 0.0)


def mix(a: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhqk,bhke->bhqe", a, share(v, a.shape[1]))


def attend(s: Tensor, v: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of softmax attention with the scores `s`."""
    return mix(softmax(s, keep), v), log_sum(s, keep)


def positions(n_q: int, n_k: int) -> tuple[Tensor, Tensor]:
    """Position of each query, the last at the last key, as a column; of each key, as a row."""
    return torch.arange(n_k - n_q, n_k)[:, None], torch.arange(n_k)[None]


def causal(n_q: int, n_k: int) -> Tensor:
    i, k = positions(n_q, n_k)
    return k <= i


class Draw:
    """Random inputs from one seed, in float64 and on the CPU."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def ints(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator)

    def bits(self, chance: float, *shape: int) -> Tensor:
        return self.uniform(*shape) < chance

    def lengths(self, batch: int, n: int) -> Tensor:
        """`keep[B, 1, 1, n]` of padded sequences; one of them is full."""
        length = torch.cat((torch.tensor([n]), self.ints(1, n, batch - 1)))
        return (torch.arange(n) < length[:, None])[:, None, None]

    def qkv(self, n_q: int = 13, n_k: int = 19, *, h: int = 4, hkv: int = 2, d: int = 8, e: int = 6) -> Case:
        """Two batch entries, grouped heads, and lengths that nothing divides."""
        return {
            "q": self.normal(2, h, n_q, d),
            "k": self.normal(2, hkv, n_k, d),
            "v": self.normal(2, hkv, n_k, e),
        }


def close(got: Tensor, want: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(got, want, atol=atol, rtol=1e-12)


def ones(a: Tensor, atol: float = 1e-12) -> None:
    close(a.sum(-1), torch.ones_like(a[..., 0]), atol)


def but(case: Case, **changes: Any) -> Case:
    return {**case, **changes}
