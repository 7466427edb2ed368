"""What papers read off attention maps of several layers or calls: scores, penalties, losses, choices of heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attngen.policies.specs import CAUSAL, cascade, one, program, several

__all__ = [
    "disendiff_loss",
    "diversification_loss",
    "hybrid_distillation",
    "icr",
    "internal_consistency",
    "opera_penalty",
    "relative_attention",
    "unip_loss",
    "vision_reinforced",
]

Pair = tuple[Tensor, Tensor]


def icr(
    layers: Sequence[Pair],
    blank: Sequence[Pair],
    rows: Tensor,
    blank_rows: Tensor,
    documents: Sequence[tuple[int, int]],
    spread: float = 2.0,
) -> Tensor:
    """ICR's relevance of documents in the context, calibrated by a query without content. `[B, len(documents)]`.

    Args:
        layers: query and key of every layer, of the prompt that ends with the question.
        blank: the same of the prompt that ends with "N/A"; its documents have the same tokens.
        rows: bool `[Nq]`, the rows of the question.
        blank_rows: bool `[Nq]`, the rows of "N/A".
        documents: first and last + 1 of the tokens of each document.
        spread: tokens further than so many deviations below the mean of their document are left out.

    Chen, Gutierrez and Su, arXiv:2410.02642. Program `icr_scores`, summed over layers.
    """
    spec = program("icr_scores")
    scored, empty = (
        torch.stack([one(spec(q, k, k, row=which)) for q, k in pairs]).sum(0)
        for pairs, which in ((layers, rows), (blank, blank_rows))
    )
    out: list[Tensor] = []
    for first, last in documents:
        c = scored[:, first:last] - empty[:, first:last]
        least = c.mean(1, keepdim=True) - spread * c.std(1, keepdim=True)
        out.append(torch.where(c > least, c, 0.0).sum(1))
    return torch.stack(out, 1)


def opera_penalty(
    query: Tensor, key: Tensor, start: int, image: tuple[int, int], factor: float = 50.0
) -> tuple[Tensor, Tensor]:
    """OPERA's over-trust penalty of each entry `[B]`, and the token of the response that is over-trusted `[B]`.

    Rows and keys are the same tokens, the response begins at `start`, `image` is first and last + 1 of the image's
    keys. Huang et al., arXiv:2311.17911. Program `opera`; choosing among beams, and going back to the token, is
    decoding.
    """
    _, penalty, at = several(
        program("opera")(
            query, key, key, start=start, first_image=image[0], last_image=image[1] - 1,
            factor=factor, j=key.shape[2] - start,
        )
    )  # fmt: skip
    return penalty, at + start


def diversification_loss(layers: Sequence[Pair], factor: float = 2.0) -> Tensor:
    """The attention diversification loss of a model: mean cosine of rows with the mean row, over layers. `[B]`.

    `layers` are query and key of each layer. Guo et al., arXiv:2303.11126. Program `diversification_loss`.
    """
    spec = program("diversification_loss")
    return torch.stack([one(spec(q, k, k, factor=factor)) for q, k in layers]).mean(0)


def relative_attention(query: Tensor, key: Tensor, neutral: Pair, image: tuple[int, int]) -> Tensor:
    """Where a model looks for the answer: the last row's weights over those of a neutral prompt. `[B, image keys]`.

    `neutral` is query and key of "describe the image", `image` first and last + 1 of the image's keys in both. Zhang
    et al., arXiv:2502.17422. Program `relative_attention`, called twice.
    """
    ones = torch.ones(key.shape[0], neutral[1].shape[2], device=key.device)
    mean = one(program("relative_attention", ("mean",))(*neutral, neutral[1], neutral=ones))
    first, last = image
    aligned = torch.ones(key.shape[0], key.shape[2], device=key.device)
    aligned[:, first:last] = mean[:, first:last]
    return one(program("relative_attention", ("ratio",))(query, key, key, neutral=aligned))[:, first:last]


def internal_consistency(query: Tensor, key: Tensor, span: Tensor, count: int) -> Tensor:
    """The mean weight from the last row, the answer's, to the keys of each span. `[B, H, count]`.

    `span` int `[Nk]` numbers the key's span, -1 for none. Xie et al., "Calibrating reasoning in language models with
    internal consistency". Cascade `span_mass`, causal.
    """
    mass = one(cascade("span_mass", CAUSAL, ("m",))(query[:, :, -1:], key, key, span=span, j=count))[:, :, -1]
    sizes = torch.stack([(span == j).sum() for j in range(count)])
    return mass / sizes


def vision_reinforced(
    query: Tensor, key: Tensor, value: Tensor, image: Tensor, count: int, gain: float
) -> tuple[Tensor, Tensor]:
    """Vision-aware head reinforcement: outputs of the `count` heads that the image moves most, times `gain`.

    `image` bool `[Nk]` flags the image's keys. Returns the output `[B, H, Nq, E]`, and the divergence of each head at
    the last row `[B, H]`. He et al., arXiv:2412.13949. Program `vision_divergence`; causal.
    """
    even = torch.ones(query.shape[:2], device=query.device)
    out, divergence = several(program("vision_divergence")(query, key, value, image=image, gain=even))
    last = divergence[:, :, -1]
    chosen = torch.zeros_like(last, dtype=torch.bool).scatter(1, last.topk(count, 1).indices, True)
    return out * torch.where(chosen, gain, 1.0)[:, :, None, None].to(out.dtype), last


def unip_loss(teacher: Pair, student: Pair) -> Tensor:
    """UNIP's distillation: the mean divergence of rows of the teacher's maps from the student's. A number.

    Query and key of both, with as many heads and tokens. Program `attention_kl`.
    """
    return _relation(teacher, student).mean()


def hybrid_distillation(
    teacher: tuple[Tensor, Tensor, Tensor], student: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Divergences of a teacher's relations QK and VV from the student's, mean of all rows. Two numbers.

    Query, key and value of both, with as many heads and tokens. Shi et al., arXiv:2306.15876. Programs `attention_kl`
    and `value_relation_kl`.
    """
    v_t = teacher[2]
    values = one(program("value_relation_kl")(*student, v_t=v_t, scale_t=float(v_t.shape[-1]) ** -0.5))
    return _relation(teacher[:2], student[:2]).mean(), values.mean()


