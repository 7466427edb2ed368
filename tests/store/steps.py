"""Every file-system call under one directory is a numbered step, at which this process can be killed or refused.

The calls of `os`, `fcntl` and `io` that the store, the journals and `shutil` make are replaced in this process, which
is a child made for it. Nothing here imports torch, so that a child costs milliseconds.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAKING = ("open!", "write", "mkdir", "rename", "fsync", "utime", "fchmod")  # "open!" makes the file
TAKING = ("unlink", "rmdir")
READING = ("open", "read", "pread", "stat", "lstat", "scandir", "listdir")
REFUSED = {  # which calls a fault of the disk touches
    errno.ENOSPC: ("open!", "write", "mkdir", "fsync", "rename"),
    errno.EROFS: (*MAKING, *TAKING),
    errno.EACCES: ("open!", "mkdir", "rename", "open", "scandir", "listdir", "stat", "lstat", *TAKING),
    errno.EIO: (*MAKING, *TAKING, *READING, "flock"),
}


class Steps:
    """The steps of this process below `root`.

    kill_at   the step before which it dies; one that writes is two steps: half of the bytes, and the rest.
    refuse    (errno, first step, whether all later ones are refused too) of the calls that the errno touches.
    """

    def __init__(
        self, root: Path, kill_at: int = 0, refuse: tuple[int, int, bool] | None = None, flock: int = 0
    ) -> None:
        self.root = str(root)
        self.kill_at, self.refuse, self.flock = kill_at, refuse, flock
        self.count = 0
        self.handles: set[int] = set()

    def at(self, name: str, where: object, dir_fd: int | None = None) -> None:
        """One step."""
        if not self._counts(where, dir_fd):
            return
        if self.refuse is None:
            if name in (*MAKING, *TAKING, "flock"):
                self.count += 1
                if self.count == self.kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return
        number, first, is_for_good = self.refuse
        if name in REFUSED[number]:
            self.count += 1
            if self.count == first or (is_for_good and self.count > first):
                raise OSError(number, os.strerror(number), where if isinstance(where, str) else None)

    def _counts(self, where: object, dir_fd: int | None) -> bool:
        if isinstance(where, int):
            return where in self.handles
        if dir_fd is not None:
            return dir_fd in self.handles
        return os.fspath(where).startswith(self.root)  # type: ignore[arg-type]

    def install(self) -> Steps:
        """Replace the calls of this process."""
        self._wrap_paths()
        self._wrap_handles()
        real_flock = fcntl.flock

        def flock(fd: int, how: int) -> None:
            self.at("flock", fd)
            if self.flock and fd in self.handles and not how & fcntl.LOCK_UN:
                raise OSError(self.flock, os.strerror(self.flock))
            real_flock(fd, how)

        fcntl.flock = flock
        return self

    def _wrap_paths(self) -> None:
        def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(path: Any = ".", *args: Any, dir_fd: int | None = None, **named: Any) -> Any:
                self.at(name, path if isinstance(path, int) else os.fspath(path), dir_fd)
                if dir_fd is not None:
                    named["dir_fd"] = dir_fd
                return real(path, *args, **named)

            return call

        for name in ("mkdir", "rename", "unlink", "rmdir", "utime", "stat", "lstat", "scandir", "listdir"):
            setattr(os, name, wrapped(name, getattr(os, name)))
        real_open = os.open

        def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            self.at("open!" if flags & os.O_CREAT else "open", os.fspath(path), dir_fd)
            fd = real_open(path, flags, mode, dir_fd=dir_fd)
            if self._counts(os.fspath(path), dir_fd):
                self.handles.add(fd)
            return fd

        os.open = opened

    def _wrap_handles(self) -> None:
        def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(fd: int, *args: Any) -> Any:
                self.at(name, fd)
                return real(fd, *args)

            return call

        for name in ("fsync", "fchmod", "pread"):
            setattr(os, name, wrapped(name, getattr(os, name)))
        real_write, real_close, real_io_open = os.write, os.close, io.open

        def write(fd: int, data: bytes) -> int:
            self.at("write", fd)
            if fd not in self.handles or self.refuse is not None:
                return real_write(fd, data)
            done = real_write(fd, data[: len(data) // 2])
            self.at("write", fd)
            return done + real_write(fd, data[done:])

        def close(fd: int) -> None:
            self.handles.discard(fd)
            real_close(fd)

        steps = self

        class Traced(io.FileIO):
            def write(self, data: Any) -> int:
                return write(self.fileno(), bytes(data))

            def readinto(self, into: Any) -> int | None:
                steps.at("read", self.fileno())
                return super().readinto(into)

            def readall(self) -> bytes:
                steps.at("read", self.fileno())
                return super().readall()

            def close(self) -> None:
                if not self.closed:
                    steps.handles.discard(self.fileno())
                super().close()

        def fdopen(fd: int, mode: str = "r", *args: Any, **named: Any) -> Any:
            if mode not in ("rb", "wb"):
                return real_io_open(fd, mode, *args, **named)
            raw = Traced(fd, mode)
            return io.BufferedReader(raw) if mode == "rb" else io.BufferedWriter(raw)

        def io_open(file: Any, mode: str = "r", *args: Any, **named: Any) -> Any:
            if isinstance(file, int) or mode not in ("rb", "wb"):
                return real_io_open(file, mode, *args, **named)
            flags = os.O_RDONLY if mode == "rb" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            return fdopen(os.open(os.fspath(file), flags | os.O_CLOEXEC, 0o666), mode)

        os.write, os.close, os.fdopen, io.open = write, close, fdopen, io_open
