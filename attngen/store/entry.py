"""One cache entry on disk: a directory of files and the manifest that vouches for them.

The manifest is written last and names the size and SHA-256 of every file, so a directory with a valid
manifest is complete, and one without is not an entry at all.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

from attngen.errors import InternalError
from attngen.store.key import plain
from attngen.store.trust import file_problem
from attngen.value import value

# A change of the format after a release changes the layout's directory too, so that versions never meet.
FORMAT = 2
MANIFEST = "manifest.json"

# A longer string of a key is kept in the manifest as its length and hash: the emitted text is a file anyway.
_LONGEST_KEY_TEXT = 200
# No manifest of ours comes near; a larger file is garbage and is not read into memory.
_LARGEST_MANIFEST_BYTES = 4 << 20
_FOREIGN_WRITE = 0o022
# What says that something else stands where a file was, or that its bytes cannot be had; the rest (too many open
# files, no memory) says nothing of the entry.
_UNREADABLE_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE})
_DAMAGE_ERRNOS = _UNREADABLE_ERRNOS | {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENXIO,
    errno.ENODEV,
    errno.EISDIR,
}


Stamps = tuple[tuple[str, int, int, int, int], ...]


class CorruptEntryError(Exception):
    """An entry that must not be used, with what is wrong; it never leaves the store."""


class UnreadableEntryError(CorruptEntryError):
    """An entry of which nothing is known, since the disk would not read it; it may be whole."""


@value
class FileRecord:
    """What the manifest says of one file; `name` is its path in the entry, with `/`."""

    name: str
    nbytes: int
    sha256: str


@value
class Manifest:
    """The content of `manifest.json`. `key` is for people: long texts in it are shortened."""

    kind: str
    digest: str
    key: Mapping[str, object]
    files: tuple[FileRecord, ...]

    @property
    def nbytes(self) -> int:
        """Size of the files, without the manifest."""
        return sum(f.nbytes for f in self.files)


def seal(directory: Path, kind: str, digest: str, key: Mapping[str, object]) -> Manifest:
    """Flush every file of `directory` to disk, then write its manifest.

    Raises InternalError when the builder left something that is not a plain file or directory, OSError
    when the disk refuses.
    """
    records: list[FileRecord] = []
    for folder, folders, names in os.walk(directory, onerror=_raise):
        for name in (*folders, *names):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                relative = path.relative_to(directory).as_posix()
                records.append(record_file(path, relative))
            elif not stat.S_ISDIR(mode):
                raise InternalError(f"the builder of a {kind} entry left {name!r}, which is not a plain file")
        sync_directory(Path(folder))
    if any(record.name == MANIFEST for record in records):
        raise InternalError(
            f"the builder of a {kind} entry wrote {MANIFEST}, a name the store keeps for itself"
        )
    manifest = Manifest(kind, digest, _for_people(key), tuple(sorted(records, key=lambda r: r.name)))
    write_file(directory / MANIFEST, _to_json(manifest))
    sync_directory(directory)
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """The manifest of an entry.

    Checks the manifest against the directory's place in the cache, not the files (`check_files` does).
    Raises CorruptEntryError.
    """
    if directory.is_symlink() or not directory.is_dir():
        raise CorruptEntryError("it is not a directory")
    data = read_at_most(directory / MANIFEST, _LARGEST_MANIFEST_BYTES)
    try:
        manifest = _from_json(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptEntryError(f"its manifest cannot be read: {error!r}") from None
    if manifest.digest != directory.name or manifest.kind != directory.parent.parent.name:
        raise CorruptEntryError("its manifest belongs to another entry")
    return manifest


def check_files(directory: Path, manifest: Manifest) -> None:
    """Compare every file with the manifest, byte for byte. Raises CorruptEntryError.

    Files the manifest does not name (a bytecode cache that a loader left) are not looked at.
    """
    for record in manifest.files:
        checked_bytes(directory, record)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and flush it to disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)


def read_document(directory: Path, name: str) -> bytes:
    """The bytes of one file of an entry, compared with the manifest as they are read. Raises CorruptEntryError."""
    record = next((r for r in read_manifest(directory).files if r.name == name), None)
    if record is None:
        raise CorruptEntryError(f"its manifest does not name {name}")
    return checked_bytes(directory, record)


def stamps(directory: Path, manifest: Manifest) -> Stamps:
    """What the file system says of every file. Equal stamps, equal bytes, as far as anyone writes through it.

    Times are compared, never ordered; those of the manifest are left out, since a use sets them.
    """
    found: list[tuple[str, int, int, int, int]] = []
    for name in (MANIFEST, *(f.name for f in manifest.files)):
        there = (directory / name).lstat()
        is_used = name == MANIFEST
        written, changed = (0, 0) if is_used else (there.st_mtime_ns, there.st_ctime_ns)
        found.append((name, there.st_ino, there.st_size, written, changed))
    return tuple(found)


def sync_directory(path: Path) -> None:
    """Flush the names of a directory to disk, where the file system can."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(fd)


