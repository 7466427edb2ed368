"""Seconds of one launch: on a CPU by a clock, on a GPU by its events with the second-level cache flushed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Protocol

import torch

_LEAST_S = 0.04  # of a sample: long enough to outlast a slice of the scheduler
_LEAST_CALLS, _MOST_CALLS = 3, 200
_FLUSH_FACTOR = 2


class Timer(Protocol):
    """A stop-watch for launches."""

    def seconds(self, launch: Callable[[], object]) -> float:
        """Seconds of one launch, from one sample."""
        ...


class CpuTimer:
    """The least of calls in a row, since other work makes a call longer, never shorter; one goes before them.

    Launches of one thread are timed by that thread's own clock, which stands still while others have the processor.
    """

    def __init__(self, least_s: float = _LEAST_S, threads: int = 0) -> None:
        self.least_s = least_s
        self._clock = time.thread_time if threads == 1 else time.perf_counter

    def seconds(self, launch: Callable[[], object]) -> float:
        """Seconds of one launch."""
        calls = min(max(int(self.least_s / self._once(launch)), _LEAST_CALLS), _MOST_CALLS)
        return min(self._once(launch) for _ in range(calls))

    def _once(self, launch: Callable[[], object]) -> float:
        start = self._clock()
        launch()
        return max(self._clock() - start, 1e-9)


class CudaTimer:
    """The median of launches between events; the cache is overwritten before each."""

    def __init__(self, device: torch.device, least_s: float = _LEAST_S) -> None:
        self.device, self.least_s = device, least_s
        cache: int = torch.cuda.get_device_properties(device).L2_cache_size
        self._flush = torch.empty(_FLUSH_FACTOR * max(cache, 1 << 20), dtype=torch.int8, device=device)

    def seconds(self, launch: Callable[[], object]) -> float:
        """Seconds of one launch."""
        once = self._launches(launch, 2)[-1]
        calls = min(max(int(self.least_s / max(once, 1e-7)), _LEAST_CALLS), _MOST_CALLS)
        return statistics.median(self._launches(launch, calls))

    def _launches(self, launch: Callable[[], object], calls: int) -> list[float]:
        with torch.cuda.device(self.device):
            pairs = [
                (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
                for _ in range(calls)
            ]
            for start, end in pairs:
                self._flush.zero_()
                start.record()
                launch()
                end.record()
            torch.cuda.synchronize(self.device)
        return [max(start.elapsed_time(end) / 1e3, 1e-9) for start, end in pairs]


def timer_for(device: torch.device, threads: int = 0) -> Timer:
    """The timer of a device; `threads` are those of every launch on a CPU, 0 where they differ."""
    return CudaTimer(device) if device.type == "cuda" else CpuTimer(threads=threads)
