"""Print what a kernel does where tiles are boxes of token coordinates: finding its box, its rows and its keys.

    program 5 of a 2 x 3 tiling of (y, x)   ->   q_lo_y = 8, q_lo_x = 32;  rows are the tokens of that box

A lane's offset from the first token of its box never changes, so inside the loops a tile of keys costs what it costs
on a line: one scalar start and offsets that were computed before.
"""

from __future__ import annotations

from attngen.emit.spec import KernelSpec
from attngen.emit.triton.box_keep import BoxKeep
from attngen.emit.triton.box_loops import BoxLoops
from attngen.emit.triton.box_text import product, shifted
from attngen.emit.triton.expr import Printer, position
from attngen.emit.triton.names import MAX_POSITION, program_number
from attngen.emit.triton.value import (
    Space,
    integer,
)
from attngen.errors import InternalError
from attngen.lang.expr import Const, Var
from attngen.planner.layout import Axis, Layout, TokenRank, hi_name, lo_name


class BoxPrinter(BoxKeep, BoxLoops):
    """The lines of one kernel of boxes."""

    def programs(self) -> list[str]:
        """The query box, head and batch entry of this program."""
        lines = self.tile_counts(self.plan.q)
        counts = [f"tiles_q_{a.name}" for a in self.plan.q.axes]
        lines.append(f"n_tiles_q = {' * '.join(counts)}")
        lines += [
            program_number(self.spec),
            "tile_q = program % n_tiles_q",
            "h = program // n_tiles_q % n_h",
            "b = program // n_tiles_q // n_h",
        ]
        lines += self.corner("tile_q", self.plan.q)
        for axis in self.plan.q.axes:
            if axis.low != Const(0):
                name = f"q_low_{axis.name}"
                lines.append(f"{name} = {self.print(axis.low)}")
                self.printer.variables[name] = integer(name, -MAX_POSITION, MAX_POSITION)
            if not axis.group:
                lo, name = lo_name(axis.name), axis.name
                end = self.sum(self.print(axis.extent), self.origin[name])
                lines.append(f"{hi_name(name)} = tl.minimum({lo} + {self.box['q', name]}, {end}) - 1")
        return lines

    def rows(self) -> list[str]:
        """The tokens of the query box; lanes beyond it repeat a token that exists, and are not stored."""
        layout = self.plan.q
        lines = ["lane = tl.arange(0, BLOCK_Q)"]
        exists: list[str] = []
        volume = self.boxes.volume("q")
        lines += self.lanes("lane", layout)
        for axis in self.tiled(layout):
            name, origin = axis.name, self.origin[axis.name]
            low = self._low(axis)
            start = shifted(lo_name(name), origin, low)
            lines.append(
                f"row_{name} = {start} + q_lane_{name}"
                if self.has_lane("q", name)
                else f"row_{name} = {start}"
            )
            top = shifted(hi_name(name), origin, low)
            if self.has_lane("q", name) or origin:
                exists.append(f"(row_{name} <= {top})")
                floor = low if low != "0" else "0"
                clamped = f"tl.minimum(row_{name}, {top})"
                lines.append(f"q_{name} = tl.maximum({clamped}, {floor})")
            else:
                lines.append(f"q_{name} = tl.minimum(row_{name}, {top})")
            if origin:
                exists.append(f"(row_{name} >= {low})")
            self._coordinate("q", name)
        lines.append(f"row = {self._token(layout, 'row')}")
        exists += ["(row >= 0)", "(row < n_q)"]
        if not self.fills_lanes("q", volume):
            exists.append(f"(lane < {volume})")
        lines.append(f"q = tl.minimum(tl.maximum({self._token(layout, 'q')}, 0), n_q - 1)")
        lines.append(f"exists = {' & '.join(exists)}")
        lines.append("row64 = row.to(tl.int64)")
        lines += self._grid_coordinates(layout)
        return lines

    def key_lanes(self) -> list[str]:
        """What no key tile changes: each lane's place in its box, and the offset of its token."""
        layout = self.plan.k
        lines = [*self.tile_counts(layout)] if not self.plan.runs else []
        lines.append("k_lane = tl.arange(0, BLOCK_K)")
        lines += self.lanes("k_lane", layout)
        terms = [
            product(f"k_lane_{a.name}", self.print(a.stride))
            for a in self.tiled(layout)
            if self.has_lane("k", a.name)
        ]
        offset = " + ".join(terms) or "tl.zeros([BLOCK_K], tl.int32)"
        lines.append(f"key_offset = {offset}")
        lines.append("key64 = key_offset.to(tl.int64)")
        return lines

    def key_tile(self) -> list[str]:
        """In a loop: the coordinates of the keys of this tile, and its first token. Reads `k_lo_...`."""
        layout = self.plan.k
        lines: list[str] = []
        terms: list[str] = []
        for axis in layout.axes:
            name = axis.name
            stride = self.print(axis.stride)
            if axis.group:
                terms.append(product(name, stride))
                continue
            low = shifted(f"k_lo_{name}", self.origin[name], "0")
            at = f"k_at_{name}"
            lane = f" + k_lane_{name}" if self.has_lane("k", name) else ""
            if not self.packs or self.reads("k", name, scores=True):
                lines.append(f"{at} = {low}{lane}")
            space = Space.K if lane else Space.SCALAR
            self.printer.coordinates["k", name] = integer(at, -MAX_POSITION, MAX_POSITION, space, varies=True)
            terms.append(product(low if self.origin[name] == 0 else f"({low})", stride))
        lines.append(f"start = {' + '.join(terms)}")
        lines.append("k = start + key_offset")
        lines += self._grid_coordinates(layout)
        return lines

    def _low(self, axis: Axis) -> str:
        """The least coordinate of an axis; a variable where it is computed."""
        if axis.low == Const(0):
            return "0"
        return f"q_low_{axis.name}"

    def _token(self, layout: Layout, stem: str) -> str:
        """The number of a token from its coordinates."""
        terms: list[str] = []
        for axis in layout.axes:
            at = axis.name if axis.group else f"{stem}_{axis.name}"
            terms.append(product(at, self.print(axis.stride)))
        text = " + ".join(terms)
        if layout.shift != Const(0):
            text += f" - {self.print(layout.shift)}"
        return text

    def _coordinate(self, rank: TokenRank, axis: str) -> None:
        lane = self.has_lane(rank, axis)
        space = Space.Q if lane else Space.SCALAR
        self.printer.coordinates[rank, axis] = integer(f"{rank}_{axis}", -MAX_POSITION, MAX_POSITION, space)

    def _grid_coordinates(self, layout: Layout) -> list[str]:
        """Coordinates of the grid that its layout splits, where something reads them."""
        lines: list[str] = []
        rank = layout.rank
        for axis in layout.axes:
            if axis.group:
                self.printer.coordinates[rank, axis.name] = position(axis.name)
        for name, expr in layout.coordinates:
            if not name or expr == Var(rank, name) or not self.reads(rank, name):
                continue
            value = self.printer.print(expr)
            text = f"{rank}_{name}"
            lines.append(f"{text} = {value.text}")
            self.printer.coordinates[rank, name] = value.named(text)
        return lines


def box_printer(printer: Printer, spec: KernelSpec) -> BoxPrinter:
    """The printer of a kernel of boxes. Raises InternalError if no shapes were chosen."""
    if spec.plan.boxes is None or spec.boxes is None:
        raise InternalError("a kernel of boxes needs their shapes")
    return BoxPrinter(printer, spec, spec.plan.boxes, spec.boxes)
