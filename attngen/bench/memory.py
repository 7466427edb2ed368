"""How much memory a call takes at its highest, by two means: Python's allocations, and the process as a whole."""

from __future__ import annotations

import ctypes
import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def traced_peak_of(fn: Callable[[], object]) -> int:
    """Bytes that numpy and Python allocate in one call, at their highest."""
    gc.collect()
    tracemalloc.start()
    try:
        fn()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peak_of(fn: Callable[[], T]) -> tuple[T, int]:
    """What the second of two calls returns, and by how many bytes it makes the process grow at its highest.

    For libraries whose memory Python does not see. The first call compiles and fills caches. Linux only: elsewhere
    the number is 0.
    """
    fn()
    if not _CLEAR.exists():
        return fn(), 0
    gc.collect()
    # What the first call freed is given back, so that the second must ask for it.
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text("5", encoding="ascii")  # the highest so far is forgotten
    before = _field("VmRSS")
    out = fn()
    return out, max(0, _field("VmHWM") - before)


def _field(name: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0
