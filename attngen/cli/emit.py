"""`attngen emit`: print a generated kernel."""

from __future__ import annotations

import argparse
from pathlib import Path

from attngen.cli.common import Subparsers, add_verb
from attngen.cli.options import add_kernel, add_program, add_sweep, chosen_sweeps, load_program, sweep_titles


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "emit",
        help="print the generated kernel",
        description="Print the kernel generated for a target, which need not be present; the kernels of all sweeps of "
        "a program that takes several, each a file of its own by `--sweep`.",
        examples=[
            "attngen emit sliding_window_sink --target sm_90 --dtype bf16 --head-dim 128",
            "attngen emit causal --target cpu --dtype fp32 --head-dim 64 -o causal.cpp",
            "attngen emit diversification_loss --target cpu --sweep 1",
        ],
    )
    add_program(parser)
    add_kernel(parser)
    add_sweep(parser)
    parser.add_argument(
        "-o", "--output", type=Path, default=None, help="write to a file instead of the terminal"
    )


def run(args: argparse.Namespace) -> int:
    """Print or write the text of one kernel or of all, each below a comment that names its sweep."""
    from attngen.pipeline import backend_named

    spec = load_program(args)
    titles = sweep_titles(spec)
    chosen = chosen_sweeps(titles, args.sweep)
    kernels, where = spec.kernel_specs(args.target, args.dtype, args.head_dim, args.value_dim)
    backend = backend_named("cpu" if where.kind == "cpu" else "triton")
    comment = "//" if where.kind == "cpu" else "#"
    texts: list[str] = []
    for i in chosen:
        text = backend.emit(kernels[i], where).text
        texts.append(text if len(titles) == 1 else f"{comment} {titles[i]}\n\n{text}")
    whole = "\n\n".join(texts)
    if args.output is None:
        print(whole, end="")
    else:
        args.output.write_text(whole, encoding="utf-8")
    return 0
