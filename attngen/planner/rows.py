"""The least and the greatest of a value over the rows of a query tile: how data of the query enters a closed form.

    k >= first[q]      over the rows of a tile
->
    k >= row_min(first[q])  for some of them,   k >= row_max(first[q])  for all of them

Kernels reduce the values that they load at their rows; here numpy does it for all tiles at once. Nothing is assumed
of the tensor: not that it is sorted, nor that it means anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Expr, free_vars, walk
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.value import value

_CHUNK = 1 << 16  # values held at once


@value
class RowExtreme(Expr):
    """The least ("min") or the greatest ("max") value of `body` over the valid rows of a query tile.

    Only plans contain it. `body` reads `q`, `b`, `h`, sizes, parameters and captured tensors, no lets and no key; it
    is an integer, or a boolean: then "min" asks whether it holds for every row, "max" whether for some. To a walk
    over expressions this is a leaf without variables: its value belongs to the tile.
    """

    op: Literal["min", "max"]
    body: Expr


def row_extremes(lets: tuple[tuple[str, Expr], ...]) -> tuple[RowExtreme, ...]:
    """The extremes that the lets of a plan read, each once, in order."""

    def found() -> Iterator[RowExtreme]:
        for _, body in lets:
            yield from (node for node in walk(body) if isinstance(node, RowExtreme))

    return tuple(dict.fromkeys(found()))


def evaluate_rows(
    extreme: RowExtreme,
    known: MutableMapping[str, Any],
    leaf: Callable[[Expr], Any],
    *,
    n_q: int,
    block_q: int,
) -> NDArray[Any]:
    """The value for every query tile, the last axis of the result; memory is a few arrays of `_CHUNK` values.

    `leaf` reads variables from `known`, where `q` is put for the rows at hand.
    """
    fold = np.minimum if extreme.op == "min" else np.maximum
    copies = _copies(extreme.body, known)
    step = max(_CHUNK // (copies * block_q), 1) * block_q
    parts: list[NDArray[Any]] = []
    try:
        for first in range(0, n_q, step):
            rows = known["q"] = np.arange(first, min(first + step, n_q), dtype=np.int64)
            values = np.asarray(evaluate(extreme.body, leaf, NUMPY_OPS))
            values = np.broadcast_to(values, np.broadcast_shapes(values.shape, rows.shape))
            parts.append(fold.reduceat(values, np.arange(0, rows.size, block_q), axis=-1))
    finally:
        known.pop("q", None)
    return np.concatenate(parts, axis=-1) if parts else np.zeros(0, dtype=np.int64)


def _copies(body: Expr, known: Mapping[str, Any]) -> int:
    """How many values one row has: one for each batch entry and head that the value depends on."""
    out = 1
    for name in free_vars(body) & {"b", "h"}:
        out *= max(np.size(known[name]), 1)
    return out
