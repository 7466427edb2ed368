"""Print what a kernel does where tiles are boxes of token coordinates: finding its box, its rows and its keys.

    program 5 of a 2 x 3 tiling of (y, x)   ->   q_lo_y = 8, q_lo_x = 32;  rows are the tokens of that box

A lane's offset from the first token of its box never changes, so inside the loops a tile of keys costs what it costs
on a line: one scalar start and offsets that were computed before.
"""

from __future__ import annotations

from attngen.emit.spec import KernelSpec
from attngen.emit.triton.config import lanes
from attngen.emit.triton.expr import Printer, position
from attngen.emit.triton.names import MAX_POSITION, kernel_exprs
from attngen.emit.triton.value import (
    INT32_MAX,
    INT32_MIN,
    Prec,
    Space,
    integer,
    literal,
    narrow,
    saturate,
    spread,
)
from attngen.errors import InternalError
from attngen.lang.expr import Const, Expr, Var, walk
from attngen.planner.layout import Axis, Boxes, Layout, TokenRank, box_name, hi_name, lo_name, origin_name
from attngen.planner.plan import AxisRun, BoxPlan

class BoxPrinter:
    """The lines of one kernel of boxes, and the names its expressions may read from then on."""

    def __init__(self, printer: Printer, spec: KernelSpec, plan: BoxPlan, boxes: Boxes) -> None:
        self.printer, self.spec, self.plan, self.boxes = printer, spec, plan, boxes
        numbers = boxes.numbers()
        self.box = {
            (rank, a.name): numbers[box_name(rank, a.name)] for rank in ("q", "k") for a in self.plan.q.axes
        }
        self.origin = {a.name: numbers[origin_name(a.name)] for a in self.plan.q.axes}
        variables = self.printer.variables
        for name, number in numbers.items():
            variables[name] = literal(number)
        for axis in self.plan.q.axes:
            if axis.group:
                variables[axis.name] = position(axis.name)
            else:
                variables[lo_name(axis.name)] = position(lo_name(axis.name))
                variables[hi_name(axis.name)] = integer(hi_name(axis.name), -MAX_POSITION, MAX_POSITION)

    def programs(self) -> list[str]:
        """The query box, head and batch entry of this program."""
        lines = self._tile_counts(self.plan.q)
        counts = [f"tiles_q_{a.name}" for a in self.plan.q.axes]
        lines.append(f"n_tiles_q = {' * '.join(counts)}")
        lines += [
            "program = tl.program_id(0)",
            "tile_q = program % n_tiles_q",
            "h = program // n_tiles_q % n_h",
            "b = program // n_tiles_q // n_h",
        ]
        lines += self._corner("tile_q", self.plan.q)
        for axis in self.plan.q.axes:
            if axis.low != Const(0):
                name = f"q_low_{axis.name}"
                lines.append(f"{name} = {self._print(axis.low)}")
                self.printer.variables[name] = integer(name, -MAX_POSITION, MAX_POSITION)
            if not axis.group:
                lo, name = lo_name(axis.name), axis.name
                end = self._sum(self._print(axis.extent), self.origin[name])
                lines.append(f"{hi_name(name)} = tl.minimum({lo} + {self.box['q', name]}, {end}) - 1")
        return lines

    def _tile_counts(self, layout: Layout) -> list[str]:
        """How many tiles a rank has along each axis."""
        lines: list[str] = []
        for axis in layout.axes:
            box = self.box[layout.rank, axis.name]
            most = self._sum(self._print(axis.most), self.origin[axis.name] + box - 1)
            lines.append(f"tiles_{layout.rank}_{axis.name} = {_divided(most, box)}")
        return lines

    def _corner(self, tile: str, layout: Layout) -> list[str]:
        """The first coordinates of a tile from its number, the fastest axis first."""
        lines: list[str] = []
        rest = tile
        rank = layout.rank
        for i, axis in reversed(list(enumerate(layout.axes))):
            count = f"tiles_{rank}_{axis.name}"
            at = f"{rest} % {count}" if i else rest
            if axis.group:
                if rank == "q":
                    lines.append(f"{axis.name} = {at}")
            else:
                box = self.box[rank, axis.name]
                lines.append(f"{rank}_lo_{axis.name} = {at}" + (f" * {box}" if box != 1 else ""))
            rest = f"{rest} // {count}"
        return lines

    def rows(self) -> list[str]:
        """The tokens of the query box; lanes beyond it repeat a token that exists, and are not stored."""
        layout = self.plan.q
        lines = ["lane = tl.arange(0, BLOCK_Q)"]
        exists: list[str] = []
        volume = self.boxes.volume("q")
        lines += self._lanes("lane", layout)
        for axis in self._tiled(layout):
            name, origin = axis.name, self.origin[axis.name]
            low = self._low(axis)
            start = _shifted(lo_name(name), origin, low)
            lines.append(f"row_{name} = {start} + q_lane_{name}" if self._has_lane("q", name) else f"row_{name} = {start}")
            top = _shifted(hi_name(name), origin, low)
            if self._has_lane("q", name) or origin:
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
        if not self._fills_lanes("q", volume):
            exists.append(f"(lane < {volume})")
        lines.append(f"q = tl.minimum(tl.maximum({self._token(layout, 'q')}, 0), n_q - 1)")
        lines.append(f"exists = {' & '.join(exists)}")
        lines.append("row64 = row.to(tl.int64)")
        lines += self._grid_coordinates(layout)
        return lines

    def _fills_lanes(self, rank: TokenRank, volume: int) -> bool:
        """Whether the launch gives a tile as many lanes as its box has tokens: what `lanes` makes of a power of two."""
        return lanes(volume) == volume

    def key_lanes(self) -> list[str]:
        """What no key tile changes: each lane's place in its box, and the offset of its token."""
        layout = self.plan.k
        lines = [*self._tile_counts(layout)] if not self.plan.runs else []
        lines.append("k_lane = tl.arange(0, BLOCK_K)")
        lines += self._lanes("k_lane", layout)
        terms = [
            _product(f"k_lane_{a.name}", self._print(a.stride))
            for a in self._tiled(layout)
            if self._has_lane("k", a.name)
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
            stride = self._print(axis.stride)
            if axis.group:
                terms.append(_product(name, stride))
                continue
            low = _shifted(f"k_lo_{name}", self.origin[name], "0")
            at = f"k_at_{name}"
            lane = f" + k_lane_{name}" if self._has_lane("k", name) else ""
            if not self.packs or self._reads("k", name, scores=True):
                lines.append(f"{at} = {low}{lane}")
            space = Space.K if lane else Space.SCALAR
            self.printer.coordinates["k", name] = integer(at, -MAX_POSITION, MAX_POSITION, space, varies=True)
            terms.append(_product(low if self.origin[name] == 0 else f"({low})", stride))
        lines.append(f"start = {' + '.join(terms)}")
        lines.append("k = start + key_offset")
        lines += self._grid_coordinates(layout)
        return lines

    def loadable(self) -> list[str]:
        """In a masked loop: `loadable`, the keys of this tile that exist and that some row may see."""
        if self.packs:
            hulls = {r.axis: tuple(self.printer.variables[n].at(Prec.SUM) for n in (r.lo, r.hi)) for r in self._runs()}
            first, last = (
                self._packed([_shifted(hulls[a][end], self.origin[a], "0") for a, _, _ in self._fields()])
                for end in (0, 1)
            )
            guards = self._guards()
            lines = [f"hull_first = {first}", f"hull_last = {last} + {self._past()}"]
            inside = f"((place - hull_first) & (hull_last - place) & {guards}) == {guards}"
            exists = " & (k < n_k)" if self.boxes.cut else ""
            return [*lines, f"loadable = ({inside}){exists}" if exists else f"loadable = {inside}"]
        parts: list[str] = []
        runs = {r.axis: r for r in self.plan.runs}
        for axis in self._tiled(self.plan.k):
            name, origin = axis.name, self.origin[axis.name]
            at = f"k_at_{name}"
            run = runs.get(name)
            if run is not None:
                lo, hi = (self.printer.variables[n] for n in (run.lo, run.hi))
                parts.append(f"({at} >= {_shifted(lo.at(Prec.SUM), origin, '0')})")
                parts.append(f"({at} < {_shifted(hi.at(Prec.SUM), origin, '0')})")
            else:
                parts.append(f"({at} < {self._print(axis.extent)})")
                if origin:
                    parts.append(f"({at} >= 0)")
        parts.append("(k < n_k)")
        volume = self.boxes.volume("k")
        if not self._fills_lanes("k", volume):
            parts.append(f"(k_lane < {volume})")
        text = " & ".join(parts)
        vector = any(self._has_lane("k", a.name) for a in self._tiled(self.plan.k))
        return [f"loadable = {text}" if vector else f"loadable = {text} & (k_lane >= 0)"]

    def _packed(self, ends: list[str]) -> str:
        """Coordinates, one an axis, as places in the box of this tile: clamped to it, each in its own field."""
        terms: list[str] = []
        for (axis, shift, _), end in zip(self._fields(), ends, strict=True):
            scale = f"{1 << shift} * " if shift else ""
            at = f"k_lo_{axis}" + (f" - {self.origin[axis]}" if self.origin[axis] else "")
            ahead = f"{end} - {at}" if "-" not in at else f"{end} - ({at})"
            terms.append(f"{scale}tl.minimum(tl.maximum({ahead}, 0), {self.box['k', axis]})")
        return " + ".join(terms)

    def _past(self) -> int:
        """What makes `last - place` keep its guard exactly where the place comes before the end."""
        return 2 * self._guards() - sum(1 << shift for _, shift, _ in self._fields())

    def row_runs(self) -> list[str]:
        """Before the loops, where every axis keeps one run of keys a row: the runs, and each key lane's packed place.

        The places along all axes share one integer, a field an axis with a guard bit above it, so that a pair costs two
        subtractions whatever the number of axes: a guard survives `place - first` if the place is not before the
        row's first, and `last - place` if it is not past its last.
        """
        lines: list[str] = []
        for axis, first, end in self.plan.rows:
            for name, expr in ((f"first_{axis}", first), (f"end_{axis}", end)):
                value = self.printer.print(expr)
                narrowed = value if not value.wide else narrow(value) if value.fits else saturate(value)
                lines.append(f"{name} = {narrowed.text}")
                self.printer.variables[name] = integer(name, INT32_MIN, INT32_MAX, value.space)
        if self.packs:
            terms = [f"{1 << shift} * k_lane_{axis}" for axis, shift, _ in self._fields() if self._has_lane("k", axis)]
            lines.append(f"place = {' + '.join([*terms, str(self._guards())])}")
        return lines

    @property
    def packs(self) -> bool:
        """Whether the mask is tested on packed places: worth it from two axes on."""
        return len(self.plan.rows) > 1 and any(self._has_lane("k", axis) for axis, _, _ in self.plan.rows)

    def keep(self) -> list[str] | None:
        """In a loop: which pairs are kept, where every axis keeps one run of keys a row; None for other masks."""
        if not self.plan.rows:
            return None
        if not self.packs:
            tests = [self._within(axis) for axis, _, _ in self.plan.rows]
            return [f"keep = {' & '.join([*tests, *self._cut()])}"]
        first, last = (self._packed([f"{end}_{a}" for a, _, _ in self._fields()]) for end in ("first", "end"))
        guards = self._guards()
        lines = [f"first = {first}", f"last = {last} + {self._past()}"]
        row = {n: f"{n}[:, None]" if self._rows_vary() else n for n in ("first", "last")}
        inside = f"((place[None, :] - {row['first']}) & ({row['last']} - place[None, :]) & {guards}) == {guards}"
        return [*lines, f"keep = {' & '.join([f'({inside})', *self._cut()])}"]

    def _cut(self) -> list[str]:
        """A test that a key exists, where a box within the extents may lack some."""
        fills = self._fills_lanes("k", self.boxes.volume("k")) or self.packs
        return ["(k < n_k)[None, :]"] if self.boxes.cut or self.plan.k.shift != Const(0) or not fills else []

    def _within(self, axis: str) -> str:
        """The test of one axis by itself."""
        key = f"k_at_{axis}[None, :]" if self._has_lane("k", axis) else f"k_at_{axis}"
        ends: list[str] = []
        for name, op in ((f"first_{axis}", ">="), (f"end_{axis}", "<")):
            row = self.printer.variables[name]
            ends.append(f"({key} {op} {spread(row, Space.TILE).text})")
        return " & ".join(ends)

    def _rows_vary(self) -> bool:
        """Whether the rows of a tile may keep different runs."""
        names = [f"{end}_{axis}" for axis, _, _ in self.plan.rows for end in ("first", "end")]
        return any(self.printer.variables[n].space is Space.Q for n in names)

    def _fields(self) -> list[tuple[str, int, int]]:
        """For each axis its name, the lowest bit of its field, and the field's guard bit."""
        out: list[tuple[str, int, int]] = []
        shift, faster = 0, 1
        lanes_ = lanes(self.boxes.volume("k"))
        tiled = [a.name for a in self._tiled(self.plan.k)]
        for i, axis in reversed(list(enumerate(tiled))):
            box = self.box["k", axis]
            most = (lanes_ - 1) // faster if i == 0 else box - 1  # idle lanes run on along the slowest axis
            width = max(most, box).bit_length()
            out.append((axis, shift, 1 << (shift + width)))
            shift, faster = shift + width + 1, faster * box
        return out

    def _guards(self) -> int:
        return sum(guard for _, _, guard in self._fields())

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
        runs = self._runs()
        for r in runs:
            lines.append(f"span_{r.axis} = tl.maximum({self._text(r.end)} - {self._text(r.start)}, 0)")
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
                f"clear_{r.axis} = tl.maximum({self._text(r.full_end)} - {self._text(r.full_start)}, 0)"
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
        return not self._fills_lanes("k", self.boxes.volume("k"))

    def partial_tile(self) -> list[str]:
        """In the masked loop: the corner of the key box of iteration `i`."""
        if not self.plan.runs:
            return self._listed("partial_index_ptr + first_partial + i")
        runs = self._runs()
        if self.masked_only:
            return self._decoded([(f"span_{r.axis}", self._text(r.start)) for r in runs])
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
        start, full_start = self._text(r.start), self._text(r.full_start)
        around = f"{start} + {step} + tl.where({step} >= {full_start} - {start}, clear_{r.axis}, 0)"
        text = around if i is None else _by_slab(i, f"{full_start} + {step}", around, f"{start} + {step}")
        return [self._k_lo(r.axis, text)]

    def full_tile(self) -> list[str]:
        """In the loop without a mask: the corner of the key box of iteration `i`."""
        if not self.plan.runs:
            return self._listed("full_index_ptr + first_full + i")
        return self._decoded([(f"clear_{r.axis}", self._text(r.full_start)) for r in self._runs()])

    def _decoded(self, parts: list[tuple[str, str]]) -> list[str]:
        """The corner of key box `i` of a product of runs, each given as (its length, its first tile)."""
        lines: list[str] = []
        rest = "i"
        for n, (r, (size, first)) in reversed(list(enumerate(zip(self._runs(), parts, strict=True)))):
            step = f"{rest} % {size}" if n else rest
            lines.append(self._k_lo(r.axis, f"{first} + {step}"))
            rest = f"{rest} // {size}"
        return lines

    def _listed(self, pointer: str) -> list[str]:
        """The corner of the key box that a list names."""
        return [f"tile = tl.load({pointer})", *self._corner("tile", self.plan.k)]

    def _k_lo(self, axis: str, tile: str) -> str:
        box = self.box["k", axis]
        return f"k_lo_{axis} = ({tile}) * {box}" if box != 1 else f"k_lo_{axis} = {tile}"

    def _runs(self) -> list[AxisRun]:
        groups = {a.name for a in self.plan.k.axes if a.group}
        return [r for r in self.plan.runs if r.axis not in groups]

    def _tiled(self, layout: Layout) -> list[Axis]:
        return [a for a in layout.axes if not a.group]

    def _has_lane(self, rank: str, axis: str) -> bool:
        return self.box[rank, axis] > 1

    def _lanes(self, lane: str, layout: Layout) -> list[str]:
        """Each lane's place along every axis of its box."""
        lines: list[str] = []
        faster = 1
        out: list[str] = []
        for axis in reversed(self._tiled(layout)):
            box = self.box[layout.rank, axis.name]
            if box > 1:
                text = _divided(lane, faster)
                slower = any(self.box[layout.rank, a.name] > 1 for a in self._before(layout, axis))
                if slower:
                    text = f"{text} % {box}"
                out.append(f"{layout.rank}_lane_{axis.name} = {text}")
            faster *= box
        lines += reversed(out)
        return lines

    def _before(self, layout: Layout, axis: Axis) -> list[Axis]:
        tiled = self._tiled(layout)
        return tiled[: tiled.index(axis)]

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
            terms.append(_product(at, self._print(axis.stride)))
        text = " + ".join(terms)
        if layout.shift != Const(0):
            text += f" - {self._print(layout.shift)}"
        return text

    def _coordinate(self, rank: str, axis: str) -> None:
        lane = self._has_lane(rank, axis)
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
            if not name or expr == Var(rank, name) or not self._reads(rank, name):
                continue
            value = self.printer.print(expr)
            text = f"{rank}_{name}"
            lines.append(f"{text} = {value.text}")
            self.printer.coordinates[rank, name] = value.named(text)
        return lines

    def _reads(self, rank: str, axis: str, *, scores: bool = False) -> bool:
        """Whether an expression of the kernel reads a coordinate; with `scores`, one other than the mask."""
        made = {name for name, expr in self.plan.k.coordinates if any(n == Var(rank, axis) for n in walk(expr))}
        targets = {Var(rank, name) for name in {axis, *made}}
        exprs = (e for e in kernel_exprs(self.spec) if not (scores and e is self.spec.keep))
        return any(node in targets for expr in exprs for node in walk(expr))

    def _text(self, name: str) -> str:
        return self.printer.variables[name].at(Prec.PRODUCT)

    def _print(self, expr: Expr) -> str:
        value = self.printer.print(expr)
        return f"{value.at(Prec.ATOM)}.to(tl.int32)" if value.wide else value.at(Prec.PRODUCT)

    @staticmethod
    def _sum(text: str, number: int) -> str:
        return f"{text} + {number}" if number else text


def _by_slab(i: int, clear: str, around: str, visited: str) -> str:
    """What an axis contributes in slabs after, at and before its own."""
    return f"tl.where(slab > {i}, {clear}, tl.where(slab == {i}, {around}, {visited}))"


def _product(a: str, b: str) -> str:
    return a if b == "1" else f"{a} * {b}"


def _divided(text: str, by: int) -> str:
    if by == 1:
        return text
    return f"({text}) // {by}" if " " in text else f"{text} // {by}"


def _shifted(text: str, origin: int, low: str) -> str:
    """A coordinate from its count since the origin of the tiling."""
    out = f"{text} - {origin}" if origin else text
    return out if low == "0" else f"{out} + {low}"


def box_printer(printer: Printer, spec: KernelSpec) -> BoxPrinter:
    """The printer of a kernel of boxes. Raises InternalError if no shapes were chosen."""
    if spec.plan.boxes is None or spec.boxes is None:
        raise InternalError("a kernel of boxes needs their shapes")
    return BoxPrinter(printer, spec, spec.plan.boxes, spec.boxes)
