"""Group C of the papers, defined by hand: softmax attention with other scores, or another normaliser.

Plain functions in float64, step by step as in each paper; nothing here reads a program of `ir/`.
"""

from __future__ import annotations

import math

import torch

from tests.papers.group_common import Tensor, attend, mix, positions, scores, share, softmax


def nope(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """No positional encoding (#21): `softmax(Q K^T / sqrt(D)) V`. Position enters through the mask alone."""
    return attend(scores(q, k), v, keep)


def alibi_slopes(heads: int) -> Tensor:
    """Slopes 2^(-8 h / H), h = 1..H, for H a power of two.

    For any other H: those of the next lower power of two, then every second slope of twice that.
    """
    lower = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * h / lower) for h in range(1, lower + 1)]
    slopes += [2.0 ** (-8 * h / (2 * lower)) for h in range(1, 2 * lower + 1, 2)]
    return torch.tensor(slopes[:heads], dtype=torch.float64)


def alibi(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """ALiBi (#21): `S - m_h (i - k)`, i the position of the query (bottom right), m_h the slope of the query head.

    The causal form: a key after the query would get a bonus, and the mask has to drop it.
    """
    s = scores(q, k)
    i, j = positions(q.shape[2], k.shape[2])
    for h in range(q.shape[1]):
        s[:, h] -= slopes[h] * (i - j)
    return attend(s, v, keep)


def t5_bucket(distance: int, bidirectional: bool = False, buckets: int = 32, furthest: int = 128) -> int:
    """T5's bucket of the distance `i - k` (#21): exact up to half of the buckets, then logarithmic up to `furthest`.

    The half `e` is exact, then `e + floor((n_buckets - e) ln(n / e) / ln(furthest / e))`, at most the last bucket.
    Bidirectional: half of the buckets for each sign, keys after the query (i - k < 0) in the upper half. The floor is
    taken on integers here, `(n / e)^steps >= (furthest / e)^s`: in floating point it is fragile at powers of two.
    """
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if distance < 0 else 0
        n = abs(distance)
    else:
        n = max(distance, 0)
    exact = buckets // 2
    if n < exact:
        return first + n
    steps, step = buckets - exact, 0
    while step + 1 < steps and n**steps * exact ** (step + 1) >= furthest ** (step + 1) * exact**steps:
        step += 1
    return first + exact + step


def t5_buckets(furthest: int = 128, bidirectional: bool = False, buckets: int = 32) -> Tensor:
    """The host's table of buckets: entry `far + furthest` for distances from -furthest to furthest."""
    at = range(-furthest, furthest + 1)
    return torch.tensor([t5_bucket(n, bidirectional, buckets, furthest) for n in at])


def t5(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor | None,
    table: Tensor,
    bidirectional: bool,
    furthest: int = 128,
) -> tuple[Tensor, Tensor]:
    """T5's relative bias (#21): `<q, k> + table[bucket(i - k), h]`. T5 uses scale 1, and one table for all layers."""
    s = scores(q, k, 1.0)
    for row, i in enumerate(range(k.shape[2] - q.shape[2], k.shape[2])):
        for j in range(k.shape[2]):
            s[:, :, row, j] += table[t5_bucket(i - j, bidirectional, len(table), furthest)]
    return attend(s, v, keep)


def rotate(x: Tensor, at: Tensor, dims: int, base: float, interleaved: bool) -> Tensor:
    """Rotate the pairs of the first `dims` features by `at * base^(-2 j / dims)`: (2j, 2j+1) or (j, j + dims / 2)."""
    out = x.clone()
    for j in range(dims // 2):
        a, b = (2 * j, 2 * j + 1) if interleaved else (j, j + dims // 2)
        angle = at.double() * base ** (-2 * j / dims)
        out[..., a] = x[..., a] * torch.cos(angle) - x[..., b] * torch.sin(angle)
        out[..., b] = x[..., a] * torch.sin(angle) + x[..., b] * torch.cos(angle)
    return out


def rope(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, dims: int, base: float, interleaved: bool
) -> tuple[Tensor, Tensor]:
    """RoPE (#21): `<R_i q, R_k k>`, queries rotated at their position i (bottom right), keys at k, values not.

    `dims` < D leaves the last features as they are; the two pairings are different operators.
    """
    i, j = positions(q.shape[2], k.shape[2])
    turned = rotate(q, i[:, 0], dims, base, interleaved), rotate(k, j[0], dims, base, interleaved)
    return attend(scores(*turned), v, keep)


def sigmoid_attention(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, bias: float) -> Tensor:
    """FlashSigmoid (#73): `sum_k sigmoid(S + b) v`, no row normaliser; b = -ln(Tk) is advised. Masked: weight 0."""
    a = torch.sigmoid(scores(q, k) + bias)
    return mix(a if keep is None else a * keep, v)


def relu_features(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, count: int) -> Tensor:
    """Random-feature attention layer (#80): `(1 / N) sum_k relu(S) v`, N = `count` the length of the context.

    No maximum and no row sum; N does not depend on the mask, which may exclude the query's own token.
    """
    a = torch.relu(scores(q, k))
    return mix(a if keep is None else a * keep, v) / count


def entropy_scale(q: Tensor, k: Tensor, v: Tensor, trained: int) -> tuple[Tensor, Tensor]:
    """Variable-sized T2I (#59): `lambda <q, k> / sqrt(d)`, `lambda = sqrt(ln N / ln T)`, N keys now, T in training."""
    stretch = math.sqrt(math.log(k.shape[2]) / math.log(trained))
    return attend(stretch * scores(q, k), v)


def act_sinks(a: Tensor, keep: Tensor, tau: float) -> Tensor:
    """ACT's sinks of one head: columns whose mean over the rows that see them exceeds tau, without the first one."""
    seen = keep.expand_as(a).sum(0)
    mean = a.sum(0) / seen.clamp(min=1)
    return torch.nonzero(mean > tau)[1:, 0]


def act(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, tau: float, beta: float, chosen: Tensor
) -> tuple[Tensor, Tensor]:
    """ACT (#74): in chosen heads, sinks keep `beta` of their weight; the rest of a row shares what is freed.

    `A' = beta A` for k in P, else `A + (1 - beta) sigma A / (1 - sigma)`, sigma the row's mass on P. Column means
    divide by the number of rows that see the column, tau is absolute, the first sink is dropped. Row 0 needs no
    exception: it sees key 0 only, which is never in P. This is not a score bias of log(beta). Returns output and new
    weights.
    """
    a = softmax(scores(q, k), keep)
    for b in range(a.shape[0]):
        for h in range(a.shape[1]):
            if not chosen[h]:
                continue
            sinks = act_sinks(a[b, h], keep, tau)
            freed = (1 - beta) * a[b, h][:, sinks].sum(1)
            others = a[b, h].clone()
            others[:, sinks] = 0
            share_of_others = others / others.sum(1, keepdim=True)
            a[b, h][:, sinks] *= beta
            a[b, h] += freed[:, None] * share_of_others
    return mix(a, v), a


def dgq_exponents(a: Tensor, step: Tensor, bits: int) -> Tensor:
    """Before rounding and clipping: how many halvings of `step` (one a head) a weight is."""
    return (-torch.log2(a / step[:, None, None])).clamp(-1, 2.0**bits)


def dgq(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, step: Tensor, bits: int) -> Tensor:
    """DGQ (#52): `A = s 2^-clip(round(-log2(A / s)), 0, 2^b - 1)` for all keys but key 0, which keeps its weight.

    The rows are not normalised again. A masked key must stay at 0: quantised, it would get s 2^-(2^b - 1). Rounding
    is fragile where -log2(A / s) is near a half (see `dgq_exponents`).
    """
    a = softmax(scores(q, k), keep)
    e = torch.clamp(torch.round(dgq_exponents(a, step, bits)), 0, 2**bits - 1)
    coarse = step[:, None, None] * 2.0**-e
    coarse[..., 0] = a[..., 0]
    return mix(coarse if keep is None else coarse * keep, v)


def gat(
    x: Tensor, w: Tensor, a_query: Tensor, a_key: Tensor, adjacency: Tensor, slope: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Graph attention of GA-MATR (#37): `h = W x`, `S = LeakyReLU(a1 . h_q + a2 . h_k)`, softmax over neighbours.

    A node is its own neighbour whatever `adjacency[B, T, T]` says. w[H, D, F], a_query and a_key [H, D]; outputs of
    heads stay apart [B, H, T, D] (the layer concatenates or averages them). No scale.
    """
    n = x.shape[1]
    h = torch.einsum("hdf,btf->bhtd", w, x)
    left = torch.einsum("hd,bhtd->bht", a_query, h)
    right = torch.einsum("hd,bhtd->bht", a_key, h)
    s = torch.nn.functional.leaky_relu(left[:, :, :, None] + right[:, :, None, :], slope)
    keep = adjacency | torch.eye(n, dtype=torch.bool)
    return attend(s, h, keep[:, None])


def perturbed(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, w_query: Tensor | None, w_key: Tensor, w_out: Tensor,
    shift: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Attention meets perturbations (#85): `S = w . tanh(W1 k + W2 q) + r`, softmax over tokens that are not padding.

    Text classification has no query term (w_query None); r[B, Tq, Tk] is the adversarial shift, 0 in the first pass.
    w_key[J, D], w_query[J, D], w_out[J]; one row of queries. No scale.
    """
    inner = torch.einsum("jd,bhkd->bhkj", w_key, share(k, q.shape[1]))[:, :, None]
    if w_query is not None:
        inner = inner + torch.einsum("jd,bhqd->bhqj", w_query, q)[:, :, :, None]
    s = torch.einsum("j,bhqkj->bhqk", w_out, torch.tanh(inner)) + shift[:, None]
    return attend(s.expand(*q.shape[:3], k.shape[2]), v, keep)


def attack(gradient: Tensor, size: float) -> Tensor:
    """The shift of Attention AT (#85): `xi g / ||g||_2`, the norm over each sequence's scores (last axis)."""
    return size * gradient / gradient.norm(dim=-1, keepdim=True)


def vsformer(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, prior: Tensor, form: str, gamma: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Prior-enhanced attention of VSFormer (#35), three forms of one prior P: which one the paper has is unconfirmed.

    "log": `S + ln P[q, k]` (P = 0 drops the pair); "add": `S + gamma P[k]`; "product": `S P[q, k]`. P[B, Tq, Tk], or
    P[B, Tk] in the second.
    """
    s = scores(q, k)
    if form == "log":
        s = s + torch.log(prior)[:, None]
    elif form == "add":
        s = s + gamma * prior[:, None, None]
    else:
        s = s * prior[:, None]
    return attend(s, v, keep)


def boosted(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, local: Tensor, summary: Tensor, gain: Tensor, alpha: float,
    beta: float, start: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Fixing imbalanced attention (#3): `S + gamma_h (alpha [k in L] + beta [k in G]) |S|` in rows being decoded.

    L = `local[B, Tk]` and G = `summary[B, Tk]` are sets of image tokens, gain[H] is gamma, and rows at positions from
    `start` on are decoded; others are left alone. The boost follows |S|, so it never lowers a score.
    """
    s = scores(q, k)
    i, _ = positions(q.shape[2], k.shape[2])
    strength = alpha * local.double() + beta * summary.double()
    boost = gain[None, :, None, None] * strength[:, None, None, :] * s.abs()
    return attend(torch.where(i >= start, s + boost, s), v, keep)


def anchored(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, first: Tensor, second: Tensor, chosen: Tensor
) -> tuple[Tensor, Tensor]:
    """Anchored answers (#16): in the last row of chosen heads, keys `first[B]` and `second[B]` swap their weights.

    After the softmax, so the row still sums to 1. Equals `O + (A[k2] - A[k1]) (v_k1 - v_k2)`. Returns output, weights.
    """
    a = softmax(scores(q, k), keep)
    for b in range(a.shape[0]):
        for h in range(a.shape[1]):
            if chosen[h]:
                one, two = int(first[b]), int(second[b])
                a[b, h, -1, [one, two]] = a[b, h, -1, [two, one]]
    return mix(a, v), a
