"""The kernel stage: a Fold lowered to operations on one (query tile, key tile).

A `TileProgram` is what both printers print. Values live in one of four spaces:

- uniform: a scalar of the kernel, `Load(name, ())`;
- row: one value a query row, `Load(name, (Var("q"),))`;
- tile: one value a pair, `Load(name, (Var("q"), Var("k")))`;
- acc: one value a query row and feature, touched only by the `Acc` steps and the finish lets,
  `Load(name, (Var("q"), Var(feature)))`; the feature is a rank with an extent that the kernel is specialised on.

Inputs and captured tensors keep their own `Load`s with explicit indices, batch and head among them: `Q` is read as
`Load("Q", (b, h, q, d))`, `K` as `Load("K", (b, g, k, d))`, where the variable `g` is the key head that the query head
`h` shares. Rows are called `q` and columns `k` whatever they are: a kernel whose rows are keys reads `K` at `q`.
All float arithmetic is fp32; tile values entering `AccDot` are rounded to the dtype of its value first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attngen.lang.expr import Expr
from attngen.value import value

Space = Literal["uniform", "row", "tile", "acc"]


@value
class Operand:
    """`name[row, feature] = body`: one side of a contraction, a row of features for each query or each key.

    row      "q" or "k": whose rows these are.
    feature  the rank of its columns; `KernelSpec.widths` has its extent.
    body     most often a plain load, `Load("K", (b, g, k, d))`; else pointwise in b, g, h, the row and the feature, of
             loads, parameters and sizes: a rotation by position, a feature map, `where(span[b, k] == j, 1.0, 0.0)`.
    """

    name: str
    row: Literal["q", "k"]
    feature: str
    body: Expr


@value
class Carried:
    """A value carried from one key tile to the next. `init` reads uniforms and row-level inputs only.

    feature  of an accumulator: the rank of its columns.
    """

    name: str
    space: Literal["row", "acc"]
    init: Expr
    feature: str = "e"


@value
class Dot:
    """`out[q, k] = sum over the feature of left[q, feature] * right[k, feature]`, fp32; both name operands."""

    out: str
    left: str
    right: str


@value
class TileLet:
    """`out[q, k] = body`."""

    out: str
    body: Expr


@value
class TileReduce:
    """`out[q, k] = op over the feature of body[q, k, feature]`: a loop over the feature for every tile.

    `body` reads tile values, row values and captured tensors; `op` is sum, prod, max, min, any or all.
    """

    out: str
    op: str
    feature: str
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
    """`acc[q, f] = acc[q, f] * rescale[q] + sum_k source[q, k] * value[k, f]`.

    `value` names an operand of rows "k", `rescale` a row value or is None.
    """

    acc: str
    source: str
    rescale: str | None
    value: str


@value
class AccBins:
    """`acc[q, f] = acc[q, f] * rescale[q] + sum over the k with bin[q, k] == f of source[q, k]`.

    `bin` names a tile value of integers; a pair whose bin is no column of the accumulator adds nothing.
    """

    acc: str
    source: str
    rescale: str | None
    bin: str


@value
class AccTopK:
    """`acc[q, f]` becomes the f-th largest of what it held and of `source[q, k]`; `index[q, f]` its key.

    Both are accumulators of one feature; values descend. Ties go to the smaller key, an empty place holds -inf and -1.
    """

    acc: str
    index: str
    source: str


@value
class AccEach:
    """`acc[q, f] = (acc[q, f] * rescale[q]) (op) (op over k of body[q, k, f])`, one column after the other.

    For what no matrix product computes: another reduction than a sum, or a body that varies with all three. `op` is
    sum, prod, max or min; a pair that is dropped gives its identity, which the printer sees to: no `Mask` step does.
    `combine` is "mul" or "add", how the row value `rescale` (None for none) is applied.
    """

    acc: str
    op: str
    body: Expr
    rescale: str | None = None
    combine: str = "mul"


@value
class AccLet:
    """`acc[q, f] = body`, of accumulators and row values: the shares of other accumulators in an orbit."""

    acc: str
    body: Expr


@value
class StorePair:
    """Store `source[q, k]` to the output `name`, `[B, H, n_q, n_k]` fp32, for kept pairs; others stay as they are."""

    name: str
    source: str


@value
class StoreBlock:
    """Store `op` over the keys of each block of `width` keys of `source[q, k]` to `name[q, k // width]`, fp32.

    Printed for tiles of a multiple of `width` keys that begin at one; blocks of tiles not visited stay as they are.
    """

    name: str
    op: str
    source: str
    width: int


TileStep = (
    Dot
    | TileLet
    | TileReduce
    | Mask
    | RowReduce
    | RowLet
    | AccDot
    | AccBins
    | AccTopK
    | AccEach
    | AccLet
    | StorePair
    | StoreBlock
)


@value
class FinishLet:
    """`out[q] = body` or `out[q, feature] = body`, after the last key tile."""

    out: str
    space: Literal["row", "acc"]
    body: Expr
    feature: str = "e"


@value
class Output:
    """A tensor the kernel stores.

    space    "row" is `[B, H, n_q]`, "acc" `[B, H, n_q, feature]`, "pair" `[B, H, n_q, n_k]`, "block"
             `[B, H, n_q, blocks]`; the last two are stored by steps, and are filled before.
    rounded  an accumulator in the dtype of the inputs; everything else is fp32.
    """

    name: str
    source: str
    space: Literal["row", "acc", "pair", "block"]
    feature: str = "e"
    rounded: bool = False


@value
class TileProgram:
    """One kernel's arithmetic; see the module's docstring.

    operands  the sides of its contractions.
    uniforms  scalars computed once, in order, e.g. `qk_scale = scale * log2(e)`.
    steps     per key tile, in order. `Mask` steps are skipped for full tiles.
    """

    operands: tuple[Operand, ...]
    uniforms: tuple[tuple[str, Expr], ...]
    carried: tuple[Carried, ...]
    steps: tuple[TileStep, ...]
    finish: tuple[FinishLet, ...]
    outputs: tuple[Output, ...]

    def bodies(self) -> Iterator[Expr]:
        """Every expression of the kernel."""
        yield from (o.body for o in self.operands)
        yield from (body for _, body in self.uniforms)
        yield from (c.init for c in self.carried)
        yield from (
            s.body for s in self.steps if isinstance(s, TileLet | TileReduce | RowLet | AccLet | AccEach)
        )
        yield from (f.body for f in self.finish)

    def features(self) -> frozenset[str]:
        """The ranks whose extents the kernel is specialised on."""
        found = {o.feature for o in self.operands} | {c.feature for c in self.carried if c.space == "acc"}
        return frozenset(found | {s.feature for s in self.steps if isinstance(s, TileReduce)})

    def operand(self, name: str) -> Operand:
        """The operand of a name."""
        return next(o for o in self.operands if o.name == name)
