"""Forward attention on a GPU: attngen against compiled FlexAttention and SDPA, bf16, head dim 128.

    python benchmarks/gpu_forward.py --out benchmarks/results/NAME.json

Candidates take turns, round by round; a figure is the median over the rounds of the time between two CUDA events,
with the L2 cache overwritten before each. TFLOP/s count kept pairs only (`4 * D` operations a pair), so that computing
what the mask drops earns nothing. Planning, what a new mask of a known shape costs ahead of the kernel, is timed apart.

SDPA has no sparse masks: in the cases with a window or documents it computes all of the causal triangle, which is
what a user without a sparse kernel would run. A candidate that fails is recorded with its error; the JSON is written
after each case. `--only-compile` fills the compilers' caches and measures nothing; `--device cpu --shrink 64` tries
the script itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import attngen
from attngen import arguments
from attngen.backends.base import Call
from attngen.backends.triton import TritonBackend
from attngen.bench.timing import machine
from attngen.emit.spec import KernelSpec, Target
from attngen.emit.triton.config import TritonConfig
from attngen.pipeline import target_of_device
from attngen.tolerance import check_rows

Tensor = torch.Tensor
Fn = Callable[[], Any]
D = 128
# Overwriting this much takes longer than the host needs to launch any candidate, and is many times an L2 cache.
FLUSHED_BYTES = 1 << 31
MEAN_DOCUMENT = 2048


@dataclass(frozen=True)
class Case:
    """One workload; `kind` names the mask, `n` counts queries and keys alike."""

    name: str
    kind: str
    batch: int
    heads: int
    kv_heads: int
    n: int
    window: int = 0
    sink: int = 0

    def lengths(self) -> list[int]:
        """Lengths of the packed documents: uniform between 1/8 and 15/8 of the mean, the last one cut off."""
        generator = torch.Generator().manual_seed(0)
        low, high = MEAN_DOCUMENT // 8, MEAN_DOCUMENT * 15 // 8
        drawn: list[int] = []
        while sum(drawn) < self.n:
            drawn.append(int(torch.randint(low, high + 1, (1,), generator=generator)))
        drawn[-1] -= sum(drawn) - self.n
        return drawn

    def pairs(self) -> int:
        """Kept pairs of one head."""
        n = self.n
        match self.kind:
            case "full":
                return n * n
            case "causal":
                return n * (n + 1) // 2
            case "documents":
                return sum(m * (m + 1) // 2 for m in self.lengths())
            case _:
                kept = (
                    min(i + 1, self.window) + max(0, min(i + 1 - self.window, self.sink)) for i in range(n)
                )
                return sum(kept)

    def flop(self) -> int:
        """Floating-point operations of the two products over kept pairs."""
        return 4 * D * self.pairs() * self.batch * self.heads


CASES = (
    Case("causal_4k", "causal", 4, 32, 32, 4096),
    Case("causal_32k_gqa", "causal", 1, 16, 2, 32768),
    Case("window1024_32k_gqa", "sliding_window", 1, 16, 2, 32768, window=1024),
    Case("documents2k_32k_gqa", "documents", 1, 16, 2, 32768),
    Case("window1024_sink64_32k_gqa", "sliding_window_sink", 1, 16, 2, 32768, window=1024, sink=64),
    Case("full_16k", "full", 1, 16, 16, 16384),
)
CONFIGURED = ("causal_32k_gqa", "window1024_32k_gqa", "full_16k")
CONFIGURATIONS = (
    TritonConfig(128, 64, 8, 3),
    TritonConfig(128, 64, 8, 2),
    TritonConfig(128, 64, 4, 3),
    TritonConfig(128, 64, 4, 2),
    TritonConfig(128, 128, 8, 2),
    TritonConfig(128, 128, 8, 3),
    TritonConfig(64, 64, 4, 3),
    TritonConfig(64, 128, 4, 3),
    TritonConfig(128, 32, 4, 4),
    TritonConfig(128, 32, 8, 4),
)


@dataclass
class Workload:
    """A case's tensors, its attngen specification, and its mask as FlexAttention takes it."""

    case: Case
    q: Tensor
    k: Tensor
    v: Tensor
    spec: attngen.Attention
    given: dict[str, Tensor]
    keep: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None

    @property
    def gqa(self) -> bool:
        """Whether several query heads share a key/value head."""
        return self.case.heads != self.case.kv_heads


