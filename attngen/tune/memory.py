"""How many compilers may run at once: as many as there are processors, and as there is memory for."""

from __future__ import annotations

import os
from pathlib import Path

# A process with torch in it, and a compiler at work on one kernel.
COMPILER_BYTES = {"cpu": 900 << 20, "triton": 1600 << 20}


def available_bytes() -> int | None:
    """Memory that can be had without swapping: of the machine, or of the group of processes if it has less."""
    found = [n for n in (_of_machine(), _of_group()) if n is not None]
    return min(found, default=None)


def workers_for(kind: str, jobs: int, available: int | None = None) -> int:
    """Compilers at once for so many jobs; at least one."""
    room = available_bytes() if available is None else available
    most = min(jobs, len(os.sched_getaffinity(0)))
    if room is not None:
        most = min(most, room // COMPILER_BYTES[kind])
    return max(most, 1)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return None


def _of_group() -> int | None:
    """What a control group leaves, in either version of their file system."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = Path(limit).read_text(encoding="ascii"), Path(used).read_text(encoding="ascii")
            return max(int(most) - int(now), 0)
        except (OSError, ValueError):  # "max" is no number: no limit
            continue
    return None
