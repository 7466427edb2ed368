"""The planning suite: schedules of masks from 4k to a million tokens, against FlexAttention's `create_block_mask`.

A workload is a name and a function from a length to a `Case`; `WORKLOADS` is the table, and a line more is a workload
more. attngen is measured three times: what a process does once for a kind of mask (its symbolic plan, and imports), a
specification made anew (trace, plan, schedule), and one that was planned for these lengths before. A peer is measured
where an estimate from the size before says that it fits; where not, the reason is part of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import torch

from attngen import masks
from attngen.api import Attention
from attngen.bench.memory import peak_of, traced_peak_of
from attngen.bench.timing import Fn, alternate

Tensor = torch.Tensor
MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

BLOCK = 128
SIZES = tuple(1 << n for n in (12, 14, 16, 18, 20))
QUICK = (1 << 10, 1 << 12)
_MOST_SECONDS = 20.0  # one call of a peer
_MOST_BYTES = 6 << 30
_EAGER_BYTES = 10  # a pair of tokens, measured: an int64 and a boolean mask and their reshaped copy
_EAGER_SECONDS = 1e-8  # a pair of tokens
_COMPILED_SECONDS = 4e-10


@dataclass(frozen=True, slots=True)
class Case:
    """One mask at one length. `make` traces it anew; `mask_mod` is the same predicate for FlexAttention, or None."""

    make: Callable[[], Attention]
    mask_mod: MaskMod | None
    heads: int = 1
    values: dict[str, Any] = field(default_factory=dict[str, Any])


def _causal(n: int) -> Case:
    return Case(lambda: Attention(masks.causal()), lambda b, h, q, k: k <= q)


def _window(n: int) -> Case:
    return Case(lambda: Attention(masks.sliding_window(1024)), lambda b, h, q, k: (k <= q) & (q - k < 1024))


def _sink_window(n: int) -> Case:
    return Case(
        lambda: Attention(masks.sliding_window_sink(1024, 64)),
        lambda b, h, q, k: (k <= q) & ((k < 64) | (q - k < 1024)),
    )


def _documents(n: int) -> Case:
    """Packed documents, lengths exponential with mean 2048."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.empty(n // 256 + 16).exponential_(1 / 2048, generator=generator).long() + 1
    doc = torch.repeat_interleave(torch.arange(lengths.numel(), dtype=torch.int32), lengths)
    doc = torch.nn.functional.pad(doc[:n], (0, max(0, n - doc.numel())), value=lengths.numel())

    def same(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (k <= q) & (doc[k] == doc[q])

    return Case(lambda: Attention(same), same)


def _mixed_heads(n: int) -> Case:
    """Eight heads: windows of 128 to 4096, and two that are dense."""
    width = torch.tensor([128, 256, 512, 1024, 2048, 4096, n, n], dtype=torch.int32)
    return Case(
        lambda: Attention(masks.sliding_window(width)),
        lambda b, h, q, k: (k <= q) & (q - k < width[h]),
        heads=8,
    )


def _block_map(n: int) -> Case:
    """A random map of blocks of 128 tokens, one in a hundred kept."""
    tiles = max(n // BLOCK, 1)
    kept = torch.rand(tiles, tiles, generator=torch.Generator().manual_seed(0)) < 0.01

    def mapped(b: Any, h: Any, q: Any, k: Any) -> Any:
        return kept[q // BLOCK, k // BLOCK]

    return Case(lambda: Attention(mapped), mapped)


def _grid(n: int, axes: int) -> tuple[int, ...]:
    """A grid of `n` tokens, a power of two, with extents as alike as powers of two allow; the first is the shortest."""
    power = n.bit_length() - 1
    return tuple(1 << (power + i) // axes for i in range(axes))


def _neighborhood(n: int, window: tuple[int, ...]) -> Case:
    grid = _grid(n, len(window))
    inside = tuple(min(w, size) for w, size in zip(window, grid, strict=True))

    def near(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        keep = k >= 0
        for size, width in reversed(list(zip(grid, inside, strict=True))):
            first = (q % size - width // 2).clamp(0, size - width)
            keep = keep & (k % size >= first) & (k % size < first + width)
            q, k = q // size, k // size
        return keep

    return Case(lambda: Attention(masks.neighborhood(inside).bind(grid=grid)), near)


def _neighborhood_2d(n: int) -> Case:
    """The nearest 32 x 32 tokens of a square image."""
    return _neighborhood(n, (32, 32))


def _neighborhood_3d(n: int) -> Case:
    """The nearest 8 x 16 x 16 tokens of a video."""
    return _neighborhood(n, (8, 16, 16))


WORKLOADS: dict[str, Callable[[int], Case]] = {
    "causal": _causal,
    "window_1024": _window,
    "sink_window": _sink_window,
    "documents": _documents,
    "neighborhood_2d": _neighborhood_2d,
    "neighborhood_3d": _neighborhood_3d,
    "mixed_heads": _mixed_heads,
    "block_map": _block_map,
}


@dataclass(frozen=True, slots=True)
class Result:
    """One workload at one length.

    once_ms   milliseconds of the first schedule of such a mask in the process; the first workload's holds imports.
    ms        median milliseconds: `first` of a new specification, `again` with the same one, and the peers'.
    peak_mib  what one call adds to memory at its highest.
    growth    how the time grew per doubling of the length, since the length before.
    skipped   why a peer was not measured.
    same      whether FlexAttention's block mask holds the same blocks; None where it was not built, or where tiles
              are boxes, which it does not know.
    """

    workload: str
    n: int
    heads: int
    form: str
    n_full: int
    n_partial: int
    metadata_bytes: int
    once_ms: float
    ms: dict[str, float]
    peak_mib: dict[str, float]
    growth: dict[str, float]
    skipped: dict[str, str]
    same: bool | None

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return asdict(self)


def run_suite(names: tuple[str, ...], sizes: tuple[int, ...], rounds: int, *, flex: bool) -> Iterator[Result]:
    """Measure the workloads one by one, each from the shortest length to the longest."""
    for name in names:
        start = perf_counter()
        WORKLOADS[name](1024).make().schedule(1024, 1024)
        once_ms = round((perf_counter() - start) * 1e3, 1)
        before: Result | None = None
        for n in sizes:
            before = measure(name, n, rounds, flex=flex, before=before, once_ms=once_ms)
            yield before


def measure(name: str, n: int, rounds: int, *, flex: bool, before: Result | None, once_ms: float) -> Result:
    """Time one workload at one length; `before` is the result at the length before, from which peers are estimated."""
    case = WORKLOADS[name](n)
    spec = case.make()
    sizes = {"n_q": n, "n_k": n, "heads": case.heads, "block_q": BLOCK, "block_k": BLOCK}
    schedule = spec.schedule(**sizes, **case.values)
    candidates: dict[str, Fn] = {
        "first": lambda: case.make().schedule(**sizes, **case.values),
        "again": lambda: spec.schedule(**sizes, **case.values),
    }
    peak = {kind: traced_peak_of(fn) for kind, fn in candidates.items()}
    skipped: dict[str, str] = {}
    same: bool | None = None
    for peer, fn in (_peers(case, n) if flex and case.mask_mod is not None else {}).items():
        reason = _too_much(peer, case, n, before)
        if reason is None:
            try:
                block_mask, peak[peer] = peak_of(fn)
            except (RuntimeError, MemoryError) as error:
                reason = f"failed: {str(error).splitlines()[0][:120]}"
            else:
                candidates[peer] = fn
                if schedule.boxes is None:
                    same = _counts(block_mask) == (schedule.n_full, schedule.n_partial)
        if reason is not None:
            skipped[peer] = reason
    timings = alternate(candidates, rounds=rounds)
    ms = {kind: round(timings.median(kind) * 1e3, 4) for kind in timings.seconds}
    return Result(
        name, n, case.heads, schedule.form, schedule.n_full, schedule.n_partial, schedule.nbytes, once_ms,
        ms, {kind: round(p / 2**20, 3) for kind, p in peak.items()}, _growth(n, ms, before), skipped, same,
    )  # fmt: skip


def _peers(case: Case, n: int) -> dict[str, Callable[[], Any]]:
    from torch.nn.attention.flex_attention import create_block_mask

    torch.compiler.reset()  # past eight specialisations a compiled function would run eagerly without a word
    heads = case.heads if case.heads > 1 else None

    def build(create: Any) -> Any:
        return create(case.mask_mod, None, heads, n, n, device="cpu", BLOCK_SIZE=BLOCK)

    compiled = torch.compile(create_block_mask, dynamic=False)
    return {
        "create_block_mask": lambda: build(create_block_mask),
        "create_block_mask_compiled": lambda: build(compiled),
    }


def _too_much(peer: str, case: Case, n: int, before: Result | None) -> str | None:
    """Why a peer is not measured at this length, by what it took at the length before."""
    pairs = n * n * case.heads
    eager = not peer.endswith("compiled")
    if before is not None and peer in before.skipped:
        seconds = math.inf if before.skipped[peer].startswith("failed") else 0.0
    else:
        seconds = 0.0
    if before is not None and peer in before.ms:
        seconds = before.ms[peer] / 1e3 * (n / before.n) ** 2
    seconds = max(seconds, pairs * (_EAGER_SECONDS if eager else _COMPILED_SECONDS))
    if eager and pairs * _EAGER_BYTES > _MOST_BYTES:
        return f"would need about {pairs * _EAGER_BYTES / 2**30:,.0f} GiB"
    if seconds > _MOST_SECONDS:
        return "failed at a shorter length" if math.isinf(seconds) else f"would take about {seconds:,.0f} s"
    return None


def _counts(block_mask: Any) -> tuple[int, int]:
    full = block_mask.full_kv_num_blocks
    return 0 if full is None else int(full.sum()), int(block_mask.kv_num_blocks.sum())


def _growth(n: int, ms: dict[str, float], before: Result | None) -> dict[str, float]:
    if before is None:
        return {}
    doublings = math.log2(n / before.n)
    return {k: round((t / before.ms[k]) ** (1 / doublings), 2) for k, t in ms.items() if k in before.ms}
