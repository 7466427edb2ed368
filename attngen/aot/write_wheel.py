"""Put artefacts into a wheel: a zip file that pip installs, without a line of code in it.

causal/manifest.json, causal/cpu-avx2/...
->
attngen_artefacts_mine/__init__.py          a docstring
attngen_artefacts_mine/index.json           which programs they compute, so that nobody reads all manifests
attngen_artefacts_mine/causal/...           the artefact: the files that its manifest vouches for, and no other
attngen_artefacts_mine-1.0.dist-info/...    METADATA, WHEEL, entry_points.txt, RECORD

Equal inputs give equal bytes: names are sorted, and no time or machine is written down.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import stat
import sysconfig
import tempfile
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import attngen
from attngen.artefact.installed import GROUP, INDEX, PACKAGE_PREFIX
from attngen.artefact.manifest import MANIFEST
from attngen.artefact.read import Opened, artefacts_in, open_artefact
from attngen.errors import ArtefactError, ParameterError

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST_NAME = 50
# The public versions of PEP 440 in their normal form.
_VERSION = re.compile(
    r"(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){0,5}((a|b|rc)[0-9]{1,8})?(\.post[0-9]{1,8})?(\.dev[0-9]{1,8})?"
)
_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can tell


def write_wheel(artefacts: Sequence[Path], name: str, version: str, out: Path) -> Path:
    """The wheel `attngen_artefacts_<name>` of artefacts, or of all artefacts in their folders, in `out`; its path.

    Every file is compared with its manifest first. Raises ParameterError for a name or a version that cannot be one,
    ArtefactError for what is no artefact, was changed, or is there twice.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise ParameterError(
            f"{name!r} cannot name a package",
            hint=f"lower-case letters, digits and single underscores, at most {_LONGEST_NAME}, a letter first",
        )
    if not _VERSION.fullmatch(version):
        raise ParameterError(f"{version!r} is no version", hint="write one as 1.0 or 2.1rc3")
    opened = _opened(artefacts)
    package = f"{PACKAGE_PREFIX}{name}"
    info = f"{package}-{version}.dist-info"
    tag = _tag(opened)
    files = {f"{package}/__init__.py": _docstring(opened), f"{package}/{INDEX}": _index(opened)}
    for one in opened:
        folder = f"{package}/{one.manifest.name}"
        files[f"{folder}/{MANIFEST}"] = one.text
        files |= {f"{folder}/{f.name}": one.data(f.name) for f in one.manifest.files}
    files |= {
        f"{info}/METADATA": _metadata(name, version, opened),
        f"{info}/WHEEL": _wheel(tag),
        f"{info}/entry_points.txt": f"[{GROUP}]\n{name} = {package}\n".encode(),
    }
    path = out / f"{package}-{version}-{tag}.whl"
    _write(path, {**files, f"{info}/RECORD": _record(files, f"{info}/RECORD")})
    return path


def _opened(artefacts: Sequence[Path]) -> list[Opened]:
    """The artefacts by name, each verified."""
    opened = [open_artefact(found) for path in artefacts for found in artefacts_in(path)]
    if not opened:
        raise ParameterError("there is nothing to package: no artefact is given")
    opened.sort(key=lambda o: o.manifest.name)
    for one, other in pairwise(opened):
        if one.manifest.name == other.manifest.name:
            raise ArtefactError(
                f"{one.directory} and {other.directory} are both called {one.manifest.name}",
                hint="put them into two wheels, or build one artefact for all targets",
            )
    return opened


def _tag(opened: Sequence[Opened]) -> str:
    """What may install it: anything, or the machines that run the shared objects in it."""
    if all(k.target.kind != "cpu" for o in opened for k in o.manifest.kernels):
        return "py3-none-any"
    platform = re.sub(r"[^A-Za-z0-9]", "_", sysconfig.get_platform())
    return f"py3-none-{platform}"


def _docstring(opened: Sequence[Opened]) -> bytes:
    names = ", ".join(o.manifest.name for o in opened)  # identifiers
    return f'"""Kernels that attngen built ahead of time: {names}."""\n'.encode()


def _index(opened: Sequence[Opened]) -> bytes:
    found = {
        o.manifest.name: {
            "programs": sorted({k.program for k in o.manifest.kernels}),
            "sources": o.manifest.versions.get("sources", ""),
        }
        for o in opened
    }
    return (json.dumps({"format": 1, "artefacts": found}, indent=1, sort_keys=True) + "\n").encode()


def _metadata(name: str, version: str, opened: Sequence[Opened]) -> bytes:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {PACKAGE_PREFIX}{name}".replace("_", "-"),
        f"Version: {version}",
        f"Summary: Kernels that attngen built ahead of time, of {len(opened)} programs",
        "Requires-Python: >=3.11",
        "Requires-Dist: attngen",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _wheel(tag: str) -> bytes:
    is_pure = "true" if tag.endswith("-any") else "false"
    version = attngen.__version__
    return (
        f"Wheel-Version: 1.0\nGenerator: attngen {version}\nRoot-Is-Purelib: {is_pure}\nTag: {tag}\n".encode()
    )


def _record(files: dict[str, bytes], own: str) -> bytes:
    lines = [f"{name},sha256={_urlsafe(data)},{len(data)}" for name, data in sorted(files.items())]
    return "".join(f"{line}\n" for line in [*lines, f"{own},,"]).encode()


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _write(path: Path, files: dict[str, bytes]) -> None:
    """The zip file, under its name in one step; the dist-info stands last, as the format recommends."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in sorted(files, key=lambda n: (".dist-info/" in n, n.endswith("/RECORD"), n)):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 3  # Unix, whose permissions these are
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as staged:
            staged.write(made.getvalue())
        Path(staged.name).chmod(0o644)
        Path(staged.name).replace(path)
    except OSError as error:
        raise ArtefactError(
            f"nothing can be written to {path.parent}: {error.strerror}", hint="name another directory"
        ) from error
