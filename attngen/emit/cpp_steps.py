"""Print what a panel of queries does: begin, absorb a list of keys, finish."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from attngen.emit.cpp_expr import Names, Printer, as_lanes, float_value, literal, position
from attngen.emit.cpp_sweeps import Layout, Round, Section, Sweep, SweepStep, names_in, reads
from attngen.emit.cpp_value import Level, Value, to_float
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


def print_panel(tile: TileProgram, layout: Layout, names: Names) -> PanelText:
    """The text of a panel. Raises UnsupportedError for a reduction that has no lane form."""
    carried_rows = [c.name for c in tile.carried if c.space == "row"]
    carried_accs = [c.name for c in tile.carried if c.space == "acc"]
    finish_accs = [f.out for f in tile.finish if f.space == "acc"]
    output_rows = [o.source for o in tile.outputs if o.space == "row"]
    rows = dict.fromkeys((*carried_rows, *layout.kept, *output_rows))
    return PanelText(
        begin="\n".join(_begin(tile, names)),
        absorb="\n".join(_absorb(tile, layout, names)),
        finish="\n".join(_finish(tile, names)),
        accumulators=tuple(names.ident[n] for n in dict.fromkeys((*carried_accs, *finish_accs))),
        row_values=tuple(names.ident[n] for n in rows),
    )


def _printer(names: Names) -> Printer:
    variables = {
        "b": position("b", Level.HEAD),
        "h": position("h", Level.HEAD),
        "q": position("q", Level.ROW),
        "k": position("k", Level.KEY),
    }
    return Printer(names, variables)


def _indent(lines: Iterable[str]) -> list[str]:
    return [_INDENT + line for line in lines]


def _vector_loop(printer: Printer, vectors: str, body: list[str]) -> list[str]:
    """`body` for every vector of the panel, under what it needs declared."""
    query = ["const vi q = queries(panel, v);"] if _mentions(body, "q") else []
    return [*printer.head(), _EACH_VECTOR.format(vectors), *_indent([*query, *body]), "}"]


def _mentions(lines: Iterable[str], name: str) -> bool:
    """Whether a C++ identifier occurs in the text."""
    pattern = re.compile(rf"(?<![\w.]){name}\b")
    return any(pattern.search(line) for line in lines)


def _hoisted(printer: Printer) -> list[str]:
    return [f"const {value.ctype} {name} = {value.text};" for name, value in printer.drain_rows()]


def _begin(tile: TileProgram, names: Names) -> list[str]:
    printer = _printer(names)
    body: list[str] = []
    for carried in tile.carried:
        start = as_lanes(printer.print(carried.init), Kind.FLOAT)
        name = names.ident[carried.name]
        if carried.space == "row":
            body.append(f"store(panel.{name} + v, {start});")
        else:
            body.append(f"for (int e = 0; e < VALUE_DIM; ++e) store(panel.{name}[e] + v, {start});")
    return _vector_loop(printer, "panel.vectors", body)


def _absorb(tile: TileProgram, layout: Layout, names: Names) -> list[str]:
    lines: list[str] = []
    printer = _printer(names)
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
                body = _SectionPrinter(printer, layout, carried, fast).print(part)
                query = ["const vi q = queries(panel, v);"] if _mentions(body, "q") else []
                lines += [_EACH_VECTOR.format("N"), *_indent([*query, *body]), "}"]
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
    """Prints one section: row lets as they come, a loop over the keys for each sweep."""

    printer: Printer
    layout: Layout
    carried: set[str]
    fast: frozenset[str]

    def print(self, section: Section) -> list[str]:
        ident = self.printer.names.ident
        self.printer.values.clear()
        made: set[str] = set()
        first: dict[str, None] = {}
        for item in section.items:
            for step in item.steps if isinstance(item, Sweep) else (item,):
                outer = [n for n in reads(step) if n in self.carried or n in self.layout.kept]
                first.update((n, None) for n in outer if n not in made)
                if isinstance(step, RowLet | RowReduce):
                    made.add(step.out)
        for name in first:
            self.printer.values[name] = float_value(ident[name], Level.ROW)
        lines = [f"vf {ident[n]} = load(panel.{ident[n]} + v);" for n in first if n in self.carried]
        lines += [
            f"const vf {ident[n]} = load(panel.{ident[n]} + v);" for n in first if n not in self.carried
        ]
        declared = set(first)
        for item in section.items:
            lines += self._row_let(item, declared) if isinstance(item, RowLet) else self._sweep(item)
        for name in dict.fromkeys((*self.carried_in_order(made), *self.layout.kept)):
            if name in made:
                value = to_float(self.printer.values[name])
                lines.append(f"store(panel.{ident[name]} + v, {value.text});")
        return lines

    def carried_in_order(self, made: set[str]) -> list[str]:
        """Carried rows that the section writes, in a stable order."""
        return sorted(self.carried & made)

    def _row_let(self, let: RowLet, declared: set[str]) -> list[str]:
        name = self.printer.names.ident[let.out]
        value = self.printer.print(let.body)
        kind = Kind.FLOAT if let.out in self.carried else value.kind
        text = as_lanes(value, kind)
        ctype = Value("", kind, Level.ROW, lo=value.lo, hi=value.hi).ctype
        self.printer.values[let.out] = Value(name, kind, Level.ROW, lo=value.lo, hi=value.hi)
        lines = _hoisted(self.printer)
        if let.out in declared:
            return [*lines, f"{name} = {text};"]
        declared.add(let.out)
        const = "" if let.out in self.carried else "const "
        return [*lines, f"{const}{ctype} {name} = {text};"]

    def _sweep(self, sweep: Sweep) -> list[str]:
        ident = self.printer.names.ident
        before: list[str] = []
        body: list[str] = []
        here: set[str] = set()
        for step in sweep.steps:
            for name in reads(step):
                if name in self.layout.slots and name not in here:
                    here.add(name)
                    body.append(f"{self._mutable(name, sweep)}vf {ident[name]} = load({self._at(name)});")
                    self.printer.values[name] = float_value(ident[name], Level.TILE)
            if isinstance(step, RowReduce):
                before.append(self._start(step))
            body += self._step(step)
            if isinstance(step, TileLet):
                here.add(step.out)
        for step in sweep.steps:
            if isinstance(step, TileLet) and step.out in self.layout.slots:
                value = to_float(self.printer.values[step.out])
                body.append(f"store({self._at(step.out)}, {value.text});")
        key = ["const int32_t k = keys.index[j];"] if _mentions(body, "k") else []
        loop = ["for (int j = 0; j < keys.count; ++j) {", *_indent([*key, *body]), "}"]
        return [*_hoisted(self.printer), *before, *loop]

    def _at(self, name: str) -> str:
        return f"ws.tile[{self.layout.slots[name]}][j] + v"

    def _mutable(self, name: str, sweep: Sweep) -> str:
        return "" if any(isinstance(s, Mask) and s.out == name for s in sweep.steps) else "const "

    def _step(self, step: SweepStep) -> list[str]:
        ident = self.printer.names.ident
        values = self.printer.values
        match step:
            case TileLet(out, body):
                value = self.printer.hoist(self.printer.print(body), Level.TILE)
                text = as_lanes(value, value.kind)
                made = Value(ident[out], value.kind, Level.TILE, lo=value.lo, hi=value.hi)
                values[out] = made
                return [
                    f"vf {ident[out]} = {text};"
                    if made.ctype == "vf"
                    else f"{made.ctype} {ident[out]} = {text};"
                ]
            case Mask(out, fill):
                lines = [
                    f"{ident[out]} = load(ws.keep[j] + v) ? {ident[out]} : {as_lanes(literal(fill), Kind.FLOAT)};"
                ]
                if out in self.layout.slots:
                    lines.append(f"store({self._at(out)}, {ident[out]});")
                return ["if constexpr (MASKED) {", *_indent(lines), "}"]
            case RowReduce(out, op, source):
                return [_combine(ident[out], op, values[source], source in self.fast)]
            case Round(out, source):
                value = to_float(values[source])
                return [f"store({self._at(out)}, round_to({value.text}, (const element*)nullptr));"]

    def _start(self, step: RowReduce) -> str:
        name = self.printer.names.ident[step.out]
        logical = step.op in ("any", "all")
        if step.op not in _COMBINE:
            raise UnsupportedError(f"the CPU backend has no {step.op} over the keys of a tile")
        self.printer.values[step.out] = Value(name, Kind.BOOL if logical else Kind.FLOAT, Level.ROW)
        if logical:
            return f"vi {name} = {'vi{}' if step.op == 'any' else 'splat<vi>(-1)'};"
        return f"vf {name} = {as_lanes(literal(float(REDUCERS[step.op].identity)), Kind.FLOAT)};"


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


def _finish(tile: TileProgram, names: Names) -> list[str]:
    printer = _printer(names)
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
    lines = _vector_loop(printer, "panel.vectors", body) if body else []
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
