"""Print where a query tile's work lies: the plan's integers, and the two sequences of key tiles they make.

    pieces [start, full_start) [full_start, full_end) [full_end, end), ...
->
    one sequence of partial tiles, one of full tiles; the i-th tile of each by scalar selects.
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.emit.spec import KernelSpec
from attngen.emit.triton_expr import Printer
from attngen.emit.triton_layout import statement
from attngen.lang.expr import Const
from attngen.planner.plan import TilePlan

_INDENT = 4
_PARTIAL = "Key tiles with a border of the mask in them, or past the end of the keys."
_FULL = "Key tiles that every row sees whole: no mask, no bound."


@dataclass(frozen=True, slots=True)
class Run:
    """One loop over key tiles: how many there are, the statements that give the i-th, and which keys may be loaded."""

    comment: str
    count: str
    tile: tuple[str, ...]
    masked: bool
    visible: str = ""
    tight: bool = True


@dataclass(frozen=True, slots=True)
class Schedule:
    """The first `n_lets` statements of the prologue are the plan's; `lines` follow them; then the loops."""

    n_lets: int
    lines: tuple[str, ...]
    runs: tuple[Run, ...]


def print_schedule(spec: KernelSpec, printer: Printer) -> Schedule:
    """The schedule of a kernel's loops, partial tiles first."""
    plan = spec.plan.ranges
    if plan is None:
        return _lists()
    for name, body in plan.lets:
        printer.let(name, body)
    n_lets = len(printer.prologue)
    ident = printer.names.ident
    partial = [
        (ident[a], ident[b])
        for p in plan.pieces
        for a, b in ((p.start, p.full_start), (p.full_end, p.end))
        if a != b
    ]
    full = [(ident[p.full_start], ident[p.full_end]) for p in plan.pieces if p.full_start != p.full_end]
    lines: list[str] = []
    runs: list[Run] = []
    if partial:
        count, tile = _sequence("partial", partial, lines)
        visible = _visible(plan, printer) if plan.tight else "k < n_k"
        runs.append(Run(_PARTIAL, count, tile, True, visible, plan.tight))
    if full:
        count, tile = _sequence("full", full, lines)
        runs.append(Run(_FULL, count, tile, False))
    return Schedule(n_lets, tuple(lines), tuple(runs))


def _sequence(kind: str, stretches: list[tuple[str, str]], lines: list[str]) -> tuple[str, tuple[str, ...]]:
    """Name the number of tiles of consecutive stretches `[first, last)`, and select the i-th tile among them."""
    shifts: list[str] = []
    stops: list[str] = []
    for n, (first, last) in enumerate(stretches):
        stop = f"n_{kind}" if n == len(stretches) - 1 else f"{kind}_stop_{n + 1}"
        if not n:
            shifts.append(first)
            lines.append(statement(stop, f"{last} - {first}", _INDENT))
        else:
            shifts.append(f"{kind}_shift_{n + 1}")
            lines.append(statement(shifts[-1], f"{first} - {stops[-1]}", _INDENT))
            lines.append(statement(stop, f"{last} - {shifts[-1]}", _INDENT))
        stops.append(stop)
    return stops[-1], _select(stops[:-1], shifts)


def _select(stops: list[str], shifts: list[str]) -> tuple[str, ...]:
    """`k_tile = i + shift` with the shift of the first stretch that `i` is below the stop of."""
    if not stops:
        return (statement("k_tile", f"{shifts[0]} + i", 2 * _INDENT),)
    lines = [statement("shift", f"tl.where(i < {stops[-1]}, {shifts[-2]}, {shifts[-1]})", 2 * _INDENT)]
    for stop, shift in zip(reversed(stops[:-1]), reversed(shifts[:-2]), strict=True):
        lines.append(statement("shift", f"tl.where(i < {stop}, {shift}, shift)", 2 * _INDENT))
    return (*lines, statement("k_tile", "i + shift", 2 * _INDENT))


def _visible(plan: TilePlan, printer: Printer) -> str:
    """Keys some row of the tile may see: what lies outside is not loaded, so that it may hold anything."""
    ident = printer.names.ident
    zeros = {name for name, body in plan.lets if body == Const(0)}
    hulls: list[str] = []
    for lo, hi in plan.hulls:
        below = f"k < {ident[hi]}"
        hulls.append(below if lo in zeros else f"(k >= {ident[lo]}) & ({below})")
    if len(hulls) == 1:
        return hulls[0]
    return " | ".join(f"({h})" for h in hulls)


def _lists() -> Schedule:
    row = "b * list_stride_b + h * list_stride_h + q_lo // BLOCK_Q"
    lines = [statement("list_row", row, _INDENT)]
    runs: list[Run] = []
    for kind in ("partial", "full"):
        lines.append(statement(f"{kind}_first", f"tl.load({kind}_lists_ptr + list_row)", _INDENT))
        last = f"tl.load({kind}_lists_ptr + list_row + 1)"
        lines.append(statement(f"n_{kind}", f"{last} - {kind}_first", _INDENT))
        tile = (statement("k_tile", f"tl.load({kind}_index_ptr + {kind}_first + i)", 2 * _INDENT),)
        if kind == "partial":
            runs.append(Run(_PARTIAL, "n_partial", tile, True, "k < n_k", tight=False))
        else:
            runs.append(Run(_FULL, "n_full", tile, False))
    return Schedule(0, tuple(lines), tuple(runs))
