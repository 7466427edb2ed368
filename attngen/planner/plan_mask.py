"""Which form a mask's schedule takes: closed-form ranges where they are exact arithmetic, else block lists."""

from __future__ import annotations

from collections.abc import Mapping

from attngen.errors import MissingTensorError, ParameterError
from attngen.lang.domain import size_param
from attngen.lang.expr import Apply, Param, free_vars, walk
from attngen.lang.ops import OPS, Kind, Rule
from attngen.lang.program import Program
from attngen.planner.plan import MaskPlan
from attngen.planner.product import plan_boxes
from attngen.planner.ranges import NotClosed, solve
from attngen.planner.solve import divisors


def plan_mask(program: Program) -> MaskPlan:
    """The plan of a program's mask; it depends on the program only, never on values or lengths."""
    boxed = plan_boxes(program)
    if boxed is not None:
        return boxed
    solved = solve(program)
    if isinstance(solved, NotClosed):
        return MaskPlan("lists", None, solved.reason)  # no place: the reason is part of the kernel's text
    if program.mask is None:
        reason = "no mask: one run over all keys"
    elif not solved.pieces:
        reason = "the mask keeps nothing"
    else:
        runs = "one run" if len(solved.pieces) == 1 else f"{len(solved.pieces)} runs"
        reason = f"every part of the mask bounds the key: {runs} of keys per query tile"
    return MaskPlan("ranges", solved, reason, solved.notes)


def requirements(program: Program, plan: MaskPlan) -> tuple[str, ...]:
    """Names of parameters that must be 1 or more at a call: closed-form ranges divide by them.

    Ranges solve comparisons of integers that read a token; elsewhere a division by 0 is what the language says.
    """
    sizes = {size_param(axis) for axis in program.grid}
    if program.mask is None or (plan.ranges is None and plan.boxes is None):
        return tuple(sorted(sizes))
    integers = {p.name for p in program.params if p.kind is Kind.INT}
    solved = (n for n in walk(program.mask) if isinstance(n, Apply) and free_vars(n) & {"q", "k"})
    compared = [n for n in solved if OPS[n.op].rule is Rule.COMPARE]
    found = {p.name for n in compared for p in divisors(n) if isinstance(p, Param)}
    return tuple(sorted((found & integers) | sizes))


def check_values(program: Program, plan: MaskPlan, values: Mapping[str, object]) -> None:
    """Raise ParameterError where a parameter that closed-form ranges divide by is below 1."""
    for name in requirements(program, plan):
        value = values.get(name)
        if isinstance(value, (int, float)) and value < 1:
            declared = program.param(name)
            raise ParameterError(
                f"`{name}` is {value}, but the mask divides by it: it must be 1 or more",
                loc=declared.loc if declared is not None else None,
            )


def check_grid(program: Program, values: Mapping[str, object]) -> None:
    """Raise MissingTensorError for a grid without extents, ParameterError for one that is below 1."""
    for axis in program.grid:
        size = values.get(size_param(axis))
        if size is None:
            raise MissingTensorError(
                f"the extent of the grid's axis `{axis}` was not given",
                hint=f"pass grid=(...) with the extents of {', '.join(program.grid)}",
            )
        if isinstance(size, (int, float)) and size < 1:
            raise ParameterError(f"the extent of the grid's axis `{axis}` is {size}; it must be 1 or more")
