"""Housekeeping of a cache directory: listing, dropping, eviction, and what dead processes left.

<base>/<kind>/<2 hex>/<digest>/    entries
<base>/.staging/<name>/            entries being built, each with a lock <name>.lock held by its builder
<base>/.locks/<kind>-<digest>.lock builders of one key wait here for each other
<base>/.quarantine/<name>/         entries found corrupt, kept for a look
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from attngen.store.entry import MANIFEST
from attngen.store.hold import unused
from attngen.store.lock import NO_LOCKS_ERRNOS, FileLock
from attngen.value import value

STAGING = ".staging"
LOCKS = ".locks"
QUARANTINE = ".quarantine"

_QUARANTINE_KEEPS = 8
_SWEEPER_S = 10.0
# Without locks nothing tells a dead builder from a slow one but time; a slow one that is swept builds for itself.
_ABANDONED_S = 86400.0
_BLOCK_BYTES = 4096


@value
class EntryInfo:
    """One entry of a listing. `used` is seconds since the epoch, `nbytes` includes the manifest."""

    kind: str
    digest: str
    path: Path
    nbytes: int
    used: float


def list_entries(base: Path, kind: str | None = None) -> list[EntryInfo]:
    """Every entry, in no order; an entry that another process drops meanwhile is left out.

    What stands in the place of an entry, or of a directory of entries, is listed too: it is a damaged one.
    """
    found: list[EntryInfo] = []
    for kind_dir in _paths(base):
        if kind_dir.name.startswith(".") or kind not in (None, kind_dir.name):
            continue
        for shard in _paths(kind_dir) if _is_folder(kind_dir) else [kind_dir]:
            for path in _paths(shard) if _is_folder(shard) else [shard]:
                with suppress(FileNotFoundError):
                    found.append(_info(kind_dir.name, path))
    return found


def discard(base: Path, path: Path) -> bool:
    """Drop an entry so that no reader sees half of it: rename it away, then delete. False if it was gone."""
    with staging(base) as stage:
        try:
            path.rename(stage)
        except FileNotFoundError:
            return False
    return True


def evict(base: Path, limit_bytes: int, grace_s: float) -> int:
    """Drop entries, those used longest ago first, until 9/10 of the limit is left; returns how many.

    What was set aside goes first. An entry that is being read stays, and one used in the last `grace_s` seconds:
    its user may be about to load it. A time that is yet to come says that a clock was wrong, and protects nothing.
    """
    entries = list_entries(base)
    total = sum(e.nbytes for e in entries)
    if total + tree_bytes(base / QUARANTINE) <= limit_bytes:
        return 0
    remove(base / QUARANTINE)
    if total <= limit_bytes:
        return 0
    dropped = 0
    now = time.time()
    for entry in sorted(entries, key=lambda e: e.used):
        if total <= limit_bytes * 9 // 10:
            break
        if abs(now - entry.used) < grace_s:
            continue
        with unused(entry.path) as is_unused:
            if is_unused:
                dropped += discard(base, entry.path)
                total -= entry.nbytes
    return dropped


def quarantine(base: Path, path: Path, kind: str) -> None:
    """Move a corrupt entry aside; only the last few are kept. Raises OSError."""
    aside = base / QUARANTINE
    make_area(base, aside)
    with suppress(FileNotFoundError):
        path.rename(aside / f"{kind}-{path.name[:16]}-{os.urandom(4).hex()}")
    kept = sorted(_paths(aside), key=_changed, reverse=True)
    for old in kept[_QUARANTINE_KEEPS:]:
        remove(old)


def sweep_staging(base: Path) -> None:
    """Remove what builders that died left; a live builder holds the lock of its directory."""
    area = base / STAGING
    for name in {p.name.removesuffix(".lock") for p in _paths(area)}:
        stage = area / name
        try:
            with FileLock(area / f"{name}.lock") as lock:
                if lock.acquire(0):
                    remove(stage)
        except OSError as error:
            if error.errno in NO_LOCKS_ERRNOS and time.time() - _changed(stage) > _ABANDONED_S:
                remove(stage)


def sweep_locks(base: Path) -> None:
    """Remove the lock files of builders that died; whoever builds now keeps theirs."""
    for path in _paths(base / LOCKS):
        with suppress(OSError), FileLock(path) as lock:
            lock.acquire(0)


@contextmanager
def staging(base: Path) -> Generator[Path]:
    """A fresh path on the cache's file system (nothing is there yet); what is there at the end is removed."""
    area = base / STAGING
    make_area(base, area)
    stage = area / os.urandom(8).hex()
    with FileLock(area / f"{stage.name}.lock") as lock:
        # The name is ours alone, but a sweeper may hold its lock for a moment. On a file system without
        # locks a dead builder's directory stays; nothing else changes.
        with suppress(OSError):
            lock.acquire(_SWEEPER_S)
        try:
            yield stage
        finally:
            remove(stage)


def make_area(base: Path, path: Path) -> None:
    """Make a directory in the cache in the place of whatever else stands there. Raises OSError."""
    parts = path.relative_to(base).parts
    for n in range(1, len(parts) + 1):
        step = base.joinpath(*parts[:n])
        if not _is_folder(step):
            # Never a directory: of two processes that mend at once, the second leaves the first one's be.
            with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                step.unlink()
            with suppress(FileExistsError):
                step.mkdir(mode=0o700)
            if not _is_folder(step):
                raise NotADirectoryError(f"{step} is not a directory")


def make_private(path: Path) -> None:
    """Make a directory and its missing parents, readable by this user alone. Raises OSError."""
    if path.is_dir():
        return
    if path.parent != path:
        make_private(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is not a directory")


def remove(path: Path) -> None:
    """Delete a tree, a file or a link, as far as it can be deleted."""
    with suppress(OSError):
        if _is_folder(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def tree_bytes(path: Path) -> int:
    """Size of the files below `path`; a file with holes weighs what it takes of the disk."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += _weight(Path(folder, name).lstat())
    return total


def _weight(there: os.stat_result) -> int:
    return min(there.st_size, 512 * there.st_blocks + _BLOCK_BYTES)


def _info(kind: str, path: Path) -> EntryInfo:
    there = path.lstat()
    if not stat.S_ISDIR(there.st_mode):
        return EntryInfo(kind, path.name, path, _weight(there), 0.0)
    try:
        used = (path / MANIFEST).lstat().st_mtime
    except (FileNotFoundError, NotADirectoryError):  # without a manifest it is no entry, and the first to go
        used = 0.0
    except OSError:  # nothing is known of it
        used = time.time()
    return EntryInfo(kind, path.name, path, tree_bytes(path), used)


def _is_folder(path: Path) -> bool:
    """Whether it is a plain directory. Raises OSError where nothing is known of it."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _paths(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_ctime
    except OSError:
        return 0.0
