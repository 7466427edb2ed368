"""The token domain: how the ranks `q` and `k` are laid out, and which extent each rank has.

Tokens lie on a line, or fill a grid in the order of its axes, the last one fastest:

    tokens = grid(t, y, x)      token i has  x = i % size.x,  y = i // size.x % size.y,  t = i // (size.x * size.y)

The slowest coordinate does not wrap: tokens beyond the grid (text after a video, registers after an image) go on
with `t >= size.t`, which is how a mask tells them apart. The extents `size.y` are parameters of every program that
declares a grid, called `size_y` where a plain name is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import cast

from attngen.errors import ParameterError, UnexpectedArgumentError
from attngen.lang.expr import Expr, Param, Size, Var, apply, rewrite, walk
from attngen.lang.loc import Loc
from attngen.lang.ops import Kind
from attngen.lang.program import EXTENTS, ParamDecl, Program

# Ranks a mask or a score may use; each pair (q, k) of each head of each batch entry has one value.
PAIR_RANKS: tuple[str, ...] = ("b", "h", "g", "q", "k")

# Ranks that are implicit in `Q[q, d]` and in every Einsum's result; `g` follows from `h`.
IMPLICIT_RANKS: tuple[str, ...] = ("b", "h", "g")

# Ranks whose tokens have coordinates where the program declares a grid.
TOKEN_RANKS: tuple[str, ...] = ("q", "k")

# The extent of the axis `y` is the parameter `size_y`; no declared parameter may begin like this.
SIZE_PREFIX = "size_"


# The extent of the rank `j` is the size `n_j`.
EXTENT_PREFIX = "n_"


def extent_name(rank: str) -> str:
    """The name of a rank's extent: `n_q`, `D`, `n_j`."""
    return EXTENTS.get(rank, EXTENT_PREFIX + rank)


def key_head(loc: Loc | None = None) -> Expr:
    """`g` as arithmetic on `h`: the key head that a query head shares, `h // (n_h // n_g)`."""
    group = apply("floordiv", Size("n_h", loc=loc), Size("n_g", loc=loc), loc=loc)
    return apply("floordiv", Var("h", loc=loc), group, loc=loc)


def is_masked(reduced: Collection[str], bound: Collection[str]) -> bool:
    """Whether the mask applies to a reduction: of `q`, `k` or `h`, where a pair of `q` and `k` is at hand.

    `bound` are the ranks of the Einsum and of the reductions around this one.
    """
    return {"q", "k"} <= {*bound, *reduced} and not {"q", "k", "h"}.isdisjoint(reduced)


def size_param(axis: str) -> str:
    """The name of the parameter that holds the extent of a grid's axis."""
    return SIZE_PREFIX + axis


def size_decls(axes: tuple[str, ...], loc: Loc | None = None) -> tuple[ParamDecl, ...]:
    """The parameters that a grid declares: the extent of each axis."""
    return tuple(ParamDecl(size_param(axis), Kind.INT, loc=loc) for axis in axes)


def is_size_param(program: Program, name: str) -> bool:
    """Whether a parameter is the extent of an axis of the program's grid."""
    return name.startswith(SIZE_PREFIX) and name.removeprefix(SIZE_PREFIX) in program.grid


def coordinate(axes: tuple[str, ...], rank: str, axis: str, loc: Loc | None = None) -> Expr:
    """A coordinate of a token as arithmetic on its number: `q.y` is `q // size_x % size_y`."""
    at = axes.index(axis)
    out: Expr = Var(rank, loc=loc)
    stride = stride_of(axes, axis)
    if stride is not None:
        out = apply("floordiv", out, stride, loc=loc)
    return out if at == 0 else apply("mod", out, Param(size_param(axis), loc=loc), loc=loc)


def stride_of(axes: tuple[str, ...], axis: str) -> Expr | None:
    """Tokens from one value of a coordinate to the next: the product of the faster extents; None for one."""
    out: Expr | None = None
    for faster in axes[axes.index(axis) + 1 :]:
        size = Param(size_param(faster))
        out = size if out is None else apply("mul", out, size)
    return out


def with_grid_sizes(axes: tuple[str, ...], values: Mapping[str, object]) -> dict[str, object]:
    """The values with `grid=(30, 48, 80)` spread over the extents `size_t`, `size_y`, `size_x`.

    A mapping from axes to extents serves as well. Raises UnexpectedArgumentError for a program without a grid,
    ParameterError for extents that do not fit its axes.
    """
    if "grid" not in values:
        return dict(values)
    if not axes:
        raise UnexpectedArgumentError(
            "the program has no grid", hint="declare one: tokens = grid(t, y, x), or grid=... for a function"
        )
    rest = dict(values)
    given = rest.pop("grid")
    if isinstance(given, Mapping):
        sizes = {str(axis): size for axis, size in cast("Mapping[object, object]", given).items()}
    else:
        extents = list(cast("Iterable[object]", given)) if isinstance(given, Iterable) else [given]
        if len(extents) != len(axes):
            raise ParameterError(
                f"`grid` has {len(extents)} extents, but the axes are {', '.join(axes)}",
                hint=f"give one number an axis, slowest first: grid=({', '.join(axes)})",
            )
        sizes = dict(zip(axes, extents, strict=True))
    for axis, size in sizes.items():
        if axis not in axes:
            raise ParameterError(f"the grid has no axis {axis!r}", hint=f"its axes are {', '.join(axes)}")
        rest[size_param(axis)] = size
    return rest


def without_coordinates(expr: Expr, axes: tuple[str, ...]) -> Expr:
    """The same expression on a line: every coordinate computed from the number of its token."""
    if not axes:
        return expr

    def expand(node: Expr) -> Expr | None:
        match node:
            case Var(rank, str(axis)) if axis in axes and rank in TOKEN_RANKS:
                return coordinate(axes, rank, axis, node.loc)
            case _:
                return None

    return rewrite(expr, expand)


def on_a_line(program: Program) -> Program:
    """The same program with every coordinate computed from the number of its token; it declares no grid."""
    if not program.grid:
        return program
    axes = program.grid
    return replace(
        program,
        grid=(),
        mask=None if program.mask is None else without_coordinates(program.mask, axes),
        score=None if program.score is None else without_coordinates(program.score, axes),
        cascade=tuple(replace(e, body=without_coordinates(e.body, axes)) for e in program.cascade),
    )


def has_coordinates(expr: Expr) -> bool:
    """Whether an expression reads a coordinate."""
    return any(isinstance(node, Var) and node.axis is not None for node in walk(expr))
