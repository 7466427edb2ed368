"""What a unit of each quantity of work costs, fitted to measurements by `attngen bench cost --fit`.

Prices are those of the machine that was measured. What is chosen by them depends on their proportions, which differ
less between machines than the prices do; the tuner replaces predictions by measurements.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import cast

from attngen.errors import InternalError

FILE = Path(__file__).resolve().parent / "prices.json"
FORMAT = 1


@cache
def prices(kind: str) -> Mapping[str, float]:
    """The prices of a kind of machine, by quantity."""
    held = json.loads(FILE.read_text(encoding="utf-8"))
    if held.get("format") != FORMAT or kind not in held:
        raise InternalError(f"{FILE.name} has no prices of {kind!r}")
    return cast("Mapping[str, float]", held[kind]["seconds"])
