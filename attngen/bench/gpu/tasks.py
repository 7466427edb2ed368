"""What child processes of the suite do: check against float64, compile, tune, measure.

Results are plain frozen values, since they travel between processes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from attngen.bench.gpu.cases import Case, Special

if TYPE_CHECKING:
    from attngen.api import Attention
    from attngen.bench.gpu.catalogue import Agreement
    from attngen.bench.gpu.measure import Measured
    from attngen.bench.gpu.stopwatch import Stopwatch


@dataclass(frozen=True, slots=True)
class KernelFigures:
    """What one compiled kernel takes: registers of a thread, bytes it spills, bytes of shared memory, its tiles."""

    sweep: int
    registers: int
    spill_bytes: int
    shared_bytes: int
    block_q: int
    block_k: int
    num_warps: int
    num_stages: int


@dataclass(frozen=True, slots=True)
class Compiled:
    """A workload or a catalogue program compiled for a target that need not be here.

    pairs     kept over all heads and batch entries, exactly; None for a catalogue program.
    schedule  what would be visited, in words.
    plan_ms   milliseconds of the first schedule.
    refused   why a program has no kernel for a GPU by its own rules: no failure.
    """

    name: str
    dtype: str
    kernels: tuple[KernelFigures, ...] = ()
    pairs: int | None = None
    schedule: str = ""
    plan_ms: float | None = None
    refused: str = ""


def check_program(name: str, dtype: str, device: str) -> Agreement:
    """A catalogue program's call on a device against float64. Raises what spoils the device."""
    from attngen.bench.gpu.catalogue import check
    from attngen.bench.gpu.workers import spoiled

    found = check(name, dtype, torch.device(device))
    if spoiled(found.error):
        raise RuntimeError(found.error)
    return found


def check_artefact(name: str, dtype: str, device: str) -> Agreement:
    """As `check_program`, of an artefact that is built for the device. Raises what spoils the device."""
    from attngen.bench.gpu.catalogue import check_ahead
    from attngen.bench.gpu.workers import spoiled

    found = check_ahead(name, dtype, torch.device(device))
    if spoiled(found.error):
        raise RuntimeError(found.error)
    return found


def compile_program(name: str, dtype: str, target: str) -> Compiled:
    """Every kernel of a catalogue program's call."""
    from attngen.bench.gpu.catalogue import call_of
    from attngen.errors import UnsupportedError

    call = call_of(name)
    query, _, value = call.qkv
    try:
        return Compiled(name, dtype, _kernels(call.spec, target, dtype, query.shape[-1], value.shape[-1]))
    except UnsupportedError as error:
        return Compiled(name, dtype, refused=error.message)


def compile_case(case: Case, target: str) -> Compiled:
    """Plan, count and compile a workload, with its tensors on the CPU and nothing launched."""
    at = case.extents
    spec = case.mask.spec(at, torch.device("cpu"))
    start = time.perf_counter()
    schedule = spec.schedule(at.n_q, at.n_k, heads=at.heads)
    plan_ms = round((time.perf_counter() - start) * 1e3, 2)
    pairs = case.mask.pairs(spec, at) * case.batch
    kernels = _kernels(spec, target, "bf16", case.head_dim, case.head_dim)
    return Compiled(case.name, "bf16", kernels, pairs, str(schedule), plan_ms)


def compile_extra(name: str, label: str, target: str) -> Compiled:
    """The kernels of one specification of a comparison, in the form that a call without a choice has."""
    from attngen.bench.gpu.extras import WIDTH, specs_of

    return Compiled(f"{name}: {label}", "bf16", _kernels(specs_of(name)[label], target, "bf16", WIDTH, WIDTH))


def _kernels(
    spec: Attention, target: str, dtype: str, head_dim: int, value_dim: int
) -> tuple[KernelFigures, ...]:
    specs, _ = spec.kernel_specs(target, dtype, head_dim, value_dim)
    found: list[KernelFigures] = []
    for sweep in range(len(specs)):
        f = spec.inspect(target, dtype, head_dim, value_dim, sweep=sweep)
        tile = (f.block_q, f.block_k, f.num_warps, f.num_stages)
        found.append(KernelFigures(sweep, f.registers, f.spill_bytes, f.shared_bytes, *tile))
    return tuple(found)


def prepare_case(case: Case, device: str) -> dict[str, Any]:
    """Call attngen and FlexAttention once, so that the measuring process finds their kernels in the caches."""
    from attngen.bench.gpu.measure import make_inputs
    from attngen.bench.gpu.peers import prepare

    took: dict[str, Any] = {}
    with torch.no_grad():
        work = make_inputs(case, torch.device(device))
        for name in ("attngen", *(p for p in case.peers if p == "flex")):
            start = time.perf_counter()
            made = prepare(name, work)
            took[name] = made if isinstance(made, str) else round(_called(made.call, start), 2)
    del work
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # other processes are at work too
    return took


@dataclass(frozen=True, slots=True)
class Tuned:
    """What the tuner made of a workload: its choice, and the times of that and of the default where measured."""

    name: str
    chosen: str
    default_ms: float | None
    chosen_ms: float | None


def tune_case(case: Case, device: str) -> Tuned | str:
    """Tune a workload quickly; "no tuner" where specifications have none."""
    from attngen.bench.gpu.measure import make_inputs

    with torch.no_grad():
        work = make_inputs(case, torch.device(device))
        tune = getattr(work.spec, "tune", None)
        if tune is None:
            return "no tuner"
        found = tune(work.query, work.key, work.value, budget="quick", seed=0)
    return Tuned(case.name, str(found.chosen), _ms(found.default_s), _ms(found.chosen_s))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 4)


def measure_case(case: Case | Special, device: str, until: float) -> Measured:
    """Measure a workload or a special goal; `until`, on `time.monotonic`, is when peers are no longer prepared."""
    from attngen.bench.gpu.measure import Bench, measure
    from attngen.bench.gpu.special import measure_special

    where = torch.device(device)
    if where.type == "cuda":
        torch.cuda.empty_cache()
    bench = Bench(where, _stopwatch(device), lambda: until - time.monotonic())
    return measure(case, bench) if isinstance(case, Case) else measure_special(case, bench)


def measure_extra(name: str, device: str) -> Measured:
    """Measure a comparison of attngen's own programs."""
    from attngen.bench.gpu.extras import EXTRAS

    with torch.no_grad():
        return EXTRAS[name](torch.device(device), _stopwatch(device))


@cache
def _stopwatch(device: str) -> Stopwatch:
    from attngen.bench.gpu.stopwatch import stopwatch_of

    return stopwatch_of(torch.device(device))


def _called(call: Any, start: float) -> float:
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
