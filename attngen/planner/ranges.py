"""Closed-form key ranges: a mask becomes integer expressions of the query tile, evaluated inside the kernel.

    before   k <= q & k >= q - window + 1
    after    lo = min(n_k, max(0, q_lo - window + 1));  hi = min(n_k, q_hi + 1)
             end = where(lo < hi, cdiv(hi, block_k), 0);  start = min(lo // block_k, end)
             full_start = ...: the tiles between the last row's first key and the first row's last

The mask is put into disjunctive normal form, each comparison solved for the key, and each disjunct turned into the
hull of its rows' key intervals (the tiles to visit) and their intersection (the tiles that need no mask).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attngen.lang.expr import Apply, Expr, Size, Var, apply, free_vars, walk
from attngen.lang.kinds import kinds_of
from attngen.lang.loc import Loc
from attngen.lang.print import print_expr
from attngen.lang.program import Program
from attngen.planner.build import ZERO, choose, conjunction, smax, smin
from attngen.planner.disjunct import Disjunct, collect, simplify, tight_when
from attngen.planner.extremes import extremes
from attngen.planner.facts import Facts, Q
from attngen.planner.names import Lets
from attngen.planner.normalize import TooManyDisjunctsError, dnf, normal_form
from attngen.planner.pieces import Run, arrange
from attngen.planner.plan import BLOCK_K, Q_HI, Q_LO, TilePlan
from attngen.planner.poly import Poly, to_expr
from attngen.planner.rows import RowExtreme
from attngen.planner.solve import Residual, Solver, divisors

MAX_DISJUNCTS = 48  # while normalising; most of them turn out to be empty or part of another
MAX_PIECES = 4

N_K = Size("n_k")
SCHEDULED_SIZES = ("n_q", "n_k", "n_b", "n_h")


@dataclass(frozen=True, slots=True)
class NotClosed:
    """Why a mask has no closed form, and where in the user's text that shows."""

    reason: str
    loc: Loc | None = None


def solve(
    program: Program,
    *,
    scalars: Mapping[str, int | None] | None = None,
    positive: frozenset[Expr] = frozenset(),
) -> TilePlan | NotClosed:
    """The closed-form plan of a program's mask, or why there is none.

    Exact for values up to 2**31 in magnitude, in 64 bits. Parameters that something is divided by are taken to be
    1 or more: `plan_mask.requirements` lists them, `plan_mask.check_values` refuses others. `scalars` are variables
    besides the indices that a tile has one value of, with what they are never below, None if nothing is known;
    `positive` are further expressions that are 1 or more.
    """
    solved = _disjuncts(program, scalars or {}, positive)
    if isinstance(solved, NotClosed):
        return solved
    disjuncts, facts, notes = solved
    lets = Lets(program)
    names = [""] if len(disjuncts) == 1 else [f"_{i + 1}" for i in range(len(disjuncts))]
    runs: list[Run] = []
    tight = True
    for d, suffix in zip(disjuncts, names, strict=True):
        filled = tight_when(d, facts)
        tight = tight and filled is not None
        runs.append(_run(d, conjunction() if filled is None else filled, facts, lets, suffix))
    pieces = arrange(runs, disjuncts, facts, lets)
    hulls = tuple((run.lo, run.hi) for run in runs)
    residual = next((r.expr for d in disjuncts for r in d.residuals), None)
    return TilePlan(tuple(lets.lets), pieces, hulls, tight, notes, _row_runs(disjuncts), residual)


def _row_runs(disjuncts: list[Disjunct]) -> tuple[tuple[Expr, Expr], ...]:
    """The runs of keys of one row, where bounds on the key and conditions on the head describe all of them."""
    if any(d.residuals or d.row_lower or d.row_upper or d.row_conditions for d in disjuncts):
        return ()
    runs: list[tuple[Expr, Expr]] = []
    for d in disjuncts:
        first = smax(*(to_expr(p) for p in d.lower)) if d.lower else ZERO
        end = smin(N_K, *(to_expr(p + 1) for p in d.upper))
        runs.append((first, choose(conjunction(*d.conditions), end, ZERO)))
    return tuple(runs)


