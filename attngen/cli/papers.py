"""`attngen papers`: the page of papers whose operators are programs, with counts and pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from attngen.cli.common import Subparsers, add_verb

DEFAULT = Path("docs", "papers")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "papers",
        help="write the page of papers: programs, tiles computed over tiles needed, pictures",
        description="Count and draw an example call of every program that is a paper's operator, "
        "and write the page.",
        examples=["attngen papers", "attngen papers --out docs/papers"],
    )
    parser.add_argument("--out", type=Path, default=DEFAULT, help=f"the folder (default: {DEFAULT})")


def run(args: argparse.Namespace) -> int:
    """Write the page and print its path."""
    from attngen.paper_page import write

    page, *pictures = write(args.out)
    print(f"{page} and {len(pictures)} pictures")
    return 0
