"""Checking a result against float64: the tolerance rule of the project, in one place.

A kernel's error may be at most `FACTOR` times the error PyTorch makes when it computes the same formula in
the same dtype, plus the rounding of the output itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from attngen import arguments
from attngen.arguments import Shapes
from attngen.backends.reference import reference
from attngen.errors import UnsupportedError
from attngen.lang.expr import Apply, Expr, Reduce, free_vars, walk
from attngen.lang.program import Program

Tensor = torch.Tensor

FACTOR = 2.0
# One rounding of fp32 at the magnitude of the result, at least 1: where the formula happens to be exact, a kernel may
# still round once.
FLOOR = torch.finfo(torch.float32).eps
_AT_ONCE = 1 << 24  # numbers in the largest tensor of a dense evaluation
_LEAST_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Check:
    """The largest error of one output over what was checked of it, and what was allowed.

    rows     query rows checked, 0 for an output without query rows.
    entries  numbers checked.
    """

    output: str
    error: float
    allowed: float
    rows: int
    entries: int = 0

    @property
    def ok(self) -> bool:
        """Whether the error is within the rule; a NaN where none belongs is not."""
        return self.error <= self.allowed


def check_rows(
    program: Program,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    outputs: Mapping[str, Tensor],
    *,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, arguments.Number],
    factor: float = FACTOR,
) -> list[Check]:
    """Compare outputs with dense float64, on all rows or on evenly spaced ones if there are many.

    A program in which a row depends on others is compared on all of them: see `tokens_at_once`. An index must be that
    of a value as good as the right one; other integers and booleans are compared wherever rounding to fp32 does not
    decide them.
    """
    from attngen.tolerance_indices import compare_indices, selections, with_values

    selected = selections(program)
    whole = with_values(program, selected)
    rows = _rows(program, query, key, value, tensors, params)

    def dense(of: Program, dtype: torch.dtype) -> dict[str, Tensor]:
        return reference(of, query, key, value, tensors=tensors, params=params, dtype=dtype, rows=rows)

    exact, formula = dense(whole, torch.float64), dense(whole, query.dtype)
    plain = {n for n, t in outputs.items() if not t.is_floating_point() and n not in selected}
    if plain and query.dtype != torch.float32:
        formula |= {n: t for n, t in dense(program, torch.float32).items() if n in plain}
    checks: list[Check] = []
    for name, given in outputs.items():
        axis = _query_axis(program, name, given)
        out = given if axis is None or rows is None else given.index_select(axis, rows)
        if out.shape != exact[name].shape:
            found = Check(name, math.inf, 0.0, 0)
        elif name in plain:
            found = compare_exactly(name, out, exact[name], formula[name])
        elif name in selected:
            found = compare_indices(selected[name], out, exact, formula, factor)
        else:
            found = compare(name, out, exact[name], formula[name], factor)
        checks.append(replace(found, rows=0 if axis is None else out.shape[axis]))
    return checks


def compare(name: str, out: Tensor, exact: Tensor, formula: Tensor, factor: float = FACTOR) -> Check:
    """One output against float64 (`exact`) and against the same formula in the output's dtype (`formula`)."""
    allowed = (
        factor * max_error(formula, exact)
        + output_rounding(exact, out.dtype)
        + FLOOR * max(1.0, largest(exact))
    )
    rows = exact.shape[2] if exact.dim() > 2 else 0
    return Check(name, max_error(out, exact), allowed, rows, out.numel())


def compare_exactly(name: str, out: Tensor, exact: Tensor, formula: Tensor) -> Check:
    """Integers or booleans against float64, wherever `formula`, the same in fp32, agrees with it."""
    decided = formula == exact
    error = max_error(torch.where(decided, out.double(), 0.0), torch.where(decided, exact, 0.0))
    return Check(name, error, 0.0, 0, out.numel())


def max_error(out: Tensor, exact: Tensor) -> float:
    """Largest absolute difference; infinities and NaNs must stand in the same places, else infinity."""
    if out.numel() == 0:
        return 0.0
    out = out.double()
    same = (out == exact) | (out.isnan() & exact.isnan())
    return float(torch.where(same, 0.0, (out - exact).abs()).nan_to_num(float("inf")).max())


