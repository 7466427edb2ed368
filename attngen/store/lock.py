"""A lock between processes (and threads) that outlives none of them.

The kernel drops a `flock` when its holder dies, however it dies, so a lock is never stale; the file that
carries it may be left behind and is taken over by the next holder. The holder unlinks the file before it
lets go, and a waiter that got hold of an unlinked file notices and starts again: no litter, no gap in which
two hold the "same" lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

# What `flock` says on file systems that have no locks.
NO_LOCKS_ERRNOS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})
_FIRST_NAP_S = 0.001
_LONGEST_NAP_S = 0.05


class FileLock:
    """An exclusive lock named by a path. Not reentrant; one object is used by one thread.

    A child made by `fork` while the lock is held has no part in it: it closes its copy and neither
    unlinks nor unlocks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._owner = 0

    def acquire(self, timeout_s: float) -> bool:
        """Take the lock, waiting at most `timeout_s` seconds; False when it was not to be had.

        Raises OSError when the file cannot be made or the file system has no locks.
        """
        deadline = time.monotonic() + timeout_s
        nap = _FIRST_NAP_S
        while not self._try():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(nap, left))
            nap = min(2 * nap, _LONGEST_NAP_S)
        return True

    def release(self) -> None:
        """Let go; does nothing when not held."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        # What goes wrong here must not spoil what was done under the lock: the kernel drops it with the descriptor.
        with suppress(OSError):
            if os.getpid() == self._owner:
                with suppress(OSError):  # a file left behind is taken over by the next holder
                    if self._names(fd):
                        self._path.unlink()
                # Explicit, since a forked child may still have the descriptor open.
                fcntl.flock(fd, fcntl.LOCK_UN)
        with suppress(OSError):
            os.close(fd)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _try(self) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = self._names(fd)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                return False
            if error.errno in NO_LOCKS_ERRNOS:  # nobody can hold it, so the file is litter
                with suppress(OSError):
                    self._path.unlink()
            raise
        if not is_ours:
            os.close(fd)
            return False
        self._fd = fd
        self._owner = os.getpid()
        return True

    def _names(self, fd: int) -> bool:
        """Whether the path still leads to the file that was locked."""
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            return False
        here = os.fstat(fd)
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
