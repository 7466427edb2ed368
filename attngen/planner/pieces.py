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
    hulls: list[Span] = [(first, Var(stop)) for first, stop in tiles]
    interiors = _interiors(ordered, lets, ordered=order is not None)
    if order is None:
        hulls, interiors = _sorted(hulls, interiors, lets)
    pieces: list[Piece] = []
    previous: Expr = ZERO
    for i, ((first, last), interior) in enumerate(zip(hulls, interiors, strict=True), 1):
        start = lets.let(f"start_{i}", first if previous == ZERO else smax(first, previous))
        end = lets.let(f"end_{i}", last if previous == ZERO else smax(last, Var(start)))
        pieces.append(_with_interior(start, end, interior, lets, f"_{i}"))
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


def _sorted(
    hulls: list[Span], interiors: list[Span | None], lets: Lets
) -> tuple[list[Span], list[Span | None]]:
    """Hulls ordered by their first tile, interiors with them: a bubble of compare-and-exchange steps."""
    rows = [
        [lets.value("first", a), b, *(interior or (ZERO, ZERO))]
        for (a, b), interior in zip(hulls, interiors, strict=True)
    ]
    labels = ("first", "stop", "inner", "inner_stop")
    for top in range(len(rows) - 1, 0, -1):
        for i in range(top):
            one, other = rows[i], rows[i + 1]
            swap = apply("lt", other[0], one[0])
            pairs = list(zip(labels, one, other, strict=True))
            rows[i] = [lets.value(name, choose(swap, y, x)) for name, x, y in pairs]
            rows[i + 1] = [lets.value(name, choose(swap, x, y)) for name, x, y in pairs]
    nothing = all(interior is None for interior in interiors)
    return [(r[0], r[1]) for r in rows], [None if nothing else (r[2], r[3]) for r in rows]


def _interiors(runs: list[Run], lets: Lets, *, ordered: bool) -> list[Span | None]:
    """The interiors, in keys, those that touch widened to what they cover together.

    In a known order the first of two is enough: the tile across their seam has keys of the first run. An empty
    interior may touch too; widening by it changes nothing. A run without one borrows another's: its hull may hold it.
    """
    spans: list[Span | None] = []
    for i, run in enumerate(runs, 1):
        if run.full_lo is None or run.full_hi is None:
            spans.append(None)
        else:
            lo = lets.value(f"full_lo_{i}", run.full_lo)
            spans.append((lo, lets.value(f"full_hi_{i}", run.full_hi)))
    for i, j in combinations(range(len(spans)), 2):
        one, other = spans[i], spans[j]
        if one is None or other is None:
            continue
        (a, a_end), (b, b_end) = one, other
        touch = conjunction() if b == ZERO else apply("le", b, a_end)  # ends are never below 0
        if a != ZERO:
            touch = conjunction(touch, apply("le", a, b_end))
        low = a if a == ZERO else lets.value("join_lo", choose(touch, smin(a, b), a))
        high = lets.value("join_hi", choose(touch, smax(a_end, b_end), a_end))
        spans[i] = (low, high)
        if not ordered:
            low = lets.value("join_lo", choose(touch, smin(a, b), b))
            spans[j] = (low, lets.value("join_hi", choose(touch, smax(a_end, b_end), b_end)))
    some = next((span for span in spans if span is not None), None)
    return [some if span is None else span for span in spans]


def _with_interior(start: str, end: str, interior: Span | None, lets: Lets, suffix: str) -> Piece:
    if interior is None:
        return Piece(start, end, end, end)
    lo, hi = interior
    first, last = Var(start), Var(end)
    inner = lets.let(
        "full_start" + suffix, first if lo == ZERO else smin(smax(ceil_tiles(lo, BLOCK), first), last)
    )
    inner_end = smin(smax(floor_tiles(hi, BLOCK), Var(inner)), last)
    return Piece(start, end, inner, lets.let("full_end" + suffix, inner_end))
