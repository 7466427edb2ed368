"""Program text with positions: from `ast` nodes to `Loc`s, and the tokens that `ast` throws away."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from bisect import bisect_left
from functools import cached_property
from itertools import accumulate

from attngen.lang.loc import Loc

# `ast` ends a line at these and nowhere else; `str.splitlines` would also split at form feeds and U+2028.
_LINE_END = re.compile(r"\r\n|\r|\n")
_NOT_CODE = (tokenize.COMMENT, tokenize.NL)


class Source:
    """One program text. `ast` counts columns in UTF-8 bytes; everything here counts characters."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.lines: list[str] = _LINE_END.split(text)
        self._byte_starts: dict[int, list[int]] = {}

    def line(self, number: int) -> str:
        """The text of a line, counted from 1; empty outside the text."""
        return self.lines[number - 1] if 1 <= number <= len(self.lines) else ""

    def column(self, number: int, byte_offset: int) -> int:
        """The character column of a byte offset in a line."""
        line = self.line(number)
        if line.isascii():
            return min(byte_offset, len(line))
        if number not in self._byte_starts:
            sizes = (len(char.encode("utf-8")) for char in line)
            self._byte_starts[number] = list(accumulate(sizes, initial=0))
        return min(bisect_left(self._byte_starts[number], byte_offset), len(line))

    def loc(self, node: ast.expr | ast.stmt) -> Loc:
        """The place of a node; one that spans several lines is marked to the end of its first."""
        text = self.line(node.lineno)
        col = self.column(node.lineno, node.col_offset)
        if node.end_lineno == node.lineno and node.end_col_offset is not None:
            end = self.column(node.lineno, node.end_col_offset)
        else:
            end = len(text)
        return Loc(self.file, node.lineno, col, max(end, col + 1), text)

    def loc_at(self, line: int, col: int, end_col: int | None = None) -> Loc:
        """A place given by line (from 1) and character column (from 0), moved into the text."""
        line = min(max(line, 1), len(self.lines))
        text = self.line(line)
        col = min(max(col, 0), len(text))
        end = col + 1 if end_col is None or end_col <= col else min(end_col, max(len(text), col + 1))
        return Loc(self.file, line, col, end, text)

    def token_before(self, node: ast.expr) -> str:
        """The token in front of a node, comments and line ends left out; empty at the start."""
        return self._tokens_before.get((node.lineno, self.column(node.lineno, node.col_offset)), "")

    @cached_property
    def _tokens_before(self) -> dict[tuple[int, int], str]:
        before: dict[tuple[int, int], str] = {}
        last = ""
        # The text has been through `ast.parse`, so this does not fail; line ends are made uniform to keep
        # the line numbers of `ast`.
        for token in tokenize.generate_tokens(io.StringIO("\n".join(self.lines)).readline):
            if token.type in _NOT_CODE:
                continue
            before[token.start] = last
            last = token.string
        return before
