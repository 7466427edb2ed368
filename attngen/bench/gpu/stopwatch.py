"""Times on a device: one call between two events, with the second-level cache overwritten before it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from attngen.bench.timing import Fn

# Overwriting this much takes longer than the host needs to launch any candidate, and is many times a cache.
FLUSHED_BYTES = 1 << 31
LEAST_ROUNDS, MOST_ROUNDS = 5, 21
_CASE_MS = 4000.0  # what the rounds of one case should take together


class Stopwatch(Protocol):
    """Times one call: milliseconds on the device, and microseconds the host is busy with the launch."""

    def time(self, fn: Fn) -> tuple[float, float]: ...  # noqa: D102


class HostStopwatch:
    """For calls on the CPU."""

    def time(self, fn: Fn) -> tuple[float, float]:
        """Wall time."""
        start = time.perf_counter()
        fn()
        seconds = time.perf_counter() - start
        return seconds * 1e3, seconds * 1e6


class DeviceStopwatch:
    """For calls on the current GPU."""

    def __init__(self) -> None:
        free, _ = torch.cuda.mem_get_info()
        self._buffer = torch.empty(min(FLUSHED_BYTES, free // 8), dtype=torch.uint8, device="cuda")

    def time(self, fn: Fn) -> tuple[float, float]:
        """Between two events; the cache holds nothing of the call's."""
        self._buffer.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start = time.perf_counter()
        begin.record()
        fn()
        end.record()
        host_s = time.perf_counter() - start
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)), host_s * 1e6


def stopwatch_of(device: torch.device) -> Stopwatch:
    """The stopwatch for calls on a device."""
    return HostStopwatch() if device.type == "cpu" else DeviceStopwatch()


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; nothing on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True, slots=True)
class Samples:
    """Milliseconds and launch microseconds of each candidate; entries i of all were taken one after the other."""

    ms: Mapping[str, tuple[float, ...]]
    host_us: Mapping[str, tuple[float, ...]]

    @property
    def rounds(self) -> int:
        """How often each was timed."""
        return max((len(s) for s in self.ms.values()), default=0)

    def medians(self) -> dict[str, float]:
        """Median milliseconds."""
        return {name: round(statistics.median(s), 4) for name, s in self.ms.items()}

    def launches(self) -> dict[str, float]:
        """Median microseconds of a launch."""
        return {name: round(statistics.median(s), 1) for name, s in self.host_us.items()}

    def ratio(self, slow: str, fast: str) -> float:
        """Median over the rounds of how many times faster `fast` is."""
        pairs = zip(self.ms[slow], self.ms[fast], strict=True)
        return statistics.median(s / f for s, f in pairs)


def alternate(candidates: Mapping[str, Fn], watch: Stopwatch, case_ms: float = _CASE_MS) -> Samples:
    """Time the candidates in turn, as many rounds as fit `case_ms`; each was called before, and once more here."""
    first = {name: watch.time(fn)[0] for name, fn in candidates.items()}
    rounds = int(case_ms / max(sum(first.values()), 1e-6))
    rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, rounds))
    ms: dict[str, list[float]] = {name: [] for name in candidates}
    host: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, fn in candidates.items():
            on_device, on_host = watch.time(fn)
            ms[name].append(on_device)
            host[name].append(on_host)
    return Samples({name: tuple(s) for name, s in ms.items()}, {name: tuple(s) for name, s in host.items()})


def wall_ms(fn: Fn, device: torch.device, repeats: int = 5) -> float:
    """Median wall milliseconds of a call, the device's work included."""
    samples: list[float] = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        fn()
        synchronize(device)
        samples.append((time.perf_counter() - start) * 1e3)
    return statistics.median(samples)
