"""Every shape of cascade on the CPU backend: against float64, at awkward lengths, with dead rows and poisoned keys."""

from __future__ import annotations

import pytest
import torch

import attngen
from attngen import arguments
from attngen.api import Attention
from attngen.backends.reference import reference
from attngen.lang.parse import parse_program
from attngen.tolerance import compare
from tests.cascades import CASCADES, Cascade, named
from tests.oracle import Shape, make_inputs

CAUSAL = "mask = k <= pos(q)\n"
# Some rows see nothing, some keys are seen by nobody.
GAPS = "mask = (k <= pos(q) - 3) & (k % 5 != 2)\n"
LENGTHS = ((0, 0), (0, 5), (5, 0), (1, 1), (1, 129), (127, 128), (128, 127), (129, 129))


def spec_of(cascade: Cascade, mask: str = "", **options: object) -> Attention:
    program = parse_program(mask + cascade.text, name=cascade.name, file=cascade.name)
    return Attention.from_program(program, cascade.values, **options)  # type: ignore[arg-type]


def outputs(spec: Attention, result) -> dict[str, torch.Tensor]:
    return dict(zip(spec.outputs, result if isinstance(result, tuple) else (result,), strict=True))


# Kernels add the terms of a tile one after the other where torch adds in pairs: sums of a hundred weights that are
# outputs themselves show it, and so do statistics rounded once for a row (M * log2e) and not divided out again.
FACTOR = 6.0


def check(spec: Attention, inputs, tensors, **call) -> None:
    """Every output within a few times the error of the same formula in the inputs' dtype, plus one rounding."""
    outs = outputs(spec, spec(*inputs, **tensors, **call))
    shapes = arguments.check_qkv(*inputs)
    captured, params = arguments.bind(spec.program, spec.values, tensors)
    params |= arguments.own_extents(spec.program, captured, params, shapes)
    params["scale"] = arguments.default_scale(shapes.head_dim, None)

    def dense(dtype):
        return reference(spec.program, *inputs, tensors=captured, params=params, dtype=dtype)

    exact, rounded = dense(torch.float64), dense(torch.float32)
    for name, out in outs.items():
        assert out.shape == exact[name].shape
        if not out.is_floating_point():
            assert torch.equal(out, exact[name].long()), name
            continue
        found = compare(name, out, exact[name], rounded[name], FACTOR)
        assert found.ok, f"{name}: error {found.error:.3e}, allowed {found.allowed:.3e}"


@pytest.mark.parametrize("mask", ["", CAUSAL, GAPS], ids=["dense", "causal", "gaps"])
@pytest.mark.parametrize("cascade", CASCADES, ids=str)
def test_agrees_with_float64(cascade, mask):
    shape = Shape(b=2, h=4, hkv=2, n_q=70, n_k=83, d=16, e=24)
    tensors = cascade.tensors(shape, torch.Generator().manual_seed(1))
    check(spec_of(cascade, mask), make_inputs(shape), tensors)


@pytest.mark.parametrize("cascade", CASCADES, ids=str)
def test_awkward_lengths(cascade):
    spec = spec_of(cascade, CAUSAL)
    for n_q, n_k in LENGTHS:
        shape = Shape(b=1, h=2, hkv=1, n_q=n_q, n_k=n_k, d=8, e=8)
        tensors = cascade.tensors(shape, torch.Generator().manual_seed(2))
        check(spec, make_inputs(shape), tensors)


@pytest.mark.parametrize(
    "name", ["columns", "entropy", "spans", "blocks", "memory", "classes", "selection", "linear"]
)
def test_what_no_query_sees_reaches_nothing(name):
    """NaN in every key that no query may see."""
    cascade = named(name)
    shape = Shape(b=1, h=2, hkv=2, n_q=40, n_k=64, d=16, e=16)
    spec = spec_of(cascade, "mask = (k <= pos(q)) & (k % 7 != 3) & (k < 50)\n")
    q, k, v = make_inputs(shape)
    tensors = cascade.tensors(shape, torch.Generator().manual_seed(3))
    clean = outputs(spec, spec(q, k, v, **tensors))
    hidden = (torch.arange(64) % 7 == 3) | (torch.arange(64) >= 50)
    k[:, :, hidden], v[:, :, hidden] = torch.nan, torch.nan
    poisoned = outputs(spec, spec(q, k, v, **tensors))
    for out, expected in poisoned.items():
        assert torch.equal(expected, clean[out]), out


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["entropy", "two_values", "columns", "linear", "memory"])
def test_half_precision_inputs(name, dtype):
    cascade = named(name)
    shape = Shape(b=1, h=2, hkv=1, n_q=65, n_k=65, d=32, e=32)
    inputs = make_inputs(shape, dtype)
    tensors = {n: t.to(inputs[0].dtype) for n, t in cascade.tensors(shape, torch.Generator()).items()}
    spec = spec_of(cascade, CAUSAL)
    outs, exact = outputs(spec, spec(*inputs, **tensors)), outputs(spec, spec.reference(*inputs, **tensors))
    for name_, out in outs.items():
        largest = float(exact[name_].abs().max())
        assert float((out - exact[name_]).abs().max()) <= 3 * torch.finfo(inputs[0].dtype).eps * largest


