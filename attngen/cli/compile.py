"""`attngen compile`: build kernels ahead of time, for machines that need not be here."""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attngen.cli.common import add_verb, bytes_text, columns, seconds_text
from attngen.cli.options import parse_values, positive
from attngen.cli.progress import Bar
from attngen.errors import ParameterError

if TYPE_CHECKING:
    from attngen.aot.compile_programs import Made, Order
    from attngen.aot.request import Request
    from attngen.cli.common import Subparsers

_USUAL_MATRIX = Path("attngen.toml")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "compile",
        help="build kernels ahead of time, for machines that need not be here",
        description="Build an artefact of each program: sources, binaries, manifest, C header and launcher, in a "
        "directory that attngen.load_artefact, C and C++ programs load without a compiler or Triton. Every "
        "combination of targets, dtypes and head dimensions is a kernel. Equal inputs give equal bytes.",
        examples=[
            "attngen compile causal --target sm_90 --target cpu-avx2 --dtype bf16 --head-dim 64,128 -o kernels",
            "attngen compile sliding_window_sink --set window=512 --outputs O,LSE --target cpu -o kernels",
            "attngen compile --matrix attngen.toml",
            "attngen compile --all --target sm_80,sm_90,gfx942,cpu --dtype bf16,fp16 --head-dim 64,128 -o kernels",
        ],
    )
    parser.add_argument(
        "programs", metavar="PROGRAM", nargs="*", help="names shown by `attngen list`, or .attn files"
    )
    parser.add_argument("--all", action="store_true", help="every program and every cascade of the catalogue")
    parser.add_argument(
        "--matrix",
        type=Path,
        default=None,
        metavar="FILE",
        help="a file that says what to build of which programs (default, without PROGRAM: attngen.toml)",
    )
    _add_several(parser, "--target", "sm_80 ... sm_120, gfx90a, gfx942, cpu, cpu-avx2, cpu-avx512")
    _add_several(parser, "--dtype", "fp32, bf16, fp16 (default: bf16)")
    parser.add_argument(
        "--head-dim", type=_dims, default=None, metavar="D[,D]",
        help="query and key widths (default: 128); 192x128 has values of 128",
    )  # fmt: skip
    parser.add_argument("--outputs", type=_names, default=None, help="rows to return, such as O,LSE")
    parser.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], dest="values",
        help="a parameter's value, or the extent of a rank of the program's own; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--captured", metavar="NAME=DTYPE", action="append", default=[],
        help="dtype of a captured tensor (default: int64, float32, bool; rows of features as the inputs)",
    )  # fmt: skip
    _add_several(parser, "--forms", "one_pass (default), local_then_merge, scan, reassociated")
    _add_several(parser, "--alignment", "what kernels for GPUs count on: all, features (default), none")
    parser.add_argument(
        "--packed", type=_numbers, default=(), metavar="ROWS[,ROWS]",
        help="also kernels whose tiles hold all heads of a key head, for few queries: 16, 32, 64, 128, 256",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, default=None, help="directory of the artefacts (default: .)"
    )
    parser.add_argument(
        "--jobs", type=positive, default=None, help="compiling processes (default: as there are cores)"
    )
    parser.add_argument("--json", action="store_true", help="what was built, as JSON")


def _add_several(parser: argparse.ArgumentParser, flag: str, help: str) -> None:
    """An option that may be repeated, and takes several names at once."""
    parser.add_argument(flag, action="append", type=_names, metavar="NAME[,NAME]", help=help)


def run(args: argparse.Namespace) -> int:
    """Exit code 0, or 1 where a kernel could not be built."""
    from attngen.aot.compile_programs import Progress, compile_programs

    orders, out, jobs = _orders(args)
    bar, begin = Bar(), time.monotonic()

    def report(progress: Progress) -> None:
        bar.show(f"{progress.done}/{progress.total} {progress.last}", progress.done / progress.total)

    try:
        made = compile_programs(orders, out, workers=jobs, report=report)
    finally:
        bar.clear()
    wall = time.monotonic() - begin
    if args.json:
        print(json.dumps(_document(made, wall), indent=1))
    else:
        _show(made, wall)
    return 1 if any(m.failures for m in made) else 0


