"""The public interface: what a call accepts, what it refuses and how it says so."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import attngen
from attngen import errors
from attngen.api import Attention
from tests.oracle import Shape, assert_matches_reference, make_inputs

Q, K, V = make_inputs(Shape(n_q=20, n_k=20))


def test_attention_takes_sdpa_names_and_gives_its_result():
    want = torch.nn.functional.scaled_dot_product_attention(Q, K, V, scale=0.2)
    torch.testing.assert_close(attngen.attention(Q, K, V, scale=0.2), want, atol=1e-6, rtol=1e-6)
    q, k, v = make_inputs(Shape(h=4, hkv=2, n_q=20, n_k=20))
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    torch.testing.assert_close(attngen.attention(q, k, v, enable_gqa=True), want, atol=1e-6, rtol=1e-6)


def test_masks_compose_and_text_is_a_mask():
    by_parts = attngen.attention(Q, K, V, mask=attngen.masks.causal() & attngen.masks.sliding_window(5))
    by_text = attngen.attention(Q, K, V, mask="(k <= pos(q)) & (pos(q) - k < 5)")
    torch.testing.assert_close(by_parts, by_text)


def test_several_outputs_come_as_a_tuple():
    out, lse = attngen.attention(Q, K, V, outputs=("O", "LSE"))
    assert out.shape == Q.shape
    assert lse.shape == Q.shape[:-1]
    assert lse.dtype == torch.float32


def test_a_loop_of_calls_builds_one_specification():
    from attngen import api

    def keep(b, h, q, k):
        return k <= q

    attngen.attention(Q, K, V, mask=keep)
    before = len(api._SPECS)
    for _ in range(3):
        attngen.attention(Q, K, V, mask=keep)
    assert len(api._SPECS) == before


def test_specifications_compare_by_what_they_compute():
    a, b = attngen.load("sliding_window", window=5), attngen.load("sliding_window", window=5)
    assert a == b
    assert hash(a) == hash(b)
    assert a != attngen.load("sliding_window", window=6)
    assert "sliding_window" in repr(a)
    assert "mask = " in str(a)


CALLS = {
    "three axes": (errors.ShapeError, lambda: attngen.attention(Q[0], K[0], V[0])),
    "unlike head_dim": (errors.ShapeError, lambda: attngen.attention(Q, K[..., :8], V)),
    "unlike key and value": (errors.ShapeError, lambda: attngen.attention(Q, K, V[:, :, :5])),
    "unlike batch": (errors.ShapeError, lambda: attngen.attention(Q.repeat(2, 1, 1, 1), K, V)),
    "width 0": (errors.ShapeError, lambda: attngen.attention(Q, K, V[..., :0])),
    "heads not a multiple": (
        errors.HeadCountError,
        lambda: attngen.attention(Q[:, :1], K, V, enable_gqa=True),
    ),
    "gqa not enabled": (errors.HeadCountError, lambda: attngen.attention(Q, K[:, :1], V[:, :1])),
    "unlike dtypes": (errors.DTypeError, lambda: attngen.attention(Q, K.half(), V)),
    "float64": (errors.DTypeError, lambda: attngen.attention(Q.double(), K.double(), V.double())),
    "not a tensor": (errors.DTypeError, lambda: attngen.attention([1], K, V)),
    "unlike devices": (errors.DeviceError, lambda: attngen.attention(Q, K.to("meta"), V)),
    "a device nobody serves": (
        errors.DeviceError,
        lambda: attngen.attention(Q.to("meta"), K.to("meta"), V.to("meta")),
    ),
    "gradients": (errors.GradientError, lambda: attngen.attention(Q.clone().requires_grad_(), K, V)),
    "an unknown backend": (errors.TargetError, lambda: Attention()(Q, K, V, backend="tpu")),
    "a missing tensor": (errors.MissingTensorError, lambda: attngen.load("documents")(Q, K, V)),
    "a tensor too short": (
        errors.ShapeError,
        lambda: attngen.load("documents")(Q, K, V, doc=torch.zeros(1, 10, dtype=torch.int32)),
    ),
    "a tensor of another kind": (
        errors.DTypeError,
        lambda: attngen.load("documents")(Q, K, V, doc=torch.zeros(1, 20)),
    ),
    "a tensor of another rank": (
        errors.ShapeError,
        lambda: attngen.load("documents")(Q, K, V, doc=torch.zeros(20, dtype=torch.int32)),
    ),
    "a tensor nobody declared": (
        errors.UnexpectedArgumentError,
        lambda: attngen.load("causal")(Q, K, V, doc=Q),
    ),
    "a parameter nobody declared": (errors.UnexpectedArgumentError, lambda: attngen.load("causal", window=3)),
    "a parameter of another kind": (
        errors.ParameterError,
        lambda: attngen.load("sliding_window", window=1.5),
    ),
    "a parameter too large": (errors.ParameterError, lambda: attngen.load("sliding_window", window=2**40)),
    "a scale that is not finite": (
        errors.ParameterError,
        lambda: attngen.attention(Q, K, V, scale=float("nan")),
    ),
    "a chunk of nothing": (errors.ParameterError, lambda: attngen.load("chunked", chunk=0)(Q, K, V)),
    "an unknown program": (errors.ProgramNotFoundError, lambda: attngen.load("causl")),
    "an unknown cascade": (errors.AttngenError, lambda: attngen.attention(Q, K, V, cascade="softmx")),
    "an output nobody defines": (errors.OutputError, lambda: attngen.attention(Q, K, V, outputs=("X",))),
    "no outputs": (errors.OutputError, lambda: attngen.attention(Q, K, V, outputs=())),
    "control flow on a symbol": (
        errors.TraceError,
        lambda: attngen.attention(Q, K, V, mask=lambda b, h, q, k: k <= q and k > 5),
    ),
    "an unknown target": (errors.TargetError, lambda: Attention().source(target="sm_91")),
    "an unknown dtype": (errors.AttngenError, lambda: Attention().source(dtype="int8")),
    "a negative length": (errors.ParameterError, lambda: Attention().schedule(-1, 5)),
}


@pytest.mark.parametrize("what", CALLS)
def test_every_mistake_is_one_clear_error(what):
    error, call = CALLS[what]
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert text.startswith(f"[{caught.value.code}]")
    assert len(text.splitlines()) < 8


def test_a_cascade_that_needs_more_passes_takes_them_and_says_why():
    text = """
