"""Artefacts of strangers: manifests and directories that were real, with something changed.

bytes of a manifest flipped, cut, repeated    ->  ArtefactError, or, of spaces, the same manifest
values exchanged, its own hash made anew      ->  ArtefactError, or a manifest that is read back from what it writes
files of a directory changed or exchanged     ->  ArtefactError as soon as one of them is read
documents changed, all hashes made anew       ->  an error of ours, or an artefact that describes itself
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import attngen
from attngen import analysed, forms
from attngen.artefact.manifest import DOCUMENTS, MANIFEST, manifest_from_bytes, manifest_to_bytes
from attngen.artefact.read import check_all
from attngen.errors import ArtefactError
from tests.artefact.rewrite import replace_file, sealed

_WORDS = (
    "", "..", "../x", "/etc/passwd", "a/../b", "a//b", "a\0b", "a\nb", "\ud800", "\u202e", "λ", "x" * 300, "x" * 70_000,
    "cpu", "sm_90", "float32", "__class__", "None", "nan", "-1", "0x1.8p+0", "0" * 64, "%s%n", "*/", '"""', "{{ 1 }}",
)  # fmt: skip
_BYTES = (
    b"\0",
    b"\xff",
    b"[" * 3000,
    b'{"a":' * 3000,
    b" ",
    b"\n",
    b"NaN",
    b"1e999",
    b"1" * 5000,
    b'"a":1,',
    b"\xef\xbb\xbf",
)
_NUMBERS = (
    0, 1, -1, 2, 7, 16, 255, 2**15, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 10**4000, 0.5, -0.0, 1e308,
    True, False,
)  # fmt: skip


@cache
def _home() -> Path:
    """Real artefacts: lists and several forms, boxes on a grid, and bound tensors."""
    import atexit

    folder = Path(tempfile.mkdtemp(prefix="attngen-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    attngen.load("sliding_window_sink", ("O", "LSE")).compile(
        "cpu", "fp32", 16, path=folder, forms=("one_pass", "local_then_merge")
    )
    attngen.load("neighborhood_2d").compile("cpu", "fp32", 16, path=folder)
    attngen.load("alibi", slope=torch.tensor([0.5, 0.25])).compile("cpu", "fp32", 16, path=folder)
    return folder


@cache
def seeds() -> tuple[Path, ...]:
    """The directories of the real artefacts."""
    return tuple(sorted(p.parent for p in _home().glob(f"*/{MANIFEST}")))


@cache
def _manifest(folder: Path) -> bytes:
    return (folder / MANIFEST).read_bytes()


def make(rng: random.Random, held: list[str]) -> Callable[[], None]:
    """One artefact with something changed, and what must then go well; making it takes its time."""
    while True:
        try:
            return rng.choice((_of_bytes, _of_values, _of_values, _of_directory, _of_documents))(rng, held)
        except RecursionError:  # it came to nest deeper than Python writes
            held.clear()


def one(rng: random.Random, held: list[str]) -> None:
    """Make an artefact and try it."""
    make(rng, held)()


def _of_bytes(rng: random.Random, held: list[str]) -> Callable[[], None]:
    """What is read of changed bytes is what was written: spaces may differ, and nothing else."""
    folder = rng.choice(seeds())
    data = bytearray(_manifest(folder))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0 if at < len(data):
                data[at] = rng.randrange(256)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + rng.randint(1, 80)]
            case 3:
                data[at:at] = data[at : at + rng.randint(1, 400)]
            case _:
                data[at:at] = rng.choice(_BYTES)
    held.append(repr(bytes(data)))

    def attempt() -> None:
        assert manifest_from_bytes(bytes(data)) == manifest_from_bytes(_manifest(folder))

    return attempt


def _of_values(rng: random.Random, held: list[str]) -> Callable[[], None]:
    """What is accepted is whole: written and read again it is the same."""
    document = json.loads(_manifest(rng.choice(seeds())))
    for _ in range(rng.randint(1, 3)):
        _change(rng, document)
    data = sealed(document)
    held.append(repr(data))

    def attempt() -> None:
        found = manifest_from_bytes(data)
        again = manifest_from_bytes(manifest_to_bytes(found))
        assert _plain(again) == _plain(found)

    return attempt


def _plain(read: object) -> object:
    """What was read, to be compared: nan is not equal to itself, and equal sets may be shown in any order."""
    if is_dataclass(read):
        return [type(read).__name__, *((f.name, _plain(getattr(read, f.name))) for f in fields(read))]
    if isinstance(read, frozenset):
        return sorted(map(repr, read))
    if isinstance(read, Mapping):
        return [(name, _plain(part)) for name, part in read.items()]
    return [_plain(part) for part in read] if isinstance(read, tuple) else repr(read)


