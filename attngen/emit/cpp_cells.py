"""Print the steps that go over a feature for every pair: reductions over it, and accumulators filled column by column.

    S[q, k] = sum[i](w[i] * tanh(X[b, k, i] + Y[b, q, i]))
->
    vf S = splat<vf>(0.0f);
    for (int i = 0; i < WIDTH_I; ++i)
        S += args.w.data[i * args.w.stride[0]] * vtanh(keys.X_row[j][i] + load(panel.Y[i] + n * LANES));

What varies with the feature and the row, or with the feature and the key, becomes an operand like those of
contractions: in fp32, computed once a panel or once a key tile, and next to what is read after it. What does not vary
with the feature is computed before the loop.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace

from attngen.emit.contract import Operands
from attngen.emit.cpp_combine import combine, first, kind_of
from attngen.emit.cpp_expr import Names, Printer, as_lanes, feature_index, float_value, kernel_names
from attngen.emit.cpp_panel import feature_loop, panel_printer
from attngen.emit.cpp_value import Level, Prec, Value, to_float
from attngen.emit.spec import KernelSpec
from attngen.emit.tile import AccEach, Operand, TileProgram, TileReduce
from attngen.errors import UnsupportedError
from attngen.lang.expr import Expr, children, free_vars, loads
from attngen.lang.ops import Kind


def with_operands(spec: KernelSpec) -> KernelSpec:
    """`spec` with the operands that its loops over a feature read. Other kernels stay as they are."""
    columns = {c.name: c.feature for c in spec.tile.carried}
    bodies = [(s.feature, s.body) for s in spec.tile.steps if isinstance(s, TileReduce)]
    bodies += [(columns[s.acc], s.body) for s in spec.tile.steps if isinstance(s, AccEach)]
    if not bodies:
        return spec
    names = kernel_names(spec)
    operands = Operands({"Q", "K", "V", *names.ident}, list(spec.tile.operands))
    for feature, body in bodies:
        for row, part in _sides(spec, names, feature, body):
            operands.add(row, feature, part)
    return replace(spec, tile=replace(spec.tile, operands=tuple(operands.made)))


def _sides(spec: KernelSpec, names: Names, feature: str, body: Expr) -> Iterator[tuple[str, Expr]]:
    """The largest parts of a body that vary with the feature and one side of a pair, and read inputs alone."""
    free = free_vars(body)
    if feature not in free:
        return
    sides = free & {"q", "k"}
    given = names.tensors.keys() | names.uniforms
    if len(sides) == 1 and all(load.tensor in given for load in loads(body)):
        printer = panel_printer(spec, names)
        printer.variables[feature] = feature_index(names.features[feature], Level.COLUMN)
        if printer.print(body).kind is Kind.FLOAT:
            yield next(iter(sides)), body
            return
    for part in children(body):
        yield from _sides(spec, names, feature, part)


@contextmanager
def _feature(printer: Printer, tile: TileProgram, feature: str) -> Generator[None]:
    """The feature and what operands hold of it, in scope."""
    printer.variables[feature] = feature_index(printer.names.features[feature], Level.COLUMN)
    printer.cells = {
        o.body: _cell(printer, o)
        for o in tile.operands
        if o.feature == feature and {o.row, feature} <= free_vars(o.body)
    }
    yield
    del printer.variables[feature]
    printer.cells = {}


def _cell(printer: Printer, operand: Operand) -> Value:
    """What an operand holds, in a loop over its feature."""
    name, index = printer.names.ident[operand.name], printer.names.features[operand.feature].index
    if operand.row == "k":
        return float_value(f"keys.{name}_row[j][{index}]", Level.COLUMN)
    return float_value(f"load(panel.{name}[{index}] + n * LANES)", Level.CELL)


def print_reduce(printer: Printer, tile: TileProgram, step: TileReduce) -> list[str]:
    """Declares a tile value, and reduces into it."""
    kind = kind_of(step.op, f"{step.feature} for a pair")
    out = printer.names.ident[step.out]
    with _feature(printer, tile, step.feature):
        value = printer.hoist(printer.print(step.body), Level.CELL)
    printer.values[step.out] = Value(out, kind, Level.TILE, lo=0, hi=1)
    loop = feature_loop(printer, step.feature, [combine(out, step.op, value)])
    return [*_pairs(printer), f"{printer.values[step.out].ctype} {out} = {first(step.op)};", *loop]


def print_each(
    printer: Printer, tile: TileProgram, step: AccEach, feature: str, *, masked: bool
) -> list[str]:
    """Takes one key into every column of an accumulator; with `masked`, in the lanes of `kept`."""
    if kind_of(step.op, "the keys of a column") is not Kind.FLOAT:
        raise UnsupportedError(f"the CPU backend accumulates no {step.op} of columns")
    acc, place = printer.names.ident[step.acc], column(printer, step.acc, feature)
    with _feature(printer, tile, feature):
        value = to_float(printer.hoist(printer.print(step.body), Level.CELL))
    if masked:
        lanes = replace(
            value, text=as_lanes(value, Kind.FLOAT), prec=value.prec if value.lanes else Prec.ATOM
        )
        text = f"kept ? {lanes.at(Prec.OR)} : {first(step.op)}"
        value = Value(text, Kind.FLOAT, Level.CELL, Prec.TERNARY)
    body = [f"vf {acc} = load({place});", combine(acc, step.op, value), f"store({place}, {acc});"]
    return [*_pairs(printer), *feature_loop(printer, feature, body)]


def column(printer: Printer, acc: str, feature: str) -> str:
    """Where a vector of an accumulator's column is, in a loop over its feature."""
    index = printer.names.features[feature].index
    return f"panel.{printer.names.ident[acc]}[{index}] + n * LANES"


def _pairs(printer: Printer) -> list[str]:
    return [f"const {value.ctype} {name} = {value.text};" for name, value in printer.drain_pairs()]
