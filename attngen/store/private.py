"""Entries built for one process, where the cache cannot be written: nothing is kept, but every call has its result.

<temporary files>/attngen-private-<random>/<kind>-<digest>/     removed when the process ends

The process holds a `flock` on its directory, so that what a killed one left is told apart, and swept by the next.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attngen.store.upkeep import remove

_PREFIX = "attngen-private-"


class PrivateBuilds:
    """What this process has built for itself. A forked child begins with nothing: its parent may end first."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._root: Path | None = None
        self._built: dict[str, Path] = {}

    def get(self, kind: str, name: str) -> Path | None:
        """The directory of an entry that was built before."""
        if self._pid != os.getpid():
            self._begin()
        path = self._built.get(f"{kind}-{name}")
        return path if path is not None and path.is_dir() else None

    def build(self, kind: str, name: str, build: Callable[[Path], None]) -> Path:
        """Build an entry here, once. Raises OSError, and what the builder raises."""
        self.get(kind, name)  # a forked child takes leave of its parent
        with self._lock:
            known = self.get(kind, name)
            if known is not None:
                return known
            if self._root is None or not self._root.is_dir():
                self._root = _own_directory()
            path = self._root / f"{kind}-{name}"
            remove(path)  # of a builder that failed
            path.mkdir(mode=0o700)
            build(path)
            self._built[f"{kind}-{name}"] = path
            return path


def _own_directory() -> Path:
    import tempfile

    area = Path(tempfile.gettempdir())
    _sweep(area)
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=area))
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:  # a sweeper came between
            continue
        with suppress(OSError):  # without locks nobody sweeps either
            fcntl.flock(handle, fcntl.LOCK_SH)
        if path.is_dir():  # the same, a moment later
            atexit.register(_leave, path, handle, os.getpid())
            return path
        os.close(handle)


def _leave(path: Path, handle: int, pid: int) -> None:
    if os.getpid() == pid:
        remove(path)
        os.close(handle)


def _sweep(area: Path) -> None:
    """Remove what killed processes of this user left."""
    with suppress(OSError):
        for path in area.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                if path.lstat().st_uid == os.geteuid():
                    _sweep_one(path)


def _sweep_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(path)
    finally:
        os.close(handle)
