"""Print what a panel of queries does: begin, absorb a list of keys, finish."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from attngen.emit.cpp_boxes import coordinates_of
from attngen.emit.cpp_expr import Names, Printer, as_lanes, float_value, literal, position
from attngen.emit.cpp_sweeps import Layout, Round, Section, Sweep, SweepStep, names_in, reads
from attngen.emit.cpp_value import Level, Value, to_float
from attngen.emit.spec import KernelSpec
from attngen.emit.tile import AccDot, DotQK, FinishLet, Mask, RowLet, RowReduce, TileLet, TileProgram
from attngen.errors import UnsupportedError
from attngen.lang.expr import Load, Var
from attngen.lang.ops import REDUCERS, Kind

_INDENT = "    "
_EACH_VECTOR = "for (int v = 0; v < {} * LANES; v += LANES) {{"


@dataclass(frozen=True, slots=True)
class PanelText:
    """The bodies of a panel's three functions, and what the panel has to hold."""

    begin: str
    absorb: str
    finish: str
    accumulators: tuple[str, ...]
    row_values: tuple[str, ...]


def print_panel(spec: KernelSpec, layout: Layout, names: Names) -> PanelText:
    """The text of a panel. Raises UnsupportedError for a reduction that has no lane form."""
    tile = spec.tile
    carried_rows = [c.name for c in tile.carried if c.space == "row"]
    carried_accs = [c.name for c in tile.carried if c.space == "acc"]
    finish_accs = [f.out for f in tile.finish if f.space == "acc"]
    output_rows = [o.source for o in tile.outputs if o.space == "row"]
    rows = dict.fromkeys((*carried_rows, *layout.kept, *output_rows))
    return PanelText(
        begin="\n".join(_begin(spec, names)),
        absorb="\n".join(_absorb(spec, layout, names)),
        finish="\n".join(_finish(spec, names)),
        accumulators=tuple(names.ident[n] for n in dict.fromkeys((*carried_accs, *finish_accs))),
        row_values=tuple(names.ident[n] for n in rows),
    )


def panel_printer(spec: KernelSpec, names: Names, row: str = "") -> Printer:
    """A printer of what a panel computes; `row` follows the names of what each query has of its own."""
    variables = {
        "b": position("b", Level.HEAD),
        "h": position("h", Level.HEAD),
        "q": position(f"q{row}", Level.ROW),
        "k": position("k", Level.KEY),
    }
    coordinates, made, _ = coordinates_of(spec, f"q_{{}}{row}", "k_{}")
    variables |= {axis: value for (rank, axis), value in _residues(spec, coordinates).items() if rank == "q"}
    return Printer(names, variables, coordinates=coordinates, made=made, row_at=f"{{}}{row}")


def _residues(spec: KernelSpec, coordinates: Mapping[tuple[str, str], Value]) -> dict[tuple[str, str], Value]:
    """The residue classes of a tile, which a mask reads without a rank."""
    plan = spec.plan.boxes
    groups = {a.name for a in plan.q.axes if a.group} if plan is not None else set[str]()
    return {at: value for at, value in coordinates.items() if at[1] in groups}


def row_sources(spec: KernelSpec) -> dict[str, str]:
    """What fills the value that each query has of its own, by its name: its number and its coordinates."""
    _, _, places = coordinates_of(spec, "q_{}", "k_{}")
    out = {"q": "queries(panel, {})"}
    return out | {n: f"load(panel.{place} + {{}})" for n, place in places.items() if n.startswith("q_")}


def key_sources(spec: KernelSpec, keys: str) -> dict[str, str]:
    """What fills the values of a key, by their names, from a list of keys called `keys`."""
    _, _, places = coordinates_of(spec, "q_{}", "k_{}")
    out = {"k": f"{keys}.index[j]"}
    return out | {n: f"{keys}.{place}[j]" for n, place in places.items() if n.startswith("k_")}


def _indent(lines: Iterable[str]) -> list[str]:
    return [_INDENT + line for line in lines]


def _vector_loop(spec: KernelSpec, printer: Printer, vectors: str, body: list[str]) -> list[str]:
    """`body` for every vector of the panel, under what it needs declared."""
    query = [
        f"const vi {name} = {source.format('v')};"
        for name, source in row_sources(spec).items()
        if mentions(body, name)
    ]
    return [*printer.head(), _EACH_VECTOR.format(vectors), *_indent([*query, *body]), "}"]


