"""`attngen papers`: the pages of papers whose operators are programs, with counts, pictures and checks."""

from __future__ import annotations

import argparse
from pathlib import Path

from attngen.cli.common import Subparsers, add_verb

DEFAULT = Path("docs", "papers")
GROUPS = ("a", "c", "d", "f")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "papers",
        help="write the pages of papers: programs, tiles, pictures, passes, and whether kernels agree",
        description="Write a page for each group of papers. Of masks (a), an example call of every program is counted "
        "and drawn; of other scores (c), statistics of the map (d) and other cascades (f), every program is run on the "
        "CPU and compared with float64.",
        examples=["attngen papers", "attngen papers --group d --out docs/papers"],
    )
    parser.add_argument("--out", type=Path, default=DEFAULT, help=f"the folder (default: {DEFAULT})")
    parser.add_argument(
        "--group", choices=GROUPS, action="append", help="a group alone; may be repeated (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the pages and print their paths."""
    from attngen.paper_page import write

    paths = write(args.out, args.group or GROUPS)
    pages = [p for p in paths if p.suffix == ".md"]
    print(f"{', '.join(map(str, pages))} and {len(paths) - len(pages)} pictures")
    return 0
