"""Print how the key tiles of a query tile are found: from scalar expressions, from lists, or as boxes."""

from __future__ import annotations

from dataclasses import dataclass

from attngen.emit.spec import KernelSpec
from attngen.emit.triton.boxes import BoxPrinter
from attngen.emit.triton.expr import Printer
from attngen.lang.expr import Var
from attngen.planner.plan import TilePlan


@dataclass(frozen=True, slots=True)
class Scheduled:
    """How the tiles of this program are found.

    lines          statements before the loops.
    partial, full  of the tiles with and without a mask: the count, and the statements that find tile `i`. The count
                   of full ones is empty where no tile can be free of a mask.
    counts         statements before the loops that only these counts and tiles need.
    """

    lines: list[str]
    partial: tuple[str, list[str]]
    full: tuple[str, list[str]]
    counts: list[str]


def schedule(printer: Printer, spec: KernelSpec, boxes: BoxPrinter | None) -> Scheduled:
    """How the tiles of this program are found."""
    plan = spec.plan.ranges
    if boxes is not None:
        lines = [*_lets(printer, spec), *boxes.schedule(), *boxes.row_runs()]
        partial = ("n_partial", boxes.partial_tile())
        return Scheduled(lines, partial, ("", []) if boxes.masked_only else ("n_full", boxes.full_tile()), [])
    if plan is None:
        lines = [
            "list_row = b * list_stride_b + h * list_stride_h + tile_q",
            "first_partial = tl.load(partial_lists_ptr + list_row)",
            "first_full = tl.load(full_lists_ptr + list_row)",
            "n_partial = tl.load(partial_lists_ptr + list_row + 1) - first_partial",
            "n_full = tl.load(full_lists_ptr + list_row + 1) - first_full",
        ]
        return Scheduled(
            lines,
            ("n_partial", _on_a_line("tl.load(partial_index_ptr + first_partial + i)")),
            ("n_full", _on_a_line("tl.load(full_index_ptr + first_full + i)")),
            [],
        )
    lines = _lets(printer, spec)
    partial, full = _segments(printer, plan)
    return Scheduled(
        lines,
        ("n_partial", _on_a_line(_tile("partial", len(partial)))),
        ("n_full", _on_a_line(_tile("full", len(full)))),
        _count("n_partial", "partial", partial) + _count("n_full", "full", full),
    )


def _on_a_line(tile: str) -> list[str]:
    """The keys of a tile that is a run of tokens."""
    return [f"tile = {tile}", "start = tile * BLOCK_K", "k = start + key"]


def _lets(printer: Printer, spec: KernelSpec) -> list[str]:
    """The plan's named expressions, from then on variables."""
    lines: list[str] = []
    for name, body in spec.lets:
        if name in printer.variables:  # what the rows of the tile were found with
            continue
        value = printer.print(body)
        if value.literal or isinstance(body, Var):  # another name for what is there already
            printer.variables[name] = value
        else:
            lines.append(f"{printer.names[name]} = {value.text}")
            printer.variables[name] = value.named(printer.names[name])
    return lines


def _segments(printer: Printer, plan: TilePlan) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Runs of partial tiles (both edges of each piece) and of full ones, as (first, end) texts."""

    def text(name: str) -> str:
        return printer.variables[name].text

    partial = [
        run
        for p in plan.pieces
        for run in ((text(p.start), text(p.full_start)), (text(p.full_end), text(p.end)))
        if run[0] != run[1]
    ]
    full = [(text(p.full_start), text(p.full_end)) for p in plan.pieces if p.full_start != p.full_end]
    return partial, full


def _count(total: str, stem: str, runs: list[tuple[str, str]]) -> list[str]:
    """Iterations up to the end of each run, and what turns an iteration of the run into its tile."""
    lines: list[str] = []
    before = ""
    for n, (first, end) in enumerate(runs):
        shift = f"{first} - {before}" if before else first
        length = end if first == "0" else f"{end} - {first}"
        lines.append(f"{stem}_from_{n} = {shift}")
        lines.append(f"{stem}_until_{n} = {before + ' + ' if before else ''}{length}")
        before = f"{stem}_until_{n}"
    lines.append(f"{total} = {before or '0'}")
    return lines


def _tile(stem: str, n: int) -> str:
    """The tile of iteration `i`: a chain of selects over the runs."""
    if n == 0:
        return "i"
    shift = f"{stem}_from_{n - 1}"
    for m in reversed(range(n - 1)):
        shift = f"tl.where(i < {stem}_until_{m}, {stem}_from_{m}, {shift})"
    return f"i + {shift}"


def hulls(printer: Printer, plan: TilePlan | None) -> str:
    """Keys that some row of the tile may see: only they are loaded."""
    if plan is None or not plan.hulls:
        return "k < n_k"
    spans: list[str] = []
    for low, high in plan.hulls:
        first, end = printer.variables[low].text, printer.variables[high].text
        spans.append(f"k < {end}" if first == "0" else f"(k >= {first}) & (k < {end})")
    return spans[0] if len(spans) == 1 else " | ".join(f"({s})" for s in spans)
