"""The papers of group D, put together from the outputs of `group_d` as each paper does it, in float64."""

from __future__ import annotations

import torch

from tests.papers.group_common import Tensor, attend, mix, scores, share, softmax
from tests.papers.group_d import attention_map, distance_histogram, head_max, head_mean, kl_rows


def unip(q_t: Tensor, k_t: Tensor, q_s: Tensor, k_s: Tensor) -> Tensor:
    """UNIP (#1): KL of teacher and student rows of `softmax(Q K^T)`, summed over keys, mean over the rest. A number."""
    return kl_rows(scores(q_t, k_t), scores(q_s, k_s)).mean()


def distance_profile(
    q: Tensor, k: Tensor, v: Tensor, height: int, width: int, gate: Tensor
) -> tuple[Tensor, Tensor]:
    """How does attention work in ViTs (#2): output with each head times its gate (0 switches it off), and its profile.

    The profile is the distance histogram of the whole map; a gate does not change it.
    """
    o, _ = attend(scores(q, k), v)
    return gate[None, :, None, None] * o, distance_histogram(q, k, height, width)


def icr_scores(q: Tensor, k: Tensor, keep: Tensor, rows: Tensor) -> Tensor:
    """ICR's score of each token (#10): mean over the rows of the query span, sum over heads. [B, Tk].

    The paper also sums over layers. Rows outside of the span do not count, and the keys are all the tokens.
    """
    return attention_map(q, k, keep)[:, :, rows].mean(2).sum(1)


def icr(score: Tensor, blank: Tensor, documents: list[tuple[int, int]], spread: float = 2.0) -> Tensor:
    """ICR's ranking (#10): `c = s - s_NA`; per document drop tokens with `c <= mean - 2 std`, sum the others.

    `score` and `blank` are `icr_scores` for the query and for "N/A". The deviation is the unbiased one. [B, documents].
    """
    out = torch.zeros(score.shape[0], len(documents), dtype=score.dtype)
    for b in range(score.shape[0]):
        for n, (first, last) in enumerate(documents):
            c = score[b, first:last] - blank[b, first:last]
            least = c.mean() - spread * c.std()
            out[b, n] = sum(float(x) for x in c if x > least)
    return out


def adl(q: Tensor, k: Tensor, factor: float = 2.0) -> Tensor:
    """Attention diversification loss of one layer (#12): mean cosine of each row of the map with the mean row.

    `r = mean_q mean_h A`. Heads are averaged first, then values not above `factor / N` become 0, in r and in the rows.
    A row that has none above has cosine 0. The paper averages over layers.
    """
    a = head_mean(q, k, None)
    n = a.shape[-1]
    r = a.mean(1, keepdim=True)
    a, r = (torch.where(x > factor / n, x, 0.0) for x in (a, r))
    dot = (a * r).sum(-1)
    return (dot / (a.norm(dim=-1).clamp(min=1e-8) * r.norm(dim=-1).clamp(min=1e-8))).mean()


def relative_attention(own: Tensor, generic: Tensor, first: int, last: int) -> Tensor:
    """MLLMs Know Where to Look, rel-att (#15): last row, head mean, image keys; over the same for a generic prompt.

    own, generic [B, H, Tk] are the last rows of two calls, of the question and of a neutral prompt. [B, last - first].
    """
    return own[:, :, first:last].mean(1) / generic[:, :, first:last].mean(1)


def weighted_rows(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, rows: Tensor, w_out: Tensor) -> Tensor:
    """Circuits in Chinchilla (#18): `A[row, k] ||W_O v_k||` of chosen rows; w_out[H, M, Dv] is a head's part of W_O."""
    a = attention_map(q, k, keep)[:, :, rows]
    size = torch.einsum("hme,bhke->bhkm", w_out, share(v, q.shape[1])).norm(dim=-1)
    return a * size[:, :, None]


def consistency(q: Tensor, k: Tensor, keep: Tensor, row: int, span: Tensor, count: int) -> Tensor:
    """Internal consistency (#25): mean weight from the answer's row to the keys of each span. [B, H, count]."""
    a = attention_map(q, k, keep)[:, :, row]
    return torch.stack([a[..., span == j].mean(-1) for j in range(count)], -1)


