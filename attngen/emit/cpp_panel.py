"""What the functions of a panel share: how they read queries and keys, and their loops over vectors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attngen.emit.cpp_boxes import coordinates_of
from attngen.emit.cpp_expr import Names, Printer, position
from attngen.emit.cpp_value import Level, Value
from attngen.emit.spec import KernelSpec

_INDENT = "    "
_SHORT = 60


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


def declared(sources: Mapping[str, str], body: Iterable[str], ctype: str) -> list[str]:
    """Declarations of those values that the text reads."""
    body = list(body)
    return [f"const {ctype} {name} = {source};" for name, source in sources.items() if mentions(body, name)]


def mentions(lines: Iterable[str], name: str) -> bool:
    """Whether a C++ identifier occurs in the text."""
    pattern = re.compile(rf"(?<![\w.]){re.escape(name)}(?!\w)")
    return any(pattern.search(line) for line in lines)


def indent(lines: Iterable[str]) -> list[str]:
    """The lines, one level in."""
    return [_INDENT + line for line in lines]


def block(head: str, body: Iterable[str]) -> list[str]:
    """`head` with a body in braces."""
    return [f"{head} {{".lstrip(), *indent(body), "}"]


def hoisted(printer: Printer) -> list[str]:
    """Declarations of the row values that the expressions printed since the last call have in common."""
    return [f"const {value.ctype} {name} = {value.text};" for name, value in printer.drain_rows()]


def vector_loop(spec: KernelSpec, printer: Printer, body: list[str]) -> list[str]:
    """`body` for every vector of the panel, under what it needs declared."""
    sources = {name: source.format("v") for name, source in row_sources(spec).items()}
    head = "for (int v = 0; v < panel.vectors * LANES; v += LANES)"
    return [*printer.head(), *block(head, [*declared(sources, body, "vi"), *body])]


def feature_loop(printer: Printer, feature: str, body: list[str]) -> list[str]:
    """`body` for every feature of a rank; one short statement needs no braces."""
    at = printer.names.features[feature]
    head = f"for (int {at.index} = 0; {at.index} < {at.width}; ++{at.index})"
    return [f"{head} {body[0]}"] if len(body) == 1 and len(body[0]) < _SHORT else block(head, body)
