"""The emitted Triton text, run by Triton's interpreter on the CPU, against dense float64.

Interpreted in fp32 and fp16: the interpreter's bfloat16 products are wrong.
"""

from __future__ import annotations

import math

import pytest
import torch

import attngen
from attngen.api import Attention
from attngen.errors import DeviceError
from tests.forward.suite import FLEX_PROGRAMS, PROGRAMS
from tests.oracle import Shape, assert_matches_reference, make_inputs

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="a process compiles or interprets; the GPU tests run the same programs"
)


def check(spec, q, k, v, **tensors):
    return assert_matches_reference(spec, q, k, v, backend="triton", **tensors)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("program", FLEX_PROGRAMS, ids=str)
def test_flex_attention_functions_run_unchanged(program, dtype):
    shape = Shape(b=1, h=4, hkv=2, n_q=90, n_k=90, d=32, e=32)
    spec, tensors = program.build(shape)
    check(spec, *make_inputs(shape, dtype), **tensors)


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_programs_with_unlike_lengths_and_widths(program):
    shape = Shape(b=2, h=2, hkv=1, n_q=70, n_k=100, d=24, e=40)
    spec, tensors = program.build(shape)
    check(spec, *make_inputs(shape), **tensors)


@pytest.mark.parametrize(("n_q", "n_k"), [(0, 5), (1, 1), (5, 0), (1, 129), (127, 128), (128, 127), (129, 1)])
def test_lengths(n_q, n_k):
    shape = Shape(h=1, hkv=1, n_q=n_q, n_k=n_k, d=16, e=16)
    spec = attngen.load("sliding_window_sink", ("O", "LSE"), sink=3, window=20)
    out = check(spec, *make_inputs(shape))
    if n_k == 0:
        assert (out["O"] == 0).all()
        assert (out["LSE"] == -math.inf).all()


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("mask", ["(k >= 37) & (k < 80)", "(k >= 37) & (k < 80) & (k % 3 != 1)"])
def test_poison_in_unreachable_keys_does_not_spread(mask, poison):
    q, k, v = make_inputs(Shape(h=1, hkv=1, n_q=40, n_k=130, d=16, e=16))
    spec = Attention(mask=mask)
    clean = spec(q, k, v, backend="triton")
    index = torch.arange(130)
    hidden = (index < 37) | (index >= 80) | ((index % 3 == 1) if "%" in mask else False)
    k[:, :, hidden], v[:, :, hidden] = poison, poison
    assert torch.equal(spec(q, k, v, backend="triton"), clean)


def test_rows_that_see_nothing_and_a_visible_nan():
    q, k, v = make_inputs(Shape(h=1, hkv=1, n_q=80, n_k=80, d=16, e=16))
    spec = Attention(mask="(q >= 30) & (k <= q)", outputs=("O", "LSE"))
    out = check(spec, q, k, v)
    assert (out["O"][:, :, :30] == 0).all()
    assert (out["LSE"][:, :, :30] == -math.inf).all()
    k[0, 0, 50, 3] = math.nan
    dirty, _ = spec(q, k, v, backend="triton")
    assert dirty[0, 0, 50:].isnan().all()
    assert dirty[0, 0, :50].isfinite().all()


def test_strides():
    q, k, v = make_inputs(Shape(b=2, h=2, hkv=1, n_q=40, n_k=50, d=16, e=32))
    spec = attngen.load("causal")
    want = spec(q, k, v, backend="triton")
    for strided in (
        [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)],
        [t.transpose(2, 3).contiguous().transpose(2, 3) for t in (q, k, v)],
        [t.repeat_interleave(2, 3)[..., ::2] for t in (q, k, v)],
    ):
        torch.testing.assert_close(spec(*strided, backend="triton"), want)


@pytest.mark.parametrize("scale", [-0.3, 0.0])
def test_scales_that_are_not_positive(scale):
    q, k, v = make_inputs(Shape(h=1, hkv=1, n_q=40, n_k=40, d=16, e=16))
    spec = Attention(mask="k <= q", outputs=("O", "LSE"))
    assert_matches_reference(spec, q, k, v, backend="triton", scale=scale)


def test_operators_as_a_mask_and_a_score():
    """Integer and real operators that the programs do not use, each where an error would show."""
    shape = Shape(h=2, hkv=2, n_q=40, n_k=45, d=16, e=16)
    spec = Attention(
        mask="((q - 20) // 3 != (k - 31) // -4) & ((q * 7 - k) % -5 < 0) & (((q ^ k) & 3) != 2)"
        " & ~((k >> 2) == (q << 1))",
        score="S + 0.1 * tanh(S * 3) + erf(S) * sigmoid(-S) + round(S * 2) / 8 + sign(S) * floor(abs(S)) ** 0.5"
        " + sin(S) * cos(S) + min(sqrt(abs(S)), 1.0) - log2(1 + abs(S)) + (S % 0.7) + float(int(S)) + ceil(S) / 9",
    )
    check(spec, *make_inputs(shape))


def test_without_the_interpreter_cpu_tensors_are_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    q, k, v = make_inputs(Shape(n_q=8, n_k=8))
    with pytest.raises(DeviceError, match="GPU"):
        Attention(mask="k <= q + 1")(q, k, v, backend="triton")
