"""Print how the sides of contractions get to memory: columns of a panel for queries, rows of fp32 for keys.

    Operand("Q", "q", "d", Q[b, h, q, d])
->
    load_rows(args.Q.data + b * args.Q.stride[0] + h * args.Q.stride[1], args.Q.stride[2], args.Q.stride[3], ...)

    Operand("one_hot", "k", "j", where(span[b, k] == j, 1.0, 0.0))
->
    for (int v = 0; v < WIDTH_J; v += LANES) {
        const vi j_ = features(v, WIDTH_J);
        for (int j = 0; j < ws.all.count; ++j) {
            const int32_t k = ws.all.index[j];
            store(ws.one_hot_rows[j] + v, args.span.data[...] == j_ ? ... : ...);
        }
    }

A plain load of floats is pointed at where it lies, or converted; anything else is computed, with a lane for each
query, or for each feature of a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attngen.emit.cpp_expr import Names, Printer, as_lanes, feature_index, position
from attngen.emit.cpp_panel import (
    block,
    declared,
    feature_loop,
    hoisted,
    indent,
    key_sources,
    panel_printer,
    vector_loop,
)
from attngen.emit.cpp_value import Level
from attngen.emit.spec import KernelSpec
from attngen.emit.tile import Dot, Operand
from attngen.lang.expr import Expr, Load, Var, free_vars
from attngen.lang.ops import Kind

# Element types that `convert_row` reads.
CONVERTED = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class OperandText:
    """What a kernel says about its operands.

    columns  fields of a panel: name and width of each q-operand.
    load     what fills them.
    rows     k-operands by name; `padded` those that contractions read in whole groups of keys.
    buffers  where rows of keys go that cannot be read in place: name and width.
    point    what lists the rows of `ws.all`.
    plain    whether some q-operand and some k-operand are plain loads.
    """

    columns: tuple[tuple[str, str], ...]
    load: str
    rows: tuple[str, ...]
    padded: tuple[str, ...]
    buffers: tuple[tuple[str, str], ...]
    point: str
    plain: tuple[bool, bool]

    @property
    def body(self) -> str:
        """All of it, for finding what it calls."""
        widths = [width for _, width in (*self.columns, *self.buffers)]
        return "\n".join((self.load, self.point, *widths))


@dataclass(frozen=True, slots=True)
class PlainRows:
    """A plain load: its tensor, and which of its axes are the row and the feature."""

    load: Load
    row: int
    feature: int


def plain_rows(names: Names, operand: Operand) -> PlainRows | None:
    """An operand as rows of a tensor of floats, None if it has to be computed."""
    match operand.body:
        case Load(tensor, indices) as load if tensor in names.tensors:
            if names.tensors[tensor].torch_dtype not in CONVERTED:
                return None
            row, feature = Var(operand.row), Var(operand.feature)
            rest = [i for i in indices if i not in (row, feature)]
            inner = {"q", "k", operand.feature}
            if (
                indices.count(row) != 1
                or indices.count(feature) != 1
                or any(inner & free_vars(i) for i in rest)
            ):
                return None
            return PlainRows(load, indices.index(row), indices.index(feature))
        case _:
            return None


def rounding(spec: KernelSpec, names: Names) -> dict[str, str]:
    """The dtypes below fp32 of the k-operands that have one: what multiplies them is rounded to it first."""
    out: dict[str, str] = {}
    for operand in spec.tile.operands:
        plain = plain_rows(names, operand)
        if operand.row == "k" and plain is not None:
            dtype = names.tensors[plain.load.tensor].torch_dtype
            out |= {operand.name: dtype} if dtype != "float32" else {}
    return out


def print_operands(spec: KernelSpec, names: Names, *, boxes: bool) -> OperandText:
    """The text for the operands of a kernel; the rows of a tile of boxes are listed, of any other consecutive."""
    tile = spec.tile
    queries = [o for o in tile.operands if o.row == "q"]
    keys = [o for o in tile.operands if o.row == "k"]
    right = {s.right for s in tile.steps if isinstance(s, Dot)}
    ident = names.ident
    return OperandText(
        columns=tuple((ident[o.name], names.features[o.feature].width) for o in queries),
        load="\n".join(_load(spec, names, queries)),
        rows=tuple(ident[o.name] for o in keys),
        padded=tuple(ident[o.name] for o in keys if o.name in right),
        buffers=tuple((ident[o.name], _buffer(names, o)) for o in keys),
        point="\n".join(_point(spec, names, keys, "ws.all" if boxes else "first, count")),
        plain=(any(plain_rows(names, o) for o in queries), any(plain_rows(names, o) for o in keys)),
    )


def _buffer(names: Names, operand: Operand) -> str:
    """The length of a row; computed rows are written in whole vectors."""
    width = names.features[operand.feature].width
    return width if plain_rows(names, operand) else f"({width} + LANES - 1) / LANES * LANES"


def _base(printer: Printer, plain: PlainRows) -> str:
    """The address of a tensor's first row and feature, and the strides of the two."""
    name = f"args.{printer.names.ident[plain.load.tensor]}"
    terms = [f"{name}.data"]
    for axis, index in _outer(plain):
        at = printer.index(plain.load.tensor, axis, index)
        terms.append(printer.times(at, f"{name}.stride[{axis}]"))
    return f"{' + '.join(terms)}, {name}.stride[{plain.row}], {name}.stride[{plain.feature}]"


