"""What the planner made of a mask, in words: the form of each part and why, tiles, pairs, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from attngen.algebra.steps import Sweep
from attngen.algebra.swap import swapped
from attngen.count_pairs import Count, Kept, count_kept
from attngen.lang.domain import TOKEN_RANKS
from attngen.lang.expr import Expr, Var, conjuncts, walk
from attngen.lang.print import print_expr

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attngen.algebra.steps import Sweeps
    from attngen.api import Attention
    from attngen.arguments import Shapes
    from attngen.lang.program import Program
    from attngen.planner.plan import MaskPlan
    from attngen.planner.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of tokens over the batch entries and heads that a schedule tells apart.

    kept      those the mask keeps; `kept.n` is None where they are too many to count.
    computed  lanes of the visited tiles, those beyond the last token included.
    total     all pairs.
    """

    kept: Kept
    computed: int
    total: int

    @property
    def ratio(self) -> float | None:
        """Pairs computed for each one kept; None where that is not known or nothing is kept."""
        return self.computed / self.kept.n if self.kept.n else None


@dataclass(frozen=True, slots=True)
class AxisPlan:
    """One axis of the boxes: coordinates in a tile and tiles along the axis, and how its part was solved.

    parts  a line a comparison for a closed form, the parts of the mask that speak of this axis alone for lists.
    """

    axis: str
    box_q: int
    box_k: int
    tiles_q: int
    tiles_k: int
    origin: int
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """The planner's stage.

    form, reason  "ranges" or "lists", and why.
    forced_by     for lists, the part of the mask that has no closed form, as far as one part is to blame.
    parts         how each part was solved; for lists, each part and the axes it speaks of.
    axes          an entry an axis for tiles that are boxes, empty for runs of tokens.
    pairs         pairs kept and computed.
    nbytes        bytes of metadata of this form.
    other_form    what the other form would take, in words.
    """

    form: str
    reason: str
    forced_by: str | None
    parts: tuple[str, ...]
    axes: tuple[AxisPlan, ...]
    pairs: Pairs
    nbytes: int
    other_form: str
    schedule: Schedule
    shape: tuple[int, int]

    def text(self) -> str:
        """A few lines: the form and its parts, then the axes, then the counts."""
        lines = [f"{self.form}: {self.reason}"]
        if self.forced_by is not None and f"`{self.forced_by}`" not in self.reason:
            lines.append(f"  forced by: {self.forced_by}")
        lines += [f"  {p}" for p in self.parts]
        for axis in self.axes:
            at = f", the first begins {axis.origin} before 0" if axis.origin else ""
            lines.append(
                f"  axis {axis.axis}: {axis.box_q} queries x {axis.box_k} keys in a tile, "
                f"{axis.tiles_q} x {axis.tiles_k} tiles{at}"
            )
            lines += [f"    {p}" for p in axis.parts]
        return "\n".join([*lines, *self._counts()])

    def _counts(self) -> list[str]:
        s, p = self.schedule, self.pairs
        names = [
            f"{n} {what}" for n, what in zip(self.shape, ("batch entries", "heads"), strict=True) if n > 1
        ]
        over = f"over {' x '.join(names)}" if names else "the same for every head"
        tiles = f"tiles: {s.n_full:,} full, {s.n_partial:,} partial, {s.n_empty:,} empty"
        tiles += f"; {s.density:.1%} visited ({over})"
        if p.kept.n is None:
            kept = f"pairs: those kept not counted, {p.kept.how}; {p.computed:,} computed of {p.total:,}"
        else:
            share = f" ({p.kept.n / p.total:.2%})" if p.total else ""
            kept = f"pairs: {p.kept.n:,} kept of {p.total:,}{share}, {p.kept.how}; {p.computed:,} computed"
            kept += f", {p.ratio:.2f} for each one kept" if p.ratio is not None else ""
        lengths = str(s).partition(": ")[2].partition(";")[0]
        return [f"call: {lengths}", tiles, kept, f"metadata: {self.nbytes:,} bytes; {self.other_form}"]


def planned(
    program: Program, plan: MaskPlan, schedule: Schedule, values: Mapping[str, Any], classes: NDArray[np.int8]
) -> Planned:
    """The stage of a program whose constants are worked in; `values` holds torch tensors, `classes` the tiles."""
    s = schedule
    shape = (classes.shape[0], classes.shape[1])
    size = s.block_q * s.block_k if s.boxes is None else s.boxes.volume("q") * s.boxes.volume("k")
    kept = count_kept(
        program,
        Count(values, s.n_q, s.n_k, s.batch, s.heads),
        shape,
        rows=plan.ranges.rows if plan.ranges is not None else (),
    )
    pairs = Pairs(kept, (s.n_full + s.n_partial) * size, prod(shape) * s.n_q * s.n_k)
    axes, parts = _parts(program, plan, schedule)
    return Planned(
        plan.form,
        plan.reason,
        forced_by(program, plan),
        parts,
        axes,
        pairs,
        s.nbytes,
        _other_form(schedule, classes),
        s,
        shape,
    )


