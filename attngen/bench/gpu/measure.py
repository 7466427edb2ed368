"""One workload: attngen and its peers in alternating rounds, checked against float64, planning apart.

A case that does not fit the device's memory is made smaller until it does, and says so; a peer that fails or does not
fit is recorded with the reason, and the others are measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from attngen import arguments
from attngen.bench.gpu.cases import Bar, Case
from attngen.bench.gpu.peers import Prepared, Work, prepare
from attngen.bench.gpu.stopwatch import Samples, Stopwatch, alternate, synchronize, wall_ms
from attngen.bench.timing import Fn
from attngen.tolerance import check_rows

Tensor = torch.Tensor

# Seconds that have to be left for a peer to be prepared; FlexAttention compiles for long.
_PEER_S = 15.0
# Bytes a second, of the memory of GPUs known by name; others are asked for their clock and bus.
_BANDWIDTH = {"H200": 4.8e12, "H100 PCIe": 2.0e12, "H100": 3.35e12, "B200": 8.0e12, "A100-SXM4-80GB": 2.04e12}


@dataclass(frozen=True, slots=True)
class Judged:
    """A figure beside what is asked: "stretch", "pass" or "fail", or "" with the reason why it is not judged."""

    unit: str
    value: float
    must: float
    stretch: float | None
    verdict: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one workload.

    shape        batch, query heads, key heads, queries, keys, features.
    pairs        kept, over all heads and batch entries, exactly.
    ms, tflops   medians; operations are those of kept pairs, for peers that compute more too.
    ratio        how many times faster than each peer attngen is: the median of the ratios within a round.
    host_us      of a launch.
    planning_ms  what a new specification or block mask of the same shape takes before its kernel runs.
    error        attngen's largest error on some rows, as a part of what the tolerance rule allows.
    difference   of attngen's output from FlexAttention's, the largest.
    absent       why a candidate has no figures.
    superset     what a peer without such a mask computes instead.
    """

    name: str
    goal: str
    shape: tuple[int, ...] = ()
    pairs: int = 0
    rounds: int = 0
    ms: dict[str, float] = field(default_factory=dict[str, float])
    tflops: dict[str, float] = field(default_factory=dict[str, float])
    ratio: dict[str, float] = field(default_factory=dict[str, float])
    host_us: dict[str, float] = field(default_factory=dict[str, float])
    planning_ms: dict[str, float] = field(default_factory=dict[str, float])
    error: float | None = None
    difference: float | None = None
    absent: dict[str, str] = field(default_factory=dict[str, str])
    superset: dict[str, str] = field(default_factory=dict[str, str])
    judged: Judged | None = None
    shrunk: tuple[str, ...] = ()
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and with what a workload is measured; `left` says how many seconds may still be used."""

    device: torch.device
    watch: Stopwatch
    left: Callable[[], float]
    prepare: Callable[[str, Work], Prepared | str] = prepare


def measure(case: Case, bench: Bench) -> Measured:
    """All figures of a case, of a smaller one where it does not fit. Raises what attngen raises."""
    while True:
        try:
            with torch.no_grad():
                return _measure(case, bench)
        except Exception as error:
            smaller = case.smaller() if is_out_of_memory(error) else None
            if smaller is None:
                raise
            case = smaller
        _forget(bench.device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a failure is about room on the device, whoever raised it."""
    return type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error).lower()


def make_inputs(case: Case, device: torch.device) -> Work:
    """Standard normal tensors of a case in bf16, the same at every call, and its specification."""
    at = case.extents
    generator = torch.Generator(device).manual_seed(1)

    def draw(heads: int, n: int) -> Tensor:
        shape = (case.batch, heads, n, case.head_dim)
        return torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)

    query = draw(at.heads, at.n_q)
    key, value = draw(at.kv_heads, at.n_k), draw(at.kv_heads, at.n_k)
    return Work(case, query, key, value, case.mask.spec(at, device))


def _measure(case: Case, bench: Bench) -> Measured:
    work = make_inputs(case, bench.device)
    ours = bench.prepare("attngen", work)
    assert not isinstance(ours, str)
    out = ours.call()
    assert isinstance(out, Tensor)
    synchronize(bench.device)
    absent: dict[str, str] = {}
    found = {"attngen": ours, **_peers(work, bench, absent)}
    difference = _difference(out, found.get("flex"), absent)
    try:
        error = check(work, out)
    except Exception as failure:
        error, absent["check"] = None, _reason(failure)
    del out
    calls: dict[str, Fn] = {name: p.call for name, p in found.items()}
    samples = alternate(calls, bench.watch)
    planning = {k: v for p in found.values() for k, v in p.planning_ms.items()}
    try:
        planning = {"attngen": planning_ms(work), **planning}
    except Exception as failure:
        absent["planning"] = _reason(failure)
    superset = {name: p.superset for name, p in found.items() if p.superset}
    pairs = case.mask.pairs(work.spec, case.extents) * case.batch
    return _result(case, pairs, samples, bench.device, absent, superset, planning, error, difference)


