"""Every variant of a kernel that a configuration can ask for computes the same, in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import attngen
from attngen import arguments
from attngen.backends.triton import TritonBackend, TritonKernel
from attngen.backends.triton_compile import compile_source
from attngen.emit.triton.config import TritonConfig
from attngen.run_sweep import Inputs, SweepRunner

BASE = TritonConfig(32, 16, 4, 1)
VARIANTS = {
    "plain": replace(BASE, one_sided=False),
    "edges": BASE,
    "parts": replace(BASE, one_sided=False, sum_parts=8),
    "descriptors": replace(BASE, descriptors=True, sum_parts=8),
    "persistent": replace(BASE, persistent=2, sum_parts=8),
    "packed": replace(BASE, pack_heads=True),
    "packed in turns": replace(BASE, pack_heads=True, descriptors=True, persistent=2, sum_parts=8),
    "specialised": replace(BASE, descriptors=True, warp_specialize=True),
}
QUICK = [((33, 70), True), ((70, 33), False), ((3, 0), True)]
ALL = [((n_q, n_k), d) for n_q, n_k in ((1, 1), (64, 64), (70, 33), (65, 129), (0, 3)) for d in (True, False)]
MASKS = {
    "causal": lambda: attngen.load("causal", outputs=("O", "LSE")),
    "no window": lambda: attngen.load("sliding_window", outputs=("O", "LSE"), window=0),
    "narrow": lambda: attngen.load("sliding_window", outputs=("O", "LSE"), window=5),
    "wide": lambda: attngen.load("sliding_window", outputs=("O", "LSE"), window=40),
    "both sides": lambda: attngen.load("bidirectional_window", outputs=("O", "LSE")),
    "later keys": lambda: attngen.Attention(lambda b, h, q, k: k >= q, outputs=("O", "LSE")),
    "every key": lambda: attngen.Attention(None, outputs=("O", "LSE")),
    "bias": lambda: attngen.load("alibi", outputs=("O", "LSE")),
}


def run(spec, query, key, value, config, tensors):
    captured, params = arguments.bind(spec.program, dict(spec.values), tensors)
    params["scale"] = query.shape[-1] ** -0.5
    shapes = arguments.check_qkv(query, key, value, allow_gqa=True)
    inputs = Inputs(query, key, value, shapes, captured, params, {}, "triton")
    outs = SweepRunner(spec._analysed).run(inputs, config=config)
    return [outs[name] for name in spec.outputs]


def inputs_of(n_q, n_k, *, described):
    """Inputs with a NaN in the last key where nobody sees it; rows a descriptor can describe, or cannot."""
    query = torch.randn(2, 4, n_q, 24)
    if described:
        return query, torch.randn(2, 2, n_k, 24), torch.randn(2, 2, n_k, 40)
    key = torch.randn(2, 2, n_k, 51)[..., 1:49:2]
    return query, key, torch.randn(2, 2, 41, n_k).transpose(2, 3)[..., :40]


def check(mask, variant, cases):
    torch.manual_seed(0)
    spec = MASKS[mask]()
    slopes = {"slope": torch.tensor([0.5, 0.25, 0.125, 0.0625])} if mask == "bias" else {}
    for (n_q, n_k), described in cases:
        query, key, value = inputs_of(n_q, n_k, described=described)
        got = run(spec, query, key, value, VARIANTS[variant], slopes)
        want = spec.reference(query, key, value, **slopes)
        for mine, right in zip(got, want, strict=True):
            torch.testing.assert_close(mine.double(), right.double(), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("mask", MASKS)
def test_a_variant_computes_what_the_reference_does(mask, variant):
    check(mask, variant, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("mask", MASKS)
def test_a_variant_at_every_length(mask, variant):
    check(mask, variant, ALL)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_key_that_no_query_sees_is_never_multiplied(variant):
    torch.manual_seed(0)
    query, key, value = inputs_of(40, 90, described=True)
    spec = attngen.Attention(lambda b, h, q, k: (k <= q + 20) & (k >= q - 7), outputs=("O", "LSE"))
    want = spec.reference(query, key, value)
    key[:, :, 60:], value[:, :, 60:] = float("nan"), float("nan")
    got = run(spec, query, key, value, VARIANTS[variant], {})
    for mine, right in zip(got, want, strict=True):
        torch.testing.assert_close(mine.double(), right.double(), atol=2e-5, rtol=2e-5)


def test_programs_take_turns_through_tiles_in_an_order():
    """Heads of different windows are launched by their work: each turn looks its tile up."""
    torch.manual_seed(0)
    query, key, value = inputs_of(70, 90, described=True)
    width = torch.tensor([3, 70, 0, 20], dtype=torch.int32)
    spec = attngen.Attention(lambda b, h, q, k: (k <= q) & (q - k < width[h]), outputs=("O", "LSE"))
    got = run(spec, query, key, value, VARIANTS["persistent"], {})
    want = spec.reference(query, key, value)
    for mine, right in zip(got, want, strict=True):
        torch.testing.assert_close(mine.double(), right.double(), atol=2e-5, rtol=2e-5)


def test_boxes_have_a_program_each():
    spec = attngen.load("neighborhood_2d", grid=(9, 11))
    specs, target = spec.kernel_specs("cpu", "fp32", 24)
    kernel = TritonBackend().load(specs[0], target, VARIANTS["persistent"])
    assert kernel.recipe()["config"]["persistent"] == 0


def test_rows_that_cannot_be_described_take_the_other_kernel(monkeypatch):
    """Strides of elements, an odd stride of rows, an address off by an element: each is read through pointers."""
    launched = []
    plain = TritonKernel.launch

    def launch(self, call):
        launched.append(self._config.descriptors)
        return plain(self, call)

    monkeypatch.setattr(TritonKernel, "launch", launch)
    spec = attngen.load("causal")
    query = torch.randn(1, 1, 20, 24)
    wide, shifted = torch.randn(1, 1, 20, 25), torch.randn(20 * 24 + 1)[1:].view(1, 1, 20, 24)
    for key, want in (
        (torch.randn(1, 1, 20, 24), [True]),
        (wide[..., :24], [True, False]),
        (torch.randn(1, 1, 20, 48)[..., ::2], [True, False]),
        (shifted, [True, False]),
    ):
        launched.clear()
        value = torch.randn(1, 1, 20, 24)
        (got,) = run(spec, query, key, value, VARIANTS["descriptors"], {})
        assert launched == want
        torch.testing.assert_close(
            got.double(), spec.reference(query, key, value).double(), atol=2e-5, rtol=2e-5
        )


def test_a_described_kernel_is_opened_again_with_its_other(tmp_path):
    spec = attngen.load("causal")
    specs, target = spec.kernel_specs("cpu", "fp32", 24)
    made = TritonBackend().load(specs[0], target, VARIANTS["descriptors"])
    again = TritonBackend().reopen(made.recipe())
    assert again is not None
    assert again.recipe() == made.recipe()


def test_keys_too_far_apart_for_a_tile_are_copied_together(monkeypatch):
    monkeypatch.setattr("attngen.backends.triton_call._NEAR", 24 * 16)
    spec = attngen.load("causal")
    query, key, value = inputs_of(20, 20, described=True)
    apart = torch.empty(20, 2, 2, 24).copy_(key.permute(2, 0, 1, 3)).permute(1, 2, 0, 3)
    (got,) = run(spec, query, apart, value, BASE, {})
    torch.testing.assert_close(got.double(), spec.reference(query, key, value).double(), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
def test_descriptors_compile(target):
    spec = attngen.load("sliding_window")
    specs, where = spec.kernel_specs(target, "bf16", 128)
    backend = TritonBackend()
    config = replace(backend.config(specs[0], where), descriptors=True, num_stages=2)
    compiled = compile_source(backend.emit(specs[0], where, config), specs[0])
    assert compiled.metadata["shared"] > 0
