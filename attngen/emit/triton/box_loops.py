"""Print the loops over key boxes: how many there are, and where the box of an iteration lies.

    visited  [start_y, end_y) x [start_x, end_x), of which [full_start, full_end) on both axes need no mask
->
    the clear loop decodes its iteration in the lengths of the clear runs;
    the masked loop walks what is left in slabs: all that is off the clear run of the first axis, then what is on it
    and off that of the second, and so on
"""

from __future__ import annotations

from attngen.emit.triton.box_text import BoxText
from attngen.planner.layout import hi_name, lo_name
from attngen.planner.plan import AxisRun


class BoxLoops(BoxText):
    """The lines that find the key boxes of a query box."""

    def schedule(self) -> list[str]:
        """The counts of masked and of clear tiles, after the plan's lets."""
        if not self.plan.runs:
            return [
                "list_row = b * list_stride_b + h * list_stride_h + tile_q",
                "first_partial = tl.load(partial_lists_ptr + list_row)",
                "first_full = tl.load(full_lists_ptr + list_row)",
                "n_partial = tl.load(partial_lists_ptr + list_row + 1) - first_partial",
                "n_full = tl.load(full_lists_ptr + list_row + 1) - first_full",
            ]
        lines: list[str] = []
        runs = self.runs()
        for r in runs:
            lines.append(f"span_{r.axis} = tl.maximum({self.text(r.end)} - {self.text(r.start)}, 0)")
        has_rows = " & ".join(
            f"({lo_name(a.name)} <= {hi_name(a.name)})" for a in self.plan.q.axes if not a.group
        )
        spans = " * ".join(f"span_{r.axis}" for r in runs)
        lines.append(f"n_visited = tl.where({has_rows}, {spans}, 0)")
        if self.masked_only:
            lines.append("n_partial = n_visited")
            return lines
        for r in runs:
            lines.append(
                f"clear_{r.axis} = tl.maximum({self.text(r.full_end)} - {self.text(r.full_start)}, 0)"
            )
        clear = " * ".join(f"clear_{r.axis}" for r in runs)
        lines.append(f"n_full = tl.where({has_rows}, {clear}, 0)")
        lines.append("n_partial = n_visited - n_full")
        first = runs[0].axis
        # Without a clear tile the first slab holds every visited one.
        lines.append(f"clear_{first} = tl.where(n_full > 0, clear_{first}, 0)")
        before = ""
        for i, r in enumerate(runs[:-1]):
            sizes = [f"clear_{x.axis}" for x in runs[:i]]
            sizes.append(f"(span_{r.axis} - clear_{r.axis})")
            sizes += [f"span_{x.axis}" for x in runs[i + 1 :]]
            lines.append(f"until_{i} = {before}{' * '.join(sizes)}")
            before = f"until_{i} + "
        return lines

    @property
    def masked_only(self) -> bool:
        """Whether every visited tile needs its mask: a full one may have lanes without a key."""
        return not self.fills_lanes("k", self.boxes.volume("k"))

    def partial_tile(self) -> list[str]:
        """In the masked loop: the corner of the key box of iteration `i`."""
        if not self.plan.runs:
            return self._listed("partial_index_ptr + first_partial + i")
        runs = self.runs()
        if self.masked_only:
            return self._decoded([(f"span_{r.axis}", self.text(r.start)) for r in runs])
        if len(runs) == 1:
            (r,) = runs
            lines = [f"nth_{r.axis} = i"]
            return lines + self._slab_tile(r, None, f"nth_{r.axis}")
        # Slab s holds the visited boxes that are clear along the axes before s and not along axis s itself.
        untils = [f"until_{i}" for i in range(len(runs) - 1)]
        slab = " + ".join(f"(i >= {u}).to(tl.int32)" for u in untils)
        begin = "0"
        for i, until in enumerate(untils):
            begin = f"tl.where(slab > {i}, {until}, {begin})"
        lines = [f"slab = {slab}", f"rest = i - {begin}"]
        for i, r in reversed(list(enumerate(runs))):
            size = _by_slab(i, f"clear_{r.axis}", f"span_{r.axis} - clear_{r.axis}", f"span_{r.axis}")
            if i:
                lines.append(f"size = tl.maximum({size}, 1)")
                lines += [f"nth_{r.axis} = rest % size", "rest = rest // size"]
            else:
                lines.append(f"nth_{r.axis} = rest")
        for i, r in enumerate(runs):
            lines += self._slab_tile(r, i, f"nth_{r.axis}")
        return lines

    def _slab_tile(self, r: AxisRun, i: int | None, step: str) -> list[str]:
        """The corner along one axis: past the clear run where the slab leaves that out."""
        start, full_start = self.text(r.start), self.text(r.full_start)
        around = f"{start} + {step} + tl.where({step} >= {full_start} - {start}, clear_{r.axis}, 0)"
        text = around if i is None else _by_slab(i, f"{full_start} + {step}", around, f"{start} + {step}")
        return [self.k_lo(r.axis, text)]

    def full_tile(self) -> list[str]:
        """In the loop without a mask: the corner of the key box of iteration `i`."""
        if not self.plan.runs:
            return self._listed("full_index_ptr + first_full + i")
        return self._decoded([(f"clear_{r.axis}", self.text(r.full_start)) for r in self.runs()])

    def _decoded(self, parts: list[tuple[str, str]]) -> list[str]:
        """The corner of key box `i` of a product of runs, each given as (its length, its first tile)."""
        lines: list[str] = []
        rest = "i"
        for n, (r, (size, first)) in reversed(list(enumerate(zip(self.runs(), parts, strict=True)))):
            step = f"{rest} % {size}" if n else rest
            lines.append(self.k_lo(r.axis, f"{first} + {step}"))
            rest = f"{rest} // {size}"
        return lines

    def _listed(self, pointer: str) -> list[str]:
        """The corner of the key box that a list names."""
        return [f"tile = tl.load({pointer})", *self.corner("tile", self.plan.k)]


def _by_slab(i: int, clear: str, around: str, visited: str) -> str:
    """What an axis contributes in slabs after, at and before its own."""
    return f"tl.where(slab > {i}, {clear}, tl.where(slab == {i}, {around}, {visited}))"
