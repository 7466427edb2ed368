"""Goals that are no single call of a kernel: planning at a million tokens, lists on a device, a new process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from attngen.bench.gpu.cases import Special
from attngen.bench.gpu.measure import Bench, Judged, Measured
from attngen.bench.gpu.stopwatch import alternate
from attngen.bench.timing import Fn

_TOKENS = 1 << 20
_MAP, _HEADS, _BLOCK = 512, 64, 128
_COLD_S = 120
# Prints the seconds until PyTorch has its device, and from there to an output on the host.
_COLD = """
import json, time
start = time.perf_counter()
import torch
device = "cuda" if torch.cuda.is_available() else "cpu"
q, k, v = (torch.randn(1, 8, 1024, 128, device=device).bfloat16() for _ in range(3))
q.sum().item()
ready = time.perf_counter()
import attngen
out = attngen.load("sliding_window", window=256)(q, k, v).float().cpu()
done = time.perf_counter()
exact = attngen.load("sliding_window", window=256).reference(q, k, v).float().cpu()
print(json.dumps({"torch": ready - start, "first": done - ready, "right": bool((out - exact).abs().max() < 0.02)}))
"""


def measure_special(special: Special, bench: Bench) -> Measured:
    """The figures of a goal by its name. Raises RuntimeError where a new process failed."""
    return _MEASURES[special.name](special, bench)


def _judged(special: Special, value: float) -> Judged:
    bar = special.bar
    return Judged(bar.unit, round(value, 4), bar.must, bar.stretch, bar.verdict(value))


def _planning(special: Special, bench: Bench, kind: str) -> Measured:
    """The slowest of the masks of the planning suite, on the host."""
    ms = {workload: times[kind] for workload, times in _planned().items()}
    worst = max(ms, key=lambda name: ms[name])
    return Measured(
        special.name, special.goal, ms=ms, judged=_judged(special, ms[worst]), note=f"{special.note}: {worst}"
    )


@cache
def _planned() -> dict[str, dict[str, float]]:
    """Milliseconds of each declared mask of the planning suite: planned anew, and again.

    A map of blocks is no declaration but data; lists of it are a goal of their own.
    """
    from attngen.bench.planning import WORKLOADS, run_suite

    names = tuple(name for name in WORKLOADS if name != "block_map")
    results = run_suite(names, (_TOKENS,), 3, flex=False)
    return {r.workload: r.ms for r in results}


def _lists(special: Special, bench: Bench) -> Measured:
    """Lists of a random map: by its specification, and the compression of classes alone."""
    from attngen import arguments
    from attngen.analysed import analyse
    from attngen.bench.gpu.masks import Extents
    from attngen.bench.gpu.masks_tables import Blocks
    from attngen.planner.device_blocks import build_device_blocks, device_classes, device_lists
    from attngen.planner.evaluate_plan import Extents as TileExtents

    n = _MAP * _BLOCK
    spec = Blocks(_BLOCK, 0.25).spec(Extents(_HEADS, _HEADS, n, n), bench.device)
    tensors, params = arguments.bind(spec.program, spec.values, {})
    program, values = analyse(spec.program).program, {**params, **tensors}
    at = TileExtents(n, n, 1, _HEADS, _BLOCK, _BLOCK)
    if bench.device.type == "cuda":
        from attngen.backends.triton_lists import compress
    else:
        compress = device_lists
    classes = device_classes(program, values, at, bench.device)
    calls: dict[str, Fn] = {
        "attngen": lambda: build_device_blocks(program, values, at, bench.device, compress),
        "compression alone": lambda: compress(classes),
    }
    for fn in calls.values():
        fn()
    samples = alternate(calls, bench.watch)
    ms = samples.medians()
    judged = _judged(special, ms["attngen"])
    return Measured(
        special.name, special.goal, (1, _HEADS, _HEADS, _MAP, _MAP), rounds=samples.rounds, ms=ms,
        host_us=samples.launches(), judged=judged, note=special.note,
    )  # fmt: skip


def _cold(special: Special, bench: Bench, runs: int) -> Measured:
    """A process with empty caches, `runs` times in the same caches; the last one is the figure."""
    seen: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        caches = {name: str(Path(folder, name)) for name in ("ATTNGEN_CACHE_DIR", "TRITON_CACHE_DIR")}
        for _ in range(runs):
            done = subprocess.run(
                [sys.executable, "-c", _COLD], env={**os.environ, **caches}, capture_output=True, text=True,
                timeout=_COLD_S, check=False,
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(f"a new process failed: {done.stderr.strip()[-300:]}")
            seen = json.loads(done.stdout.strip().splitlines()[-1])
    if not seen["right"]:
        raise RuntimeError("the first output of a new process is wrong")
    ms = {"attngen": round(seen["first"] * 1e3, 1), "PyTorch and its device": round(seen["torch"] * 1e3, 1)}
    return Measured(
        special.name, special.goal, (1, 8, 8, 1024, 1024, 128), ms=ms, judged=_judged(special, seen["first"]),
        note=special.note,
    )  # fmt: skip


_MEASURES: dict[str, Callable[[Special, Bench], Measured]] = {
    "planning at 1M tokens": lambda s, b: _planning(s, b, "first"),
    "planning again at 1M tokens": lambda s, b: _planning(s, b, "again"),
    "lists of a map of 512x512 blocks, 64 heads": _lists,
    "first output of a new process, built": lambda s, b: _cold(s, b, 1),
    "first output of a new process, from the cache": lambda s, b: _cold(s, b, 2),
}
