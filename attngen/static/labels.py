"""Which loop of the emitted text a loop of the code is: the source lines of its instructions decide.

A printed kernel has a comment above each loop, such as `# Full tiles: every pair is kept.`, which says what kind of
loop it is (`emit.triton.loops.KINDS`). Triton hands the lines of the text on to the debug information of NVIDIA and AMD
code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from attngen.emit.triton.loops import KINDS

# An optimiser moves a few instructions across loops; beyond that the lines do not tell which loop it is.
_SHARE = 0.9


def loop_lines(text: str) -> dict[str, range]:
    """The lines of each labelled loop of a kernel's text, counted from 1; a label that is missing has no entry."""
    lines = text.splitlines()
    found: dict[str, range] = {}
    for n, line in enumerate(lines):
        label = KINDS.get(line.strip().removeprefix("# "))
        head = _head(lines, n) if label is not None else None
        if label is not None and head is not None:
            found[label] = range(head + 1, _end(lines, head) + 1)
    return found


def _head(lines: list[str], comment: int) -> int | None:
    """The index of the `for` below a comment, at its depth; statements may come between, no other comment."""
    depth = _indent(lines[comment])
    for n in range(comment + 1, len(lines)):
        text = lines[n].lstrip()
        if _indent(lines[n]) == depth and text.startswith("for "):
            return n
        if text.startswith("#") or (text and _indent(lines[n]) < depth):
            return None
    return None


def _end(lines: list[str], head: int) -> int:
    """The number of the last line of the statement at the index `head`, counted from 1."""
    depth = _indent(lines[head])
    last = head
    for n in range(head + 1, len(lines)):
        if lines[n].strip():
            if _indent(lines[n]) <= depth:
                break
            last = n
    return last + 1


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def label_of(sources: Iterable[tuple[str, int] | None], lines: Mapping[str, range], file: str) -> str | None:
    """The label whose lines nearly all instructions come from, of those that come from a labelled loop of `file`."""
    votes: Counter[str] = Counter()
    for source in sources:
        if source is not None and source[0].rpartition("/")[2] == file:
            votes.update(label for label, own in lines.items() if source[1] in own)
    if not votes:
        return None
    label, count = votes.most_common(1)[0]
    return label if count >= _SHARE * votes.total() else None
