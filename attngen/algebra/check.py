"""PO5: a randomised check of a Fold against the program as written, in float64.

The program is evaluated densely on small random inputs under a random set of kept pairs; the Fold over
arbitrary tilings, empty and fully masked tiles included, and over arbitrary merge trees. Every value is an
array over the axes (q, k, d, e), of length 1 where it does not vary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngen.algebra.fold import OLD, Fold, State
from attngen.algebra.merge import finish_states, merge_states, reduced, row_values
from attngen.errors import UnsupportedError
from attngen.lang.domain import coordinate
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Const, Expr, Load, Param, Reduce, Size, Var
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import REDUCERS, Kind
from attngen.lang.program import Program

Array = NDArray[Any]
_AXES = {"q": 0, "k": 1, "d": 2, "e": 3}
_UFUNCS: dict[str, Any] = {
    "sum": np.add,
    "max": np.maximum,
    "min": np.minimum,
    "prod": np.multiply,
    "any": np.logical_or,
    "all": np.logical_and,
    "logaddexp": np.logaddexp,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One random problem: extents, inputs, the pairs kept."""

    extents: Mapping[str, int]
    tensors: Mapping[str, Array]
    scalars: Mapping[str, float]
    keep: Array
    grid: tuple[str, ...] = ()


def check_fold(fold: Fold, program: Program, *, trials: int = 20, seed: int = 0) -> float:
    """Largest error relative to `1 + |dense|` over `trials` random problems; inf if the Fold gives NaN.

    Where the program as written is itself NaN there is nothing to compare with, but a row that keeps no key
    must not be NaN in the Fold, even if it is 0 / 0 as written. Raises UnsupportedError for what has no float64
    form here.
    """
    rng = np.random.default_rng(seed)
    worst = 0.0
    with np.errstate(all="ignore"):
        for _ in range(trials):
            case = _random_case(program, rng)
            want = _dense(program, case)
            for got in (_by_tiles(fold, case, rng), _by_merging(fold, case, rng)):
                worst = max(worst, *(_error(got[name], want[name], case.keep) for name in fold.outputs))
    return worst


def _error(got: Array, want: Array, keep: Array) -> float:
    empty = ~keep.any(axis=1, keepdims=True)
    got, want, empty = np.broadcast_arrays(np.asarray(got, float), np.asarray(want, float), empty)
    # A quotient by a row value that is 0 is guarded to 0, also where it is infinite as written.
    known = ~np.isnan(want) & ~(np.isinf(want) & (got == 0))
    # Random inputs may lie outside the domain of the user's functions: then every row is NaN, and says nothing.
    meaningful = known | (empty & known.any())
    if (np.isnan(got) & meaningful).any():
        return math.inf
    gap = np.where((got == want) | ~known, 0.0, np.abs(got - want) / (1 + np.abs(want)))
    return float(np.max(np.nan_to_num(gap, nan=math.inf), initial=0.0))


