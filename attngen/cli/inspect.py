"""`attngen inspect`: compile for a target that need not be present, and report what the kernel takes."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from attngen.cli.common import Subparsers, add_verb, columns
from attngen.cli.options import add_kernel, add_program, load_program


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "inspect",
        help="compile for a target and report registers, spills and shared memory",
        description="Compile a kernel for a GPU that need not be present and report its resources.",
        examples=["attngen inspect sliding_window_sink --target sm_90 --dtype bf16 --head-dim 128"],
    )
    add_program(parser)
    add_kernel(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Compile, then print one line a figure."""
    figures = asdict(load_program(args).inspect(args.target, args.dtype, args.head_dim, args.value_dim))
    if args.json:
        print(json.dumps(figures, indent=2))
    else:
        print(columns([(name, str(value)) for name, value in figures.items()]))
    return 0
