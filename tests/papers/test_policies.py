"""Policies against the definitions of their papers, in fp32 on the CPU."""

from __future__ import annotations

import pytest
import torch

from attngen import policies
from tests.papers import group_c, group_d_papers, group_f_cab, group_f_pooling, group_f_sources
from tests.papers import inputs_c as c_inputs
from tests.papers import inputs_d as d_inputs
from tests.papers import inputs_f as f_inputs
from tests.papers.cases_cdf import converted, rounded
from tests.papers.group_common import Draw, Tensor, softmax


def single(x):
    """Every floating tensor of a case in fp32."""
    if isinstance(x, dict):
        return {n: single(y) for n, y in x.items()}
    return type(x)(single(y) for y in x) if isinstance(x, list | tuple) else converted(x, torch.float32)


def close(got: Tensor, want: Tensor, tol: float = 1e-5) -> None:
    torch.testing.assert_close(got.double(), want.double(), atol=tol, rtol=10 * tol)


def both(case):
    """A case in float64 that fp32 holds, and the same in fp32."""
    exact = rounded(case)
    return exact, single(exact)


def test_icr():
    pairs = [both(d_inputs.case_icr_scores(seed)) for seed in (0, 1, 2, 3)]
    documents = [(2, 12), (13, 20), (21, 34)]
    scores = [group_d_papers.icr_scores(**exact) for exact, _ in pairs]
    want = group_d_papers.icr(scores[0] + scores[1], scores[2] + scores[3], documents)
    layers = [(given["q"], given["k"]) for _, given in pairs]
    rows = pairs[0][1]["rows"]
    close(policies.icr(layers[:2], layers[2:], rows, rows, documents), want)


@pytest.mark.parametrize("response", [12, 10])
def test_opera_penalty(response):
    exact, given = both(d_inputs.case_opera(response=response))
    _, penalty, at = group_d_papers.opera(**exact)
    got, token = policies.opera_penalty(given["q"], given["k"], given["start"], given["image"])
    close(got, penalty)
    assert torch.equal(token, at + given["start"])


def test_diversification_loss():
    cases = [both(d_inputs.case_adl(seed)) for seed in (0, 1)]
    want = torch.stack([group_d_papers.adl(**exact) for exact, _ in cases]).mean()
    close(policies.diversification_loss([(g["q"], g["k"]) for _, g in cases]).mean(), want)


def test_relative_attention():
    (own, a), (generic, b) = (both(d_inputs.case_attention_map(seed)) for seed in (0, 5))
    rows = [group_d_papers.attention_map(**c)[:, :, -1] for c in (own, generic)]
    want = group_d_papers.relative_attention(*rows, 3, 18)
    close(policies.relative_attention(a["q"], a["k"], (b["q"], b["k"]), (3, 18)), want)


def test_internal_consistency():
    exact, given = both(d_inputs.case_consistency())
    got = policies.internal_consistency(given["q"], given["k"], given["span"], given["count"])
    close(got, group_d_papers.consistency(**exact))


def test_vision_reinforced():
    exact, given = both(d_inputs.case_vhd())
    divergence, o = group_d_papers.vhd(**exact)
    last = divergence[:, :, -1]
    chosen = last >= last.sort(1, descending=True).values[:, 1:2]
    out, got = policies.vision_reinforced(given["q"], given["k"], given["v"], given["image"], 2, 1.4)
    close(got, last)
    close(out, group_d_papers.vhr(o, chosen, 1.4))


def test_distillation():
    exact, given = both(d_inputs.case_unip())
    teacher, student = ((given[f"q_{x}"], given[f"k_{x}"]) for x in "ts")
    close(policies.unip_loss(teacher, student), group_d_papers.unip(**exact))
    exact, given = both(d_inputs.case_hybrid_distillation())
    models = [tuple(given[f"{n}_{x}"] for n in "qkv") for x in "ts"]
    for got, want in zip(
        policies.hybrid_distillation(*models), group_d_papers.hybrid_distillation(**exact), strict=True
    ):
        close(got, want.mean())


@pytest.mark.parametrize("twice", [False, True])
def test_disendiff_loss(twice):
    exact, given = both(d_inputs.case_disendiff(twice=twice))
    got = policies.disendiff_loss(given["layers"], given["tokens"], given["side"], twice=twice)
    close(got, group_d_papers.disendiff(**exact))


def test_echo():
    exact, given = both(d_inputs.case_echo())
    got = policies.echo(given["q"], given["k"], given["followers"])
    for out, want in zip(got, group_d_papers.echo(**exact), strict=True):
        close(out, want)


def test_hilo():
    exact, given = both(f_inputs.case_hilo())
    got = policies.hilo(given["high"], given["low"], (given["height"], given["width"]), given["window"])
    close(got, group_f_sources.hilo(**exact))


