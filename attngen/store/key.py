"""Names of cache entries: the SHA-256 of a key's canonical JSON.

A key is built from values whose meaning is their text: strings, numbers, booleans, None, paths of them in
mappings and sequences. Anything else is refused, because the text of an unknown object (an address, a
default repr) would name the wrong entry one day.

    digest({"target": "cpu", "flags": ("-O3",)})
    -> sha256 of  {"flags":["-O3"],"target":"cpu"}
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import cast

from attngen.errors import UnkeyableError


def digest(key: Mapping[str, object]) -> str:
    """64 hex digits that name `key`. Raises UnkeyableError with the path of the first bad value."""
    return hashlib.sha256(canonical_json(key).encode("utf-8", "surrogatepass")).hexdigest()


def canonical_json(key: Mapping[str, object]) -> str:
    """The key as JSON with sorted names and no spaces; equal keys give equal text."""
    return json.dumps(plain(key), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def plain(value: object, where: str = "key") -> object:
    """`value` as the types JSON has.

    Floats are written as hexadecimal text, which is exact and keeps -0.0, inf and nan, and which no
    integer or string of a key can be mistaken for: `1` and `1.0` name different entries.
    """
    match value:
        case Enum():
            raise UnkeyableError(f"{where} is an enum member; put its value or name in the key")
        case None | bool() | int() | str():
            return value
        case float():
            return {"float": "nan" if math.isnan(value) else value.hex()}
        case Mapping():
            return _plain_mapping(cast("Mapping[object, object]", value), where)
        case tuple() | list():
            items = cast("tuple[object, ...] | list[object]", value)
            return [plain(item, f"{where}[{i}]") for i, item in enumerate(items)]
        case _:
            cls = type(value)
            raise UnkeyableError(
                f"{where} is a {cls.__module__}.{cls.__qualname__}, which has no canonical text"
            )


def _plain_mapping(value: Mapping[object, object], where: str) -> dict[str, object]:
    out: dict[str, object] = {}
    for name, item in value.items():
        if not isinstance(name, str):
            raise UnkeyableError(f"{where} has a name that is not a string: {name!r}")
        out[name] = plain(item, f"{where}.{name}")
    return out
