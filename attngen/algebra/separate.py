"""D3: whether a running accumulator can follow a statistic that changes, and by which ratio.

    F(x, d) = G(x) (x) H(d)   iff   F(x, d) (x) F(x0, d0) = F(x, d0) (x) F(x0, d)

for one point (x0, d0) where F is invertible. Then the accumulator is rescaled by

    rho(d', d) = H(d) (x) H(d')^-1        exp(x0 - d0)  ->  exp(d0_old - d0)

which is emitted as one closed form: G and H alone may overflow where F and rho do not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from attngen.algebra.bounded import bounded
from attngen.algebra.canonical import Shape, names_in
from attngen.algebra.distribute import Distributes, rows_for
from attngen.algebra.from_sympy import OLD_SUFFIX, from_sympy
from attngen.algebra.mp_ops import DIGITS, Undefined
from attngen.algebra.numeric import matrix_rank, sample, value_at
from attngen.algebra.shown import shown
from attngen.algebra.signs import Sign, sign_of
from attngen.algebra.to_sympy import JUMPS, KINKS, to_sympy
from attngen.lang.expr import Apply, Expr, Var, substitute, walk

PROOF_SECONDS = 3.0
POINTS = 12
MAX_RANK = 5
_SHORT_OPS = 6

# Points at which F is tried for an inverse: (every stream, every statistic).
_BASES = ((0, 0), (1, 1), (1, 0), (0, 1), (2, 1), (-1, 1), (1, 2))


@dataclass(frozen=True, slots=True)
class Ratio:
    """A proof of separability: `ratio` over Vars d0 (new), d0_old and constants, None if it is the unit."""

    row: Distributes
    ratio: Expr | None
    identity: str
    base: str


@dataclass(frozen=True, slots=True)
class Inseparable:
    """Why there is no such ratio. `rank` is the numeric separable rank if it is small, else None.

    `orbit` says why no finite-rank orbit follows either, where one was looked for.
    """

    reason: str
    residual: str
    rank: int | None = None
    orbit: str = ""


@lru_cache(maxsize=1024)
def separate(reducer: str, shape: Shape) -> Ratio | Inseparable:
    """The ratio by which a `reducer`[k] of this shape follows its statistics, or why there is none."""
    rows = [row for row in rows_for(reducer) if row.group and not row.invariant]
    if not rows:
        return Inseparable(f"nothing distributes over {reducer} with an inverse", "")
    failures: list[Inseparable] = []
    for row in rows:
        found = _separate_by(row, shape)
        if isinstance(found, Ratio):
            return found
        failures.append(found)
    return failures[0] if len(failures) == 1 else _nearest(failures)


def _nearest(failures: list[Inseparable]) -> Inseparable:
    """The failure worth telling: one that found a residual, the first otherwise."""
    return next((f for f in failures if f.residual), failures[0])


def _separate_by(row: Distributes, shape: Shape) -> Ratio | Inseparable:
    if _refuted(row.op, shape):
        return Inseparable(
            "the identity fails at a random point", _residual(row.op, shape), _rank(row.op, shape)
        )
    unproved = Inseparable(f"no proof within {PROOF_SECONDS:g} s that the identity holds", "")
    found = bounded(lambda: _prove(row, shape), PROOF_SECONDS, unproved)
    if isinstance(found, Ratio) and found.ratio is not None:
        signs = dict(shape.signs)
        signs |= {name + OLD_SUFFIX: sign for name, sign in signs.items()}
        if row.factor and sign_of(found.ratio, signs) < min(row.factor, Sign.NONNEG):
            return Inseparable(f"{row.op} distributes over {row.reducer} for a factor >= 0 only", "")
    return found


def _refuted(op: str, shape: Shape) -> bool:
    """Whether the identity fails at one of a few random points, at 40 digits."""
    import mpmath as mp

    rng = random.Random(0)
    with mp.workdps(DIGITS):
        for _ in range(POINTS):
            x, d, x0, d0 = (sample(shape, letter, rng) for letter in ("x", "d", "x", "d"))
            c = sample(shape, "c", rng)
            try:
                f, f00 = value_at(shape, x | d | c), value_at(shape, x0 | d0 | c)
                fx, fd = value_at(shape, x | d0 | c), value_at(shape, x0 | d | c)
            except Undefined:
                continue
            left, right = (f * f00, fx * fd) if op == "mul" else (f + f00, fx + fd)
            if abs(left - right) > mp.mpf(10) ** (8 - DIGITS) * (1 + abs(left) + abs(right)):
                return True
    return False


def _rank(op: str, shape: Shape) -> int | None:
    """Rank of F over random (x, d) if it is small: the number of accumulators that would follow d.

    Rank is about sums of products, so it is asked of (sum, *) only; a sample says little about it unless F
    is smooth.
    """
    import mpmath as mp

    if op != "mul" or _has(shape, JUMPS | KINKS):
        return None
    rng = random.Random(1)
    size = MAX_RANK + 1
    with mp.workdps(DIGITS):
        c = sample(shape, "c", rng)
        xs = [sample(shape, "x", rng) for _ in range(size)]
        ds = [sample(shape, "d", rng) for _ in range(size)]
        try:
            rows = [[value_at(shape, x | d | c) for d in ds] for x in xs]
        except Undefined:
            return None
        rank = matrix_rank(rows)
    return rank if rank <= MAX_RANK else None


def _has(shape: Shape, ops: frozenset[str]) -> bool:
    return any(isinstance(n, Apply) and n.op in ops for n in walk(shape.body))


class Symbols:
    """Sympy symbols for the names of a shape.

    A value that is >= 0 by construction is taken as > 0 where the body is continuous: an identity that
    holds for all positive values holds at 0 by continuity, and a pole at 0 gets a guard of its own.
    """

    def __init__(self, shape: Shape) -> None:
        self.jumps = _has(shape, JUMPS)
        self.signs = dict(shape.signs)
        self._made: dict[str, Any] = {}

    def __call__(self, name: str) -> Any:
        """The symbol of `name`; an old value has the assumptions of the new one."""
        import sympy as sp

        if name not in self._made:
            sign = self.signs.get(name.removesuffix(OLD_SUFFIX), Sign.ANY)
            if sign is Sign.POSITIVE or (sign is Sign.NONNEG and not self.jumps):
                self._made[name] = sp.Symbol(name, positive=True)
            elif sign is Sign.NONNEG:
                self._made[name] = sp.Symbol(name, nonnegative=True)
            else:
                self._made[name] = sp.Symbol(name, real=True)
        return self._made[name]

    def of(self, body: Expr) -> Any:
        """The sympy form of an expression over Vars."""
        atoms: dict[Expr, Any] = {n: self(n.name) for n in walk(body) if isinstance(n, Var)}
        return to_sympy(body, atoms)

    def back(self) -> dict[Any, Expr]:
        """Symbol -> Var."""
        return {symbol: Var(name) for name, symbol in self._made.items()}


def _prove(row: Distributes, shape: Shape) -> Ratio | Inseparable:
    symbols = Symbols(shape)
    f = symbols.of(shape.body)
    xs = [symbols(n) for n in names_in(shape.body, "x")]
    ds = [symbols(n) for n in names_in(shape.body, "d")]
    for x0, d0 in _BASES:
        at_x, at_d = dict.fromkeys(xs, x0), dict.fromkeys(ds, d0)
        f00 = _exact(lambda: f.subs(at_x).subs(at_d))  # noqa: B023 - called at once
        if f00 is None or not _invertible(f00, row.op):
            continue
        fx, fd = f.subs(at_d), f.subs(at_x)
        left, right = (f * f00, fx * fd) if row.op == "mul" else (f + f00, fx + fd)
        rest = zero_or_rest(left - right)
        if rest != 0:
            return Inseparable("the identity leaves a residual", str(rest))
        old = {d: symbols(d.name + OLD_SUFFIX) for d in ds}
        ratio = _simplest(fd / fd.subs(old) if row.op == "mul" else fd - fd.subs(old))
        unit = 1 if row.op == "mul" else 0
        expr = None if ratio == unit else from_sympy(ratio, symbols.back())
        return Ratio(row, expr, _identity_text(row.op), f"x0 = {x0}, d0 = {d0}")
    return Inseparable("F is invertible at none of the points tried", "")


def _exact(fn: Callable[[], Any]) -> Any | None:
    try:
        return fn()
    except (ZeroDivisionError, TypeError, ValueError):
        return None


def _invertible(value: Any, op: str) -> bool:
    import sympy as sp

    if value.has(sp.nan, sp.zoo, sp.oo, -sp.oo):
        return False
    return op == "add" or bool(value.is_nonzero) or (value.is_zero is None and sp.simplify(value) != 0)


def zero_or_rest(difference: Any) -> Any:
    """0 if `difference` is proved to vanish, else what is left of it; the cheap rewritings first."""
    import sympy as sp

    if difference == 0:
        return sp.S.Zero
    for attempt in (_expanded, sp.simplify, _by_cases):
        rest = attempt(difference)
        if rest == 0:
            return sp.S.Zero
    return sp.simplify(difference)


def _expanded(value: Any) -> Any:
    import sympy as sp

    return sp.powsimp(sp.expand(value))


def _by_cases(value: Any) -> Any:
    import sympy as sp

    return sp.simplify(sp.piecewise_fold(value.rewrite(sp.Piecewise)))


def _simplest(ratio: Any) -> Any:
    """A short equal form. `simplify` is slow to load and run: asked only where `powsimp` leaves much."""
    import sympy as sp

    short = sp.powsimp(ratio)
    if sp.count_ops(short) <= _SHORT_OPS:
        return short
    return min((short, sp.simplify(ratio)), key=sp.count_ops)


def _identity_text(op: str) -> str:
    times = "*" if op == "mul" else "+"
    return f"F(x, d) {times} F(x0, d0) = F(x, d0) {times} F(x0, d)"


@lru_cache(maxsize=256)
def _residual(op: str, shape: Shape) -> str:
    """What the identity leaves at the first usable base point, in a short form."""
    import sympy as sp

    def work() -> str:
        symbols = Symbols(shape)
        f = symbols.of(shape.body)
        at_x = [symbols(n) for n in names_in(shape.body, "x")]
        ds = [symbols(n) for n in names_in(shape.body, "d")]
        for x0, d0 in _BASES:
            here, at_d = dict.fromkeys(at_x, x0), dict.fromkeys(ds, d0)
            f00 = _exact(lambda: f.subs(here).subs(at_d))  # noqa: B023 - called at once
            if f00 is not None and _invertible(f00, op):
                fx, fd = f.subs(at_d), f.subs(here)
                if fx.has(sp.zoo, sp.nan) or fd.has(sp.zoo, sp.nan):
                    continue
                rest = f * f00 - fx * fd if op == "mul" else f + f00 - fx - fd
                return shown(rest)
        return ""

    return bounded(work, PROOF_SECONDS, "")


def instantiate(expr: Expr, new: dict[str, Expr], old: dict[str, Expr]) -> Expr:
    """A ratio with its Vars replaced by what they stand for in a program."""
    mapping: dict[Expr, Expr] = {Var(n): e for n, e in new.items()}
    mapping |= {Var(n + OLD_SUFFIX): e for n, e in old.items()}
    return substitute(expr, mapping)