def output_rounding(exact: Tensor, dtype: torch.dtype) -> float:
    """Half a unit in the last place of the output's dtype at the largest magnitude of the result."""
    return largest(exact) * torch.finfo(dtype).eps / 2


def largest(exact: Tensor) -> float:
    """The largest finite magnitude."""
    finite = exact[exact.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def tokens_at_once(
    program: Program, shapes: Shapes, tensors: Mapping[str, Tensor], params: Mapping[str, arguments.Number]
) -> int:
    """How many tokens a call may have to be checked on all rows: as many as there are, or fewer, but 64 at least."""
    n = max(shapes.n_q, shapes.n_k)
    while n > _LEAST_TOKENS:
        fewer = replace(shapes, n_q=min(shapes.n_q, n), n_k=min(shapes.n_k, n))
        if dense_numbers(program, fewer, tensors, params) <= _AT_ONCE:
            break
        n = max(n // 2, _LEAST_TOKENS)
    return n


def mixes_rows(
    program: Program,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, arguments.Number],
) -> bool:
    """Whether a row of the program depends on other rows, so that the reference has to compute all."""
    none = torch.arange(0, device=query.device)
    try:
        reference(program, query, key, value, tensors=tensors, params=params, rows=none)
    except UnsupportedError:
        return True
    return False


def _query_axis(program: Program, name: str, out: Tensor) -> int | None:
    """The axis of an output along which query rows lie."""
    einsum = program.einsum(name)
    if einsum is None or "q" not in einsum.ranks:
        return None
    return out.dim() - len(einsum.ranks) + einsum.ranks.index("q")


def _rows(
    program: Program,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, arguments.Number],
) -> Tensor | None:
    """Evenly spaced rows that a dense evaluation has room for; None for all."""
    shapes = shapes_of(query, key, value)
    most = shapes.n_q
    while most > 1 and dense_numbers(program, shapes, tensors, params, rows=most) > _AT_ONCE:
        most //= 2
    if most >= shapes.n_q or mixes_rows(program, query, key, value, tensors, params):
        return None
    return torch.linspace(0, shapes.n_q - 1, most, device=query.device).round().long().unique()


def shapes_of(query: Tensor, key: Tensor, value: Tensor) -> Shapes:
    """The extents of a call's tensors, unchecked and of any dtype."""
    (batch, heads, n_q, d), (_, kv_heads, n_k, e) = query.shape, value.shape
    return Shapes(batch, heads, kv_heads, n_q, key.shape[2] if key.dim() == 4 else n_k, d, e)


def dense_numbers(
    program: Program,
    shapes: Shapes,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, arguments.Number],
    rows: int | None = None,
) -> int:
    """The numbers in the largest tensor that a dense evaluation makes.

    With `rows`, in the largest that has query rows, of which it has so many.
    """
    extents = arguments.own_extents(program, tensors, params, shapes)
    extents |= {"q": shapes.n_q if rows is None else rows, "k": shapes.n_k}
    extents |= {"d": shapes.head_dim, "e": shapes.value_dim}
    most = 1
    for ranks in _values(program):
        if rows is not None and "q" not in ranks:
            continue
        most = max(most, math.prod(extents.get(r, 1) for r in ranks))
    return shapes.batch * shapes.heads * most


def _values(program: Program) -> Iterator[frozenset[str]]:
    """The ranks of the values a dense evaluation holds: of Einsums, and inside reductions but matrix products."""
    for einsum in program.cascade:
        yield frozenset(einsum.ranks)
        yield from map(free_vars, _operands(einsum.body))
        for node in walk(einsum.body):
            if isinstance(node, Reduce):
                yield from map(free_vars, _operands(node))


def _operands(expr: Expr) -> tuple[Expr, ...]:
    match expr:
        case Reduce("sum", _, Apply("mul", factors)):
            return factors
        case Reduce(_, _, body):
            return (body,)
        case _:
            return (expr,)
