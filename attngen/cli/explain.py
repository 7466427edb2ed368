"""`attngen explain`: what each stage made of a program."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attngen.cli.common import Subparsers, add_verb
from attngen.cli.options import add_program, load_program, natural, positive, tokens_of
from attngen.errors import MissingTensorError
from attngen.lang.domain import size_param

if TYPE_CHECKING:
    from attngen.api import Attention

STAGES = ("lang", "algebra", "forms", "planner", "emit")
_HEAD_DIM = 64


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "explain",
        help="show what each stage made of a program",
        description="Show the program, its derivation sweep by sweep, the forms it may run in with an "
        "estimate of each, its schedule with the block map, and the kernels.",
        examples=[
            "attngen explain sliding_window_sink --n 4096",
            "attngen explain causal --stage algebra",
            "attngen explain boosted_tokens --stage forms --heads 8",
            "attngen explain longlora --n 4096 --heads 4 --stage planner",
            "attngen explain neighborhood_3d --set grid=30,48,80 --html neighborhood_3d.html",
        ],
    )
    add_program(parser)
    parser.add_argument("--n", type=natural, default=None, help="tokens (default: the grid's, or 2048)")
    parser.add_argument("--n-k", type=natural, default=None, help="keys, if not as many as queries")
    parser.add_argument("--batch", type=positive, default=1, help="batch entries (default: 1)")
    parser.add_argument("--heads", type=positive, default=1, help="heads (default: 1)")
    parser.add_argument("--stage", choices=STAGES, help="one stage only")
    parser.add_argument(
        "--html", type=Path, default=None, metavar="FILE", help="write one self-contained page"
    )


def run(args: argparse.Namespace) -> int:
    """Print the stages, or write the page."""
    from attngen.arguments import Shapes
    from attngen.sample_values import sample_values

    spec = load_program(args)
    _check_extents(spec)
    args.n = tokens_of(spec, args.n)
    n_k = args.n if args.n_k is None else args.n_k
    extents = {"batch": args.batch, "heads": args.heads}
    shapes = Shapes(args.batch, args.heads, args.heads, args.n, n_k, _HEAD_DIM, _HEAD_DIM)
    tensors: dict[str, Any] = dict(sample_values(spec.program, spec.values, shapes))
    explanation = spec.explain(args.n, n_k, **extents, **tensors)
    if args.html is not None:
        print(explanation.to_html(args.html))
    else:
        print(explanation.stage(args.stage) if args.stage else explanation)
    return 0


def _check_extents(spec: Attention) -> None:
    """Raise MissingTensorError for a grid whose extents `--set` does not give."""
    grid = spec.program.grid
    missing = [axis for axis in grid if size_param(axis) not in spec.values]
    if missing:
        example = ",".join(("8", "16", "16")[i % 3] for i in range(len(grid)))
        raise MissingTensorError(
            f"{spec.program.name} lies on a grid, and the extents of {', '.join(missing)} were not given",
            hint=f"give one number an axis, {', '.join(grid)}: --set grid={example}",
        )