def object_mask(q: Tensor, k: Tensor, tokens: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """ASGDiffusion (#51): map of image queries to the object's tokens, mean of heads and tokens; above threshold.

    tokens[Tk] flags them. Whether the paper normalises the map before its threshold is unconfirmed: not here. [B, Tq].
    """
    found = head_mean(q, k, None)[..., tokens].mean(-1)
    return found, found > threshold


def vhd(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Vision-aware head divergence (#61): `||O - O without image keys||_2` at each row [B, H, Tq]; and O.

    Two softmaxes of the same scores. The paper reads the last row. A row that sees image keys only has O = 0 without.
    """
    full, _ = attend(scores(q, k), v, keep)
    text, _ = attend(scores(q, k), v, keep & ~image)
    return (full - text).norm(dim=-1), full


def vhr(o: Tensor, chosen: Tensor, gain: float) -> Tensor:
    """Vision-aware head reinforcement (#61): outputs of the chosen heads [B, H] times `gain`, before W_O."""
    return torch.where(chosen[:, :, None, None], gain * o, o)


def opera(
    q: Tensor, k: Tensor, keep: Tensor, start: int, image: tuple[int, int], factor: float = 50.0
) -> tuple[Tensor, Tensor, Tensor]:
    """OPERA's over-trust penalty (#65): products down the columns of the response's window of the head-max map.

    `a = max_h A`, rows normalised again, rows and columns from `start`; `phi_j = 1e-7 prod_{q >= j} 50 a[q, j]`, the
    diagonal included. Penalty `max_j phi_j`; for 10 response tokens or fewer, minus the last row's mass on
    the image keys [first, last). Also returns phi [B, W] and the column of the maximum [B] in the window.
    """
    a = head_max(q, k, keep)
    a = a / a.sum(-1, keepdim=True)
    window = factor * a[:, start:, start:]
    phi = torch.full((a.shape[0], window.shape[-1]), 1e-7, dtype=a.dtype)
    for j in range(window.shape[-1]):
        for row in range(j, window.shape[1]):
            phi[:, j] *= window[:, row, j]
    penalty = phi.amax(-1)
    if window.shape[-1] <= 10:
        penalty = -a[:, -1, image[0] : image[1]].sum(-1)
    return phi, penalty, phi.argmax(-1)


def hybrid_distillation(
    q_t: Tensor, k_t: Tensor, v_t: Tensor, q_s: Tensor, k_s: Tensor, v_s: Tensor
) -> tuple[Tensor, Tensor]:
    """Hybrid Distillation (#68): KL of teacher and student rows of the relations QK and VV. Two [B, H, T].

    `softmax(Q K^T / sqrt(D))` and `softmax(V V^T / sqrt(Dv))`, each model with its own widths; heads must agree.
    """
    return kl_rows(scores(q_t, k_t), scores(q_s, k_s)), kl_rows(scores(v_t, v_t), scores(v_s, v_s))


def gaussian_kernel(sigma: float = 0.5) -> Tensor:
    """3 x 3 weights `exp(-(y^2 + x^2) / (2 sigma^2))` that sum to 1."""
    line = torch.exp(-(torch.arange(-1, 2, dtype=torch.float64) ** 2) / (2 * sigma**2))
    full = line[:, None] * line[None]
    return full / full.sum()


def token_map(layers: list[tuple[Tensor, Tensor]], token: Tensor, side: int) -> Tensor:
    """Mean over layers and heads of the map's column at each entry's token. [B, side, side]."""
    columns = [softmax(scores(q, k)).mean(1) for q, k in layers]
    mean = torch.stack(columns).mean(0)
    return torch.stack([mean[b, :, int(token[b])] for b in range(len(token))]).reshape(-1, side, side)


def smooth_map(x: Tensor, kernel: Tensor) -> Tensor:
    """Min-max normalised per entry (+1e-8), then 3 x 3 weights with reflected borders (the border is not repeated)."""
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    x = (x - low) / (high - low + 1e-8)
    n, m = x.shape[1:]
    out = torch.zeros_like(x)
    for y in range(n):
        for z in range(m):
            for dy in range(-1, 2):
                for dz in range(-1, 2):
                    at_y, at_z = abs(y + dy), abs(z + dz)
                    at_y, at_z = min(at_y, 2 * (n - 1) - at_y), min(at_z, 2 * (m - 1) - at_z)
                    out[:, y, z] += kernel[dy + 1, dz + 1] * x[:, at_y, at_z]
    return out


def soft_iou(x: Tensor, y: Tensor) -> Tensor:
    """`(sum x y + 1) / (sum (x + y - x y) + 1)`, one a batch entry."""
    both = (x * y).sum((1, 2))
    return (both + 1) / ((x + y).sum((1, 2)) - both + 1)


def disendiff(
    layers: list[tuple[Tensor, Tensor]], tokens: Tensor, side: int, kernel: Tensor, twice: bool = False
) -> Tensor:
    """DisenDiff's loss (#79) of two concepts: bind each modifier to its class, keep the classes apart. [B].

    `tokens[B, 4]`: modifier 1, class 1, modifier 2, class 2. Maps are averaged, normalised and smoothed; class maps
    are squared once, or twice. `(1 - IoU(c1, m1)) + (1 - IoU(c2, m2)) + IoU(c1, c2)`. Image queries, text keys.
    """
    m1, c1, m2, c2 = (smooth_map(token_map(layers, tokens[:, n], side), kernel) for n in range(4))
    c1, c2 = (c**4 if twice else c**2 for c in (c1, c2))
    return 2 - soft_iou(c1, m1) - soft_iou(c2, m2) + soft_iou(c1, c2)


def echo(q: Tensor, k: Tensor, keep: Tensor, followers: list[Tensor]) -> list[Tensor]:
    """EchoAtt (#22): the leader's map is used by every follower, `O_l = A_leader V_l`; they have no Q and K."""
    a = attention_map(q, k, keep)
    return [mix(a, v) for v in followers]
