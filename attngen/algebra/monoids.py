"""D5: registered monoids whose elements are more than one number, in float64.

    lift(values, keys)   the element of each single key
    merge(a, b)          of the elements over two sets of keys; associative and commutative
    lower(a)             the result

An element is a tuple of arrays. A selection keeps its slots on the axis `axis`, best first: values in
descending order, equal ones by ascending key; a slot that nothing fills has the value -inf and the key -1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Element = tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class Monoid:
    """A monoid by name; `identity` is the element over no key."""

    name: str
    identity: Callable[[], Element]
    lift: Callable[[Array, Array], Element]
    merge: Callable[[Element, Element], Element]
    lower: Callable[[Element], Array]


def selection(slots: int, axis: int = -1) -> Monoid:
    """The `slots` largest values and their keys, on one axis. With one slot: the maximum and its argument."""

    def identity() -> Element:
        return np.full(_shape(axis, slots), -np.inf), np.full(_shape(axis, slots), -1.0)

    def lift(values: Array, keys: Array) -> Element:
        return best(np.asarray(values, float), np.asarray(keys, float), slots, axis)

    def merge(a: Element, b: Element) -> Element:
        pairs = [np.broadcast_arrays(v, k) for v, k in (a, b)]
        values = _joined([p[0] for p in pairs], axis)
        keys = _joined([p[1] for p in pairs], axis)
        return best(values, keys, slots, axis)

    return Monoid("topk", identity, lift, merge, lambda a: a[0])


def _shape(axis: int, slots: int) -> tuple[int, ...]:
    if axis < 0:
        return (slots,)
    return tuple(slots if i == axis else 1 for i in range(axis + 1))


def _joined(parts: list[Array], axis: int) -> Array:
    """Concatenation along `axis`, the other axes broadcast."""
    at = axis % parts[0].ndim
    moved = [np.moveaxis(p, at, -1) for p in parts]
    outer = np.broadcast_shapes(*(m.shape[:-1] for m in moved))
    spread = [np.broadcast_to(m, (*outer, m.shape[-1])) for m in moved]
    return np.moveaxis(np.concatenate(spread, axis=-1), -1, at)


def best(values: Array, keys: Array, slots: int, axis: int = -1) -> tuple[Array, Array]:
    """The best `slots` of the pairs along `axis`, in order; a key of -1 is no pair and comes last."""
    values, keys = np.broadcast_arrays(values, keys)
    missing = [np.full((), -np.inf), np.full((), -1.0)]
    wide = [np.moveaxis(a, axis, -1) for a in (values, keys)]
    padding = (*wide[0].shape[:-1], slots)
    wide = [
        np.concatenate([w, np.broadcast_to(m, padding)], axis=-1) for w, m in zip(wide, missing, strict=True)
    ]
    # Last key of a lexsort counts most: kept before missing, large before small, then the smaller key.
    order = np.lexsort((wide[1], -wide[0], wide[1] < 0), axis=-1)[..., :slots]
    chosen = [np.take_along_axis(w, order, axis=-1) for w in wide]
    return np.moveaxis(chosen[0], -1, axis), np.moveaxis(chosen[1], -1, axis)


def _log_add(a: Element, b: Element) -> Element:
    top = np.maximum(a[0], b[0])
    base = np.where(np.isinf(top), 0.0, top)
    return top, a[1] * np.exp(a[0] - base) + b[1] * np.exp(b[0] - base)


def _lower_log(a: Element) -> Array:
    with np.errstate(divide="ignore"):
        return a[0] + np.log(a[1])


# The logarithm of a sum of exponentials, as the maximum and a sum that cannot overflow.
LOGADDEXP = Monoid(
    "logaddexp",
    lambda: (np.asarray(-np.inf), np.asarray(0.0)),
    lambda values, _: (np.asarray(values, float), np.where(np.isneginf(values), 0.0, 1.0)),
    _log_add,
    lambda a: np.where(np.isneginf(a[0]), -np.inf, _lower_log(a)),
)


def _chan(a: Element, b: Element) -> Element:
    """Counts, means and sums of squared deviations of two samples together."""
    count = a[0] + b[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(count > 0, b[0] / count, 0.0)
    gap = b[1] - a[1]
    return count, a[1] + gap * share, a[2] + b[2] + gap * gap * a[0] * share


# Welford's and Chan's variance: (count, mean, sum of squared deviations).
WELFORD = Monoid(
    "welford",
    lambda: (np.asarray(0.0), np.asarray(0.0), np.asarray(0.0)),
    lambda values, _: (np.ones_like(values, float), np.asarray(values, float), np.zeros_like(values, float)),
    _chan,
    lambda a: a[2] / a[0],
)

ARGMAX = selection(1)