def mentions(lines: Iterable[str], name: str) -> bool:
    """Whether a C++ identifier occurs in the text."""
    pattern = re.compile(rf"(?<![\w.]){re.escape(name)}(?!\w)")
    return any(pattern.search(line) for line in lines)


def _hoisted(printer: Printer) -> list[str]:
    return [f"const {value.ctype} {name} = {value.text};" for name, value in printer.drain_rows()]


def _begin(spec: KernelSpec, names: Names) -> list[str]:
    printer = panel_printer(spec, names)
    body: list[str] = []
    for carried in spec.tile.carried:
        start = as_lanes(printer.print(carried.init), Kind.FLOAT)
        name = names.ident[carried.name]
        if carried.space == "row":
            body.append(f"store(panel.{name} + v, {start});")
        else:
            body.append(f"for (int e = 0; e < VALUE_DIM; ++e) store(panel.{name}[e] + v, {start});")
    return _vector_loop(spec, printer, "panel.vectors", body)


def _absorb(spec: KernelSpec, layout: Layout, names: Names) -> list[str]:
    lines: list[str] = []
    tile = spec.tile
    printer = panel_printer(spec, names, "[n]")
    sources = row_sources(spec), key_sources(spec, "keys")
    fast = _shown_by_sums(tile)
    carried = {c.name for c in tile.carried if c.space == "row"}
    for part in layout.parts:
        match part:
            case DotQK(out):
                lines.append(f"dot_qk<N>(ws.tile[{layout.slots[out]}], panel.Q, keys.k_row, keys.count);")
            case AccDot(acc, source, rescale):
                scale = f"panel.{names.ident[rescale]}" if rescale else "nullptr"
                slot = layout.slots[source]
                lines.append(
                    f"dot_pv<N>(panel.{names.ident[acc]}, ws.tile[{slot}], keys.v_row, keys.count, {scale});"
                )
            case Section():
                lines += [
                    "{",
                    *_indent(_SectionPrinter(printer, layout, carried, fast, *sources).print(part)),
                    "}",
                ]
    return [*printer.head(), *lines]


def _shown_by_sums(tile: TileProgram) -> frozenset[str]:
    """Tile values a sum goes over, directly or through other tile values: a NaN in one of them shows there."""
    shown = {
        s.source for s in tile.steps if isinstance(s, AccDot) or (isinstance(s, RowReduce) and s.op == "sum")
    }
    for step in reversed(tile.steps):
        if isinstance(step, TileLet) and step.out in shown:
            shown |= set(names_in(step.body))
    return frozenset(shown)


