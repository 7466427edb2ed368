"""Tables of pinned configurations: read, never measured, so that a run is the same wherever it happens.

A table is JSON: {"format": 1, "entries": [{"key": {...}, "config": {...}}, ...]}. `attngen tune --export FILE` writes
one from what was measured; `ATTNGEN_TUNE=pinned:FILE` reads it, `ATTNGEN_TUNE=pinned` the one that ships.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from attngen.emit.configs import Config, config_from_json, config_to_json
from attngen.errors import TuningTableError, UnkeyableError
from attngen.store.key import digest

FORMAT = 1
SHIPPED = Path(__file__).resolve().parent / "shipped.json"
# A table serves machines with other thread counts and programs under other names.
_FREE = ("threads", "program")

Row = tuple[Mapping[str, object], Config]


def pinned_config(facts: Mapping[str, object], path: Path | None) -> Config | None:
    """The configuration of a table, the shipped one by default; None where it has none. Raises TuningTableError."""
    file = SHIPPED if path is None else path
    try:
        there = file.stat()
    except OSError as error:
        raise TuningTableError(f"the table {file} cannot be read: {error.strerror}") from error
    return _read(file, there.st_mtime_ns, there.st_size).get(_name(facts))


def table_text(rows: Iterable[Row]) -> str:
    """A table as it is written."""
    entries = [{"key": dict(facts), "config": config_to_json(config)} for facts, config in rows]
    return json.dumps({"format": FORMAT, "entries": entries}, indent=1, sort_keys=True) + "\n"


def _name(facts: Mapping[str, object]) -> str:
    return digest({n: v for n, v in facts.items() if n not in _FREE})


@lru_cache(maxsize=8)
def _read(file: Path, _time: int, _size: int) -> dict[str, Config]:
    try:
        held: object = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise TuningTableError(f"the table {file} cannot be read: {error}") from error
    match held:
        case {"format": 1, "entries": list(entries)}:
            pass
        case _:
            raise TuningTableError(
                f"{file} is not a table of configurations of format {FORMAT}",
                hint="`attngen tune PROGRAM --export FILE` writes one",
            )
    out: dict[str, Config] = {}
    for entry in cast("list[object]", entries):
        match entry:
            case {"key": dict(key), "config": dict(config)}:
                facts = cast("dict[str, Any]", key)
                known = (
                    config_from_json(str(facts.get("kind")), cast("dict[str, object]", config))
                    if facts.get("kind") in ("cpu", "triton")
                    else None
                )
            case _:
                raise TuningTableError(f"{file} has an entry without `key` and `config`")
        if known is None:
            raise TuningTableError(
                f"{file} has a configuration that this version does not understand: {config}"
            )
        try:
            out[_name(facts)] = known
        except UnkeyableError as error:
            raise TuningTableError(f"{file} has a key that cannot be one: {error.message}") from error
    return out