def _outer(plain: PlainRows) -> Iterator[tuple[int, Expr]]:
    for axis, index in enumerate(plain.load.indices):
        if axis not in (plain.row, plain.feature):
            yield axis, index


def _load(spec: KernelSpec, names: Names, operands: list[Operand]) -> list[str]:
    """The body of `load_queries`."""
    printer = panel_printer(spec, names)
    calls: list[str] = []
    loops: list[str] = []
    for operand in operands:
        target = f"panel.{names.ident[operand.name]}"
        plain = plain_rows(names, operand)
        if plain is not None:
            calls.append(f"load_rows({_base(printer, plain)}, panel, {target});")
        else:
            loops += block("", _columns(spec, names, operand, target))
    return [*printer.head(), *calls, *loops]


def _columns(spec: KernelSpec, names: Names, operand: Operand, target: str) -> list[str]:
    """Fills the columns of a computed operand."""
    printer = panel_printer(spec, names)
    at = names.features[operand.feature]
    printer.variables[operand.feature] = feature_index(at, Level.KEY)
    value = as_lanes(printer.hoist(printer.print(operand.body), Level.TILE), Kind.FLOAT)
    loop = feature_loop(printer, operand.feature, [f"store({target}[{at.index}] + v, {value});"])
    return vector_loop(spec, printer, [*hoisted(printer), *loop])


def _point(spec: KernelSpec, names: Names, operands: list[Operand], keys: str) -> list[str]:
    """What lists the rows of the keys in `ws.all`."""
    variables = {"b": position("b", Level.HEAD), "h": position("h", Level.HEAD)}
    printer = Printer(names, variables)
    calls: list[str] = []
    loops: list[str] = []
    for operand in operands:
        name = names.ident[operand.name]
        plain = plain_rows(names, operand)
        if plain is not None:
            calls.append(f"point_rows({_base(printer, plain)}, {keys}, ws.{name}_rows, ws.all.{name}_row);")
        else:
            loops += block("", _rows(spec, names, operand))
    return [*printer.head(), *calls, *loops]


def _rows(spec: KernelSpec, names: Names, operand: Operand) -> list[str]:
    """Fills the rows of a computed operand: a lane a feature, so that what only depends on it leaves the loop."""
    printer = panel_printer(spec, names)
    at, name = names.features[operand.feature], names.ident[operand.name]
    del printer.variables["q"]
    printer.variables[operand.feature] = feature_index(at, Level.ROW)
    value = as_lanes(printer.hoist(printer.print(operand.body), Level.TILE), Kind.FLOAT)
    body = [f"store(ws.{name}_rows[j] + v, {value});"]
    each_key = "for (int j = 0; j < ws.all.count; ++j)"
    loop = block(each_key, [*declared(key_sources(spec, "ws.all"), body, "int32_t"), *body])
    rows = hoisted(printer)
    feature = declared({at.index: f"features(v, {at.width})"}, [*rows, *loop], "vi")
    return [
        *printer.head(),
        f"for (int v = 0; v < {at.width}; v += LANES) {{",
        *indent([*feature, *rows, *loop]),
        "}",
        f"{each_key} ws.all.{name}_row[j] = ws.{name}_rows[j];",
    ]
