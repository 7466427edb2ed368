"""The example functions of FlexAttention's documentation, as a user has them: nothing is changed for us."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SLIDING_WINDOW = 37


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def sliding_window(b, h, q_idx, kv_idx):
    causal_mask = q_idx >= kv_idx
    window_mask = q_idx - kv_idx <= SLIDING_WINDOW
    return causal_mask & window_mask


def make_prefix(prefix_length: Tensor) -> Callable[..., Tensor]:
    """`prefix_length` is `[B]`."""

    def prefix_mask(b, h, q_idx, kv_idx):
        return kv_idx <= prefix_length[b]

    from torch.nn.attention.flex_attention import or_masks

    return or_masks(prefix_mask, causal)


def make_document(document_id: Tensor) -> Callable[..., Tensor]:
    """`document_id` is `[N]`."""

    def document_causal_mask(b, h, q_idx, kv_idx):
        causal_mask = q_idx >= kv_idx
        document_mask = document_id[q_idx] == document_id[kv_idx]
        return causal_mask & document_mask

    return document_causal_mask


def make_alibi(heads: int) -> Callable[..., Tensor]:
    alibi_bias = torch.exp2(-(torch.arange(1, heads + 1, dtype=torch.float32) * 8.0 / heads))

    def alibi(score, b, h, q_idx, kv_idx):
        bias = alibi_bias[h] * (kv_idx - q_idx)
        return score + bias

    return alibi


def make_softcap(softcap: float = 20.0) -> Callable[..., Tensor]:
    def soft_cap(score, b, h, q_idx, kv_idx):
        score = score / softcap
        score = torch.tanh(score)
        score = score * softcap
        return score

    return soft_cap


def relative_positional(score, b, h, q_idx, kv_idx):
    return score + (q_idx - kv_idx)


def make_relative_bias(heads: int, reach: int) -> Callable[..., Tensor]:
    """A learned table over clipped distances."""
    table = torch.randn(heads, 2 * reach + 1, generator=torch.Generator().manual_seed(3))

    def relative_bias(score, b, h, q_idx, kv_idx):
        distance = torch.clamp(q_idx - kv_idx, -reach, reach)
        return score + table[h, distance + reach]

    return relative_bias


def checkerboard(score, b, h, q_idx, kv_idx):
    score = torch.where(torch.abs(kv_idx - q_idx) % 2 == 1, score * 0.5, score)
    score = torch.where(torch.abs(kv_idx - q_idx) % 2 == 0, score * 2.0, score)
    return score
