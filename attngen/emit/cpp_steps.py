"""Print what a panel of queries does: begin, absorb a list of keys, finish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from attngen.emit.cpp_cells import column, print_each, print_reduce
from attngen.emit.cpp_combine import combine, first, kind_of
from attngen.emit.cpp_ends import begin, finish
from attngen.emit.cpp_expr import Names, Printer, as_lanes, element_type, feature_index, float_value, literal
from attngen.emit.cpp_panel import (
    block,
    declared,
    feature_loop,
    key_sources,
    mentions,
    panel_printer,
    row_sources,
)
from attngen.emit.cpp_sweeps import Layout, Round, Section, Sweep, SweepStep, names_in, reads
from attngen.emit.cpp_value import Level, Value, to_float
from attngen.emit.spec import KernelSpec
from attngen.emit.tile import (
    AccBins,
    AccDot,
    AccEach,
    AccLet,
    AccTopK,
    Dot,
    Mask,
    RowLet,
    RowReduce,
    StoreBlock,
    StorePair,
    TileLet,
    TileProgram,
    TileReduce,
)
from attngen.errors import UnsupportedError
from attngen.lang.ops import Kind


@dataclass(frozen=True, slots=True)
class PanelText:
    """The bodies of a panel's three functions, and what the panel has to hold: accumulators with their widths."""

    begin: str
    absorb: str
    finish: str
    accumulators: tuple[tuple[str, str], ...]
    row_values: tuple[str, ...]

    @property
    def body(self) -> str:
        """All of it, for finding what it calls."""
        return "\n".join((self.begin, self.absorb, self.finish, *(width for _, width in self.accumulators)))


def print_panel(spec: KernelSpec, layout: Layout, names: Names) -> PanelText:
    """The text of a panel. Raises UnsupportedError for a reduction that has no lane form."""
    tile = spec.tile
    carried_rows = [c.name for c in tile.carried if c.space == "row"]
    accs = {c.name: c.feature for c in tile.carried if c.space == "acc"}
    accs |= {f.out: f.feature for f in tile.finish if f.space == "acc"}
    output_rows = [o.source for o in tile.outputs if o.space == "row"]
    rows = dict.fromkeys((*carried_rows, *layout.kept, *output_rows))
    return PanelText(
        begin="\n".join(begin(spec, names)),
        absorb="\n".join(_absorb(spec, layout, names)),
        finish="\n".join(finish(spec, names)),
        accumulators=tuple((names.ident[n], names.features[f].width) for n, f in accs.items()),
        row_values=tuple(names.ident[n] for n in rows),
    )