def _of_directory(rng: random.Random, held: list[str]) -> Callable[[], None]:
    """A file that is not as it was built is never read: `check_all` must find it, whatever it is."""
    folder = _copied(rng)
    what = _damage(rng, folder)
    held.append(f"{folder.name}: {what}")

    def attempt() -> None:
        try:
            check_all(folder)
        except ArtefactError:
            pass
        else:
            raise AssertionError(f"damage was not found: {what}")
        artefact = attngen.load_artefact(folder)
        query = torch.zeros(1, 2, 9, 16)
        sizes = dict.fromkeys((p.name for p in artefact.program.params if p.name.startswith("size_")), 3)
        artefact(query, query, query, **sizes)
        # The call reads no text of a kernel, and only the kernel of its own form.
        unread = what.endswith(("kernel.cpp", ".h", ".c")) or "local_then_merge" in what
        assert unread, f"it was used in spite of {what}"

    return attempt


def _of_documents(rng: random.Random, held: list[str]) -> Callable[[], None]:
    """Documents and manifest that agree: loading ends in our error, or what is loaded can be looked at."""
    folder = _copied(rng)
    name = DOCUMENTS if rng.random() < 0.7 else MANIFEST
    document = json.loads((folder / name).read_bytes())
    for _ in range(rng.randint(1, 3)):
        _change(rng, document if name == DOCUMENTS else document["program"])
    if name == DOCUMENTS:
        data = json.dumps(document).encode()
        replace_file(folder, DOCUMENTS, data)
    else:
        data = sealed(document)
        (folder / MANIFEST).write_bytes(data)
    held.append(f"{folder.name}: {data!r}")

    def attempt() -> None:
        analysed.forget()
        forms.forget()
        artefact = attngen.load_artefact(folder)
        assert artefact.text() == artefact.manifest.text
        repr(artefact)
        artefact.derivation()

    return attempt


def _copied(rng: random.Random) -> Path:
    """A copy of a real artefact; there is one at a time."""
    seed = rng.choice(seeds())
    shutil.rmtree(_home() / "copies", ignore_errors=True)
    return Path(shutil.copytree(seed, _home() / "copies" / seed.name))


def _damage(rng: random.Random, folder: Path) -> str:
    """Do something to a file or a folder of an artefact; what."""
    names = sorted(json.loads((folder / MANIFEST).read_bytes())["files"])
    name = rng.choice((MANIFEST, *names))
    path = folder / name
    data = path.read_bytes()
    other = rng.choice([n for n in (MANIFEST, *names) if (folder / n).read_bytes() != data])
    acts: dict[str, Callable[[], object]] = {
        "cut": lambda: path.write_bytes(data[: rng.randrange(len(data) // 2)]),
        "longer": lambda: path.write_bytes(data + b"\1"),
        "flipped": lambda: path.write_bytes(_flipped(rng, data)),
        "exchanged": lambda: (path.write_bytes((folder / other).read_bytes()), (folder / other).write_bytes(data)),
        "missing": path.unlink,
        "link": lambda: (path.rename(folder.parent / "moved"), path.symlink_to(folder.parent / "moved")),
        "endless": lambda: (path.unlink(), path.symlink_to(path.name)),
        "pipe": lambda: (path.unlink(), os.mkfifo(path)),
        "device": lambda: (path.unlink(), path.symlink_to("/dev/zero")),
        "folder": lambda: (path.unlink(), path.mkdir()),
        "writable": lambda: path.chmod(0o666),
    }  # fmt: skip
    act = rng.choice(sorted(acts))
    acts[act]()
    return f"{act} {other} {name}" if act == "exchanged" else f"{act} {name}"


def _flipped(rng: random.Random, data: bytes) -> bytes:
    """One bit changed, where that changes what the bytes say."""
    at = rng.randrange(len(data))
    while data[at : at + 1].isspace():
        at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _change(rng: random.Random, document: Any) -> None:
    """Exchange, retype, nest, repeat or drop one value somewhere in a document."""
    places = list(_places(document))
    if not places:
        return
    at, key = rng.choice(places)
    match rng.randrange(8):
        case 0:
            at[key] = rng.choice(_WORDS)
        case 1:
            at[key] = rng.choice(_NUMBERS)
        case 2:
            at[key] = rng.choice(({}, [], None, [[]], {"a": 1}, {"float": "0x1p+99999"}))
        case 3:
            other, name = rng.choice(places)
            at[key] = copy.deepcopy(other[name])
        case 4:
            at[key] = [at[key]] if rng.random() < 0.5 else {"x": at[key]}
        case 5:
            nested: Any = at[key]
            for _ in range(rng.choice((5, 100, 450))):
                nested = [nested]
            at[key] = nested
        case 6 if isinstance(at, dict):
            if rng.random() < 0.5:
                del at[key]
            else:
                at[rng.choice(_WORDS)] = at.pop(key)
        case _:
            if isinstance(at, list):
                at[key:key] = [at[key]] * rng.choice(
                    (1, 5, 5 if isinstance(at[key], dict | list) else 70_000)
                )
            else:
                at[key] = str(at[key])


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every member and item of a document: where it is, and under which name."""
    level = [document]
    while level:
        found = level.pop()
        keys = list(found) if isinstance(found, dict) else range(len(found))
        for key in keys:
            yield found, key
            if isinstance(found[key], dict | list):
                level.append(found[key])
