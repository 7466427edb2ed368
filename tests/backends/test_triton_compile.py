"""Kernels compiled for GPUs that are not here."""

from __future__ import annotations

import re

import pytest

import attngen
from attngen.api import Attention
from attngen.backends.triton_compile import compile_source
from attngen.emit.spec import Source
from attngen.errors import CompileError, TargetError
from attngen.pipeline import backend_named


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_nothing_is_spilled(target, head_dim):
    figures = attngen.load("sliding_window_sink").inspect(target, "bf16", head_dim)
    assert figures.spill_bytes == 0
    assert figures.spill_instructions == 0
    assert 0 < figures.registers <= 255
    assert 0 < figures.shared_bytes <= 227 * 1024


CASES = {
    "sm_100": lambda: attngen.load("causal").inspect("sm_100", "fp16", 128),
    "gfx942": lambda: attngen.load("causal").inspect("gfx942", "bf16", 128),
    "fp32": lambda: attngen.load("causal").inspect("sm_90", "fp32", 64),
    "wide": lambda: attngen.load("causal").inspect("sm_80", "bf16", 256),
    "lists": lambda: attngen.load("documents").inspect("sm_90", "bf16", 64),
    "rows": lambda: attngen.load("varlen").inspect("sm_90", "bf16", 128),
    "conditions on rows": lambda: Attention(
        mask="first[b, q]: int\nopen[q]: bool\nmask = (k >= first[b, q] // 64 * 64) & (k <= q) & open[q]"
    ).inspect("sm_90", "bf16", 64),
    "padded": lambda: Attention(mask="k <= pos(q)", cascade="softmax_sink").inspect("sm_86", "fp16", 80, 40),
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_target_and_kernel_compiles(case):
    figures = CASES[case]()
    assert figures.registers > 0
    assert figures.shared_bytes > 0
    assert figures.spill_bytes == 0


def test_a_binary_and_its_assembly_are_kept():
    (spec,), target = attngen.load("causal").kernel_specs("sm_90", "bf16", 64)
    compiled = compile_source(backend_named("triton").emit(spec, target), spec)
    assert compiled.binary.read_bytes()[:4] == b"\x7fELF"
    assert ".target sm_90" in compiled.assembly.read_text()
    assert compiled.metadata["num_warps"] == 8


def test_the_interior_loop_has_no_mask_in_the_assembly_either():
    (spec,), target = attngen.load("causal").kernel_specs("sm_90", "bf16", 64)
    text = compile_source(backend_named("triton").emit(spec, target), spec).assembly.read_text()
    blocks = [b for b in re.split(r"\n\$L__BB", text) if "wgmma.mma_async" in b]
    # 128 rows by 64 keys over 256 threads are 32 pairs a thread, masked in tiles past an end and on the right edge
    selects = sorted(b.count("selp.f32") for b in blocks)
    assert len(blocks) == 3
    assert selects[0] == 0
    assert min(selects[1:]) >= 32


def test_a_compiler_failure_is_one_short_error_with_the_log():
    (spec,), target = attngen.load("causal").kernel_specs("sm_90", "bf16", 64)
    source = backend_named("triton").emit(spec, target)
    broken = Source(
        source.text.replace("tl.dot(q_tile, k_tile)", "tl.dot(q_tile, q_tile)"),
        "triton",
        source.entry,
        target,
        source.meta,
    )
    assert broken.text != source.text
    with pytest.raises(CompileError) as caught:
        compile_source(broken, spec)
    assert len(str(caught.value).splitlines()) < 5
    assert len(caught.value.log.splitlines()) > 3


def test_the_cpu_is_no_target_of_triton():
    (spec,), target = attngen.load("causal").kernel_specs("cpu", "fp32", 64)
    with pytest.raises(TargetError):
        compile_source(Source("", "triton", "x", target), spec)
    with pytest.raises(TargetError):
        attngen.load("causal").inspect("cpu")
