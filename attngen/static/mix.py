"""What SASS instructions are, and how long they keep the units of an SM busy.

An SM has four sub-partitions. Each issues one warp instruction a cycle, to 32 lanes of FMA (1 cycle a warp
instruction; 2 for integer multiply-adds and packed ones), 16 lanes of ALU (2 cycles) or 4 lanes of special functions
(8 cycles), or to its tensor core. Shared memory moves 128 bytes a cycle for the whole SM. Rates of tensor cores are
those of NVIDIA's data sheets, dense bf16, as multiply-adds a cycle and SM:

    A100 312 TFLOP/s over 108 SMs at 1.41 GHz: 1024; H100 989 over 132 at 1.83 GHz: 2048; B200: 4096
    L40S 362 over 142 at 2.52 GHz: 512; RTX PRO 6000 Blackwell (sm_120) 504 over 188 at 2.62 GHz: 512

GeForce cards of sm_86, sm_89 and sm_120 add in fp32 at half of that, which nothing here counts. A Hopper tensor core
reaches 0.62 of its rate by the `mma.sync` of earlier generations. The other units of sm_120 are assumed to be those of
sm_89: its integer units are faster, which makes the cycles of "alu" an upper bound there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from attngen.static.sass import Instruction

# Multiply-adds of bf16 (fp16 and int8 alike, as their instructions say how much they do) a cycle and SM.
TENSOR_MACS = {
    "sm_80": 1024,
    "sm_86": 512,
    "sm_89": 512,
    "sm_90": 2048,
    "sm_100": 4096,
    "sm_103": 4096,
    "sm_120": 512,
}
_HMMA_SHARE = {"sm_90": 0.62}
_HMMA_MACS = {"16816": 2048, "1688": 1024}

PARTITIONS = 4

# Kinds by opcode without modifiers; what begins with U and is not here is "uniform".
KINDS: dict[str, tuple[str, ...]] = {
    "mma": ("HMMA", "IMMA", "QMMA", "HGMMA", "IGMMA", "QGMMA", "UTCHMMA", "UTCIMMA", "UTCQMMA", "UTCOMMA"),
    "special": ("MUFU", "F2F", "F2I", "I2F"),
    "ffma": ("FFMA", "FFMA2", "HFMA2"),
    "fmul": ("FMUL", "FMUL2", "HMUL2"),
    "fadd": ("FADD", "FADD2", "HADD2"),
    "fmax": ("FMNMX", "FMNMX3"),
    "mask": ("ISETP", "FSETP", "FSEL", "SEL", "PLOP3", "P2R", "R2P"),
    "convert": ("F2FP", "I2FP"),
    "async_copy": ("LDGSTS",),
    "tma": ("UTMALDG", "UTMASTG", "UTMAREDG", "UTMAPF", "UTMACMDFLUSH", "UTMACCTL", "UBLKCP"),
    "ldsm": ("LDSM",),
    "lds": ("LDS",),
    "sts": ("STS", "STSM"),
    "shuffle": ("SHFL",),
    "spill": ("LDL", "STL"),
    "tensor_memory": ("LDTM", "STTM"),
    "global": ("LDG", "STG", "LD", "ST", "RED", "REDG", "ATOM", "ATOMG", "ATOMS"),
    "sync": (
        *("BAR", "SYNCS", "WARPGROUP", "WARPSYNC", "DEPBAR", "LDGDEPBAR", "MEMBAR", "FENCE"),
        *("ELECT", "UTCBAR", "CCTL", "ERRBAR"),
    ),
    "branch": ("BRA", "BRX", "JMP", "BSSY", "BSYNC", "EXIT", "CALL", "RET"),
    "uniform": ("R2UR", "S2UR", "VOTEU"),
    "int": (
        *("IADD", "IADD3", "IMAD", "LEA", "LOP3", "SHF", "VIADD", "VIADDMNMX", "PRMT", "MOV", "CS2R", "IABS"),
        *("IMNMX", "VIMNMX", "VIMNMX3", "SGXT", "LDC", "LDCU", "S2R", "BMSK", "NOP", "POPC", "FLO", "VOTE"),
    ),
}
_KIND_OF = {base: kind for kind, bases in KINDS.items() for base in bases}
_ALU = frozenset(
    {base for kind in ("fmax", "mask", "convert") for base in KINDS[kind]}
    | {"LOP3", "IADD", "IADD3", "LEA", "SHF", "VIADD", "VIADDMNMX", "PRMT", "SGXT", "IABS", "MOV"}
    | {"IMNMX", "VIMNMX", "VIMNMX3"}
)
_FMA = {
    **{base: 1 for kind in ("ffma", "fmul", "fadd") for base in KINDS[kind]},
    **{"IMAD": 2, "FFMA2": 2, "FMUL2": 2, "FADD2": 2},
}

_ASYNC_MMA = re.compile(r"[HIQ]GMMA\.64x(\d+)x")
_A_IN_REGISTERS = re.compile(r"R\d+,\s*R\d+,\s*gdesc")
_SHARED_WIDTHS = {"128": 16, "4": 16, "64": 8, "2": 8}
# Below so many multiply-adds a loop without matrix instructions or exponentials is not an attention loop.
_HOT_EXP2, _HOT_FFMA = 4, 32


@dataclass(frozen=True, slots=True)
class Cost:
    """One warp instruction: its kind, the unit that it holds for `cycles`, its cycles of tensor core and shared memory.

    tensor  of a warpgroup's instruction (HGMMA) the cycles of all four tensor cores, counted once a warp;
    shared  of the same instruction in one warp of each sub-partition.
    """

    kind: str
    unit: str | None
    cycles: int
    tensor: float
    shared: float


def kind_of(instruction: Instruction) -> str:
    """Its place in `KINDS`; "exp2" for exponentials, "other" for what no table has."""
    base = instruction.base
    if base == "MUFU":
        return "exp2" if instruction.opcode.startswith("MUFU.EX2") else "special"
    return _KIND_OF.get(base) or ("uniform" if re.match("U[A-Z]", base) else "other")


def cost_of(instruction: Instruction, arch: str) -> Cost:
    """What one warp instruction costs on `arch`."""
    kind = kind_of(instruction)
    unit, cycles = None, 0
    if kind in ("exp2", "special"):
        unit, cycles = "special", 8
    elif instruction.base in _FMA:
        unit, cycles = "fma", _FMA[instruction.base]
    elif instruction.base in _ALU:
        unit, cycles = "alu", 2
    return Cost(kind, unit, cycles, _tensor(instruction, arch), _shared(instruction, kind))


def cycles_of(costs: Sequence[Cost], arch: str, warps: int, macs: int = 0) -> dict[str, int]:
    """Cycles that one iteration of one thread block keeps each unit of a sub-partition busy.

    warps  of the thread block on one sub-partition;
    macs   multiply-adds of the thread block and iteration, for matrix instructions whose code names no shape.
    """
    busy: Counter[str] = Counter(issue=len(costs))
    tensor = shared = 0.0
    for c in costs:
        tensor += c.tensor
        shared += c.shared
        if c.unit is not None:
            busy[c.unit] += c.cycles
    found = {unit: busy[unit] * warps for unit in ("issue", "fma", "alu", "special")}
    found["shared"] = round(shared * warps)
    found["tensor"] = round(tensor * warps) or round(macs / TENSOR_MACS[arch])
    return found


def tile_cycles(code: Sequence[Instruction], arch: str, macs: int) -> int:
    """Tensor cycles of one thread block for so many multiply-adds by a loop's matrix instructions; 0 without any."""
    matrix = next((x for x in code if kind_of(x) == "mma"), None)
    if matrix is None:
        return 0
    rate = TENSOR_MACS[arch] * (_HMMA_SHARE.get(arch, 1.0) if matrix.base == "HMMA" else 1.0)
    return round(macs / rate * (2 if "TF32" in matrix.opcode else 1))


