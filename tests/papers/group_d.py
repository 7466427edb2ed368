"""Group D of the papers, defined by hand: numbers that are read off the attention map of a layer.

Plain functions in float64 of whole maps `A = softmax(S)`; nothing here reads a program of `ir/`. The papers that put
them together are in `group_d_papers`.
"""

from __future__ import annotations

import math

import torch

from tests.papers.group_common import Tensor, scores, softmax


def attention_map(q: Tensor, k: Tensor, keep: Tensor | None = None) -> Tensor:
    """`A[B, H, Tq, Tk]`; 0 for pairs that are not kept, and in rows that see nothing."""
    return softmax(scores(q, k), keep)


def plogp(p: Tensor) -> Tensor:
    """`p ln p`, 0 where p is 0."""
    return torch.where(p > 0, p * torch.log(torch.where(p > 0, p, 1.0)), 0.0)


def entropy(q: Tensor, k: Tensor, keep: Tensor | None = None) -> Tensor:
    """`H_q = -sum_k A ln A` (#29, #1, #2), natural logarithm; 0 for a row that sees nothing. [B, H, Tq]."""
    return -plogp(attention_map(q, k, keep)).sum(-1)


def mean_entropy(q: Tensor, k: Tensor, keep: Tensor | None = None) -> Tensor:
    """sigmaReparam's entropy of a head (#29): `mean_q -sum_k A ln(A + 1e-6)`, as in its code. [B, H].

    The 1e-6 makes it differ from the entropy by up to 1e-6 times the number of keys: no identity with LSE holds.
    """
    a = attention_map(q, k, keep)
    return -(a * torch.log(a + 1e-6)).sum(-1).mean(-1)


def nmi(q: Tensor, k: Tensor, keep: Tensor | None = None) -> Tensor:
    """Normalised mutual information of a head's map (UNIP #1): `I(q; k) / sqrt(H(q) H(k))`. [B, H].

    Queries are uniform: `p(q, k) = A[q, k] / Tq`, `p(k) = sum_q p(q, k)`, `H(q) = ln Tq`. Every row has to see a key.
    """
    a = attention_map(q, k, keep)
    n_q, n_k = a.shape[-2:]
    out = torch.zeros(a.shape[:2], dtype=a.dtype)
    for b in range(a.shape[0]):
        for h in range(a.shape[1]):
            joint = a[b, h] / n_q
            p_k = joint.sum(0)
            information = 0.0
            for i in range(n_q):
                for j in range(n_k):
                    p = float(joint[i, j])
                    if p > 0:
                        information += p * math.log(p / (float(p_k[j]) / n_q))
            out[b, h] = information / math.sqrt(math.log(n_q) * float(-plogp(p_k).sum()))
    return out


def kl_rows(teacher: Tensor, student: Tensor, keep: Tensor | None = None) -> Tensor:
    """`KL_q = sum_k A_T (ln A_T - ln A_S)` of two score tensors (#1, #68): teacher first. [B, H, Tq]."""
    a_t, a_s = softmax(teacher, keep), softmax(student, keep)
    ratio = torch.where(a_t > 0, torch.log(torch.where(a_t > 0, a_t / a_s, 1.0)), 0.0)
    return (a_t * ratio).sum(-1)


def span_mass(q: Tensor, k: Tensor, keep: Tensor | None, span: Tensor, count: int) -> Tensor:
    """`m_q[j] = sum_{k: span[k] = j} A[q, k]` (#25, #61, #15); keys of span -1 belong to none. [B, H, Tq, count]."""
    a = attention_map(q, k, keep)
    return torch.stack([a[..., span == j].sum(-1) for j in range(count)], -1)


