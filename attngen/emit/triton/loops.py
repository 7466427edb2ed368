"""Which loops a kernel has over its key tiles.

    lists, boxes, several runs      partial tiles; full tiles
    one run of keys                 partial tiles; full tiles in a row
    one run, and no other mask      tiles that cross an end of what the rows see, with all of the mask and its bounds;
                                    left edge in a row, which tests where a row begins; full tiles in a row;
                                    right edge in a row, which tests where a row ends

Tiles in a row are read where the one before ended. In a loop for one edge every key is seen by some row of the tile,
so that all are read as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from attngen.emit.spec import KernelSpec
from attngen.emit.tile import AccDot, AccLet, Dot, Mask, RowLet, RowReduce, TileLet
from attngen.emit.triton.boxes import BoxPrinter
from attngen.emit.triton.config import TritonConfig
from attngen.emit.triton.expr import Printer
from attngen.emit.triton.schedule import Scheduled
from attngen.emit.triton.value import Prec, Value, narrow
from attngen.lang.expr import Const, Expr, Size, apply, free_vars
from attngen.planner.plan import Piece

Kind = Literal["partial", "full", "left", "right"]

_COMMENTS: dict[Kind, str] = {
    "partial": "Partial tiles: the mask decides.",
    "full": "Full tiles: every pair is kept.",
    "left": "Left edge: only where each row begins decides.",
    "right": "Right edge: only where each row ends decides.",
}
_BOTH = "Tiles that reach past what their rows see, or that both edges cross: all of the mask."
# What a comment in the text says of the loop below it; an inspection of the compiled code finds the loops by it.
KINDS: dict[str, Kind] = {**{comment: kind for kind, comment in _COMMENTS.items()}, _BOTH: "partial"}
_PLAIN_STEPS = (Dot, Mask, RowReduce, RowLet, TileLet, AccDot, AccLet)
_N_K = Size("n_k")


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop over key tiles.

    header    its `for` line.
    before    statements before it.
    tile      statements that find the tile of an iteration.
    keep      where the ends of rows are all there is to the mask: the statement that sets `keep`.
    in_a_row  whether its tiles lie in a row.
    first     of tiles in a row the number of the first.
    """

    kind: Kind
    comment: str
    header: str
    tile: tuple[str, ...]
    first: str = ""
    keep: str = ""

    @property
    def in_a_row(self) -> bool:
        """Whether each tile begins where the one before ended."""
        return bool(self.first)


def loops_of(
    printer: Printer, spec: KernelSpec, config: TritonConfig, boxes: BoxPrinter | None, found: Scheduled
) -> tuple[list[str], list[Loop]]:
    """Statements before the loops beside those that find the runs, and the loops in order."""
    partial = _counted("partial", found.partial[0], found.partial[1])
    plan = spec.plan.ranges
    if boxes is not None or plan is None or len(plan.pieces) != 1:
        full = [_counted("full", *found.full)] if found.full[0] else []
        return [], [partial, *full]
    piece = plan.pieces[0]
    text = _texts(printer, piece)
    row = _row(spec) if config.one_sided else None
    lines: list[str] = []
    begins = ends = ""
    left = right = False
    if row is not None:
        first, end = row
        left, right = _varies(first), _varies(end)
        begins = _test(printer, ">=", "row_first", first) if left else ""
        ends = _test(printer, "<", "row_end", end) if right else ""
        lines, partial = _edges(printer, piece, text, left=left, right=right)
        if left and right:
            partial = replace(partial, keep=f"keep = ({begins}) & ({ends})")
        elif right:  # the end of a row is at most the end of the keys
            partial = replace(partial, keep=f"keep = {ends}")
    loops = [partial]
    if left:
        loops.append(_in_a_row("left", "left_edge", text["full_start"], begins, config))
    if piece.full_start != piece.full_end:
        loops.append(_in_a_row("full", text["full_start"], text["full_end"], "", config))
    if right:
        loops.append(_in_a_row("right", text["full_end"], "right_edge", ends, config))
    return lines, loops


