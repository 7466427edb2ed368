"""The kernel stage: a Fold lowered to operations on one (query tile, key tile).

A `TileProgram` is what both printers print. Values live in one of four spaces:

- uniform: a scalar of the kernel, `Load(name, ())`;
- row: one value a query row, `Load(name, (Var("q"),))`;
- tile: one value a pair, `Load(name, (Var("q"), Var("k")))`;
- acc: a `[q, e]` accumulator, touched only by `AccDot` and the finish lets, `Load(name, (Var("q"), Var("e")))`.

Captured tensors keep their own `Load`s with explicit indices; their names are those of `Program.tensors`.
All float arithmetic is fp32; tile values entering `AccDot` are rounded to the input dtype first.
"""

from __future__ import annotations

from typing import Literal

from attngen.lang.expr import Expr
from attngen.value import value

Space = Literal["uniform", "row", "tile", "acc"]


@value
class Carried:
    """A value carried from one key tile to the next. `init` reads uniforms and row-level inputs only."""

    name: str
    space: Literal["row", "acc"]
    init: Expr


@value
class DotQK:
    """`out[q, k] = sum_d Q[q, d] * K[k, d]`, fp32."""

    out: str


@value
class TileLet:
    """`out[q, k] = body`."""

    out: str
    body: Expr


@value
class Mask:
    """`out[q, k] = out[q, k] if keep else fill`; printed only where a tile is partial.

    `-inf` fill on the score is proved (`lower`) to make every reduction see its identity.
    """

    out: str
    fill: float


@value
class RowReduce:
    """`out[q] = op over k of source[q, k]` for this tile's keys."""

    out: str
    op: str
    source: str


@value
class RowLet:
    """`out[q] = body`; when `out` is a carried name this is its update."""

    out: str
    body: Expr


@value
class AccDot:
    """`acc[q, e] = acc[q, e] * rescale[q] + sum_k source[q, k] * V[k, e]` (`rescale` names a row value or is None)."""

    acc: str
    source: str
    rescale: str | None


TileStep = DotQK | TileLet | Mask | RowReduce | RowLet | AccDot


@value
class FinishLet:
    """`out[q] = body` or `out[q, e] = body`, after the last key tile."""

    out: str
    space: Literal["row", "acc"]
    body: Expr


@value
class Output:
    """A tensor the kernel stores. `space` "acc" is `[B, H, n_q, E]` in the input dtype, "row" is `[B, H, n_q]` fp32."""

    name: str
    source: str
    space: Literal["row", "acc"]


@value
class TileProgram:
    """One kernel's arithmetic; see the module's docstring.

    uniforms  scalars computed once, in order, e.g. `qk_scale = scale * log2(e)`.
    steps     per key tile, in order. `Mask` steps are skipped for full tiles.
    """

    uniforms: tuple[tuple[str, Expr], ...]
    carried: tuple[Carried, ...]
    steps: tuple[TileStep, ...]
    finish: tuple[FinishLet, ...]
    outputs: tuple[Output, ...]
