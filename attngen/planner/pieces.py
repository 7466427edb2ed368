"""Runs of keys become pieces: disjoint runs of key tiles, in ascending order, each with its full interior.

    before   two runs of keys, [0, sink) and [q_lo - window + 1, q_hi + 1), that may overlap
    after    two runs of tiles, the second starting no earlier than the first ends

The order of the runs is known for most masks; where it is not, a small sorting network orders them at run time.
Interiors that touch are joined first, so that a tile across the seam of two runs counts as full.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations

from attngen.lang.expr import Expr, Var, apply, free_vars
from attngen.planner.build import ZERO, ceil_tiles, choose, conjunction, floor_tiles, smax, smin
from attngen.planner.disjunct import Disjunct
from attngen.planner.facts import Facts
from attngen.planner.names import Lets
from attngen.planner.plan import BLOCK_K, Piece
from attngen.planner.poly import Poly, to_poly

BLOCK = Var(BLOCK_K)


@dataclass(frozen=True, slots=True)
class Run:
    """The keys of one disjunct.

    lo, hi            names of the hull's ends, in keys; empty where `hi <= lo`.
    from_zero         whether `lo` is the literal 0.
    full_lo, full_hi  the interior, in keys; None for a disjunct with residuals.
    """

    lo: str
    hi: str
    from_zero: bool
    full_lo: Expr | None
    full_hi: Expr | None


Span = tuple[Expr, Expr]


def arrange(runs: list[Run], disjuncts: list[Disjunct], facts: Facts, lets: Lets) -> tuple[Piece, ...]:
    """The pieces of a plan; their ends become lets."""
    if len(runs) == 1:
        return (_single(runs[0], facts, lets),)
    order = _known_order(runs, disjuncts, facts)
    ordered = [runs[i] for i in order] if order else runs
    tiles = [_tiles(run, lets, f"stop_{i + 1}") for i, run in enumerate(ordered)]
    spans: list[Span] = [(first, Var(stop)) for first, stop in tiles]
    if order is None:
        spans = _sorted(spans, lets)
    interiors = _join(ordered, lets)
    pieces: list[Piece] = []
    previous: Expr = ZERO
    for i, (first, last) in enumerate(spans):
        suffix = f"_{i + 1}"
        start = lets.let("start" + suffix, first if previous == ZERO else smax(first, previous))
        end = lets.let("end" + suffix, last if previous == ZERO else smax(last, Var(start)))
        pieces.append(_with_interior(start, end, interiors, lets, suffix))
        previous = Var(end)
    return tuple(pieces)


def _single(run: Run, facts: Facts, lets: Lets) -> Piece:
    first, end = _tiles(run, lets, "end")
    start = lets.let("start", first)
    if run.full_lo is None or run.full_hi is None:
        return Piece(start, end, end, end)
    full_lo = ceil_tiles(run.full_lo, BLOCK)
    full_start = lets.let("full_start", full_lo if full_lo == ZERO else smin(full_lo, Var(end)))
    inner: Expr = floor_tiles(run.full_hi, BLOCK)
    if not (run.from_zero and run.full_lo == ZERO):
        inner = smin(inner, Var(end))
    if not (full_lo == ZERO and facts.holds(to_poly(run.full_hi))):
        inner = smax(Var(full_start) if full_lo != ZERO else ZERO, inner)
    return Piece(start, end, full_start, lets.let("full_end", inner))


def _tiles(run: Run, lets: Lets, name: str) -> tuple[Expr, str]:
    """First tile and the let of one past the last; an empty hull is `(0, 0)`, so that it never cuts into another."""
    lo, hi = Var(run.lo), Var(run.hi)
    if run.from_zero:
        return ZERO, lets.let(name, ceil_tiles(hi, BLOCK))
    stop = lets.let(name, choose(apply("lt", lo, hi), ceil_tiles(hi, BLOCK), ZERO))
    return smin(floor_tiles(lo, BLOCK), Var(stop)), stop


def _known_order(runs: list[Run], disjuncts: list[Disjunct], facts: Facts) -> tuple[int, ...] | None:
    """An order in which each run starts no later than the next, whatever the call; None if there is none."""
    for order in permutations(range(len(runs))):
        if all(_before(runs[i], disjuncts[i], disjuncts[j], facts) for i, j in combinations(order, 2)):
            return order
    return None


def _before(run: Run, a: Disjunct, b: Disjunct, facts: Facts) -> bool:
    """Whether the run of `a` starts no later than that of `b`, wherever both have keys."""
    if run.from_zero:
        return True
    if any(facts.holds(low - high - 1) for high in _still(a.upper) for low in _still(b.lower)):
        return True
    return all(any(facts.holds(other - low) for other in b.lower) for low in a.lower) and len(
        _still(a.lower)
    ) == len(a.lower)


def _still(bounds: tuple[Poly, ...]) -> list[Poly]:
    """The bounds that are the same for every row."""
    return [p for p in bounds if not any("q" in free_vars(f) for m, _ in p.terms for f in m)]


def _sorted(spans: list[Span], lets: Lets) -> list[Span]:
    """The spans ordered by their first tile: a bubble of compare-and-exchange steps."""
    spans = [
        (lets.value(f"first_{i + 1}", a), lets.value(f"stop_{i + 1}", b)) for i, (a, b) in enumerate(spans)
    ]
    for top in range(len(spans) - 1, 0, -1):
        for i in range(top):
            (a, a_end), (b, b_end) = spans[i], spans[i + 1]
            swap = apply("lt", b, a)
            ends = (
                Var(lets.let("early", choose(swap, b_end, a_end))),
                Var(lets.let("late", choose(swap, a_end, b_end))),
            )
            starts = lets.value("first", smin(a, b)), lets.value("second", smax(a, b))
            spans[i], spans[i + 1] = (starts[0], ends[0]), (starts[1], ends[1])
    return spans


def _join(runs: list[Run], lets: Lets) -> list[Span]:
    """The interiors, in keys; the first of two that touch is replaced by what they cover together."""
    spans: list[Span] = []
    for i, run in enumerate(runs):
        if run.full_lo is not None and run.full_hi is not None:
            lo = lets.value(f"full_lo_{i + 1}", run.full_lo)
            spans.append((lo, lets.value(f"full_hi_{i + 1}", run.full_hi)))
    for i, j in combinations(range(len(spans)), 2):
        (a, a_end), (b, b_end) = spans[i], spans[j]
        touch = conjunction(
            apply("lt", a, a_end), apply("lt", b, b_end), apply("le", a, b_end), apply("le", b, a_end)
        )
        low = lets.value("join_lo", choose(touch, smin(a, b), a))
        spans[i] = (low, lets.value("join_hi", choose(touch, smax(a_end, b_end), a_end)))
    return spans


def _with_interior(start: str, end: str, interiors: list[Span], lets: Lets, suffix: str) -> Piece:
    """A piece with the longest of the interiors' parts in it."""
    if not interiors:
        return Piece(start, end, end, end)
    best: Span | None = None
    for lo, hi in interiors:
        first = smin(smax(ceil_tiles(lo, BLOCK), Var(start)), Var(end))
        first = lets.value("inner", first)
        last = lets.value("inner_end", smin(smax(floor_tiles(hi, BLOCK), first), Var(end)))
        if best is None:
            best = first, last
            continue
        gain = lets.value("gain", apply("sub", apply("sub", last, first), apply("sub", best[1], best[0])))
        longer = apply("gt", gain, ZERO)
        best = (
            lets.value("best", choose(longer, first, best[0])),
            lets.value("best_end", choose(longer, last, best[1])),
        )
    assert best is not None
    names = (lets.let("full_start" + suffix, best[0]), lets.let("full_end" + suffix, best[1]))
    return Piece(start, end, *names)
