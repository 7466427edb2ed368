"""Change a manifest so that its own hash is right: what only reading with care finds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def sealed(document: dict[str, Any]) -> bytes:
    """A manifest of a document, with the hash of what it says."""
    rest = {name: item for name, item in document.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return json.dumps({**rest, "sha256": digest}, sort_keys=True).encode()


def rewrite(artefact: Path, **members: Any) -> None:
    """Give members of an artefact's manifest other values."""
    path = artefact / "manifest.json"
    path.write_bytes(sealed({**json.loads(path.read_bytes()), **members}))


def replace_file(artefact: Path, name: str, data: bytes) -> None:
    """Give a file other bytes, and the manifest their hash."""
    (artefact / name).write_bytes(data)
    files = json.loads((artefact / "manifest.json").read_bytes())["files"]
    files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite(artefact, files=files)
