"""Small listings in the form that the disassemblers print."""

from __future__ import annotations

HEAD = '\t.section\t.text.k,"ax",@progbits\n\t.align\t128\nk:\n.text.k:\n'


def word(*, stall: int = 1, done: int = 7, read: int = 7, waits: tuple[int, ...] = ()) -> int:
    """The upper word of an encoding: what schedules an instruction."""
    return stall << 41 | done << 46 | read << 49 | sum(1 << (52 + b) for b in waits)


def code(text: str, at: int = 0, control: int | None = None) -> str:
    """One instruction, two lines."""
    first = f"        /*{at:04x}*/                   {text} ;    /* 0x0000000000000000 */\n"
    return first + f"{'':60}/* 0x{word() if control is None else control:016x} */\n"


def line(number: int, file: str = "/tmp/kernel.py") -> str:
    return f'\t//## File "{file}", line {number}\n'


# A prologue, a loop of a matrix instruction with a wait of its own inside, and an exit.
SMALL = (
    HEAD
    + line(3)
    + code("LDC R1, c[0x0][0x28]", 0x00, 0x000FF00000000800)
    + code("@!P0 BRA `(.L_x_1)", 0x10)
    + ".L_x_0:\n"
    + line(12)
    + code("HMMA.16816.F32.BF16 R4, R8, R12, R4", 0x20, word(stall=15))
    + line(40, "/python/triton/language/standard.py")
    + code("MUFU.EX2 R2, R3", 0x30, 0x000E620000000800)
    + ".L_x_2:\n"
    + code("SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [UR4], R5", 0x40)
    + code("@!P1 BRA `(.L_x_2)", 0x50)
    + line(13)
    + code("ISETP.GE.AND P0, PT, R0, R1, PT", 0x60)
    + code("@P0 BRA `(.L_x_0)", 0x70)
    + ".L_x_1:\n"
    + code("EXIT", 0x80)
    + ".L_x_3:\n"
    + code("BRA `(.L_x_3)", 0x90)
)

AMD = """
	.amdgcn_target "amdgcn-amd-amdhsa--gfx942"
	.text
kernel:                                 ; @kernel
	.file	1 "/tmp/x" "kernel.py"
	.loc	1 3 0 prologue_end              ; kernel.py:3:0
	s_load_dwordx2 s[2:3], s[0:1], 0x0
	s_cbranch_scc1 .LBB0_2
.LBB0_1:                                ; =>This Inner Loop Header: Depth=1
	.loc	1 12 9 is_stmt 1                ; kernel.py:12:9
	v_mfma_f32_32x32x8_bf16 v[0:15], v[40:41], v[42:43], v[0:15]
	v_exp_f32_e32 v1, v2
	v_cmp_gt_f32_e32 vcc, v1, v2
	v_cndmask_b32_e32 v3, v1, v2, vcc
	v_pk_fma_f32 v[4:5], v[6:7], v[8:9], v[4:5]
	v_max3_f32 v4, v5, v6, v7
	ds_read2st64_b64 v[10:13], v14 offset1:8
	ds_bpermute_b32 v3, v4, v5
	global_load_dwordx4 v[0:3], v[4:5], off
	buffer_store_dword v2, off, s[0:3], 0 offset:4 ; 4-byte Folded Spill
	s_waitcnt vmcnt(0)
	s_barrier
	s_add_i32 s4, s4, 1
	s_cbranch_scc0 .LBB0_1
.LBB0_2:
	s_endpgm
	.amdgpu_metadata
---
amdhsa.kernels:
  - .agpr_count:     16
    .args:
      - .offset:         0
        .size:           8
    .group_segment_fixed_size: 512
    .private_segment_fixed_size: 8
    .sgpr_count:     106
    .sgpr_spill_count: 10
    .vgpr_count:     213
    .vgpr_spill_count: 1
...
"""
