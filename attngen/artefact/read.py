"""Open an artefact: who could have written it, its manifest, and files whose bytes are those that were built."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from attngen.artefact.document import parse
from attngen.artefact.manifest import DOCUMENTS, MANIFEST, Manifest, manifest_from_bytes
from attngen.documents import Documents
from attngen.errors import ArtefactError
from attngen.lang.print import print_program
from attngen.lang.program import Program
from attngen.lang.serialize import program_from_json
from attngen.lang.verify import verify
from attngen.store.entry import CorruptEntryError, FileRecord, checked_bytes, read_at_most
from attngen.store.trust import check_artefact, check_file_of_artefact, owner_of_code
from attngen.value import value

if TYPE_CHECKING:
    import torch

_MOST_MANIFEST = 4 << 20


@value
class Opened:
    """An artefact's directory, and its manifest as it was read."""

    directory: Path
    manifest: Manifest
    text: bytes

    @property
    def digest(self) -> str:
        """The hash of the manifest: the name of the artefact's content."""
        return hashlib.sha256(self.text).hexdigest()

    def data(self, name: str) -> bytes:
        """The bytes of a file. Raises ArtefactError for others than those that the manifest vouches for."""
        return _checked(self.directory, self.manifest.file(name))

    def path(self, name: str) -> Path:
        """A file for a loader that reads it itself; its bytes were compared. Raises ArtefactError."""
        self.data(name)
        return self.directory / name


def open_artefact(path: str | Path) -> Opened:
    """The artefact in a directory, or the only one among its folders.

    Raises ArtefactError for what is no artefact, or not safe to load code from.
    """
    directory = _directory(Path(path))
    check_artefact(directory)
    try:
        check_file_of_artefact(directory, MANIFEST)
        data = read_at_most(directory / MANIFEST, _MOST_MANIFEST, owner_of_code())
    except CorruptEntryError as error:
        raise ArtefactError(f"{directory} cannot be loaded: {error}") from None
    except OSError as error:
        raise ArtefactError(f"{directory / MANIFEST} cannot be read: {error.strerror}") from error
    return Opened(directory, manifest_from_bytes(data), data)


def artefacts_in(path: Path) -> list[Path]:
    """The artefact that a path is, or those in the folder that it is. Raises ArtefactError where there is none."""
    try:
        if (path / MANIFEST).exists():
            return [path]
        found = sorted(p for p in path.iterdir() if p.name[:1] != "." and (p / MANIFEST).is_file())
    except OSError as error:
        raise ArtefactError(f"there is no artefact at {path}: {error.strerror}") from None
    if not found:
        raise ArtefactError(f"{path} is no artefact and holds none", hint="attngen compile writes artefacts")
    return found


def check_all(path: str | Path) -> Opened:
    """Open an artefact and compare every file. Raises ArtefactError for the first that is not as it was built."""
    opened = open_artefact(path)
    for record in opened.manifest.files:
        opened.data(record.name)
    return opened


def program_of(opened: Opened) -> Program:
    """The program of an artefact, verified as one that was just written, and the one whose text the manifest shows.

    Raises ArtefactError, and what `verify` raises of a program that makes no sense.
    """
    manifest = opened.manifest
    program = program_from_json(manifest.program)
    verify(program)
    told = (manifest.name, manifest.text, manifest.outputs)
    if (program.name, print_program(program, doc=False), program.outputs) != told:
        raise ArtefactError(f"{opened.directory} cannot be loaded: its program is not the one it shows")
    return program


def documents_of(opened: Opened) -> Documents:
    """The documents that a call asks for. Raises ArtefactError."""
    doc = parse(opened.data(DOCUMENTS), DOCUMENTS).only("documents")
    return Documents({name: item.object() for name, item in doc.field("documents").members()})


def tensors_of(opened: Opened) -> dict[str, torch.Tensor]:
    """The captured tensors that the specification was bound to. Raises ArtefactError."""
    import torch

    found: dict[str, torch.Tensor] = {}
    for name, bound in opened.manifest.tensors.items():
        dtype = getattr(torch, bound.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise ArtefactError(f"tensor {name} of {opened.manifest.name} has no dtype {bound.dtype!r}")
        data = bytearray(opened.data(bound.file))
        count = 1
        for extent in bound.shape:
            count *= extent
        if len(data) != count * dtype.itemsize:
            raise ArtefactError(f"tensor {name} of {opened.manifest.name} has {len(data)} bytes")
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        found[name] = flat.reshape(bound.shape)
    return found


def _directory(path: Path) -> Path:
    try:
        found = path.expanduser().resolve(strict=True)
        if (found / MANIFEST).exists() or not found.is_dir():
            return found
        inner = [p for p in found.iterdir() if not p.name.startswith(".") and (p / MANIFEST).is_file()]
    except (OSError, RuntimeError, ValueError) as error:
        raise ArtefactError(f"there is no artefact at {path}: {error}") from None
    if len(inner) == 1:
        return inner[0]
    if not inner:
        raise ArtefactError(f"{path} is no artefact: it has no {MANIFEST}", hint="attngen compile writes one")
    names = ", ".join(sorted(p.name for p in inner)[:8])
    raise ArtefactError(f"{path} holds {len(inner)} artefacts", hint=f"name one of them: {names}")


def _checked(directory: Path, record: FileRecord) -> bytes:
    try:
        check_file_of_artefact(directory, record.name)
        return checked_bytes(directory, record, owner_of_code())
    except CorruptEntryError as error:
        raise ArtefactError(
            f"{directory} cannot be loaded: {error}", hint="build it again, or copy it again"
        ) from None
    except OSError as error:
        raise ArtefactError(f"{directory / record.name} cannot be read: {error.strerror}") from error


__all__ = ["Opened", "artefacts_in", "check_all", "documents_of", "open_artefact", "program_of", "tensors_of"]
