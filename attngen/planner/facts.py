"""What is certain of an integer expression whatever the call: floors, signs, and how it moves with `q`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from attngen.lang.expr import Apply, Const, Expr, Size, Var, apply, free_vars, substitute
from attngen.planner.plan import Q_HI, Q_LO
from attngen.planner.poly import Mono, Poly, factor, make_poly, to_expr, to_poly

Q = Var("q")


# Each is (lesser, greater, gap): the first and the gap together never pass the second.
_ORDER: tuple[tuple[Expr, Expr, int], ...] = (
    (Var(Q_HI), Size("n_q"), 1),
    (Var(Q_LO), Size("n_q"), 1),
    (Q, Size("n_q"), 1),
    (Var(Q_LO), Var(Q_HI), 0),
)


class Trend(Enum):
    """How a value moves as `q` grows."""

    CONSTANT = 0
    UP = 1
    DOWN = -1
    MIXED = 2


@dataclass(frozen=True, slots=True)
class Facts:
    """`least` maps expressions to integers they are never below; sizes are never below 0."""

    least: Mapping[Expr, int]
    _floors: dict[Poly, int | None] = field(
        default_factory=dict["Poly", "int | None"], repr=False, compare=False
    )

    def holds(self, poly: Poly) -> bool:
        """Whether `poly >= 0` is certain."""
        floor = self.floor(poly)
        return floor is not None and floor >= 0

    def floor(self, poly: Poly) -> int | None:
        """An integer that `poly` is never below, or None if none is known; worked out once."""
        if poly not in self._floors:
            self._floors[poly] = self._find_floor(poly)
        return self._floors[poly]

    def _find_floor(self, poly: Poly) -> int | None:
        """The floor of a polynomial from those of its terms.

        Where the sum of the terms' floors does not settle it, `d * (x // d)` is replaced by what it cannot be
        below or above, `x - d + 1` and `x`, and `min(x, y)` or `max(x, y)` by an `x` that it cannot be above or below.
        """
        direct = self._sum_of_floors(poly)
        if direct is not None:
            return direct
        terms = dict(poly.terms)
        for lesser, greater, gap in _ORDER:
            times = min(terms.get((greater,), 0), -terms.get((lesser,), 0))
            if times > 0:
                return self.floor(poly + (factor(lesser) - factor(greater) + gap) * times)
        for mono, c in poly.terms:
            multiple = self._multiple(mono, c)
            if multiple is not None:
                times, x, d = multiple
                rest = poly - make_poly({mono: c})
                return self.floor(rest + (x * times if times < 0 else (x - d + 1) * times))
        for mono, c in poly.terms:
            if len(mono) == 1 and isinstance(mono[0], Apply) and mono[0].op == ("min" if c < 0 else "max"):
                rest = poly - make_poly({mono: c})
                floors = [self.floor(rest + to_poly(a) * c) for a in mono[0].args]
                return max((f for f in floors if f is not None), default=None)
        return None

    def _sum_of_floors(self, poly: Poly) -> int | None:
        total = 0
        for mono, c in poly.terms:
            least = 1
            for f in mono:
                floor = self.of_factor(f)
                if floor is None or floor < 0:
                    return None
                least *= floor
            if c < 0 and mono != ():
                return None
            total += c * least
        return total

    def _multiple(self, mono: Mono, c: int) -> tuple[int, Poly, Poly] | None:
        """`(m, x, d)` with the term equal to `m * d * (x // d)`, for a positive `d`."""
        for f in mono:
            if not isinstance(f, Apply) or f.op != "floordiv":
                continue
            x, d = f.args
            if not self.is_positive(d):
                continue
            if len(mono) == 2 and d in mono:
                return c, to_poly(x), to_poly(d)
            if len(mono) == 1 and isinstance(d, Const) and c % int(d.value) == 0:
                return c // int(d.value), to_poly(x), to_poly(d)
        return None

    def is_positive(self, expr: Expr) -> bool:
        """Whether the factor is certainly 1 or more."""
        return (self.of_factor(expr) or 0) >= 1

    def of_factor(self, expr: Expr) -> int | None:
        """An integer that one factor is never below, or None."""
        match expr:
            case Const(value):
                return int(value)
            case Size():
                return 0
            case Apply("floordiv", (a, b)):
                floor = self.floor(to_poly(a))
                return 0 if floor is not None and floor >= 0 and self.is_positive(b) else None
            case Apply("max", args):
                return max((f for a in args if (f := self.floor(to_poly(a))) is not None), default=None)
            case Apply("min", args):
                floors = [self.floor(to_poly(a)) for a in args]
                return None if None in floors else min(f for f in floors if f is not None)
            case _:
                return self.least.get(expr)

    def trend(self, poly: Poly) -> Trend:
        """Whether the value is monotone in `q`."""
        return _join([self._trend_of_term(m, c) for m, c in poly.terms])

    def _trend_of_term(self, mono: Mono, c: int) -> Trend:
        moving = [f for f in mono if "q" in free_vars(f)]
        if not moving:
            return Trend.CONSTANT
        scale = [self.of_factor(f) for f in mono if "q" not in free_vars(f)]
        if len(moving) > 1 or any(s is None or s < 0 for s in scale):
            return Trend.MIXED
        found = self._trend_of_factor(moving[0])
        return found if c > 0 or found is Trend.MIXED else Trend(-found.value)

    def _trend_of_factor(self, expr: Expr) -> Trend:
        match expr:
            case Var("q"):
                return Trend.UP
            case Apply("floordiv", (a, b)) if "q" not in free_vars(b) and self.is_positive(b):
                return self.trend(to_poly(a))
            case Apply("min" | "max", args):
                return _join([self.trend(to_poly(a)) for a in args])
            case _:
                return Trend.MIXED

    def creeps(self, poly: Poly) -> bool:
        """Whether the value grows by at most 1 from one `q` to the next (and never falls)."""
        moving = [(m, c) for m, c in poly.terms if any("q" in free_vars(f) for f in m)]
        if not moving:
            return True
        if len(moving) > 1 or moving[0][1] != 1 or len(moving[0][0]) != 1:
            return False
        match moving[0][0][0]:
            case Var("q"):
                return True
            case Apply("floordiv", (a, b)) if "q" not in free_vars(b) and self.is_positive(b):
                return self.creeps(to_poly(a))
            case Apply("min" | "max", args):
                return all(self.creeps(to_poly(a)) for a in args)
            case _:
                return False


def _join(trends: list[Trend]) -> Trend:
    moving = {t for t in trends if t is not Trend.CONSTANT}
    if len(moving) > 1:
        return Trend.MIXED
    return moving.pop() if moving else Trend.CONSTANT


def at(poly: Poly, row: Expr) -> Poly:
    """The value at `q = row`."""
    return to_poly(substitute(to_expr(poly), {Q: row}))


def next_row(poly: Poly) -> Poly:
    """The value one row later."""
    return at(poly, apply("add", Q, Const(1)))
