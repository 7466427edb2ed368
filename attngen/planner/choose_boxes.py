"""Choose the shapes of query and key boxes by counting, exactly, the pairs of tiles a call would visit.

    30 x 48 x 80 tokens, window 18 x 24 x 24, tiles of 128 lanes      ->  queries 8 x 4 x 4, keys 4 x 8 x 4

The visits of a box schedule are a product over the axes, so an axis's candidates are counted by themselves, all at
once, and the combinations are sums of products of a few table entries. Candidates are powers of two and multiples of
what the mask divides by (a window of 7 packs twice into 14), for which tilings that begin off 0 are tried as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngen.errors import MissingTensorError
from attngen.lang.expr import Apply, Const, Expr, Param, Var, walk
from attngen.lang.program import Program
from attngen.planner.evaluate_boxes import BoxValues, along
from attngen.planner.layout import Axis, Boxes, Shape, box_name, hi_name, lo_name, origin_name
from attngen.planner.plan import AxisRun, BoxPlan
from attngen.planner.split import split

_MULTIPLES = (1, 2, 3, 4, 6, 8, 12, 16)
_MOST_ORIGINS = 64  # a unit longer than this is tiled from 0
_PARTIAL = 0.02  # what a masked tile costs beyond an unmasked one, for choosing among equal visits

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Call:
    """What the choice depends on: values of the mask, lengths, and lanes in a tile of each rank."""

    values: Mapping[str, Any]
    n_q: int
    n_k: int
    batch: int
    heads: int
    block_q: int
    block_k: int

    @property
    def sizes(self) -> dict[str, int | None]:
        """The sizes a plan may read."""
        return {"n_q": self.n_q, "n_k": self.n_k, "n_b": self.batch, "n_h": self.heads}


@dataclass(frozen=True, slots=True)
class _Table:
    """The visits along one axis for each pair of extents: `cost[b, h, i, j]`, with the best origin of the pair."""

    axis: Axis
    q: tuple[int, ...]
    k: tuple[int, ...]
    visits: Counts
    full: Counts
    origins: NDArray[np.int64]


def choose_boxes(program: Program, plan: BoxPlan, call: Call) -> Boxes:
    """The shapes with the fewest visits that fit the tiles; near-cubes for a mask that is no product over axes.

    Raises MissingTensorError for a value the mask reads that is not in `call.values`.
    """
    return replace(_shapes_of(program, plan, call), cut=_is_cut(plan, call), tight=is_tight(plan, call))


def suits(boxes: Boxes, plan: BoxPlan, call: Call) -> bool:
    """Whether a kernel of these boxes is right for a call: it counts on nothing that the call lacks."""
    return (boxes.cut or not _is_cut(plan, call)) and (not boxes.tight or is_tight(plan, call))


def is_tight(plan: BoxPlan, call: Call) -> bool:
    """Whether every key of a hull is seen by some row of its tile, by proof or for the values of the call."""
    return plan.tight or _touch(plan, call)


def _touch(plan: BoxPlan, call: Call) -> bool:
    """Whether the runs of neighbouring rows touch along every axis, so that together they fill their hull.

    Looked at row by row, which is a few hundred coordinates an axis, where a proof would need to know more of the
    parameters than any call violates: that a window is no shorter than its stride, say.
    """
    if not plan.rows or not call.n_q or not call.n_k:
        return False
    for name, first, end in plan.rows:
        axis = plan.q.axis(name)
        at = BoxValues(
            call.values,
            call.sizes,
            {"b": along(np.arange(call.batch), 0, 4), "h": along(np.arange(call.heads), 1, 4)},
        )
        group = _group_of(plan, axis)
        if group is not None:
            at.known[group.name] = along(np.arange(max(int(at(group.most)), 1)), 2, 4)
        rows = np.arange(max(int(at(axis.most)), 1))
        at.known[f"q.{name}"] = rows + np.asarray(at(axis.low))
        there = rows < np.asarray(at(axis.extent))
        lo, hi, exists = np.broadcast_arrays(_four(at(first)), _four(at(end)), there)
        if (exists & (lo >= hi)).any():
            return False
        apart = (lo[..., 1:] > hi[..., :-1]) | (hi[..., 1:] < lo[..., :-1])
        if (exists[..., 1:] & apart).any():
            return False
    return True


def _is_cut(plan: BoxPlan, call: Call) -> bool:
    """Whether some plane of the grid lacks keys."""
    first = next(a for a in plan.k.axes if not a.group)
    if first.whole == first.extent:
        return False
    at = BoxValues(call.values, call.sizes, {a.name: 0 for a in plan.k.axes})
    return int(at(first.whole)) != int(at(first.extent))


def _shapes_of(program: Program, plan: BoxPlan, call: Call) -> Boxes:
    axes = [a for a in plan.q.axes if not a.group]
    if not program.grid:  # residue classes on a line: the longest runs, whatever the lengths
        return _with_groups(plan, [Shape(axes[0].name, call.block_q, call.block_k)])
    if not plan.runs or not call.n_q or not call.n_k:
        return _cubes(plan, axes, call)
    units = _units(program, call)
    at = BoxValues(call.values, call.sizes, {})
    (q_sizes, q_shapes), (k_sizes, k_shapes) = (
        _shapes(
            tuple(
                _families(max(int(at(layout.axis(a.name).most)), 1), volume, units.get(a.name, ()))
                for a in axes
            ),
            volume,
        )
        for layout, volume in ((plan.q, call.block_q), (plan.k, call.block_k))
    )
    tables = [
        _table(plan, axis, call, units.get(axis.name, ()), q, k)
        for axis, q, k in zip(axes, q_sizes, k_sizes, strict=True)
    ]
    visited = full = np.ones((1, 1, 1, 1))
    for a, table in enumerate(tables):
        q, k = q_shapes[:, a], k_shapes[:, a]
        visited = visited * table.visits[:, :, q][:, :, :, k]
        full = full * table.full[:, :, q][:, :, :, k]
    cost = (visited + _PARTIAL * (visited - full)).sum(axis=(0, 1))
    i, j = _best(cost, tables, q_shapes, k_shapes)
    shapes = [
        Shape(t.axis.name, t.q[qi], t.k[ki], int(t.origins[qi, ki]))
        for t, qi, ki in zip(tables, q_shapes[i], k_shapes[j], strict=True)
    ]
    return _with_groups(plan, shapes)


def nominal_boxes(
    program: Program, plan: BoxPlan, values: Mapping[str, Any], block_q: int, block_k: int
) -> Boxes:
    """Boxes for a kernel whose grid is not known: those of a nominal grid, or near-cubes if values are missing."""
    n = 64 ** max(1, len(program.grid)) if len(program.grid) < 4 else 64**3
    nominal = {p.name: 64 for p in program.params if p.name.startswith("size_")}
    call = Call({**nominal, **values}, n, n, 1, 1, block_q, block_k)
    try:
        return choose_boxes(program, plan, call)
    except MissingTensorError:
        return _cubes(plan, [a for a in plan.q.axes if not a.group], call)


def _with_groups(plan: BoxPlan, shapes: list[Shape]) -> Boxes:
    """The shapes in the order of the layout; a tile holds one residue class."""
    by_name = {s.axis: s for s in shapes}
    return Boxes(tuple(by_name.get(a.name, Shape(a.name, 1, 1)) for a in plan.q.axes))


def _cubes(plan: BoxPlan, axes: list[Axis], call: Call) -> Boxes:
    """Boxes that are as square as powers of two and the extents allow."""
    at = BoxValues(call.values, call.sizes, {})

    def cube(extents: list[int], volume: int) -> list[int]:
        box = [1] * len(extents)
        while True:
            free = [a for a, n in enumerate(extents) if box[a] < n]
            grown = min(free, key=lambda a: (box[a], -a), default=None)
            if grown is None or prod(box) * 2 > volume:
                return box
            box[grown] *= 2

    extents = {rank: _extents(rank_axes, at) for rank, rank_axes in (("q", plan.q.axes), ("k", plan.k.axes))}
    q, k = (cube(extents[rank], size) for rank, size in (("q", call.block_q), ("k", call.block_k)))
    return _with_groups(plan, [Shape(a.name, *pair) for a, *pair in zip(axes, q, k, strict=True)])


def _extents(axes: tuple[Axis, ...], at: BoxValues) -> list[int]:
    out: list[int] = []
    for axis in axes:
        if not axis.group:
            try:
                out.append(max(int(at(axis.most)), 1))
            except MissingTensorError:
                out.append(64)
    return out


def _units(program: Program, call: Call) -> dict[str, tuple[int, ...]]:
    """What the mask divides coordinates by, per tiled axis: windows and frames that tiles should hold whole."""
    out: dict[str, tuple[int, ...]] = {}
    for axis, divisors in _divisors(program):
        numbers = (_number(d, call) for d in divisors)
        out[axis] = tuple(sorted({n for n in numbers if n is not None and n > 1}))
    return out


@lru_cache(maxsize=256)
def _divisors(program: Program) -> tuple[tuple[str, tuple[Expr, ...]], ...]:
    found = split(program)
    out: list[tuple[str, tuple[Expr, ...]]] = []
    for mask in found.axes if found is not None else ():
        nodes = (n for p in mask.parts for n in walk(p))
        by = [
            n.args[1]
            for n in nodes
            if isinstance(n, Apply) and n.op in ("floordiv", "mod") and _moves(n.args[0])
        ]
        out.append((mask.tiled, tuple(dict.fromkeys(by))))
    return tuple(out)


def _moves(expr: Expr) -> bool:
    return any(isinstance(n, Var) and n.name in ("q", "k") for n in walk(expr))


def _number(expr: Expr, call: Call) -> int | None:
    match expr:
        case Const(value):
            return int(value)
        case Param(name) if name in call.values:
            return int(call.values[name])
        case _:
            return None


def _families(extent: int, volume: int, units: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Coordinates a box may hold of an axis of `extent`: powers of two, and multiples of each unit, ascending.

    A longer box of one family is worth no less than a shorter one; between families nothing can be said.
    """
    powers = (1 << i for i in range(volume.bit_length()))
    families = [powers, *((m * u for m in _MULTIPLES) for u in units)]
    out: list[tuple[int, ...]] = []
    for family in families:
        sizes = sorted({min(c, extent) for c in family if min(c, extent) <= volume})
        if sizes and tuple(sizes) not in out:
            out.append(tuple(sizes))
    return tuple(out)