def _disjuncts(
    program: Program, scalars: Mapping[str, int | None], known_positive: frozenset[Expr]
) -> tuple[list[Disjunct], Facts, tuple[str, ...]] | NotClosed:
    least: dict[Expr, int] = {Q: 0, Var(Q_LO): 0, Var(Q_HI): 0, Var(BLOCK_K): 1, Var("b"): 0, Var("h"): 0}
    least |= {Var(name): floor for name, floor in scalars.items() if floor is not None}
    if program.mask is None:
        return [collect(frozenset())], Facts(least), ("no mask: every query sees every key",)
    for node in walk(program.mask):
        if isinstance(node, Size) and node.name not in SCHEDULED_SIZES:
            return NotClosed(f"`{node.name}` is not a size of the schedule", node.loc)
    positive = divisors(program.mask) | known_positive
    facts = Facts(least | dict.fromkeys(positive, 1))
    solver = Solver(kinds_of(program), positive, rows=not scalars)
    try:
        found = dnf(normal_form(program.mask, solver.kinds, solver.atom), MAX_DISJUNCTS)
    except TooManyDisjunctsError:
        return NotClosed(f"the mask has more than {MAX_DISJUNCTS} alternatives", program.mask.loc)
    for fact in (f for d in found for f in d):
        if isinstance(fact, Residual) and fact.hard is not None:
            return NotClosed(f"`{print_expr(fact.expr)}`: {fact.hard}", fact.expr.loc)
    disjuncts = [collect(d) for d in simplify(found, facts)]
    for residual in (r for d in disjuncts for r in d.residuals):
        if _repeats_in_blocks(residual.expr):
            return NotClosed(
                f"`{print_expr(residual.expr)}` keeps blocks of keys far apart: runs would visit all between them",
                residual.expr.loc,
            )
    for d in disjuncts:
        if d.residuals and not d.bounded:
            expr = d.residuals[0].expr
            return NotClosed(
                f"`{print_expr(expr)}` has no closed form, and nothing bounds its keys", expr.loc
            )
    if len(disjuncts) > MAX_PIECES:
        return NotClosed(f"the keys of a query lie in {len(disjuncts)} runs", program.mask.loc)
    return disjuncts, facts, tuple(solver.notes)


def _repeats_in_blocks(expr: Expr) -> bool:
    """Whether a residual is a remainder of whole blocks of keys, `k // block % stride`, which drops whole tiles."""
    return any(
        isinstance(node, Apply)
        and node.op == "mod"
        and any(
            isinstance(n, Apply) and n.op == "floordiv" and "k" in free_vars(n) for n in walk(node.args[0])
        )
        for node in walk(expr)
    )


def _run(d: Disjunct, filled: Expr, facts: Facts, lets: Lets, suffix: str) -> Run:
    """The hull and the interior of one disjunct in keys; `filled` is the condition under which the hull counts."""
    rows, some_row, every_row = _rows(d, lets, suffix)
    ends = [extremes(p, *rows, facts) for p in d.lower], [extremes(p, *rows, facts) for p in d.upper]
    lo = _clipped_start([low for low, _ in ends[0]], facts)
    hi = _clipped_end([high for _, high in ends[1]], facts)
    # Of the rows that a condition picks, the hull knows only whether there are any.
    picked = [conjunction(*d.row_conditions)] if d.row_conditions else []
    exists = conjunction(*d.conditions, filled, some_row, *(RowExtreme("max", c) for c in picked))
    lo_name = lets.let("lo" + suffix, lo if lo == ZERO else smin(lo, N_K, facts=facts))
    hi_name = lets.let("hi" + suffix, choose(exists, hi, ZERO))
    if d.residuals:
        return Run(lo_name, hi_name, lo == ZERO, None, None)
    full_lo = _clipped_start([high for _, high in ends[0]], facts)
    full_hi = _clipped_end([low for low, _ in ends[1]], facts)
    # Where `filled` fails the interior is empty by its own ends, and without a row it is not `every_row`.
    guard = conjunction(every_row, *d.conditions, *(RowExtreme("min", c) for c in picked))
    return Run(lo_name, hi_name, lo == ZERO, full_lo, choose(guard, full_hi, ZERO))


def _rows(d: Disjunct, lets: Lets, suffix: str) -> tuple[tuple[Expr, Expr], Expr, Expr]:
    """The rows of the tile that a disjunct speaks of; whether there are any; whether they are all of the tile."""
    lo: Expr = Var(Q_LO)
    hi: Expr = Var(Q_HI)
    if not d.row_lower and not d.row_upper:
        return (lo, hi), conjunction(), conjunction()
    every: list[Expr] = []
    if d.row_lower:
        lo = Var(lets.let("row_lo" + suffix, smax(lo, *(to_expr(p) for p in d.row_lower))))
        every.append(apply("eq", lo, Var(Q_LO)))
    if d.row_upper:
        hi = Var(lets.let("row_hi" + suffix, smin(hi, *(to_expr(p) for p in d.row_upper))))
        every.append(apply("eq", hi, Var(Q_HI)))
    return (lo, hi), apply("le", lo, hi), conjunction(*every)


def _clipped_start(bounds: list[Poly], facts: Facts) -> Expr:
    """The greatest of the bounds and 0."""
    return smax(*(to_expr(b) for b in bounds), ZERO, facts=facts)


def _clipped_end(bounds: list[Poly], facts: Facts) -> Expr:
    """One past the least of the bounds and the last key, and 0 at least."""
    ends = [to_expr(b + 1) for b in bounds]
    out = smin(*ends, N_K, facts=facts)
    return out if all(facts.holds(b + 1) for b in bounds) else smax(out, ZERO, facts=facts)
