"""Assembly of AMD GPUs, read; kinds and cycles by hand."""

from __future__ import annotations

import pytest

from attngen.emit.target import HIP_ARCHS
from attngen.errors import CompileError
from attngen.static import amd
from attngen.static.amd import AmdInstruction, AmdResources, cycles_of, kind_of, parse_amd, parse_resources
from attngen.static.loops import Jump, hot_loops
from tests.static.listings import AMD


def test_resources_are_those_of_the_metadata():
    assert parse_resources(AMD) == AmdResources(213, 16, 106, 1, 10, 8, 512)


def test_instructions_jumps_and_lines():
    code = parse_amd(AMD)
    assert [x.opcode for x in code[:3]] == ["s_load_dwordx2", "s_cbranch_scc1", "v_mfma_f32_32x32x8_bf16"]
    assert code[1].jump == Jump(16, True)
    assert code[-2].jump == Jump(2, True)
    assert code[-1].jump == Jump(None, False)
    assert code[0].source == ("kernel.py", 3)
    assert code[2].source == ("kernel.py", 12)
    assert [kind_of(x) for x in code if x.is_spill] == ["spill"]


def test_lines_of_inlined_functions_are_those_of_the_caller():
    text = (
        '\t.file\t2 "/triton" "standard.py"\n'
        "\t.loc\t2 191 16                        ; standard.py:191:16 @[ kernel.py:90:12 ]\n"
        "\tv_max_f32_e32 v1, v2, v3\n"
    )
    assert parse_amd(text)[0].source == ("kernel.py", 90)


def test_the_hot_loop():
    code = parse_amd(AMD)
    ((first, *_, last),) = hot_loops([x.jump for x in code], lambda at: amd.is_hot([code[i] for i in at]))
    assert (first, last) == (2, 15)


@pytest.mark.parametrize(
    ("opcode", "kind"),
    [
        ("v_mfma_f32_32x32x8bf16_1k", "mma"),
        ("v_exp_f32_e32", "exp2"),
        ("v_rcp_f32_e32", "special"),
        ("v_fmac_f32_e32", "ffma"),
        ("v_pk_mul_f32", "fmul"),
        ("v_pk_add_f32", "fadd"),
        ("v_max3_f32", "fmax"),
        ("v_cmp_gt_i32_e64", "mask"),
        ("v_cndmask_b32_e32", "mask"),
        ("v_cvt_f32_u32_e32", "convert"),
        ("v_accvgpr_read_b32", "accumulator"),
        ("v_mul_lo_u32", "vector"),
        ("v_mov_b32_e32", "vector"),
        ("ds_read2_b64", "lds"),
        ("ds_bpermute_b32", "cross_lane"),
        ("scratch_load_dword", "spill"),
        ("buffer_load_dwordx4", "global"),
        ("s_cbranch_execz", "branch"),
        ("s_waitcnt", "wait"),
        ("s_barrier", "barrier"),
        ("s_load_dword", "scalar_load"),
        ("s_mul_i32", "scalar"),
    ],
)
def test_kinds(opcode, kind):
    assert kind_of(AmdInstruction(opcode)) == kind


@pytest.mark.parametrize(
    ("opcode", "arch", "cycles"),
    [
        ("v_mfma_f32_32x32x8_bf16", "gfx942", 32),  # the manuals: 8 passes of 4 cycles
        ("v_mfma_f32_32x32x8bf16_1k", "gfx90a", 64),  # 16 passes
        ("v_mfma_f32_16x16x16_f16", "gfx942", 16),
        ("v_mfma_f32_32x32x2_f32", "gfx942", 64),
        ("v_mfma_f32_32x32x4_2b_bf16", "gfx942", 32),
        ("v_mfma_f32_unknown", "gfx942", 0),
        ("v_mfma_f32_4x4x4_16b_f99", "gfx942", 0),
    ],
)
def test_matrix_cycles(opcode, arch, cycles):
    assert cycles_of([AmdInstruction(opcode)], arch, 4)["tensor"] == cycles


def test_cycles_of_a_loop():
    body = [AmdInstruction(x) for x in ("v_exp_f32_e32", "v_mul_lo_u32", "v_add_f32_e32")]
    body += [AmdInstruction(x) for x in ("ds_read2st64_b64", "ds_bpermute_b32", "ds_write_b128")]
    # LDS: 1024, 256 and 1024 bytes of a wave, four waves, 128 bytes a cycle
    assert cycles_of(body, "gfx942", 4) == {"tensor": 0, "alu": 36, "special": 16, "shared": 72}
    assert cycles_of(body, "gfx942", 8) == {"tensor": 0, "alu": 72, "special": 32, "shared": 144}


@pytest.mark.parametrize(
    ("opcode", "cycles"), [("v_mfma_f32_32x32x8_bf16", 2048), ("v_mfma_f32_32x32x8_f99", 0), ("v_exp_f32", 0)]
)
def test_cycles_of_a_tile(opcode, cycles):
    assert amd.tile_cycles([AmdInstruction(opcode)], "gfx942", 128 * 64 * 256) == cycles


def test_every_target_has_its_rates():
    for arch in HIP_ARCHS:
        assert cycles_of([AmdInstruction("v_mfma_f32_32x32x8_f16")], arch, 4)["tensor"] > 0


@pytest.mark.parametrize("text", ["", "; nothing", ".LBB0_1:\n.LBB0_2:\n"])
def test_a_text_without_code_or_metadata_is_an_error_of_ours(text):
    with pytest.raises(CompileError, match="no instructions"):
        parse_amd(text)
    with pytest.raises(CompileError, match="no metadata"):
        parse_resources(text)


def test_a_branch_to_a_label_that_is_not_there_has_no_target():
    assert parse_amd("\ts_branch .LBB9_9\n")[0].jump == Jump(None, False)