def _row(spec: KernelSpec) -> tuple[Expr, Expr] | None:
    """The one run of keys that a row keeps, where nothing else decides and no step asks for more than sums."""
    plan = spec.plan.ranges
    if plan is None or len(plan.rows) != 1 or not plan.tight or plan.residual is not None:
        return None
    if plan.pieces[0].full_start == plan.pieces[0].full_end:
        return None
    if not all(isinstance(step, _PLAIN_STEPS) for step in spec.tile.steps):
        return None
    first, end = plan.rows[0]
    if first != Const(0) and not _varies(first):
        return None
    return (first, end) if _varies(first) or _varies(end) else None


def _varies(bound: Expr) -> bool:
    """Whether a bound differs from row to row: one that does not cuts at most one tile."""
    return "q" in free_vars(bound)


def _texts(printer: Printer, piece: Piece) -> dict[str, str]:
    """What the ends of a run are called, as 32-bit numbers of tiles."""
    fields = ("start", "end", "full_start", "full_end")
    return {f: narrow(printer.variables[getattr(piece, f)]).at(Prec.PRODUCT) for f in fields}


def _edges(
    printer: Printer, piece: Piece, text: dict[str, str], *, left: bool, right: bool
) -> tuple[list[str], Loop]:
    """Where the loops of the edges begin and end, and the loop over the tiles that neither takes."""
    plan = printer.spec.plan.ranges
    assert plan is not None
    low, high = (narrow(printer.variables[name]).at(Prec.SUM) for name in plan.hulls[0])
    start, end, full_start, full_end = text["start"], text["end"], text["full_start"], text["full_end"]
    # else a tile may lie on both edges at once, or reach past the last key
    apart = f"{full_start} < {full_end}"

    def bound(name: str, value: str, otherwise: str) -> str:
        return f"{name} = tl.where({apart}, {value}, {otherwise})" if left else f"{name} = {value}"

    lines: list[str] = []
    before, after = "", f"{end} - {full_end}"
    if left:
        inside = f"tl.minimum(tl.maximum(({low} + BLOCK_K - 1) // BLOCK_K, {start}), {full_start})"
        lines.append(bound("left_edge", inside, full_start))
        before = f"left_edge - {start}"
    if right:
        inside = f"tl.maximum(tl.minimum({high} // BLOCK_K, {end}), {full_end})"
        lines.append(bound("right_edge", inside, full_end))
        after = f"{end} - right_edge"
    following = "right_edge" if right else full_end
    lines.append(f"n_edges = {' + '.join(p for p in (before, after) if p)}")
    tile = f"{following} + i"
    if before:
        tile = f"tl.where(i < {before}, {start} + i, {following} + i - ({before}))"
    head = (f"tile = {tile}", *_KEYS)
    return lines, Loop("partial", _BOTH, "for i in range(0, n_edges):", head)


_KEYS = ("start = tile * BLOCK_K", "k = start + key")


def _in_a_row(kind: Kind, first: str, end: str, test: str, config: TritonConfig) -> Loop:
    begin = "0" if first == "0" else f"{first} * BLOCK_K"
    bounds = f"{begin}, {end} * BLOCK_K, BLOCK_K"
    header = f"for start in range({bounds}):"
    if config.warp_specialize:
        header = f"for start in tl.range({bounds}, warp_specialize=True):"
    keep = f"keep = {test}" if test else ""
    return Loop(kind, _COMMENTS[kind], header, ("k = start + key",), first, keep)


def _counted(kind: Kind, count: str, tile: list[str]) -> Loop:
    return Loop(kind, _COMMENTS[kind], f"for i in range(0, {count}):", tuple(tile))


def _test(printer: Printer, operator: str, stem: str, bound: Expr) -> str:
    """A comparison of the keys of a tile with a bound of each row, moved into the keys there are."""
    inside = apply("min", apply("max", bound, Const(0)), _N_K)
    value: Value = narrow(printer.print(inside))
    return f"key[None, :] {operator} ({printer.hoist(stem, value).text} - start)[:, None]"
