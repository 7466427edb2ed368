"""Group F of the papers, defined by hand: cascades other than one softmax. FuseMax, MossFormer2, Aaren and Combiner.

Plain functions in float64, step by step as in each paper; nothing here reads a program of `ir/`. The other papers of
the group are in `group_f_sources` (more than one source of keys), `group_f_cab` and `group_f_pooling`.
"""

from __future__ import annotations

import math

import torch

from tests.papers.group_common import Tensor, causal, scores, share, softmax


def fusemax_three_pass(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    """FuseMax (#78), three passes over the keys m: `GM = max_m QK`, then `SD = sum_m exp(QK - GM)`, then `AV`.

    The weights are divided before the product with V: M * P divisions. A row that sees nothing gives 0.
    """
    qk, v = scores(q, k), share(v, q.shape[1])
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for b, h, p in _rows(qk):
        seen = [m for m in range(k.shape[2]) if keep[p, m]]
        if not seen:
            continue
        greatest = max(float(qk[b, h, p, m]) for m in seen)
        total = sum(math.exp(float(qk[b, h, p, m]) - greatest) for m in seen)
        for m in seen:
            out[b, h, p] += math.exp(float(qk[b, h, p, m]) - greatest) / total * v[b, h, m]
    return out


def fusemax_two_pass(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, tile: int) -> Tensor:
    """FuseMax (#78), two passes: a maximum and a denominator for each tile m1, corrected to the greatest maximum after.

    Pass 1: `LM[m1] = max_m0 QK`, `LD[m1] = sum_m0 exp(QK - LM)`; then `GM = max LM`, `SD = sum LD exp(LM - GM)`.
    Pass 2: `AV = sum_m exp(QK - GM) V / SD`.
    """
    qk, v = scores(q, k), share(v, q.shape[1])
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for b, h, p in _rows(qk):
        maxima: list[float] = []
        denominators: list[float] = []
        for seen in _tiles(keep[p], tile):
            maxima.append(max(float(qk[b, h, p, m]) for m in seen))
            denominators.append(sum(math.exp(float(qk[b, h, p, m]) - maxima[-1]) for m in seen))
        if not maxima:
            continue
        greatest = max(maxima)
        total = sum(d * math.exp(m - greatest) for m, d in zip(maxima, denominators, strict=True))
        for seen in _tiles(keep[p], tile):
            for m in seen:
                out[b, h, p] += math.exp(float(qk[b, h, p, m]) - greatest) * v[b, h, m]
        out[b, h, p] /= total
    return out


def fusemax_one_pass(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, tile: int) -> Tensor:
    """FuseMax (#78), one pass: running maximum RM, denominator RD and numerator RNV, rescaled by PRM at each tile.

    `RM' = max(RM, LM)`, `PRM = exp(RM - RM')`, `RD' = PRM RD + sum exp(QK - RM')`, likewise RNV; `AV = RNV / RD`.
    """
    qk, v = scores(q, k), share(v, q.shape[1])
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for b, h, p in _rows(qk):
        running, denominator, numerator = -math.inf, 0.0, torch.zeros(v.shape[-1], dtype=q.dtype)
        for seen in _tiles(keep[p], tile):
            raised = max(running, *(float(qk[b, h, p, m]) for m in seen))
            rescale = math.exp(running - raised)
            denominator *= rescale
            numerator *= rescale
            for m in seen:
                weight = math.exp(float(qk[b, h, p, m]) - raised)
                denominator += weight
                numerator += weight * v[b, h, m]
            running = raised
        if denominator:
            out[b, h, p] = numerator / denominator
    return out


def _rows(s: Tensor) -> list[tuple[int, int, int]]:
    return [(b, h, p) for b in range(s.shape[0]) for h in range(s.shape[1]) for p in range(s.shape[2])]


def _tiles(keep: Tensor, tile: int) -> list[list[int]]:
    """The kept keys of each tile that has any."""
    cut = [range(m, min(m + tile, len(keep))) for m in range(0, len(keep), tile)]
    return [seen for one in cut if (seen := [m for m in one if keep[m]])]


def mossformer(
    q1: Tensor, k1: Tensor, q2: Tensor, k2: Tensor, v: Tensor, u: Tensor, chunk: int, is_causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """MossFormer2 (#58): quadratic relu^2 inside chunks plus a linear part over the sequence, for two values v and u.

    `A = relu(q1 k1^T / g)^2` in chunks of g, no normaliser, masked 0. Linear: `q2 (sum_n k2 v^T) / n` with n the true
    length, or causal: the sum over *earlier chunks* (exclusive) of `k2^T v / g`. A short last chunk still divides
    by g. Returns att_v, att_u and `(att_u v) sigmoid(att_v u)`; all of [B, H, T, .], rotary embedding already done.
    """
    n, out = q1.shape[2], []
    for value in (v, u):
        o = torch.zeros_like(value)
        for first in range(0, n, chunk):
            here = slice(first, min(first + chunk, n))
            size = here.stop - first
            a = torch.relu(q1[:, :, here] @ k1[:, :, here].transpose(-1, -2) / chunk) ** 2
            if is_causal:
                a = a * torch.tril(torch.ones(size, size, dtype=a.dtype))
            state = torch.zeros(*value.shape[:2], k2.shape[-1], value.shape[-1], dtype=value.dtype)
            for j in range(first if is_causal else n):
                state += k2[:, :, j, :, None] * value[:, :, j, None, :]
            o[:, :, here] = a @ value[:, :, here] + q2[:, :, here] @ state / (chunk if is_causal else n)
        out.append(o)
    att_v, att_u = out
    return att_v, att_u, (att_u * v) * torch.sigmoid(att_v * u)


def aaren(query: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as an RNN (#71): all prefix outputs `o_t = w_t / u_t` of one learned query a head, by a scan.

    Leaves `(s_t, 1, v_t)`, `(m1, u1, w1) + (m2, u2, w2) = (m, u1 e^(m1 - m) + u2 e^(m2 - m), ...)`, m the maximum.
    Equals causal attention whose queries are all the same. query[H, D]; output [B, H, T, Dv]. Scale as usual.
    """
    k, v = share(k, len(query)), share(v, len(query))
    s = torch.einsum("hd,bhtd->bht", query, k) * float(query.shape[-1]) ** -0.5
    top, u, w = s[:, :, 0], torch.ones_like(s[:, :, 0]), v[:, :, 0]
    out = [w / u[..., None]]
    for t in range(1, k.shape[2]):
        m = torch.maximum(top, s[:, :, t])
        old, new = torch.exp(top - m), torch.exp(s[:, :, t] - m)
        top, u, w = m, u * old + new, w * old[..., None] + v[:, :, t] * new[..., None]
        out.append(w / u[..., None])
    return torch.stack(out, 2)


def combiner_fixed(
    q: Tensor, k: Tensor, v: Tensor, segment: int, is_causal: bool, pool: str = "max"
) -> tuple[Tensor, Tensor]:
    """Combiner-Fixed (#4): own segment exactly, one summary key and value for each other one, in one softmax.

    `qbar, kbar = pool(Q_s), pool(K_s)` (max or mean), `vbar_s = softmax(qbar K_s^T) V_s`. Causal: keys j <= i of the
    own segment, and earlier segments; else the own segment whole and all others. Pooled queries are those of each
    query head. Returns the output and the implied full matrix, `p(span) p(j | span)`: its rows sum to 1.
    """
    k, v = share(k, q.shape[1]), share(v, q.shape[1])
    n = q.shape[2]
    cuts = [range(j, min(j + segment, n)) for j in range(0, n, segment)]

    def pooled(x: Tensor) -> list[Tensor]:
        return [x[:, :, list(c)].amax(2) if pool == "max" else x[:, :, list(c)].mean(2) for c in cuts]

    q_bar, k_bar = pooled(q), torch.stack(pooled(k), 2)
    inside = [softmax(scores(q_bar[j][:, :, None], k[:, :, list(c)])) for j, c in enumerate(cuts)]
    full = torch.zeros(*q.shape[:2], n, n, dtype=q.dtype)
    for i in range(n):
        own = i // segment
        exact = [j for j in cuts[own] if j <= i or not is_causal]
        spans = [j for j in range(len(cuts)) if (j < own if is_causal else j != own)]
        keys = torch.cat((k[:, :, exact], k_bar[:, :, spans]), 2)
        p = softmax(scores(q[:, :, i : i + 1], keys))[:, :, 0]
        full[:, :, i, exact] = p[..., : len(exact)]
        for place, j in enumerate(spans):
            full[:, :, i, list(cuts[j])] = p[..., len(exact) + place, None] * inside[j][:, :, 0]
    return full @ v, full


def combiner_axial(q: Tensor, k: Tensor, v: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Combiner-Axial, causal (#4), of T = rows x columns tokens: five groups of logits in one softmax.

    For the query at (r, c): keys (r' < r, c); keys (r, c' <= c); every other column c' above, by the sum of its keys;
    every earlier row r' left of c, and right of c, by the sums of those keys. A span's value is softmax inside the
    span by the sum of its queries (the sum that ends the span). The code says "cummax" and takes sums. Earlier tokens
    off the cross are in two spans each. Returns the output and the implied matrix, whose rows sum to 1.
    """
    k, v = share(k, q.shape[1]), share(v, q.shape[1])
    n = q.shape[2]
    full = torch.zeros(*q.shape[:2], n, n, dtype=q.dtype)
    for i in range(n):
        r, c = divmod(i, columns)
        exact = [y * columns + c for y in range(r)] + [r * columns + x for x in range(c + 1)]
        spans = [[y * columns + x for y in range(r)] for x in range(columns) if x != c]
        for y in range(r):
            spans += [[y * columns + x for x in range(c)], [y * columns + x for x in range(c + 1, columns)]]
        spans = [span for span in spans if span]
        keys = [k[:, :, exact], *(k[:, :, span].sum(2, keepdim=True) for span in spans)]
        p = softmax(scores(q[:, :, i : i + 1], torch.cat(keys, 2)))[:, :, 0]
        full[:, :, i, exact] += p[..., : len(exact)]
        for place, span in enumerate(spans):
            inside = softmax(scores(q[:, :, span].sum(2, keepdim=True), k[:, :, span]))[:, :, 0]
            full[:, :, i, span] += p[..., len(exact) + place, None] * inside
    return full @ v, full


def combiner_rows(q: Tensor, k: Tensor, v: Tensor, columns: int, mixed_keys: bool) -> tuple[Tensor, Tensor]:
    """Combiner-Rowmajor, causal (#4): own row up to the query, and of each earlier row the mixed token of its column.

    First every row attends fully within itself (both directions, no mask): `Vm`, and `Km` likewise or, without
    `mixed_keys`, K itself. Then (r, c) has one softmax over keys (r, c' <= c) and the mixed (r' < r, c).
    """
    k, v = share(k, q.shape[1]), share(v, q.shape[1])
    n = q.shape[2]
    row = torch.arange(n) // columns
    own = softmax(scores(q, k), row[:, None] == row[None])
    k_mixed = own @ k if mixed_keys else k
    full = torch.zeros_like(own)
    for i in range(n):
        exact = [j for j in range(i + 1) if row[j] == row[i]]
        above = list(range(i % columns, i - i % columns, columns))
        p = softmax(scores(q[:, :, i : i + 1], torch.cat((k[:, :, exact], k_mixed[:, :, above]), 2)))[:, :, 0]
        full[:, :, i, exact] += p[..., : len(exact)]
        for place, j in enumerate(above):
            full[:, :, i] += p[..., len(exact) + place, None] * own[:, :, j]
    return full @ v, full


def cross_pattern(n_q: int, n_k: int, is_causal: bool, is_cross: bool) -> Tensor:
    """CAB's four patterns (#11). Causal cross: queries come one by one, all keys are there: nothing is masked."""
    return causal(n_q, n_k) if is_causal and not is_cross else torch.ones(n_q, n_k, dtype=torch.bool)
