"""Break long lines of generated Python the way a formatter would: at the outermost bracket, or at operators.

x = f(first, second)      ->      x = f(
first,
second,
)
x = a + b + c             ->      x = (
a
+ b
+ c
)
"""

from __future__ import annotations

WIDTH = 100
_OPEN, _CLOSE = "([{", ")]}"
# Loosest first; a line is broken at the loosest operator outside all brackets.
_OPERATORS = (
    (" == ", " != ", " <= ", " >= ", " < ", " > "),
    (" | ",),
    (" & ",),
    (" + ", " - "),
    (" * ", " // ", " / ", " % "),
)


def wrap(line: str, indent: int) -> list[str]:
    """`line` as lines of at most `WIDTH` columns once indented by `indent`, where that can be had."""
    inner = len(line) - len(line.lstrip())
    if inner:
        return [" " * inner + part for part in wrap(line.lstrip(), indent + inner)]
    if indent + len(line) <= WIDTH:
        return [line]
    name, equals, text = line.partition(" = ")
    if not equals or any(c in name for c in _OPEN):
        name, equals, text = "", "", line
    return _broken(f"{name}{equals}", text, "", indent)


def _broken(before: str, text: str, after: str, indent: int) -> list[str]:
    """`before + text + after`, broken inside `text` if it is too long."""
    if indent + len(before + text + after) <= WIDTH:
        return [before + text + after]
    inside = _parenthesised(text)
    if inside is not None:
        return [f"{before}(", *_operands(inside, indent + 4), f"){after}"]
    pieces = _split_operators(text)
    if len(pieces) > 1:
        return [f"{before}(", *_operands(text, indent + 4), f"){after}"]
    return _call(before, text, after, indent)


def _operands(text: str, indent: int) -> list[str]:
    """The operands of the loosest operator, one a line."""
    lines: list[str] = []
    for operator, operand in _split_operators(text):
        inner = _broken(operator, operand, "", indent)
        lines += ["    " + ln for ln in inner]
    return lines


def _call(before: str, text: str, after: str, indent: int) -> list[str]:
    """A call or subscript, its arguments one a line."""
    start = next((i for i, c in enumerate(text) if c in _OPEN), None)
    if start is None:
        return [before + text + after]
    end = _matching(text, start)
    if start == 0 and text[0] == "(":  # a group that is subscripted: no comma, or it would be a tuple
        return [f"{before}(", *_operands(text[1:end], indent + 4), text[end:] + after]
    arguments = _split(text[start + 1 : end], ", ")
    tail = text[end:] + after
    lines = [before + text[: start + 1]]
    if len(arguments) == 1 and len(_split_operators(arguments[0])) > 1:  # the call's own brackets are enough
        return [*lines, *_operands(arguments[0], indent + 4), tail]
    for argument in arguments:
        lines += ["    " + ln for ln in _broken("", argument, ",", indent + 4)]
    return [*lines, tail]


def _parenthesised(text: str) -> str | None:
    """What is inside, if one pair of parentheses holds the whole text."""
    return text[1:-1] if text.startswith("(") and _matching(text, 0) == len(text) - 1 else None


def _matching(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in _OPEN) - (text[i] in _CLOSE)
        if depth == 0:
            return i
    return len(text) - 1


def _split(text: str, separator: str) -> list[str]:
    """The parts between separators that lie outside all brackets."""
    parts, depth, last = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in _OPEN) - (c in _CLOSE)
        if depth == 0 and text.startswith(separator, i):
            parts.append(text[last:i])
            last = i + len(separator)
    return [*parts, text[last:]]


def _split_operators(text: str) -> list[tuple[str, str]]:
    """(operator with a space behind it, operand) pairs for the loosest operator; the first has no operator."""
    for family in _OPERATORS:
        found = _split_family(text, family)
        if len(found) > 1:
            return found
    return [("", text)]


def _split_family(text: str, family: tuple[str, ...]) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    depth, last, operator = 0, 0, ""
    for i, c in enumerate(text):
        depth += (c in _OPEN) - (c in _CLOSE)
        hit = next((op for op in family if depth == 0 and text.startswith(op, i)), None)
        if hit:
            out.append((operator, text[last:i]))
            operator, last = hit.strip() + " ", i + len(hit)
    return [*out, (operator, text[last:])]