def _table(
    plan: BoxPlan, axis: Axis, call: Call, units: tuple[int, ...], q: tuple[int, ...], k: tuple[int, ...]
) -> _Table:
    """The visits along one axis for query boxes `q` and key boxes `k`."""
    trials = [(bq, bk, origin) for bq, bk in product(q, k) for origin in _origins(bq, bk, units)]
    visits, full = _count(plan, axis, call, trials)
    pairs = {pair: n for n, pair in enumerate(product(q, k))}
    totals = visits.sum(axis=(0, 1)) - _PARTIAL * full.sum(axis=(0, 1))
    of = np.array([pairs[bq, bk] for bq, bk, _ in trials])
    order = np.lexsort((totals, of))  # the best origin of each pair comes first among its trials
    best = order[np.searchsorted(of[order], np.arange(len(pairs)))]
    shape = (*visits.shape[:2], len(q), len(k))
    origins = np.array([trials[n][2] for n in best], dtype=np.int64).reshape(len(q), len(k))
    return _Table(axis, q, k, visits[:, :, best].reshape(shape), full[:, :, best].reshape(shape), origins)


def _origins(bq: int, bk: int, units: tuple[int, ...]) -> list[int]:
    """Where tiles of whole units may begin: anywhere within a unit; other tiles begin at 0."""
    out = {0}
    for unit in units:
        if unit <= _MOST_ORIGINS and bq % unit == 0 and bk % unit == 0:
            out |= set(range(unit))
    return sorted(out)


