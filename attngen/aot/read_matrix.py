"""Read a file of many programs and what to build of each: `attngen.toml`.

[build]                                    what holds for every program
targets = ["sm_90", "cpu-avx2"]
dtypes = ["bf16"]
head-dims = [64, [192, 128]]               a pair: head dimension, value dimension

[[program]]                                one for each program; what it says goes before [build]
name = "sliding_window_sink"               of the catalogue, or a path to a .attn file
outputs = ["O", "LSE"]
values = { window = 512 }
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from attngen.aot.compile_programs import Order
from attngen.aot.request import Request
from attngen.api import load
from attngen.artefact.manifest import Alignment, Form
from attngen.errors import ParameterError
from attngen.value import value

_CHOICES = ("targets", "dtypes", "head-dims", "forms", "alignments", "packed", "extents", "captured")
_BUILD = (*_CHOICES, "out", "jobs")
_PROGRAM = (*_CHOICES, "name", "outputs", "values")
_MOST_BYTES = 1 << 20


@value
class Matrix:
    """The orders of a file; `out` and `jobs` where it says so."""

    orders: tuple[Order, ...]
    out: Path | None = None
    jobs: int | None = None


def read_matrix(path: Path) -> Matrix:
    """The orders of a file. Raises ParameterError for what it must not say, and what `attngen.load` raises.

    Paths in it count from its own folder.
    """
    table = _parsed(path)
    _only(table, ("build", "program"), str(path))
    build = _table(table.get("build", {}), f"{path}: [build]")
    _only(build, _BUILD, f"{path}: [build]")
    programs = table.get("program", [])
    if not isinstance(programs, list) or not programs:
        raise ParameterError(f"{path} names no programs", hint='add [[program]] with name = "causal"')
    orders = [
        _order(_table(entry, f"{path}: [[program]] {i}"), build, f"{path}: [[program]] {i}", path.parent)
        for i, entry in enumerate(cast("list[object]", programs))
    ]
    out = build.get("out")
    if out is not None and not isinstance(out, str):
        raise ParameterError(f"{path}: [build] out: expected a path, found {out!r}")
    jobs = build.get("jobs")
    if jobs is not None and (type(jobs) is not int or jobs < 1):
        raise ParameterError(f"{path}: [build] jobs: expected a number of at least 1, found {jobs!r}")
    return Matrix(tuple(orders), None if out is None else path.parent / out, jobs)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ParameterError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise ParameterError(f"{path} has more than {_MOST_BYTES} bytes")
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParameterError(f"{path} is not TOML: {error}") from error


def _order(entry: Mapping[str, Any], build: Mapping[str, Any], where: str, folder: Path) -> Order:
    _only(entry, _PROGRAM, where)
    name = entry.get("name")
    if not isinstance(name, str):
        raise ParameterError(f"{where}: name: expected a program's name or a path, found {name!r}")
    program = folder / name if name.endswith(".attn") else name
    values = _table(entry.get("values", {}), f"{where}: values")
    outputs = entry.get("outputs")
    spec = load(
        program,
        None if outputs is None else _texts(outputs, f"{where}: outputs"),
        **{n: tuple(x) if isinstance(x, list) else x for n, x in values.items()},
    )
    return Order(spec, _request({**build, **entry}, where))


def _request(said: Mapping[str, Any], where: str) -> Request:
    usual = Request(())
    return Request(
        targets=_texts(said.get("targets", []), f"{where}: targets"),
        dtypes=_texts(said.get("dtypes", usual.dtypes), f"{where}: dtypes"),
        dims=_dims(said.get("head-dims", [list(d) for d in usual.dims]), f"{where}: head-dims"),
        forms=cast("tuple[Form, ...]", _texts(said.get("forms", usual.forms), f"{where}: forms")),
        alignments=cast(
            "tuple[Alignment, ...]", _texts(said.get("alignments", usual.alignments), f"{where}: alignments")
        ),
        packed=_numbers(said.get("packed", []), f"{where}: packed"),
        extents={
            n: _number(x, f"{where}: extents.{n}") for n, x in _table(said.get("extents", {}), where).items()
        },
        captured={
            n: _text(x, f"{where}: captured.{n}") for n, x in _table(said.get("captured", {}), where).items()
        },
    )


def _only(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in known:
            raise ParameterError(f"{where}: nothing is known of {name!r}", hint=f"known: {', '.join(known)}")


def _table(given: object, where: str) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise ParameterError(f"{where}: expected a table, found {given!r}")
    return cast("dict[str, Any]", given)


def _text(given: object, where: str) -> str:
    if not isinstance(given, str):
        raise ParameterError(f"{where}: expected a text, found {given!r}")
    return given


def _number(given: object, where: str) -> int:
    if type(given) is not int:
        raise ParameterError(f"{where}: expected a whole number, found {given!r}")
    return given


def _list(given: object, where: str) -> list[object]:
    if not isinstance(given, list | tuple):
        raise ParameterError(f"{where}: expected a list, found {given!r}")
    return list(cast("list[object]", given))


def _texts(given: object, where: str) -> tuple[str, ...]:
    return tuple(_text(x, where) for x in _list(given, where))


def _numbers(given: object, where: str) -> tuple[int, ...]:
    return tuple(_number(x, where) for x in _list(given, where))


def _dims(given: object, where: str) -> tuple[tuple[int, int], ...]:
    out: list[tuple[int, int]] = []
    for one in _list(given, where):
        pair = _numbers(one, where) if isinstance(one, list) else (_number(one, where),) * 2
        if len(pair) != 2:
            raise ParameterError(f"{where}: expected a width or a pair of widths, found {one!r}")
        out.append((pair[0], pair[1]))
    return tuple(out)
