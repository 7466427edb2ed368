"""`attngen tune`: measure configurations of a program's kernels on this machine, and keep the best."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from attngen.cli.common import Subparsers, add_verb, seconds_text
from attngen.cli.options import add_call, add_program, load_program, positive
from attngen.cli.progress import Bar
from attngen.errors import ParameterError

if TYPE_CHECKING:
    from attngen.tune.result import TuneResult

BUDGETS = ("quick", "default", "full")
_INTERRUPTED = 130


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "tune",
        help="measure configurations of a program's kernels here, and keep the best",
        description="Build candidates, check them, measure them beside the default, and keep everything measured. "
        "Later calls of such lengths take the best (see ATTNGEN_TUNE). Ctrl-C keeps what was learned.",
        examples=[
            "attngen tune sliding_window_sink",
            "attngen tune causal --n 4096 --dtype bf16 --heads 32 --kv-heads 8 --budget default",
            "attngen tune causal --export table.json && ATTNGEN_TUNE=pinned:table.json python serve.py",
            "attngen tune causal --predict --target sm_90 --n 4096 --dtype bf16 --head-dim 128",
        ],
    )
    add_program(parser)
    add_call(parser)
    parser.add_argument(
        "--budget", choices=BUDGETS, default="quick", help="how long to search (default: quick)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of the search (default: 0)")
    parser.add_argument(
        "--export", type=Path, default=None, metavar="FILE", help="write a table for pinned:FILE"
    )
    parser.add_argument(
        "--predict",
        action="store_true",
        help="measure nothing: show what the cost model says of each configuration",
    )
    parser.add_argument(
        "--target", default=None, help="with --predict: a GPU that need not be here, such as sm_90 or gfx942"
    )
    parser.add_argument(
        "--compile",
        type=positive,
        default=0,
        metavar="N",
        help="with --predict and --target: compile the best N, and predict by the figures of their code",
    )
    parser.add_argument("--verbose", action="store_true", help="show every configuration that was measured")


def run(args: argparse.Namespace) -> int:
    """Exit code 0, or 130 where Ctrl-C ended the search."""
    from attngen.cli.inputs import call_of
    from attngen.sample_values import with_samples
    from attngen.tune.sweep import Means

    spec = load_program(args)
    query, key, value, given = call_of(args, spec)
    tensors = with_samples(spec, (query, key, value), given)
    shapes = "  ".join(f"{n} {list(t.shape)}" for n, t in (("Q", query), ("K", key), ("V", value)))
    print(
        f"{spec.program.name}  {shapes}  {str(query.dtype).removeprefix('torch.')} on {query.device}",
        flush=True,
    )
    if args.predict:
        from attngen.cli.predictions import How, show_predictions

        how = How(args.target, args.compile, verbose=args.verbose)
        return show_predictions(spec, (query, key, value), tensors, how)
    if args.target is not None or args.compile:
        raise ParameterError(
            "--target and --compile go with --predict", hint="tuning measures on the machine that is here"
        )
    bar = Bar()
    try:
        result = spec.tune_with(
            query, key, value,
            tensors=tensors, budget=args.budget, seed=args.seed, means=Means(progress=bar.show),
        )  # fmt: skip
    finally:
        bar.clear()
    _show(result, verbose=args.verbose)
    if args.export is not None:
        args.export.write_text(result.table(), encoding="utf-8")
    return _INTERRUPTED if result.interrupted else 0


def _show(result: TuneResult, *, verbose: bool) -> None:
    from attngen.tune.result import shown

    if verbose:
        print(result)
        return
    for sweep in result.sweeps:
        kept = " (the default)" if sweep.chosen == sweep.default else ""
        print(f"{', '.join(sweep.outputs):10}{shown(sweep.chosen)}{kept}")
        if sweep.default_s is not None and sweep.chosen_s is not None:
            print(
                f"{'':10}{seconds_text(sweep.chosen_s)} a launch, default {seconds_text(sweep.default_s)}, "
                f"{sweep.speedup:.2f}x as fast"
            )
        failed = sum(m.status != "ok" for m in sweep.measurements)
        about = f", {failed} of them failed" if failed else ""
        news = f"{sweep.new} new samples" if sweep.new else "all of it known before"
        print(f"{'':10}{len(sweep.measurements)} configurations measured{about}; {news}")
        if sweep.journal:
            print(f"{'':10}kept in {sweep.journal}")
