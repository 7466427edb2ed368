"""Print, in C++, where the tokens of a tile lie if tiles are boxes of coordinates: tilings, extents, key runs.

    tokens = grid(y, x), queries 8 x 16
->
    tiles[0] = (extent_y + 7) / 8;  tiles[1] = (size_x + 15) / 16;
    box.stride[0] = size_x;  box.stride[1] = 1;  ...
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.emit.cpp_expr import Names, Printer, kernel_names, position
from attngen.emit.cpp_value import Level, Value, to_int
from attngen.emit.spec import KernelSpec
from attngen.errors import InternalError
from attngen.lang.expr import Expr, Var, walk
from attngen.lang.ops import Kind
from attngen.planner.layout import Boxes, Layout, box_name, hi_name, lo_name, origin_name
from attngen.planner.plan import BoxPlan

_SCALAR = Value("", Kind.INT, Level.HEAD)


@dataclass(frozen=True, slots=True)
class BoxText:
    """The printed parts of `cpu/boxes.jinja`, and the names of the tiled axes in order."""

    axes: list[str]
    box_q: list[int]
    box_k: list[int]
    origin: list[int]
    query_tiles: str
    key_tiles: str
    query_space: str
    key_space: str
    lets: str
    runs: list[dict[str, str]]

    @property
    def body(self) -> str:
        """All of it, for finding the helpers it calls."""
        return "\n".join((self.query_tiles, self.key_tiles, self.query_space, self.key_space, self.lets))


def print_boxes(spec: KernelSpec) -> BoxText | None:
    """The text for a plan of boxes, None for any other. Raises InternalError if no shapes were chosen."""
    plan, boxes = spec.plan.boxes, spec.boxes
    if plan is None:
        return None
    if boxes is None:
        raise InternalError("a kernel of boxes needs their shapes")
    names = kernel_names(spec)
    lets, runs = _lets(spec, plan, boxes, names)
    return BoxText(
        axes=[a.name for a in plan.q.axes],
        box_q=[s.q for s in boxes.shapes],
        box_k=[s.k for s in boxes.shapes],
        origin=[s.origin for s in boxes.shapes],
        query_tiles=_tiles(plan.q, boxes, names),
        key_tiles=_tiles(plan.k, boxes, names),
        query_space=_query_space(plan.q, names),
        key_space=_key_space(plan.k, names),
        lets=lets,
        runs=runs,
    )


def _printer(names: Names) -> Printer:
    return Printer(names, {"b": position("b", Level.HEAD), "h": position("h", Level.HEAD)})


def _text(printer: Printer, expr: Expr) -> str:
    return to_int(printer.print(expr)).text


def _tiles(layout: Layout, boxes: Boxes, names: Names) -> str:
    printer = _printer(names)
    lines: list[str] = []
    numbers = boxes.numbers()
    for i, axis in enumerate(layout.axes):
        box = numbers[box_name(layout.rank, axis.name)]
        extra = numbers[origin_name(axis.name)] + box - 1
        most = _text(printer, axis.most)
        lines.append(f"tiles[{i}] = (int64_t({most}) + {extra}) / {box};")
    return "\n".join([*printer.head(), *lines])


def _query_space(layout: Layout, names: Names) -> str:
    """Strides, lowest coordinates and extents; a residue class is known by then, as an index."""
    printer = _printer(names)
    lines: list[str] = []
    for i, axis in enumerate(layout.axes):
        lines.append(f"box.stride[{i}] = {_text(printer, axis.stride)};")
        lines.append(f"low[{i}] = {_text(printer, axis.low)};")
        lines.append(f"extent[{i}] = {_text(printer, axis.extent)};")
        if axis.group:
            printer.variables[axis.name] = _SCALAR.named(f"index[{i}]")
    lines.append(f"box.shift = {_text(printer, layout.shift)};")
    return "\n".join([*printer.head(), *lines])


def _key_space(layout: Layout, names: Names) -> str:
    printer = _printer(names)
    lines: list[str] = []
    for i, axis in enumerate(layout.axes):
        lines.append(f"box.stride[{i}] = {_text(printer, axis.stride)};")
        if axis.group:
            lines.append(f"box.at[{i}] = queries.at[{i}];")
            lines.append(f"box.end[{i}] = queries.at[{i}] + 1;")
            printer.variables[axis.name] = _SCALAR.named(f"queries.at[{i}]")
        else:
            lines.append(f"box.at[{i}] = 0;")
            lines.append(f"box.end[{i}] = {_text(printer, axis.extent)};")
    lines.append(f"box.shift = {_text(printer, layout.shift)};")
    return "\n".join([*printer.head(), *lines])


def _lets(spec: KernelSpec, plan: BoxPlan, boxes: Boxes, names: Names) -> tuple[str, list[dict[str, str]]]:
    """The plan's lets as 64-bit scalars, and the run of each axis in their names."""
    if not plan.runs:
        return "", []
    printer = _printer(names)
    for name, number in boxes.numbers().items():
        printer.variables[name] = _SCALAR.named(str(number))
    for i, axis in enumerate(plan.q.axes):
        if axis.group:
            printer.variables[axis.name] = _SCALAR.named(f"queries.at[{i}]")
        printer.variables[lo_name(axis.name)] = _SCALAR.named(f"q_lo[{i}]")
        printer.variables[hi_name(axis.name)] = _SCALAR.named(f"q_hi[{i}]")
    fields = ("start", "full_start", "full_end", "end", "lo", "hi")
    needed = {getattr(r, f) for r in plan.runs for f in fields}
    for name, body in reversed(spec.lets):
        if name in needed:
            needed |= {node.name for node in walk(body) if isinstance(node, Var)}
    lines: list[str] = []
    for name, body in spec.lets:
        if name in needed:
            lines.append(f"const int64_t {names.ident[name]} = {_text(printer, body)};")
            printer.variables[name] = _SCALAR.named(names.ident[name])
    runs = [{f: printer.variables[getattr(r, f)].text for f in fields} for r in plan.runs]
    return "\n".join([*printer.head(), *lines]), runs


def coordinates_of(
    spec: KernelSpec, q: str, k: str
) -> tuple[dict[tuple[str, str], Value], dict[tuple[str, str], Expr], dict[str, str]]:
    """How expressions of a tile read coordinates: as values, by what they are made of, and where each value comes from.

    `q` and `k` are templates of a coordinate's name, with `{}` for its axis. The last mapping gives, for the name of
    a coordinate, the place in a panel (`at[i]`) or in a list of keys that holds it.
    """
    plan = spec.plan.boxes
    values: dict[tuple[str, str], Value] = {}
    made: dict[tuple[str, str], Expr] = {}
    places: dict[str, str] = {}
    if plan is None:
        return values, made, places
    for layout, template, level in ((plan.q, q, Level.ROW), (plan.k, k, Level.KEY)):
        for i, axis in enumerate(layout.axes):
            text = template.format(axis.name)
            values[layout.rank, axis.name] = position(text, level)
            places[text] = f"at[{i}]"
        for name, expr in layout.coordinates:
            if name and (layout.rank, name) not in values:
                made[layout.rank, name] = expr
    return values, made, places
