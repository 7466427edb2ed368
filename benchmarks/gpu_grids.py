"""Neighbourhoods, windows and stripes on a GPU: attngen's boxes against compiled FlexAttention, bf16, forward.

    python benchmarks/gpu_grids.py --out benchmarks/results/NAME.json

The workloads are those that libraries for multi-dimensional windows publish (FLUX: 256 x 256 tokens, window 80 x 80;
Hunyuan: 30 x 48 x 80, window 18 x 24 x 24; with and without strides), shifted windows with their bias, per-head
stripes of blocks and packed documents. FlexAttention gets the same predicate on tokens in their own order, and dense
cuDNN is what a user without a sparse kernel runs. Timing is that of `gpu_forward`: alternating rounds, medians, L2
overwritten, TFLOP/s over kept pairs. Planning is timed apart, from a predicate to what a kernel needs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpu_forward import Clock, facts, measure, synchronize, timed_ms, write
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import attngen
from attngen import arguments, pipeline
from attngen.emit.triton import pressure
from attngen.emit.triton.config import TritonConfig
from attngen.to_flex import mask_function

Tensor = torch.Tensor


@dataclass(frozen=True)
class Case:
    """A program with its values; a grid fixes the number of tokens."""

    name: str
    program: str
    heads: int
    values: dict[str, Any]
    n: int = 0
    head_dim: int = 128
    flex: bool = True
    configurations: tuple[tuple[int, int, int, int], ...] = ()

    def tokens(self) -> int:
        """Queries, and as many keys."""
        n = 1
        for extent in self.values.get("grid", (self.n,)):
            n *= extent
        return n


FLUX, HUNYUAN = {"grid": (256, 256)}, {"grid": (30, 48, 80)}
TRIALS_3D = ((128, 64, 8, 3),)
TRIALS_2D = ((64, 32, 4, 3), (64, 64, 8, 3), (128, 64, 8, 2))
WINDOW_3D = {"window_t": 18, "window_y": 24, "window_x": 24}
CASES = (
    Case(
        "na2d 256x256 window 80x80",
        "neighborhood_2d",
        24,
        FLUX | {"window_y": 80, "window_x": 80},
        configurations=TRIALS_2D,
    ),
    Case(
        "na3d 30x48x80 window 18x24x24", "neighborhood_3d", 24, HUNYUAN | WINDOW_3D, configurations=TRIALS_3D
    ),
    Case(
        "na2d 256x256 window 80x80 stride 16x16",
        "neighborhood_2d",
        24,
        FLUX | {"window_y": 80, "window_x": 80, "stride_y": 16, "stride_x": 16},
    ),
    Case(
        "na3d 30x48x80 window 18x24x24 stride 16x8x8",
        "neighborhood_3d",
        24,
        HUNYUAN | WINDOW_3D | {"stride_t": 16, "stride_y": 8, "stride_x": 8},
    ),
    Case("na1d 32k window 2048", "neighborhood_1d", 8, {"grid": (32768,), "window_x": 2048}),
    Case(
        "swin 224x224 window 7 shift 3",
        "swin",
        12,
        {"grid": (224, 224), "window": 7, "shift": 3},
        head_dim=64,
    ),
    Case("s2 stripes 32k", "s2_attention", 32, {"local_blocks": 16, "stride": 16}, n=32768),
    Case("dilated 32k window 256 dilation 8", "dilated", 16, {"window": 256, "dilation": 8}, n=32768),
    Case("documents by offsets 32k", "documents", 16, {}, n=32768),
)


@dataclass
class Row:
    """What is kept of one case."""

    case: dict[str, Any]
    pairs: int = 0
    schedule: str = ""
    ms: dict[str, float] = field(default_factory=dict)
    tflops: dict[str, float] = field(default_factory=dict)
    planning_ms: dict[str, float] = field(default_factory=dict)
    max_abs_difference_from_flex: float | None = None
    configurations_ms: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def make_spec(case: Case, device: str) -> attngen.Attention:
    """The specification of a case, its tensors on the device."""
    generator = torch.Generator().manual_seed(0)
    if case.program == "documents":
        cuts = torch.randint(0, case.n, (15,), generator=generator).sort().values
        offsets = torch.cat([torch.tensor([0]), cuts, torch.tensor([case.n])]).int().to(device)
        return attngen.Attention(mask=attngen.masks.documents(offsets=offsets))
    values = dict(case.values)
    if case.program == "swin":
        rows = (2 * values["window"] - 1) ** 2
        values["bias"] = torch.randn(rows, case.heads, generator=generator).to(device)
    return attngen.load(case.program, **values)


def kept_pairs(spec: attngen.Attention, case: Case, device: str) -> int:
    """Pairs the mask keeps in one head, counted a slab of rows at a time."""
    tensors, params = arguments.bind(spec.program, spec.values, {})
    n, total = case.tokens(), 0
    keep = mask_function(spec.program, {**params, **tensors}, {"n_q": n, "n_k": n, "n_h": case.heads})
    assert keep is not None
    k = torch.arange(n, device=device)[None]
    zero = torch.zeros((), dtype=torch.int64, device=device)
    for first in range(0, n, 512):
        q = torch.arange(first, min(first + 512, n), device=device)[:, None]
        total += int(keep(zero, zero, q, k).sum())
    return total


def mask_mod(case: Case) -> Callable[..., Tensor]:
    """The case's predicate as a FlexAttention user writes it, on the numbers of tokens."""
    v = case.values
    if case.program == "s2_attention":
        step = max(1, v["stride"] // case.heads)

        def stripes(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            near = q // 64 - k // 64 < v["local_blocks"]
            return (k <= q) & (near | ((k // 64 + h * step) % v["stride"] == 0))

        return stripes
    if case.program == "dilated":

        def dilated(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return (k <= q) & (q - k < v["window"] * v["dilation"]) & ((q - k) % v["dilation"] == 0)

        return dilated
    sizes = v["grid"]
    axes = "tyx"[-len(sizes) :]

    def neighbourhood(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        keep = k >= 0
        for axis, size in reversed(list(zip(axes, sizes, strict=True))):
            window, stride = v[f"window_{axis}"], v.get(f"stride_{axis}", 1)
            at, other = q % size, k % size
            q, k = q // size, k // size
            first = (at // stride * stride + stride // 2 - window // 2).clamp(0, size - window)
            keep = keep & (other >= first) & (other < first + window)
        return keep

    return neighbourhood


def run_case(case: Case, args: argparse.Namespace, clock: Clock) -> Row:  # noqa: PLR0915 - one case, in order
    """Measure one case; what fails is recorded with its error."""
    row = Row({"name": case.name, "program": case.program, "heads": case.heads, "tokens": case.tokens()})
    device, n = args.device, case.tokens()
    spec = make_spec(case, device)
    g = torch.Generator(device=device).manual_seed(0)
    q, k, v = (
        torch.randn(1, case.heads, n, case.head_dim, device=device, generator=g, dtype=torch.bfloat16)
        for _ in range(3)
    )
    functions: dict[str, Callable[[], Any]] = {}
    outputs: dict[str, Tensor] = {}

    def attempt(name: str, make: Callable[[], Callable[[], Any]]) -> None:
        if clock.left() < 15:
            row.failures[name] = "no time left"
            return
        try:
            fn = make()
            outputs[name] = fn()
            synchronize()
            functions[name] = fn
        except Exception as error:  # whatever a peer raises belongs in the table
            row.failures[name] = f"{type(error).__name__}: {str(error)[:300]}"

    tensors, params = arguments.bind(spec.program, spec.values, {})
    schedule = spec.schedule(n, n, heads=case.heads)
    row.schedule = str(schedule)
    row.planning_ms["attngen, again"] = timed_ms(lambda: spec.schedule(n, n, heads=case.heads), 5)
    attempt("attngen", lambda: lambda: spec(q, k, v))

    def flex() -> Callable[[], Any]:
        torch.compiler.reset()
        if case.program == "documents":
            keep = mask_function(spec.program, {**params, **tensors}, {"n_q": n, "n_k": n, "n_h": case.heads})
        else:
            keep = mask_mod(case)
        heads = case.heads if case.program in ("s2_attention",) else None
        start = time.perf_counter()
        blocks = torch.compile(create_block_mask)(keep, None, heads, n, n, device=device)
        synchronize()
        row.planning_ms["flex_attention, compiled, first"] = round((time.perf_counter() - start) * 1e3, 1)
        compiled = torch.compile(flex_attention, dynamic=False)
        return lambda: compiled(q, k, v, block_mask=blocks)

    if case.flex and case.program != "swin":
        attempt("flex_attention", flex)

    def dense() -> Callable[[], Any]:
        def run() -> Any:
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                return torch.nn.functional.scaled_dot_product_attention(q, k, v)

        return run

    if case.program.startswith("neighborhood"):
        attempt("dense_cudnn", dense)
    row.pairs = kept_pairs(spec, case, device)
    if "flex_attention" in outputs and "attngen" in outputs:
        gap = (outputs["attngen"].float() - outputs["flex_attention"].float()).abs().max()
        row.max_abs_difference_from_flex = float(gap)
    outputs.clear()
    slow = sum(timed_ms(fn, 1) for fn in functions.values())
    rounds = max(3, min(args.rounds, int(6000 / max(slow, 1e-3))))
    row.ms, _ = measure(functions, rounds)
    flop = 4 * case.head_dim * case.heads * row.pairs
    row.tflops = {name: round(flop / ms / 1e9, 1) for name, ms in row.ms.items()}
    for config in case.configurations if args.configurations else ():
        if clock.left() > 20:
            row.configurations_ms[" ".join(map(str, config))] = configured(case, config, (q, k, v), device)
    return row


def configured(case: Case, config: tuple[int, int, int, int], qkv: tuple[Tensor, ...], device: str) -> float:
    """Milliseconds with another configuration: queries and keys a tile, warps, tiles in flight; -1 if it fails."""
    kept, home = pressure.relieved, os.environ.get("ATTNGEN_CACHE_DIR")
    import attngen.backends.triton as backend

    def fixed(*_args: Any) -> TritonConfig:
        return TritonConfig(*config)

    pressure.relieved = backend.relieved = fixed  # pyright: ignore
    os.environ["ATTNGEN_CACHE_DIR"] = tempfile.mkdtemp()
    pipeline.load_kernel.cache_clear()
    pipeline.kernel_spec.cache_clear()
    try:
        spec = make_spec(case, device)
        spec(*qkv)
        synchronize()
        return measure({"it": lambda: spec(*qkv)}, 5)[0]["it"]
    except Exception as error:
        print(f"  {config}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        return -1.0
    finally:
        pressure.relieved = backend.relieved = kept  # pyright: ignore
        pipeline.load_kernel.cache_clear()
        pipeline.kernel_spec.cache_clear()
        if home is None:
            del os.environ["ATTNGEN_CACHE_DIR"]
        else:
            os.environ["ATTNGEN_CACHE_DIR"] = home


def main() -> None:
    """Run the cases and write the figures after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--configurations", action="store_true", help="also other tile sizes of attngen")
    args = parser.parse_args()
    clock = Clock(args.seconds)
    rows: list[Row] = []
    for case in CASES:
        if args.only not in case.name or clock.left() < 20:
            continue
        try:
            row = run_case(case, args, clock)
        except Exception as error:
            row = Row({"name": case.name}, failures={"case": f"{type(error).__name__}: {str(error)[:300]}"})
        rows.append(row)
        figures = "  ".join(f"{name} {ms} ms ({row.tflops.get(name)} TF)" for name, ms in row.ms.items())
        print(f"{case.name}: {figures}  diff {row.max_abs_difference_from_flex}", flush=True)
        print(
            f"   {row.schedule}\n   planning {row.planning_ms}  {row.configurations_ms} {row.failures}",
            flush=True,
        )
        write(args.out, {"facts": facts(), "cases": [vars(r) for r in rows]})


if __name__ == "__main__":
    main()