@dataclass(slots=True)
class _SectionPrinter:
    """Prints one section: row lets as they come, a loop over the keys for each sweep.

    A row value is an array with one element a vector of the panel, and every loop over the keys does all vectors of a
    key: two chains of dependent operations keep the pipelines of a core busier than one.
    """

    printer: Printer
    layout: Layout
    carried: set[str]
    fast: frozenset[str]
    rows: Mapping[str, str]
    keys: Mapping[str, str]
    arrays: dict[str, str] = field(default_factory=dict[str, str])

    def print(self, section: Section) -> list[str]:
        ident = self.printer.names.ident
        self.printer.values.clear()
        self.arrays.clear()
        first, made = self._read_and_made(section)
        for name in first:
            self._declare(name, Kind.FLOAT)
        lines: list[str] = []
        pending = [f"{ident[n]}[n] = load(panel.{ident[n]} + n * LANES);" for n in first]
        for item in section.items:
            if isinstance(item, RowLet):
                pending += self._row_let(item)
            else:
                lines += self._sweep(item, pending)
                pending = []
        for name in dict.fromkeys((*sorted(self.carried), *self.layout.kept)):
            if name in made:
                value = to_float(self.printer.values[name])
                pending.append(f"store(panel.{ident[name]} + n * LANES, {value.text});")
        lines += _each_vector(pending)
        read = {name: source for name, source in self.rows.items() if mentions(lines, name)}
        self.arrays.update(dict.fromkeys(read, "vi"))
        query = _each_vector([f"{name}[n] = {source.format('n * LANES')};" for name, source in read.items()])
        return [*_declarations(self.arrays), *query, *lines]

    def _read_and_made(self, section: Section) -> tuple[list[str], set[str]]:
        """Row values of the panel that the section reads before it makes them, and those it makes."""
        made: set[str] = set()
        first: dict[str, None] = {}
        for item in section.items:
            for step in item.steps if isinstance(item, Sweep) else (item,):
                outer = [n for n in reads(step) if n in self.carried or n in self.layout.kept]
                first.update((n, None) for n in outer if n not in made)
                if isinstance(step, RowLet | RowReduce):
                    made.add(step.out)
        return list(first), made

    def _declare(self, name: str, kind: Kind, lo: int = 0, hi: int = 0) -> str:
        """The text of a row value, from now on in scope."""
        ident = self.printer.names.ident[name]
        value = Value(f"{ident}[n]", kind, Level.ROW, lo=lo, hi=hi)
        self.printer.values[name] = value
        self.arrays[ident] = value.ctype
        return value.text

    def _row_let(self, let: RowLet) -> list[str]:
        value = self.printer.print(let.body)
        kind = Kind.FLOAT if let.out in self.carried else value.kind
        text = as_lanes(value, kind)
        return [*self._hoisted(), f"{self._declare(let.out, kind, value.lo, value.hi)} = {text};"]

    def _hoisted(self) -> list[str]:
        rows = self.printer.drain_rows()
        self.arrays.update((name, value.ctype) for name, value in rows)
        return [f"{name}[n] = {value.text};" for name, value in rows]

    def _sweep(self, sweep: Sweep, pending: list[str]) -> list[str]:
        ident = self.printer.names.ident
        before: list[str] = []
        body: list[str] = []
        here: set[str] = set()
        for step in sweep.steps:
            for name in reads(step):
                if name in self.layout.slots and name not in here:
                    here.add(name)
                    body.append(f"{_mutable(name, sweep)}vf {ident[name]} = load({self._at(name)});")
                    self.printer.values[name] = float_value(ident[name], Level.TILE)
            if isinstance(step, RowReduce):
                before.append(self._start(step))
            body += self._step(step, sweep)
            if isinstance(step, TileLet):
                here.add(step.out)
        for step in sweep.steps:
            if isinstance(step, TileLet) and step.out in self.layout.slots:
                value = to_float(self.printer.values[step.out])
                body.append(f"store({self._at(step.out)}, {value.text});")
        key = [f"const int32_t {n} = {source};" for n, source in self.keys.items() if mentions(body, n)]
        inner = [*key, *_each_vector(body)]
        return [
            *_each_vector([*pending, *self._hoisted(), *before]),
            "for (int j = 0; j < keys.count; ++j) {",
            *_indent(inner),
            "}",
        ]

    def _at(self, name: str) -> str:
        return f"ws.tile[{self.layout.slots[name]}][j] + n * LANES"

    def _step(self, step: SweepStep, sweep: Sweep) -> list[str]:
        ident = self.printer.names.ident
        values = self.printer.values
        match step:
            case TileLet(out, body):
                value = self.printer.hoist(self.printer.print(body), Level.TILE)
                text = as_lanes(value, value.kind)
                values[out] = Value(ident[out], value.kind, Level.TILE, lo=value.lo, hi=value.hi)
                return [f"{_mutable(out, sweep)}{values[out].ctype} {ident[out]} = {text};"]
            case Mask(out, fill):
                filled = as_lanes(literal(fill), Kind.FLOAT)
                lines = [f"{ident[out]} = load(ws.keep[j] + n * LANES) ? {ident[out]} : {filled};"]
                made_here = any(isinstance(s, TileLet) and s.out == out for s in sweep.steps)
                if out in self.layout.slots and not made_here:  # or else it is stored at the end of the sweep
                    lines.append(f"store({self._at(out)}, {ident[out]});")
                return ["if constexpr (MASKED) {", *_indent(lines), "}"]
            case RowReduce(out, op, source):
                return [_combine(f"{ident[out]}[n]", op, values[source], source in self.fast)]
            case Round(out, source):
                value = to_float(values[source])
                return [f"store({self._at(out)}, round_to({value.text}, (const element*)nullptr));"]

    def _start(self, step: RowReduce) -> str:
        logical = step.op in ("any", "all")
        if step.op not in _COMBINE:
            raise UnsupportedError(f"the CPU backend has no {step.op} over the keys of a tile")
        text = self._declare(step.out, Kind.BOOL if logical else Kind.FLOAT)
        if logical:
            return f"{text} = {'vi{}' if step.op == 'any' else 'splat<vi>(-1)'};"
        return f"{text} = {as_lanes(literal(float(REDUCERS[step.op].identity)), Kind.FLOAT)};"


def _mutable(name: str, sweep: Sweep) -> str:
    return "" if any(isinstance(s, Mask) and s.out == name for s in sweep.steps) else "const "


