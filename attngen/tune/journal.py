"""A file of lines that only grows, so that whoever is killed loses at most the line being written.

    {"sha":"<16 hex digits>","record":{...}}        a line is one record; the hash is of the record's own text

Lines are written by one `write` to a file opened for appending, under a lock between processes. A line that is
torn or damaged is skipped. A file that has grown large is rewritten with fewer records by whoever loads it, under the
same lock, by one rename.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from attngen.store.lock import FileLock
from attngen.store.upkeep import make_private

log = logging.getLogger("attngen.tune")

LOCKS = ".locks"
_LARGE_BYTES = 256 << 10
_LARGEST_BYTES = 64 << 20  # no journal of ours comes near; a larger file is garbage
_FOREIGN_WRITE = 0o022

Record = dict[str, Any]


class Journal:
    """The records of one file. Any number of processes may append at once; nothing raises for what a disk does."""

    def __init__(self, path: Path, lock_timeout_s: float = 120.0) -> None:
        self.path = path
        self.lock_timeout_s = lock_timeout_s
        self._lock_path = path.parent.parent / LOCKS / f"{path.stem}.lock"
        self._complained = False

    def read(self) -> list[Record]:
        """Every whole record, oldest first."""
        data = self._bytes()
        return [] if data is None else self._parsed(data)

    def append(self, record: Mapping[str, object]) -> bool:
        """Add a record; False, with a warning, where the file cannot be written."""
        line = line_of(record)
        try:
            make_private(self.path.parent)
            with self._locked():
                self._write(line)
        except OSError as error:
            if not self._complained:
                log.warning("measurements are not kept in %s: %s", self.path, error.strerror or error)
                self._complained = True
            return False
        return True

    def load(self, compact: Callable[[Sequence[Record]], Sequence[Mapping[str, object]]]) -> list[Record]:
        """Every whole record; a large file is first rewritten as `compact` makes its records fewer."""
        try:
            large = self.path.lstat().st_size > _LARGE_BYTES
        except OSError:
            return []
        if large:
            try:
                self._rewrite(compact)
            except OSError as error:  # a cache that can only be read
                log.info("%s stays as large as it is: %s", self.path, error.strerror or error)
        return self.read()

    def _bytes(self) -> bytes | None:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("the measurements in %s cannot be read: %s", self.path, error.strerror)
            return None
        try:
            there = os.fstat(fd)
            problem = _problem(there)
            if problem is not None:
                log.warning("the measurements in %s are not used: %s", self.path, problem)
                return None
            with os.fdopen(os.dup(fd), "rb") as file:
                return file.read(_LARGEST_BYTES)
        except OSError as error:
            log.warning("the measurements in %s cannot be read: %s", self.path, error.strerror)
            return None
        finally:
            os.close(fd)

    def _parsed(self, data: bytes) -> list[Record]:
        found: list[Record] = []
        skipped = 0
        for line in data.split(b"\n"):
            if not line.strip():
                continue
            record = record_of(line)
            if record is None:
                skipped += 1
            else:
                found.append(record)
        if skipped:
            log.info("%s: %d damaged lines skipped", self.path, skipped)
        return found

    def _write(self, line: bytes) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path, flags, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = b"\n" + line  # after a torn line
            written = os.write(fd, line)
            if written != len(line):
                raise OSError(28, "No space left on device")
        finally:
            os.close(fd)

    def _rewrite(self, compact: Callable[[Sequence[Record]], Sequence[Mapping[str, object]]]) -> None:
        with self._locked() as is_locked:
            if not is_locked:
                return  # another process may be appending
            records = self.read()
            fresh = self.path.with_name(f".{self.path.stem}.{os.urandom(4).hex()}")
            try:
                fd = os.open(
                    fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
                )
                with os.fdopen(fd, "wb") as file:
                    file.write(b"".join(map(line_of, compact(records))))
                    file.flush()
                    os.fsync(file.fileno())
                fresh.rename(self.path)
            finally:
                with suppress(OSError):
                    fresh.unlink()

    @contextmanager
    def _locked(self) -> Generator[bool]:
        """Whether the lock was to be had; without it an append is still one `write`."""
        lock = FileLock(self._lock_path)
        got = False
        with lock:
            try:
                make_private(self._lock_path.parent)
                got = lock.acquire(self.lock_timeout_s)
            except OSError as error:
                log.debug("no lock for %s: %s", self.path, error)
            yield got


def line_of(record: Mapping[str, object]) -> bytes:
    """A record as its line."""
    text = _text(record)
    return f'{{"sha":"{_hash(text)}","record":{text}}}\n'.encode()


def record_of(line: bytes) -> Record | None:
    """The record of a line; None for one that is not as it was written."""
    try:
        held: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match held:
        case {"sha": str(sha), "record": dict(record)}:
            known = cast("Record", record)
            return known if _hash(_text(known)) == sha else None
        case _:
            return None


def _text(record: Mapping[str, object]) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _problem(there: os.stat_result) -> str | None:
    if not stat.S_ISREG(there.st_mode):
        return "it is not a plain file"
    if there.st_uid not in (os.geteuid(), 0):
        return "it belongs to another user"
    if there.st_mode & _FOREIGN_WRITE:
        return "others can write to it"
    return None
