"""Timing on noisy machines: alternating rounds, medians, ratios taken within a round."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

Fn = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds per call of each candidate; entries i of all candidates were taken back to back."""

    seconds: Mapping[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """Median seconds of one candidate."""
        return statistics.median(self.seconds[name])

    def ratio(self, slow: str, fast: str) -> float:
        """Median over the rounds of `slow / fast`: how many times faster `fast` is."""
        pairs = zip(self.seconds[slow], self.seconds[fast], strict=True)
        return statistics.median(s / f for s, f in pairs)


def alternate(candidates: Mapping[str, Fn], *, rounds: int, least_s: float = 0.05) -> Timings:
    """Time every candidate once a round, in turn, each long enough to outlast a scheduler's slice.

    `least_s` is the least time of one measurement; short calls are repeated within it.
    """
    repeats = {name: _repeats(fn, least_s) for name, fn in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, fn in candidates.items():
            n = repeats[name]
            _synchronize()
            start = time.perf_counter()
            for _ in range(n):
                fn()
            _synchronize()
            seconds[name].append((time.perf_counter() - start) / n)
    return Timings({name: tuple(s) for name, s in seconds.items()})


def _repeats(fn: Fn, least_s: float) -> int:
    fn()  # compiles, fills caches
    _synchronize()
    start = time.perf_counter()
    fn()
    _synchronize()
    return max(1, int(least_s / max(time.perf_counter() - start, 1e-7)))


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine() -> dict[str, str | int]:
    """What was measured on: processor or GPU, threads, versions, date."""
    from attngen import __version__

    facts: dict[str, str | int] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "attngen": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def processor() -> str:
    """The processor's name, with family and model: cloud machines share one name for several generations."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    facts: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    return f"{facts['model name']}, family {facts.get('cpu family', '?')}, model {facts.get('model', '?')}"
