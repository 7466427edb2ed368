"""`attngen list`: the programs and cascades that come with attngen."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from attngen.cli.common import add_verb, columns

if TYPE_CHECKING:
    from attngen.cli.common import Subparsers
    from attngen.lang.program import ParamDecl, Program, TensorDecl

_USUAL = "O[q, e]"  # what a program returns if nothing else is said


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "list",
        help="the programs and cascades that come with attngen",
        description="List the programs that `run`, `explain`, `emit` and `inspect` take by name, with their "
        "parameters and the tensors a call must give, what they return other than O, and the cascades a program "
        "may name.",
        examples=["attngen list", "attngen list --names"],
    )
    parser.add_argument("--names", action="store_true", help="the names of the programs alone, one a line")


def run(args: argparse.Namespace) -> int:
    """Print the catalogue."""
    from attngen.resources import data_dir

    folder = data_dir("ir")
    programs = _programs(folder)
    if args.names:
        print("\n".join(p.name for p in programs))
        return 0
    print("programs (attngen run NAME)")
    print(_table(programs))
    print("\ncascades (cascade = NAME)")
    print(_table(_programs(folder / "cascades")))
    return 0


def _programs(folder: Path) -> list[Program]:
    from attngen.lang.parse import parse_program

    return [
        parse_program(path.read_text(encoding="utf-8"), name=path.stem, file=str(path))
        for path in sorted(folder.glob("*.attn"))
    ]


def _table(programs: list[Program]) -> str:
    rows: list[tuple[str, str]] = []
    for program in programs:
        rows.append((program.name, program.doc.strip().split("\n", 1)[0]))
        inputs = [*map(_param, program.params), *map(_tensor, program.tensors)]
        if inputs:
            rows.append(("", "  " + ", ".join(inputs)))
        outputs = [_output(program, name) for name in program.outputs]
        if outputs and outputs != [_USUAL]:
            rows.append(("", f"  -> {', '.join(outputs)}"))
    return columns(rows, indent="  ")


def _output(program: Program, name: str) -> str:
    einsum = program.einsum(name)
    return name if einsum is None else f"{name}[{', '.join(einsum.ranks)}]"


def _param(param: ParamDecl) -> str:
    from attngen.lang.print import print_expr

    kind = "rank" if param.rank else param.kind.name.lower()
    shown = f"const {param.name}: {kind}" if param.const and not param.rank else f"{param.name}: {kind}"
    if param.extent is not None:
        return f"{shown} = {print_expr(param.extent)}"
    return shown if param.default is None else f"{shown} = {param.default}"


def _tensor(tensor: TensorDecl) -> str:
    return f"{tensor.name}[{', '.join(tensor.ranks)}]: {tensor.kind.name.lower()}"