def _orders(args: argparse.Namespace) -> tuple[list[Order], Path, int | None]:
    from attngen.aot.read_matrix import read_matrix

    if args.programs or args.all:
        if args.matrix is not None:
            raise ParameterError("--matrix names the programs", hint="give programs or a matrix, not both")
        return _from_arguments(args), args.output or Path(), args.jobs
    path = args.matrix or _USUAL_MATRIX
    if args.matrix is None and not path.is_file():
        raise ParameterError(
            "nothing to build",
            hint="name a program, --all, or a file with --matrix; attngen.toml is not here",
        )
    given = [
        n
        for n in (
            "target",
            "dtype",
            "head_dim",
            "outputs",
            "values",
            "captured",
            "forms",
            "alignment",
            "packed",
        )
        if getattr(args, n)
    ]
    if given:
        raise ParameterError(
            f"--{given[0].replace('_', '-')} does not go with a matrix", hint=f"say it in {path}"
        )
    matrix = read_matrix(path)
    return list(matrix.orders), args.output or matrix.out or Path(), args.jobs or matrix.jobs


def _from_arguments(args: argparse.Namespace) -> list[Order]:
    from attngen.aot.compile_programs import Order
    from attngen.api import load
    from attngen.lang.library import cascade_names, program_names

    values = parse_values(args.values)
    names = [*args.programs, *([*program_names(), *cascade_names()] if args.all else [])]
    orders: list[Order] = []
    for name in dict.fromkeys(names):
        bare = load(name)
        own = set(bare.program.own_ranks) - {p.name for p in bare.program.params}
        extents = {n: v for n, v in values.items() if n in own}
        spec = load(name, args.outputs, **{n: v for n, v in values.items() if n not in own})
        orders.append(Order(spec, _request(args, extents)))
    return orders


def _request(args: argparse.Namespace, extents: dict[str, Any]) -> Request:
    from attngen.aot.request import Request

    if not args.target:
        raise ParameterError("no target", hint="for example --target sm_90 --target cpu-avx2")
    captured: dict[str, str] = {}
    for pair in args.captured:
        name, equals, dtype = pair.partition("=")
        if not equals:
            raise ParameterError(f"--captured {pair!r} is not NAME=DTYPE")
        captured[name.strip()] = dtype.strip()
    usual = Request(())
    return Request(
        targets=_joined(args.target),
        dtypes=_joined(args.dtype) or usual.dtypes,
        dims=args.head_dim or usual.dims,
        forms=_joined(args.forms) or usual.forms,
        alignments=_joined(args.alignment) or usual.alignments,
        packed=args.packed,
        extents=extents,
        captured=captured,
    )


def _show(made: list[Made], wall: float) -> None:
    rows = [
        (m.name, f"{m.kernels} kernels", bytes_text(m.nbytes), seconds_text(m.seconds), str(m.path))
        for m in made
        if not m.failures
    ]
    print(columns(rows))
    for m in made:
        for reason in m.without:
            print(f"{m.name}: not built: {reason}")
        for failure in m.failures:
            print(f"{m.name}: failed: {failure}")
    whole = _totals(made, wall)
    print(
        f"{whole['kernels']} kernels of {whole['programs']} programs, {bytes_text(whole['bytes'])}, in "
        f"{seconds_text(wall)}; compilers took {seconds_text(whole['compile_s'])}, the largest process "
        f"{bytes_text(whole['peak_bytes'])}"
    )


def _totals(made: list[Made], wall: float) -> dict[str, Any]:
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "programs": sum(not m.failures for m in made),
        "failed": sum(bool(m.failures) for m in made),
        "kernels": sum(m.kernels for m in made),
        "bytes": sum(m.nbytes for m in made),
        "seconds": wall,
        "compile_s": sum(m.seconds for m in made),
        "peak_bytes": max(peaks) << 10,
    }


def _document(made: list[Made], wall: float) -> dict[str, Any]:
    return {
        **_totals(made, wall),
        "artefacts": [
            {
                "name": m.name,
                "path": str(m.path),
                "kernels": m.kernels,
                "bytes": m.nbytes,
                "seconds": m.seconds,
                "without": list(m.without),
                "failures": list(m.failures),
            }
            for m in made
        ],
    }


def _joined(groups: list[tuple[str, ...]] | None) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(name for group in groups or () for name in group))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in _names(text))


def _dims(text: str) -> tuple[tuple[int, int], ...]:
    out: list[tuple[int, int]] = []
    for part in _names(text):
        head, times, value = part.partition("x")
        out.append((positive(head), positive(value) if times else positive(head)))
    return tuple(out)