@dataclass
class Row:
    """What is kept of one case."""

    case: dict[str, Any]
    pairs: int
    ms: dict[str, float] = field(default_factory=dict)
    tflops: dict[str, float] = field(default_factory=dict)
    host_us: dict[str, float] = field(default_factory=dict)
    planning_ms: dict[str, float] = field(default_factory=dict)
    error_over_allowed: float | None = None
    max_abs_difference_from_flex: float | None = None
    failures: dict[str, str] = field(default_factory=dict)


class Clock:
    """The time this run may take."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left."""
        return self.end - time.monotonic()


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def make(case: Case, device: str) -> Workload:
    """Random tensors of a case, and its mask in both forms."""
    generator = torch.Generator(device).manual_seed(1)

    def draw(heads: int) -> Tensor:
        shape = (case.batch, heads, case.n, D)
        return torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)

    q, k, v = draw(case.heads), draw(case.kv_heads), draw(case.kv_heads)
    window, sink = case.window, case.sink
    given: dict[str, Tensor] = {}
    match case.kind:
        case "full":
            return Workload(case, q, k, v, attngen.Attention(), given, None)
        case "causal":
            spec, keep = attngen.load("causal"), _causal
        case "sliding_window":
            spec = attngen.load("sliding_window", window=window)

            def keep(b: Tensor, h: Tensor, qi: Tensor, ki: Tensor) -> Tensor:
                return (ki <= qi) & (qi - ki < window)
        case "sliding_window_sink":
            spec = attngen.load("sliding_window_sink", window=window, sink=sink)

            def keep(b: Tensor, h: Tensor, qi: Tensor, ki: Tensor) -> Tensor:
                return (ki <= qi) & ((ki < sink) | (qi - ki < window))
        case "documents":
            sizes = torch.tensor(case.lengths())
            numbers = torch.arange(len(sizes), dtype=torch.int32).repeat_interleave(sizes).to(device)
            given["doc"] = numbers.expand(case.batch, -1).contiguous()
            spec = attngen.load("documents")

            def keep(b: Tensor, h: Tensor, qi: Tensor, ki: Tensor) -> Tensor:
                return (ki <= qi) & (numbers[qi] == numbers[ki])
        case _:
            raise ValueError(case.kind)
    return Workload(case, q, k, v, spec, given, keep)


def _causal(b: Tensor, h: Tensor, qi: Tensor, ki: Tensor) -> Tensor:
    return ki <= qi


def block_mask(work: Workload, *, compiled: bool = False) -> Any:
    """FlexAttention's block mask, None for full attention."""
    if work.keep is None:
        return None
    n, device = work.case.n, work.q.device.type
    create = torch.compile(create_block_mask) if compiled else create_block_mask
    return create(work.keep, None, None, n, n, device=device)


def flex(work: Workload) -> Fn:
    """Compiled FlexAttention with its defaults."""
    torch.compiler.reset()  # past eight specialisations FlexAttention would silently run unfused
    compiled = torch.compile(flex_attention, dynamic=False)
    blocks = block_mask(work)
    return lambda: compiled(work.q, work.k, work.v, block_mask=blocks, enable_gqa=work.gqa)


def sdpa(work: Workload, backend: SDPBackend) -> Fn:
    """SDPA held to one backend; where that backend does not take grouped heads, on keys and values repeated ahead."""
    function = torch.nn.functional.scaled_dot_product_attention
    causal = work.case.kind != "full"

    def run(k: Tensor, v: Tensor, gqa: bool) -> Tensor:
        with sdpa_kernel(backend):
            return function(work.q, k, v, is_causal=causal, enable_gqa=gqa)

    if not work.gqa:
        return partial(run, work.k, work.v, False)
    try:
        run(work.k, work.v, True)
    except RuntimeError:
        group = work.case.heads // work.case.kv_heads
        return partial(run, *(t.repeat_interleave(group, dim=1) for t in (work.k, work.v)), False)
    return partial(run, work.k, work.v, True)


def candidates(work: Workload) -> dict[str, Callable[[], Fn]]:
    """What to measure: name and a function that prepares it."""
    return {
        "attngen": lambda: lambda: work.spec(work.q, work.k, work.v, **work.given),
        "flex_attention": lambda: flex(work),
        "sdpa_flash": lambda: sdpa(work, SDPBackend.FLASH_ATTENTION),
        "sdpa_cudnn": lambda: sdpa(work, SDPBackend.CUDNN_ATTENTION),
    }


