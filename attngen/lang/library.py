"""Programs on disk: `.attn` files, those in `ir/` by name and any other by path."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from attngen.errors import ProgramNotFoundError, ProgramSyntaxError
from attngen.lang.loc import Loc
from attngen.lang.program import MAX_CHARS, Program
from attngen.resources import data_dir

SUFFIX = ".attn"
_BYTES_A_CHAR = 4


def program_names() -> tuple[str, ...]:
    """The programs in `ir/`, sorted."""
    return _names(data_dir("ir"))


def cascade_names() -> tuple[str, ...]:
    """The cascades in `ir/cascades/`, sorted."""
    return _names(data_dir("ir") / "cascades")


def load_program(name_or_path: str | Path) -> Program:
    """The program of a name in `ir/` or `ir/cascades/`, or of a path to a `.attn` file; not linked.

    Raises ProgramNotFoundError if there is no such program, and what `parse_program` raises.
    """
    return parse_file(find_program(name_or_path))


def find_program(name_or_path: str | Path) -> Path:
    """The file of a program in `ir/` or `ir/cascades/`, or the path that was given.

    A string is a path if it ends in `.attn` or holds a separator. Raises ProgramNotFoundError if there is
    no program of that name.
    """
    if isinstance(name_or_path, Path) or _is_path(name_or_path):
        return Path(name_or_path)
    if name_or_path in program_names():
        return data_dir("ir") / f"{name_or_path}{SUFFIX}"
    if name_or_path in cascade_names():
        return data_dir("ir") / "cascades" / f"{name_or_path}{SUFFIX}"
    known = program_names() + cascade_names()
    from attngen.lang.words import close_match

    raise ProgramNotFoundError(
        f"there is no program `{name_or_path}`", hint=_or_list(close_match(name_or_path, known), known)
    )


def load_cascade(name: str) -> Program:
    """The cascade of a name in `ir/cascades/`: what `link` takes. Raises ProgramNotFoundError."""
    find_cascade(name)
    return _shipped(f"cascades/{name}")


def find_cascade(name: str) -> Path:
    """The file of a cascade in `ir/cascades/`. Raises ProgramNotFoundError."""
    if name in cascade_names():
        return data_dir("ir") / "cascades" / f"{name}{SUFFIX}"
    from attngen.lang.words import close_match

    raise ProgramNotFoundError(
        f"there is no cascade `{name}`", hint=_or_list(close_match(name, cascade_names()), cascade_names())
    )


def parse_file(path: str | Path) -> Program:
    """The program in a file, named by its stem; not linked.

    Raises ProgramNotFoundError if the file cannot be read, ProgramSyntaxError if it is not UTF-8 text, and
    what `parse_program` raises.
    """
    path = Path(path)
    return parse_bytes(read_program(path), name=path.stem, file=str(path))


def read_program(path: Path) -> bytes:
    """The bytes of a program's file, but not more than a program may have. Raises ProgramNotFoundError."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_CHARS * _BYTES_A_CHAR + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ProgramNotFoundError(f"the program `{path}` cannot be read: {reason}") from None
    return data


def parse_bytes(data: bytes, *, name: str = "program", file: str = "<bytes>") -> Program:
    """The program of a file's bytes. Raises ProgramSyntaxError for bytes that are not UTF-8."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        loc = Loc(file, line, 0, 1, data.split(b"\n")[line - 1].decode("utf-8", "replace"))
        raise ProgramSyntaxError(f"the text is not UTF-8: {error.reason}", loc=loc) from None
    from attngen.lang.parse import parse_program

    return parse_program(text, name=name, file=file)


@cache
def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.iterdir() if path.suffix == SUFFIX))


@cache
def _shipped(relative: str) -> Program:
    """A program that ships with attngen: parsed once a process, since its file does not change."""
    return parse_file(data_dir("ir") / f"{relative}{SUFFIX}")


def _is_path(text: str) -> bool:
    return text.endswith(SUFFIX) or "/" in text or "\\" in text


def _or_list(close: str | None, known: tuple[str, ...]) -> str:
    return close or f"the names are {', '.join(known)}; a path ends in {SUFFIX}"
