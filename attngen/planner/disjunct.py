"""The disjuncts of a solved mask: simplified against each other, and examined for tightness.

before   (k <= q & k <= p - 1) | (k <= q & k <= g)        after   k <= q & k <= max(p - 1, g)
before   (x & k <= 3 & k <= 5) | (x & k <= 3 & y)          after   x & k <= 3
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations, product

from attngen.lang.expr import Apply, Expr, apply, free_vars, substitute
from attngen.planner.build import at_least_zero, conjunction, smax, smin
from attngen.planner.extremes import attains_least
from attngen.planner.facts import Facts, Q, Trend, next_row
from attngen.planner.poly import Poly, to_expr, to_poly
from attngen.planner.solve import Bound, Condition, Fact, Residual

FactSet = frozenset[Fact]


@dataclass(frozen=True, slots=True)
class Disjunct:
    """One conjunction: bounds on the key (polynomials in `q`), bounds on the row, conditions, residuals.

    conditions      booleans of a whole head.
    row_conditions  booleans of each row.
    """

    lower: tuple[Poly, ...]
    upper: tuple[Poly, ...]
    row_lower: tuple[Poly, ...]
    row_upper: tuple[Poly, ...]
    conditions: tuple[Expr, ...]
    row_conditions: tuple[Expr, ...]
    residuals: tuple[Residual, ...]

    @property
    def bounded(self) -> bool:
        """Whether anything bounds the key or the row."""
        rows = self.row_lower or self.row_upper or self.row_conditions
        return bool(self.lower or self.upper or rows)


def simplify(disjuncts: Iterable[FactSet], facts: Facts) -> list[FactSet]:
    """The same disjunction in fewer, smaller disjuncts; contradictions are dropped."""
    kept = [d for d in (_lean(d, facts) for d in disjuncts) if d is not None]
    changed = True
    while changed:
        kept, changed = _one_round(kept, facts)
    return kept


def _one_round(kept: list[FactSet], facts: Facts) -> tuple[list[FactSet], bool]:
    for a, b in permutations(kept, 2):
        if _implies(b, a, facts):
            return [d for d in kept if d is not b], True
        merged = _merged(a, b, facts)
        if merged is not None:
            return [merged if d is a else d for d in kept if d is not b], True
    return kept, False


def _lean(disjunct: FactSet, facts: Facts) -> FactSet | None:
    """Without facts that follow from others, and None if two contradict each other."""
    ordered = [f for f in disjunct if not _always(f, facts)]
    kept: list[Fact] = []
    for i, f in enumerate(ordered):
        others = kept + ordered[i + 1 :]
        if not any(_follows(f, other, facts) for other in others):
            kept.append(f)
    if any(_contradict(a, b, facts) for a in kept for b in kept):
        return None
    return frozenset(kept)


def _always(f: Fact, facts: Facts) -> bool:
    """Bounds that indices have anyway: `k >= 0`, `q >= 0`."""
    return isinstance(f, Bound) and f.side == "lower" and facts.holds(-f.bound)


def _follows(f: Fact, given: Fact, facts: Facts) -> bool:
    """Whether `given` makes `f` certain."""
    if f == given:
        return True
    if isinstance(f, Bound) and isinstance(given, Bound) and (f.var, f.side) == (given.var, given.side):
        gap = f.bound - given.bound if f.side == "upper" else given.bound - f.bound
        return facts.holds(gap)
    return False


def _contradict(a: Fact, b: Fact, facts: Facts) -> bool:
    match a, b:
        case Bound(v, "lower", low), Bound(w, "upper", high) if v == w:
            return facts.holds(low - high - 1)
        case Condition(x), Condition(y):
            return _opposite(x, y)
        case _:
            return False


_NEGATED = {"lt": "ge", "le": "gt", "eq": "ne"}


def _opposite(x: Expr, y: Expr) -> bool:
    if not isinstance(x, Apply):
        return False
    if x.op == "not" and x.args[0] == y:
        return True
    return isinstance(y, Apply) and _NEGATED.get(x.op) == y.op and x.args == y.args


def _implies(a: FactSet, b: FactSet, facts: Facts) -> bool:
    """Whether every pair that `a` keeps, `b` keeps."""
    return all(any(_follows(f, given, facts) for given in a) for f in b)


def _merged(a: FactSet, b: FactSet, facts: Facts) -> FactSet | None:
    """One disjunct for two that differ in one fact each, where those two combine."""
    common = a & b
    if len(a - common) != 1 or len(b - common) != 1:
        return None
    (x,), (y,) = a - common, b - common
    match x, y:
        case Bound(v, side, p), Bound(w, other, r) if v == w:
            if side == other:
                pick = smax if side == "upper" else smin
                return common | {Bound(v, side, to_poly(pick(to_expr(p), to_expr(r))))}
            low, high = (p, r) if side == "lower" else (r, p)
            return common if facts.holds(high + 1 - low) else None
        case Condition(c), Condition(d):
            return common if _opposite(c, d) or _opposite(d, c) else None
        case Residual(_, None), Residual(_, None):
            return common | {Residual(apply("or", x.expr, y.expr))}
        case _:
            return None


def collect(disjunct: FactSet) -> Disjunct:
    """A disjunct's facts by what they speak of, in a fixed order."""
    ordered = sorted(disjunct, key=repr)
    bounds = [f for f in ordered if isinstance(f, Bound)]

    def pick(var: str, side: str) -> tuple[Poly, ...]:
        return tuple(f.bound for f in bounds if (f.var, f.side) == (var, side))

    return Disjunct(
        lower=pick("k", "lower"),
        upper=pick("k", "upper"),
        row_lower=pick("q", "lower"),
        row_upper=pick("q", "upper"),
        conditions=tuple(f.expr for f in ordered if isinstance(f, Condition) and not f.of_row),
        row_conditions=tuple(f.expr for f in ordered if isinstance(f, Condition) and f.of_row),
        residuals=tuple(f for f in ordered if isinstance(f, Residual)),
    )


