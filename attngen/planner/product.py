"""Closed-form ranges on boxes: a mask that speaks of one axis at a time is solved axis by axis.

    before   near(q.y, k.y) & near(q.x, k.x)
    after    key tiles  [start_y, end_y) x [start_x, end_x), without a mask where both are in [full_start, full_end)

Each axis is a mask over two integers, which `ranges.solve` turns into its lets; the visited boxes of a query box are
the product. A mask that is no such product keeps its boxes and gets lists.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from attngen.lang.domain import size_param
from attngen.lang.expr import Apply, Const, Expr, Param, Size, Var, apply, loads, rewrite, substitute, walk
from attngen.lang.print import print_expr
from attngen.lang.program import Program
from attngen.planner.instantiate import fold
from attngen.planner.layout import ZERO, Axis, box_name, hi_name, lo_name, origin
from attngen.planner.plan import BLOCK_K, Q_HI, Q_LO, AxisRun, BoxPlan, MaskPlan, TilePlan
from attngen.planner.poly import floordiv, make_poly, to_expr, to_poly
from attngen.planner.ranges import NotClosed, solve
from attngen.planner.split import OFFSET, AxisMask, Split, split

_TRUE = Const(True)


def plan_boxes(program: Program) -> MaskPlan | None:
    """The plan of a mask over coordinates; None where tokens lie on a line without residue classes."""
    found = split(program)
    if found is None:
        return None
    solved = _solve_axes(program, found)
    if isinstance(solved, NotClosed):
        if not program.grid:
            return None  # on a line, runs of tokens may still have a closed form
        whole = split(program, residues=False)
        assert whole is not None
        boxes = BoxPlan(whole.q, whole.k, (), (), tight=False, keep=program.mask)
        return MaskPlan("lists", None, solved.reason, boxes=boxes)
    axes = ", ".join(a.name for a in found.k.axes)
    return MaskPlan(
        "ranges",
        None,
        f"each part of the mask bounds one axis: a product of runs over {axes}",
        solved.notes,
        BoxPlan(found.q, found.k, solved.lets, solved.runs, solved.tight, _keep(found), solved.rows),
    )


def _keep(found: Split) -> Expr | None:
    """The mask in the coordinates that tiles run along, comparisons of a split axis in whole steps."""
    out: Expr | None = None
    for mask in found.axes:
        tiled: dict[Expr, Expr] = {Var(rank): Var(rank, mask.tiled) for rank in ("q", "k")}
        tiled[Var(OFFSET)] = found.q.shift
        for part in mask.parts:
            whole = part if mask.divisor is None else _in_steps(part, mask.divisor)
            moved = substitute(whole, tiled)
            out = moved if out is None else apply("and", out, moved)
    for part in found.rest:
        out = part if out is None else apply("and", out, part)
    return out


def _in_steps(part: Expr, divisor: Expr) -> Expr:
    """`k * d + g <= q * d + g` as `k <= q`: integer comparisons divided by the number of classes."""

    def divide(node: Expr) -> Expr | None:
        match node:
            case Apply("le" | "lt" | "ge" | "gt" as op, (a, b)):
                less, more = (to_poly(x) for x in ((a, b) if op in ("le", "lt") else (b, a)))
                gap = less - more + (1 if op in ("lt", "gt") else 0)  # the comparison says gap <= 0
                scaled = make_poly({m: c for m, c in gap.terms if divisor in m})
                if not scaled.terms:
                    return None
                steps = floordiv(scaled, to_poly(divisor))
                limit = _simplified(to_expr(floordiv(scaled - gap, to_poly(divisor))))
                return apply("le", to_expr(steps), limit, loc=node.loc)
            case _:
                return None

    return rewrite(part, divide)


@dataclass(frozen=True, slots=True)
class _Solved:
    lets: tuple[tuple[str, Expr], ...]
    runs: tuple[AxisRun, ...]
    tight: bool
    notes: tuple[str, ...]
    rows: tuple[tuple[str, Expr, Expr], ...]


def _solve_axes(program: Program, found: Split) -> _Solved | NotClosed:
    for part in found.rest:
        if any(isinstance(n, Var) and n.name in ("q", "k") for n in walk(part)):
            return NotClosed(f"`{print_expr(part)}` speaks of several axes at once", part.loc)
    lets: list[tuple[str, Expr]] = []
    runs: list[AxisRun] = []
    notes: list[str] = []
    rows: list[tuple[str, Expr, Expr]] = []
    tight = True
    if _reads(found, OFFSET):
        lets.append((OFFSET, found.q.shift))
    for i, mask in enumerate(found.axes):
        if mask.group is not None:
            runs.append(_group_run(mask, lets))
        # what speaks of no axis decides for whole heads: the first axis carries it
        parts = (*mask.parts, *found.rest) if i == 0 else mask.parts
        solved = _solve_axis(program, found, replace(mask, parts=parts))
        if isinstance(solved, NotClosed):
            return solved
        lets += solved.lets
        runs += solved.runs
        tight = tight and solved.tight
        notes += solved.notes
        rows += solved.rows
    order = [a.name for a in found.k.axes]
    runs.sort(key=lambda r: order.index(r.axis))
    by_rows = tuple(rows) if len(rows) == len(found.axes) else ()
    return _Solved(tuple(lets), tuple(runs), tight, tuple(notes), by_rows)


def _reads(found: Split, name: str) -> bool:
    parts = [p for m in found.axes for p in m.parts]
    return any(isinstance(n, Var) and n.name == name for p in parts for n in walk(p))


def _group_run(mask: AxisMask, lets: list[tuple[str, Expr]]) -> AxisRun:
    """The key tiles of a query tile's own residue class: one, and every key in it may be seen."""
    assert mask.group is not None
    after = f"after_{mask.group}"
    lets.append((after, apply("add", Var(mask.group), Const(1))))
    return AxisRun(mask.group, mask.group, after, mask.group, after, mask.group, after)


