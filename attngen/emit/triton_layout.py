"""Lay out statements as a formatter would: long ones are split at their loosest operator, inside parentheses."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 100
_OPERATORS = (" | ", " & ", " + ", " * ")


def statement(name: str, text: str, indent: int) -> str:
    """`name = text` on one line if it fits, else split."""
    pad = " " * indent
    line = f"{pad}{name} = {text}"
    if len(line) <= WIDTH:
        return line
    for operator in _OPERATORS:
        parts = split_top(text, operator)
        if len(parts) > 1:
            inner = f"\n{pad}    {operator.strip()} ".join(parts)
            return f"{pad}{name} = (\n{pad}    {inner}\n{pad})"
    head, _, rest = text.partition("(")
    if rest.endswith(")") and len(split_top(rest[:-1], ")")) == 1:
        return call_lines(f"{pad}{name} = {head}", split_top(rest[:-1], ", "), indent)
    return line


def call_lines(head: str, args: Sequence[str], indent: int) -> str:
    """`head(args)` with the arguments on a line of their own, or one a line."""
    pad = " " * indent
    together = f"{pad}    {', '.join(args)}"
    if len(together) <= WIDTH:
        return f"{head}(\n{together}\n{pad})"
    return f"{head}(\n" + "".join(f"{pad}    {a},\n" for a in args) + f"{pad})"


def split_top(text: str, separator: str) -> list[str]:
    """The parts of `text` between occurrences of `separator` outside all brackets."""
    parts, depth, begin, at = list[str](), 0, 0, 0
    while at < len(text):
        if depth == 0 and text.startswith(separator, at):
            parts.append(text[begin:at])
            at += len(separator)
            begin = at
            continue
        depth += (text[at] in "([") - (text[at] in ")]")
        at += 1
    return [*parts, text[begin:]]
