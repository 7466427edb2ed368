"""Kernels built ahead of time for GPUs that are not here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import attngen
from attngen.aot.build_gpu import build_gpu
from attngen.aot.entry_params import check_params
from attngen.emit.spec import Target
from attngen.emit.triton.assume import assume
from attngen.emit.triton.names import Arg
from attngen.errors import CompileError, CompilerNotFoundError, TargetError
from tests.aot.build_child import build, finish, start

KINDS = str(Path(__file__).with_name("kinds.attn"))
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
CASES: list[dict[str, Any]] = [
    *({"name": f"causal-{t}", "program": "causal", "target": t} for t in TARGETS),
    {"name": "documents-sm_90", "program": "documents", "target": "sm_90", "width": 128},
    {"name": "documents-gfx942", "program": "documents", "target": "gfx942", "dtype": "fp16"},
    {"name": "kinds", "program": KINDS, "target": "sm_80", "outputs": ["O"]},
    {"name": "kinds-gfx942", "program": KINDS, "target": "gfx942", "alignment": "all"},
    {"name": "anything", "program": "alibi", "target": "sm_90", "alignment": "none"},
]
BROKEN: list[dict[str, Any]] = [
    {"name": "rows", "program": "causal", "target": "sm_90", "config": {"block_q": 96}},
    {
        "name": "described",
        "program": "causal",
        "target": "sm_90",
        "config": {"descriptors": True},
        "alignment": "none",
    },
]
DESCRIBED = {"name": "described", "program": "causal", "target": "sm_90", "config": {"descriptors": True}}


def files(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path, Path]:
    """Two processes with other seeds, folders, temporary folders, caches of Triton, and an order of their own."""
    root = tmp_path_factory.mktemp("builds")
    (root / "elsewhere").mkdir()
    first, second = root / "one", root / "a" / "folder" / "with" / "a" / "long" / "name"
    running = start(first, CASES, PYTHONHASHSEED="1", TRITON_CACHE_DIR=str(root / "cache"))
    other = start(second, CASES[::-1], PYTHONHASHSEED="4242", TMPDIR=str(root / "elsewhere"))
    made, again = finish(running), finish(other)
    assert made == again[::-1]
    return made, first, second


def test_two_builds_are_the_same_bytes(twice):
    made, first, second = twice
    found = files(first)
    assert found == files(second)
    assert sorted(found) == sorted(
        f"{c['name']}/{f}" for c, m in zip(CASES, made, strict=True) for f in m["files"].values()
    )
    for name, data in found.items():
        assert str(first.parent).encode() not in data, name
        assert b"attngen-triton-" not in data, name


def test_what_a_launch_needs(twice):
    made, first, _ = twice
    for case, one in zip(CASES, made, strict=True):
        nvidia = case["target"].startswith("sm_")
        assert one["entry"] == Path(case["program"]).stem, case
        assert one["scratch"] == 0
        assert one["config"]["descriptors"] is False
        assert one["threads"] == one["config"]["num_warps"] * (32 if nvidia else 64)
        assert 0 < one["shared"] <= 227 << 10
        assert one["resources"]["registers"] > 0
        kept = "kernel.cubin" if nvidia else "kernel.hsaco"
        assert one["files"]["binary"] == kept
        assert (first / case["name"] / kept).read_bytes()[:4] == b"\x7fELF"
        wide = {a["name"] for a in one["args"] if a["role"] == "stride" and a["dtype"] == "int64"}
        assert {"Q_stride_b", "Q_stride_h", "K_stride_h", "O_stride_h"} <= wide
        assert not wide & {"Q_stride_q", "K_stride_k", "LSE_stride_h"}
        assert ("LSE_stride_b" in wide) == ("LSE" in case.get("outputs", ["LSE"]))
        text = (first / case["name"] / one["files"]["assembly"]).read_text()
        assert ".loc" not in text
        if case["name"] == "anything":
            assert one["aligned"] == one["ones"] == []
        else:
            assert one["ones"][:4] == ["Q_stride_d", "K_stride_d", "V_stride_e", "O_stride_e"]


def test_none_of_the_default_builds_spills(twice):
    made, _, _ = twice
    for case, one in zip(CASES, made, strict=True):
        if case.get("alignment") != "none":
            assert one["resources"]["spill_bytes"] == 0, case["name"]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("width", [64, 128])
def test_features_cost_nothing(tmp_path, target, width):
    """Strides of heads in 64 bits and lengths that are multiples of nothing leave the code of the loops as it was."""
    case = {"program": "causal", "target": target, "width": width}
    levels = ("all", "features", "none")
    made = build(tmp_path / "out", [{**case, "name": a, "alignment": a} for a in levels])
    one, other, nothing = (m["resources"]["registers"] for m in made)
    assert one == other <= nothing


def test_descriptors_are_taken_where_they_are_asked_for(tmp_path):
    made, *broken = build(tmp_path / "out", [DESCRIBED, *({**c, "name": f"not-{c['name']}"} for c in BROKEN)])
    assert made["config"]["descriptors"]
    assert made["scratch"] > 0
    rows, described = broken
    assert rows["error"] == "CompileError"
    assert "power of 2" in rows["text"] + rows["log"]
    assert len(rows["text"].splitlines()) < 5
    assert described["error"] == "UnsupportedError"
    assert "cannot be described" in described["text"]


def test_a_process_that_interprets_kernels_compiles_none(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    (spec,), target = attngen.load("causal").kernel_specs("sm_90", "bf16", 64)
    with pytest.raises(CompilerNotFoundError, match="TRITON_INTERPRET"):
        build_gpu(spec, target, None, "features", tmp_path)
    with pytest.raises(TargetError):
        build_gpu(spec, Target("cpu", "cpu"), None, "features", tmp_path)


PTX = """
.visible .entry other(
	.param .u64 other_param_0
)
{ }
.visible .entry f(
	.param .u64 .ptr .global .align 1 f_param_0,
	.param .u32 f_param_1,
	.param .u8 f_param_2,
	.param .f32 f_param_3,
	.param .u64 .ptr .global .align 1 f_param_4,
	.param .u64 .ptr .global .align 1 f_param_5
)
.reqntid 256
{
	ld.param.b32 	%r52, [f_param_1];
}
"""
AMD = """
    .args:
      - .address_space:  global
        .offset:         0
        .size:           8
        .value_kind:     global_buffer
      - .offset:         8
        .size:           4
        .value_kind:     by_value
      - .offset:         12
        .size:           1
        .value_kind:     by_value
      - .offset:         16
        .size:           4
        .value_kind:     by_value
      - .offset:         24
        .size:           8
        .value_kind:     global_buffer
      - .offset:         32
        .size:           8
        .value_kind:     global_buffer
    .group_segment_fixed_size: 0
