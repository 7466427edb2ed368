"""The CPU suite: causal windows and full causal attention against compiled FlexAttention and SDPA."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import torch

from attngen import api
from attngen.bench.timing import Fn, Timings, alternate

Tensor = torch.Tensor
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Case:
    """One workload. `window` is None for full causal attention."""

    name: str
    window: int | None
    n: int
    head_dim: int
    dtype: str
    heads: int = 8

    def pairs(self) -> int:
        """Kept pairs of one head."""
        if self.window is None:
            return self.n * (self.n + 1) // 2
        return sum(min(i + 1, self.window) for i in range(self.n))


CASES: tuple[Case, ...] = (
    *(Case(f"window512_d64_{t}", 512, 4096, 64, t) for t in DTYPES),
    *(Case(f"causal_d64_{t}", None, 4096, 64, t) for t in DTYPES),
    Case("window512_d128_fp32", 512, 4096, 128, "fp32"),
    Case("window512_d128_bf16", 512, 4096, 128, "bf16"),
)


@dataclass(frozen=True, slots=True)
class Result:
    """Median milliseconds of each candidate, its GFLOP/s over kept pairs, and how much faster attngen is."""

    case: Case
    ms: dict[str, float]
    gflops: dict[str, float]
    speedup: dict[str, float]
    max_abs_difference: float
    notes: list[str] = field(default_factory=list[str])

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return asdict(self)


def run_suite(cases: tuple[Case, ...], rounds: int, flex: bool) -> Iterator[Result]:
    """Measure the cases one by one."""
    for case in cases:
        yield measure(case, rounds, flex)


def measure(case: Case, rounds: int, flex: bool) -> Result:
    """Time one case. SDPA's `is_causal` computes a superset of a window, what most users would run."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, case.heads, case.n, case.head_dim)
    q, k, v = (torch.randn(shape, generator=generator).to(DTYPES[case.dtype]) for _ in range(3))
    spec = api.load("causal") if case.window is None else api.load("sliding_window", window=case.window)
    candidates: dict[str, Fn] = {"attngen": lambda: spec(q, k, v)}
    if flex:
        candidates |= _flex_candidates(case, q, k, v)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    candidates["sdpa_causal"] = lambda: sdpa(q, k, v, is_causal=True)
    with torch.no_grad():
        difference = _difference(candidates)
        timings = alternate(candidates, rounds=rounds)
    return _result(case, timings, difference)


def _flex_candidates(case: Case, q: Tensor, k: Tensor, v: Tensor) -> dict[str, Fn]:
    """Compiled FlexAttention with its default block size and with 64, often its best on windows."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch.compiler.reset()  # past eight specialisations FlexAttention would silently run unfused
    compiled = torch.compile(flex_attention, dynamic=False)
    window = case.n if case.window is None else case.window

    def keep(_b: Tensor, _h: Tensor, qi: Tensor, ki: Tensor) -> Tensor:
        return (ki <= qi) & (qi - ki < window)

    def candidate(size: int) -> Fn:
        block_mask = create_block_mask(keep, None, None, case.n, case.n, device="cpu", BLOCK_SIZE=size)
        return lambda: compiled(q, k, v, block_mask=block_mask)

    return {f"flex_{size}": candidate(size) for size in (128, 64)}


def _difference(candidates: dict[str, Fn]) -> float:
    """Largest difference of attngen's output from FlexAttention's, 0 where FlexAttention is not measured."""
    if "flex_128" not in candidates:
        return 0.0
    ours, theirs = candidates["attngen"](), candidates["flex_128"]()
    assert isinstance(ours, Tensor)
    assert isinstance(theirs, Tensor)
    return float((ours.float() - theirs.float()).abs().max())


def _result(case: Case, timings: Timings, difference: float) -> Result:
    work = 4 * case.head_dim * case.pairs() * case.heads
    ms = {name: timings.median(name) * 1e3 for name in timings.seconds}
    others = [name for name in ms if name != "attngen"]
    return Result(
        case=case,
        ms={n: round(t, 3) for n, t in ms.items()},
        gflops={n: round(work / t / 1e6, 1) for n, t in ms.items()},
        speedup={n: round(timings.ratio(n, "attngen"), 2) for n in others},
        max_abs_difference=difference,
    )
