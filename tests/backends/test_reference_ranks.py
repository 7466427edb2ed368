"""The oracle on Einsums of any ranks: each against the same formula written in torch."""

from __future__ import annotations

import math

import pytest
import torch

from attngen import arguments
from attngen.backends.reference import evaluate_einsums, reference
from attngen.errors import ParameterError, ShapeError, UnexpectedArgumentError, UnsupportedError
from attngen.lang.desugar import desugar
from attngen.lang.library import load_cascade
from attngen.lang.link import link
from attngen.lang.parse import parse_program
from attngen.lang.program import Program

B, H, G, N_Q, N_K, D, E = 2, 4, 2, 7, 9, 6, 5
INF = math.inf
SOFTMAX = (
    "S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale\nM[q] = max[k](S[q, k])\nA[q, k] = exp(S[q, k] - M[q])\n"
)
CAUSAL = "mask = k <= pos(q)\n"


def program(text: str) -> Program:
    return desugar(link(parse_program(text), load_cascade))


def inputs() -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    shapes = [(B, H, N_Q, D), (B, G, N_K, D), (B, G, N_K, E)]
    return tuple(torch.randn(s, generator=g, dtype=torch.float64) for s in shapes)


def grown() -> tuple[torch.Tensor, ...]:
    """The inputs, keys and values at their query heads, the scores and the causal pairs."""
    q, k, v = inputs()
    k, v = k.repeat_interleave(H // G, 1), v.repeat_interleave(H // G, 1)
    keep = torch.arange(N_K)[None] <= torch.arange(N_Q)[:, None] + (N_K - N_Q)
    return q, k, v, q @ k.transpose(-1, -2) * 0.3, keep


def run(text: str, tensors: dict | None = None, **params: object) -> dict[str, torch.Tensor]:
    p = program(text)
    return reference(p, *inputs(), tensors=tensors or {}, params={"scale": 0.3, **params})


def same(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got, want.double(), atol=1e-12, rtol=1e-12)


def test_sums_of_columns_count_only_kept_pairs_and_rank_order_is_the_targets():
    _, _, _, s, keep = grown()
    got = run(CAUSAL + SOFTMAX + "C[k] = sum[q](A[q, k])\nT[k, q] = S[q, k]\nreturn C, T")
    s = s.masked_fill(~keep, -INF)
    same(got["C"], (s - s.amax(-1, keepdim=True)).exp().sum(-2))
    same(got["T"], s.masked_fill(~keep, 0.0).transpose(-1, -2))


def test_softmax_over_the_queries_of_a_key():
    _, _, v, s, keep = grown()
    text = (
        "mask = (k <= pos(q)) & (k != 3)\nS[q, k] = sum[d](Q[q, d] * K[k, d]) * scale\nM[k] = max[q](S[q, k])\n"
        "Z[k] = sum[q](exp(S[q, k] - M[k]))\nO[q, e] = sum[k](exp(S[q, k] - M[k]) / Z[k] * V[k, e])\nreturn O, M"
    )
    got = run(text)
    keep = keep & (torch.arange(N_K) != 3)
    weights = s.masked_fill(~keep, -INF).softmax(-2).nan_to_num(0.0)
    same(got["O"], weights @ v)
    assert (got["M"][:, :, 3] == -INF).all()


def test_what_is_not_of_pairs_is_not_masked():
    q, k, v, _, keep = grown()
    text = (
        "F[k, d] = max(K[k, d], 0.0)\nKV[d, e] = sum[k](F[k, d] * V[k, e])\nO[q, e] = sum[d](Q[q, d] * KV[d, e])\n"
        "norm[k] = sum[d](K[k, d] * K[k, d])\nN[q] = sum[k](1.0)\nbig[q] = max[k](norm[k])\n"
        "all_big[()] = max[k](norm[k])\n"
        "mean[()] = sum[q](N[q]) / n_q\ntotal[()] = sum[q](sum[k](1.0))\njoint[()] = sum[q, k](1.0 * k)\n"
        "return F, KV, O, N, big, all_big, mean, total, joint"
    )
    got = run(CAUSAL + text)
    f = k.clamp(min=0)
    same(got["F"], f)
    same(got["KV"], f.transpose(-1, -2) @ v)
    same(got["O"], q @ (f.transpose(-1, -2) @ v))
    norm = (k * k).sum(-1)
    same(got["big"], norm[:, :, None].expand(B, H, N_Q, N_K).masked_fill(~keep, -INF).amax(-1))
    same(got["all_big"], norm.amax(-1))
    counts = keep.sum(-1).double()
    same(got["N"], counts.expand(B, N_Q))
    same(got["mean"], counts.mean().expand(B))
    same(got["total"], counts.sum().expand(B))
    same(got["joint"], (keep * torch.arange(N_K)).sum().expand(B))


def test_a_pair_that_is_dropped_reads_as_nothing():
    _, _, _, s, keep = grown()
    text = CAUSAL + SOFTMAX + "B[q, k] = 1.0 - A[q, k]\nX[q, k] = B[q, k + 1]\nreturn S, B, X"
    got = run(text)
    a = (s.masked_fill(~keep, -INF) - s.masked_fill(~keep, -INF).amax(-1, keepdim=True)).exp()
    same(got["S"], s.masked_fill(~keep, -INF))
    same(got["B"], (1 - a).masked_fill(~keep, 0.0))
    following = torch.cat([got["B"][..., 1:], got["B"][..., -1:]], -1)
    same(got["X"], following.masked_fill(~keep, 0.0))


def test_bins_of_keys():
    _, _, _, s, keep = grown()
    span = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 0, 5], [2, 2, 2, 0, 0, 1, 1, 1, 1]])
    text = "span[b, k]: int\nj: rank\n" + CAUSAL + SOFTMAX
    text += "m[q, j] = sum[k](A[q, k] * where(span[b, k] == j, 1.0, 0.0))\nreturn m"
    a = (s.masked_fill(~keep, -INF) - s.masked_fill(~keep, -INF).amax(-1, keepdim=True)).exp()
    hot = torch.nn.functional.one_hot(span, 6)[:, None, :, :3].double()
    same(run(text, {"span": span}, j=3)["m"], a @ hot)


