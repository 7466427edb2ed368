"""The identity of our own code, for cache entries that it computes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from attngen.resources import data_dir

_DATA = ("ir", "templates")
_SOURCES = (".py", ".jinja", ".attn")


@cache
def fingerprint(*rooms: str) -> str:
    """SHA-256 over the sources of rooms of the package, and of "templates" and "ir", by content.

    A key that holds `fingerprint("lang", "algebra")` changes when a file of those rooms does, so what one
    version derived is never read by another. Reads each file once a process, a few milliseconds in all.
    Raises ValueError for a room that does not exist.
    """
    return hashlib.sha256("".join(_of_room(room) for room in rooms).encode()).hexdigest()


@cache
def _of_room(room: str) -> str:
    root = str(data_dir(room) if room in _DATA else Path(__file__).resolve().parent.parent / room)
    paths = sorted(_files(root)) if os.path.isdir(root) else []  # noqa: PTH112 - pathlib is slow at start
    if not paths:
        raise ValueError(f"attngen has no room {room!r}")
    state = hashlib.sha256()
    for path in paths:
        data = _read(path)
        state.update(f"{room}{path[len(root) :].replace(os.sep, '/')}\0{len(data)}\0".encode())
        state.update(data)
    return state.hexdigest()


def _files(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(_SOURCES):
                yield entry.path
            elif entry.is_dir() and entry.name != "__pycache__":
                yield from _files(entry.path)


def _read(path: str) -> bytes:
    """The bytes of a file, without the buffers and codecs that `open` sets up for each."""
    handle = os.open(path, os.O_RDONLY)
    try:
        parts: list[bytes] = []
        while part := os.read(handle, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(handle)
