"""Artefacts that are installed: packages that `attngen package` made, and directories that the settings name.

    site-packages/attngen_artefacts_mine-1.0.dist-info   ->  site-packages/attngen_artefacts_mine/causal, ...

Nothing of them is imported. Names of directories on `sys.path` are looked at once a process, and a package's files only
where there is one: most processes have none, and pay for a listing.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

from attngen.errors import ArtefactError
from attngen.store.settings import INSTALLED, settings
from attngen.value import value

log = logging.getLogger("attngen.artefact")

GROUP = "attngen.artefacts"
PACKAGE_PREFIX = "attngen_artefacts_"
INDEX = "index.json"
_INFO_SUFFIX = ".dist-info"
_MOST_INDEX = 4 << 20
_MOST_FOLDERS = 4096


@value
class Place:
    """An artefact that was found, unopened.

    programs  identities of what its kernels compute, as the package's index says; None where nothing says it. It is
              only believed where it leads to a manifest that says the same.
    sources   of the attngen that built it, as the index says; None where nothing says it.
    """

    path: Path
    programs: frozenset[str] | None = None
    sources: str | None = None


def installed() -> tuple[Place, ...]:
    """The artefacts in the places that ATTNGEN_ARTEFACTS names, in order."""
    return tuple(place for entry in settings().artefacts for place in _places(entry))


def find_artefact(path: str | Path) -> Path:
    """A path as it is; a name that is no path stands for the installed artefact of that program.

    Raises ArtefactError for a name of which there is none, or more than one.
    """
    if isinstance(path, Path) or not path.isidentifier() or Path(path).exists():
        return Path(path)
    return _named(path)


def _named(name: str) -> Path:
    found = [place.path for place in installed() if place.path.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ArtefactError(
            f"{len(found)} installed artefacts are called {name}",
            hint=f"load one by its path: {', '.join(map(str, found))}",
        )
    known = sorted({place.path.name for place in installed()})
    raise ArtefactError(
        f"{name!r} is neither a path nor the name of an installed artefact",
        hint=f"installed are {', '.join(known)}" if known else "attngen package makes a wheel of artefacts",
    )


@cache
def _places(entry: str) -> tuple[Place, ...]:
    if entry != INSTALLED:
        return tuple(_in_directory(Path(entry)))
    return tuple(place for package in _packages(tuple(sys.path)) for place in _in_package(package))


def _packages(path: tuple[str, ...]) -> Iterator[Path]:
    """The packages of the entry-point group, the first of each name; the current directory is not searched."""
    seen: set[str] = set()
    for folder in path:
        if not os.path.isabs(folder):  # noqa: PTH117 - pathlib is slow at start
            continue
        try:
            names = sorted(n for n in os.listdir(folder) if _is_info(n))  # noqa: PTH208
        except OSError:  # a zip file, or nothing at all
            continue
        for name in names:
            package = name.split("-", 1)[0]
            if package not in seen and _is_declared(Path(folder, name), package):
                seen.add(package)
                yield Path(folder, package)


def _is_info(name: str) -> bool:
    return name.startswith(PACKAGE_PREFIX) and name.endswith(_INFO_SUFFIX)


def _is_declared(info: Path, package: str) -> bool:
    from importlib.metadata import PathDistribution

    try:
        points = PathDistribution(info).entry_points.select(group=GROUP)
        return any(point.value == package for point in points)
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s cannot be read, and is passed over: %s", info, error)
        return False


def _in_package(package: Path) -> Iterator[Place]:
    """What the package's index names; all folders with a manifest where it has no index that can be read."""
    try:
        index = _index(package)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("the index of %s cannot be read: %s", package, error)
        yield from _in_directory(package)
        return
    yield from index


def _index(package: Path) -> list[Place]:
    from attngen.store.entry import CorruptEntryError, read_at_most

    try:
        document = cast("dict[str, Any]", json.loads(read_at_most(package / INDEX, _MOST_INDEX)))
    except CorruptEntryError as error:
        raise ValueError(str(error)) from None
    if document["format"] != 1:
        raise ValueError(f"format {document['format']!r}")
    found: list[Place] = []
    for name, entry in document["artefacts"].items():
        if not name.isidentifier():
            raise ValueError(f"artefact {name!r}")
        found.append(Place(package / name, frozenset(map(str, entry["programs"])), str(entry["sources"])))
    return found


def _in_directory(folder: Path) -> Iterator[Place]:
    """The artefact that a directory is, or those in it."""
    try:
        if (folder / "manifest.json").exists():
            yield Place(folder)
            return
        names = sorted(os.listdir(folder))[:_MOST_FOLDERS]  # noqa: PTH208
    except OSError as error:
        log.warning("ATTNGEN_ARTEFACTS names %s, which cannot be read: %s", folder, error.strerror)
        return
    for name in names:
        if name[:1] != "." and (folder / name / "manifest.json").is_file():
            yield Place(folder / name)
