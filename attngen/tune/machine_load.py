"""How busy the processors are with what others do."""

from __future__ import annotations

import time
from pathlib import Path

_LOOK_S = 0.25


def busy_part(look_s: float = _LOOK_S) -> float:
    """The part of all processors that was not idle while this process slept; 0 where that cannot be known."""
    before = _ticks()
    time.sleep(look_s)
    after = _ticks()
    if before is None or after is None or after[1] <= before[1]:
        return 0.0
    return 1.0 - (after[0] - before[0]) / (after[1] - before[1])


def _ticks() -> tuple[int, int] | None:
    """Ticks that the processors were idle, and all of them."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except (OSError, ValueError):
        return None
    counts = [int(n) for n in first[1:9] if n.isdigit()]
    return (counts[3] + counts[4], sum(counts)) if len(counts) >= 5 else None