def _peers(work: Work, bench: Bench, absent: dict[str, str]) -> dict[str, Prepared]:
    """The peers that ran once; `absent` gets the reasons of the others."""
    found: dict[str, Prepared] = {}
    for name in work.case.peers:
        if bench.left() < _PEER_S:
            absent[name] = "out of time"
            continue
        try:
            made = bench.prepare(name, work)
            if isinstance(made, str):
                absent[name] = made
                continue
            made.call()
            synchronize(bench.device)
            found[name] = made
        except Exception as failure:  # whatever a peer raises belongs in the table
            absent[name] = "out of memory" if is_out_of_memory(failure) else _reason(failure)
            _forget(bench.device)
    return found


def _difference(out: Tensor, flex: Prepared | None, absent: dict[str, str]) -> float | None:
    if flex is None:
        return None
    try:
        theirs = flex.call()
        assert isinstance(theirs, Tensor)
        return round(float((out - theirs).abs().max()), 6)
    except Exception as failure:
        absent["difference"] = _reason(failure)
        return None


def check(work: Work, out: Tensor) -> float:
    """The error on evenly spaced rows of one batch entry against float64, as a part of what the rule allows."""
    tensors, params = arguments.bind(work.spec.program, work.spec.values, {})
    params["scale"] = arguments.default_scale(work.case.head_dim, None)
    query, key, value = (t[:1] for t in (work.query, work.key, work.value))
    checks = check_rows(work.spec.program, query, key, value, {"O": out[:1]}, tensors=tensors, params=params)
    return round(max(c.error / c.allowed for c in checks), 4)


def planning_ms(work: Work, repeats: int = 5) -> float:
    """What a new specification with the same tensors takes longer than one that was planned: plan, lists, order."""
    from attngen.api import Attention

    tensors = (work.query, work.key, work.value)

    def anew() -> object:
        return Attention.from_linked(work.spec.program, work.spec.values)(*tensors)

    anew()
    longer = wall_ms(anew, work.device, repeats) - wall_ms(lambda: work.spec(*tensors), work.device, repeats)
    return round(max(longer, 0.0), 3)


def _result(
    case: Case,
    pairs: int,
    samples: Samples,
    device: torch.device,
    absent: dict[str, str],
    superset: dict[str, str],
    planning: dict[str, float],
    error: float | None,
    difference: float | None,
) -> Measured:
    at, ms = case.extents, samples.medians()
    flop = case.flop(pairs)
    ratio = {name: round(samples.ratio(name, "attngen"), 3) for name in ms if name != "attngen"}
    measured = Measured(
        case.name, case.goal, (case.batch, at.heads, at.kv_heads, at.n_q, at.n_k, case.head_dim), pairs,
        samples.rounds, ms, {n: tflops(flop, t) for n, t in ms.items()}, ratio, samples.launches(), planning,
        error, difference, absent, superset, shrunk=case.shrunk, note=case.note,
    )  # fmt: skip
    if case.bar is None:
        return measured
    return replace(measured, judged=judge(case, case.bar, measured, bandwidth(device)))


def tflops(flop: int, ms: float) -> float:
    """10^12 operations a second."""
    return round(flop / ms / 1e9, 2)


def judge(case: Case, bar: Bar, measured: Measured, bytes_per_s: float | None) -> Judged:
    """The figure a bar asks for, and the verdict; none where the case was made smaller."""
    ours = measured.ms["attngen"]
    reason = "a smaller case" if case.shrunk else ""
    match bar.unit:
        case "TF/s":
            value = measured.tflops["attngen"]
        case "us":
            value = ours * 1e3
        case "x":
            value = measured.ratio.get(case.over, 0.0)
            reason = reason if value else f"{case.over} was not measured"
        case "% of bandwidth":
            value = 100 * case.touched_bytes(measured.pairs) / (ours * 1e-3) / (bytes_per_s or 1.0)
            value, reason = (value, reason) if bytes_per_s else (0.0, "the memory's bandwidth is not known")
        case _:
            value = ours
    return Judged(
        bar.unit, round(value, 3), bar.must, bar.stretch, "" if reason else bar.verdict(value), reason
    )


def bandwidth(device: torch.device) -> float | None:
    """Bytes a second that a device's memory gives by its data sheet; None where it is not known."""
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    for name, known in _BANDWIDTH.items():
        if name in properties.name:
            return known
    clock, width = (getattr(properties, name, 0) for name in ("memory_clock_rate", "memory_bus_width"))
    return clock * 1e3 * 2 * width / 8 if clock and width else None


def _forget(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]
