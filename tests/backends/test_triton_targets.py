"""What targets that are not here get: options of their compilers, defaults that do not spill, honest estimates."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

import attngen
from attngen.backends.triton import TritonBackend
from attngen.backends.triton_compile import Compiled, compile_source, compiler_options
from attngen.bench.static import PROGRAMS
from attngen.emit.configs import config_to_json
from attngen.emit.spec import KernelSpec, Target
from attngen.emit.triton.config import TritonConfig, shared_bytes
from attngen.emit.triton.sides import shared_widths
from attngen.errors import CompileError
from attngen.static.amd import kind_of, parse_amd, parse_resources
from attngen.tune.predict import fits
from attngen.tune.space import space_of

BACKEND = TritonBackend()
HEAD_DIMS = (64, 96, 128, 192, 256)


def kernel(name: str, target: str, dtype: str = "bf16", head_dim: int = 64) -> tuple[KernelSpec, Target]:
    (spec, *_), where = attngen.load(name, **PROGRAMS.get(name, {})).kernel_specs(target, dtype, head_dim)
    return spec, where


def compiled(spec: KernelSpec, where: Target, config: TritonConfig) -> Compiled:
    return compile_source(BACKEND.emit(spec, where, config), spec)


def test_options_are_passed_where_they_are_not_0():
    config = TritonConfig(128, 64, 4, 1)
    assert compiler_options(config_to_json(config)) == {"enable_fp_fusion": True}
    more = replace(config, max_registers=168, matrix_rows=16, waves_per_eu=2)
    assert compiler_options(config_to_json(more)) == {
        "enable_fp_fusion": True,
        "maxnreg": 168,
        "matrix_instr_nonkdim": 16,
        "waves_per_eu": 2,
    }


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("sm_90", {"max_registers": 168, "matrix_rows": 0, "waves_per_eu": 0}),
        ("gfx942", {"max_registers": 0, "matrix_rows": 16, "waves_per_eu": 3}),
    ],
)
def test_a_target_is_not_asked_for_what_its_compiler_lacks(target, kept):
    spec, where = kernel("causal", target)
    config = TritonConfig(128, 64, 4, 1, max_registers=168, matrix_rows=16, waves_per_eu=3)
    meta = dict(BACKEND.emit(spec, where, config).meta)
    assert {name: meta[name] for name in kept} == kept


def test_options_reach_the_compiler_of_amd():
    spec, where = kernel("causal", "gfx942")
    default = BACKEND.config(spec, where)
    rows = {}
    for config in (default, replace(default, matrix_rows=16, waves_per_eu=3)):
        found = compiled(spec, where, config)
        assert found.metadata["matrix_instr_nonkdim"] == config.matrix_rows
        assert found.metadata["waves_per_eu"] == config.waves_per_eu
        text = found.assembly.read_text()
        rows[config.matrix_rows] = {x.opcode.split("x")[0] for x in parse_amd(text) if kind_of(x) == "mma"}
        # three waves on a SIMD leave 512 / 3 registers, in units of 8
        assert (parse_resources(text).vector <= 168) == (config.waves_per_eu == 3)
    assert rows == {0: {"v_mfma_f32_32"}, 16: {"v_mfma_f32_16"}}


@pytest.mark.parametrize(("program", "dtype"), [("sliding_window", "bf16"), ("causal", "fp32")])
def test_gfx90a(program, dtype):
    found = attngen.load(program).inspect("gfx90a", dtype, 128)
    full = found.loop("full")
    assert full is not None
    assert found.spill_bytes == 0
    assert found.occupancy.waves >= 2
    # every score is computed by one warp alone
    assert full.cycles["tensor"] == full.tile_cycles > 0
    assert full.bound == "tensor"


@pytest.mark.parametrize("target", ["gfx90a", "gfx942"])
def test_lists_leave_two_waves_on_a_simd(target):
    found = attngen.load("documents").inspect(target, "bf16", 128)
    assert found.occupancy.waves >= 2
    assert found.spill_bytes == 0


def check(program: str, target: str, head_dim: int) -> None:
    found = attngen.load(program, **PROGRAMS[program]).inspect(target, "bf16", head_dim)
    assert found.spill_bytes == 0
    assert found.spill_instructions == 0
    assert found.occupancy.ctas >= 1
    if target.startswith("gfx"):
        assert all(loop.cycles["tensor"] == loop.tile_cycles for loop in found.loops)


@pytest.mark.parametrize("program", ["documents", "neighborhood_2d"])
def test_defaults_of_sm_120_do_not_spill(program):
    check(program, "sm_120", 128)


@pytest.mark.slow
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("target", ["sm_120", "gfx90a", "gfx942"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_no_default_spills(program, target, head_dim):
    check(program, target, head_dim)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_120", "gfx90a", "gfx942"])
@pytest.mark.parametrize("program", ["causal", "documents", "neighborhood_2d", "swin"])
def test_estimates_of_shared_memory_are_never_too_small(program, target, dtype):
    spec, where = kernel(program, target, dtype)
    default = BACKEND.config(spec, where)
    space = space_of(default, spec, where)
    rng = random.Random(f"{program} {target} {dtype}")
    drawn = [c for _ in range(40) if (c := space.drawn(rng)) is not None and c.num_warps >= 4]
    tried = [default, *[c for c in drawn if fits(c, spec, where) and c.block_q * c.block_k <= 1 << 13][:4]]
    looked_at = 0
    for config in (BACKEND._chosen(spec, where, c) for c in tried):
        try:
            takes = compiled(spec, where, config).metadata["shared"]
        except CompileError:  # what Triton cannot compile, the tuner leaves out
            assert config != default
            continue
        assert takes <= shared_bytes(config, where, spec.dtype, *shared_widths(spec)), config
        looked_at += 1
    assert looked_at >= 2
