"""Parts of an emitted Triton kernel."""

from __future__ import annotations

import re


def loops(text):
    """The bodies of the loops over tiles of keys by the first word of their comment, as text."""
    head = r"\n    # (Partial|Full|Left|Right|Tiles)[^\n]*\n(?:    [^\n]*\n)*?    for (?:i|start) in range\([^\n]*\):\n"
    parts = re.split(head, text)
    bodies = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {name: re.split(r"\n    (?! )", body)[0] for name, body in bodies.items()}