def measure(functions: dict[str, Fn], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds on the device and median microseconds to launch, in alternating rounds."""
    on_gpu = torch.cuda.is_available()
    buffer = torch.empty(
        FLUSHED_BYTES if on_gpu else 1, dtype=torch.uint8, device="cuda" if on_gpu else "cpu"
    )
    device: dict[str, list[float]] = {name: [] for name in functions}
    host: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, fn in functions.items():
            buffer.zero_()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2)) if on_gpu else (None, None)
            start = time.perf_counter()
            if begin is not None:
                begin.record()
            fn()
            if end is not None:
                end.record()
            seconds = time.perf_counter() - start
            synchronize()
            host[name].append(seconds * 1e6)
            device[name].append(begin.elapsed_time(end) if begin is not None else seconds * 1e3)
    return _medians(device), _medians(host)


def _medians(samples: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.median(s), 4) for name, s in samples.items() if s}


def timed_ms(fn: Fn, repeats: int) -> float:
    """Median wall milliseconds of a call, the GPU's work included."""
    samples: list[float] = []
    for _ in range(repeats):
        synchronize()
        start = time.perf_counter()
        fn()
        synchronize()
        samples.append((time.perf_counter() - start) * 1e3)
    return round(statistics.median(samples), 3)


def planning(work: Workload, run: Fn | None, row: Row, clock: Clock) -> None:
    """What a new mask of a known shape costs: lists (attngen; ranges cost nothing), the block mask (FlexAttention)."""
    if run is not None and work.given:

        def changed() -> None:
            for tensor in work.given.values():
                tensor.add_(0)  # the same values, but nobody can know: everything is planned anew
            run()

        row.planning_ms["attngen"] = round(timed_ms(changed, 5) - timed_ms(run, 5), 3)
    elif run is not None:
        row.planning_ms["attngen"] = 0.0
    if work.keep is not None:
        row.planning_ms["flex_block_mask"] = timed_ms(lambda: block_mask(work), 3)
    if work.given and clock.left() > 40:
        block_mask(work, compiled=True)
        row.planning_ms["flex_block_mask_compiled"] = timed_ms(lambda: block_mask(work, compiled=True), 3)


def check(work: Workload, out: Tensor) -> float:
    """Error on evenly spaced rows against float64, as a fraction of what the tolerance rule allows."""
    tensors, params = arguments.bind(work.spec.program, work.spec.values, work.given)
    params["scale"] = arguments.default_scale(D, None)
    checks = check_rows(work.spec.program, work.q, work.k, work.v, {"O": out}, tensors=tensors, params=params)
    return round(max(c.error / c.allowed for c in checks), 4)


def attempt(row: Row, name: str, fn: Fn) -> Any:
    """A result, or None and the error's text in the row."""
    try:
        return fn()
    except Exception as error:  # a benchmark of several compilers must outlive each of them
        row.failures[name] = f"{type(error).__name__}: {error}"[:600]
        return None


def compare(work: Workload, row: Row, outputs: dict[str, Tensor]) -> None:
    """Hold attngen's output to float64, and to FlexAttention's."""
    ours, theirs = outputs.get("attngen"), outputs.get("flex_attention")
    if ours is not None:
        row.error_over_allowed = attempt(row, "check", lambda: check(work, ours))
    if ours is not None and theirs is not None:
        row.max_abs_difference_from_flex = float((ours.float() - theirs.float()).abs().max())


def run_case(case: Case, args: argparse.Namespace, clock: Clock) -> Row:
    """All figures of one case; with `--only-compile`, only the failures."""
    row = Row({name: value for name, value in vars(case).items() if value}, case.pairs())
    work = make(case, args.device)
    functions: dict[str, Fn] = {}
    outputs: dict[str, Tensor] = {}
    for name, prepare in candidates(work).items():
        start = time.perf_counter()

        def first(prepare: Callable[[], Fn] = prepare) -> tuple[Fn, Tensor]:
            fn = prepare()
            out = fn()
            synchronize()
            return fn, out

        made = attempt(row, name, first)
        if made is not None:
            functions[name], outputs[name] = made
        print(f"{case.name:26} {name:15} ready after {time.perf_counter() - start:6.1f} s", flush=True)
    if args.only_compile:
        return row
    compare(work, row, outputs)
    outputs.clear()
    row.ms, row.host_us = measure(functions, args.rounds)
    row.tflops = {name: round(case.flop() / ms / 1e9, 1) for name, ms in row.ms.items()}
    attempt(row, "planning", lambda: planning(work, functions.get("attngen"), row, clock))
    return row


class Configured(TritonBackend):
    """The Triton backend with one configuration instead of its defaults."""

    def __init__(self, configuration: TritonConfig) -> None:
        self._configuration = configuration

    def config(self, spec: KernelSpec, target: Target) -> TritonConfig:
        """The one configuration."""
        return self._configuration


def run_configurations(case: Case, args: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """One kernel of attngen under several tile sizes and launch options."""
    row = Row({"name": case.name}, case.pairs())
    work = make(case, args.device)
    target = target_of_device("cuda", 0)
    spec, _ = work.spec.kernel_spec(target.arch, "bf16", D)
    tensors, params = arguments.bind(work.spec.program, work.spec.values, work.given)
    params["scale"] = arguments.default_scale(D, None)
    out = torch.empty_like(work.q)
    call = Call(work.q, work.k, work.v, {"O": out}, tensors, params, None)
    functions: dict[str, Fn] = {}
    for c in CONFIGURATIONS:
        name = f"q{c.block_q} k{c.block_k} warps{c.num_warps} stages{c.num_stages}"
        if clock.left() < 5:
            row.failures[name] = "out of time"
            continue
        kernel = Configured(c).load(spec, target)
        fn = partial(kernel.launch, call)
        if attempt(row, name, lambda fn=fn: (fn(), synchronize())) is not None:
            functions[name] = fn
    if not args.only_compile:
        row.ms, _ = measure(functions, max(5, args.rounds // 2))
    tflops = {name: round(case.flop() / ms / 1e9, 1) for name, ms in row.ms.items()}
    return {"case": case.name, "ms": row.ms, "tflops": tflops, "failures": row.failures}


def facts() -> dict[str, Any]:
    """Machine, driver and versions."""
    known: dict[str, Any] = dict(machine())
    known["cuda"] = torch.version.cuda
    try:
        known["triton"] = version("triton")
    except PackageNotFoundError:
        known["triton"] = None
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm", "--format=csv,noheader"]
    try:
        known["nvidia_smi"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        known["nvidia_smi"] = None
    return known


def table(rows: list[Row]) -> str:
    """Milliseconds and TFLOP/s of every candidate, a line a case."""
    names = ("attngen", "flex_attention", "sdpa_flash", "sdpa_cudnn")
    lines = [f"{'case':26}" + "".join(f"{n:>26}" for n in names) + "   error/allowed"]
    for row in rows:
        cells = (
            f"{row.ms[n]:11.3f} ms {row.tflops[n]:6.1f} TF/s" if n in row.ms else f"{'failed':>26}"
            for n in names
        )
        lines.append(
            f"{row.case['name']:26}" + "".join(f"{c:>26}" for c in cells) + f"   {row.error_over_allowed}"
        )
        lines += [f"    planning {n}: {ms} ms" for n, ms in row.planning_ms.items()]
        lines.append("    launch " + ", ".join(f"{n} {us:.0f} us" for n, us in row.host_us.items()))
        lines += [f"    {n}: {text[:160]}" for n, text in row.failures.items()]
    return "\n".join(lines)


def write(path: Path | None, document: dict[str, Any]) -> None:
    """The JSON as far as it is known."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Measure the cases asked for, in order, until the time is up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=None, help="the JSON to write")
    parser.add_argument("--case", action="append", default=[], choices=[c.name for c in CASES])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=150.0, help="start no case after this long")
    parser.add_argument(
        "--configurations", action="store_true", help="then try tile sizes and launch options"
    )
    parser.add_argument("--only-compile", action="store_true", help="fill the compilers' caches")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--shrink", type=int, default=1, help="divide lengths, to try the script itself")
    args = parser.parse_args()
    clock = Clock(args.seconds)
    rows: list[Row] = []
    tried: list[dict[str, Any]] = []
    known = facts()
    chosen = [c for c in CASES if not args.case or c.name in args.case]
    chosen = [Case(**{**vars(c), "n": c.n // args.shrink}) for c in chosen]

    def save() -> None:
        protocol = {"dtype": "bf16", "head_dim": D, "rounds": args.rounds, "flushed_bytes": FLUSHED_BYTES}
        results = [vars(r) for r in rows]
        write(args.out, {"machine": known, "protocol": protocol, "results": results, "configurations": tried})

    with torch.no_grad():
        for case in chosen:
            if clock.left() < 15:
                rows.append(Row({"name": case.name}, 0, failures={"all": "out of time"}))
            else:
                rows.append(run_case(case, args, clock))
            save()
        if not args.only_compile:
            print(table(rows), flush=True)
        for case in chosen:
            if args.configurations and case.name in CONFIGURED and clock.left() > 10:
                tried.append(run_configurations(case, args, clock))
                save()
                print(json.dumps(tried[-1], indent=1), flush=True)


if __name__ == "__main__":
    main()
