"""The efficient attentions of the CAB benchmark (#11), defined by hand in float64; each is dense here.

Left out: S4D, which has no scores. FlashAttention is softmax itself, with the masks of `group_f.cross_pattern`.
"""

from __future__ import annotations

import math

import torch

from tests.papers.group_common import Tensor, attend, log_sum, positions, scores, share, softmax
from tests.papers.group_f_sources import layer_norm


def local(q: Tensor, k: Tensor, v: Tensor, width: int, is_causal: bool) -> tuple[Tensor, Tensor]:
    """CAB local (#11): causal the last `width` keys, the own one among them; else `width` on each side and itself.

    So 2 width + 1 keys when not causal: the code's `wsize` is a half width there.
    """
    i, j = positions(q.shape[2], k.shape[2])
    keep = (i - width < j) & (j <= i) if is_causal else (j - i).abs() <= width
    return attend(scores(q, k), v, keep)


def abc(q: Tensor, k: Tensor, v: Tensor, w_k: Tensor, w_v: Tensor) -> Tensor:
    """CAB ABC (#11), not causal: keys and values compressed into r slots, `K~ = softmax_t(K w_k)^T K`, V~ by `V w_v`.

    Then softmax of q against the slots, scale D^-1/2. w_k[D, r], w_v[Dv, r]; the softmax over tokens has no scale.
    """
    short_k = softmax((k @ w_k).transpose(-1, -2)) @ k
    short_v = softmax((v @ w_v).transpose(-1, -2)) @ v
    return attend(scores(q, short_k), short_v)[0]


def abc_causal(q: Tensor, k: Tensor, v: Tensor, w_k: Tensor, w_v: Tensor) -> Tensor:
    """CAB ABC (#11), causal self: the slots of row t are compressed from tokens up to t.

    The paper's recurrence. (The released code forgets the sum over earlier tokens: its slots hold the current token
    only, times its share of the running log-sum-exp.)
    """
    out: list[Tensor] = []
    for t in range(q.shape[2]):
        out.append(abc(q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1], w_k, w_v))
    return torch.cat(out, 2)


def performer_features(x: Tensor, projection: Tensor, is_query: bool, eps: float = 1e-4) -> Tensor:
    """Positive features `m^-1/2 (exp(W x' - |x'|^2 / 2 - max) + eps)`, x' = x D^-1/4.

    The maximum of `W x'` is taken over the features for a query, over features and tokens for keys.
    """
    x = x * float(x.shape[-1]) ** -0.25
    dash = torch.einsum("hmd,bhtd->bhtm", projection, x)
    top = dash.amax(-1, keepdim=True) if is_query else dash.amax((-1, -2), keepdim=True)
    half = (x**2).sum(-1, keepdim=True) / 2
    return (torch.exp(dash - half - top) + eps) * projection.shape[1] ** -0.5


def performer(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, floor: float = 0.1) -> Tensor:
    """CAB Performer (#11), not causal: `phi(q) (phi(K)^T V) / max(phi(q) sum phi(k), 0.1)`, projection[H, m, D] given.

    The maxima and eps do not cancel: eps is added after the maximum is taken off, and the denominator has a floor.
    """
    phi_q = performer_features(q, projection, True)
    phi_k = performer_features(share(k, q.shape[1]), projection, False)
    a = torch.einsum("bhqm,bhkm->bhqk", phi_q, phi_k)
    return a @ share(v, q.shape[1]) / a.sum(-1, keepdim=True).clamp(min=floor)


def cosformer(q: Tensor, k: Tensor, v: Tensor, eps: float = 1e-6) -> Tensor:
    """CAB cosFormer (#11), not causal: `relu(q) relu(k)^T cos(pi (i - j) / (2 M))`, rows divided by max(sum, 1e-6).

    M is the longer of both lengths; rows and keys are numbered from their own starts (no bottom-right shift). No scale.
    """
    n_q, n_k = q.shape[2], k.shape[2]
    angle = (torch.arange(n_q)[:, None] - torch.arange(n_k)[None]).double() * math.pi / (2 * max(n_q, n_k))
    a = scores(torch.relu(q), torch.relu(k), 1.0) * torch.cos(angle)
    return a @ share(v, q.shape[1]) / a.sum(-1, keepdim=True).clamp(min=eps)


def segment_means(x: Tensor, count: int) -> Tensor:
    """Means of `count` segments of tokens; where they do not divide evenly the later ones are one token longer."""
    n = x.shape[2]
    if n < count:
        return x
    short = n // count
    many = (short + 1) * count - n
    sizes = [short] * many + [short + 1] * (count - many)
    return torch.stack([y.mean(2) for y in x.split(sizes, 2)], 2)