def test_topk_descends_ties_go_to_the_smaller_key_and_what_is_missing_is_marked():
    value = torch.tensor([[1.0, 5.0, 5.0, -INF, 2.0, 5.0, 0.0, 1.0, 9.0]] * N_Q)
    text = (
        "x[q, k]: float\nj: rank = 4\nmask = k < q\nT[q, j] = topk[k](x[q, k], j)\nI[q, j] = argtopk[k](x[q, k], j)\n"
        "last[q] = topk[k](x[q, k], q - 2)\nbest[q] = argmax[k](x[q, k])\nnone[q] = argtopk[k](x[q, k], -1)\n"
        "return T, I, last, best, none"
    )
    got = {name: out[0] for name, out in run(text, {"x": value}).items()}
    assert got["I"].tolist() == [
        [-1, -1, -1, -1],
        [0, -1, -1, -1],
        [1, 0, -1, -1],
        [1, 2, 0, -1],
        [1, 2, 0, -1],
        [1, 2, 4, 0],
        [1, 2, 5, 4],
    ]
    assert got["T"][2].tolist() == [5, 1, -INF, -INF]
    assert got["T"][6].tolist() == [5, 5, 5, 2]
    assert got["last"].tolist() == [-INF, -INF, 5, 5, 1, 1, 1]
    assert got["best"].tolist() == [-1, 0, 1, 1, 1, 1, 1]
    assert (got["none"] == -1).all()


def test_reductions_over_heads_are_read_in_every_head():
    _, _, v, s, keep = grown()
    text = (
        CAUSAL
        + SOFTMAX
        + (
            "P[q, k] = sum[h](A[q, k]) / n_h\ntop[q, k] = max[h](S[q, k])\nO[q, e] = sum[k](P[q, k] * V[k, e])\n"
            "c[()] = sum[h](1.0 * h + g)\nC[k] = sum[q](P[q, k])\nreturn P, top, O, c, C"
        )
    )
    got = run(text)
    s = s.masked_fill(~keep, -INF)
    mean = (s - s.amax(-1, keepdim=True)).exp().mean(1)
    same(got["P"], mean)
    same(got["top"], s.amax(1).masked_fill(~keep, 0.0))
    same(got["O"], mean[:, None] @ v)
    same(got["C"], mean.sum(-2))
    assert got["c"].tolist() == [0 + 1 + 2 + 3 + 0 + 0 + 1 + 1] * B


