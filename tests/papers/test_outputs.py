"""Group A: outputs of every backend against dense float64 with the masks that are defined by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from attngen.api import Attention
from tests.oracle import DTYPES, assert_matches_reference, make_inputs
from tests.papers.cases import CASES

FIRST = {c.program: str(c) for c in reversed(CASES)}
BOXES_AND_SCORES = {
    "neighborhood_2d-causal_rows",
    "swin-padded_shifted",
    "vitdet_roll-cut",
    "temporal-many_steps",
}
IN_HALF = {"s2_attention-square", "mask_unit-pooled", "neighborhood_2d-mixed", "swin-padded_shifted"}


def quick(those):
    """Every case, as a slow one if it is not among `those`: a quick run compiles and interprets each program once."""
    return [c if str(c) in those else pytest.param(c, marks=pytest.mark.slow) for c in CASES]


def by_hand(case, q, k, v):
    """`O` and `LSE` in float64, from the pairs alone and, for Swin, the table of biases."""
    q, k, v = (x.double() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    if "bias" in case.values:
        scores = scores + relative_bias(case)
    scores = scores.masked_fill(~case.kept(), -torch.inf)
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def relative_bias(case):
    """Swin's `relative_position_index`, a pair at a time where both are in one window."""
    (_, width), window = case.values["grid"], case.values["window"]
    y, x = torch.arange(case.shape.n_q) // width, torch.arange(case.shape.n_q) % width
    index = (y[:, None] - y + window - 1) * (2 * window - 1) + (x[:, None] - x + window - 1)
    return case.values["bias"].double()[index.clamp(0, (2 * window - 1) ** 2 - 1)].permute(2, 0, 1)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_reference(case):
    q, k, v = make_inputs(case.shape)
    for got, want in zip(case.spec().reference(q, k, v), by_hand(case, q, k, v), strict=True):
        torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("case", quick({str(c) for c in CASES if not c.name.startswith("chunk_")}), ids=str)
def test_on_the_cpu(case):
    assert_matches_reference(case.spec(), *make_inputs(case.shape), backend="cpu")


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("case", quick(IN_HALF), ids=str)
def test_on_the_cpu_in_half_precision(case, dtype):
    assert_matches_reference(case.spec(), *make_inputs(case.shape, dtype), backend="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a process compiles or interprets")
@pytest.mark.parametrize("case", quick({*FIRST.values(), *BOXES_AND_SCORES}), ids=str)
def test_in_the_interpreter(case):
    one = replace(case.shape, h=2, hkv=1) if case.heads_agree else case.shape
    assert_matches_reference(case.spec(), *make_inputs(one), backend="triton")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_on_a_gpu(case, dtype):
    spec = case.spec()
    moved = {n: v.cuda() if isinstance(v, torch.Tensor) else v for n, v in spec.values.items()}
    shape = replace(case.shape, d=64, e=64)
    assert_matches_reference(Attention.from_program(spec.program, moved), *make_inputs(shape, dtype, "cuda"))


FLEX = ("s2_attention-chunk", "longlora-square", "neighborhood_2d-mixed", "swin-padded_shifted")


@pytest.mark.parametrize("name", FLEX)
def test_flex_attention_agrees(name):
    case = next(c for c in CASES if str(c) == name)
    q, k, v = make_inputs(case.shape)
    kept = case.kept()
    s = case.shape
    blocks = create_block_mask(
        lambda b, h, i, j: kept[b, h, i, j], s.b, s.h, s.n_q, s.n_k, device="cpu", BLOCK_SIZE=64
    )
    bias = relative_bias(case).float() if "bias" in case.values else torch.zeros(s.h, s.n_q, s.n_k)
    out, lse = flex_attention(
        q, k, v, lambda score, b, h, i, j: score + bias[h, i, j], blocks, enable_gqa=True, return_lse=True
    )
    got_out, got_lse = case.spec()(q, k, v)
    torch.testing.assert_close(got_out, out, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(got_lse, lse, atol=2e-5, rtol=2e-5)