"""
PASSED = [
    Arg("x_ptr", "pointer", "x", dtype="bfloat16"),
    Arg("n_q", "extent", "n_q"),
    Arg("past", "param", "past", dtype="bool"),
    Arg("scale", "param", "scale", dtype="float"),
]


@pytest.mark.parametrize(("text", "target"), [(PTX, "sm_90"), (AMD, "gfx942")])
def test_the_parameters_of_a_kernel_are_those_of_a_launch(text, target):
    where = Target("cuda" if target == "sm_90" else "hip", target)
    check_params(text, where, "f", PASSED)
    wide = [replace(PASSED[0], role="stride", dtype="int64"), *PASSED[1:]]
    check_params(text, where, "f", wide)
    for wrong in (PASSED[:-1], PASSED[::-1], [*PASSED, PASSED[1]]):
        with pytest.raises(CompileError, match="a launch passes"):
            check_params(text, where, "f", wrong)
    with pytest.raises(CompileError):
        check_params("", where, "f", PASSED)


def names(spec, alignment) -> tuple[set[str], set[str]]:
    found = assume(spec, alignment)
    return set(found.aligned), set(found.ones)


def test_what_each_alignment_counts_on():
    (spec,), _ = attngen.load("alibi", ("O", "LSE")).kernel_specs("sm_90", "bf16", 64)
    aligned, ones = names(spec, "all")
    assert ones >= {"Q_stride_d", "LSE_stride_q", "slope_stride_0"}
    assert {"Q_ptr", "Q_stride_b", "K_stride_k", "LSE_ptr", "LSE_stride_h", "slope_ptr"} <= aligned
    features, same = names(spec, "features")
    assert same == ones
    assert aligned - features == {"LSE_stride_b", "LSE_stride_h"}
    assert names(spec, "none") == (set(), set())


def test_rows_of_features_that_are_no_multiple_of_16_lie_anywhere():
    (spec,), _ = attngen.load("causal").kernel_specs("sm_90", "bf16", 64, 40)
    features, _ = names(spec, "features")
    assert {"Q_stride_q", "K_stride_h", "V_ptr", "O_ptr"} <= features
    assert not features & {"V_stride_b", "V_stride_k", "O_stride_q"}


def test_lists_and_orders_begin_anywhere():
    (spec,), _ = attngen.load("documents").kernel_specs("sm_90", "bf16", 64)
    features, _ = names(spec, "features")
    assert not {n for n in features if n.startswith(("partial", "full", "order", "list"))}
    assert "doc_ptr" in features
