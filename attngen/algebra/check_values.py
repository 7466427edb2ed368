"""Expressions of a program or a Fold in float64, over some keys of a random problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from attngen.algebra.check_case import Array, Case
from attngen.algebra.monoids import best
from attngen.errors import UnsupportedError
from attngen.lang.domain import coordinate, extent_name
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr, Load, Param, Reduce, Size, Var
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import REDUCERS

_UFUNCS: dict[str, Any] = {
    "sum": np.add,
    "max": np.maximum,
    "min": np.minimum,
    "prod": np.multiply,
    "any": np.logical_or,
    "all": np.logical_and,
    "logaddexp": np.logaddexp,
}


class Values:
    """Evaluates expressions given the values computed so far and the ranks they have."""

    def __init__(
        self, case: Case, keys: Array, named: Mapping[str, Array], ranks: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.case = case
        self.keep = case.keep[:, keys]
        self.named = named
        self.ranks = ranks
        self.index: dict[str, Array] = {r: np.arange(n) for r, n in case.extents.items()} | {"k": keys}

    def __call__(self, expr: Expr) -> Array:
        """The value of an expression."""
        return np.asarray(evaluate(expr, self.leaf, NUMPY_OPS))

    def leaf(self, node: Expr) -> Array:
        """The value of what is not an operator."""
        match node:
            case Const(value):
                return np.asarray(value)
            case Var(name, None) if name in self.case.axes:
                return self.case.along(name, self.index[name])
            case Var("q" | "k" as rank, str(axis)):
                return self(coordinate(self.case.grid, rank, axis))
            case Var("b" | "h" | "g", None):
                return np.asarray(1)  # one batch entry and one head stand for all
            case Size(name):
                extents = {extent_name(r): n for r, n in self.case.extents.items()}
                return np.asarray(extents[name])
            case Param(name):
                return np.asarray(self.case.scalars[name])
            case Load(name, indices) if name in self.named:
                return self._named(name, indices)
            case Load(name, indices):
                return self._load(self.case.tensors[name], indices)
            case Reduce(op, ranks, body, at):
                return self._selected(node) if at is not None else self.reduce(op, ranks, self(body))
            case _:
                raise UnsupportedError(f"no float64 value for {node!r}", loc=node.loc)

    def _named(self, name: str, indices: tuple[Expr, ...]) -> Array:
        """A value of the cascade at its own ranks, or gathered along those of the program's own."""
        value = self.named[name]
        for rank, index in zip(self.ranks.get(name, ()), indices, strict=False):
            if index == Var(rank):
                continue
            if rank in ("q", "k"):
                raise UnsupportedError(f"{name} is read at another token", loc=index.loc)
            value = self._gathered(value, rank, self(index))
        return value

    def _gathered(self, value: Array, rank: str, index: Array) -> Array:
        """`value` at `index` along a rank; an index outside reads the nearest end."""
        axis = self.case.axes[rank]
        if value.ndim == 0 or value.shape[axis] == 1:
            return value
        at = np.clip(index, 0, value.shape[axis] - 1).astype(np.int64)
        at = at.reshape(at.shape or (1,) * value.ndim)

        def with_axis(shape: tuple[int, ...], extent: int) -> tuple[int, ...]:
            return tuple(extent if i == axis else n for i, n in enumerate(shape))

        outer = np.broadcast_shapes(with_axis(value.shape, 1), with_axis(at.shape, 1))
        source = np.broadcast_to(value, with_axis(outer, value.shape[axis]))
        return np.take_along_axis(source, np.broadcast_to(at, with_axis(outer, at.shape[axis])), axis=axis)

    def _load(self, tensor: Array, indices: tuple[Expr, ...]) -> Array:
        """Out-of-range indices are clamped, as in kernels."""
        at = [np.clip(self(i), 0, max(n - 1, 0)) for i, n in zip(indices, tensor.shape, strict=True)]
        if tensor.size == 0:
            return np.zeros(np.broadcast_shapes(*[a.shape for a in at]))
        return tensor[tuple(a.astype(np.int64) for a in at)]

    def _selected(self, node: Reduce) -> Array:
        """`topk[k](body, j)`: the slots are the extent of the rank `j`."""
        if not isinstance(node.at, Var):
            raise UnsupportedError(f"{node.op} at a computed slot has no float64 form here", loc=node.loc)
        return self.reduce(node.op, node.ranks, self(node.body), node.at.name)

    def reduce(self, op: str, ranks: tuple[str, ...], body: Array, slot: str | None = None) -> Array:
        """Reduction over named ranks; over k, pairs that are not kept contribute the identity."""
        axes = self.case.axes
        if any(r not in axes for r in ranks):
            raise UnsupportedError(f"a reduction over {', '.join(ranks)} has no float64 form here")
        shape = [1] * len(axes)
        for rank in ranks:
            shape[axes[rank]] = len(self.index[rank])
        body = np.broadcast_to(body, np.broadcast_shapes(np.shape(body), tuple(shape)))
        if op in ("argmax", "topk", "argtopk"):
            return self._best(op, ranks[0], body, slot)
        identity = REDUCERS[op].identity
        if "k" in ranks:
            body = np.where(self.keep, body, identity)
        for axis in (axes[r] for r in ranks):
            body = _UFUNCS[op].reduce(body, axis=axis, keepdims=True, initial=identity)
        return body

    def _best(self, op: str, rank: str, body: Array, slot: str | None) -> Array:
        axis = self.case.axes[rank]
        keys = np.broadcast_to(self.case.along(rank, self.index[rank].astype(float)), body.shape)
        if rank == "k":
            shape = np.broadcast_shapes(body.shape, self.keep.shape)
            body, keys = np.broadcast_to(body, shape), np.where(self.keep, keys, -1.0)
            body = np.where(self.keep, body, -np.inf)
        count = 1 if slot is None else self.case.extents[slot]
        values, chosen = best(body, keys, count, axis)
        out = values if op == "topk" else chosen
        return out if slot is None else np.swapaxes(out, axis, self.case.axes[slot])


def selection_ops(case: Case) -> dict[str, Callable[..., Any]]:
    """The operators by which `merge` combines selections, on arrays of a case."""

    def pick(values: list[Array], keys: list[Array], slot: str | None) -> tuple[Array, Array]:
        axis = case.axes["k"] if slot is None else case.axes[slot]
        count = 1 if slot is None else case.extents[slot]
        arrays = np.broadcast_arrays(*values, *keys)
        half = len(values)
        return best(np.concatenate(arrays[:half], axis), np.concatenate(arrays[half:], axis), count, axis)

    def topk(a: Array, b: Array, slot: str) -> Array:
        return pick([a, b], [np.zeros(1), np.zeros(1)], slot)[0]

    def argtopk(a: Array, a_keys: Array, b: Array, b_keys: Array, slot: str) -> Array:
        return pick([a, b], [a_keys, b_keys], slot)[1]

    def argmax(a: Array, a_key: Array, b: Array, b_key: Array) -> Array:
        return pick([a, b], [a_key, b_key], None)[1]

    return {"topk": topk, "argtopk": argtopk, "argmax": argmax}
