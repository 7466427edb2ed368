"""Every shape of cascade on real hardware; skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from tests.cascades import CASCADES, named
from tests.oracle import DTYPES, Shape, make_inputs
from tests.test_cascades import ALGORITHMS, CAUSAL, GAPS, outputs, spec_of

pytestmark = pytest.mark.gpu


def check(cascade, mask, shape, dtype, **options):
    """Within a few roundings of float64, at the magnitude of each output; keys of selections exactly."""
    spec = spec_of(cascade, mask, **options)
    inputs = make_inputs(shape, dtype, "cuda")
    given = cascade.tensors(shape, torch.Generator().manual_seed(1))
    tensors = {n: t.cuda() for n, t in given.items()}
    outs, exact = outputs(spec, spec(*inputs, **tensors)), outputs(spec, spec.reference(*inputs, **tensors))
    for name, out in outs.items():
        if not out.is_floating_point():
            assert float((out == exact[name]).float().mean()) > 0.99, name
            continue
        finite = exact[name].isfinite()
        assert torch.equal(out.isfinite(), finite), name
        size = float(exact[name][finite].abs().max()) if bool(finite.any()) else 0.0
        error = float((out.double() - exact[name])[finite].abs().max()) if bool(finite.any()) else 0.0
        roundings = 24 if dtype == "fp32" else 6  # dot products of fp32 add up a row in fp32 too
        assert error <= roundings * torch.finfo(inputs[0].dtype).eps * max(size, 1.0), (name, error, size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask", [CAUSAL, GAPS], ids=["causal", "gaps"])
@pytest.mark.parametrize("cascade", CASCADES, ids=str)
def test_agrees_with_float64(cascade, mask, dtype):
    check(cascade, mask, Shape(b=2, h=4, hkv=2, n_q=200, n_k=260, d=64, e=64), dtype)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["entropy", "linear", "retention", "fixed_query", "columns"])
def test_every_algorithm_gives_the_same(name, algorithm):
    shape = Shape(b=1, h=4, hkv=2, n_q=300, n_k=600, d=64, e=64)
    check(named(name), CAUSAL, shape, "fp32", algorithm=algorithm)
