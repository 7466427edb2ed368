"""`attngen emit`: print a generated kernel."""

from __future__ import annotations

import argparse
from pathlib import Path

from attngen.cli.common import Subparsers, add_verb
from attngen.cli.options import add_kernel, add_program, load_program


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "emit",
        help="print the generated kernel",
        description="Print the kernel generated for a target, which need not be present.",
        examples=[
            "attngen emit sliding_window_sink --target sm_90 --dtype bf16 --head-dim 128",
            "attngen emit causal --target cpu --dtype fp32 --head-dim 64 -o causal.cpp",
        ],
    )
    add_program(parser)
    add_kernel(parser)
    parser.add_argument(
        "-o", "--output", type=Path, default=None, help="write to a file instead of the terminal"
    )


def run(args: argparse.Namespace) -> int:
    """Print or write the kernel's text."""
    text = load_program(args).source(args.target, args.dtype, args.head_dim, args.value_dim)
    if args.output is None:
        print(text, end="")
    else:
        args.output.write_text(text, encoding="utf-8")
    return 0
