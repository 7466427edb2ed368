"""Which kernels a device runs.

cuda, capability 8.9   ->  sm_89, sm_86, sm_80     binaries run on later devices of the same major number,
cuda, capability 9.0   ->  sm_90                   unless they use what one architecture alone has
hip, gfx942:sramecc+   ->  gfx942
cpu with avx512vl      ->  cpu-avx512, cpu-avx2, cpu
"""

from __future__ import annotations

from functools import cache

import torch

from attngen.backends.cpu_compile import is_known_to_run, machine_features
from attngen.emit.target import CUDA_ARCHS, HIP_ARCHS
from attngen.emit.triton.config import SHARED_BYTES
from attngen.errors import DeviceError

_PORTABLE_MAJOR = 8  # the one of ours whose kernels use nothing that a later minor number lacks
_CPU = ("cpu-avx512", "cpu-avx2", "cpu")
_WITHOUT_LIMIT = 48 << 10  # bytes of shared memory that every device gives a thread block


@cache
def accepted(device: torch.device) -> tuple[str, ...]:
    """The architectures whose kernels a device runs, best first; none where none of ours does."""
    if device.type == "cpu":
        return tuple(arch for arch in _CPU if is_known_to_run(arch))
    if device.type != "cuda":
        raise DeviceError(
            f"no kernel runs on device {device.type!r}",
            hint="move the tensors to the CPU or to a CUDA or ROCm GPU",
        )
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip is not None:
        return tuple(arch for arch in (properties.gcnArchName.split(":")[0],) if arch in HIP_ARCHS)
    return _of_capability(properties.major, properties.minor)


@cache
def features() -> frozenset[str]:
    """The instruction sets of this machine's processor; empty where Linux does not tell."""
    return machine_features()


def _of_capability(major: int, minor: int) -> tuple[str, ...]:
    exact = f"sm_{major}{minor}"
    if major != _PORTABLE_MAJOR:
        return tuple(arch for arch in CUDA_ARCHS if arch == exact)
    earlier = [arch for arch in CUDA_ARCHS if arch[3:-1] == str(major) and int(arch[-1]) <= minor]
    return tuple(sorted(earlier, reverse=True))


@cache
def shared_limit(device: torch.device) -> int:
    """The bytes of shared memory that a thread block may take of a GPU: a kernel of an earlier device may want more."""
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip is not None:
        return SHARED_BYTES.get(properties.gcnArchName.split(":")[0], _WITHOUT_LIMIT)
    told = getattr(properties, "shared_memory_per_block_optin", None)
    return told or SHARED_BYTES.get(f"sm_{properties.major}{properties.minor}", _WITHOUT_LIMIT)
