"""What a kernel computes for one pair of a query and a key, counted from its steps.

    S[q, k] = sum[d](Q * K) * scale                     head_dim multiply-adds, 1 pointwise operation
    E[q, k] = exp(S - M); Z[q] = sum[k](E)              2 pointwise operations, 1 special function
    O[q, e] = sum[k](E * V)                             value_dim multiply-adds
    (k <= pos(q)) & (doc[b, q] == doc[b, k])            3 operations of the mask, 0 quotients, 0 reads a pair

Operators that read the query alone or the key alone are computed once a row, and are not counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attngen.emit.tile import (
    AccBins,
    AccDot,
    AccEach,
    AccTopK,
    Dot,
    RowReduce,
    StoreBlock,
    StorePair,
    TileLet,
    TileReduce,
)
from attngen.lang.domain import SIZE_PREFIX
from attngen.lang.expr import Apply, Expr, Load, Param, free_vars, walk
from attngen.value import value

if TYPE_CHECKING:
    from attngen.emit.spec import KernelSpec

SPECIAL = frozenset(
    {"exp", "exp2", "log", "log2", "tanh", "sigmoid", "erf", "sqrt", "sin", "cos", "pow", "div"}
)
QUOTIENTS = frozenset({"floordiv", "mod"})
_ARITHMETIC = frozenset({"add", "sub", "mul", "neg", "min", "max", "floordiv"})
_SELECTIONS = 4  # operations that one more column of a selection costs a pair


@value
class PairOps:
    """Operations a pair.

    macs        multiply-adds of products, by the widths that programs have (no padding).
    simple      pointwise operations: sums, comparisons, selections.
    special     exponentials, logarithms, quotients of floats and the like.
    reads       values of captured tensors that differ from pair to pair.
    rounded     weights rounded to half precision before a product.
    mask_simple, mask_quotients, mask_reads   the same of the mask; quotients are of integers.
    mask_wide   of the simple ones of the mask those on sums with parameters, which may need 64 bits in C++.
    """

    macs: int
    simple: float
    special: int
    reads: int
    rounded: int
    mask_simple: int
    mask_quotients: int
    mask_reads: int
    mask_wide: int


@value
class RowWidths:
    """Numbers that a kernel holds a row: features of its queries, of its accumulators, and of its keys and values."""

    query: int
    acc: int
    key: int
    scores: int


def row_widths(spec: KernelSpec) -> RowWidths:
    """The widths of a kernel's rows; `scores` counts the values of a pair that are alive together, near enough."""
    tile = spec.tile
    dots = sum(isinstance(s, Dot) for s in tile.steps)
    return RowWidths(
        query=sum(spec.width(o.feature) for o in tile.operands if o.row == "q"),
        acc=sum(spec.width(c.feature) for c in tile.carried if c.space == "acc"),
        key=sum(spec.width(o.feature) for o in tile.operands if o.row == "k"),
        scores=max(dots, 1),
    )


def pair_ops(spec: KernelSpec) -> PairOps:
    """The operations of one pair."""
    macs, simple, special, reads, rounded = 0, 0.0, 0, 0, 0
    carried = {c.name: spec.width(c.feature) for c in spec.tile.carried if c.space == "acc"}
    tensors = {t.name for t in spec.tensors}

    def add(body: Expr, times: int = 1) -> None:
        nonlocal simple, special, reads
        counts = _counts(body, tensors)
        simple += times * (counts[0] + counts[1])
        special += times * counts[2]
        reads += times * counts[3]

    for step in spec.tile.steps:
        match step:
            case Dot():
                macs += spec.width(spec.tile.operand(step.left).feature)
            case AccDot():
                macs += carried[step.acc]
                rounded += spec.dtype != "float32"
            case TileLet():
                add(step.body)
            case TileReduce():
                add(step.body, spec.width(step.feature))
                simple += spec.width(step.feature)
            case RowReduce():
                simple += 1
            case AccEach():
                add(step.body, carried[step.acc])
                simple += carried[step.acc]
            case AccBins():
                simple += carried[step.acc]
            case AccTopK():
                simple += _SELECTIONS * carried[step.acc]
            case StorePair() | StoreBlock():
                simple += 1
            case _:
                pass
    mask = (0, 0, 0, 0) if spec.keep is None else _counts(spec.keep, tensors)
    return PairOps(
        macs, simple, special, reads, rounded, mask[0] + mask[2], mask[1], mask[3], _wide_ops(spec.keep)
    )


def _counts(body: Expr, tensors: set[str]) -> tuple[int, int, int, int]:
    """Simple operations, integer quotients, special functions and reads of captured tensors of every pair."""
    simple = quotients = special = reads = 0
    for node in walk(body):
        if not {"q", "k"} <= free_vars(node):
            continue
        match node:
            case Apply(op):
                simple += op not in SPECIAL and op not in QUOTIENTS
                quotients += op in QUOTIENTS
                special += op in SPECIAL
            case Load(name):
                reads += name in tensors
            case _:
                pass
    return simple, quotients, special, reads


def _wide_ops(mask: Expr | None) -> int:
    """Operations of a pair on sums or products that a parameter takes part in: nothing bounds those to 32 bits."""
    nodes = (
        [] if mask is None else [n for n in walk(mask) if isinstance(n, Apply) and {"q", "k"} <= free_vars(n)]
    )
    return sum(any(_is_loose(x) for x in (node, *node.args)) for node in nodes)


def _is_loose(node: Expr) -> bool:
    if not isinstance(node, Apply) or node.op not in _ARITHMETIC:
        return False
    inside = (n for n in walk(node) if isinstance(n, Param))
    return any(not n.name.startswith(SIZE_PREFIX) for n in inside)