def checked_bytes(directory: Path, record: FileRecord, trusted: int = 0) -> bytes:
    """The bytes of a file that are those of its record; the user `trusted` may own it. Raises CorruptEntryError."""
    for parent in PurePosixPath(record.name).parents[:-1]:
        if (directory / parent).is_symlink():
            raise CorruptEntryError(f"{parent} is not a plain directory")
    data = read_at_most(directory / record.name, record.nbytes, trusted)
    if len(data) != record.nbytes:
        raise CorruptEntryError(f"{record.name} has {len(data)} bytes, not {record.nbytes}")
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise CorruptEntryError(f"{record.name} has changed since it was written")
    return data


def _raise(error: OSError) -> None:
    raise error  # `os.walk` would leave out what it cannot list, and the manifest with it


def record_file(path: Path, name: str) -> FileRecord:
    """Flush a file to disk, take from others the right to write to it, and note its bytes under `name`."""
    with path.open("rb") as file:
        data = file.read()
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & _FOREIGN_WRITE:  # a compiler under a loose umask
            os.fchmod(file.fileno(), mode & ~_FOREIGN_WRITE)
        os.fsync(file.fileno())
    return FileRecord(name, len(data), hashlib.sha256(data).hexdigest())


def read_at_most(path: Path, limit: int, trusted: int = 0) -> bytes:
    """At most `limit + 1` bytes of a plain file; a link, a pipe or a missing file is a corrupt entry."""
    try:
        # O_NONBLOCK: a pipe put in the place of a file must not make us wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        file = os.fdopen(fd, "rb")
        with file:
            problem = file_problem(os.fstat(fd), trusted)
            if problem is not None:
                raise CorruptEntryError(f"{path.name} cannot be trusted: {problem}")
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise CorruptEntryError(f"{path.name} is missing") from None
    except OSError as error:
        if error.errno not in _DAMAGE_ERRNOS:
            raise
        kind = UnreadableEntryError if error.errno in _UNREADABLE_ERRNOS else CorruptEntryError
        raise kind(f"{path.name} cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise CorruptEntryError(f"{path.name} is longer than it was when written")
    return data


def _to_json(manifest: Manifest) -> bytes:
    document: dict[str, object] = {
        "format": FORMAT,
        "kind": manifest.kind,
        "digest": manifest.digest,
        "key": manifest.key,
        "files": {f.name: {"bytes": f.nbytes, "sha256": f.sha256} for f in manifest.files},
    }
    document["sha256"] = own_hash(document)
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def own_hash(document: Mapping[str, object]) -> str:
    """The hash of all the manifest says, so that it vouches for itself as well."""
    rest = {name: item for name, item in document.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _from_json(document: Any) -> Manifest:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']!r}, not {FORMAT}")
    if document["sha256"] != own_hash(document):
        raise ValueError("it has changed since it was written")
    files: list[FileRecord] = []
    for name, entry in document["files"].items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.as_posix() != name or name in (".", MANIFEST):
            raise ValueError(f"file name {name!r}")
        nbytes, sha256 = entry["bytes"], entry["sha256"]
        if type(nbytes) is not int or nbytes < 0 or not isinstance(sha256, str):
            raise ValueError(f"record of {name!r}")
        files.append(FileRecord(name, nbytes, sha256))
    kind, digest, key = document["kind"], document["digest"], document["key"]
    if not (isinstance(kind, str) and isinstance(digest, str) and isinstance(key, dict)):
        raise ValueError("kind, digest or key")
    return Manifest(kind, digest, cast("dict[str, object]", key), tuple(files))


def _for_people(key: Mapping[str, object]) -> dict[str, object]:
    shortened = _shorten(plain(key))
    assert isinstance(shortened, dict)
    return cast("dict[str, object]", shortened)


def _shorten(value: object) -> object:
    match value:
        case str() if len(value) > _LONGEST_KEY_TEXT:
            sha = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
            return f"{len(value)} characters, sha256 {sha}"
        case dict():
            return {name: _shorten(item) for name, item in cast("dict[str, object]", value).items()}
        case list():
            return [_shorten(item) for item in cast("list[object]", value)]
        case _:
            return value
