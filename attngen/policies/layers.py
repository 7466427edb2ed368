"""Layers made of several attentions: heads of different kinds, branches that are mixed, maps that others use again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attngen.policies.specs import CAUSAL, cascade, one, program, several

__all__ = [
    "echo",
    "gated_levels",
    "graph_attention",
    "hilo",
    "mqsa",
    "multiple_instances",
    "t5_buckets",
    "token_pooling",
]

QKV = tuple[Tensor, Tensor, Tensor]


def echo(query: Tensor, key: Tensor, values: Sequence[Tensor]) -> list[Tensor]:
    """Layers that share one attention map: the leader's output, then those of its followers. Causal.

    `values` has a `[B, G, Nk, E]` for each layer; widths may differ. EchoAtt, arXiv:2409.14595. Program `causal` with
    its log-sum-exp, then cascade `softmax_replay`: no follower computes a maximum or a denominator again.
    """
    out, lse = several(program("causal", ("O", "LSE"))(query, key, values[0]))
    replay = cascade("softmax_replay", CAUSAL)
    return [out, *(one(replay(query, key, value, lse=lse)) for value in values[1:])]


def hilo(high: QKV, low: QKV, grid: tuple[int, int], window: int = 2) -> Tensor:
    """HiLo: heads inside windows, and heads against windows' means. `[B, Hhi + Hlo, N, E]`, Hi-Fi heads first.

    `grid` is height and width of the image, whose sides are multiples of `window`; each kind of head has projections
    of its own. Pan, Cai and Zhuang, arXiv:2205.13213. Programs `vitdet_window` and `hilo_low`.
    """
    inside = one(program("vitdet_window", ("O",), grid)(*high, window=window))
    return torch.cat((inside, one(program("hilo_low")(*low, width=grid[1], window=window))), 1)


def mqsa(
    short: QKV, x: Tensor, w_query: Tensor, key: Tensor, value: Tensor, valid: Tensor, last: int, alpha: float
) -> Tensor:
    """`alpha` times causal attention, and 1 - alpha times attention by means of the `last` items. `[B, H, N, E]`.

    Args:
        short: query, key and value of the ordinary branch.
        x: `[B, N, F]`, the items' embeddings, whose means are the long branch's queries after `w_query` `[H, D, F]`.
        w_query: the projection of normalised means.
        key: of the long branch.
        value: of the long branch.
        valid: bool `[B, N]`, the items that are not padding; rows of padding are 0.
        last: how many items a mean is over.
        alpha: the share of the ordinary branch.

    MQSA-TED. Programs `padded_causal` and `mqsa_long`.
    """
    near = one(program("padded_causal", ("O",))(*short, valid=valid))
    unread = key.new_zeros(key.shape[0], w_query.shape[0], x.shape[1], key.shape[3])
    far = one(program("mqsa_long")(unread, key, value, last=last, x=x, valid=valid, w_query=w_query))
    return alpha * near + (1 - alpha) * far


def gated_levels(
    query: Tensor, levels: Sequence[tuple[Tensor, Tensor]], y: Tensor, w_gate: Tensor, *, scaled: bool = True
) -> Tensor:
    """Cross attention to every level of an encoder, each behind a gate of its own, summed. `[B, N, C]`.

    `levels` are key and value of each level, `y` `[B, N, C]` the decoder's tokens, C = H E, and `w_gate`
    `[levels, C, 2 C]`. `scaled` divides by the root of the number of levels. MemMC-MAE; Cornia et al.,
    arXiv:1912.08226. Cascade `softmax` for each level.
    """
    out = torch.zeros_like(y)
    for (key, value), weight in zip(levels, w_gate, strict=True):
        c = one(cascade("softmax")(query, key, value)).transpose(1, 2).flatten(2)
        out = out + torch.sigmoid(torch.cat((y, c), -1) @ weight.T) * c
    return out / math.sqrt(len(levels)) if scaled else out


def graph_attention(
    x: Tensor, w: Tensor, a_query: Tensor, a_key: Tensor, adjacency: Tensor, slope: float = 0.2
) -> Tensor:
    """A layer of graph attention, heads apart: `[B, H, N, D]`, which the model concatenates or averages.

    `x` `[B, N, F]` are the nodes, `w` `[H, D, F]`, `a_query` and `a_key` `[H, D]`, `adjacency` bool `[B, N, N]`; a node
    is its own neighbour. Velickovic et al., arXiv:1710.10903; GA-MATR. Program `gat`.
    """
    nodes = torch.einsum("hdf,bnf->bhnd", w, x)
    spec = program("gat", ("O",))
    given: dict[str, Any] = {"a_query": a_query, "a_key": a_key, "adjacency": adjacency}
    return one(spec(nodes, nodes, nodes, slope=slope, **given))


def multiple_instances(
    x: Tensor,
    w_v: Tensor,
    b_v: Tensor,
    w_u: Tensor,
    b_u: Tensor,
    w: Tensor,
    *,
    top: int = 10,
    share: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """ACMIL: branches `[B, H, F]`, the bag `[B, F]`, and the scores `[B, H, N]` of a bag of instances `[B, N, F]`.

    `w_v` and `w_u` are `[J, F]`, `b_v` and `b_u` `[J]`, `w` `[H, J]` with a row for each branch. In training, `share`
    of the `top` best instances of each branch are dropped at random; the scores of dropped ones read 0. Zhang et al.,
    arXiv:2311.07125. Program `acmil`, called twice where instances are dropped.
    """
    batch, n, width = x.shape
    unread = x.new_zeros(batch, len(w), 1, width)
    weights: dict[str, Any] = {"w_v": w_v, "b_v": b_v, "w_u": w_u, "b_u": b_u, "w": w}
    dropped = torch.zeros(batch, len(w), n, dtype=torch.bool, device=x.device)
    bag = x[:, None]
    top = min(top, n)
    if int(top * share):
        scores = one(program("acmil", ("L",))(unread, bag, bag, dropped=dropped, **weights))
        best = torch.argsort(-scores, dim=-1, stable=True)[..., :top]
        order = torch.rand(best.shape, generator=generator, device=x.device).argsort(-1)
        dropped = dropped.scatter(-1, best.gather(-1, order[..., : int(top * share)]), True)
    branches, mean, scores = several(
        program("acmil", ("O", "bag", "L"))(unread, bag, bag, dropped=dropped, **weights)
    )
    return branches[:, :, 0], mean[:, 0], torch.where(dropped, 0.0, scores)


def t5_buckets(far: int = 128, *, bidirectional: bool = False, buckets: int = 32) -> Tensor:
    """The table of buckets that program `t5_bias` reads: int `[2 far + 1]`, of the distances from -far to far.

    Half of the buckets are exact, then they are logarithmic up to `far`; with `bidirectional`, keys after the query
    have the upper half. Raffel et al., arXiv:1910.10683. In integers, since a logarithm is fragile where it is whole.
    """
    return torch.tensor([_bucket(n, far, bidirectional, buckets) for n in range(-far, far + 1)])


def _bucket(distance: int, far: int, bidirectional: bool, buckets: int) -> int:
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if distance < 0 else 0
    n = abs(distance) if bidirectional else max(distance, 0)
    exact = buckets // 2
    if n < exact:
        return first + n
    steps = buckets - exact
    # The largest step with (n / exact) ** steps >= (far / exact) ** step, but for the last one.
    return first + exact + max(s for s in range(steps) if n**steps * exact**s >= far**s * exact**steps)


def token_pooling(x: Tensor, logits: Tensor, grid: tuple[int, int]) -> Tensor:
    """Token-aware average pooling: each token mixes means of 3 x 3 tokens, a step of 0, 1, 2, ... apart. `[B, N, F]`.

    `logits` `[B, N, K]` weigh the K steps of a token by their softmax; step 0 is the token itself. Tokens outside of
    the image, height and width `grid`, count as zeros. It goes before the projections of an attention layer. Guo et
    al., arXiv:2303.11126 (TAP).
    """
    height, width = grid
    image = x.transpose(1, 2).unflatten(2, grid)
    means = [x]
    for step in range(1, logits.shape[2]):
        wide = torch.nn.functional.pad(image, (step,) * 4)
        near = [
            wide[:, :, i * step : i * step + height, j * step : j * step + width]
            for i in range(3)
            for j in range(3)
        ]
        means.append((torch.stack(near).sum(0) / 9).flatten(2).transpose(1, 2))
    return (torch.stack(means, -1) * logits.softmax(-1)[:, :, None]).sum(-1)