def _solve_axis(program: Program, found: Split, mask: AxisMask) -> _Solved | NotClosed:
    """The lets and the run of one axis, from the closed form of its mask over plain `q` and `k`."""
    for part in mask.parts:
        for node in walk(part):
            if isinstance(node, Size) and node.name in ("n_q", "n_k"):
                return NotClosed(f"`{print_expr(part)}` counts tokens, not coordinates", part.loc)
        for load in loads(part):
            if any(isinstance(n, Var) and n.name in ("q", "k") for n in walk(load)):
                return NotClosed(f"`{print_expr(part)}` reads `{load.tensor}` at a coordinate", part.loc)
    tiled_q, tiled_k = found.q.axis(mask.tiled), found.k.axis(mask.tiled)
    name = mask.tiled
    shift = origin(name)
    # The solver counts coordinates from the origin of the tiling; keys before coordinate 0 do not exist.
    moved: dict[Expr, Expr] = {
        Var("k"): apply("sub", Var("k"), shift),
        Var("q"): _from_low(apply("sub", Var("q"), shift), tiled_q, name),
    }
    axis_mask: Expr = apply("ge", Var("k"), shift)
    for part in mask.parts:
        axis_mask = apply("and", axis_mask, substitute(part, moved))
    scalars: dict[str, int | None] = {n.name: None for n in walk(axis_mask) if isinstance(n, Var)}
    scalars |= dict.fromkeys((shift.name, mask.group) if mask.group else (shift.name,), 0)
    positive: set[Expr] = {Param(size_param(a)) for a in program.grid}
    if isinstance(mask.divisor, Param):
        positive.add(mask.divisor)
    solved = solve(replace(program, mask=axis_mask, grid=()), scalars=scalars, positive=frozenset(positive))
    if isinstance(solved, NotClosed):
        return solved
    if solved.residual:
        return NotClosed(f"along {mask.tiled}, `{print_expr(solved.residual)}` has no closed form")
    if len(solved.pieces) != 1:
        return NotClosed(f"the keys of a query lie in {len(solved.pieces)} runs along {mask.tiled}")
    notes = tuple(f"{name}: {n}" for n in solved.notes if not n.startswith(f"k >= {print_expr(shift)} "))
    lets, run = _renamed(solved, name, tiled_k)
    low = [] if tiled_q.low == ZERO else [(f"q_low_{name}", tiled_q.low)]
    tight = solved.tight and len(solved.hulls) == 1
    rows = tuple((name, *_of_row(run, found, tiled_q, tiled_k)) for run in solved.rows)
    return _Solved((*low, *lets), (run,), tight, notes, rows)


def _of_row(row: tuple[Expr, Expr], found: Split, queries: Axis, keys: Axis) -> tuple[Expr, Expr]:
    """A row's run in true coordinates: the solver counted from the origin of the tiling, which is 0 for that."""
    own: Expr = Var("q", keys.name)
    moved: dict[Expr, Expr] = {
        Var("q"): own if queries.low == ZERO else apply("sub", own, Var("low")),
        Size("n_k"): keys.extent,
        Var(f"q_low_{keys.name}"): Var("low"),
        origin(keys.name): ZERO,
    }
    known: dict[Expr, Expr] = {Var("low"): queries.low, Var(OFFSET): found.q.shift}
    first, end = (substitute(_simplified(to_expr(to_poly(substitute(end, moved)))), known) for end in row)
    return first, end


def _from_low(q: Expr, axis: Axis, name: str) -> Expr:
    return q if axis.low == ZERO else apply("add", q, Var(f"q_low_{name}"))


def _renamed(plan: TilePlan, axis: str, keys: Axis) -> tuple[list[tuple[str, Expr]], AxisRun]:
    """The lets under names of this axis, in its tile corners, box shape and extent."""
    count = f"keys_{axis}"
    new: dict[Expr, Expr] = {
        Var(Q_LO): Var(lo_name(axis)),
        Var(Q_HI): Var(hi_name(axis)),
        Var(BLOCK_K): Var(box_name("k", axis)),
        Size("n_k"): Var(count),
    }
    lets: list[tuple[str, Expr]] = [(count, apply("add", keys.extent, origin(axis)))]
    for name, body in plan.lets:
        lets.append((f"{name}_{axis}", _simplified(substitute(body, new))))
        new[Var(name)] = Var(f"{name}_{axis}")
    piece, (lo, hi) = plan.pieces[0], plan.hulls[0]
    fields = (piece.start, piece.end, piece.full_start, piece.full_end, lo, hi)
    start, end, full_start, full_end, lo, hi = (f"{f}_{axis}" for f in fields)
    if keys.whole != keys.extent and piece.full_start != piece.full_end:
        # a plane of the grid whose last tokens do not exist is never free of a mask
        complete = apply("floordiv", apply("add", keys.whole, origin(axis)), Var(box_name("k", axis)))
        cut = apply("max", Var(full_start), apply("min", Var(full_end), complete))
        full_end = f"whole_end_{axis}"
        lets.append((full_end, cut))
    return lets, AxisRun(axis, start, end, full_start, full_end, lo, hi)


def _simplified(expr: Expr) -> Expr:
    """`-1 // d` is -1 for the positive `d` that axes are divided by."""

    def settle(node: Expr) -> Expr | None:
        match node:
            case Apply("floordiv", (Const(value), Param())) if value in (0, -1):
                return Const(value)
            case _:
                return fold(node)

    return rewrite(expr, settle)
