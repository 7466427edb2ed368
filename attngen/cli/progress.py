"""A bar that says how far long work is."""

from __future__ import annotations

import shutil
import sys


class Bar:
    """A line on a terminal that says how far the work is; nothing where standard error is a file."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._text = ""

    def show(self, text: str, part: float) -> None:
        """Draw the line; an empty text keeps the one before."""
        self._text = text or self._text
        if not self._is_shown:
            return
        width = shutil.get_terminal_size().columns
        full = round(20 * part)
        line = f"[{'#' * full}{'.' * (20 - full)}] {part:4.0%}  {self._text}"
        sys.stderr.write("\r" + line[: width - 1].ljust(width - 1))
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._is_shown:
            sys.stderr.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            sys.stderr.flush()
