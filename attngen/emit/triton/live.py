"""Leave out the assignments that nothing reads later.

    b64 = ...;  h64 = ...;  x = b64 * 2     ->     b64 = ...;  x = b64 * 2

Lines are simple assignments, in order; what is read is found by name.
"""

from __future__ import annotations

import re


def live(lines: list[str], after: list[str], *names: str) -> list[str]:
    """The lines, less the assignments that nothing reads later; of all variables, or of those named."""
    kept: list[str] = []
    for line in reversed(lines):
        name = line.partition(" = ")[0]
        if (names and name not in names) or reads(name, [*kept, *after]):
            kept.append(line)
    return kept[::-1]


def reads(name: str, lines: list[str]) -> bool:
    """Whether a line mentions a variable."""
    return any(re.search(rf"\b{name}\b", line) for line in lines)
