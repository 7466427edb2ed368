"""Count passes over a rank: how often a fiber of it must be traversed from start to end.

A pass over rank R ends where an Einsum needs a *finished* reduction over R. The level of an Einsum that
iterates R is 1 + the number of finished reductions that stand in a chain before it; an Einsum that reads a
value made along R streams with its producer. The levels bound fusion: Einsums of one level can share a
loop. FuseMax counts strictly by tensor: a tensor takes as many passes as there are levels at which a full
R-fiber of it is read.

    S[q, k] = ...               level 1
    M[q]    = max[k](S)         level 1, complete after pass 1
    E[q, k] = exp(S - M)        level 2: M must be complete
    Z[q]    = sum[k](E)         level 2, complete after pass 2
    O[q, e] = sum[k](E / Z * V) level 3        -> 3 passes
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from attngen.algebra.tiles import tile_of, tile_ranks
from attngen.lang.expr import Load, Reduce, free_vars, loads, walk
from attngen.lang.program import Einsum
from attngen.lang.recurrences import last


@dataclass(frozen=True, slots=True)
class Access:
    """A read of `tensor` by an Einsum, and the ranks that index it."""

    tensor: str
    ranks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Traversal:
    """An Einsum as the pass count sees it: the ranks of its target and what it reads.

    A recurrence (`R[m + 1]` that depends on `R[m]` only) is written as an ordinary rank: such a tensor streams along
    its rank, and its last value, a traversal of its own, is a reduction over it.
    """

    target: str
    ranks: tuple[str, ...]
    reads: tuple[Access, ...]


@dataclass(frozen=True, slots=True)
class PassCount:
    """The passes a cascade makes over one rank.

    passes         traversals of the rank in sequence: the highest level.
    levels         Einsum -> the pass it runs in; 0 if it does not iterate the rank.
    tensor_passes  tensor -> number of passes that read a full fiber of it (FuseMax's strict count).
    """

    passes: int
    levels: Mapping[str, int]
    tensor_passes: Mapping[str, int]


def count_passes(
    cascade: Iterable[Einsum | Traversal],
    rank: str = "k",
    *,
    running: Mapping[str, frozenset[str]] | None = None,
) -> PassCount:
    """Passes of `cascade` over `rank`, as it is written.

    `running[target]` names the reductions whose running value is enough for `target` (rule D3): it shares
    their pass instead of waiting for it to end.
    """
    steps = traversals(cascade, rank)
    needs = running or {}
    ended: dict[str, int] = {}  # tensor -> passes that must have ended before any of it can be read
    made: dict[str, int] = {}  # tensor along the rank -> the pass that produces it
    levels: dict[str, int] = {}
    reads: dict[str, set[int]] = {}
    for step in steps:
        follows = needs.get(step.target, frozenset[str]())
        if rank in step.ranks or any(rank in a.ranks for a in step.reads):
            level = _level(step, rank, ended, made, levels, follows)
            for access in step.reads:
                if rank in access.ranks:
                    reads.setdefault(access.tensor, set()).add(level)
            if rank in step.ranks:
                made[step.target] = level
            ended[step.target] = level - 1 if rank in step.ranks else level
        else:
            level = 0
            ended[step.target] = max((ended.get(a.tensor, 0) for a in step.reads), default=0)
        levels[step.target] = level
    return PassCount(max(levels.values(), default=0), levels, {t: len(at) for t, at in reads.items()})


def footprints(tensor_passes: Mapping[str, int]) -> dict[str, str]:
    """How much of each tensor has to stay at hand: a tile of its fiber, or all of it for a second pass.

    A tensor of more passes is kept whole or read (or computed) again; FuseMax counts that as O(fiber).
    """
    return {tensor: "O(tile)" if count <= 1 else "O(fiber)" for tensor, count in tensor_passes.items()}


def traversals(cascade: Iterable[Einsum | Traversal], rank: str) -> list[Traversal]:
    """A cascade as the count over `rank` sees it.

    Passes are counted after partitioning: a value of a tile of keys, reduced within it, streams along the keys with its
    tile. The last value of a recurrence is a traversal `R.last` after it.
    """
    items = list(cascade)
    einsums = [e for e in items if isinstance(e, Einsum)]
    view = _View(rank, _of_tiles(einsums) if rank == "k" else {}, {e.target: e for e in einsums})
    out: list[Traversal] = []
    for item in items:
        out.extend([item] if isinstance(item, Traversal) else view.traversals(item))
    return out


@dataclass(frozen=True, slots=True)
class _View:
    """How the count over a rank sees Einsums: `of_tiles` are values of tiles, with the ranks that number these."""

    rank: str
    of_tiles: Mapping[str, frozenset[str]]
    einsums: Mapping[str, Einsum]

    def traversals(self, einsum: Einsum) -> list[Traversal]:
        own = self._ranks(einsum.target, einsum.ranks)
        reads = dict.fromkeys(self._access(ld) for x in einsum.exprs for ld in loads(x))
        reads.pop(Access(einsum.target, own), None)  # a recurrence, one step back
        out = [Traversal(einsum.target, own, tuple(reads))]
        if einsum.step is not None:
            rest = tuple(r for r in einsum.ranks if r != einsum.step)
            out.append(Traversal(f"{einsum.target}.last", rest, (Access(einsum.target, own),)))
        return out

    def _ranks(self, target: str, ranks: Iterable[str]) -> tuple[str, ...]:
        tiles = self.of_tiles.get(target, frozenset())
        return tuple(sorted({self.rank if r in tiles else r for r in ranks}))

    def _access(self, load: Load) -> Access:
        einsum = self.einsums.get(load.tensor)
        step = None if einsum is None else einsum.step
        if einsum is not None and step is not None and load.indices[einsum.ranks.index(step)] == last(einsum):
            return Access(f"{load.tensor}.last", tuple(sorted(free_vars(load))))
        return Access(load.tensor, self._ranks(load.tensor, free_vars(load)))


def _of_tiles(einsums: Sequence[Einsum]) -> dict[str, frozenset[str]]:
    """Einsums that have a value for each tile of keys, and read nothing of the keys but within it."""
    ranks = tile_ranks(einsums)
    out: dict[str, frozenset[str]] = {}
    for einsum in einsums if ranks else ():
        mine = ranks & set(einsum.ranks)
        over = [n for n in walk(einsum.body) if isinstance(n, Reduce) and "k" in n.ranks]
        within = all(any(tile_of(n, m) is not None for m in mine) for n in over)
        if mine and within and (over or any(ld.tensor in out for ld in loads(einsum.body))):
            out[einsum.target] = mine
    return out


def _level(
    step: Traversal,
    rank: str,
    ended: Mapping[str, int],
    made: Mapping[str, int],
    levels: Mapping[str, int],
    follows: frozenset[str],
) -> int:
    level = 1
    for access in step.reads:
        if access.tensor in follows:
            level = max(level, levels.get(access.tensor, 0), ended.get(access.tensor, 0))
            continue
        if rank in access.ranks:
            level = max(level, made.get(access.tensor, 1))
        level = max(level, ended.get(access.tensor, 0) + 1)
    return level