def is_hot(code: Sequence[Instruction]) -> bool:
    """Whether a loop of these instructions is one of the kernel's own, not one that waits or counts."""
    kinds = Counter(kind_of(x) for x in code)
    return bool(kinds["mma"]) or kinds["exp2"] >= _HOT_EXP2 or kinds["ffma"] >= _HOT_FFMA


def _tensor(instruction: Instruction, arch: str) -> float:
    if m := _ASYNC_MMA.match(instruction.opcode):
        return int(m[1]) / 2  # 64 x N x 16 multiply-adds at 2048 a cycle
    parts = instruction.opcode.split(".")
    if parts[0] != "HMMA" or len(parts) < 2:
        return 0.0
    macs = _HMMA_MACS.get(parts[1], 0) * (2 if "TF32" in parts else 1)  # TF32 runs at half the rate of bf16
    return macs / (TENSOR_MACS[arch] / PARTITIONS * _HMMA_SHARE.get(arch, 1.0))


def _shared(instruction: Instruction, kind: str) -> float:
    if m := _ASYNC_MMA.match(instruction.opcode):
        a_tile = 0 if _A_IN_REGISTERS.match(instruction.operands) else 16
        return int(m[1]) / 4 + a_tile
    if kind == "shuffle":
        return 4
    # a load to RZ orders memory and moves nothing
    if kind in ("ldsm", "lds", "sts", "async_copy") and not instruction.operands.startswith("RZ"):
        widths = [_SHARED_WIDTHS[p] for p in instruction.opcode.split(".")[1:] if p in _SHARED_WIDTHS]
        return widths[-1] if widths else 4
    return 0
