"""Whole kernels, compiled for GPUs that are not here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import attngen
from attngen.backends.triton import TritonBackend
from attngen.backends.triton_compile import Compiled
from attngen.emit.target import parse_target
from attngen.emit.triton.pack import packed, roomy
from attngen.errors import CompileError, CompilerNotFoundError
from attngen.static import inspect_kernel as module
from attngen.static import resources, tools
from attngen.static.figures import Block
from attngen.static.mix import TENSOR_MACS
from attngen.static.report import Inspection


def inspected(program: str, target: str, head_dim: int) -> Inspection:
    return attngen.load(program).inspect(target, "bf16", head_dim)


@pytest.mark.parametrize(("target", "head_dim"), [("sm_90", 128), ("sm_80", 64)])
def test_both_loops_of_a_kernel_for_nvidia(target, head_dim):
    found = inspected("sliding_window", target, head_dim)
    assert [loop.label for loop in found.loops] == ["partial", "left", "full", "right"]
    partial, left, full, right = found.loops
    assert found.loop("full") is full
    assert full.mix["mask"] <= 12
    # an edge takes a comparison and a select a pair, all of the mask more
    pairs = found.block_q * found.block_k // (32 * found.num_warps)
    assert partial.mix["mask"] > left.mix["mask"] >= 2 * pairs
    assert full.instructions < right.instructions < partial.instructions
    for loop in found.loops:
        assert sum(loop.mix.values()) == loop.instructions
        assert sum(loop.matrix.values()) == loop.mix["mma"]
        assert loop.cycles["issue"] == loop.instructions * found.num_warps // 4
        assert loop.cycles[loop.bound] == max(loop.cycles.values())
        # an exponential for each pair of the tile, and two or three for the maximum of each row of a thread
        assert pairs <= loop.mix["exp2"] <= pairs + 4
        assert loop.pipe_bound is not None
        assert loop.simulated is not None
        assert 0 < loop.simulated <= 1
    assert found.occupancy.ctas >= 1


@pytest.mark.parametrize("n_q", [1, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("head_dim", [pytest.param(64, marks=pytest.mark.slow), 128])
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_a_packed_kernel_spills_nothing_and_its_loops_cost_what_they_did(target, head_dim, n_q):
    """Four heads a key head, beside the plain kernel of the same tiles."""
    (spec,), where = attngen.load("alibi", ("O", "LSE")).kernel_specs(target, "bf16", head_dim)
    config = packed(TritonBackend().config(spec, where), spec.dtype, n_q, 4)
    assert config is not None
    assert config.block_q == max(4 * n_q, 16)
    found = module.inspect_kernel(spec, where, config)
    plain = module.inspect_kernel(spec, where, replace(config, pack_heads=False))
    assert found.spill_bytes == found.spill_instructions == 0
    assert [loop.label for loop in found.loops] == [loop.label for loop in plain.loops]
    for mine, other in zip(found.loops, plain.loops, strict=True):
        assert mine.instructions <= 1.06 * other.instructions
        assert mine.cycles["tensor"] == other.cycles["tensor"]


@pytest.mark.slow
@pytest.mark.parametrize("n_q", [1, 16, 64])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("program", ["causal", "alibi", "sliding_window"])
def test_no_packed_default_spills_what_the_plain_one_does_not(program, target, head_dim, dtype, n_q):
    (spec,), where = attngen.load(program).kernel_specs(target, dtype, head_dim)
    plain = TritonBackend().config(spec, where)
    config = packed(roomy(plain, spec), spec.dtype, n_q, 8)
    if config is not None:
        found, other = (module.inspect_kernel(spec, where, c) for c in (config, plain))
        # on sm_80 ptxas holds kernels of FMAs to few registers and keeps a word aside outside their loops
        assert found.spill_bytes <= other.spill_bytes + (8 if dtype == "fp32" else 0)
        spilled, before = (sum(x.mix.get("spill", 0) for x in i.loops) for i in (found, other))
        assert spilled <= before


@pytest.mark.parametrize(("program", "head_dim"), [("sliding_window", 128), ("rope", 64)])
def test_the_tensor_cores_do_what_the_tile_says(program, head_dim):
    (spec,), _ = attngen.load(program).kernel_specs("sm_90", "bf16", head_dim)
    found = inspected(program, "sm_90", head_dim)
    macs = module.tile_macs(spec, found.block_q, found.block_k)
    for loop in found.loops:
        assert loop.cycles["tensor"] == loop.tile_cycles == macs / TENSOR_MACS["sm_90"]


def test_tensor_cores_beside_the_warps():
    found = inspected("causal", "sm_100", 128)
    full = found.loop("full")
    assert full is not None
    assert (
        full.cycles["tensor"]
        == full.tile_cycles
        == found.block_q * found.block_k * 256 // TENSOR_MACS["sm_100"]
    )
    assert full.simulated is None


def test_amd():
    found = inspected("sliding_window", "gfx942", 64)
    partial, full = found.loop("partial"), found.loop("full")
    assert partial is not None
    assert full is not None
    assert full.mix["mma"] == partial.mix["mma"] > 0
    assert full.mix["mask"] < partial.mix["mask"]
    assert found.scalar_registers > 0
    assert found.occupancy.waves >= 1
    assert full.simulated is None


def test_fp32_has_no_tensor_cores():
    found = attngen.load("causal").inspect("sm_90", "fp32", 64)
    assert {"partial", "full"} <= {loop.label for loop in found.loops}
    assert all(loop.pipe_bound is None and loop.simulated is None for loop in found.loops)


def compiled(folder: Path, target: str, text: str) -> tuple[Compiled, Block]:
    files = folder / "kernel.bin", folder / "kernel.s"
    for file in files:
        file.write_text(text)
    block = Block(target, 4, 0, {}, "kernel.py")
    return Compiled(parse_target(target), *files, {"shared": 0, "name": "kernel"}), block


def test_a_broken_binary_is_one_error(tmp_path):
    with pytest.raises(CompileError, match="could not read the kernel"):
        module._read_cuda(*compiled(tmp_path, "sm_90", "not a cubin"))
    with pytest.raises(CompileError, match="no metadata"):
        module._read_hip(*compiled(tmp_path, "gfx942", "not assembly"))


@pytest.mark.parametrize("usage", ["", "Resource usage:\n Common:\n  GLOBAL:0\n"])
def test_a_report_without_registers_is_one_error(tmp_path, monkeypatch, usage):
    monkeypatch.setattr(resources, "run_tool", lambda *_: usage)
    with pytest.raises(CompileError, match="no registers"):
        module._read_cuda(*compiled(tmp_path, "sm_90", ""))


def test_a_missing_tool_is_one_error(tmp_path, monkeypatch):
    with pytest.raises(CompilerNotFoundError, match="no_such_tool is not in Triton's package"):
        tools.run_tool("no_such_tool")
    monkeypatch.setattr(tools, "find_spec", lambda _: None)
    with pytest.raises(CompilerNotFoundError, match="nvdisasm is not in Triton's package"):
        tools.run_tool("nvdisasm")
    script = tmp_path / "nvdisasm"
    script.write_text("not a program")
    monkeypatch.setattr(tools, "_tool", lambda _: script)
    with pytest.raises(CompilerNotFoundError, match="does not start"):
        tools.run_tool("nvdisasm")


def test_a_program_of_one_loop_has_no_other():
    found = inspected("causal", "sm_90", 64)
    assert replace(found, loops=found.loops[:1]).loop("full") is None
