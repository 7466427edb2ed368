"""The artefact cache: directories named by what is in them, built once, committed by one rename.

    get_or_build(kind, key, build)
      hit    manifest valid, files as the manifest says (checked once a process)   -> the directory
      miss   lock the key -> look again -> build in a staging directory -> flush
             -> manifest -> rename                                                   -> the directory

A process that dies at any point leaves at most a staging directory, which the next build sweeps away. A
corrupt entry is set aside and built anew. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from attngen.errors import AttngenError, CacheError, InternalError
from attngen.store.entry import (
    MANIFEST,
    CorruptEntryError,
    Manifest,
    check_files,
    read_manifest,
    seal,
    sync_directory,
    write_file,
)
from attngen.store.key import digest
from attngen.store.lock import FileLock
from attngen.store.settings import settings
from attngen.store.upkeep import (
    LOCKS,
    QUARANTINE,
    EntryInfo,
    discard,
    evict,
    list_entries,
    make_private,
    quarantine,
    remove,
    staging,
    sweep_locks,
    sweep_staging,
)

log = logging.getLogger("attngen.store")

LAYOUT = "v1"
_DOCUMENT = "document.json"
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}")

_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
_NO_LOCKS_ERRNOS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
_FULL_DISK_BYTES = 1 << 20
# The limit is soft by this much time, so that an entry is not dropped between being found and being loaded.
_GRACE_S = 60.0


class Store:
    """A cache directory. Any number of processes and threads may use one at once.

    root            the directory; entries lie under `root/v1/<kind>/<2 hex>/<digest>/`
    limit_bytes     past this size the entries used longest ago are dropped
    lock_timeout_s  wait this long for another builder of the same key, then build without the lock
    """

    def __init__(self, root: Path, *, limit_bytes: int = 1 << 30, lock_timeout_s: float = 120.0) -> None:
        self.root = root
        self.base = root / LAYOUT
        self.limit_bytes = limit_bytes
        self.lock_timeout_s = lock_timeout_s
        # Entries whose files this process has checked: inode and size of their manifest.
        self._checked: dict[Path, tuple[int, int]] = {}
        self._unweighed_bytes: int | None = None

    def get(self, kind: str, key: Mapping[str, object]) -> Path | None:
        """The directory of an entry, or None where there is none that can be used."""
        try:
            return self._find(kind, digest(key))
        except CorruptEntryError as error:
            log.warning("the cached %s %s cannot be used: %s", kind, digest(key)[:12], error)
            return None

    def get_or_build(self, kind: str, key: Mapping[str, object], build: Callable[[Path], None]) -> Path:
        """The directory of an entry, made by `build(directory)` where there is none.

        `build` fills an empty directory with plain files; when it raises, nothing is left behind and its
        error goes through. Processes that ask for one key at once build it once. Raises CacheError when
        the cache cannot be written or its disk is full.
        """
        name = digest(key)
        with suppress(CorruptEntryError):  # seen again, and set aside, under the lock
            found = self._find(kind, name)
            if found is not None:
                return found
        with self._writing():
            self._prepare()
            with FileLock(self.base / LOCKS / f"{kind}-{name}.lock") as lock:
                self._wait(lock, kind, name)
                found = self._find_or_set_aside(kind, name)
                if found is None:
                    found = self._build(kind, name, key, build)
        self._tidy()
        return found

    def get_json(self, kind: str, key: Mapping[str, object]) -> object | None:
        """The document stored under a key, or None. Tuples come back as lists."""
        path = self.get(kind, key)
        if path is None:
            return None
        try:
            return json.loads((path / _DOCUMENT).read_bytes())
        except FileNotFoundError:  # dropped by another process since it was found
            return None

    def put_json(self, kind: str, key: Mapping[str, object], document: object) -> None:
        """Store a document made of JSON's types; does nothing when the key is there already.

        Raises CacheError when the cache cannot be written.
        """
        data = json.dumps(document, separators=(",", ":")).encode()
        self.get_or_build(kind, key, lambda directory: write_file(directory / _DOCUMENT, data))

    def writable(self) -> CacheError | None:
        """None when an entry could be written now, otherwise the error a build would raise."""
        try:
            with self._writing():
                self._prepare()
                with staging(self.base) as stage:
                    stage.mkdir(mode=0o700)
                    write_file(stage / MANIFEST, b"{}")
        except CacheError as error:
            return error
        return None

    # Looking after it

    def entries(self, kind: str | None = None) -> list[EntryInfo]:
        """Every entry, or those of one kind, in no order. Raises CacheError when it cannot be read."""
        try:
            return list_entries(self.base, kind)
        except OSError as error:
            raise self._refusal("read", error) from error

    def manifest(self, entry: EntryInfo) -> Manifest:
        """What an entry was built from and its files. Raises CacheError when its manifest is corrupt."""
        try:
            return read_manifest(entry.path)
        except CorruptEntryError as error:
            raise CacheError(
                f"the cached {entry.kind} {entry.digest[:12]} cannot be used: {error}",
                hint="it is built anew when it is next needed",
            ) from error

    def verify(self) -> list[tuple[EntryInfo, str]]:
        """Read every file of every entry; the entries that are not as they were written, and why."""
        problems: list[tuple[EntryInfo, str]] = []
        for entry in self.entries():
            try:
                check_files(entry.path, read_manifest(entry.path))
            except CorruptEntryError as error:
                if entry.path.exists():  # or else another process dropped it meanwhile
                    problems.append((entry, str(error)))
        return problems

    def clear(self, kind: str | None = None) -> list[EntryInfo]:
        """Drop every entry, or those of one kind; what was dropped. Raises CacheError."""
        with self._writing():
            dropped = [e for e in self.entries(kind) if discard(self.base, e.path)]
            if kind is None:
                remove(self.base / QUARANTINE)
                sweep_staging(self.base)
                sweep_locks(self.base)
        self._checked.clear()
        return dropped

    # Reading

    def _find(self, kind: str, name: str) -> Path | None:
        path = self._path(kind, name)
        try:
            return self._check(path)
        except OSError as error:
            raise self._refusal("read", error) from error

    def _check(self, path: Path) -> Path | None:
        try:
            there = (path / MANIFEST).lstat()
        except (FileNotFoundError, NotADirectoryError):
            if os.path.lexists(path):  # it stands where a rename must go, so it is not simply absent
                raise CorruptEntryError("it has no manifest") from None
            return None
        mark = (there.st_ino, there.st_size)
        if self._checked.get(path) == mark:
            return path
        self._check_owner()
        check_files(path, read_manifest(path))
        with suppress(OSError):  # a cache that can only be read keeps no record of use
            os.utime(path / MANIFEST, follow_symlinks=False)
        self._checked[path] = mark
        return path

    def _find_or_set_aside(self, kind: str, name: str) -> Path | None:
        try:
            return self._find(kind, name)
        except CorruptEntryError as error:
            log.warning("the cached %s %s is set aside and built anew: %s", kind, name[:12], error)
            quarantine(self.base, self._path(kind, name), kind)
            return None

    def _path(self, kind: str, name: str) -> Path:
        if not _KIND.fullmatch(kind):
            raise InternalError(f"{kind!r} is not a kind of cache entry")
        return self.base / kind / name[:2] / name

    # Writing

    def _prepare(self) -> None:
        make_private(self.base)
        self._check_owner()
        make_private(self.base / LOCKS)

    def _check_owner(self) -> None:
        """Refuse a cache that someone else could have filled: what lies in it is loaded as code."""
        there = self.base.lstat()
        if not stat.S_ISDIR(there.st_mode):
            problem = "it is not a plain directory"
        elif there.st_uid not in (os.geteuid(), 0):
            problem = "it belongs to another user"
        elif there.st_mode & 0o022:
            problem = "others can write to it"
        else:
            return
        raise CacheError(
            f"the cache {self.base} is not safe to load code from: {problem}",
            hint="set ATTNGEN_CACHE_DIR to a directory of your own",
        )

    def _wait(self, lock: FileLock, kind: str, name: str) -> None:
        try:
            if lock.acquire(self.lock_timeout_s):
                return
            log.warning(
                "another process has been building the %s %s for %g s; building it here too",
                kind,
                name[:12],
                self.lock_timeout_s,
            )
        except OSError as error:
            if error.errno not in _NO_LOCKS_ERRNOS:
                raise
            log.warning("no locks on the file system of %s: %s", self.base, error.strerror)

    def _build(self, kind: str, name: str, key: Mapping[str, object], build: Callable[[Path], None]) -> Path:
        path = self._path(kind, name)
        with staging(self.base) as stage:
            stage.mkdir(mode=0o700)
            self._run(build, stage)
            manifest = seal(stage, kind, name, key)
            there = (stage / MANIFEST).lstat()  # now: once renamed, another process may drop it
            make_private(path.parent)
            while True:
                try:
                    stage.rename(path)
                    break
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise
                # Someone built it too, without the lock: theirs serves as well as ours.
                theirs = self._find_or_set_aside(kind, name)
                if theirs is not None:
                    return theirs
            sync_directory(path.parent)
        self._checked[path] = (there.st_ino, there.st_size)
        if self._unweighed_bytes is not None:
            self._unweighed_bytes += manifest.nbytes
        return path

    def _run(self, build: Callable[[Path], None], stage: Path) -> None:
        try:
            build(stage)
        except AttngenError as error:
            # A compiler that runs out of disk reports it as one error among many.
            if shutil.disk_usage(stage).free < _FULL_DISK_BYTES:
                raise self._refusal("write", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error
            raise
        except OSError as error:
            if error.errno in _DISK_ERRNOS:
                raise self._refusal("write", error) from error
            raise _BuilderError(error) from error

    def _tidy(self) -> None:
        """Once a process, and again whenever a sixteenth of the limit was written, weigh the cache."""
        with suppress(OSError):
            sweep_staging(self.base)
            if self._unweighed_bytes is None or self._unweighed_bytes > self.limit_bytes // 16:
                self._unweighed_bytes = 0
                dropped = evict(self.base, self.limit_bytes, _GRACE_S)
                if dropped:
                    log.info("dropped %d entries of the cache %s, used longest ago", dropped, self.root)

    @contextmanager
    def _writing(self) -> Generator[None]:
        """Turn what the operating system says into one error of ours; a builder's own errors go through."""
        try:
            yield
        except AttngenError:
            raise
        except _BuilderError as error:
            raise error.cause from error.cause.__cause__
        except OSError as error:
            raise self._refusal("write", error) from error

    def _refusal(self, verb: str, error: OSError) -> CacheError:
        reason = error.strerror or str(error)
        return CacheError(
            f"cannot {verb} the cache {self.root}: {reason}",
            hint="set ATTNGEN_CACHE_DIR to a directory you can write, on a disk with room",
        )


class _BuilderError(Exception):
    """Carries a builder's own OSError past the place that turns the store's OSErrors into CacheError."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause)
        self.cause = cause


def default_store() -> Store:
    """The store of this process, where the settings say."""
    now = settings()
    return _store_at(now.cache_dir, now.cache_limit_mb << 20, now.lock_timeout_s)


@cache
def _store_at(root: Path, limit_bytes: int, lock_timeout_s: float) -> Store:
    return Store(root, limit_bytes=limit_bytes, lock_timeout_s=lock_timeout_s)