def test_a_mask_of_each_head_is_the_heads_own_even_over_values_they_share():
    _, _, _, s, _ = grown()
    width = torch.tensor([1, 9, 2, 4])
    text = "width[h]: int\nmask = k < width[h]\n" + SOFTMAX
    text += "P[q, k] = sum[h](A[q, k])\nN[q] = sum[k](1.0)\nT[q] = sum[k](P[q, k])\nreturn P, N, T"
    got = run(text, {"width": width})
    keep = (torch.arange(N_K) < width[:, None])[None, :, None]
    s = s.masked_fill(~keep, -INF)
    shared = (s - s.amax(-1, keepdim=True)).exp().sum(1)
    same(got["P"], shared)
    same(got["N"], width[None, :, None].expand(B, H, N_Q))
    same(got["T"], (shared[:, None] * keep).sum(-1))


def test_heads_of_keys_and_tensors_of_own_ranks():
    q, _, _, _, _ = grown()
    memory, u = torch.randn(G, 3, D, dtype=torch.float64), torch.randn(B, G, N_K, E, dtype=torch.float64)
    text = (
        "mem_k[g, j, d]: float\nU[b, g, k, e]: float\nX[q, j] = sum[d](Q[q, d] * mem_k[g, j, d])\n"
        "Y[e] = sum[k](U[b, g, k, e]) + 0.0 * n_j\nhead[()] = 1.0 * g + 10 * n_g\nreturn X, Y, head"
    )
    got = run(text, {"mem_k": memory, "U": u})
    same(got["X"], q @ memory.repeat_interleave(H // G, 0).transpose(-1, -2))
    same(got["Y"], u.repeat_interleave(H // G, 1).sum(2))
    assert got["head"][0].tolist() == [20, 20, 21, 21]


def test_reads_at_computed_indices_and_the_nearest_end():
    q, k, _, s, _ = grown()
    text = SOFTMAX + (
        "o: rank = 4\nR[q, d] = Q[q, (d + D // 2) % D]\nslash[q, o] = S[q, pos(q) - o]\nX[q] = sum[d](Q[q, d])\n"
        "shift[q, o] = X[q - o]\nself_[q, d] = Kc[pos(q), d]\nreturn R, slash, shift, self_"
    ).replace("self_[q", "Kc[k, d] = K[k, d]\nself_[q")
    got = run(text)
    rows, back = torch.arange(N_Q)[:, None], torch.arange(4)
    same(got["R"], q.roll(-(D // 2), -1))
    same(got["slash"], s[:, :, rows, (rows + N_K - N_Q - back).clamp(min=0)])
    same(got["shift"], q.sum(-1)[:, :, (rows - back).clamp(min=0)])
    same(got["self_"], k[:, :, N_K - N_Q :])


def test_infinite_values_at_dropped_pairs_stay_out_of_sums_over_queries():
    q, k, v = inputs()
    v[:, :, -1] = INF
    p = program("mask = k < n_k - 1\nC[e] = sum[q, k](1.0 * q * V[k, e])\nreturn C")
    got = reference(p, q, k, v, tensors={}, params={"scale": 1.0})["C"]
    same(got, v[:, :, :-1].repeat_interleave(2, 1).sum(2) * sum(range(N_Q)))


def test_extents_are_given_declared_or_worked_out():
    text = (
        "block: int = 4\nj: rank = 3\ni: rank\nc: rank = (n_k + block - 1) // block + 0 * n_j\nt[i]: float\n"
        "X[j, i, c] = 1.0 * n_j + 10 * n_i + 100 * n_c\nreturn X"
    )
    p, t = program(text), {"t": torch.zeros(2)}
    _, params = arguments.bind(p, {}, {"i": 2, "t": t["t"]})
    assert "c" not in params
    shapes = arguments.check_qkv(*(x.float() for x in inputs()))
    assert arguments.own_extents(p, t, params, shapes) == {"j": 3, "i": 2, "c": 3}
    got = run(text, t, **params)["X"]
    assert got.shape == (B, 3, 2, 3)
    assert (got == 323).all()
    assert arguments.own_extents(p, t, {**params, "c": 0, "j": 1}, shapes)["c"] == 0
    with pytest.raises(ShapeError, match="axis 0 of t is the rank `i` and has 2 entries") as caught:
        arguments.own_extents(p, t, {**params, "i": 5}, shapes)
    assert caught.value.loc is not None
    with pytest.raises(ParameterError, match="-1 entries"):
        arguments.bind(p, {}, {"i": -1, "t": t["t"]})
    with pytest.raises(ParameterError, match="`i` has no extent"):
        arguments.own_extents(p, t, {"block": 4}, shapes)
    with pytest.raises(UnexpectedArgumentError):
        arguments.bind(p, {}, {"n_i": 2})


def test_tensors_agree_about_a_rank_that_is_computed_over():
    shapes = arguments.check_qkv(*(x.float() for x in inputs()))
    t = {"s": torch.zeros(3), "t": torch.zeros(4)}
    free = program("s[i]: float\nt[i]: float\nX[q] = s[q] + t[q]\nreturn X")
    assert arguments.own_extents(free, t, {}, shapes) == {}
    with pytest.raises(ShapeError, match=r"axis 0 of t .* has 4 entries, but that of s has 3"):
        arguments.own_extents(
            program("s[i]: float\nt[i]: float\nX[i] = s[i] + t[i]\nreturn X"), t, {}, shapes
        )
    wrong = program("m[g, d]: float\nX[q] = sum[d](m[g, d])\nreturn X")
    for shape, said in (((G, D + 1), "axis 1 is the rank `d`"), ((H, D), "axis 0 is the rank `g`")):
        with pytest.raises(ShapeError, match=said):
            arguments.check_tensors(wrong, {"m": torch.zeros(shape)}, shapes, torch.device("cpu"))


def test_a_part_of_a_cascade_takes_up_what_is_known():
    text = (
        "j: rank = 2\nx: rank = 3\n"
        + CAUSAL
        + SOFTMAX
        + (
            "Z[q] = sum[k](A[q, k])\nP[q, k] = sum[h](A[q, k] / Z[q])\nI[q, j] = argtopk[k](P[q, k], j)\n"
            "C[k] = sum[q](P[q, k])\nmean[()] = sum[q](Z[q]) / n_q\nreturn I, C, mean"
        )
    )
    p, qkv = program(text), inputs()
    given = {"tensors": {}, "params": {"scale": 0.3}}
    whole = reference(p, *qkv, **given)
    first = evaluate_einsums(p, ["S", "A", "Z"], {}, *qkv, **given, dtype=torch.float64)
    assert [t.shape for t in first.values()] == [(B, H, N_Q, N_K), (B, H, N_Q, N_K), (B, H, N_Q)]
    bad = tuple(torch.full_like(t, math.nan) for t in qkv)
    known = {n: first[n] for n in "AZ"}
    rest = evaluate_einsums(p, ["I", "C", "mean"], known, *bad, **given, dtype=torch.float64)
    assert rest["I"].dtype == torch.int64
    assert rest["I"].shape == (B, 1, N_Q, 2)
    for name, value in whole.items():
        common = rest[name] if name == "mean" else rest[name][:, 0]
        same(common.double(), value)


def test_a_stage_without_pairs_makes_none():
    n = 40_000
    p = program(
        CAUSAL
        + "F[k, d] = max(K[k, d], 0.0)\nKV[d, e] = sum[k](F[k, d] * V[k, e])\nS[q, k] = 1.0 * k\nreturn KV, S"
    )
    k = torch.randn(1, 1, n, 4)
    got = evaluate_einsums(p, ["KV"], {}, k, k, k, tensors={}, params={"scale": 1.0})["KV"]
    torch.testing.assert_close(got, k.clamp(min=0).transpose(-1, -2) @ k, atol=1e-2, rtol=1e-4)


def test_rows_of_a_program_whose_rows_read_others_are_refused():
    rows = torch.tensor([1, 3])
    for text in ("C[k] = sum[q](1.0 * q * k)", "Y[q] = sum[d](Q[q, d])\nC[q] = Y[q - 1]"):
        p = program(f"{text}\nreturn C")
        with pytest.raises(UnsupportedError, match="rows cannot be computed by themselves"):
            reference(p, *inputs(), tensors={}, params={"scale": 1.0}, rows=rows)
    p = program(CAUSAL + SOFTMAX + "N[q] = sum[k](A[q, k])\nreturn N, S")
    whole, some = (reference(p, *inputs(), tensors={}, params={"scale": 1.0}, rows=r) for r in (None, rows))
    for name in ("N", "S"):
        same(some[name], whole[name][:, :, rows])
