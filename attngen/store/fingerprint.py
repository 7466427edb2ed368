"""The identity of our own code, for cache entries that it computes."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from attngen.resources import data_dir

_DATA = ("ir", "templates")
_SOURCES = (".py", ".jinja", ".attn")


@cache
def fingerprint(*rooms: str) -> str:
    """SHA-256 over the sources of rooms of the package, and of "templates" and "ir", by content.

    A key that holds `fingerprint("lang", "algebra")` changes when a file of those rooms does, so what one
    version derived is never read by another. Reads each file once a process, about a millisecond in all.
    Raises ValueError for a room that does not exist.
    """
    package = Path(__file__).resolve().parent.parent
    state = hashlib.sha256()
    for room in rooms:
        root = data_dir(room) if room in _DATA else package / room
        paths = sorted(path for path in root.rglob("*") if path.suffix in _SOURCES)
        if not paths:
            raise ValueError(f"attngen has no room {room!r}")
        for path in paths:
            data = path.read_bytes()
            state.update(f"{room}/{path.relative_to(root).as_posix()}\0{len(data)}\0".encode())
            state.update(data)
    return state.hexdigest()