def exchanged_text(masks: Attention, sweeps: Sweeps | None, shapes: Shapes) -> list[str]:
    """The tiles of the exchanged mask, if some sweep has keys as its rows; which sweeps visit which tiles."""
    rows = [s.rows for s in sweeps.steps if isinstance(s, Sweep)] if sweeps else []
    if "k" not in rows:
        return []
    own = shapes.swapped()
    exchanged = masks.from_linked(swapped(masks.program), masks.values)
    s = exchanged.schedule(own.n_q, own.n_k, own.batch, own.heads)
    above = ", ".join(str(i) for i, r in enumerate(rows) if r != "k")
    below = ", ".join(str(i) for i, r in enumerate(rows) if r == "k")
    return [
        f"sweeps whose rows are queries: {above or 'none'}; whose rows are keys: {below}, over the exchanged mask:",
        f"  {s.form}; tiles: {s.n_full:,} full, {s.n_partial:,} partial, {s.n_empty:,} empty; "
        f"{s.density:.1%} visited",
        f"  metadata: {s.nbytes:,} bytes",
    ]


def forced_by(program: Program, plan: MaskPlan) -> str | None:
    """The part of the mask that the reason for lists names; None for ranges, or where all parts are at fault."""
    if plan.form != "lists" or program.mask is None:
        return None
    parts = conjuncts(program.mask)
    along = re.search(r"\balong (\w+)", plan.reason)
    if along is not None:
        on_axis = [print_expr(p) for p in parts if along[1].split("_", maxsplit=1)[0] in _axes_of(p)]
        return " & ".join(on_axis) or None
    quoted = re.search(r"`(.+?)`", plan.reason)
    if quoted is None:
        return None
    return next((text for p in parts if quoted[1] in (text := print_expr(p))), quoted[1])


def _axes_of(part: Expr) -> tuple[str, ...]:
    """The axes a part of the mask speaks of; "" stands for the number of a token."""
    read = {n.axis or "" for n in walk(part) if isinstance(n, Var) and n.name in TOKEN_RANKS}
    return tuple(sorted(read))


def _parts(
    program: Program, plan: MaskPlan, schedule: Schedule
) -> tuple[tuple[AxisPlan, ...], tuple[str, ...]]:
    """The axes with what is said of each, and what is said of no single one."""
    shapes = schedule.boxes.shapes if schedule.boxes else ()
    by_axis: dict[str, list[str]] = {s.axis: [] for s in shapes}
    origins = {s.axis: s.origin for s in shapes}
    rest: list[str] = []
    if plan.form == "ranges":
        for note in plan.ranges.notes if plan.ranges else plan.notes:
            axis, _, solved = note.partition(": ")
            if solved and axis in by_axis:
                by_axis[axis] += _readable(axis, solved, origins[axis])
            else:
                rest.append(note)
    else:
        for part in conjuncts(program.mask) if program.mask is not None else ():
            read, text = _axes_of(part), print_expr(part)
            if len(read) == 1 and read[0] in by_axis:
                by_axis[read[0]].append(text)
            else:
                rest.append(f"{', '.join(read)}: {text}" if any(read) and all(read) else text)
    if schedule.boxes is None:
        return (), tuple(rest)
    q_tiles, k_tiles = schedule.tile_grid
    axes = tuple(
        AxisPlan(s.axis, s.q, s.k, q, k, s.origin, tuple(by_axis[s.axis]))
        for s, q, k in zip(shapes, q_tiles, k_tiles, strict=True)
    )
    return axes, tuple(rest)


def _readable(axis: str, note: str, origin: int) -> list[str]:
    """A note on an axis without what does not matter at this call: a tiling from 0, steps of 1, what always holds."""
    if re.search(r" => always( and always)*$", note):
        return []
    if not origin:
        note = re.sub(rf"\(([qk]) - origin_{axis}\)|\b([qk]) - origin_{axis}\b", r"\1\2", note)
        note = re.sub(rf" \+ origin_{axis}\b|\borigin_{axis} \+ ", "", note)
    return [re.sub(r" // 1(?![\d.])", "", note)]


def _other_form(schedule: Schedule, classes: NDArray[np.int8]) -> str:
    """What lists would take for ranges; for lists, what one run of tiles a query tile would visit."""
    visited = schedule.n_full + schedule.n_partial
    if schedule.form == "ranges":
        rows = prod(classes.shape[:3])
        return f"lists of the same tiles would take {4 * (visited + 2 * (rows + 1)):,}"
    if not classes.size:
        return "ranges would take 0"
    k_tiles = schedule.tile_grid[1]
    rows = classes.reshape(-1, *k_tiles)
    hull = np.ones(len(rows), dtype=np.int64)
    for i, n in enumerate(k_tiles):
        others = tuple(a + 1 for a in range(len(k_tiles)) if a != i)
        line = (rows.max(axis=others) if others else rows) > 0
        last = n - line[:, ::-1].argmax(axis=1)
        hull *= np.where(line.max(axis=1), last - line.argmax(axis=1), 0)
    runs = "one run along each axis" if len(k_tiles) > 1 else "one run of tiles"
    around = int(hull.sum())
    visits = f"visits {around:,} tiles, not {visited:,}" if around > visited else "visits no tile more"
    return f"ranges would take 0, but have no closed form; {runs} around what is seen {visits}"
