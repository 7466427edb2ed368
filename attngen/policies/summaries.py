"""Attention to summaries of the tokens, where a part between two programs is not attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attngen.policies.specs import cascade, layer_norm, one, program, several

__all__ = ["extractor", "forward_cross_attention", "landmark_inverse", "long_short", "nystrom", "probsparse"]


def landmark_inverse(a: Tensor, steps: int = 6) -> Tensor:
    """The pseudo-inverse of matrices `[..., n, n]` whose rows sum to 1, by Nystromformer's iteration of third order.

    The start is the transpose over the largest column sum of each matrix. Xiong et al., arXiv:2102.03902, equation 11.
    """
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    z = a.transpose(-1, -2) / a.sum(-2).amax(-1)[..., None, None]
    for _ in range(steps):
        az = a @ z
        z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
    return z


def nystrom(query: Tensor, key: Tensor, value: Tensor, landmarks: int = 16, steps: int = 6) -> Tensor:
    """Nystrom attention through `landmarks` means of segments; `[B, H, N, E]`, self attention without a mask.

    A sequence of no more tokens is attended to exactly. The scale is 1 / D, as the authors' code has it. Xiong et al.,
    arXiv:2102.03902. Programs `nystrom_landmarks` and `nystrom`, with the inverse between them.
    """
    scale = 1 / query.shape[-1]
    if query.shape[2] <= landmarks:
        return one(cascade("softmax")(query, key, value, scale=scale))
    middle = one(program("nystrom_landmarks")(query, key, value, scale=scale, j=landmarks))
    inverse = landmark_inverse(middle, steps)
    return one(program("nystrom")(query, key, value, scale=scale, inverse=inverse, j=landmarks))


def long_short(
    query: Tensor, key: Tensor, value: Tensor, logits: Tensor, window: int = 15, *, norm: bool = True
) -> Tensor:
    """One softmax over a window of blocks and over compressed tokens; `[B, H, N, E]`, self attention without a mask.

    `logits` `[B, H, N, J]` are the dynamic projections before their softmax over the tokens. `norm` normalises a
    compressed token over the features of all heads, for which there are as many key heads as query heads. Zhu et al.,
    arXiv:2107.02192. Program `long_short`; with `norm`, `long_short_given` takes its compressed tokens.
    """
    given: dict[str, Any] = {"logits": logits, "window": window}
    if not norm:
        return one(program("long_short", ("O",))(query, key, value, **given))
    short = several(program("long_short", ("Ks", "Vs"))(query, key, value, **given))
    k, v = (
        layer_norm(x.transpose(1, 2).flatten(2), 1e-5).unflatten(2, (x.shape[1], -1)).transpose(1, 2)
        for x in short
    )
    return one(program("long_short_given", ("O",))(query, key, value, extra_k=k, extra_v=v, window=window))


def probsparse(query: Tensor, key: Tensor, value: Tensor, sample: Tensor, count: int) -> Tensor:
    """Informer's attention: the `count` rows that stand out attend, the others get the mean value. `[B, H, N, E]`.

    `sample` int `[Nq, U]` names keys drawn for each row; a row stands out by the largest of its sampled scores over
    their sum divided by Nk. Zhou et al., arXiv:2012.07436. Program `probsparse`.
    """
    shared = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    drawn = torch.einsum("bhqd,bhqud->bhqu", query.float(), shared.float()[:, :, sample])
    measure = drawn.amax(-1) - drawn.sum(-1) / key.shape[2]
    best = torch.argsort(-measure, dim=-1, stable=True)[..., :count]
    chosen = torch.zeros_like(measure, dtype=torch.bool).scatter(-1, best, True)
    return one(program("probsparse")(query, key, value, chosen=chosen))


def forward_cross_attention(
    query: Tensor, key: Tensor, value: Tensor, merged: Tensor, factor: Tensor, w_k: Tensor, w_v: Tensor
) -> Tensor:
    """FcaFormer: attention to the own tokens and to merged tokens of earlier blocks, in one softmax. `[B, H, N, E]`.

    `merged` `[B, J, C]`, their learned `factor` `[C]` or `[J, C]`, and this block's projections `w_k` `[G, D, C]` and
    `w_v` `[G, E, C]`. Zhang, Hu and Wang, arXiv:2211.07198. Cascade `extra_keys`.
    """
    scaled = merged * factor
    extra_k, extra_v = (torch.einsum("gdc,bjc->bgjd", w, scaled) for w in (w_k, w_v))
    return one(cascade("extra_keys", None, ("O",))(query, key, value, extra_k=extra_k, extra_v=extra_v))


def extractor(tokens: Tensor, current: Tensor, matrices: Tensor) -> Tensor:
    """The Extractor with a matrix for each lag (SHE), `current_t * sum over lags of matrices[lag] tokens_(t - lag)`.

    tokens and current `[B, N, C]`, matrices `[L, C, C]`. A feature of the past reaches all features of the present, so
    the sum is taken feature by feature of the past: C calls of `extractor_he`, whose weights are vectors.
    """
    he = program("extractor_he")
    total = torch.zeros_like(tokens)
    for c in range(tokens.shape[-1]):
        past = tokens[:, None, :, c : c + 1].expand(-1, -1, -1, tokens.shape[-1])
        total += one(he(past, past, past, w=matrices[:, :, c], current=current))[:, 0]
    return total
