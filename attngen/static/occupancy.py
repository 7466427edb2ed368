"""How many thread blocks run on one multiprocessor at a time, and what allows no more.

NVIDIA (CUDA programming guide, compute capabilities): four sub-partitions with 16384 registers each, given to a warp
in units of 8 a thread; shared memory in units of 128 bytes, and 1 KiB of it kept for each thread block; 512 columns of
tensor memory from sm_100 on.

AMD (CDNA2 and CDNA3 instruction set manuals, LLVM's AMDGPU back end): four SIMDs of at most 8 waves with 512 vector
registers a lane, ordinary and accumulation registers together, in units of 8; 800 scalar registers a SIMD in units of
16; 64 KiB of LDS a compute unit in units of 512 bytes; 16 workgroups of more than one wave.
"""

from __future__ import annotations

from collections.abc import Mapping

from attngen.static.mix import PARTITIONS
from attngen.static.report import Occupancy
from attngen.value import value


@value
class SmLimits:
    """Of one SM: bytes of shared memory, warps and thread blocks at a time."""

    shared: int
    warps: int
    ctas: int


SMS = {
    "sm_80": SmLimits(164 << 10, 64, 32),
    "sm_86": SmLimits(100 << 10, 48, 16),
    "sm_89": SmLimits(100 << 10, 48, 24),
    "sm_90": SmLimits(228 << 10, 64, 32),
    "sm_100": SmLimits(228 << 10, 64, 32),
    "sm_103": SmLimits(228 << 10, 64, 32),
    "sm_120": SmLimits(100 << 10, 48, 24),
}
_PARTITION_REGISTERS, _WARP_LANES, _REGISTER_UNIT = 16384, 32, 8
_SHARED_UNIT, _SHARED_KEPT = 128, 1024
_TENSOR_COLUMNS = 512

_WAVES, _VECTOR_REGISTERS, _VECTOR_UNIT = 8, 512, 8
_SCALAR_REGISTERS, _SCALAR_UNIT = 800, 16
_LDS, _LDS_UNIT, _WORKGROUPS = 64 << 10, 512, 16


def sm_occupancy(
    arch: str, *, registers: int, num_warps: int, shared_bytes: int, tensor_columns: int = 0
) -> Occupancy:
    """Of a kernel on an NVIDIA GPU.

    registers       a thread; shared_bytes of a thread block, what CUDA keeps aside not counted;
    tensor_columns  of tensor memory that a thread block holds (sm_100).
    """
    sm = SMS[arch]
    warps = _PARTITION_REGISTERS // (_up(max(registers, 1), _REGISTER_UNIT) * _WARP_LANES)
    limits = {
        "registers": warps * PARTITIONS // num_warps,
        "shared": sm.shared // (_up(shared_bytes, _SHARED_UNIT) + _SHARED_KEPT),
        "warps": sm.warps // num_warps,
        "ctas": sm.ctas,
    }
    if tensor_columns:
        limits["tensor memory"] = _TENSOR_COLUMNS // tensor_columns
    return _least(limits, num_warps)


def cu_occupancy(*, vector: int, scalar: int, num_warps: int, lds_bytes: int) -> Occupancy:
    """Of a kernel on a CDNA2 or CDNA3 GPU: vector registers a lane, accumulation registers among them."""
    limits = {
        "registers": _VECTOR_REGISTERS // _up(max(vector, 1), _VECTOR_UNIT) * PARTITIONS // num_warps,
        "scalar registers": _SCALAR_REGISTERS // _up(max(scalar, 1), _SCALAR_UNIT) * PARTITIONS // num_warps,
        "shared": _LDS // max(_up(lds_bytes, _LDS_UNIT), 1),
        "warps": _WAVES * PARTITIONS // num_warps,
        "ctas": _WORKGROUPS if num_warps > 1 else _WAVES * PARTITIONS,
    }
    return _least(limits, num_warps)


def _least(limits: Mapping[str, int], num_warps: int) -> Occupancy:
    ctas = min(limits.values())
    by = tuple(name for name, count in limits.items() if count == ctas)
    return Occupancy(ctas, ctas * num_warps / PARTITIONS, by)


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
