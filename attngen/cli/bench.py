"""`attngen bench`: measure against PyTorch's attention."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from attngen.cli.common import Subparsers, add_verb
from attngen.cli.options import positive
from attngen.errors import ParameterError


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
        ],
    )
    parser.add_argument("suite", choices=("cpu",), help="which suite")
    parser.add_argument("--case", action="append", default=[], help="one case by name; may be repeated")
    parser.add_argument("--rounds", type=positive, default=9, help="alternating rounds (default: 9)")
    parser.add_argument("--threads", type=positive, default=None, help="threads for all candidates")
    parser.add_argument(
        "--no-flex", action="store_true", help="leave FlexAttention out (it compiles for long)"
    )
    parser.add_argument("--out", type=Path, default=None, help="write JSON with machine, versions and date")


def run(args: argparse.Namespace) -> int:
    """Measure, print a line a case, and write the JSON."""
    import torch

    from attngen.bench.cpu import CASES, run_suite
    from attngen.bench.timing import machine

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    names = [c.name for c in CASES]
    for name in args.case:
        if name not in names:
            raise ParameterError(f"there is no case {name!r}", hint=f"cases: {', '.join(names)}")
    cases = tuple(c for c in CASES if not args.case or c.name in args.case)
    facts = machine()
    print(f"{facts['processor']}, {facts['threads']} threads, torch {facts['torch']}, {args.rounds} rounds")
    results: list[dict[str, object]] = []
    for result in run_suite(cases, args.rounds, flex=not args.no_flex):
        times = "  ".join(f"{n} {ms:8.2f} ms" for n, ms in result.ms.items())
        faster = "  ".join(f"{s:.2f}x {n}" for n, s in result.speedup.items())
        print(
            f"{result.case.name:22} {times}   {result.gflops['attngen']:.0f} GFLOP/s   {faster}", flush=True
        )
        results.append(result.as_json())
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(
            json.dumps({"machine": facts, "results": results}, indent=2) + "\n", encoding="utf-8"
        )
    return 0