def lara(q: Tensor, k: Tensor, v: Tensor, count: int) -> Tensor:
    """CAB LARA (#11) at inference, not causal self: importance-weighted mixture over proposals mu = qbar + kbar.

    With `xi(x)_c = mu_c . x' - D^-1/2 |x|^2 / 2`, x' = x D^-1/2: `kv_c = softmax_k(xi(k)_c) V`, and weights over c
    `softmax_c(x'(q) . mu_c + xi(q)_c + logsumexp_k xi(k)_c - xi(mu_c)_c)`. The noise of training is left out.
    """
    k, v = share(k, q.shape[1]), share(v, q.shape[1])
    mu = segment_means(q, count) + segment_means(k, count)
    scale = float(q.shape[-1]) ** -0.5

    def features(x: Tensor) -> Tensor:
        return scale * (mu @ x.transpose(-1, -2)) - scale * (x**2).sum(-1)[:, :, None] / 2

    own = scale * (mu**2).sum(-1) - scale * (mu**2).sum(-1) / 2
    pooled = softmax(features(k)) @ v
    ratio = scale * (mu @ q.transpose(-1, -2)) + features(q) + (log_sum(features(k)) - own)[..., None]
    return softmax(ratio.transpose(-1, -2)) @ pooled


def iterative_inverse(a: Tensor, steps: int = 6) -> Tensor:
    """Nystromformer's pseudo-inverse: `Z <- Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4` from A^T / max column sum.

    The maximum is each matrix's own; the released code takes one over the whole batch, which couples its entries.
    """
    eye = torch.eye(a.shape[-1], dtype=a.dtype)
    z = a.transpose(-1, -2) / a.sum(-2).amax(-1)[..., None, None]
    for _ in range(steps):
        az = a @ z
        z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
    return z


def nystrom(q: Tensor, k: Tensor, v: Tensor, count: int) -> Tensor:
    """CAB Nystrom (#11), not causal self: `softmax(Q K~^T) pinv(softmax(Q~ K~^T)) softmax(Q~ K^T) V`.

    Landmarks are segment means of queries and keys; a sequence no longer than their number is attended to exactly. The
    released code scales q and k by D^-1/2 *each*: so the scores
    have D^-1, which is kept here.
    """
    k, v = share(k, q.shape[1]), share(v, q.shape[1])
    scale = 1 / q.shape[-1]
    if q.shape[2] <= count:
        return softmax(scores(q, k, scale)) @ v
    q_bar, k_bar = segment_means(q, count), segment_means(k, count)
    first = softmax(scores(q, k_bar, scale))
    middle = iterative_inverse(softmax(scores(q_bar, k_bar, scale)))
    return first @ middle @ (softmax(scores(q_bar, k, scale)) @ v)


def probsparse(q: Tensor, k: Tensor, v: Tensor, chosen: Tensor) -> Tensor:
    """CAB ProbSparse (#11), not causal self: chosen rows [B, H, Tq] attend, the others get the mean of the values."""
    o, _ = attend(scores(q, k), v)
    return torch.where(chosen[..., None], o, share(v, q.shape[1]).mean(2, keepdim=True))


def probsparse_rows(q: Tensor, k: Tensor, sample: Tensor, count: int) -> Tensor:
    """The rows ProbSparse chooses: `count` largest of `max - sum / Tk` over the sampled keys `sample[Tq, U]`. No scale.

    [B, H, Tq] of booleans. The divisor is the number of all the keys, not of the sample.
    """
    s = scores(q, k, 1.0)
    drawn = torch.stack([s[:, :, i, sample[i]] for i in range(q.shape[2])], 2)
    measure = drawn.amax(-1) - drawn.sum(-1) / k.shape[2]
    best = torch.argsort(-measure, dim=-1, stable=True)[..., :count]
    return torch.zeros_like(measure, dtype=torch.bool).scatter(-1, best, True)


def long_short(q: Tensor, k: Tensor, v: Tensor, logits: Tensor, window: int, norm: bool) -> Tensor:
    """CAB Long-Short (#11), not causal self: one softmax over r compressed tokens and a window of blocks.

    `P = softmax_t(logits)`, logits[B, H, T, r]; `K~ = P^T K`, `V~ = P^T V`, then with `norm` a layer norm over all
    heads' features of a slot. Query i of block i // w sees keys from w // 2 before its block to w // 2 after. As many
    key heads as query heads.
    """
    n, group = q.shape[2], torch.arange(q.shape[2]) // window
    share_of = softmax(logits.transpose(-1, -2))
    short = [share_of @ x for x in (k, v)]
    if norm:
        short = [
            layer_norm(x.transpose(1, 2).flatten(2), 1e-5).unflatten(2, (x.shape[1], -1)).transpose(1, 2)
            for x in short
        ]
    edge = max(window // 2, 1)
    j = torch.arange(n)[None]
    near = (j >= (group * window - edge)[:, None]) & (j < ((group + 1) * window + edge)[:, None])
    keep = torch.cat((torch.ones(n, logits.shape[-1], dtype=torch.bool), near), 1)
    return attend(scores(q, torch.cat((short[0], k), 2)), torch.cat((short[1], v), 2), keep)[0]
