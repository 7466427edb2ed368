"""Where in the user's source a symbolic operation happens, read from the running frames.

Frames of attngen's own tracer, of torch and of a few standard modules are skipped, so that a location
always names a line of the function being traced (or of a helper that it calls).
"""

from __future__ import annotations

import inspect
import linecache
import sys
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType, TracebackType

from attngen.lang.loc import Loc

# (line, end line, column, end column); columns count UTF-8 bytes, as the interpreter reports them.
Span = tuple[int, int, int, int]

_PACKAGE = Path(__file__).resolve().parent.parent
_TRACER = (
    str(_PACKAGE / "lang"),
    str(_PACKAGE / "capture.py"),
    str(_PACKAGE / "eager.py"),
    str(_PACKAGE / "tracing_mode.py"),
)


def boundary(fn: Callable[..., object], *args: object) -> object:
    """Call `fn`; a search for the user's frame from inside it never leaves this call."""
    return fn(*args)


def user_frame() -> FrameType | None:
    """The innermost frame of the user's code inside the current trace, or None."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is boundary.__code__:
            return None
        if not _internal(frame.f_code.co_filename):
            return frame
        frame = frame.f_back
    return None


def here() -> Loc | None:
    """The location of the operation that the user's code is executing now."""
    frame = user_frame()
    return None if frame is None else loc_at(frame.f_code, frame.f_lasti, frame.f_lineno)


def loc_of_traceback(trace: TracebackType | None) -> Loc | None:
    """The deepest place in the user's code that an exception passed through."""
    found: Loc | None = None
    while trace is not None:
        code = trace.tb_frame.f_code
        if not _internal(code.co_filename) and code is not boundary.__code__:
            found = loc_at(code, trace.tb_lasti, trace.tb_lineno)
        trace = trace.tb_next
    return found


def loc_of_function(fn: object) -> Loc | None:
    """The first line of a function's definition, for errors that no single operation causes."""
    code = getattr(fn, "__code__", None)
    if not isinstance(code, CodeType):
        return None
    line = code.co_firstlineno
    text = linecache.getline(code.co_filename, line)
    indent = len(text) - len(text.lstrip())
    return Loc(code.co_filename, line, indent, max(indent + 1, len(text.rstrip())), text)


def span_at(code: CodeType, instruction: int, line: int) -> Span | None:
    """The source span of one instruction; None when the interpreter keeps no columns."""
    entry = next(islice(code.co_positions(), instruction // 2, None), None)
    if entry is None:
        return None
    first, last, col, end_col = entry
    if col is None or end_col is None:
        return None
    first = line if first is None else first
    return first, first if last is None else last, col, end_col


def loc_at(code: CodeType, instruction: int, line: int) -> Loc:
    """The location of one instruction; the whole line when no columns are known."""
    span = span_at(code, instruction, line)
    if span is None:
        text = linecache.getline(code.co_filename, line)
        return Loc(code.co_filename, line, len(text) - len(text.lstrip()), len(text.rstrip()), text)
    first, last, col, end_col = span
    text = linecache.getline(code.co_filename, first)
    end = _characters(text, end_col) if last == first else len(text.rstrip())
    return Loc(code.co_filename, first, _characters(text, col), end, text)


def _characters(text: str, n_bytes: int) -> int:
    return n_bytes if text.isascii() else len(text.encode()[:n_bytes].decode(errors="ignore"))


@cache
def _internal(filename: str) -> bool:
    if filename.startswith(_TRACER):
        return True
    return any(filename.startswith(folder) for folder in _library_folders())


def _library_folders() -> list[str]:
    """Folders and files whose frames are never the user's: torch, and modules that only forward calls."""
    names = ("torch", "functools", "contextlib", "operator", "numpy")
    files = (getattr(sys.modules.get(name), "__file__", None) for name in names)
    return [str(Path(f).parent) + "/" if f.endswith("__init__.py") else f for f in files if f]