def _random_case(program: Program, rng: np.random.Generator) -> Case:
    n_q, n_k, width, value_width = 3, int(rng.integers(0, 20)), 4, 2
    extents = {"q": n_q, "k": n_k, "d": width, "e": value_width, "b": 2, "h": 3}
    tensors: dict[str, Array] = {
        "Q": rng.normal(size=(n_q, width)) * 2,
        "K": rng.normal(size=(n_k, width)) * 2,
        "V": rng.normal(size=(n_k, value_width)),
    }
    # Scores that are exactly 0 reach the zeros of denominators: for a whole row, and for the first keys.
    tensors["Q"][0] *= rng.random() < 0.8
    tensors["K"][: n_k // 3] *= rng.random() < 0.7
    for decl in program.tensors:
        shape = tuple(extents.get(r, 5) for r in decl.ranks)
        tensors[decl.name] = _random_tensor(decl.kind, shape, rng)
    scalars: dict[str, float] = {"scale": width**-0.5}
    for param in program.params:
        default = param.default
        scalars[param.name] = default if default is not None else _random_scalar(param.kind, rng)
    density = rng.choice([0.2, 0.6, 1.0])
    keep = rng.random((n_q, n_k, 1, 1)) < density
    keep[rng.integers(n_q)] &= rng.random() < 0.7
    return Case(extents, tensors, scalars, keep, program.grid)


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


class _Values:
    """Evaluates expressions over some keys of a case, given the values computed so far."""

    def __init__(self, case: Case, keys: Array, named: Mapping[str, Array]) -> None:
        self.case = case
        self.keep = case.keep[:, keys]
        self.named = named
        self.index: dict[str, Array] = {r: np.arange(n) for r, n in case.extents.items()} | {"k": keys}

    def __call__(self, expr: Expr) -> Array:
        return np.asarray(evaluate(expr, self.leaf, NUMPY_OPS))

    def leaf(self, node: Expr) -> Array:
        match node:
            case Const(value):
                return np.asarray(value)
            case Var(name, None) if name in _AXES:
                shape = [1, 1, 1, 1]
                shape[_AXES[name]] = -1
                return self.index[name].reshape(shape)
            case Var("q" | "k" as rank, str(axis)):
                return self(coordinate(self.case.grid, rank, axis))
            case Var("b" | "h", None):
                return np.asarray(1)  # one batch entry and one head stand for all
            case Size(name):
                extents = {"n_q": "q", "n_k": "k", "n_b": "b", "n_h": "h", "D": "d", "E": "e"}
                return np.asarray(self.case.extents[extents[name]])
            case Param(name):
                return np.asarray(self.case.scalars[name])
            case Load(name, _) if name in self.named:
                return self.named[name]
            case Load(name, indices):
                return self._load(self.case.tensors[name], indices)
            case Reduce(op, ranks, body):
                return self.reduce(op, ranks, self(body))
            case _:
                raise UnsupportedError(f"no float64 value for {node!r}", loc=node.loc)

    def _load(self, tensor: Array, indices: tuple[Expr, ...]) -> Array:
        """Out-of-range indices are clamped, as in kernels."""
        at = [np.clip(self(i), 0, max(n - 1, 0)) for i, n in zip(indices, tensor.shape, strict=True)]
        if tensor.size == 0:
            return np.zeros(np.broadcast_shapes(*[a.shape for a in at]))
        return tensor[tuple(a.astype(np.int64) for a in at)]

    def reduce(self, op: str, ranks: tuple[str, ...], body: Array) -> Array:
        """Reduction over named ranks; over k, pairs that are not kept contribute the identity."""
        ufunc = _UFUNCS.get(op)
        if ufunc is None:
            raise UnsupportedError(f"{op} has no float64 form here")
        shape = [1, 1, 1, 1]
        for rank in ranks:
            shape[_AXES[rank]] = len(self.index[rank])
        body = np.broadcast_to(body, np.broadcast_shapes(np.shape(body), tuple(shape)))
        identity = REDUCERS[op].identity
        if "k" in ranks:
            body = np.where(self.keep, body, identity)
        axes = tuple(_AXES[r] for r in ranks)
        for axis in axes:
            body = ufunc.reduce(body, axis=axis, keepdims=True, initial=identity)
        return body


def _dense(program: Program, case: Case) -> dict[str, Array]:
    named: dict[str, Array] = {}
    values = _Values(case, np.arange(case.extents["k"]), named)
    for einsum in program.cascade:
        named[einsum.target] = values(einsum.body)
    return named


def _identity_states(fold: Fold) -> dict[str, Array]:
    return {s.name: np.full((1, 1, 1, 1), REDUCERS[s.reduce].identity) for s in fold.states}


def _row_leaf(case: Case) -> Callable[[Expr], Array]:
    return _Values(case, np.arange(0), {}).leaf


def _absorb(fold: Fold, case: Case, before: Mapping[str, Array], keys: Array) -> dict[str, Array]:
    old = {f"{n}{OLD}": v for n, v in row_values(fold, before, leaf=_row_leaf(case), ops=NUMPY_OPS).items()}
    named: dict[str, Array] = dict(old)
    values = _Values(case, keys, named)
    for step in fold.absorb:
        if not isinstance(step, State):
            named[step.name] = values(step.body)
            continue
        acc = before[step.name]
        if step.rescale is not None and step.combine is not None:
            acc = NUMPY_OPS[step.combine](acc, values(step.rescale))
        tile = values.reduce(step.reduce, (fold.rank,), values(step.body))
        named[step.name] = reduced(step.reduce, acc, tile, NUMPY_OPS)
    return {s.name: named[s.name] for s in fold.states}


def _tiles(keys: Array, rng: np.random.Generator) -> list[Array]:
    cuts = np.sort(rng.integers(0, len(keys) + 1, size=rng.integers(0, 5)))
    return np.split(keys, cuts)


def _by_tiles(fold: Fold, case: Case, rng: np.random.Generator) -> dict[str, Array]:
    states = _identity_states(fold)
    for keys in _tiles(rng.permutation(case.extents["k"]), rng):
        states = _absorb(fold, case, states, keys)
    return finish_states(fold, states, leaf=_row_leaf(case), ops=NUMPY_OPS)


def _by_merging(fold: Fold, case: Case, rng: np.random.Generator) -> dict[str, Array]:
    leaf = _row_leaf(case)
    parts = [_identity_states(fold)]
    for part in _tiles(rng.permutation(case.extents["k"]), rng):
        states = _identity_states(fold)
        for keys in _tiles(part, rng):
            states = _absorb(fold, case, states, keys)
        parts.append(states)
    while len(parts) > 1:
        i, j = rng.choice(len(parts), size=2, replace=False)
        merged = merge_states(fold, parts[i], parts[j], leaf=leaf, ops=NUMPY_OPS)
        parts = [p for n, p in enumerate(parts) if n not in (i, j)] + [merged]
    return finish_states(fold, parts[0], leaf=leaf, ops=NUMPY_OPS)
