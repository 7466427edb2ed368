"""`attngen inspect`: compile for a target that need not be present, and report what the kernel takes."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from attngen.cli.common import Subparsers, add_verb, columns
from attngen.cli.options import add_kernel, add_program, add_sweep, chosen_sweeps, load_program, sweep_titles

if TYPE_CHECKING:
    from attngen.static.report import Inspection

# What the tables below the list show.
_TABLES = ("occupancy", "loops")
_AMD_ONLY = ("accumulation_registers", "scalar_registers", "scalar_spills")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the verb."""
    parser = add_verb(
        subparsers,
        "inspect",
        help="compile for a target and report registers, spills, occupancy and hot loops",
        description="Compile a program's kernels for a GPU that need not be present and report, from their code, "
        "registers, spills, shared memory and occupancy. Of each hot loop: the instructions of a warp; the cycles that "
        "an iteration keeps each unit busy, after those that the products of one tile take if each is computed once; "
        "and the share of the time that the tensor cores can work, by the busiest unit (pipe bound) and by a "
        "simulation of the warps (simulated), which ranks kernels and does not forecast.",
        examples=[
            "attngen inspect sliding_window_sink --target sm_90 --dtype bf16 --head-dim 128",
            "attngen inspect causal --target gfx942 --head-dim 64 --json",
        ],
    )
    add_program(parser)
    add_kernel(parser)
    add_sweep(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Compile, then print a list of figures and two tables of loops; JSON holds one object a kernel."""
    spec = load_program(args)
    titles = sweep_titles(spec)
    found: dict[str, Inspection] = {}
    for i in chosen_sweeps(titles, args.sweep):
        found[titles[i]] = spec.inspect(args.target, args.dtype, args.head_dim, args.value_dim, sweep=i)
    many = len(titles) > 1
    if args.json:
        figures = [({"sweep": title} if many else {}) | asdict(f) for title, f in found.items()]
        print(json.dumps(figures[0] if len(figures) == 1 else figures, indent=2))
    else:
        print("\n\n".join(_text(f, title if many else None) for title, f in found.items()))
    return 0


def _text(found: Inspection, sweep: str | None) -> str:
    from attngen.static.table import cycle_rows, instruction_rows, is_amd, occupancy_text

    hidden = _TABLES if is_amd(found.target) else _TABLES + _AMD_ONLY
    rows = [("sweep", sweep)] if sweep else []
    rows += [(name, str(figure)) for name, figure in asdict(found).items() if name not in hidden]
    rows.append(("occupancy", occupancy_text(found.occupancy, found.target)))
    parts = [columns(rows)]
    if found.loops:
        what = "wave" if is_amd(found.target) else "warp"
        parts.append(f"Instructions of a {what}, one iteration:\n{_table(instruction_rows(found))}")
        group = "workgroup" if is_amd(found.target) else "CTA"
        parts.append(f"Cycles of each unit, one iteration of one {group}:\n{_table(cycle_rows(found))}")
    return "\n\n".join(parts)


def _table(rows: list[list[str]]) -> str:
    """Names to the left, numbers to the right of their columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return columns(
        [[row[0], *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))] for row in rows]
    )
