"""Programs of the catalogue through the C interface give, bit for bit, what the artefact gives in Python."""

from __future__ import annotations

import threading

import pytest
import torch

import attngen
from attngen.analysed import analyse
from attngen.forms import sweeps_of
from tests.aot.c_calls import CallError, CArtefact, empty_outputs
from tests.forward.suite import PROGRAMS
from tests.oracle import Shape, make_inputs

SHAPE = Shape(b=2, h=4, hkv=2, n_q=70, n_k=70, d=16, e=16)


def single(spec) -> bool:
    return sweeps_of(analyse(spec.program)).single


NAMED = [p for p in PROGRAMS if p.name in (
    "causal", "sliding_window", "alibi", "documents", "flex_alibi", "prefix_lm", "dilated", "cascade_softcap",
    "varlen", "bias", "relative_bias", "sigmoid", "neighborhood_1d", "neighborhood_2d", "swin",
)]  # fmt: skip


@pytest.mark.parametrize("program", NAMED, ids=lambda p: p.name)
def test_the_same_bits(built_of, tmp_path, program):
    spec, tensors = program.build(SHAPE)
    assert single(spec)
    artefact = built_of(spec, tensors)
    inputs = make_inputs(SHAPE, "fp32", "cpu")
    loaded = attngen.load_artefact(artefact)
    got = loaded(*inputs, **tensors)
    expected = dict(zip(loaded.outputs, got if isinstance(got, tuple) else (got,), strict=True))
    values = {**loaded.values, **tensors}
    from attngen import arguments

    bound, params = arguments.bind(loaded.program, values, {"scale": 0.25})
    c = CArtefact(artefact, tmp_path)
    outputs = empty_outputs(expected)
    c.run(c.args(inputs, outputs, bound, {**params, "scale": 0.25}))
    listed = any(k.layout.lists for k in loaded.manifest.kernels)
    for name, found in outputs.items():
        if listed:  # the launcher's lists visit every tile, in another order
            torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(found, expected[name]), name
    c.close()


@pytest.fixture
def built_of(built):
    def build(spec, tensors):
        values = {n: v for n, v in spec.values.items()}
        captured = {n: str(t.dtype).removeprefix("torch.") for n, t in tensors.items()}
        return built(spec.program, None, values, captured=captured)

    return build
