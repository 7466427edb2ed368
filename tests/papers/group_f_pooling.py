"""Group F of the papers, defined by hand: learned queries that pool a sequence, sets, channels and lags, in float64."""

from __future__ import annotations

import torch

from tests.papers.group_common import Tensor, attend, scores, share, softmax


def lama(states: Tensor, context: Tensor, p: Tensor, q: Tensor, keep: Tensor) -> Tensor:
    """LAMA (#77): m heads pool the states by a score of rank r, `s[j, t] = sum_x (P_jx . c) (Q_jx . h_t)`. [B, m, F].

    p[m, r, C], q[m, r, F], context[B, C], keep[B, T]. No scale. Equals one query `sum_x (P_jx . c) Q_jx` a head.
    """
    s = torch.einsum("jxc,bc,jxf,btf->bjt", p, context, q, states)
    return torch.einsum("bjt,btf->bjf", softmax(s, keep[:, None]), states)


def acmil(
    x: Tensor, w_v: Tensor, b_v: Tensor, w_u: Tensor, b_u: Tensor, w: Tensor, dropped: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """ACMIL (#30): K branches pool N instances by a gated score of the instance alone, some instances dropped.

    `A = w (tanh(V x + b) sigmoid(U x + b'))` [B, K, N], -inf where `dropped[B, K, N]` (the code: -1e9), softmax over
    instances; branch features `A x`, and the bag's `(mean_K softmax(A)) x`. w_v, w_u [J, F], w[K, J]. Returns branch
    features [B, K, F], bag features [B, F] and the masked logits.
    """
    hidden = torch.tanh(x @ w_v.T + b_v) * torch.sigmoid(x @ w_u.T + b_u)
    logits = torch.einsum("kj,bnj->bkn", w, hidden).masked_fill(dropped, -torch.inf)
    a = softmax(logits)
    return a @ x, (a.mean(1, keepdim=True) @ x)[:, 0], logits


def acmil_dropped(logits: Tensor, order: Tensor, top: int, share_of: float) -> Tensor:
    """What ACMIL drops in training: of each branch's `top` largest logits, int(top * share) at random.

    order[B, K, top] is a permutation a branch; its first entries say which of the largest go.
    """
    top = min(top, logits.shape[-1])
    best = torch.argsort(-logits, dim=-1, stable=True)[..., :top]
    gone = best.gather(-1, order[..., : int(top * share_of)])
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, gone, True)


def apem(
    inducing: Tensor, q: Tensor, k: Tensor, v: Tensor, w_k: Tensor, w_v: Tensor
) -> tuple[Tensor, Tensor]:
    """APEM (#31): set attention through J inducing points, two cross attentions; our reading of the abstract.

    `H = softmax(I K^T / sqrt(D)) V`, then `Y = softmax(Q (H w_k)^T / sqrt(D)) (H w_v)`. inducing[Hq, J, D], w_k
    [Hq, Dv, D], w_v[Hq, Dv, Dv']. Residuals and feed-forward layers are outside. Returns Y and H.
    """
    points, _ = attend(scores(inducing.expand(q.shape[0], *inducing.shape), k), v)
    return attend(scores(q, points @ w_k), points @ w_v)[0], points


def squeeze_excite(y: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """APEM's channel gate (#31): `y sigmoid(W2 relu(W1 mean_t y))`. y[B, T, C], w1[R, C], w2[C, R]."""
    gate = torch.sigmoid(torch.relu(y.mean(1) @ w1.T) @ w2.T)
    return y * gate[:, None]


def aw_moe(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, w_query: Tensor, w_key: Tensor, bias: Tensor, w_out: Tensor,
    b_out: float,
) -> Tensor:  # fmt: skip
    """AW-MoE (#26): `g = sum_t a(h_t, target) G(h_t)`, `a = w . relu(W [h_t; target] + b) + b'`, no normaliser.

    q is the target item (one row), k the behaviours, v = G(h) their gates. W is split in w_key and w_query [J, D].
    Padding has weight 0.
    """
    hidden = torch.einsum("jd,bhkd->bhkj", w_key, share(k, q.shape[1]))[:, :, None]
    hidden = hidden + torch.einsum("jd,bhqd->bhqj", w_query, q)[:, :, :, None] + bias
    a = torch.einsum("j,bhqkj->bhqk", w_out, torch.relu(hidden)) + b_out
    return (a * keep) @ share(v, q.shape[1])


def position_attention(q: Tensor, k: Tensor, v: Tensor, x: Tensor, gamma: float) -> Tensor:
    """Dual attention, position (#84): `gamma softmax(B C^T) D + X` over all voxels. No scale; gamma starts at 0."""
    return gamma * attend(scores(q, k, 1.0), v)[0] + x


def channel_attention(x: Tensor, beta: float, flipped: bool) -> Tensor:
    """Dual attention, channels (#84): `beta softmax(E) X + X`, `E = X X^T` between channels, summed over tokens.

    x[B, H, T, C]; softmax over the second channel, no scale. `flipped`: some codes take softmax of `max(E) - E`, the
    maximum of each row, which turns the order around.
    """
    e = torch.einsum("bhtc,bhtd->bhcd", x, x)
    if flipped:
        e = e.amax(-1, keepdim=True) - e
    return beta * torch.einsum("bhcd,bhtd->bhtc", softmax(e), x) + x


def extractor(x: Tensor, current: Tensor, kind: str, weights: Tensor | None) -> Tensor:
    """Extractors (#75), from memory: `y_t = current_t sum_lag W_lag x_(t - lag)`, causal, weights of the lag alone.

    SHE: weights[L, C, C] matrices, HE: [L, C] vectors, WE: [L] numbers, ME: none, a plain sum. Lags of L or more do not
    occur. x, current [B, T, C], current the projection of the current token.
    """
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        for lag in range(t + 1):
            past = x[:, t - lag]
            if kind == "SHE" and weights is not None:
                past = past @ weights[lag].T
            elif weights is not None:
                past = past * weights[lag]
            out[:, t] += past
    return out * current
