"""`attngen inspect`: compile for a target that need not be present, and report what the kernel takes."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from attngen.cli.common import Subparsers, add_verb, columns
from attngen.cli.options import add_kernel, add_program, add_sweep, chosen_sweeps, load_program, sweep_titles


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "inspect",
        help="compile for a target and report registers, spills and shared memory",
        description="Compile a program's kernels for a GPU that need not be present and report their resources.",
        examples=["attngen inspect sliding_window_sink --target sm_90 --dtype bf16 --head-dim 128"],
    )
    add_program(parser)
    add_kernel(parser)
    add_sweep(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Compile, then print one line a figure; JSON holds one object a kernel, in a list if there are several."""
    spec = load_program(args)
    titles = sweep_titles(spec)
    figures: list[dict[str, object]] = []
    for i in chosen_sweeps(titles, args.sweep):
        found = asdict(spec.inspect(args.target, args.dtype, args.head_dim, args.value_dim, sweep=i))
        figures.append(found if len(titles) == 1 else {"sweep": titles[i], **found})
    if args.json:
        print(json.dumps(figures[0] if len(figures) == 1 else figures, indent=2))
    else:
        tables = [columns([(name, str(value)) for name, value in f.items()]) for f in figures]
        print("\n\n".join(tables))
    return 0
