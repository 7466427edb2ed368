"""Random small problems for the check of a Fold: extents, inputs and the pairs kept.

Every value of the check is an array with one axis for each rank: q, k, d, e, then the program's own, of length
1 where it does not vary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngen.lang.ops import Kind
from attngen.lang.program import EXTENTS, Program

Array = NDArray[Any]
_AXES = ("q", "k", "d", "e")
_OWN_EXTENT = 3


@dataclass(frozen=True, slots=True)
class Case:
    """One random problem. `axes` gives each rank its axis; batch, head and key head have one entry."""

    extents: Mapping[str, int]
    axes: Mapping[str, int]
    tensors: Mapping[str, Array]
    scalars: Mapping[str, float]
    keep: Array
    grid: tuple[str, ...] = ()

    def along(self, rank: str, values: Array) -> Array:
        """A vector of values along a rank."""
        shape = [1] * len(self.axes)
        shape[self.axes[rank]] = -1
        return values.reshape(shape)


def random_case(program: Program, rng: np.random.Generator) -> Case:
    """A problem with a few queries, 0 to 19 keys, and rows that keep no key among others."""
    n_q, n_k, width, value_width = 3, int(rng.integers(0, 20)), 4, 2
    extents = dict.fromkeys(program.own_ranks, _OWN_EXTENT)
    extents |= {"q": n_q, "k": n_k, "d": width, "e": value_width, "b": 2, "h": 3, "g": 3}
    ranks = [*_AXES, *(r for r in program.own_ranks if r not in EXTENTS)]
    tensors: dict[str, Array] = {
        "Q": rng.normal(size=(n_q, width)) * 2,
        "K": rng.normal(size=(n_k, width)) * 2,
        "V": rng.normal(size=(n_k, value_width)),
    }
    # Scores that are exactly 0 reach the zeros of denominators: for a whole row, and for the first keys.
    tensors["Q"][0] *= rng.random() < 0.8
    tensors["K"][: n_k // 3] *= rng.random() < 0.7
    for decl in program.tensors:
        shape = tuple(extents[r] for r in decl.ranks)
        tensors[decl.name] = _random_tensor(decl.kind, shape, rng)
    scalars: dict[str, float] = {"scale": width**-0.5}
    for param in program.params:
        if not param.rank:
            default = param.default
            scalars[param.name] = default if default is not None else _random_scalar(param.kind, rng)
    density = rng.choice([0.2, 0.6, 1.0])
    keep = rng.random((n_q, n_k)) < density
    keep[rng.integers(n_q)] &= rng.random() < 0.7
    axes = {r: i for i, r in enumerate(ranks)}
    return Case(extents, axes, tensors, scalars, keep.reshape(n_q, n_k, *[1] * (len(axes) - 2)), program.grid)


def _random_tensor(kind: Kind, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    match kind:
        case Kind.INT:
            return rng.integers(0, 5, size=shape)
        case Kind.BOOL:
            return rng.random(shape) < 0.5
        case Kind.FLOAT:
            return rng.normal(size=shape)


def _random_scalar(kind: Kind, rng: np.random.Generator) -> float:
    return float(rng.uniform(0.5, 2.0)) if kind is Kind.FLOAT else int(rng.integers(1, 5))