def distance_histogram(q: Tensor, k: Tensor, height: int, width: int) -> Tensor:
    """Attention mass by patch distance (#2): `mean_q sum_k A [dist(q, k) = r]`, r = 0 .. max(height, width) - 1.

    Chebyshev distance `max(|dy|, |dx|)` between patches of the grid, row after row; the bins sum to 1. [B, H, R + 1].
    """
    a = attention_map(q, k)
    out = torch.zeros(*a.shape[:2], max(height, width), dtype=a.dtype)
    for i in range(height * width):
        for j in range(height * width):
            r = max(abs(i // width - j // width), abs(i % width - j % width))
            out[:, :, r] += a[:, :, i, j] / (height * width)
    return out


def column_sums(q: Tensor, k: Tensor, keep: Tensor | None, rows: Tensor) -> Tensor:
    """`c[k] = sum_q A[q, k]` over the rows of the set `rows[Tq]` (#10, #24, #27). [B, H, Tk]."""
    return attention_map(q, k, keep)[:, :, rows].sum(2)


def column_means(q: Tensor, k: Tensor, keep: Tensor, rows: Tensor) -> Tensor:
    """Column sums over the number of rows of the set that see the column (#74); 0 for one that none sees."""
    total = column_sums(q, k, keep, rows)
    seen = keep.expand(*q.shape[:3], k.shape[2])[:, :, rows].sum(2)
    return total / seen.clamp(min=1)


def diagonal_sums(q: Tensor, k: Tensor, keep: Tensor) -> Tensor:
    """`s[o] = sum_q A[q, i - o]`, i the position of the query, o = 0 .. Tk - 1 (#27). Causal. [B, H, Tk]."""
    a = attention_map(q, k, keep)
    n_q, n_k = a.shape[-2:]
    out = torch.zeros(*a.shape[:2], n_k, dtype=a.dtype)
    for row in range(n_q):
        i = row + n_k - n_q
        for o in range(i + 1):
            out[:, :, o] += a[:, :, row, i - o]
    return out


def blocks(a: Tensor, block_q: int, block_k: int, greatest: bool) -> Tensor:
    """Sum or maximum of each block of the map; blocks begin at row 0 and key 0, the last may be short."""
    cut = [torch.stack([y.amax(-1) if greatest else y.sum(-1) for y in a.split(block_k, -1)], -1)]
    return torch.stack([y.amax(-2) if greatest else y.sum(-2) for y in cut[0].split(block_q, -2)], -2)


def block_max(q: Tensor, k: Tensor, keep: Tensor | None, block_q: int, block_k: int) -> Tensor:
    """SeerAttention's target map (#36): the largest normalised weight of each block, not the largest score."""
    return blocks(attention_map(q, k, keep), block_q, block_k, True)


def block_sum(q: Tensor, k: Tensor, keep: Tensor | None, block_q: int, block_k: int) -> Tensor:
    """AdaSpa's block mass (#33): `sum over the block of exp(S - LSE)`; a row of blocks sums to its number of rows."""
    return blocks(attention_map(q, k, keep), block_q, block_k, False)


def map_rows(q: Tensor, k: Tensor, keep: Tensor | None, rows: Tensor) -> Tensor:
    """Chosen rows of the map (#7, #10, #15, #18): `A[rows]`. [B, H, R, Tk]."""
    return attention_map(q, k, keep)[:, :, rows]


def head_mean(q: Tensor, k: Tensor, keep: Tensor | None) -> Tensor:
    """`mean_h A` (#12, #15, #51). [B, Tq, Tk]."""
    return attention_map(q, k, keep).mean(1)


def head_max(q: Tensor, k: Tensor, keep: Tensor | None) -> Tensor:
    """`max_h A` (#65); its rows do not sum to 1. [B, Tq, Tk]."""
    return attention_map(q, k, keep).amax(1)


def top_of_row(q: Tensor, k: Tensor, keep: Tensor | None, row: int, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest weights of a row and their keys (#7, #30), largest first, the lower key first in a tie."""
    a = attention_map(q, k, keep)[:, :, row]
    order = torch.argsort(-a, dim=-1, stable=True)[..., :count]
    return a.gather(-1, order), order
