"""GPUs as launches see them: multiprocessors, clock, and bandwidths. Figures are those of the makers' data sheets.

The bandwidth of the second-level cache is in no data sheet. 34 bytes a cycle and multiprocessor were measured on an
H100 with tiles of 64 rows, which were still limited by their products; 48 is taken for all.
"""

from __future__ import annotations

from attngen.static.mix import TENSOR_MACS
from attngen.value import value

L2_BYTES_A_CYCLE = 48


@value
class Gpu:
    """One GPU.

    units    multiprocessors (AMD: compute units); hertz their clock under load.
    memory   bytes a second of the device's memory.
    tensor   bf16 multiply-adds a cycle and unit of its matrix cores.
    cache    bytes of its last-level cache.
    """

    units: int
    hertz: float
    memory: float
    tensor: int
    cache: int


# A100 80 GB, A10 (sm_86), L40S (sm_89), H100 SXM, B200, RTX 5090 (sm_120), MI250X (one die), MI300X.
GPUS: dict[str, Gpu] = {
    "sm_80": Gpu(108, 1.41e9, 2.04e12, TENSOR_MACS["sm_80"], 40 << 20),
    "sm_86": Gpu(72, 1.70e9, 0.60e12, TENSOR_MACS["sm_86"], 6 << 20),
    "sm_89": Gpu(142, 2.52e9, 0.86e12, TENSOR_MACS["sm_89"], 96 << 20),
    "sm_90": Gpu(132, 1.75e9, 3.35e12, TENSOR_MACS["sm_90"], 50 << 20),
    "sm_100": Gpu(148, 1.85e9, 8.00e12, TENSOR_MACS["sm_100"], 126 << 20),
    "sm_103": Gpu(148, 1.85e9, 8.00e12, TENSOR_MACS["sm_103"], 126 << 20),
    "sm_120": Gpu(170, 2.41e9, 1.79e12, TENSOR_MACS["sm_120"], 96 << 20),
    "gfx90a": Gpu(110, 1.70e9, 1.64e12, 512, 8 << 20),
    "gfx942": Gpu(304, 2.10e9, 5.30e12, 1024, 256 << 20),
}
