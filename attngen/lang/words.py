"""Names and bounds of the text form that parsing, printing and verifying agree on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from attngen.lang.ops import OPS, SUGAR, Op

# The float infinity, and the score that a cascade computes and `score = ...` modifies.
INF = "inf"
SCORE = "S"

# What is called by its name rather than written with a symbol.
FUNCTIONS: dict[str, Op] = {op.name: op for op in (*OPS.values(), *SUGAR.values()) if op.symbol is None}

# Integers are 64 bits wide, whatever the kernel makes of them.
INT_LIMIT = 2**63 - 1

# How deep an expression may nest: passes recurse, and Python's own stack ends somewhere. How many nodes it
# may have: passes walk it often, and a kernel spells it out.
MAX_DEPTH = 128
MAX_NODES = 20_000


def close_match(name: str, known: Iterable[str], wrap: str = "{}") -> str | None:
    """A hint that offers the known name most like `name`, or None."""
    match = difflib.get_close_matches(name, sorted(set(known)), n=1)
    return f"did you mean `{wrap.format(match[0])}`?" if match else None
