"""PO5: a randomised check of a Fold against the program as written, in float64.

The program is evaluated densely on small random inputs under a random set of kept pairs; the Fold over
arbitrary tilings, empty and fully masked tiles included, and over arbitrary merge trees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from attngen.algebra.check_case import Array, Case, random_case
from attngen.algebra.check_values import Values, selection_ops
from attngen.algebra.fold import OLD, Fold, State
from attngen.algebra.merge import combined, finish_states, merge_states, row_values
from attngen.lang.expr import Expr
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import REDUCERS
from attngen.lang.program import Program


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
            case = random_case(program, rng)
            want = dense(program, case)
            for got in (by_tiles(fold, case, rng), by_merging(fold, case, rng)):
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


def dense(program: Program, case: Case) -> dict[str, Array]:
    """Every value of the cascade, as written."""
    named: dict[str, Array] = {}
    ranks = {e.target: e.ranks for e in program.cascade}
    values = Values(case, np.arange(case.extents["k"]), named, ranks)
    for einsum in program.cascade:
        named[einsum.target] = values(einsum.body)
    return named


def _ranks(fold: Fold) -> dict[str, tuple[str, ...]]:
    ranks = {s.name: s.ranks for s in (*fold.absorb, *fold.finish)}
    return ranks | {f"{name}{OLD}": r for name, r in ranks.items()}


def _ops(case: Case) -> dict[str, Callable[..., Any]]:
    return NUMPY_OPS | selection_ops(case)


def _identity_states(fold: Fold, case: Case) -> dict[str, Array]:
    states: dict[str, Array] = {}
    for state in fold.states:
        shape = [1] * len(case.axes)
        if state.reduce in ("topk", "argtopk"):
            shape[case.axes[state.ranks[-1]]] = case.extents[state.ranks[-1]]
        states[state.name] = np.full(shape, REDUCERS[state.reduce].identity)
    return states


def _row_leaf(fold: Fold, case: Case) -> Callable[[Expr], Array]:
    return Values(case, np.arange(0), {}, _ranks(fold)).leaf


def _absorb(fold: Fold, case: Case, before: Mapping[str, Array], keys: Array) -> dict[str, Array]:
    leaf = _row_leaf(fold, case)
    old = {f"{n}{OLD}": v for n, v in row_values(fold, before, leaf=leaf, ops=NUMPY_OPS).items()}
    named: dict[str, Array] = dict(old)
    tile: dict[str, Array] = {}
    values = Values(case, keys, named, _ranks(fold))
    for step in fold.absorb:
        if not isinstance(step, State):
            named[step.name] = values(step.body)
            continue
        acc = before[step.name]
        if step.rescale is not None and step.combine is not None:
            acc = NUMPY_OPS[step.combine](acc, values(step.rescale))
        for mix in step.mix:
            acc = acc + before[mix.state] * values(mix.factor)
        slot = step.ranks[-1] if step.reduce in ("topk", "argtopk") else None
        tile[step.name] = values.reduce(step.reduce, (fold.rank,), values(step.body), slot)
        named[step.name] = combined(fold, step, acc, tile[step.name], before, tile, _ops(case))
    return {s.name: named[s.name] for s in fold.states}


def _tiles(keys: Array, rng: np.random.Generator) -> list[Array]:
    cuts = np.sort(rng.integers(0, len(keys) + 1, size=rng.integers(0, 5)))
    return np.split(keys, cuts)


def by_tiles(fold: Fold, case: Case, rng: np.random.Generator) -> dict[str, Array]:
    """The outputs of a Fold over random tiles of the keys in random order."""
    states = _identity_states(fold, case)
    for keys in _tiles(rng.permutation(case.extents["k"]), rng):
        states = _absorb(fold, case, states, keys)
    return finish_states(fold, states, leaf=_row_leaf(fold, case), ops=NUMPY_OPS)


def by_merging(fold: Fold, case: Case, rng: np.random.Generator) -> dict[str, Array]:
    """The outputs from partial results over random parts of the keys, merged in random order."""
    leaf, ops = _row_leaf(fold, case), _ops(case)
    parts = [_identity_states(fold, case)]
    for part in _tiles(rng.permutation(case.extents["k"]), rng):
        states = _identity_states(fold, case)
        for keys in _tiles(part, rng):
            states = _absorb(fold, case, states, keys)
        parts.append(states)
    while len(parts) > 1:
        i, j = rng.choice(len(parts), size=2, replace=False)
        merged = merge_states(fold, parts[i], parts[j], leaf=leaf, ops=ops)
        parts = [p for n, p in enumerate(parts) if n not in (i, j)] + [merged]
    return finish_states(fold, parts[0], leaf=leaf, ops=ops)
