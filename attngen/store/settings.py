"""Every environment variable attngen reads, in one table, and the typed object the code uses instead.

Nothing else in the package looks at the environment. `settings()` reads it when asked, not on import, and
reads it again when a variable has changed, so a test or a notebook may set one at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from attngen.errors import SettingsError
from attngen.value import value

BACKENDS = ("auto", "cpu", "triton", "reference")
POLICIES = ("tune", "cached", "pinned", "off")
INSTALLED = "installed"  # in a search path of artefacts: the packages of this environment


@value
class Settings:
    """What the environment says. Fields are explained, once, in `VARIABLES`."""

    cache_dir: Path
    cache_limit_mb: int
    lock_timeout_s: float
    backend: str
    threads: int | None
    cxx: str | None
    compile_timeout_s: float
    derive_timeout_s: float
    verify: bool
    tune: str
    artefacts: tuple[str, ...]
    traceback: bool


@value
class Variable:
    """One environment variable.

    default   as a user would write it; shown in tables. The empty string stands for "not set".
    parse     from the text to the value of `Settings.<field>`; raises ValueError with what was expected.
    """

    name: str
    field: str
    default: str
    parse: Callable[[str], object]
    doc: str


def _bool(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("expected 1 or 0")


def _count(text: str) -> int:
    # int() would also take "1_0" and digits of other scripts, which a shell user never means.
    stripped = text.strip()
    if not (stripped.isascii() and stripped.isdecimal()) or int(stripped) < 1:
        raise ValueError("expected a whole number of at least 1")
    return int(stripped)


def _optional_count(text: str) -> int | None:
    return _count(text) if text.strip() else None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("expected a number of seconds") from None
    if not 0 <= value <= 1e9:  # also refuses nan
        raise ValueError("expected a number of seconds from 0 to 1e9")
    return value


def _optional_text(text: str) -> str | None:
    return text.strip() or None


def _backend(text: str) -> str:
    if text not in BACKENDS:
        raise ValueError(f"expected one of {', '.join(BACKENDS)}")
    return text


def _policy(text: str) -> str:
    name, colon, path = text.partition(":")
    if name not in POLICIES or (colon and (name != "pinned" or not path.strip() or "\0" in path)):
        raise ValueError(f"expected one of {', '.join(POLICIES)}, or pinned:FILE")
    return text


def _directory(text: str) -> Path:
    return _path(text) if text.strip() else _default_cache_dir()


def _path(text: str) -> Path:
    if "\0" in text:
        raise ValueError("expected a path")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError("expected a path whose ~ names a known user") from None
    return path.absolute()


def _search_path(text: str) -> tuple[str, ...]:
    if text.strip().lower() in ("0", "false", "no", "off", ""):
        return ()
    parts = [part.strip() for part in text.split(os.pathsep)]
    if not all(parts):
        raise ValueError(f"expected {INSTALLED}, directories, or both, with {os.pathsep} between them; or 0")
    return tuple(part if part == INSTALLED else str(_path(part)) for part in parts)


def _default_cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base and Path(base).is_absolute():  # the XDG rules say to ignore a relative one
        return Path(base) / "attngen"
    try:
        return Path.home() / ".cache" / "attngen"
    except RuntimeError:  # a container's made-up user
        return _temporary_cache_dir()


def _temporary_cache_dir() -> Path:
    """A directory of this user among the temporary files; the store refuses it if another user has made it."""
    import tempfile

    try:
        return Path(tempfile.gettempdir()) / f"attngen-{os.geteuid()}"
    except OSError:
        raise ValueError(
            "this user has neither a home directory nor one for temporary files, so the variable must name a directory"
        ) from None


VARIABLES: tuple[Variable, ...] = (
    Variable(
        "ATTNGEN_CACHE_DIR",
        "cache_dir",
        "",
        _directory,
        "where built kernels and derivations are kept; not set: XDG_CACHE_HOME/attngen or ~/.cache/attngen, "
        "and without a home directory attngen-<user id> among the temporary files",
    ),
    Variable(
        "ATTNGEN_CACHE_LIMIT_MB",
        "cache_limit_mb",
        "1024",
        _count,
        "size in MiB past which the cache drops the entries that were used longest ago",
    ),
    Variable(
        "ATTNGEN_LOCK_TIMEOUT_S",
        "lock_timeout_s",
        "120",
        _seconds,
        "how long to wait for another process that builds the same kernel before building it here too",
    ),
    Variable(
        "ATTNGEN_BACKEND",
        "backend",
        "auto",
        _backend,
        f"which backend runs a call: {', '.join(BACKENDS)}; auto chooses by the device of the tensors",
    ),
    Variable(
        "ATTNGEN_THREADS",
        "threads",
        "",
        _optional_count,
        "threads of the CPU backend; not set: as many as PyTorch uses",
    ),
    Variable(
        "ATTNGEN_CXX",
        "cxx",
        "",
        _optional_text,
        "the C++ compiler of the CPU backend; not set: CXX, else the first of c++, g++, clang++ on PATH",
    ),
    Variable(
        "ATTNGEN_COMPILE_TIMEOUT_S",
        "compile_timeout_s",
        "300",
        _seconds,
        "how long one run of a compiler may take before it is stopped",
    ),
    Variable(
        "ATTNGEN_DERIVE_TIMEOUT_S",
        "derive_timeout_s",
        "120",
        _seconds,
        "how long deriving a program, planning its tiles or lowering it may take before it is refused",
    ),
    Variable(
        "ATTNGEN_VERIFY",
        "verify",
        "0",
        _bool,
        "1: check the program after every stage",
    ),
    Variable(
        "ATTNGEN_TUNE",
        "tune",
        "cached",
        _policy,
        "how kernels are configured: cached takes what `attngen tune` measured, tune measures at the first call of a "
        "kind, pinned (or pinned:FILE) reads a table and never a measurement, off takes the defaults",
    ),
    Variable(
        "ATTNGEN_ARTEFACTS",
        "artefacts",
        INSTALLED,
        _search_path,
        "where kernels that were built ahead of time are looked for before one is built: installed stands for the "
        "packages that `attngen package` made, directories may stand beside it or instead, in order, with : between "
        "them; 0: nowhere",
    ),
    Variable(
        "ATTNGEN_TRACEBACK",
        "traceback",
        "0",
        _bool,
        "1: the command line shows the Python traceback of an error",
    ),
)


def settings() -> Settings:
    """The settings in force now. Raises SettingsError naming the variable whose value cannot be used."""
    get = os.environ.get
    # XDG_CACHE_HOME and HOME decide the default directory, so a change of theirs is a change of settings.
    return _read(tuple(get(v.name) for v in VARIABLES), get("XDG_CACHE_HOME"), get("HOME"))


@lru_cache(maxsize=8)
def _read(texts: tuple[str | None, ...], _xdg: str | None, _home: str | None) -> Settings:
    values: dict[str, Any] = {}
    for variable, text in zip(VARIABLES, texts, strict=True):
        given = variable.default if text is None else text
        try:
            values[variable.field] = variable.parse(given)
        except ValueError as error:
            raise SettingsError(
                f"{variable.name}={given!r} cannot be used: {error}",
                hint=f"{variable.name} is {variable.doc}",
            ) from None
    return Settings(**values)


def setting_rows() -> Iterator[tuple[str, str, str]]:
    """One `(name, value in force, meaning)` for every variable; a value that cannot be used says so."""
    for variable in VARIABLES:
        text = os.environ.get(variable.name)
        given = variable.default if text is None else text
        try:
            value = variable.parse(given)
        except ValueError as error:
            shown = f"{given!r}: {error}"
        else:
            shown = "not set" if value is None else given or str(value)
        origin = "" if text is None else " (set)"
        yield variable.name, shown + origin, variable.doc


def texts() -> dict[str, str]:
    """Every variable as it is written in the environment, or its default; nothing is checked."""
    return {v.name: os.environ.get(v.name, v.default) for v in VARIABLES}


def settings_table(*, markdown: bool = False) -> str:
    """The table of variables: for a terminal with the values in force, for documents with the defaults."""
    if markdown:
        head = ["| variable | default | meaning |", "| --- | --- | --- |"]
        cells = (
            f"| `{v.name}` | {f'`{v.default}`' if v.default else 'not set'} | {v.doc} |" for v in VARIABLES
        )
        return "\n".join([*head, *cells])
    rows = list(setting_rows())
    name_width = max(len(name) for name, _, _ in rows)
    return "\n".join(
        f"{name:<{name_width}}  {value}\n{'':<{name_width}}    {doc}" for name, value, doc in rows
    )
