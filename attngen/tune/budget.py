"""How much a search may take: one table, by name."""

from __future__ import annotations

from dataclasses import dataclass

from attngen.errors import ParameterError


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of a search of one kernel.

    seconds       of all of it; what has begun is finished.
    candidates    configurations that are compiled.
    rounds        samples of a candidate when it is first measured.
    finalists     candidates that are measured again beside the default.
    final_rounds  samples of a finalist then.
    """

    name: str
    seconds: float
    candidates: int
    rounds: int
    finalists: int
    final_rounds: int


BUDGETS: dict[str, Budget] = {
    b.name: b
    for b in (
        Budget("quick", 30.0, 16, 3, 2, 9),
        Budget("default", 150.0, 48, 4, 3, 11),
        Budget("full", 900.0, 256, 5, 4, 15),
    )
}


def budget_named(name: str) -> Budget:
    """The budget of a name; raises ParameterError."""
    if name not in BUDGETS:
        raise ParameterError(f"there is no budget {name!r}", hint=f"choose one of {', '.join(BUDGETS)}")
    return BUDGETS[name]


def covering(name: str) -> frozenset[str]:
    """The budgets whose finished searches make one of this budget superfluous: itself and larger ones."""
    names = list(BUDGETS)
    return frozenset(names[names.index(name) :])
