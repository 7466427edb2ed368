"""Read numbers off an attention map that is never written to memory.

    python examples/statistics.py

One program returns the output of attention and three statistics of its map: the entropy of every row, the mean weight
of every key, and the largest weight in every block of 64 x 64 pairs. The map of 8 heads and 2048 tokens would take
134 MB; what is returned takes about 5.
"""

from __future__ import annotations

import torch

import attngen
from attngen.api import Attention
from attngen.lang.parse import parse_program

STATISTICS = """
j: rank = (n_k + 63) // 64
i: rank = (n_q + 63) // 64

mask = k <= pos(q)

S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale
M[q] = max[k](S[q, k])
E[q, k] = exp(S[q, k] - M[q])
Z[q] = sum[k](E[q, k])
A[q, k] = E[q, k] / Z[q]
O[q, e] = sum[k](A[q, k] * V[k, e])
entropy[q] = M[q] + log(Z[q]) - sum[k](A[q, k] * S[q, k])
seen[k] = sum[q](1.0)
mean[k] = sum[q](A[q, k]) / seen[k]
block[i, j] = max[q, k](where((q // 64 == i) & (k // 64 == j), A[q, k], 0.0))
return O, entropy, mean, block
"""


def statistics(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output `[B, H, N, E]`, entropies and mean weights of keys `[B, H, N]`, block maxima `[B, H, i, j]`."""
    spec = Attention.from_program(parse_program(STATISTICS, name="statistics"))
    out, entropy, mean, block = spec(query, key, value)
    return out, entropy, mean, block


def main() -> None:
    """Compute the statistics of random heads, and one of them by a cascade that comes with attngen."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 8, 2048, 64) for _ in range(3))
    q[:, 3] *= 4  # one head is sharper than the others
    out, entropy, mean, block = statistics(q, k, v)
    bytes_of_map = q.shape[1] * q.shape[2] ** 2 * 4
    bytes_returned = sum(x.numel() * 4 for x in (out, entropy, mean, block))
    print(f"map: {bytes_of_map / 1e6:.0f} MB; returned: {bytes_returned / 1e6:.1f} MB")
    for head, h in enumerate(entropy[0].mean(-1)):
        share = (block[0, head] > 1 / 64).sum().item() / (block.shape[-1] * (block.shape[-1] + 1) / 2)
        print(f"head {head}: mean entropy {h:.2f}, blocks with a weight above 1/64: {share:.0%}")
    again = attngen.attention(q, k, v, mask="k <= pos(q)", cascade="entropy")
    assert isinstance(again, torch.Tensor)
    print(f"`entropy` of ir/cascades agrees to {(again - entropy).abs().max():.0e}")


if __name__ == "__main__":
    main()
