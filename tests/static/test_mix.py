"""Kinds and costs of SASS instructions, by hand."""

from __future__ import annotations

import pytest

from attngen.emit.target import CUDA_ARCHS
from attngen.static.mix import KINDS, TENSOR_MACS, cost_of, cycles_of, is_hot, kind_of, tile_cycles
from attngen.static.occupancy import SMS
from attngen.static.sass import Instruction


def test_every_target_has_its_rates_and_limits():
    assert set(TENSOR_MACS) == set(SMS) == set(CUDA_ARCHS)


def test_no_opcode_has_two_kinds():
    bases = [base for bases in KINDS.values() for base in bases]
    assert len(bases) == len(set(bases))


@pytest.mark.parametrize(
    ("opcode", "kind", "unit", "cycles"),
    [
        ("MUFU.EX2", "exp2", "special", 8),
        ("MUFU.RCP", "special", "special", 8),
        ("FFMA", "ffma", "fma", 1),
        ("FFMA2", "ffma", "fma", 2),
        ("IMAD.MOV.U32", "int", "fma", 2),
        ("FMNMX", "fmax", "alu", 2),
        ("ISETP.GE.AND", "mask", "alu", 2),
        ("FSEL", "mask", "alu", 2),
        ("F2FP.BF16.F32.PACK_AB", "convert", "alu", 2),
        ("LOP3.LUT", "int", "alu", 2),
        ("UISETP.NE.AND", "uniform", None, 0),
        ("UIADD3", "uniform", None, 0),
        ("SHFL.BFLY", "shuffle", None, 0),
        ("LDGSTS.E.BYPASS.LTC128B.128", "async_copy", None, 0),
        ("UTMALDG.2D", "tma", None, 0),
        ("STL.64", "spill", None, 0),
        ("UTCHMMA", "mma", None, 0),
        ("WARPGROUP.ARRIVE", "sync", None, 0),
        ("BRA.U", "branch", None, 0),
        ("FUTURE.OP", "other", None, 0),
    ],
)
def test_kinds_and_units(opcode, kind, unit, cycles):
    cost = cost_of(Instruction(opcode), "sm_90")
    assert (cost.kind, cost.unit, cost.cycles) == (kind, unit, cycles)


@pytest.mark.parametrize(
    ("opcode", "arch", "cycles"),
    [
        ("HMMA.16816.F32.BF16", "sm_80", 8),  # 16 x 8 x 16 at 256 a sub-partition
        ("HMMA.16816.F32.BF16", "sm_86", 16),
        ("HMMA.16816.F32.BF16", "sm_120", 16),
        ("HMMA.16816.F32.BF16", "sm_90", 4 / 0.62),
        ("HMMA.1688.F32.TF32", "sm_80", 8),
        ("HGMMA.64x128x16.F32.BF16", "sm_90", 64),
        ("UTCHMMA", "sm_100", 0),
        ("HMMA", "sm_80", 0),
        ("HMMA.999", "sm_80", 0),
        ("FFMA", "sm_80", 0),
    ],
)
def test_tensor_cycles(opcode, arch, cycles):
    assert cost_of(Instruction(opcode), arch).tensor == pytest.approx(cycles)


@pytest.mark.parametrize(
    ("opcode", "operands", "cycles"),
    [
        ("LDS", "R1, [R2]", 4),  # four warps of 32 lanes of 4 bytes, 128 bytes a cycle
        ("LDS.64", "R1, [R2]", 8),
        ("LDS.128", "R1, [R2]", 16),
        ("LDS", "RZ, [RZ]", 0),
        ("LDSM.16.M88.4", "R4, [R2]", 16),
        ("LDSM.16.MT88.2", "R4, [R2]", 8),
        ("LDGSTS.E.BYPASS.LTC128B.128", "[R1], desc[UR4][R2.64]", 16),
        ("SHFL.BFLY", "PT, R1, R2, 0x1, 0x1f", 4),
        ("HGMMA.64x64x16.F32.BF16", "R24, gdesc[UR4], R24, !UPT", 32),
        ("HGMMA.64x64x16.F32.BF16", "R24, R4, gdesc[UR4], R24", 16),
        ("FADD", "R1, R2, R3", 0),
    ],
)
def test_shared_memory_cycles(opcode, operands, cycles):
    assert cost_of(Instruction(opcode, operands), "sm_90").shared == cycles


def test_cycles_of_a_loop_are_those_of_all_warps_of_a_sub_partition():
    body = ["HGMMA.64x64x16.F32.BF16", "MUFU.EX2", "MUFU.EX2", "FFMA", "ISETP.GE.AND", "BRA"]
    costs = [cost_of(Instruction(x), "sm_90") for x in body]
    assert cycles_of(costs, "sm_90", 2) == {
        "issue": 12,
        "fma": 2,
        "alu": 4,
        "special": 32,
        "shared": 64,
        "tensor": 64,
    }


def test_matrix_instructions_without_a_shape_take_what_the_tile_takes():
    costs = [cost_of(Instruction("UTCHMMA"), "sm_100")]
    assert cycles_of(costs, "sm_100", 2, macs=128 * 64 * 256)["tensor"] == 512
    assert cycles_of(costs, "sm_100", 2)["tensor"] == 0


@pytest.mark.parametrize(
    ("opcode", "arch", "cycles"),
    [
        ("HMMA.16816.F32.BF16", "sm_80", 2048),
        ("HMMA.1688.F32.TF32", "sm_80", 4096),
        ("HMMA.16816.F32.BF16", "sm_90", round(1024 / 0.62)),
        ("HGMMA.64x64x16.F32.BF16", "sm_90", 1024),
        ("UTCHMMA", "sm_100", 512),
        ("FFMA", "sm_90", 0),
    ],
)
def test_cycles_of_a_tile(opcode, arch, cycles):
    assert tile_cycles([Instruction("BRA"), Instruction(opcode)], arch, 128 * 64 * 256) == cycles


@pytest.mark.parametrize(
    ("opcodes", "hot"),
    [
        (["HMMA.16816.F32.BF16"], True),
        (["MUFU.EX2"] * 4, True),
        (["MUFU.EX2"] * 3, False),
        (["FFMA"] * 32, True),
        (["SYNCS", "BRA"], False),
    ],
)
def test_which_loops_are_hot(opcodes, hot):
    assert is_hot([Instruction(x) for x in opcodes]) == hot


def test_kind_of_the_exponential_by_name():
    assert kind_of(Instruction("MUFU.EX2.F16")) == "exp2"
