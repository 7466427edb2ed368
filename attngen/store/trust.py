"""Who could have written what lies in a cache: what is loaded as code must be this user's, or root's, alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from attngen.errors import ArtefactError, CacheError

_FOREIGN_WRITE = 0o022


def check_directories(root: Path, base: Path, below: tuple[Path, ...] = ()) -> None:
    """Refuse a cache that someone else could have filled. Raises CacheError that says why, OSError.

    root    may be a link, and others may write to it where the sticky bit keeps them from our names
    base    and what is `below` it in the cache must be plain directories; of `below` those that exist are looked at
    """
    there = root.stat()
    if stat.S_ISDIR(there.st_mode):
        excused = _FOREIGN_WRITE if there.st_mode & stat.S_ISVTX else 0
        _refuse(root, _stranger(there.st_uid, there.st_mode & ~excused))
    there = base.lstat()
    _refuse(base, None if stat.S_ISDIR(there.st_mode) else "it is not a plain directory")
    _refuse(base, _stranger(there.st_uid, there.st_mode))
    for path in below:
        try:
            there = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISDIR(there.st_mode):  # anything else is damage, which is mended, not refused
            _refuse(path, _stranger(there.st_uid, there.st_mode))


def check_artefact(directory: Path) -> None:
    """Refuse an artefact that someone else could have written. Raises ArtefactError that says why.

    Whoever owns attngen's own code may own artefacts too: an environment that several people share has one owner.
    """
    trusted = owner_of_code()
    try:
        parent, there = directory.parent.stat(), directory.lstat()
    except OSError as error:
        raise ArtefactError(f"there is no artefact at {directory}: {error.strerror}") from None
    if not stat.S_ISDIR(there.st_mode):
        raise ArtefactError(f"{directory} is no artefact: it is not a directory")
    excused = _FOREIGN_WRITE if parent.st_mode & stat.S_ISVTX else 0
    for path, owner, mode in (
        (directory.parent, parent.st_uid, parent.st_mode & ~excused),
        (directory, there.st_uid, there.st_mode),
    ):
        problem = _stranger(owner, mode, trusted)
        if problem is not None:
            raise _unsafe(directory, path, problem)


def check_file_of_artefact(directory: Path, name: str) -> None:
    """Refuse a file of an artefact that someone else could have put there. Raises ArtefactError, OSError.

    Its folders are looked at as well: who can write to one can exchange a file after its bytes were compared.
    """
    trusted = owner_of_code()
    path = directory / name
    for folder in reversed(path.parents[: len(PurePosixPath(name).parts) - 1]):
        there = folder.lstat()
        if not stat.S_ISDIR(there.st_mode):
            raise ArtefactError(f"{directory} cannot be loaded: {folder} is not a plain directory")
        problem = _stranger(there.st_uid, there.st_mode, trusted)
        if problem is not None:
            raise _unsafe(directory, folder, problem)
    there = path.lstat()
    if not stat.S_ISREG(there.st_mode):
        raise ArtefactError(f"{directory} cannot be loaded: {path} is not a plain file", hint="copy it again")
    problem = _stranger(there.st_uid, there.st_mode, trusted)
    if problem is not None:
        raise _unsafe(directory, path, problem)


def owner_of_code() -> int:
    """Who owns attngen's own code, and so runs code as whoever uses it; root where nobody can tell."""
    try:
        return Path(__file__).stat().st_uid
    except OSError:
        return 0


def _unsafe(directory: Path, path: Path, problem: str) -> ArtefactError:
    return ArtefactError(
        f"the artefact {directory} is not safe to load code from: {path}: {problem}",
        hint=f"copy it to a directory of your own, or `chmod go-w {path}` if it is yours",
    )


def file_problem(there: os.stat_result, trusted: int = 0) -> str | None:
    """Why a file must not be read, if so; files of the user `trusted` may."""
    if not stat.S_ISREG(there.st_mode):
        return "it is not a plain file"
    return _stranger(there.st_uid, there.st_mode, trusted)


def _stranger(uid: int, mode: int, trusted: int = 0) -> str | None:
    if uid not in (os.geteuid(), 0, trusted):
        return "it belongs to another user"
    if mode & _FOREIGN_WRITE:
        return "others can write to it"
    return None


def _refuse(path: Path, problem: str | None) -> None:
    if problem is not None:
        raise CacheError(
            f"the cache {path} is not safe to load code from: {problem}",
            hint=f"set ATTNGEN_CACHE_DIR to a directory of your own, or `chmod go-w {path}` if it is yours",
        )