def _count(
    plan: BoxPlan, axis: Axis, call: Call, trials: list[tuple[int, int, int]]
) -> tuple[Counts, Counts]:
    """Visited and full key tiles along one axis, summed over its query tiles, for every trial at once."""
    run = next(r for r in plan.runs if r.axis == axis.name)
    lets, reads = _needed(plan, run)
    known: dict[str, Any] = {
        "b": along(np.arange(call.batch if "b" in reads else 1), 0, 4),
        "h": along(np.arange(call.heads if "h" in reads else 1), 1, 4),
    }
    at = BoxValues(call.values, call.sizes, known)
    group = _group_of(plan, axis)
    if group is not None:
        known[group.name] = along(np.arange(max(int(at(group.most)), 1)), 2, 4)
    most = max(int(at(axis.most)), 0)
    counts = np.array([-(-(most + o) // bq) for bq, _, o in trials], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    of = np.repeat(np.arange(len(trials)), counts)
    bq, bk, origin = (np.array(x, dtype=np.int64)[of] for x in zip(*trials, strict=True))
    known[box_name("q", axis.name)], known[box_name("k", axis.name)] = bq, bk
    known[origin_name(axis.name)] = origin
    lo = (np.arange(of.size) - starts[of]) * bq
    known[lo_name(axis.name)] = lo
    known[hi_name(axis.name)] = np.minimum(lo + bq, np.asarray(at(axis.extent)) + origin) - 1
    for name, body in lets:
        known[name] = at(body)
    exists = known[hi_name(axis.name)] >= lo
    visited = np.maximum(known[run.end] - known[run.start], 0) * exists
    full = np.maximum(known[run.full_end] - known[run.full_start], 0) * exists

    def total(x: Any) -> Counts:
        whole = np.broadcast_to(x, (*known["b"].shape[:1], known["h"].shape[1], *x.shape[-2:])[:4])
        return np.add.reduceat(whole, starts, axis=3).sum(axis=2).astype(np.float64)

    return total(_four(visited)), total(_four(full))


def _four(x: Any) -> NDArray[Any]:
    out = np.asarray(x)
    return out.reshape((1,) * (4 - out.ndim) + out.shape)


@lru_cache(maxsize=256)
def _needed(plan: BoxPlan, run: AxisRun) -> tuple[tuple[tuple[str, Expr], ...], frozenset[str]]:
    """The lets that one axis's run depends on, in order, and all names that they and the run read."""
    wanted = {run.start, run.end, run.full_start, run.full_end}
    out: list[tuple[str, Expr]] = []
    for name, body in reversed(plan.lets):
        if name in wanted:
            out.append((name, body))
            wanted |= {n.name for n in walk(body) if isinstance(n, Var)}
    return tuple(reversed(out)), frozenset(wanted)


def _group_of(plan: BoxPlan, axis: Axis) -> Axis | None:
    """The residue classes of an axis: the axis of groups right before it."""
    names = [a.name for a in plan.q.axes]
    at = names.index(axis.name)
    before = plan.q.axes[at - 1] if at else None
    return before if before is not None and before.group and axis.name.endswith("step") else None


@lru_cache(maxsize=64)
def _shapes(
    axes: tuple[tuple[tuple[int, ...], ...], ...], volume: int
) -> tuple[list[tuple[int, ...]], NDArray[np.int64]]:
    """Every choice of one size an axis that fits the volume and that no axis could outgrow within its family.

    Returns the sizes that occur along each axis, and the shapes as indices into them.
    """
    found: dict[tuple[int, ...], None] = {}
    for families in product(*axes):
        for choice in product(*(range(len(f)) for f in families)):
            sizes = tuple(f[i] for f, i in zip(families, choice, strict=True))
            size = prod(sizes)
            if size > volume:
                continue
            grows = (
                i + 1 < len(f) and size // f[i] * f[i + 1] <= volume
                for f, i in zip(families, choice, strict=True)
            )
            if not any(grows):
                found[sizes] = None
    along_axes = [tuple(sorted({s[a] for s in found})) for a in range(len(axes))]
    index = [[axis.index(n) for axis, n in zip(along_axes, shape, strict=True)] for shape in found]
    return along_axes, np.array(index, dtype=np.int64)


def _best(
    cost: Counts, tables: list[_Table], q_shapes: NDArray[np.int64], k_shapes: NDArray[np.int64]
) -> tuple[int, int]:
    """The cheapest pair of shapes; among equals the longest contiguous runs of keys, then of queries."""
    near = np.argwhere(cost <= cost.min() * 1.0005)
    inner = tables[-1]
    k_run = np.array(inner.k)[k_shapes[near[:, 1], -1]]
    q_run = np.array(inner.q)[q_shapes[near[:, 0], -1]]
    i, j = near[np.lexsort((cost[near[:, 0], near[:, 1]], -q_run, -k_run))[0]]
    return int(i), int(j)
