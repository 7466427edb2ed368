"""Print what a panel does before its first key and after its last: start values, finish lets, outputs."""

from __future__ import annotations

from collections.abc import Iterator

from attngen.emit.cpp_expr import Names, Printer, as_lanes, feature_index, float_value
from attngen.emit.cpp_panel import feature_loop, hoisted, panel_printer, vector_loop
from attngen.emit.cpp_sweeps import names_in
from attngen.emit.cpp_value import Level
from attngen.emit.spec import KernelSpec
from attngen.emit.tile import FinishLet, TileProgram
from attngen.errors import UnsupportedError
from attngen.lang.expr import Load, Var
from attngen.lang.ops import Kind


def begin(spec: KernelSpec, names: Names) -> list[str]:
    """The body of `begin_panel`: what is carried gets its first value."""
    printer = panel_printer(spec, names)
    body: list[str] = []
    for carried in spec.tile.carried:
        name = names.ident[carried.name]
        if carried.space == "row":
            start = as_lanes(printer.print(carried.init), Kind.FLOAT)
            body.append(f"store(panel.{name} + v, {start});")
        else:
            at = names.features[carried.feature]
            printer.variables[carried.feature] = feature_index(at, Level.KEY)
            value = printer.hoist(printer.print(carried.init), Level.TILE)
            store = f"store(panel.{name}[{at.index}] + v, {as_lanes(value, Kind.FLOAT)});"
            body += [*hoisted(printer), *feature_loop(printer, carried.feature, [store])]
            del printer.variables[carried.feature]
    return vector_loop(spec, printer, body) if body else []


def finish(spec: KernelSpec, names: Names) -> list[str]:
    """The body of `finish_panel`: finish lets, and stores of what is kept until then."""
    printer = panel_printer(spec, names)
    tile = spec.tile
    ident = names.ident
    row_lets = [f for f in tile.finish if f.space == "row"]
    acc_lets = list(_acc_lets(spec))
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
    for feature in dict.fromkeys(f.feature for f in acc_lets):
        body += _finish_accs(tile, feature, [f for f in acc_lets if f.feature == feature], printer)
    return [*(vector_loop(spec, printer, body) if body else []), *_stores(tile, names)]


def _acc_lets(spec: KernelSpec) -> Iterator[FinishLet]:
    """The finish lets of accumulators, and one for each accumulator that is only rounded for an output."""
    tile = spec.tile
    done: set[str] = set()
    for let in tile.finish:
        if let.space == "acc":
            done.add(let.out)
            yield let
    for out in tile.outputs:
        if out.rounded and out.source not in done and spec.dtype != "float32":
            yield FinishLet(out.source, "acc", Load(out.source, (Var("q"), Var(out.feature))), out.feature)


def _finish_accs(tile: TileProgram, feature: str, lets: list[FinishLet], printer: Printer) -> list[str]:
    """All accumulators of one feature in one loop; outputs are rounded to the element type."""
    ident = printer.names.ident
    rounded = _rounded(tile)
    wanted = {n for f in lets for n in names_in(f.body)}
    accs = [c.name for c in tile.carried if c.space == "acc" and c.name in wanted]
    at = printer.names.features[feature]
    printer.variables[feature] = feature_index(at, Level.KEY)
    lines = [f"vf {ident[n]} = load(panel.{ident[n]}[{at.index}] + v);" for n in accs]
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
        lines.append(f"store(panel.{value}[{at.index}] + v, {kept});")
    del printer.variables[feature]
    return [*hoisted(printer), *feature_loop(printer, feature, lines)]


def _rounded(tile: TileProgram) -> set[str]:
    """Accumulators that are outputs in the dtype of the inputs. Raises UnsupportedError if one is in fp32 as well."""
    rounded = {o.source for o in tile.outputs if o.rounded}
    for out in tile.outputs:
        if out.source in rounded and not out.rounded:
            raise UnsupportedError(f"{out.source} is an output both rounded and not")
    return rounded


def _stores(tile: TileProgram, names: Names) -> Iterator[str]:
    functions = {"acc": "store_rows", "row": "store_row_values"}
    for out in tile.outputs:
        if out.space in functions:
            source = names.ident[out.source]
            yield f"{functions[out.space]}(args.{names.ident[out.name]}, b, h, panel, panel.{source});"
