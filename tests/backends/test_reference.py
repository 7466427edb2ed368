"""The oracle itself, against FlexAttention's eager path and published definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import attngen
from attngen.backends.reference import torch_ops
from attngen.lang.ops import OPS
from tests.forward import flex_mods
from tests.oracle import Shape, make_inputs

SHAPE = Shape(b=2, h=4, hkv=2, n_q=48, n_k=48, d=16, e=16)


def flex(q, k, v, mask_mod=None, score_mod=None):
    block_mask = None
    if mask_mod is not None:
        block_mask = create_block_mask(mask_mod, q.shape[0], q.shape[1], q.shape[2], k.shape[2], device="cpu")
    return flex_attention(q, k, v, score_mod=score_mod, block_mask=block_mask, enable_gqa=True)


def inputs64(shape=SHAPE):
    return (t.double() for t in make_inputs(shape))


MASKS = {
    "causal": lambda: flex_mods.causal,
    "sliding_window": lambda: flex_mods.sliding_window,
    "prefix": lambda: flex_mods.make_prefix(torch.tensor([5, 20])),
    "document": lambda: flex_mods.make_document(torch.arange(48) // 13),
}
SCORES = {
    "alibi": lambda: flex_mods.make_alibi(4),
    "softcap": lambda: flex_mods.make_softcap(),
    "relative": lambda: flex_mods.relative_positional,
    "relative_bias": lambda: flex_mods.make_relative_bias(4, 6),
    "checkerboard": lambda: flex_mods.checkerboard,
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_agree_with_flex_attention_in_float64(name):
    q, k, v = inputs64()
    mask = MASKS[name]()
    ours = attngen.Attention(mask=mask).reference(q, k, v)
    torch.testing.assert_close(ours, flex(q, k, v, mask_mod=mask), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_scores_agree_with_flex_attention_in_float64(name):
    q, k, v = inputs64()
    score = SCORES[name]()
    ours = attngen.Attention(score=score).reference(q, k, v)
    # eager FlexAttention keeps captured fp32 tables in fp32
    torch.testing.assert_close(ours, flex(q, k, v, score_mod=score), atol=1e-6, rtol=1e-6)


def test_lse_is_the_natural_log_sum_exp():
    q, k, v = inputs64()
    _, lse = attngen.Attention(mask=flex_mods.causal, outputs=("O", "LSE")).reference(q, k, v)
    scores = q @ k.repeat_interleave(2, 1).transpose(-1, -2) / math.sqrt(16)
    scores = scores.masked_fill(~torch.ones(48, 48, dtype=torch.bool).tril(), -math.inf)
    torch.testing.assert_close(lse, scores.logsumexp(-1), atol=1e-12, rtol=1e-12)


def test_a_row_that_sees_nothing_is_zero_with_lse_minus_infinity():
    q, k, v = inputs64()
    spec = attngen.Attention(mask=lambda b, h, qi, ki: (qi % 2 == 0) & (ki <= qi), outputs=("O", "LSE"))
    out, lse = spec.reference(q, k, v)
    assert (out[:, :, 1::2] == 0).all()
    assert (lse[:, :, 1::2] == -math.inf).all()
    assert out[:, :, ::2].abs().min() > 0
    assert lse[:, :, ::2].isfinite().all()


def test_nan_in_keys_no_query_sees_does_not_spread_and_in_seen_keys_does():
    q, k, v = inputs64()
    hidden = attngen.Attention(mask=lambda b, h, qi, ki: ki < 40)
    clean = hidden.reference(q, k, v)
    k[:, :, 40:], v[:, :, 40:] = math.nan, math.nan
    torch.testing.assert_close(hidden.reference(q, k, v), clean)
    v[0, 0, 3, 2] = math.nan
    dirty = hidden.reference(q, k, v)
    assert dirty[0, :2, :, 2].isnan().all()
    assert dirty[0, :2, :, :2].isfinite().all()
    assert dirty[0, 2:].isfinite().all()


def test_a_score_of_minus_infinity_counts_as_masked():
    q, k, v = inputs64()

    def only_even_keys(score, b, h, qi, ki):
        return torch.where(ki % 2 == 0, score, -math.inf)

    by_score = attngen.Attention(score=only_even_keys, outputs=("O", "LSE")).reference(q, k, v)
    by_mask = attngen.Attention(mask=lambda b, h, qi, ki: ki % 2 == 0, outputs=("O", "LSE")).reference(
        q, k, v
    )
    for a, b in zip(by_score, by_mask, strict=True):
        torch.testing.assert_close(a, b)
    nothing = attngen.Attention(score=lambda s, b, h, qi, ki: torch.where(ki < 0, s, -math.inf))
    assert (nothing.reference(q, k, v) == 0).all()


@pytest.mark.parametrize(
    ("cascade", "formula"),
    [
        ("sigmoid", torch.sigmoid),
        ("relu2", lambda s: torch.relu(s) ** 2),
    ],
)
def test_unnormalised_cascades(cascade, formula):
    q, k, v = inputs64()
    scores = q @ k.repeat_interleave(2, 1).transpose(-1, -2) / math.sqrt(16)
    keep = torch.ones(48, 48, dtype=torch.bool).tril()
    want = torch.where(keep, formula(scores), 0.0) @ v.repeat_interleave(2, 1)
    got = attngen.Attention(mask=flex_mods.causal, cascade=cascade).reference(q, k, v)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)


def test_softmax_sink_adds_a_logit_to_the_denominator():
    q, k, v = inputs64()
    sink = torch.tensor([-1.0, 0.0, 2.0, 50.0], dtype=torch.float64)
    scores = q @ k.repeat_interleave(2, 1).transpose(-1, -2) / math.sqrt(16)
    joined = torch.cat([scores, sink.reshape(1, 4, 1, 1).expand(2, 4, 48, 1)], dim=-1)
    want = joined.softmax(-1)[..., :-1] @ v.repeat_interleave(2, 1)
    spec = attngen.Attention(cascade="softmax_sink", outputs=("O", "LSE"))
    out, lse = spec.reference(q, k, v, sink_logit=sink)
    torch.testing.assert_close(out, want, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(lse, joined.logsumexp(-1), atol=1e-12, rtol=1e-12)


def test_chosen_rows_are_the_rows_of_the_whole():
    from attngen.backends.reference import reference

    q, k, v = inputs64()
    spec = attngen.Attention(mask=flex_mods.sliding_window, score=flex_mods.relative_positional)
    rows = torch.tensor([0, 7, 31, 47])
    part = reference(spec.program, q, k, v, tensors={}, params={"scale": 0.25}, rows=rows)
    whole = spec.reference(q, k, v, scale=0.25)
    torch.testing.assert_close(part["O"], whole[:, :, rows])


def test_every_operator_has_a_meaning():
    assert set(torch_ops(torch.float64)) == set(OPS)
