"""Names nobody uses yet."""

from __future__ import annotations


def fresh_name(stem: str, taken: set[str]) -> str:
    """`stem`, or `stem_2`, `stem_3`, ... if taken; the result is taken afterwards."""
    name, n = stem, 2
    while name in taken:
        name, n = f"{stem}_{n}", n + 1
    taken.add(name)
    return name