def _absorb(spec: KernelSpec, layout: Layout, names: Names) -> list[str]:
    lines: list[str] = []
    tile = spec.tile
    ident = names.ident
    printer = panel_printer(spec, names, "[n]")
    sections = _SectionPrinter(
        printer,
        layout,
        spec,
        {c.name for c in tile.carried if c.space == "row"},
        {c.name: c.feature for c in tile.carried if c.space == "acc"},
        _shown_by_sums(tile),
    )
    for part in layout.parts:
        match part:
            case Dot(out, left, right):
                at = f"dot_qk<N, {names.features[tile.operand(left).feature].width}>"
                columns, rows = f"panel.{ident[left]}", f"keys.{ident[right]}_row"
                lines.append(f"{at}(ws.tile[{layout.slots[out]}], {columns}, {rows}, keys.count);")
            case AccDot(acc, source, rescale, value):
                scale = f"panel.{ident[rescale]}" if rescale else "nullptr"
                at = f"dot_pv<N, {names.features[tile.operand(value).feature].width}>"
                terms = f"ws.tile[{layout.slots[source]}], keys.{ident[value]}_row"
                lines.append(f"{at}(panel.{ident[acc]}, {terms}, keys.count, {scale});")
            case Section():
                lines += block("", sections.print(part))
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
    spec: KernelSpec
    carried: set[str]
    accs: Mapping[str, str]
    fast: frozenset[str]
    arrays: dict[str, str] = field(default_factory=dict[str, str])
    blocks: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

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
            elif isinstance(item, AccLet):
                pending += self._acc_let(item)
            else:
                lines += self._sweep(item, pending)
                pending = []
        for name in dict.fromkeys((*sorted(self.carried), *self.layout.kept)):
            if name in made:
                value = to_float(self.printer.values[name])
                pending.append(f"store(panel.{ident[name]} + n * LANES, {value.text});")
        lines += _each_vector(pending)
        read = {name: source for name, source in row_sources(self.spec).items() if mentions(lines, name)}
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

    def _acc_let(self, let: AccLet) -> list[str]:
        """A loop over the features of accumulators, which are read as they are now."""
        ident = self.printer.names.ident
        feature = self.accs[let.acc]
        at = self.printer.names.features[feature]
        read = [name for name in dict.fromkeys(names_in(let.body)) if name in self.accs]
        lines = [f"const vf {ident[n]} = load(panel.{ident[n]}[{at.index}] + n * LANES);" for n in read]
        self.printer.values.update((n, float_value(ident[n], Level.TILE)) for n in read)
        self.printer.variables[feature] = feature_index(at, Level.KEY)
        value = self.printer.hoist(self.printer.print(let.body), Level.TILE)
        lines.append(f"store(panel.{ident[let.acc]}[{at.index}] + n * LANES, {as_lanes(value, Kind.FLOAT)});")
        del self.printer.variables[feature]
        return [*self._hoisted(), *feature_loop(self.printer, feature, lines)]

    def _hoisted(self) -> list[str]:
        rows = self.printer.drain_rows()
        self.arrays.update((name, value.ctype) for name, value in rows)
        return [f"{name}[n] = {value.text};" for name, value in rows]

    def _sweep(self, sweep: Sweep, pending: list[str]) -> list[str]:
        ident = self.printer.names.ident
        before: list[str] = []
        body: list[str] = []
        here: set[str] = set()
        masked = self.spec.keep is not None
        if any(
            isinstance(s, StorePair | StoreBlock) or (masked and isinstance(s, AccEach)) for s in sweep.steps
        ):
            body.append(f"const vi kept = {self._kept()};")
        for step in sweep.steps:
            for name in reads(step):
                if name in self.layout.slots and name not in here:
                    here.add(name)
                    body.append(f"{_mutable(name, sweep)}vf {ident[name]} = load({self._at(name)});")
                    self.printer.values[name] = float_value(ident[name], Level.TILE)
            before += self._before(step)
            body += self._step(step, sweep)
            if isinstance(step, TileLet | TileReduce):
                here.add(step.out)
        for step in sweep.steps:
            if isinstance(step, TileLet | TileReduce) and step.out in self.layout.slots:
                value = to_float(self.printer.values[step.out])
                body.append(f"store({self._at(step.out)}, {value.text});")
        ends = _block_ends(sweep)
        key = declared(key_sources(self.spec, "keys"), [*ends, *body], "int32_t")
        return [
            *_each_vector([*pending, *self._hoisted(), *before]),
            *block("for (int j = 0; j < keys.count; ++j)", [*key, *ends, *_each_vector(body)]),
        ]

    def _kept(self) -> str:
        """Which lanes keep the pair of this key; a kernel without a mask keeps every pair."""
        every = "splat<vi>(-1)"
        return every if self.spec.keep is None else f"MASKED ? load(ws.keep[j] + n * LANES) : {every}"

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
            case TileReduce():
                return print_reduce(self.printer, self.spec.tile, step)
            case Mask():
                return self._mask(step, sweep)
            case RowReduce(out, op, source):
                return [combine(f"{ident[out]}[n]", op, values[source], fast=source in self.fast)]
            case Round(_, source, dtype):
                ctype = "element" if dtype == self.spec.dtype else element_type(dtype)
                rounded = f"round_to({to_float(values[source]).text}, (const {ctype}*)nullptr)"
                return [f"store({self._at(step.out)}, {rounded});"]
            case AccBins(acc, source, _, index):
                at = as_lanes(values[index], values[index].kind)
                return [f"add_to_bins(panel.{ident[acc]}, n * LANES, {at}, {self._lanes(source)});"]
            case AccTopK(acc, index, source):
                into = f"panel.{ident[acc]}, panel.{ident[index]}, n * LANES"
                return [f"insert_top({into}, {self._lanes(source)}, splat<vf>(float(k)));"]
            case AccEach(acc):
                masked = self.spec.keep is not None
                return print_each(self.printer, self.spec.tile, step, self.accs[acc], masked=masked)
            case StorePair(name, source):
                return [f"{self._store_column(name, 'k', self._lanes(source), 'kept')};"]
            case StoreBlock():
                return self._store_block(step)

    def _lanes(self, name: str) -> str:
        """A tile value as fp32 lanes."""
        return as_lanes(self.printer.values[name], Kind.FLOAT)

    def _mask(self, step: Mask, sweep: Sweep) -> list[str]:
        name = self.printer.names.ident[step.out]
        value = self.printer.values[step.out]
        fill = literal(_AS_KIND[value.kind](step.fill))
        if value.kind is Kind.INT:
            value = replace(value, lo=min(value.lo, fill.lo), hi=max(value.hi, fill.hi))
            self.printer.values[step.out] = value
        keep = "widen(load(ws.keep[j] + n * LANES))" if value.wide else "load(ws.keep[j] + n * LANES)"
        lines = [f"{name} = {keep} ? {name} : {as_lanes(fill, value.kind)};"]
        made_here = any(isinstance(s, TileLet | TileReduce) and s.out == step.out for s in sweep.steps)
        if step.out in self.layout.slots and not made_here:  # or else it is stored at the end of the sweep
            lines.append(f"store({self._at(step.out)}, {name});")
        return block("if constexpr (MASKED)", lines)

    def _store_column(self, name: str, column: str, value: str, where: str) -> str:
        out = f"args.{self.printer.names.ident[name]}"
        return f"store_column({out}, b, h, panel, n * LANES, {column}, {value}, {where})"

    def _store_block(self, step: StoreBlock) -> list[str]:
        """Blocks are consecutive runs of the listed keys; one is stored at its last key."""
        total, seen = self._block(step)
        store = self._store_column(step.name, f"k / {step.width}", total, seen)
        return [
            combine(total, step.op, self.printer.values[step.source]),
            f"{seen} |= kept;",
            *block(
                f"if (closes_{step.width})",
                [f"{store};", f"{total} = {first(step.op)};", f"{seen} = vi{{}};"],
            ),
        ]

    def _block(self, step: StoreBlock) -> tuple[str, str]:
        """The total of the open block, and which lanes keep a pair of it."""
        if step.name not in self.blocks:
            name = self.printer.names.ident[step.name]
            made = (self.printer.fresh(None, f"{name}_{stem}") for stem in ("block", "seen"))
            self.blocks[step.name] = tuple(made)
        total, seen = self.blocks[step.name]
        return f"{total}[n]", f"{seen}[n]"

    def _before(self, step: SweepStep) -> list[str]:
        """What a step needs done before the loop over the keys."""
        match step:
            case RowReduce():
                return [self._start(step)]
            case AccBins(acc, rescale=str(rescale)):
                return self._rescale(acc, rescale, "*")
            case AccEach(acc, rescale=str(rescale)):
                return self._rescale(acc, rescale, "*" if step.combine == "mul" else "+")
            case StoreBlock(_, op, _, _):
                if kind_of(op, "blocks of keys") is not Kind.FLOAT:
                    raise UnsupportedError(f"the CPU backend stores no {op} over blocks of keys")
                total, seen = self._block(step)
                self.arrays |= {total.removesuffix("[n]"): "vf", seen.removesuffix("[n]"): "vi"}
                return [f"{total} = {first(op)};", f"{seen} = vi{{}};"]
            case _:
                return []

    def _rescale(self, acc: str, rescale: str, symbol: str) -> list[str]:
        feature = self.accs[acc]
        place = column(self.printer, acc, feature)
        scale = to_float(self.printer.values[rescale]).text
        return feature_loop(self.printer, feature, [f"store({place}, load({place}) {symbol} {scale});"])

    def _start(self, step: RowReduce) -> str:
        kind = kind_of(step.op, "the keys of a tile")
        return f"{self._declare(step.out, kind)} = {first(step.op)};"


def _mutable(name: str, sweep: Sweep) -> str:
    return "" if any(isinstance(s, Mask) and s.out == name for s in sweep.steps) else "const "


def _block_ends(sweep: Sweep) -> list[str]:
    """Whether a key is the last one listed of its block, for the widths of blocks that are stored."""
    widths = dict.fromkeys(s.width for s in sweep.steps if isinstance(s, StoreBlock))
    test = "j + 1 == keys.count || keys.index[j + 1] / {0} != k / {0}"
    return [f"const bool closes_{w} = {test.format(w)};" for w in widths]


def _each_vector(body: list[str]) -> list[str]:
    return block("for (int n = 0; n < N; ++n)", body) if body else []


def _declarations(arrays: Mapping[str, str]) -> list[str]:
    """One declaration a type, of arrays with an element a vector of the panel."""
    types = dict.fromkeys(arrays.values())
    return [f"{t} {', '.join(f'{name}[N]' for name, u in arrays.items() if u == t)};" for t in types]


_AS_KIND: Mapping[Kind, Callable[[float], float | bool]] = {Kind.FLOAT: float, Kind.INT: int, Kind.BOOL: bool}
