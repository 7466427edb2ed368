"""Print which keys of a box are loaded, and which pairs are kept, where every axis keeps one run of keys a row.

    (k.y >= row_first_y) & (k.y < row_end_y) & (k.x >= row_first_x) & (k.x < row_end_x)      four comparisons a pair
->
    ((place - first) & (last - place) & guards) == guards                    two subtractions, for any number of axes
"""

from __future__ import annotations

from attngen.emit.triton.box_text import BoxText, shifted
from attngen.emit.triton.config import lanes
from attngen.emit.triton.value import INT32_MAX, INT32_MIN, Prec, Space, integer, narrow, saturate, spread
from attngen.lang.expr import Const


class BoxKeep(BoxText):
    """The lines that decide which keys and pairs of a tile count."""

    @property
    def packs(self) -> bool:
        """Whether the mask is tested on packed places: worth it from two axes on."""
        return len(self.plan.rows) > 1 and any(self.has_lane("k", axis) for axis, _, _ in self.plan.rows)

    def loadable(self) -> list[str]:
        """In a masked loop: `loadable`, the keys of this tile that exist and that some row may see."""
        if self.packs:
            hulls = {
                r.axis: tuple(self.printer.variables[n].at(Prec.SUM) for n in (r.lo, r.hi))
                for r in self.runs()
            }
            first, last = (
                self._packed([shifted(hulls[a][end], self.origin[a], "0") for a, _, _ in self.fields()])
                for end in (0, 1)
            )
            guards = self.guards()
            lines = [f"hull_first = {first}", f"hull_last = {last} + {self._past()}"]
            inside = f"((place - hull_first) & (hull_last - place) & {guards}) == {guards}"
            exists = " & (k < n_k)" if self.boxes.cut else ""
            return [*lines, f"loadable = ({inside}){exists}" if exists else f"loadable = {inside}"]
        parts: list[str] = []
        runs = {r.axis: r for r in self.plan.runs}
        for axis in self.tiled(self.plan.k):
            name, origin = axis.name, self.origin[axis.name]
            at = f"k_at_{name}"
            run = runs.get(name)
            if run is not None:
                lo, hi = (self.printer.variables[n] for n in (run.lo, run.hi))
                parts.append(f"({at} >= {shifted(lo.at(Prec.SUM), origin, '0')})")
                parts.append(f"({at} < {shifted(hi.at(Prec.SUM), origin, '0')})")
            else:
                parts.append(f"({at} < {self.print(axis.extent)})")
                if origin:
                    parts.append(f"({at} >= 0)")
        parts.append("(k < n_k)")
        volume = self.boxes.volume("k")
        if not self.fills_lanes("k", volume):
            parts.append(f"(k_lane < {volume})")
        text = " & ".join(parts)
        vector = any(self.has_lane("k", a.name) for a in self.tiled(self.plan.k))
        return [f"loadable = {text}" if vector else f"loadable = {text} & (k_lane >= 0)"]

    def _packed(self, ends: list[str]) -> str:
        """Coordinates, one an axis, as places in the box of this tile: clamped to it, each in its own field."""
        terms: list[str] = []
        for (axis, shift, _), end in zip(self.fields(), ends, strict=True):
            scale = f"{1 << shift} * " if shift else ""
            at = f"k_lo_{axis}" + (f" - {self.origin[axis]}" if self.origin[axis] else "")
            ahead = f"{end} - {at}" if "-" not in at else f"{end} - ({at})"
            terms.append(f"{scale}tl.minimum(tl.maximum({ahead}, 0), {self.box['k', axis]})")
        return " + ".join(terms)

    def _past(self) -> int:
        """What makes `last - place` keep its guard exactly where the place comes before the end."""
        return 2 * self.guards() - sum(1 << shift for _, shift, _ in self.fields())

    def row_runs(self) -> list[str]:
        """Before the loops, where every axis keeps one run of keys a row: the runs, and each key lane's packed place.

        The places along all axes share one integer, a field an axis with a guard bit above it, so that a pair costs two
        subtractions whatever the number of axes: a guard survives `place - first` if the place is not before the
        row's first, and `last - place` if it is not past its last.
        """
        lines: list[str] = []
        for axis, first, end in self.plan.rows:
            for name, expr in ((f"row_first_{axis}", first), (f"row_end_{axis}", end)):
                value = self.printer.print(expr)
                narrowed = value if not value.wide else narrow(value) if value.fits else saturate(value)
                lines.append(f"{name} = {narrowed.text}")
                self.printer.variables[name] = integer(name, INT32_MIN, INT32_MAX, value.space)
        if self.packs:
            terms = [
                f"{1 << shift} * k_lane_{axis}"
                for axis, shift, _ in self.fields()
                if self.has_lane("k", axis)
            ]
            lines.append(f"place = {' + '.join([*terms, str(self.guards())])}")
        return lines

    def keep(self) -> list[str] | None:
        """In a loop: which pairs are kept, where every axis keeps one run of keys a row; None for other masks."""
        if not self.plan.rows:
            return None
        if not self.packs:
            tests = [self._within(axis) for axis, _, _ in self.plan.rows]
            return [f"keep = {' & '.join([*tests, *self._cut()])}"]
        first, last = (
            self._packed([f"row_{end}_{a}" for a, _, _ in self.fields()]) for end in ("first", "end")
        )
        guards = self.guards()
        lines = [f"first = {first}", f"last = {last} + {self._past()}"]
        row = {n: f"{n}[:, None]" if self._rows_vary() else n for n in ("first", "last")}
        inside = (
            f"((place[None, :] - {row['first']}) & ({row['last']} - place[None, :]) & {guards}) == {guards}"
        )
        return [*lines, f"keep = {' & '.join([f'({inside})', *self._cut()])}"]

    def _cut(self) -> list[str]:
        """Tests that a lane has a key of this tile, where the row runs do not say so by themselves.

        Packed places do: an idle lane lies past the end of the box. The run of a single axis goes on into the next box.
        """
        tests: list[str] = []
        if self.boxes.cut or self.plan.k.shift != Const(0):
            tests.append("(k < n_k)[None, :]")
        volume = self.boxes.volume("k")
        if not self.packs and not self.fills_lanes("k", volume):
            tests.append(f"(k_lane < {volume})[None, :]")
        return tests

    def _within(self, axis: str) -> str:
        """The test of one axis by itself."""
        key = f"k_at_{axis}[None, :]" if self.has_lane("k", axis) else f"k_at_{axis}"
        ends: list[str] = []
        for name, op in ((f"row_first_{axis}", ">="), (f"row_end_{axis}", "<")):
            row = self.printer.variables[name]
            ends.append(f"({key} {op} {spread(row, Space.TILE).text})")
        return " & ".join(ends)

    def _rows_vary(self) -> bool:
        """Whether the rows of a tile may keep different runs."""
        names = [f"row_{end}_{axis}" for axis, _, _ in self.plan.rows for end in ("first", "end")]
        return any(self.printer.variables[n].space is Space.Q for n in names)

    def fields(self) -> list[tuple[str, int, int]]:
        """For each axis its name, the lowest bit of its field, and the field's guard bit."""
        out: list[tuple[str, int, int]] = []
        shift, faster = 0, 1
        lanes_ = lanes(self.boxes.volume("k"))
        tiled = [a.name for a in self.tiled(self.plan.k)]
        for i, axis in reversed(list(enumerate(tiled))):
            box = self.box["k", axis]
            most = (lanes_ - 1) // faster if i == 0 else box - 1  # idle lanes run on along the slowest axis
            width = max(most, box).bit_length()
            out.append((axis, shift, 1 << (shift + width)))
            shift, faster = shift + width + 1, faster * box
        return out

    def guards(self) -> int:
        """The guard bits of all fields."""
        return sum(guard for _, _, guard in self.fields())
