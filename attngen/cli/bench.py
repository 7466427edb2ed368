"""`attngen bench`: measure against PyTorch's attention, what outputs beside O cost, and what kernels take of a GPU."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path

from attngen.cli.common import Subparsers, add_verb
from attngen.cli.options import positive
from attngen.errors import DeviceError, ParameterError


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "bench",
        help="measure against PyTorch's attention",
        description="Measure in alternating rounds; speed-ups are medians of ratios within a round.",
        examples=[
            "attngen bench cpu",
            "attngen bench cpu --case window512_d64_fp32 --rounds 15 --out results.json",
            "attngen bench planning --sizes 4096,65536 --case documents",
            "attngen bench outputs --case entropy --out outputs.json",
            "attngen bench static --case causal --target sm_90 --out static.json",
            "attngen bench gpu --out results --budget 600",
            "attngen bench gpu --out results --only G4 --dry-run",
            "attngen bench cost --out cost.json --threads 2",
        ],
    )
    parser.add_argument(
        "suite",
        choices=(*_SUITES, _STATIC, "gpu", "cost"),
        help="attention on this CPU, the planning of masks, what outputs beside O cost on this CPU, what kernels take "
        "of GPUs that need not be here, everything a GPU can show (correctness, tuning, goals and peers), or how well "
        "the cost model predicts many kernels and configurations on this CPU",
    )
    _add_options(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    """What suites take, which each says in its help."""
    parser.add_argument("--case", action="append", default=[], help="one case by name; may be repeated")
    parser.add_argument("--rounds", type=positive, default=9, help="alternating rounds (default: 9)")
    parser.add_argument("--threads", type=positive, default=None, help="threads for all candidates")
    parser.add_argument(
        "--no-flex", action="store_true", help="leave FlexAttention out (it compiles for long)"
    )
    parser.add_argument(
        "--sizes", type=_sizes, default=None, help="planning, outputs: lengths, e.g. 4096,65536"
    )
    parser.add_argument("--quick", action="store_true", help="planning: two short lengths, three rounds")
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        help="static: a GPU, may be repeated; gpu: what a dry run compiles for (default: sm_90)",
    )
    parser.add_argument(
        "--head-dim", type=positive, action="append", default=[], help="static: a width; may be repeated"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="write JSON with machine, versions and date; static: and a page in Markdown beside it; gpu: the folder of "
        "gpu_suite.json and gpu_suite.md",
    )
    parser.add_argument(
        "--budget",
        type=positive,
        default=None,
        metavar="SECONDS",
        help="gpu: stop after this long (default: 600)",
    )
    parser.add_argument(
        "--only", default="", metavar="NAMES", help="gpu: goals and steps, such as G1,G4,correctness"
    )
    parser.add_argument(
        "--fit", action="store_true", help="cost: keep the prices that follow, for the cost model to use"
    )
    parser.add_argument(
        "--points",
        type=Path,
        default=None,
        metavar="FILE",
        help="cost: judge and fit an earlier run, measure nothing",
    )
    parser.add_argument(
        "--static",
        type=Path,
        default=None,
        metavar="FILE",
        help="cost: fit GPU tiles to these static figures as well",
    )
    parser.add_argument("--dry-run", action="store_true", help="gpu: plan, count and compile; launch nothing")


def run(args: argparse.Namespace) -> int:
    """Measure, print a line a case, and write the JSON."""
    if args.suite == _STATIC:
        return _static(args)
    if args.suite == "gpu":
        return _gpu(args)
    if args.suite == "cost":
        from attngen.cli.bench_cost import run_cost

        return run_cost(args)
    import torch

    from attngen.bench.timing import machine

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    facts = machine()
    print(f"{facts['processor']}, {facts['threads']} threads, torch {facts['torch']}, {args.rounds} rounds")
    results = _SUITES[args.suite](args)
    if args.out is not None:
        _write(args.out, json.dumps({"machine": facts, "results": results}, indent=2) + "\n")
    return 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _chosen(args: argparse.Namespace, names: list[str]) -> list[str]:
    """The cases that `--case` names, all by default."""
    for name in args.case:
        if name not in names:
            raise ParameterError(f"there is no case {name!r}", hint=f"cases: {', '.join(names)}")
    return [n for n in names if not args.case or n in args.case]


def _cpu(args: argparse.Namespace) -> list[dict[str, object]]:
    from attngen.bench.cpu import CASES, run_suite

    names = _chosen(args, [c.name for c in CASES])
    cases = tuple(c for c in CASES if c.name in names)
    results: list[dict[str, object]] = []
    for result in run_suite(cases, args.rounds, flex=not args.no_flex):
        times = "  ".join(f"{n} {ms:8.2f} ms" for n, ms in result.ms.items())
        faster = "  ".join(f"{s:.2f}x {n}" for n, s in result.speedup.items())
        print(
            f"{result.case.name:22} {times}   {result.gflops['attngen']:.0f} GFLOP/s   {faster}", flush=True
        )
        results.append(result.as_json())
    return results


def _planning(args: argparse.Namespace) -> list[dict[str, object]]:
    from attngen.bench.planning import QUICK, SIZES, WORKLOADS, run_suite

    names = tuple(_chosen(args, list(WORKLOADS)))
    sizes: tuple[int, ...] = args.sizes or (QUICK if args.quick else SIZES)
    rounds = min(args.rounds, 3) if args.quick else args.rounds
    results: list[dict[str, object]] = []
    for r in run_suite(names, sizes, rounds, flex=not args.no_flex):
        print(
            f"{r.workload} n={r.n} heads={r.heads} {r.form}: {r.n_full} full, {r.n_partial} partial", end=""
        )
        print("" if r.same is None else f"; FlexAttention's blocks {'agree' if r.same else 'DIFFER'}")
        for kind, ms in r.ms.items():
            growth = f"x{r.growth[kind]:.2f} a doubling" if kind in r.growth else ""
            print(f"    {kind:28} {ms:12.3f} ms {r.peak_mib[kind]:10.2f} MiB   {growth}", flush=True)
        for kind, reason in r.skipped.items():
            print(f"    {kind:28} {reason}", flush=True)
        results.append(r.as_json())
    return results


def _outputs(args: argparse.Namespace) -> list[dict[str, object]]:
    from attngen.bench.outputs import EXTRAS, run_suite

    names = tuple(_chosen(args, list(EXTRAS)))
    print(f"{'output':14}{'dtype':8}{'sweeps':>6}{'ms':>12}{'O alone':>12}   ratio")
    results: list[dict[str, object]] = []
    for n in args.sizes or (4096,):
        for r in run_suite(names, args.rounds, n=n):
            limit = "" if r.limit is None else f", at most {r.limit:.2f} meant"
            two = "" if r.ratio_to_two is None else f", {r.ratio_to_two:.2f} of two calls with O alone"
            times = f"{r.ms:>12.2f}{r.plain_ms:>12.2f}"
            print(f"{r.output:14}{r.dtype:8}{r.sweeps:>6}{times}   {r.ratio:.2f}{limit}{two}", flush=True)
            results.append(r.as_json())
    return results


def _static(args: argparse.Namespace) -> int:
    """Compile, print a line a kernel, and write the JSON and the page."""
    from attngen.bench import static
    from attngen.bench.static_table import line, page
    from attngen.emit.target import parse_target

    programs = tuple(_chosen(args, list(static.PROGRAMS)))
    for target in args.target:
        if parse_target(target).kind == "cpu":
            raise ParameterError(f"the static suite reads GPU binaries, not those of {target}")
    targets, head_dims = tuple(args.target) or static.TARGETS, tuple(args.head_dim) or static.HEAD_DIMS
    made = static.made_with()
    print(f"Triton {made['triton']}, {made['dtype']}; pipe bound and simulated share of the tensor cores")
    kernels: list[static.Kernel] = []
    for kernel in static.run_suite(programs, targets, head_dims):
        print(line(kernel), flush=True)
        kernels.append(kernel)
    if args.out is not None:
        _write(args.out, static.as_text(kernels))
        _write(args.out.with_suffix(".md"), page(kernels, made))
    return 0


def _gpu(args: argparse.Namespace) -> int:
    """0 when the suite went to its end and nothing failed, 1 when not; what was found is in the folder in any case."""
    import torch

    from attngen.bench.gpu.report import TABLE_NAME, Report, machine_facts
    from attngen.bench.gpu.steps import Plan, checked_names, dry_steps_of, protocol, steps_of
    from attngen.bench.gpu.suite import run_suite
    from attngen.emit.target import parse_target

    if args.out is None:
        raise ParameterError("`attngen bench gpu` writes two files", hint="name their folder with --out DIR")
    plan = Plan(checked_names(args.only), target=parse_target((args.target or ["sm_90"])[0]).arch)
    if not args.dry_run and not torch.cuda.is_available():
        raise DeviceError("there is no GPU here", hint="--dry-run plans, counts and compiles without one")
    report = Report(machine_facts(), protocol(plan, dry=args.dry_run))
    steps = dry_steps_of(plan) if args.dry_run else steps_of(plan)
    budget = args.budget or (_DRY_S if args.dry_run else _GPU_S)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    try:
        report = run_suite(steps, report, args.out, budget=budget, say=lambda text: print(text, flush=True))
    finally:
        signal.signal(signal.SIGTERM, before)
    failed = report.failures()
    print(f"{report.status} after {report.seconds:.0f} s, {failed} failed; see {args.out / TABLE_NAME}")
    return 0 if report.status == "complete" and not failed else 1


_STATIC = "static"
_GPU_S, _DRY_S = 600, 7200
_SUITES = {"cpu": _cpu, "planning": _planning, "outputs": _outputs}


def _sizes(text: str) -> tuple[int, ...]:
    """`4k,16384,1M` as numbers."""
    units = {"k": 1 << 10, "m": 1 << 20}
    out: list[int] = []
    for part in text.lower().split(","):
        unit = units.get(part[-1:], 1)
        digits = part[:-1] if unit > 1 else part
        if not digits.isdecimal() or int(digits) < 1:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of lengths such as 4k,65536")
        out.append(int(digits) * unit)
    return tuple(sorted(out))
