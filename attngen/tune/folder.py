"""Where journals lie in the cache directory, which ones there are, and how they are dropped.

    <cache>/tuning/v1/<2 hex>/<digest>.jsonl    one for each kind of call
    <cache>/tuning/v1/.locks/<digest>.lock      writers of one journal wait here for each other

They are no entries of the cache: its limit does not drop them, since measuring again takes long.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from attngen.run_choice import JOURNALS

FORMAT = "v1"


def journal_path(root: Path, digest: str) -> Path:
    """The journal of a digest, in the cache directory `root`."""
    return root / JOURNALS / FORMAT / digest[:2] / f"{digest}.jsonl"


def list_journals(root: Path) -> list[Path]:
    """Every journal."""
    return sorted((root / JOURNALS / FORMAT).glob("??/*.jsonl"))


def drop_journals(root: Path) -> int:
    """Forget every measurement; how many journals there were."""
    found = list_journals(root)
    for path in found:
        with suppress(OSError):
            path.unlink()
    return len(found)
