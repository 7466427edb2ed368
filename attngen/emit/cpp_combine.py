"""How values are combined in lanes: the first value of a reduction, and what one more does to it."""

from __future__ import annotations

from attngen.emit.cpp_expr import as_lanes, literal
from attngen.emit.cpp_value import Value
from attngen.errors import UnsupportedError
from attngen.lang.ops import REDUCERS, Kind

_COMBINE = {
    "sum": "{acc} += {x};",
    "prod": "{acc} *= {x};",
    "max": "{acc} = vmax({acc}, {x});",
    "min": "{acc} = vmin({acc}, {x});",
    "any": "{acc} |= {x};",
    "all": "{acc} &= {x};",
}
# Where a sum over the same values shows a NaN anyway, one instruction is enough.
_COMBINE_FAST = {"max": "{acc} = larger({acc}, {x});", "min": "{acc} = smaller({acc}, {x});"}


def kind_of(op: str, what: str) -> Kind:
    """What a reduction makes: a number that is reduced is a float.

    Raises UnsupportedError, with `what` is reduced, for one that has no lane form.
    """
    if op not in _COMBINE:
        raise UnsupportedError(f"the CPU backend has no {op} over {what}")
    return Kind.BOOL if op in ("any", "all") else Kind.FLOAT


def first(op: str) -> str:
    """The lanes that a reduction starts from."""
    if op in ("any", "all"):
        return "vi{}" if op == "any" else "splat<vi>(-1)"
    return as_lanes(literal(float(REDUCERS[op].identity)), Kind.FLOAT)


def combine(acc: str, op: str, value: Value, *, fast: bool = False) -> str:
    """The statement that takes one more value into `acc`."""
    kind = Kind.BOOL if op in ("any", "all") else Kind.FLOAT
    template = _COMBINE_FAST.get(op, _COMBINE[op]) if fast else _COMBINE[op]
    return template.format(acc=acc, x=as_lanes(value, kind))
