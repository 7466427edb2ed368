"""Look after a cache directory: list it, check it, prune it, clear it.

entries()   what there is           problem(entry)   what is wrong with one, every byte of it read
verify()    what is damaged         prune()          drop that, and what nobody needs
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from attngen.errors import AttngenError, CacheError
from attngen.store.entry import (
    CorruptEntryError,
    Manifest,
    Stamps,
    UnreadableEntryError,
    check_files,
    read_manifest,
)
from attngen.store.trust import check_directories
from attngen.store.upkeep import (
    QUARANTINE,
    EntryInfo,
    discard,
    evict,
    list_entries,
    remove,
    sweep_locks,
    sweep_staging,
)

LAYOUT = "v1"
# The limit is soft by this much time, so that an entry is not dropped between being found and being loaded.
GRACE_S = 60.0


class KeptDirectory:
    """A cache directory and what can be done to all of it."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root = root
        self.base = root / LAYOUT
        self.limit_bytes = limit_bytes
        # Entries whose files this process has checked: what the file system said of them then.
        self._checked: dict[Path, tuple[Manifest, Stamps]] = {}

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
        found = ((entry, self.problem(entry)) for entry in self.entries())
        return [(entry, problem) for entry, problem in found if problem is not None]

    def problem(self, entry: EntryInfo) -> str | None:
        """What is wrong with an entry, every byte of it read; None for one that is as it was written."""
        try:
            check_directories(self.root, self.base, self._folders(entry.path))
            return self._damage(entry)
        except CacheError as error:
            return error.message
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}"

    def _damage(self, entry: EntryInfo) -> str | None:
        try:
            check_files(entry.path, read_manifest(entry.path))
        except CorruptEntryError as error:
            # Or else another process dropped it meanwhile.
            return str(error) if os.path.lexists(entry.path) else None
        return None

    def _is_lost(self, entry: EntryInfo) -> bool:
        """Whether an entry is known to be damaged: one that the disk would not read now may be whole."""
        try:
            check_files(entry.path, read_manifest(entry.path))
        except UnreadableEntryError:
            return False
        except CorruptEntryError:
            return True
        return False

    def refusal(self) -> CacheError | None:
        """Why nothing is loaded from here, where others could have written to it."""
        try:
            self._check_owner()
        except CacheError as error:
            return error
        except OSError:  # nothing there
            return None
        return None

    def prune(self, limit_bytes: int | None = None) -> tuple[list[EntryInfo], int]:
        """Drop what is damaged, set aside, or left by dead builders, and past a limit what was used longest ago.

        Returns the damaged ones and the number of the others. Raises CacheError.
        """
        with self._writing():
            if not self.base.is_dir():
                return [], 0
            self._check_owner()
            damaged = [e for e in self.entries() if self._is_lost(e) and discard(self.base, e.path)]
            remove(self.base / QUARANTINE)
            sweep_staging(self.base)
            sweep_locks(self.base)
            limit = self.limit_bytes if limit_bytes is None else limit_bytes
            return damaged, evict(self.base, limit, GRACE_S)

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

    def _check_owner(self, path: Path | None = None) -> None:
        check_directories(self.root, self.base, () if path is None else self._folders(path))

    def _folders(self, path: Path) -> tuple[Path, ...]:
        return path.parent.parent, path.parent, path

    @contextmanager
    def _writing(self) -> Generator[None]:
        """Turn what the operating system says into one error of ours; a builder's own errors go through."""
        try:
            yield
        except AttngenError:
            raise
        except BuilderError as error:
            raise error.cause from error.cause.__cause__
        except OSError as error:
            raise self._refusal("write", error) from (error.__cause__ or error)

    def _refusal(self, verb: str, error: OSError) -> CacheError:
        reason = error.strerror or str(error)
        return CacheError(
            f"cannot {verb} the cache {self.root}: {reason}",
            hint="set ATTNGEN_CACHE_DIR to a directory you can write, on a disk with room",
        )


class BuilderError(Exception):
    """Carries a builder's own OSError past the place that turns the store's OSErrors into CacheError."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause)
        self.cause = cause
