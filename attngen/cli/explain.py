"""`attngen explain`: what each stage made of a program."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from attngen.cli.common import Subparsers, add_verb
from attngen.cli.options import add_program, load_program, natural, tokens_of


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "explain",
        help="show what each stage made of a program",
        description="Show the program, its derivation, its schedule with the block map, and the kernels.",
        examples=[
            "attngen explain sliding_window_sink --n 4096",
            "attngen explain causal --stage algebra",
            "attngen explain prefix_lm --html prefix_lm.html",
        ],
    )
    add_program(parser)
    parser.add_argument("--n", type=natural, default=None, help="tokens (default: the grid's, or 2048)")
    parser.add_argument("--n-k", type=natural, default=None, help="keys, if not as many as queries")
    parser.add_argument("--stage", choices=("lang", "algebra", "planner", "emit"), help="one stage only")
    parser.add_argument(
        "--html", type=Path, default=None, metavar="FILE", help="write one self-contained page"
    )


def run(args: argparse.Namespace) -> int:
    """Print the stages, or write the page."""
    from attngen.cli.inputs import sample_tensors

    spec = load_program(args)
    args.n = tokens_of(spec, args.n)
    n_k = args.n if args.n_k is None else args.n_k
    tensors: dict[str, Any] = dict(
        sample_tensors(spec.program, spec.values, batch=1, heads=1, n_q=args.n, n_k=n_k)
    )
    explanation = spec.explain(args.n, n_k, **tensors)
    if args.html is not None:
        print(explanation.to_html(args.html))
    else:
        print(explanation.stage(args.stage) if args.stage else explanation)
    return 0
