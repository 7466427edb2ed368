"""Make an artefact of built kernels: the documents a call needs, the C interface, and last the manifest; then its name.

    .causal-x1y2z3/   sm_90/bf16-d128/one_pass-0/kernel.{py,cubin,ptx} ...      while it is built
->
    causal/           the same, documents.json, causal.h, causal.c, manifest.json

The directory gets its name in one step, so that nobody ever loads a part of it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from attngen.analysed import Analysed
from attngen.aot.describe import derivation, schedule, versions
from attngen.aot.list_kernels import Part
from attngen.aot.print_c import c_files
from attngen.aot.rehearse import rehearse
from attngen.aot.request import Request
from attngen.artefact.document import Doc
from attngen.artefact.manifest import (
    DOCUMENTS,
    MANIFEST,
    Bound,
    Form,
    Kernel,
    Manifest,
    kernel_from_json,
    manifest_from_bytes,
    manifest_to_bytes,
)
from attngen.errors import ArtefactError
from attngen.lang.print import print_program
from attngen.lang.serialize import program_to_json
from attngen.store.entry import FileRecord, record_file, sync_directory, write_file

_FOREIGN_WRITE = 0o022
_VALUES = "values"


def write_artefact(
    stage: Path,
    final: Path,
    analysed: Analysed,
    values: Mapping[str, object],
    request: Request,
    forms: tuple[Form, ...],
    parts: tuple[Part, ...],
    kernels: Sequence[Mapping[str, Any]],
) -> Manifest:
    """Complete the artefact in `stage`, which holds the files of `kernels`, and name it `final`.

    An artefact that is there is replaced. Raises ArtefactError for anything else that is there, OSError.
    """
    program = analysed.as_written
    bound = _write_tensors(stage, values)
    built = tuple(sorted((_kernel(k) for k in kernels), key=lambda k: (k.target.kind, k.target.arch, k.name)))
    documents = rehearse(program, forms, built)
    write_file(stage / DOCUMENTS, _json({"documents": documents.known}))
    manifest = Manifest(
        name=program.name,
        title=next(iter(program.doc.strip().splitlines()), ""),
        text=print_program(program, doc=False),
        program=without_places(program_to_json(program)),
        outputs=program.outputs,
        values={n: v for n, v in values.items() if isinstance(v, int | float)},
        tensors=bound,
        forms=forms,
        derivation=derivation(analysed),
        schedule=schedule(parts),
        versions=versions(request.targets),
        kernels=built,
        files=(),
    )
    for name, text in c_files(manifest).items():
        write_file(stage / name, text.encode())
    manifest = replace(manifest, files=_records(stage))
    write_file(stage / MANIFEST, data := manifest_to_bytes(manifest))
    manifest_from_bytes(data)  # what cannot be read back was never written
    sync_directory(stage)
    _close(stage)
    _rename(stage, final)
    return manifest


def new_stage(out: Path, name: str) -> Path:
    """A folder in which an artefact is built, beside where it will be. Raises ArtefactError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{name}-", dir=out))
    except OSError as error:
        raise ArtefactError(
            f"nothing can be written to {out}: {error.strerror}", hint="name another directory with -o"
        ) from error


def without_places(program: dict[str, Any]) -> dict[str, Any]:
    """The program without where its declarations stand, which is a path of the machine that built it."""
    return {
        **program,
        "params": [[*fields[:-1], None] for fields in program["params"]],
        "tensors": [[*fields[:-1], None] for fields in program["tensors"]],
    }


def _kernel(document: Mapping[str, Any]) -> Kernel:
    files = set(cast("dict[str, str]", document["files"]).values())
    return kernel_from_json(Doc(document, "a built kernel"), files)


def _write_tensors(stage: Path, values: Mapping[str, object]) -> dict[str, Bound]:
    found: dict[str, Bound] = {}
    for name, tensor in values.items():
        if isinstance(tensor, torch.Tensor):
            path = f"{_VALUES}/{name}.bin"
            (stage / _VALUES).mkdir(exist_ok=True)
            plain = tensor.detach().cpu().contiguous()
            data = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
            write_file(stage / path, data)
            found[name] = Bound(str(plain.dtype).removeprefix("torch."), tuple(plain.shape), path)
    return found


def _records(stage: Path) -> tuple[FileRecord, ...]:
    paths = sorted(p for p in stage.rglob("*") if p.is_file())
    return tuple(record_file(p, p.relative_to(stage).as_posix()) for p in paths)


def _close(stage: Path) -> None:
    """Let everyone read, and nobody else write: a loader refuses what others could have written."""
    for folder, _, names in os.walk(stage):
        Path(folder).chmod(0o755)
        for name in names:
            Path(folder, name).chmod(0o644)


def _rename(stage: Path, final: Path) -> None:
    if final.exists() and not (final / MANIFEST).is_file():
        raise ArtefactError(
            f"{final} is in the way: it is no artefact", hint="name another directory with -o"
        )
    if not final.exists():
        stage.rename(final)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{final.name}-old-", dir=final.parent))
    final.rename(old / final.name)
    stage.rename(final)
    shutil.rmtree(old)


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n").encode()
