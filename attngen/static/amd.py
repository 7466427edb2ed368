"""Read the assembly that LLVM writes for AMD GPUs: resources, instructions, and how long they keep a SIMD busy.

A compute unit of CDNA2 (gfx90a) and CDNA3 (gfx942) has four SIMDs of 16 lanes. A vector instruction of a wave of 64
takes 4 cycles, exponentials, reciprocals and 32-bit integer products 16; a matrix instruction holds the matrix core,
which works beside the vector unit. Rates are those of AMD's data sheets, dense, as multiply-adds a cycle and SIMD:

    MI250X bf16 1024 FLOP a cycle and compute unit: 128; MI300X bf16 2048: 256; fp32 256 on both: 32

LDS moves 128 bytes a cycle for the whole compute unit. These are throughputs of units, not a schedule.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from attngen.errors import CompileError
from attngen.static.loops import Jump

_SIMD_MACS: dict[str, dict[str, int]] = {
    "gfx90a": {"bf16_1k": 128, "bf16": 64, "f16": 128, "f32": 32, "i8": 128},
    "gfx942": {"bf16": 256, "bf16_1k": 256, "f16": 256, "f32": 32, "xf32": 128, "i8": 512},
}
_VECTOR_CYCLES, _SLOW_CYCLES = 4, 16
_LDS_BYTES_PER_CYCLE, _LANES = 128, 64

_FILE = re.compile(r'\s*\.file\s+(\d+)\s+(?:"[^"]*"\s+)?"([^"]*)"')
_LOC = re.compile(r"\s*\.loc\s+(\d+)\s+(\d+)")
_INLINED = re.compile(r"@\[ ([^\]@]*?):(\d+):\d+ \]?\s*\]*\s*$")
_LABEL = re.compile(r"(\.LBB\w+):")
_CODE = re.compile(r"\s+((?:v|s|ds|global|buffer|flat|scratch)_\w+)\s*([^;]*)(;.*)?$")
_MATRIX = re.compile(r"v_s?mfmac?_[a-z]+\d+_(\d+)x(\d+)x(\d+)_?(?:(\d+)b_)?(\w+)")
_FIELD = re.compile(r"^\s*-?\s*\.(\w+):\s*(\d+)\s*$", re.MULTILINE)
_SLOW = re.compile(r"v_(?:exp|log|rcp|rsq|sqrt|sin|cos)_|v_mul_(?:lo|hi)_[ui]32|v_mad_[ui]64_[ui]32")
_LDS_WIDTH = re.compile(r"_b(8|16|32|64|96|128)\b")

# Kinds that the vector unit runs.
VECTOR = ("exp2", "special", "ffma", "fmul", "fadd", "fmax", "mask", "convert", "accumulator", "vector")

_KINDS = (
    ("mma", r"v_s?mfmac?_"),
    ("exp2", r"v_exp_f32"),
    ("special", r"v_(?:exp|log|rcp|rsq|sqrt|sin|cos)_"),
    ("accumulator", r"v_accvgpr_"),
    ("ffma", r"v_(?:pk_)?(?:fma|fmac|fmaak|fmamk|mad|mac|dot2\w*)_f(?:32|16)"),
    ("fmul", r"v_(?:pk_)?mul_f(?:32|16)"),
    ("fadd", r"v_(?:pk_)?(?:add|sub|subrev)_f(?:32|16)"),
    ("fmax", r"v_(?:pk_)?(?:max|max3|maximum|min|min3)_f(?:32|16)"),
    ("mask", r"v_cmpx?_|v_cndmask_"),
    ("convert", r"v_cvt_"),
    ("vector", r"v_"),
    ("cross_lane", r"ds_(?:b?permute|swizzle)"),
    ("lds", r"ds_"),
    ("spill", r"scratch_"),
    ("global", r"global_|buffer_|flat_"),
    ("branch", r"s_(?:c?branch|setpc|swappc|endpgm|call)"),
    ("barrier", r"s_barrier"),
    ("wait", r"s_waitcnt|s_nop|s_sleep"),
    ("scalar_load", r"s_(?:load|buffer_load)_"),
    ("scalar", r"s_"),
)
_PATTERNS = [(kind, re.compile(pattern)) for kind, pattern in _KINDS]
_HOT_EXP2, _HOT_FFMA = 4, 32


@dataclass(frozen=True, slots=True)
class AmdInstruction:
    """One instruction of a wave; `source` and `target` as those of `sass.Instruction`."""

    opcode: str
    operands: str = ""
    is_spill: bool = False
    source: tuple[str, int] | None = None
    target: int | None = None

    @property
    def jump(self) -> Jump | None:
        """Where it may go, if not always to the next one."""
        if self.opcode.startswith(("s_cbranch", "s_branch")):
            return Jump(self.target, self.opcode.startswith("s_cbranch"))
        if self.opcode.startswith(("s_setpc", "s_endpgm")):
            return Jump(None, False)
        return None


@dataclass(frozen=True, slots=True)
class AmdResources:
    """What the metadata of a kernel says.

    vector        registers a lane, accumulation registers among them; spilled ones beside;
    accumulation  registers a lane;
    scalar        registers a wave; spilled ones are kept in lanes of vector registers;
    private_bytes of memory a lane, group_bytes of LDS fixed by the code.
    """

    vector: int
    accumulation: int
    scalar: int
    vector_spills: int
    scalar_spills: int
    private_bytes: int
    group_bytes: int


def parse_resources(text: str) -> AmdResources:
    """The resources in the metadata of an assembly text. Raises CompileError where it has none."""
    found: dict[str, int] = {}
    for name, number in _FIELD.findall(text):
        found.setdefault(name, int(number))
    if "vgpr_count" not in found:
        raise CompileError("the assembly has no metadata of registers", log=text[-2000:])
    names = ("vgpr_count", "agpr_count", "sgpr_count", "vgpr_spill_count", "sgpr_spill_count")
    names += ("private_segment_fixed_size", "group_segment_fixed_size")
    return AmdResources(*(found.get(name, 0) for name in names))


def parse_amd(text: str) -> tuple[AmdInstruction, ...]:
    """The instructions of an assembly text. Raises CompileError where it has none."""
    code: list[AmdInstruction] = []
    labels: dict[str, int] = {}
    files: dict[str, str] = {}
    source: tuple[str, int] | None = None
    for line in text.splitlines():
        if m := _CODE.match(line):
            code.append(AmdInstruction(m[1], m[2].strip(), "Folded" in (m[3] or ""), source))
        elif m := _LABEL.match(line):
            labels[m[1]] = len(code)
        elif m := _LOC.match(line):
            inlined = _INLINED.search(line)
            file = files.get(m[1], "")
            source = (inlined[1], int(inlined[2])) if inlined else (file, int(m[2]))
        elif m := _FILE.match(line):
            files[m[1]] = m[2]
    if not code:
        raise CompileError("the assembly has no instructions", log=text[-2000:])
    branches = ("s_cbranch", "s_branch")
    return tuple(
        replace(x, target=labels.get(x.operands)) if x.opcode.startswith(branches) else x for x in code
    )


def kind_of(instruction: AmdInstruction) -> str:
    """What an instruction is: "mma", "exp2", "mask", "lds", "global", "wait", "branch", ... (`_KINDS`)."""
    if instruction.is_spill:
        return "spill"
    return next(kind for kind, pattern in _PATTERNS if pattern.match(instruction.opcode))


def cycles_of(code: Sequence[AmdInstruction], arch: str, num_warps: int) -> dict[str, int]:
    """Cycles that one iteration of one workgroup keeps each unit of a SIMD busy; LDS serves all four."""
    tensor = lds = 0.0
    alu = special = 0
    for x in code:
        kind = kind_of(x)
        if kind == "mma":
            tensor += _matrix_cycles(x.opcode, arch)
        elif kind in VECTOR:
            cycles = _SLOW_CYCLES if _SLOW.match(x.opcode) else _VECTOR_CYCLES
            alu += cycles
            special += cycles if kind in ("exp2", "special") else 0
        elif kind in ("lds", "cross_lane"):
            lds += _lds_bytes(x.opcode) / _LDS_BYTES_PER_CYCLE
    waves = num_warps / 4
    return {
        "tensor": round(tensor * waves),
        "alu": round(alu * waves),
        "special": round(special * waves),
        "shared": round(lds * num_warps),
    }


def tile_cycles(code: Sequence[AmdInstruction], arch: str, macs: int) -> int:
    """Matrix cycles of one workgroup for so many multiply-adds, by the matrix instructions of a loop; 0 without any."""
    matrix = next((x for x in code if kind_of(x) == "mma"), None)
    rate = 0 if matrix is None else _matrix_rate(matrix.opcode, arch)
    return round(macs / (4 * rate)) if rate else 0


def is_hot(code: Sequence[AmdInstruction]) -> bool:
    """Whether a loop of these instructions is one of the kernel's own, not one that waits or counts."""
    kinds = Counter(kind_of(x) for x in code)
    return bool(kinds["mma"]) or kinds["exp2"] >= _HOT_EXP2 or kinds["ffma"] >= _HOT_FFMA


def _matrix_cycles(opcode: str, arch: str) -> float:
    m = _MATRIX.match(opcode)
    rate = _matrix_rate(opcode, arch)
    return int(m[1]) * int(m[2]) * int(m[3]) * int(m[4] or 1) / rate if m and rate else 0.0


def _matrix_rate(opcode: str, arch: str) -> int:
    """Multiply-adds a cycle and SIMD; 0 for a type that no table has."""
    m = _MATRIX.match(opcode)
    return _SIMD_MACS[arch].get(m[5], 0) if m else 0


def _lds_bytes(opcode: str) -> int:
    """Bytes that one wave moves."""
    width = _LDS_WIDTH.search(opcode)
    bits = int(width[1]) if width else 32
    return _LANES * bits // 8 * (2 if re.match(r"ds_(?:read|write)2", opcode) else 1)
