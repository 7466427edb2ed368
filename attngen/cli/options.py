"""Options that several verbs share: which program, with which values, on which input."""

from __future__ import annotations

import argparse
import ast
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attngen.errors import ParameterError

if TYPE_CHECKING:
    from attngen.api import Attention

DTYPES = ("fp32", "bf16", "fp16")


def add_program(parser: argparse.ArgumentParser) -> None:
    """`PROGRAM` and `--set name=value`."""
    parser.add_argument("program", metavar="PROGRAM", help="a name shown by `attngen list`, or a .attn file")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="values",
        help="a parameter's value; may be repeated",
    )


def add_kernel(parser: argparse.ArgumentParser) -> None:
    """`--target`, `--dtype`, `--head-dim`, `--value-dim`."""
    parser.add_argument(
        "--target", default="sm_90", help="sm_80 ... sm_120, gfx90a, gfx942, cpu (default: sm_90)"
    )
    parser.add_argument("--dtype", default="bf16", choices=DTYPES, help="input dtype (default: bf16)")
    parser.add_argument("--head-dim", type=positive, default=128, help="query and key width (default: 128)")
    parser.add_argument("--value-dim", type=positive, default=None, help="value width (default: --head-dim)")


def add_call(parser: argparse.ArgumentParser) -> None:
    """The call that `inputs.call_of` makes: `add_shape`, `--dtype`, `--device`, and `--qkv` for tensors of a file."""
    add_shape(parser)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="default: fp32")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: the best there is (default)")
    parser.add_argument(
        "--qkv",
        type=existing_file,
        default=None,
        metavar="FILE",
        help="safetensors with query, key and value",
    )


def add_shape(parser: argparse.ArgumentParser) -> None:
    """`--shape`, `--n`, `--n-k`, `--batch`, `--heads`, `--kv-heads`, `--head-dim`: of a call that is made."""
    parser.add_argument(
        "--shape",
        type=shape,
        default=None,
        metavar="B,H,N,D",
        help="batch, query heads, tokens and width at once; the options below override parts of it",
    )
    parser.add_argument("--n", type=natural, default=None, help="tokens (default: the grid's, or 2048)")
    parser.add_argument("--n-k", type=natural, default=None, help="keys, if not as many as queries")
    parser.add_argument("--batch", type=positive, default=None, help="default: 1")
    parser.add_argument("--heads", type=positive, default=None, help="query heads (default: 8)")
    parser.add_argument("--kv-heads", type=positive, default=None, help="key/value heads (default: --heads)")
    parser.add_argument("--head-dim", type=positive, default=None, help="default: 64")


def settle_shape(args: argparse.Namespace, spec: Attention) -> None:
    """Fill what `add_shape` declares: from an option of its own, else `--shape`, else the usual value."""
    batch, heads, n, width = args.shape or (1, 8, None, 64)
    args.batch, args.heads = args.batch or batch, args.heads or heads
    args.head_dim = args.head_dim or width
    args.n = tokens_of(spec, n if args.n is None else args.n)


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """`--sweep`."""
    parser.add_argument(
        "--sweep",
        type=natural,
        default=None,
        metavar="N",
        help="one kernel of a program that takes several sweeps, counted from 0 (default: all)",
    )


def chosen_sweeps(titles: list[str], sweep: int | None) -> list[int]:
    """The sweeps that `--sweep` asks for; raises ParameterError for one that the program does not have."""
    if sweep is None:
        return list(range(len(titles)))
    if sweep >= len(titles):
        raise ParameterError(f"there is no sweep {sweep}", hint=f"the program has: {'; '.join(titles)}")
    return [sweep]


def sweep_titles(spec: Attention) -> list[str]:
    """A line about each sweep of a program, in order: which rows it keeps, and what it leaves."""
    from attngen import forms
    from attngen.algebra.steps import Sweep
    from attngen.analysed import analyse
    from attngen.explain_steps import numbered

    steps = forms.sweeps_of(analyse(spec.program)).steps
    return [title for title, step in numbered(steps) if isinstance(step, Sweep)]


def load_program(args: argparse.Namespace) -> Attention:
    """The specification that `PROGRAM` and `--set` name."""
    from attngen.api import load

    return load(args.program, **parse_values(args.values))


def tokens_of(spec: Attention, n: int | None) -> int:
    """The tokens that `--n` gives: by default as many as the grid holds, or 2048 on a line."""
    if n is not None:
        return n
    sizes = [spec.values.get(f"size_{axis}") for axis in spec.program.grid]
    return prod(size for size in sizes if isinstance(size, int)) if sizes else 2048


def parse_values(pairs: list[str]) -> dict[str, Any]:
    """`["window=512"]` -> `{"window": 512}`, and `["grid=4,5"]` -> `{"grid": (4, 5)}`.

    Raises ParameterError for anything but numbers, booleans and the extents of a grid.
    """
    out: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        try:
            value = ast.literal_eval(text.strip()) if equals else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
        is_grid = name.strip() == "grid" and isinstance(value, tuple) and value
        if not is_grid and not isinstance(value, int | float):
            raise ParameterError(
                f"--set {pair!r} is not NAME=NUMBER",
                hint="for example --set window=512, or --set grid=30,48,80 for the extents of a grid",
            )
        out[name.strip()] = value
    return out


def positive(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def shape(text: str) -> tuple[int, int, int, int]:
    """An argparse type: four extents, as `1,8,4096,64`."""
    parts = [natural(part) for part in text.replace("x", ",").split(",")]
    if len(parts) != 4:
        raise argparse.ArgumentTypeError(f"must be batch,heads,tokens,width, got {text!r}")
    return parts[0], parts[1], parts[2], parts[3]


def natural(text: str) -> int:
    """An argparse type: an integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def existing_file(text: str) -> Path:
    """An argparse type: a file that is there."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return path