S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale
T[q] = sum[k](S[q, k])
O[q, e] = sum[k](max(S[q, k] - T[q], 0.0) * V[k, e])
return O
"""
    spec = Attention(cascade=text)
    assert_matches_reference(spec, Q, K, V)
    derivation = spec.derivation()
    assert derivation.passes == 2
    assert [r.target for r in derivation.refusals] == ["O"]


def test_const_parameters_specialise_the_kernel(tmp_path):
    program = tmp_path / "fixed.attn"
    program.write_text("width: const[int] = 4\nmask = (k <= q) & (q - k < width)\n")
    spec = attngen.load(program)
    torch.testing.assert_close(spec(Q, K, V), attngen.load("sliding_window", window=4)(Q, K, V))
    other = spec(Q, K, V, width=7)
    torch.testing.assert_close(other, attngen.load("sliding_window", window=7)(Q, K, V))
    assert len(spec._runner.fold.sweep.kernels) == 2


def test_lists_follow_the_tensor_they_were_built_from():
    spec = attngen.load("documents")
    doc = torch.zeros(1, 20, dtype=torch.int32)
    one_document = spec(Q, K, V, doc=doc)
    doc[:, 10:] = 1
    two_documents = spec(Q, K, V, doc=doc)
    assert not torch.allclose(one_document, two_documents)
    torch.testing.assert_close(two_documents, spec.reference(Q, K, V, doc=doc).float(), atol=1e-6, rtol=1e-6)


def test_importing_attngen_is_light():
    code = (
        "import sys, attngen; print([m for m in ('torch', 'sympy', 'triton', 'jinja2') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_reference_backend_runs_through_the_same_call():
    out = attngen.load("causal")(Q, K, V, backend="reference")
    torch.testing.assert_close(out, attngen.load("causal")(Q, K, V), atol=1e-6, rtol=1e-6)