def test_mqsa():
    exact, given = both(f_inputs.case_mqsa())
    given |= {"key": given.pop("k"), "value": given.pop("v")}
    close(policies.mqsa(**given), group_f_sources.mqsa(**exact))


@pytest.mark.parametrize("scaled", [False, True])
def test_gated_levels(scaled):
    exact, given = both(f_inputs.case_gated_levels(scaled=scaled))
    got = policies.gated_levels(given["q"], given["levels"], given["y"], given["w_gate"], scaled=scaled)
    close(got, group_f_sources.gated_levels(**exact))


def test_graph_attention():
    exact, given = both(c_inputs.case_gat())
    close(policies.graph_attention(**given), group_c.gat(**exact)[0])


@pytest.mark.parametrize("share_of", [0.0, 0.6])
def test_multiple_instances(share_of):
    exact, given = both(f_inputs.case_acmil())
    names = ("x", "w_v", "b_v", "w_u", "b_u", "w")
    draw = torch.Generator().manual_seed(3)
    got = policies.multiple_instances(*(given[n] for n in names), top=10, share=share_of, generator=draw)
    nothing = exact | {"dropped": torch.zeros(2, 3, 23, dtype=torch.bool)}
    logits = group_f_pooling.acmil(**nothing)[2]
    order = torch.rand(2, 3, 10, generator=draw.manual_seed(3)).argsort(-1)
    dropped = group_f_pooling.acmil_dropped(logits, order, 10, share_of)
    assert dropped.sum() == 2 * 3 * int(10 * share_of)
    branches, bag, kept = group_f_pooling.acmil(**(exact | {"dropped": dropped}))
    for out, want in zip(got, (branches, bag, kept.masked_fill(dropped, 0.0)), strict=True):
        close(out, want)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_t5_buckets(bidirectional):
    for far, buckets in ((16, 8), (128, 32)):
        want = group_c.t5_buckets(far, bidirectional, buckets)
        assert torch.equal(policies.t5_buckets(far, bidirectional=bidirectional, buckets=buckets), want)


@pytest.mark.parametrize("count", [5, 17])
def test_nystrom(count):
    exact, given = both(f_inputs.case_nystrom() | {"count": count})
    got = policies.nystrom(given["q"], given["k"], given["v"], count)
    close(got, group_f_cab.nystrom(**exact), 1e-4)


@pytest.mark.parametrize("norm", [False, True])
def test_long_short(norm):
    exact, given = both(f_inputs.case_long_short(norm=norm))
    q, k, v, logits = (given[n] for n in ("q", "k", "v", "logits"))
    got = policies.long_short(q, k, v, logits, given["window"], norm=norm)
    close(got, group_f_cab.long_short(**exact))


def test_probsparse():
    draw = Draw(0)
    exact, given = both(draw.qkv(17, 17))
    sample = draw.ints(0, 17, 17, 7)
    chosen = group_f_cab.probsparse_rows(exact["q"], exact["k"], sample, 6)
    got = policies.probsparse(given["q"], given["k"], given["v"], sample, 6)
    close(got, group_f_cab.probsparse(**exact, chosen=chosen))


def test_forward_cross_attention():
    exact, given = both(f_inputs.case_fca())
    got = policies.forward_cross_attention(
        given["q"], given["k"], given["v"], given["cross"], given["factor"], given["w_k"], given["w_v"]
    )
    close(got, group_f_sources.fca(**exact))


def test_landmark_inverse_is_an_inverse():
    a = softmax(3 * torch.eye(6).double() + 0.1 * Draw(0).normal(2, 4, 6, 6))
    close(policies.landmark_inverse(a) @ a, torch.eye(6).expand(2, 4, 6, 6))


def test_the_leader_s_log_sum_is_what_followers_replay():
    """A follower with the leader's values is the leader."""
    _, given = both(d_inputs.case_echo())
    first = given["followers"][0]
    leader, follower = policies.echo(given["q"], given["k"], [first, first])
    close(follower, leader)


def test_extractor_with_matrices():
    exact, given = both(f_inputs.case_extractor(kind="SHE"))
    want = group_f_pooling.extractor(**exact)
    close(policies.extractor(given["x"], given["current"], given["weights"]), want)


def test_token_pooling():
    """Token by token: the mean of nine places, those outside of the image 0, mixed by a softmax of the token's own."""
    height, width, steps = 4, 5, 4
    draw = Draw(0)
    x, logits = draw.normal(2, height * width, 3), draw.normal(2, height * width, steps)
    want = torch.zeros_like(x)
    weights = softmax(logits)
    for y in range(height):
        for at in range(width):
            token = y * width + at
            for step in range(steps):
                for i in (-1, 0, 1):
                    for j in (-1, 0, 1):
                        row, col = y + i * step, at + j * step
                        if 0 <= row < height and 0 <= col < width:
                            share = weights[:, token, step, None] / 9
                            want[:, token] += share * x[:, row * width + col]
    close(policies.token_pooling(x.float(), logits.float(), (height, width)), want)