def tight_when(d: Disjunct, facts: Facts) -> Expr | None:
    """A condition under which the rows' key intervals fill their hull, and without which all are empty.

    None where no such condition is known. Write L(q) for the greatest lower bound of row q, U(q) for the least
    upper bound. Three cases are proved:

    - L never falls and U never rises, or the other way round: the intervals are nested, one row's is the hull.
    - All bounds are constant or rise, and for every rising pair L_i(q) <= U_j(q) and L_i(q + 1) <= U_j(q) + 1:
      consecutive intervals touch, and rows cut off by a constant bound lie at the ends of the tile.
    - All bounds are constant or fall: the same with `q` running backwards.
    - One lower bound that moves in any way, such as data of the row, and L(q) <= U_j(q) for all rows, with upper bounds
      that are constant or rise by at most 1 from row to row. From the row of the least L on, every interval goes on
      where the one before it ends; those of earlier rows lie within.

    The first inequality of a pair whose difference has no `q` is the condition that is returned.
    """
    if d.residuals or d.row_conditions:
        return None
    low = {facts.trend(p) for p in d.lower} - {Trend.CONSTANT}
    high = {facts.trend(p) for p in d.upper} - {Trend.CONSTANT}
    if Trend.MIXED in low | high:
        return conjunction() if _goes_on(d, facts) else None
    if (low, high) in (({Trend.UP}, {Trend.DOWN}), ({Trend.DOWN}, {Trend.UP})) or not low or not high:
        return conjunction() if len(low) <= 1 and len(high) <= 1 else None
    if len(low | high) > 1:
        return None
    backwards = low == {Trend.DOWN}
    known = Facts({e: n for e, n in facts.least.items() if e != Q}) if backwards else facts
    conditions: list[Expr] = []
    for lower, upper in product(d.lower, d.upper):
        pair = tuple(_mirror(p) if backwards else p for p in (lower, upper))
        if Trend.CONSTANT in (facts.trend(p) for p in (lower, upper)):
            continue
        condition = _touching(*pair, facts=known)
        if condition is None:
            return None
        conditions.append(condition)
    return conjunction(*conditions)


def _goes_on(d: Disjunct, facts: Facts) -> bool:
    """The fourth case of `tight_when`."""
    lower = [p for p in d.lower if facts.trend(p) is not Trend.CONSTANT]
    upper = [p for p in d.upper if facts.trend(p) is not Trend.CONSTANT]
    if len(lower) != 1 or d.row_lower or d.row_upper:
        return False
    return attains_least(lower[0], facts) and all(
        facts.creeps(u) and facts.holds(u - lower[0]) for u in upper
    )


def _mirror(poly: Poly) -> Poly:
    return to_poly(substitute(to_expr(poly), {Q: apply("neg", Q)}))


def _touching(lower: Poly, upper: Poly, *, facts: Facts) -> Expr | None:
    gap = upper - lower
    creeps = facts.creeps(lower)
    if facts.holds(gap):
        condition: Expr | None = conjunction()
    elif creeps and not any("q" in free_vars(f) for m, _ in gap.terms for f in m):
        condition = at_least_zero(gap)
    else:
        condition = None
    if creeps or facts.holds(upper + 1 - next_row(lower)):
        return condition
    return None
