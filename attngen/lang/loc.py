"""Source locations: where in the user's text a node came from, and how to show it."""

from __future__ import annotations

import unicodedata

from attngen.value import value

# Columns of a source line that an error shows.
_WIDTH = 120


@value
class Loc:
    """A span on one line of the user's source.

    `line` counts from 1, `col` and `end_col` from 0 in characters. `text` is the whole line, kept
    here because a program may come from a string that no file holds.
    """

    file: str
    line: int
    col: int
    end_col: int
    text: str

    def header(self) -> str:
        """`file:line:column`, with the column counted from 1 as editors do."""
        return f"{''.join(map(_shown, self.file))}:{self.line}:{self.col + 1}"

    def snippet(self) -> str:
        """The source line and carets under the span, aligned for wide characters and tabs.

        A long line is cut to the neighbourhood of the span, and what no terminal should see is shown as `?`.
        """
        line = "".join(map(_shown, self.text.rstrip("\r\n")))
        start = min(self.col, len(line))
        stop = max(start + 1, min(self.end_col, len(line)))
        first = max(0, min(start - _WIDTH // 2, len(line) - _WIDTH))
        shown = line[first : first + _WIDTH]
        start, stop = start - first, min(stop - first, _WIDTH)
        pad = sum(_width(c) for c in shown[:start])
        carets = max(1, sum(_width(c) for c in shown[start:stop]))
        return f"    {shown}\n    {' ' * pad}{'^' * carets}"


def _shown(char: str) -> str:
    if char == "\t":
        return " "
    return char if char.isprintable() else "?"


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
