"""Every forward program on real hardware; skipped where there is none."""

from __future__ import annotations

import math

import pytest
import torch

import attngen
from attngen.api import Attention
from attngen.cli.main import main
from tests.forward.suite import LENGTHS, PROGRAMS
from tests.oracle import DTYPES, Shape, assert_matches_reference, make_inputs

pytestmark = pytest.mark.gpu


def _to_gpu(spec: Attention, tensors: dict[str, torch.Tensor]) -> tuple[Attention, dict[str, object]]:
    """The same program with every bound tensor moved to the GPU."""
    bound = {n: v.cuda() if isinstance(v, torch.Tensor) else v for n, v in spec.values.items()}
    moved = Attention.from_program(spec.program, bound)
    return moved, {n: t.cuda() for n, t in tensors.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_programs(program, dtype):
    shape = Shape(b=2, h=4, hkv=2, n_q=300, n_k=333, d=64, e=64)
    spec, tensors = _to_gpu(*program.build(shape))
    assert_matches_reference(spec, *make_inputs(shape, dtype, "cuda"), **tensors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("d", "e"), [(16, 16), (24, 40), (64, 128), (80, 80), (128, 128), (192, 128), (256, 256)]
)
def test_widths(d, e, dtype):
    shape = Shape(h=2, hkv=1, n_q=200, n_k=200, d=d, e=e)
    assert_matches_reference(attngen.load("causal", ("O", "LSE")), *make_inputs(shape, dtype, "cuda"))


@pytest.mark.parametrize("n_k", LENGTHS)
@pytest.mark.parametrize("n_q", LENGTHS)
def test_lengths(n_q, n_k):
    shape = Shape(n_q=n_q, n_k=n_k, d=64, e=64)
    spec = attngen.load("sliding_window_sink", ("O", "LSE"), sink=3, window=20)
    assert_matches_reference(spec, *make_inputs(shape, "fp16", "cuda"))


def test_poison_and_empty_rows():
    q, k, v = make_inputs(Shape(n_q=140, n_k=300, d=64, e=64), "bf16", "cuda")
    spec = Attention(
        mask=lambda b, h, qi, ki: (qi > 9) & (ki >= 37) & (ki < 201) & (ki % 3 != 1), outputs=("O", "LSE")
    )
    clean, _ = spec(q, k, v)
    index = torch.arange(300, device="cuda")
    hidden = (index < 37) | (index >= 201) | (index % 3 == 1)
    k[:, :, hidden], v[:, :, hidden] = math.nan, math.nan
    out, lse = spec(q, k, v)
    assert torch.equal(out, clean)
    assert (out[:, :, :10] == 0).all()
    assert (lse[:, :, :10] == -math.inf).all()


def test_strides():
    q, k, v = make_inputs(Shape(b=2, h=4, hkv=2, n_q=200, n_k=200, d=64, e=64), "fp16", "cuda")
    spec = attngen.load("causal")
    want = spec(q, k, v)
    for strided in (
        [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)],
        [t.transpose(2, 3).contiguous().transpose(2, 3) for t in (q, k, v)],
    ):
        torch.testing.assert_close(spec(*strided), want, atol=2e-3, rtol=2e-3)


def test_offsets_beyond_32_bits():
    n = (2**31) // 64 + 256
    big = torch.zeros(1, 1, n, 64, dtype=torch.bfloat16, device="cuda")
    big[:, :, -256:] = torch.randn(1, 1, 256, 64, device="cuda").bfloat16()
    q = torch.randn(1, 1, 256, 64, device="cuda").bfloat16()
    spec = attngen.load("sliding_window", window=128)
    tail = big[:, :, -512:].clone()
    torch.testing.assert_close(spec(q, big, big), spec(q, tail, tail))


def test_run_compares_with_flex_attention_and_sdpa(capsys):
    assert (
        main(["run", "sliding_window_sink", "--device", "cuda", "--dtype", "bf16", "--head-dim", "128"]) == 0
    )
    shown = capsys.readouterr().out
    assert "FlexAttention" in shown
    assert "SDPA" in shown
