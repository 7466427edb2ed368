"""What the Triton backend refuses, and what it must not lose."""

from __future__ import annotations

import math

import pytest
import torch

import attngen
from attngen.api import Attention
from attngen.backends.triton_lists import compress
from attngen.call_plans import CallPlans
from attngen.errors import ShapeError, UnsupportedError
from attngen.planner.device_blocks import build_device_blocks, device_lists
from attngen.planner.evaluate_plan import Extents
from tests.oracle import Shape, make_inputs

SHAPE = Shape(h=1, hkv=1, n_q=20, n_k=20, d=16, e=16)

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="a process compiles or interprets, not both"
)


def test_bfloat16_in_the_interpreter_is_refused_rather_than_wrong():
    q, k, v = make_inputs(SHAPE, "bf16")
    with pytest.raises(UnsupportedError, match="bfloat16"):
        attngen.load("causal")(q, k, v, backend="triton")


def test_a_captured_tensor_without_elements_is_refused_rather_than_read():
    table = torch.zeros(0)
    spec = Attention(score=lambda score, b, h, q, k: score + table[q - k])
    with pytest.raises(ShapeError, match="no elements"):
        spec(*make_inputs(SHAPE), backend="triton")


@pytest.mark.parametrize("outputs", [("M",), ("O", "M", "LSE"), ("O",)])
def test_a_visible_nan_reaches_every_output_of_the_rows_that_see_it(outputs):
    q, k, v = make_inputs(SHAPE)
    k[0, 0, 5] = math.nan
    result = attngen.load("causal", outputs)(q, k, v, backend="triton")
    for out in result if isinstance(result, tuple) else (result,):
        assert out[0, 0, 5:].isnan().all()
        assert out[0, 0, :5].isfinite().all()


def test_a_parameter_at_the_end_of_its_range_does_not_overflow():
    q, k, v = make_inputs(SHAPE)
    wide = attngen.load("sliding_window", window=2**31 - 1)(q, k, v, backend="triton")
    assert torch.equal(wide, attngen.load("causal")(q, k, v, backend="triton"))
    none = attngen.load("sliding_window", window=-(2**31))(q, k, v, backend="triton")
    assert (none == 0).all()


@pytest.mark.parametrize("compress", [device_lists, compress])
def test_lists_that_were_built_on_the_device_are_read_like_those_of_the_host(monkeypatch, compress):
    n = 300
    doc = torch.arange(n)[None] // 70
    spec = Attention(mask=lambda b, h, q, k: (doc[b, k] == doc[b, q]) & (k <= q), outputs=("O", "LSE"))
    inputs = make_inputs(Shape(h=2, hkv=1, n_q=n, n_k=n, d=16, e=16))
    host = spec(*inputs, backend="triton")
    made = []

    def on_device(self, kernel, shapes, tensors, params, device):
        at = Extents(shapes.n_q, shapes.n_k, shapes.batch, shapes.heads, kernel.block_q, kernel.block_k)
        made.append(build_device_blocks(spec.program, {**params, **tensors}, at, device, compress))
        return made[-1]

    monkeypatch.setattr(CallPlans, "lists", on_device)
    for one, other in zip(spec(*inputs, backend="triton"), host, strict=True):
        assert torch.equal(one, other)
    assert len(made) == 1


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 7), (1, 2, 3, 1500), (1, 1, 0, 4), (1, 1, 4, 0)])
def test_kernels_make_the_lists_that_tensor_operations_make(shape):
    classes = torch.randint(0, 3, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    for map_ in (classes, classes.mT):
        got, want = compress(map_), device_lists(map_)
        assert torch.equal(got.partial_ptr, want.partial_ptr)
        assert torch.equal(got.full_ptr, want.full_ptr)
        n = int(want.full_ptr[-1])
        assert torch.equal(got.full_index[:n], want.full_index[:n])
