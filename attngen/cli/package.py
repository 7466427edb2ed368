"""`attngen package`: an installable wheel of artefacts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from attngen.cli.common import add_verb, bytes_text

if TYPE_CHECKING:
    from attngen.cli.common import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "package",
        help="make an installable wheel of artefacts",
        description="Make a wheel of artefacts that `attngen compile` built. Where it is installed, "
        "attngen.load_artefact finds them by name, and calls of the same programs take their kernels before they build "
        "any. Every file is compared with its manifest first; equal artefacts make an equal wheel.",
        examples=[
            "attngen package build/causal build/sliding_window --name mine --version 1.0 -o dist",
            "attngen package build --name mine --version 1.0",
        ],
    )
    parser.add_argument(
        "artefacts",
        metavar="DIR",
        nargs="+",
        type=Path,
        help="an artefact, or a folder of artefacts",
    )
    parser.add_argument("--name", required=True, help="the package is called attngen_artefacts_NAME")
    parser.add_argument("--version", required=True, help="of the package, such as 1.0")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("dist"), help="where the wheel is written (default: dist)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the wheel and print its path."""
    from attngen.aot.write_wheel import write_wheel

    path = write_wheel(args.artefacts, args.name, args.version, args.out)
    print(f"{path}  {bytes_text(path.stat().st_size)}")
    return 0
