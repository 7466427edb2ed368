"""Whether an expression is 0 for all values of what it reads."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

from attngen.algebra.bounded import bounded
from attngen.algebra.canonical import Shape
from attngen.algebra.mp_ops import DIGITS, Undefined
from attngen.algebra.numeric import sample, value_at
from attngen.algebra.separate import POINTS, PROOF_SECONDS, Symbols, zero_or_rest
from attngen.algebra.shown import shown


@lru_cache(maxsize=256)
def remainder(shape: Shape) -> str:
    """What is left of a shape's body: "0" if it is proved to vanish, after it did at a few random points."""
    if _refuted(shape):
        return bounded(lambda: shown(Symbols(shape).of(shape.body)), PROOF_SECONDS, "it is not 0")
    late = f"no proof within {PROOF_SECONDS:g} s"
    return bounded(lambda: str(zero_or_rest(Symbols(shape).of(shape.body))), PROOF_SECONDS, late)


def _refuted(shape: Shape) -> bool:
    import mpmath as mp

    rng = random.Random(5)
    with mp.workdps(DIGITS):
        for _ in range(POINTS):
            at: dict[str, Any] = {}
            for letter in "xdc":
                at |= sample(shape, letter, rng)
            try:
                value = value_at(shape, at)
            except Undefined:
                continue
            if abs(value) > mp.mpf(10) ** (8 - DIGITS) * (1 + max(map(abs, at.values()), default=0)):
                return True
    return False
