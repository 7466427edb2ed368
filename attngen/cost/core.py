"""The cores of this machine: vectors and caches."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from attngen.cost.cpu_work import Core
from attngen.emit.spec import Target

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20}
_USUAL = (32 << 10, 1 << 20)  # where the system does not say


def core_of(target: Target) -> Core:
    """The core that a target's kernels run on."""
    l1, l2 = _caches()
    return Core(_lanes(target.arch), l1, l2)


@cache
def _lanes(arch: str) -> int:
    """fp32 lanes of the vectors that the C++ text takes for an instruction set."""
    if arch == "cpu-avx512":
        return 16
    if arch == "cpu-avx2":
        return 8
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return 8
    return 16 if "avx512f" in words else 8 if "avx" in words else 4


@cache
def _caches() -> tuple[int, int]:
    """Bytes of the first two levels of data cache."""
    found: dict[int, int] = dict(zip((1, 2), _USUAL, strict=True))
    for index in sorted(_CACHES.glob("index*")) if _CACHES.is_dir() else ():
        try:
            level, kind, size = ((index / n).read_text("ascii").strip() for n in ("level", "type", "size"))
            if kind in ("Data", "Unified") and int(level) in found:
                found[int(level)] = int(size[:-1]) * _UNITS[size[-1]]
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return found[1], found[2]