def _each_vector(body: list[str]) -> list[str]:
    if not body:
        return []
    return ["for (int n = 0; n < N; ++n) {", *_indent(body), "}"]


def _declarations(arrays: Mapping[str, str]) -> list[str]:
    """One declaration a type, of arrays with an element a vector of the panel."""
    types = dict.fromkeys(arrays.values())
    return [f"{t} {', '.join(f'{name}[N]' for name, u in arrays.items() if u == t)};" for t in types]


_COMBINE = {
    "sum": "{acc} += {x};",
    "prod": "{acc} *= {x};",
    "max": "{acc} = vmax({acc}, {x});",
    "min": "{acc} = vmin({acc}, {x});",
    "any": "{acc} |= {x};",
    "all": "{acc} &= {x};",
}
# Where a sum over the same values shows a NaN anyway, one instruction is enough.
_COMBINE_FAST = {"max": "{acc} = larger({acc}, {x});", "min": "{acc} = smaller({acc}, {x});"}


def _combine(acc: str, op: str, value: Value, fast: bool) -> str:
    kind = Kind.BOOL if op in ("any", "all") else Kind.FLOAT
    template = _COMBINE_FAST.get(op, _COMBINE[op]) if fast else _COMBINE[op]
    return template.format(acc=acc, x=as_lanes(value, kind))


def _finish(spec: KernelSpec, names: Names) -> list[str]:
    printer = panel_printer(spec, names)
    tile = spec.tile
    ident = names.ident
    row_lets = [f for f in tile.finish if f.space == "row"]
    acc_lets = [f for f in tile.finish if f.space == "acc"]
    done = {f.out for f in acc_lets}
    acc_lets += [
        FinishLet(o.source, "acc", Load(o.source, (Var("q"), Var("e"))))
        for o in tile.outputs
        if o.space == "acc" and o.source not in done
    ]
    wanted = {n for f in (*row_lets, *acc_lets) for n in names_in(f.body)}
    rows = [c.name for c in tile.carried if c.space == "row" and c.name in wanted]
    body = [f"vf {ident[n]} = load(panel.{ident[n]} + v);" for n in rows]
    printer.values.update((n, float_value(ident[n], Level.ROW)) for n in rows)
    declared = set(rows)
    for let in row_lets:
        text = as_lanes(printer.print(let.body), Kind.FLOAT)
        body.append(f"{'' if let.out in declared else 'vf '}{ident[let.out]} = {text};")
        declared.add(let.out)
        printer.values[let.out] = float_value(ident[let.out], Level.ROW)
    stored = {o.source for o in tile.outputs if o.space == "row"} & {f.out for f in row_lets}
    body += [f"store(panel.{ident[n]} + v, {ident[n]});" for n in sorted(stored)]
    body += _finish_accs(tile, acc_lets, printer)
    lines = _vector_loop(spec, printer, "panel.vectors", body) if body else []
    for out in tile.outputs:
        store = "store_rows" if out.space == "acc" else "store_row_values"
        lines.append(f"{store}(args.{ident[out.name]}, b, h, panel, panel.{ident[out.source]});")
    return lines


def _finish_accs(tile: TileProgram, lets: list[FinishLet], printer: Printer) -> list[str]:
    """All accumulators in one loop over the value features; outputs are rounded to the element type."""
    if not lets:
        return []
    ident = printer.names.ident
    rounded = {o.source for o in tile.outputs if o.space == "acc"}
    wanted = {n for f in lets for n in names_in(f.body)}
    accs = [c.name for c in tile.carried if c.space == "acc" and c.name in wanted]
    lines = [f"vf {ident[n]} = load(panel.{ident[n]}[e] + v);" for n in accs]
    printer.values.update((n, float_value(ident[n], Level.TILE)) for n in accs)
    declared = set(accs)
    for let in lets:
        text = as_lanes(printer.hoist(printer.print(let.body), Level.TILE), Kind.FLOAT)
        if text != ident[let.out]:
            lines.append(f"{'' if let.out in declared else 'vf '}{ident[let.out]} = {text};")
        declared.add(let.out)
        printer.values[let.out] = float_value(ident[let.out], Level.TILE)
        value = ident[let.out]
        kept = f"round_to({value}, (const element*)nullptr)" if let.out in rounded else value
        lines.append(f"store(panel.{value}[e] + v, {kept});")
    return [*_hoisted(printer), "for (int e = 0; e < VALUE_DIM; ++e) {", *_indent(lines), "}"]
