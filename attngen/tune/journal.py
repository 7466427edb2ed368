"""A file of lines that only grows, so that whoever is killed loses at most the line being written.

    {"sha":"<16 hex digits>","record":{...}}        a line is one record; the hash is of the record's own text

Lines are written by one `write` to a file opened for appending, under a lock between processes. A line that is
torn or damaged is skipped. A file that has grown large is rewritten with fewer records by whoever loads it, under the
same lock, by one rename. A writer that could not have the lock finds out, and writes again what the old file took.
"""

from __future__ import annotations

import errno
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
from attngen.store.trust import file_problem
from attngen.store.upkeep import make_area, make_private

log = logging.getLogger("attngen.tune")

LOCKS = ".locks"
_LARGE_BYTES = 256 << 10
_LARGEST_BYTES = 64 << 20  # no journal of ours comes near; a larger file is garbage
_LONGEST_WAIT_S = 10.0  # whoever has the lock of a journal has it for milliseconds
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

Record = dict[str, Any]


class Journal:
    """The records of one file. Any number of processes may append at once; nothing raises for what a disk does."""

    def __init__(self, path: Path, lock_timeout_s: float = 120.0) -> None:
        self.path = path
        self.lock_timeout_s = min(lock_timeout_s, _LONGEST_WAIT_S)
        self._lock_path = path.parent.parent / LOCKS / f"{path.stem}.lock"
        self._complained = False

    def read(self) -> list[Record]:
        """Every whole record, oldest first."""
        data = self._bytes()
        return [] if data is None else self._parsed(data)

    def damaged(self) -> int:
        """How many lines are not as they were written; a file that cannot be used at all counts as one."""
        data = self._bytes()
        if data is None:
            return int(self.exists())
        return sum(bool(line.strip()) and record_of(line) is None for line in data.split(b"\n"))

    def exists(self) -> bool:
        """Whether there is such a file."""
        return os.path.lexists(self.path)

    def append(self, record: Mapping[str, object]) -> bool:
        """Add a record; False, with a warning, where the file cannot be written."""
        line = line_of(record)
        base = self.path.parent.parent
        try:
            make_private(base)
            make_area(base, self.path.parent)
            with self._locked():
                while not self._write(line):
                    pass  # a rewriter took the old file away meanwhile
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
            problem = file_problem(there)
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

    def _write(self, line: bytes) -> bool:
        """Whether the line is in the file that the path names. Raises OSError where there is no writing to it."""
        self._clear_way()
        fd = os.open(self.path, _APPEND | os.O_CREAT, 0o600)
        try:
            there = os.fstat(fd)
            problem = file_problem(there)
            if problem is not None:  # what is not read must not be said to be kept
                raise PermissionError(errno.EPERM, problem)
            if there.st_size and os.pread(fd, 1, there.st_size - 1) != b"\n":
                line = b"\n" + line  # after a torn line
            written = os.write(fd, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._is_at(fd)
        finally:
            os.close(fd)

    def _clear_way(self) -> None:
        """Move aside what can be no journal: a directory, a link, a pipe, or garbage too long to be read."""
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISREG(there.st_mode) or there.st_size >= _LARGEST_BYTES:
            aside = self.path.with_name(f".{self.path.stem}.{os.urandom(4).hex()}.aside")
            log.warning("%s cannot be a journal and is set aside as %s", self.path, aside.name)
            self.path.rename(aside)

    def _is_at(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self.path.lstat())
        except FileNotFoundError:  # forgotten by the user meanwhile
            return True

    def _rewrite(self, compact: Callable[[Sequence[Record]], Sequence[Mapping[str, object]]]) -> None:
        with self._locked() as is_locked:
            if not is_locked:
                return  # another process may be appending
            self._sweep()
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as old:
                there = os.fstat(fd)
                if file_problem(there) is not None or there.st_size >= _LARGEST_BYTES:
                    return
                records = self._parsed(old.read())
                self._replace(b"".join(map(line_of, compact(records))))
                late = old.read()  # of a writer without the lock; one that is later still sees the new file
            if late:
                while not self._write(late):
                    pass

    def _replace(self, data: bytes) -> None:
        fresh = self.path.with_name(f".{self.path.stem}.{os.urandom(4).hex()}.new")
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(self.path)
        finally:
            with suppress(OSError):
                fresh.unlink()

    def _sweep(self) -> None:
        """Remove what a rewriter that was killed left; only the holder of the lock rewrites."""
        for left in self.path.parent.glob(f".{self.path.stem}.*.new"):
            with suppress(OSError):
                left.unlink()

    @contextmanager
    def _locked(self) -> Generator[bool]:
        """Whether the lock was to be had; without it an append is still one `write`."""
        lock = FileLock(self._lock_path)
        got = False
        with lock:
            try:
                make_area(self.path.parent.parent, self._lock_path.parent)
                got = lock.acquire(self.lock_timeout_s)
                if not got:
                    self.lock_timeout_s = (
                        0.0  # whoever has it has it for good: wait once, not for every record
                    )
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
