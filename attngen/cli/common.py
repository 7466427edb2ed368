"""What the verbs share: how a verb declares itself, and how sizes, times and tables are shown."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import TypeAlias

# A string, since the class is generic in the type stubs alone.
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # pyright: ignore[reportPrivateUsage]


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples, and is as wide as the terminal but never wider than 100 columns."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=_width())


def _width() -> int:
    return max(40, min(100, shutil.get_terminal_size().columns))


def add_verb(
    subparsers: Subparsers, name: str, *, help: str, description: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    """Add the parser of a verb. Every verb shows at least one example in its `--help`."""
    lines = "\n".join(f"  {example}" for example in examples)
    return subparsers.add_parser(
        name,
        help=help,
        description=textwrap.fill(description, width=_width()),
        epilog=f"{'examples' if len(examples) > 1 else 'example'}:\n{lines}",
        formatter_class=HelpFormatter,
    )


def bytes_text(nbytes: int) -> str:
    """A size for people: `912 B`, `3.4 KiB`, `1.2 GiB`."""
    if nbytes < 1024:
        return f"{nbytes} B"
    size = float(nbytes)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def seconds_text(seconds: float) -> str:
    """A time for people, to three digits: `83.1 us`, `1.24 ms`, `2.05 s`, `3 min 20 s`."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def columns(rows: Iterable[Sequence[str]], *, indent: str = "", gap: str = "  ") -> str:
    """Rows as aligned columns; the last column is as long as its texts. Rows may differ in length."""
    table = [list(row) for row in rows]
    widths: dict[int, int] = {}
    for row in table:
        for i, cell in enumerate(row[:-1]):
            widths[i] = max(widths.get(i, 0), len(cell))
    lines = (
        gap.join([*(cell.ljust(widths[i]) for i, cell in enumerate(row[:-1])), *row[-1:]]) for row in table
    )
    return "\n".join((indent + line).rstrip() for line in lines)