def _relation(teacher: Pair, student: Pair) -> Tensor:
    q_t, k_t = teacher
    q, k = student
    return one(program("attention_kl")(q, k, k, q_t=q_t, k_t=k_t, scale_t=float(q_t.shape[-1]) ** -0.5))


def disendiff_loss(
    layers: Sequence[Pair], tokens: Tensor, side: int, *, twice: bool = False, sigma: float = 0.5
) -> Tensor:
    """DisenDiff's loss of two concepts over cross-attention layers: modifiers bound to classes, classes apart. `[B]`.

    `layers` are query (of an image `side` wide) and key (of the prompt), `tokens` int `[B, 4]`: modifier 1, class 1,
    modifier 2, class 2. Maps of all layers are averaged, normalised and smoothed; class maps are squared once, or
    `twice`. Zhang et al., arXiv:2403.18551. Program `token_maps`; for one layer, `disendiff` is the whole loss.
    """
    spec = program("token_maps")
    maps = torch.stack([one(spec(q, k, k, token=tokens)) for q, k in layers]).mean(0)
    low, high = maps.amin(1, keepdim=True), maps.amax(1, keepdim=True)
    image = ((maps - low) / (high - low + 1e-8)).transpose(1, 2).unflatten(2, (-1, side))
    line = torch.exp(-(torch.arange(-1, 2, device=maps.device, dtype=maps.dtype) ** 2) / (2 * sigma**2))
    kernel = line[:, None] * line / (line.sum() ** 2)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="reflect")
    smooth = torch.nn.functional.conv2d(padded.flatten(0, 1)[:, None], kernel[None, None])
    m1, c1, m2, c2 = smooth[:, 0].unflatten(0, image.shape[:2]).unbind(1)
    power = 4 if twice else 2
    c1, c2 = c1**power, c2**power
    return 2 - _soft_iou(c1, m1) - _soft_iou(c2, m2) + _soft_iou(c1, c2)


def _soft_iou(x: Tensor, y: Tensor) -> Tensor:
    both = (x * y).sum((1, 2))
    return (both + 1) / ((x + y).sum((1, 2)) - both + 1)
