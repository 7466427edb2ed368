"""The artefact cache: directories named by what is in them, built once, committed by one rename.

    get_or_build(kind, key, build)
      hit    manifest valid, files as the manifest says (checked once a process)   -> the directory
      miss   lock the key -> look again -> build in a staging directory -> flush
             -> manifest -> rename                                                   -> the directory

A process that dies at any point leaves at most a staging directory, which the next build sweeps away. A
corrupt entry is set aside and built anew. Where the disk refuses, an entry is built for this process alone. Nothing
is ever unpickled.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from attngen.errors import AttngenError, CacheError, InternalError
from attngen.store.care import GRACE_S, BuilderError, KeptDirectory
from attngen.store.entry import (
    MANIFEST,
    CorruptEntryError,
    check_files,
    read_document,
    read_manifest,
    seal,
    stamps,
    sync_directory,
    write_file,
)
from attngen.store.hold import held
from attngen.store.key import digest
from attngen.store.lock import NO_LOCKS_ERRNOS, FileLock
from attngen.store.private import PrivateBuilds
from attngen.store.settings import settings
from attngen.store.upkeep import (
    LOCKS,
    evict,
    make_area,
    make_private,
    quarantine,
    staging,
    sweep_locks,
    sweep_staging,
)

log = logging.getLogger("attngen.store")

_DOCUMENT = "document.json"
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}")

_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
_FULL_DISK_BYTES = 1 << 20
# How often an entry may go between being found and being read before it is built for this process alone.
_TRIES = 8

T = TypeVar("T")


class Store(KeptDirectory):
    """A cache directory. Any number of processes and threads may use one at once.

    root            the directory; entries lie under `root/v1/<kind>/<2 hex>/<digest>/`
    limit_bytes     past this size the entries used longest ago are dropped
    lock_timeout_s  wait this long for another builder of the same key, then build without the lock
    """

    def __init__(self, root: Path, *, limit_bytes: int = 1 << 30, lock_timeout_s: float = 120.0) -> None:
        super().__init__(root, limit_bytes)
        self.lock_timeout_s = lock_timeout_s
        self._unweighed_bytes: int | None = None
        self._private = PrivateBuilds()
        self._complained: set[str] = set()

    def get(self, kind: str, key: Mapping[str, object]) -> Path | None:
        """The directory of an entry, or None where there is none that can be used.

        Raises CacheError when the cache is not safe to load from.
        """
        name = digest(key)
        try:
            return self._find(kind, name)
        except CorruptEntryError as error:
            log.warning("the cached %s %s cannot be used: %s", kind, name[:12], error)
        except CacheError:
            raise
        except OSError as error:
            self._complain("cannot read the cache %s: %s", self.root, error.strerror or error)
        return None

    def get_or_build(self, kind: str, key: Mapping[str, object], build: Callable[[Path], None]) -> Path:
        """The directory of an entry, made by `build(directory)` where there is none.

        `build` fills an empty directory with plain files; when it raises, nothing is left behind and its
        error goes through. Processes that ask for one key at once build it once. Where the cache cannot be
        written it is built for this process alone, with a warning. Raises CacheError when the cache is not
        safe to load from, and when there is no room at all.
        """
        name = digest(key)
        try:
            return self._shared(kind, name, key, build)
        except CacheError:
            raise
        except OSError as error:
            self._complain(
                "cannot use the cache %s: %s; kernels are built for this process alone. ATTNGEN_CACHE_DIR may name "
                "a directory you can write, on a disk with room",
                self.root,
                error.strerror or error,
            )
        except BuilderError as error:
            raise error.cause from error.cause.__cause__
        return self._alone(kind, name, build)

    def use(
        self,
        kind: str,
        key: Mapping[str, object],
        build: Callable[[Path], None],
        read: Callable[[Path], T],
    ) -> T:
        """What `read(directory)` makes of an entry that is built where there is none.

        Eviction leaves an entry alone while it is read. One that another process drops before that, or where there
        are no locks, is built again.
        """
        name = digest(key)
        has_failed = False
        for _ in range(_TRIES):
            path = self.get_or_build(kind, key, build)
            if path == self._private.get(kind, name):
                return read(path)
            with held(path) as is_there:
                if not is_there:
                    continue
                try:
                    return read(path)
                except Exception:
                    if _is_whole(path) and has_failed:
                        raise
                    has_failed = True
                    self._checked.pop(
                        path, None
                    )  # gone or damaged since it was checked, if it is not the disk
        return read(self._alone(kind, name, build))

    def use_existing(self, kind: str, key: Mapping[str, object], read: Callable[[Path], T]) -> T | None:
        """What `read(directory)` makes of an entry; None where there is none, or where it goes while it is read."""
        path = self.get(kind, key)
        if path is None:
            return None
        with held(path) as is_there:
            try:
                return read(path) if is_there else None
            except Exception:
                if _is_whole(path):
                    raise
                self._checked.pop(path, None)
                return None

    def get_json(self, kind: str, key: Mapping[str, object]) -> object | None:
        """The document stored under a key, or None. Tuples come back as lists."""
        path = self.get(kind, key)
        if path is None:
            return None
        try:
            return json.loads(read_document(path, _DOCUMENT))
        except (CorruptEntryError, ValueError, RecursionError) as error:
            if os.path.lexists(path):  # or else another process has dropped it since it was found
                log.warning("the cached %s %s cannot be used: %s", kind, path.name[:12], error)
        except OSError as error:
            self._complain("cannot read the cache %s: %s", self.root, error.strerror or error)
        return None

    def put_json(self, kind: str, key: Mapping[str, object], document: object) -> None:
        """Store a document made of JSON's types; does nothing when the key is there already.

        Raises CacheError when the cache cannot be written.
        """
        data = json.dumps(document, separators=(",", ":")).encode()
        with self._writing():
            self._shared(kind, digest(key), key, lambda directory: write_file(directory / _DOCUMENT, data))

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

    # Reading

    def _find(self, kind: str, name: str) -> Path | None:
        path = self._path(kind, name)
        try:
            (path / MANIFEST).lstat()
        except (FileNotFoundError, NotADirectoryError):
            if os.path.lexists(path):  # it stands where a rename must go, so it is not simply absent
                raise CorruptEntryError("it has no manifest") from None
            return None
        known = self._checked.get(path)
        if known is not None:
            with suppress(OSError):
                if stamps(path, known[0]) == known[1]:
                    return path
        self._check_owner(path)
        manifest = read_manifest(path)
        with suppress(OSError):  # a cache that can only be read keeps no record of use
            os.utime(path / MANIFEST, follow_symlinks=False)
        try:
            before = stamps(path, manifest)
            check_files(path, manifest)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            raise CorruptEntryError("a file is missing") from None
        self._checked[path] = manifest, before
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

    def _shared(self, kind: str, name: str, key: Mapping[str, object], build: Callable[[Path], None]) -> Path:
        with suppress(CorruptEntryError):  # seen again, and set aside, under the lock
            found = self._find(kind, name) or self._private.get(kind, name)
            if found is not None:
                return found
        self._prepare()
        with FileLock(self.base / LOCKS / f"{kind}-{name}.lock") as lock:
            self._wait(lock, kind, name)
            found = self._find_or_set_aside(kind, name)
            if found is None:
                found = self._build(kind, name, key, build)
        self._tidy()
        return found

    def _prepare(self) -> None:
        make_private(self.base)
        self._check_owner()
        make_area(self.base, self.base / LOCKS)

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
            if error.errno not in NO_LOCKS_ERRNOS:
                raise
            # Each process builds for itself then; the first to rename serves all.
            self._complain("cannot lock in the cache %s: %s", self.base, error.strerror or error)

    def _build(self, kind: str, name: str, key: Mapping[str, object], build: Callable[[Path], None]) -> Path:
        path = self._path(kind, name)
        with staging(self.base) as stage:
            stage.mkdir(mode=0o700)
            try:
                self._run(build, stage)
            except BuilderError as error:
                if _is_below(error.cause.filename, stage):  # the disk's refusal, or a directory swept away
                    raise error.cause from None
                raise
            manifest = seal(stage, kind, name, key)
            fresh = stamps(stage, manifest)  # now: once renamed, another process may drop it
            make_area(self.base, path.parent)
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
            with suppress(OSError):  # it is there, if not yet for good
                sync_directory(path.parent)
        self._checked[path] = manifest, fresh
        if self._unweighed_bytes is not None:
            self._unweighed_bytes += manifest.nbytes
        return path

    def _run(self, build: Callable[[Path], None], stage: Path) -> None:
        try:
            build(stage)
        except AttngenError as error:
            # A compiler that runs out of disk reports it as one error among many.
            if _is_full(stage):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        except OSError as error:
            if error.errno in _DISK_ERRNOS:
                raise
            raise BuilderError(error) from error

    def _alone(self, kind: str, name: str, build: Callable[[Path], None]) -> Path:
        with self._writing():
            return self._private.build(kind, name, lambda directory: self._run(build, directory))

    def _tidy(self) -> None:
        """Once a process, and again whenever a sixteenth of the limit was written, weigh the cache."""
        with suppress(OSError):
            sweep_staging(self.base)
            if self._unweighed_bytes is None or self._unweighed_bytes > self.limit_bytes // 16:
                self._unweighed_bytes = 0
                sweep_locks(self.base)
                dropped = evict(self.base, self.limit_bytes, GRACE_S)
                if dropped:
                    log.info("dropped %d entries of the cache %s, used longest ago", dropped, self.root)

    def _complain(self, text: str, *what: object) -> None:
        """Warn, of one thing once."""
        log.log(logging.DEBUG if text in self._complained else logging.WARNING, text, *what)
        self._complained.add(text)


def _is_whole(path: Path) -> bool:
    try:
        check_files(path, read_manifest(path))
    except (CorruptEntryError, OSError):
        return False
    return True


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path).free < _FULL_DISK_BYTES
    except OSError:
        return False


def _is_below(name: object, stage: Path) -> bool:
    return isinstance(name, str | os.PathLike) and Path(name).is_relative_to(stage)  # pyright: ignore


def default_store() -> Store:
    """The store of this process, where the settings say."""
    now = settings()
    return _store_at(now.cache_dir, now.cache_limit_mb << 20, now.lock_timeout_s)


@cache
def _store_at(root: Path, limit_bytes: int, lock_timeout_s: float) -> Store:
    return Store(root, limit_bytes=limit_bytes, lock_timeout_s=lock_timeout_s)
