"""Group F of the papers, defined by hand: pooled queries or keys, and keys of more than one source in one softmax."""

from __future__ import annotations

import math

import torch

from tests.papers.group_common import Tensor, attend, scores, share, softmax


def hilo_high(q: Tensor, k: Tensor, v: Tensor, height: int, width: int, window: int) -> Tensor:
    """HiLo's Hi-Fi heads (#43): softmax inside windows of s x s tokens that do not overlap. Sides divisible by s."""
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for y in range(0, height, window):
        for x in range(0, width, window):
            inside = [(y + dy) * width + x + dx for dy in range(window) for dx in range(window)]
            out[:, :, inside] = attend(scores(q[:, :, inside], k[:, :, inside]), v[:, :, inside])[0]
    return out


def pooled_tokens(x: Tensor, height: int, width: int, window: int) -> Tensor:
    """Means of s x s tokens that do not overlap, windows row after row; the tokens are the second axis from the end."""
    means: list[Tensor] = []
    for y in range(0, height, window):
        for z in range(0, width, window):
            inside = [(y + dy) * width + z + dx for dy in range(window) for dx in range(window)]
            means.append(x[..., inside, :].mean(-2))
    return torch.stack(means, -2)


def hilo_low(q: Tensor, k: Tensor, v: Tensor, height: int, width: int, window: int) -> Tensor:
    """HiLo's Lo-Fi heads (#43): every query against keys and values averaged over s x s tokens.

    The paper pools the tokens and projects; pooling and a projection with bias commute, so k and v are pooled here.
    """
    return attend(
        scores(q, pooled_tokens(k, height, width, window)), pooled_tokens(v, height, width, window)
    )[0]


def hilo(
    high: tuple[Tensor, Tensor, Tensor],
    low: tuple[Tensor, Tensor, Tensor],
    height: int,
    width: int,
    window: int,
) -> Tensor:
    """HiLo (#43): Hi-Fi heads first, then Lo-Fi heads; each group has projections of its own. [B, Hhi + Hlo, T, Dv]."""
    return torch.cat((hilo_high(*high, height, width, window), hilo_low(*low, height, width, window)), 1)


def fca(q: Tensor, k: Tensor, v: Tensor, cross: Tensor, factor: Tensor, w_k: Tensor, w_v: Tensor) -> Tensor:
    """FcaFormer (#13): softmax over the own keys and those of merged tokens of earlier blocks, `K = [K; s c W_k]`.

    cross[B, J, C] are the merged tokens, factor[C] (or [J, C]) their learned scale, w_k[Hkv, D, C] and w_v[Hkv, Dv, C]
    the block's projections. Queries are the own tokens only; not causal.
    """
    scaled = cross * factor
    extra_k = torch.einsum("gdc,bjc->bgjd", w_k, scaled)
    extra_v = torch.einsum("gdc,bjc->bgjd", w_v, scaled)
    return attend(scores(q, torch.cat((k, extra_k), 2)), torch.cat((v, extra_v), 2))[0]


def memory_slots(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, mem_k: Tensor, mem_v: Tensor
) -> tuple[Tensor, Tensor]:
    """MemMC-MAE's encoder (#69): `softmax(Q [K; M_k]^T) [V; M_v]`, learned slots of each key head, never masked.

    mem_k[Hkv, J, D], mem_v[Hkv, J, Dv]. A row whose keys are all masked attends to the slots.
    """
    batch = q.shape[0]
    k = torch.cat((k, mem_k.expand(batch, *mem_k.shape)), 2)
    v = torch.cat((v, mem_v.expand(batch, *mem_v.shape)), 2)
    slots = torch.ones(batch, 1, q.shape[2], mem_k.shape[1], dtype=torch.bool)
    own = keep.expand(batch, 1, q.shape[2], -1)
    return attend(scores(q, k), v, torch.cat((own, slots), -1))


def gated_levels(
    q: Tensor, levels: list[tuple[Tensor, Tensor]], y: Tensor, w_gate: Tensor, scaled: bool
) -> Tensor:
    """MemMC-MAE's decoder (#69): `sum_l sigmoid(W_l [Y; C_l]) C_l` over cross attentions C_l to the encoder's levels.

    Each level has keys and values of its own. y[B, T, C] with C = H Dv, w_gate[L, C, 2 C]. The meshed-memory original
    divides by sqrt(L): `scaled`. [B, T, C].
    """
    out = torch.zeros_like(y)
    for level, (k, v) in enumerate(levels):
        c = attend(scores(q, k), v)[0].transpose(1, 2).flatten(2)
        out = out + torch.sigmoid(torch.cat((y, c), -1) @ w_gate[level].T) * c
    return out / math.sqrt(len(levels)) if scaled else out


def layer_norm(x: Tensor, eps: float) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps)


def moving_average(x: Tensor, valid: Tensor, last: int) -> Tensor:
    """MQSA's long query (#45): mean of the last L items up to each, of those that are not padding.

    The count has 1e-24 added. Items before the sequence count as padding, and padding has embedding 0. x[B, T, F],
    valid[B, T].
    """
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        first = max(0, t - last + 1)
        own = valid[:, first : t + 1].double()
        out[:, t] = (x[:, first : t + 1] * own[..., None]).sum(1) / (own.sum(1)[:, None] + 1e-24)
    return out


def mqsa_branch(q: Tensor, k: Tensor, v: Tensor, valid: Tensor) -> Tensor:
    """Causal attention with key padding, and rows of padding queries zeroed after the softmax (#45). valid[B, T]."""
    n = q.shape[2]
    a = softmax(scores(q, k), torch.ones(n, n, dtype=torch.bool).tril() & valid[:, None, None])
    return (a * valid[:, None, :, None]) @ share(v, q.shape[1])


def mqsa(
    short: tuple[Tensor, Tensor, Tensor], x: Tensor, w_query: Tensor, k: Tensor, v: Tensor, valid: Tensor,
    last: int, alpha: float,
) -> Tensor:  # fmt: skip
    """MQSA-TED (#45): `alpha` times ordinary causal attention, 1 - alpha times attention by moving-average queries.

    Long branch: `q_i = W_q LN(mean of the last L items)`, w_query[H, D, F], keys and values not averaged. The authors'
    code mixes the logits after each branch's own feed-forward layers; the mix here is of the attention outputs.
    """
    q = torch.einsum("hdf,btf->bhtd", w_query, layer_norm(moving_average(x, valid, last), 1e-24))
    return alpha * mqsa_branch(*short, valid) + (1 - alpha) * mqsa_branch(q, k, v, valid)