@pytest.mark.parametrize("name", ["columns", "two_values", "additive", "blocks"])
def test_strided_inputs(name):
    cascade = named(name)
    shape = Shape(b=2, h=4, hkv=2, n_q=33, n_k=47, d=16, e=8)
    tensors = cascade.tensors(shape, torch.Generator().manual_seed(4))
    spread = [t.transpose(1, 2).contiguous().transpose(1, 2)[..., ::1] for t in make_inputs(shape)]
    wide = [torch.stack([t, t], dim=-1)[..., 0] for t in spread]
    strided = {n: torch.stack([t, t], dim=-1)[..., 0] for n, t in tensors.items()}
    check(spec_of(cascade, CAUSAL), wide, strided)


interpreter = pytest.mark.skipif(torch.cuda.is_available(), reason="a process compiles or interprets")


@interpreter
@pytest.mark.parametrize("mask", [CAUSAL, pytest.param(GAPS, marks=pytest.mark.slow)], ids=["causal", "gaps"])
@pytest.mark.parametrize("cascade", CASCADES, ids=str)
def test_in_the_interpreter(cascade, mask):
    shape = Shape(b=1, h=2, hkv=1, n_q=40, n_k=53, d=16, e=16)
    tensors = cascade.tensors(shape, torch.Generator().manual_seed(1))
    check(spec_of(cascade, mask), make_inputs(shape), tensors, backend="triton")


IN_SEVERAL_FORMS = frozenset(
    ("entropy", "two_values", "above_the_mean", "linear", "retention", "fixed_query", "memory", "columns")
)
ALGORITHMS = ("one_pass", "several_passes", "local_then_merge", "scan", "reassociated")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "cascade",
    [c if c.name in IN_SEVERAL_FORMS else pytest.param(c, marks=pytest.mark.slow) for c in CASCADES],
    ids=str,
)
def test_every_algorithm_gives_the_same(cascade, algorithm):
    shape = Shape(b=1, h=4, hkv=2, n_q=150, n_k=300, d=16, e=8)
    tensors = cascade.tensors(shape, torch.Generator().manual_seed(5))
    check(spec_of(cascade, CAUSAL, algorithm=algorithm), make_inputs(shape), tensors)


@interpreter
def test_a_row_value_before_the_first_key_reads_what_earlier_sweeps_left():
    """The mean is of a sum that is carried between sweeps, and the variance follows it."""
    shape = Shape(b=1, h=2, hkv=1, n_q=100, n_k=90, d=16, e=16)  # the first ten queries see no key
    spec = spec_of(named("above_the_mean"), CAUSAL, algorithm="reassociated")
    check(spec, make_inputs(shape), {}, backend="triton")
    assert "reassociate" in spec._runner._sweeps


def test_algorithms_differ_in_what_they_run():
    """The test above would hold if the choice were ignored."""
    shape = Shape(b=1, h=2, hkv=2, n_q=150, n_k=600, d=16, e=8)
    inputs = make_inputs(shape)
    seen = {}
    for name, algorithm in (
        ("linear", "reassociated"),
        ("fixed_query", "scan"),
        ("entropy", "local_then_merge"),
    ):
        cascade = named(name)
        tensors = cascade.tensors(shape, torch.Generator())
        spec = spec_of(cascade, CAUSAL, algorithm=algorithm)
        spec(*inputs, **tensors)
        seen[algorithm] = spec._runner
    assert "reassociate" in seen["reassociated"]._sweeps
    assert seen["local_then_merge"].fold._splits
    (steps,) = seen["scan"]._sweeps.values()
    assert any(getattr(s, "_scan", None) is not None for s in steps.steps)


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(attngen.AttngenError, match="fastest"):
        Attention(algorithm="fastest")
