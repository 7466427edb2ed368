"""Every forward program on the CPU backend, against dense float64."""

from __future__ import annotations

import math

import pytest
import torch

import attngen
from attngen.api import Attention
from tests.forward import flex_mods
from tests.forward.suite import FLEX_PROGRAMS, LENGTHS, PROGRAMS
from tests.oracle import DTYPES, Shape, assert_matches_reference, make_inputs

GQA = Shape(b=2, h=4, hkv=2, n_q=150, n_k=150, d=32, e=32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("program", FLEX_PROGRAMS, ids=str)
def test_flex_attention_functions_run_unchanged(program, dtype):
    spec, tensors = program.build(GQA)
    assert_matches_reference(spec, *make_inputs(GQA, dtype), **tensors)


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_programs_with_unlike_lengths_and_widths(program):
    shape = Shape(b=2, h=3, hkv=1, n_q=67, n_k=131, d=24, e=40)
    spec, tensors = program.build(shape)
    assert_matches_reference(spec, *make_inputs(shape), **tensors)


@pytest.mark.parametrize("n_k", LENGTHS)
@pytest.mark.parametrize("n_q", LENGTHS)
def test_lengths(n_q, n_k):
    shape = Shape(n_q=n_q, n_k=n_k, d=16, e=16)
    spec = attngen.load("sliding_window_sink", ("O", "LSE"), sink=3, window=20)
    out = assert_matches_reference(spec, *make_inputs(shape))
    assert out["O"].shape == (1, 2, n_q, 16)
    if n_k == 0:
        assert (out["O"] == 0).all()
        assert (out["LSE"] == -math.inf).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [16, 64, 80, 128, 192, 256])
def test_head_dims(head_dim, dtype):
    shape = Shape(h=1, hkv=1, n_q=70, n_k=70, d=head_dim, e=head_dim)
    assert_matches_reference(attngen.load("causal"), *make_inputs(shape, dtype))


def test_rows_that_see_nothing():
    spec = Attention(mask=lambda b, h, q, k: (q >= 40) & (k <= q), outputs=("O", "LSE"))
    out = assert_matches_reference(spec, *make_inputs(Shape(n_q=150, n_k=150)))
    assert (out["O"][:, :, :40] == 0).all()
    assert (out["LSE"][:, :, :40] == -math.inf).all()
    assert out["LSE"][:, :, 40:].isfinite().all()


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_poison_in_unreachable_keys_does_not_spread(poison, dtype):
    shape = Shape(b=2, n_q=140, n_k=300)
    q, k, v = make_inputs(shape, dtype)
    spec = Attention(mask=lambda b, h, qi, ki: (ki >= 37) & (ki < 201) & (ki % 3 != 1))
    clean = spec(q, k, v)
    hidden = (torch.arange(300) < 37) | (torch.arange(300) >= 201) | (torch.arange(300) % 3 == 1)
    k[:, :, hidden], v[:, :, hidden] = poison, poison
    assert torch.equal(spec(q, k, v), clean)


def test_a_visible_nan_is_seen():
    q, k, v = make_inputs(Shape(n_q=140, n_k=140))
    k[0, 0, 60, 3] = math.nan
    v[0, 1, 70, 5] = math.nan
    out = attngen.load("causal")(q, k, v)
    assert out[0, 0, 60:].isnan().all()
    assert out[0, 0, :60].isfinite().all()
    assert out[0, 1, 70:, 5].isnan().all()


def test_every_stride():
    shape = Shape(b=2, h=4, hkv=2, n_q=100, n_k=90, d=32, e=16)
    q, k, v = make_inputs(shape)
    spec = attngen.load("causal")
    want = spec(q, k, v)
    token_major = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
    feature_major = (t.transpose(2, 3).contiguous().transpose(2, 3) for t in (q, k, v))
    every_other = (t.repeat_interleave(2, 3)[..., ::2] for t in (q, k, v))
    for strided in (token_major, feature_major, every_other):
        torch.testing.assert_close(spec(*strided), want, atol=1e-6, rtol=1e-6)
    one = q[:, :1, :, :].expand(-1, 4, -1, -1)
    torch.testing.assert_close(spec(one, k, v), spec(one.contiguous(), k, v))


def test_output_follows_the_layout_of_the_query():
    q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in make_inputs(Shape(h=4, hkv=4)))
    out = attngen.attention(q, k, v)
    assert out.transpose(1, 2).is_contiguous()


def test_parameters_are_run_time_scalars():
    q, k, v = make_inputs(Shape(n_q=130, n_k=130))
    spec = attngen.load("sliding_window")
    for window in (1, 7, 64, 129, 1000):
        assert_matches_reference(spec, q, k, v, window=window)
    assert len(spec._runner.fold.sweep.kernels) == 1


@pytest.mark.parametrize("scale", [0.3, 0.0, -0.5])
def test_every_scale(scale):
    q, k, v = make_inputs(Shape(n_q=70, n_k=70))
    spec = Attention(mask=flex_mods.causal, outputs=("O", "LSE"))
    assert_matches_reference(spec, q, k, v, scale=scale)


def test_large_scores():
    q, k, v = make_inputs(Shape(n_q=70, n_k=70))
    assert_matches_reference(Attention(mask=flex_mods.causal, outputs=("O", "LSE")), q * 60, k * 60, v)


def test_structural_codes_show_exactly_which_keys_were_seen():
    n = 64
    spec = attngen.load("sliding_window_sink", ("O", "Z"), sink=4, window=9)
    q = k = torch.zeros(1, 1, n, 16)
    v = torch.eye(n).reshape(1, 1, n, n)
    out, count = spec(q, k, v)
    i, j = torch.arange(n)[:, None], torch.arange(n)[None]
    keep = (j <= i) & ((j < 4) | (i - j < 9))
    assert torch.equal(out[0, 0] > 0, keep)
    assert torch.equal(count[0, 0], keep.sum(-1).float())


def test_one_thread_and_two_give_the_same_bits():
    q, k, v = make_inputs(Shape(b=2, n_q=300, n_k=300))
    spec = attngen.load("causal")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = spec(q, k, v)
        torch.set_num_threads(2)
        two = spec(q, k, v)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, two)
