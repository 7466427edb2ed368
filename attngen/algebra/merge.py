"""Merge partial results over different keys, and finish a merged one.

    M = max(M_a, M_b)
    Z = Z_a * exp(M_a - finite(M)) + Z_b * exp(M_b - finite(M))

Both sides are rescaled from their own statistics to the common ones, each with the shares that its own
accumulators give one another, and combined with the reducer. This is
the same Fold that absorbs tiles: a tile is a partial result over its keys. Everything is generic over the
values' type through a table of operators, so numpy arrays, torch tensors and symbols all work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from attngen.algebra.fold import OLD, Fold, State, is_old
from attngen.algebra.select import VALUES_OF, values_of
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Expr, Load
from attngen.lang.ops import SLOTTED

T = TypeVar("T")
Leaf = Callable[[Expr], T]
Ops = Mapping[str, Callable[..., T]]


def merge_states(
    fold: Fold, a: Mapping[str, T], b: Mapping[str, T], *, leaf: Leaf[T], ops: Ops[T]
) -> dict[str, T]:
    """The states over the keys of `a` and `b` together, from those over each (keys in both count twice).

    `a` and `b` map the names of `fold.states` to values; `leaf` gives every input, parameter, size and
    constant that a row expression reads; `ops` gives the operators of `ops.OPS` their meaning on T. A Fold with
    selections needs three more: `topk(values_a, values_b, slot)`, `argtopk(values_a, keys_a, values_b, keys_b,
    slot)` with the rank of the slots by name, and `argmax(values_a, keys_a, values_b, keys_b)`.
    """
    sides = [row_values(fold, side, leaf=leaf, ops=ops) for side in (a, b)]
    merged: dict[str, T] = {}
    for step in fold.absorb:
        if not isinstance(step, State):
            if fold.rank not in step.ranks:
                merged[step.name] = _value(step.body, merged, merged, leaf, ops)
            continue
        parts = [side[step.name] for side in sides]
        if step.rescale is not None and step.combine is not None:
            ratios = [_value(step.rescale, merged, side, leaf, ops) for side in sides]
            parts = [ops[step.combine](part, ratio) for part, ratio in zip(parts, ratios, strict=True)]
        for mix in step.mix:
            shares = [ops["mul"](s[mix.state], _value(mix.factor, merged, s, leaf, ops)) for s in sides]
            parts = [ops["add"](part, share) for part, share in zip(parts, shares, strict=True)]
        merged[step.name] = combined(fold, step, parts[0], parts[1], sides[0], sides[1], ops)
    names = {s.name for s in fold.states}
    return {name: value for name, value in merged.items() if name in names}


def combined(
    fold: Fold, state: State, a: T, b: T, side_a: Mapping[str, T], side_b: Mapping[str, T], ops: Ops[T]
) -> T:
    """`a (+) b`. Keys of a selection are chosen by the values that each side keeps beside them."""
    slot = (state.ranks[-1],) if state.reduce in SLOTTED else ()
    if state.reduce == "topk":
        return ops["topk"](a, b, *slot)
    if state.reduce in VALUES_OF:
        by = values_of(state, fold.states).name
        return ops[state.reduce](side_a[by], a, side_b[by], b, *slot)
    return reduced(state.reduce, a, b, ops)


def finish_states(fold: Fold, states: Mapping[str, T], *, leaf: Leaf[T], ops: Ops[T]) -> dict[str, T]:
    """The outputs of the Fold from its states after the last key."""
    values = row_values(fold, states, leaf=leaf, ops=ops)
    for let in fold.finish:
        values[let.name] = _value(let.body, values, values, leaf, ops)
    return {name: values[name] for name in fold.outputs}


def row_values(fold: Fold, states: Mapping[str, T], *, leaf: Leaf[T], ops: Ops[T]) -> dict[str, T]:
    """States and the row values that the loop computes from them."""
    values: dict[str, T] = {}
    for step in fold.absorb:
        if isinstance(step, State):
            values[step.name] = states[step.name]
        elif fold.rank not in step.ranks:
            values[step.name] = _value(step.body, values, values, leaf, ops)
    return values


def reduced(reducer: str, a: T, b: T, ops: Ops[T]) -> T:
    """`a (+) b` for a reducer whose state is one number."""
    if reducer == "logaddexp":
        top = ops["max"](a, b)
        base = ops["finite"](top)
        total = ops["add"](ops["exp"](ops["sub"](a, base)), ops["exp"](ops["sub"](b, base)))
        return ops["add"](base, ops["log"](total))
    names = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}
    return ops[names[reducer]](a, b)


def _value(expr: Expr, new: Mapping[str, T], before: Mapping[str, T], leaf: Leaf[T], ops: Ops[T]) -> T:
    """`expr` with row values from `new`, and old ones from `before`."""

    def read(node: Expr) -> T:
        if isinstance(node, Load):
            if is_old(node.tensor):
                return before[node.tensor.removesuffix(OLD)]
            if node.tensor in new:
                return new[node.tensor]
        return leaf(node)

    return evaluate(expr, read, ops)
