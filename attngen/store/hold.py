"""Hold an entry while it is read, so that eviction by another process leaves it alone.

    reader   shared lock on the manifest -> read -> let go
    evictor  exclusive lock on the manifest, or leave the entry be -> rename away -> delete

Where a file system has no locks an entry may go while it is read; the reader then finds it gone, and builds it again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from attngen.store.entry import MANIFEST


@contextmanager
def held(directory: Path) -> Generator[bool]:
    """Whether the entry is there, and, where there are locks, stays until the end."""
    try:
        handle = _opened(directory, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # being dropped
            yield False
            return
        except OSError:  # no locks here
            pass
        yield _is_at(handle, directory)
    finally:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # a forked child may still have the descriptor open
        os.close(handle)


@contextmanager
def unused(directory: Path) -> Generator[bool]:
    """Whether nobody reads the entry; nobody begins to until the end."""
    try:
        handle = _opened(directory, os.O_RDWR)
    except OSError:  # nothing that could be read
        yield True
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # no locks here
            pass
        yield True
    finally:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _opened(directory: Path, mode: int) -> int:
    return os.open(directory / MANIFEST, mode | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _is_at(handle: int, directory: Path) -> bool:
    """Whether the open manifest is still the one of the path."""
    try:
        return os.path.samestat(os.fstat(handle), (directory / MANIFEST).lstat())
    except OSError:
        return False
