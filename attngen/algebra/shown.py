"""A short form of a residual that is only shown: the same text at every run, however loaded the machine is.

`sympy.simplify` is slow to load and must be bounded in time, and a bound in time makes text depend on the machine:
proofs may ask it, messages do not.
"""

from __future__ import annotations

from typing import Any

_LONGEST = 200  # operations beyond which a message is not read anyway


def shown(value: Any) -> str:
    """The shortest of a few equal forms, as text."""
    import sympy as sp

    if sp.count_ops(value) > _LONGEST:
        return str(value)
    short = sp.powsimp(value)
    forms = [short, sp.factor_terms(short), sp.factor_terms(sp.powsimp(sp.expand(value)))]
    return str(min(forms, key=sp.count_ops))
