"""Give a program's tokens coordinates to be tiled by: the axes of its grid, and residue classes where it has them.

    tokens = grid(y, x)
    mask = (k.y % 2 == q.y % 2) & near(q.y // 2, k.y // 2) & near(q.x, k.x)
->
    axes y_residue (2 values), y_step, x    mask on y_step alone: near(q, k), for one group at a time

    mask = (k <= pos(q)) & (pos(q) - k < w * d) & ((pos(q) - k) % d == 0)
->
    axes residue (d values), step           mask on step: k <= q & q - k < w

A congruence between the two tokens of a pair is an outer loop over classes, and what is left is dense.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attngen.lang.domain import TOKEN_RANKS, size_param, stride_of
from attngen.lang.expr import (
    Apply,
    Const,
    Expr,
    Param,
    Size,
    Var,
    apply,
    conjuncts,
    rewrite,
    substitute,
    walk,
)
from attngen.lang.program import Program
from attngen.planner.layout import ONE, ZERO, Axis, Layout, TokenRank

LINE = ""  # the axis of tokens on a line
OFFSET = "offset"  # the position of the first query, n_k - n_q, as a variable of the plan
_POSITION = apply("sub", Size("n_k"), Size("n_q"))


@dataclass(frozen=True, slots=True)
class AxisMask:
    """What a mask says about one axis of the grid.

    axis    the grid's axis, or LINE.
    tiled   the axis of the layout that its tiles run along: `axis` itself, or its `_step`.
    group   the axis of the residue classes, if it is split.
    divisor the number of classes.
    parts   conjuncts of the mask, in `Var("q")`, `Var("k")` for the tiled coordinates and `Var(group)`.
    """

    axis: str
    tiled: str
    group: str | None
    divisor: Expr | None
    parts: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """The layouts of both ranks, and the mask by axis; `rest` holds conjuncts of no axis or of several."""

    q: Layout
    k: Layout
    axes: tuple[AxisMask, ...]
    rest: tuple[Expr, ...]


def split(program: Program, *, residues: bool = True) -> Split | None:
    """The tiled coordinates of a desugared program; None where tokens lie on a line without residues.

    Without `residues` axes stay whole, whatever classes the mask keeps apart.
    """
    parts = tuple(_conjuncts(program.mask))
    names = program.grid or (LINE,)
    found = {name: _divisor(name, parts) if residues else None for name in names}
    if not program.grid and found[LINE] is None:
        return None
    said = [f[1] for f in found.values() if f is not None]  # what the classes say, no tile needs to test
    parts = tuple(p for p in parts if not any(p is s for s in said))
    by_axis: dict[str, list[Expr]] = {name: [] for name in names}
    rest: list[Expr] = []
    for part in parts:
        axes = _axes_of(part, program.grid)
        if len(axes) == 1 and (only := next(iter(axes))) is not None:
            by_axis[only].append(part)
        else:
            rest.append(part)
    divisors = {name: None if f is None else f[0] for name, f in found.items()}
    masks = tuple(_axis_mask(name, divisors[name], by_axis[name]) for name in names)
    q, k = (_layout(program, masks, rank) for rank in ("q", "k"))
    return Split(q, k, masks, tuple(rest))


def _conjuncts(mask: Expr | None) -> Iterator[Expr]:
    """The mask's conjuncts, those under a negated disjunction too."""
    if mask is None:
        return
    for part in conjuncts(mask):
        match part:
            case Apply("not", (Apply("or", (a, b)),)):
                yield from _conjuncts(apply("not", a, loc=part.loc))
                yield from _conjuncts(apply("not", b, loc=part.loc))
            case Apply("not", (Apply("not", (a,)),)):
                yield from _conjuncts(a)
            case _:
                yield part


def _axes_of(part: Expr, grid: tuple[str, ...]) -> set[str | None]:
    """The axes a conjunct speaks of; None stands for the number of a token on a grid of several axes."""
    out: set[str | None] = set()
    for node in walk(part):
        if isinstance(node, Var) and node.name in TOKEN_RANKS:
            line = None if len(grid) > 1 else grid[0] if grid else LINE
            out.add(node.axis if node.axis is not None else line)
    return out


def _divisor(axis: str, parts: tuple[Expr, ...]) -> tuple[Expr, Expr] | None:
    """The number of residue classes of an axis, and the conjunct that keeps pairs of one class only."""
    for part in parts:
        match part:
            case Apply("eq", (Apply("mod", (a, m)), Apply("mod", (b, n)))) if m == n:
                if {a, b} == {_token("q", axis), _token("k", axis)} and _is_count(m):
                    return m, part
            case Apply("eq", (Apply("mod", (Apply("sub", (a, b)), m)), Const(value))) if value == 0:
                if {a, b} == {_token("q", axis), _token("k", axis)} and _is_count(m):
                    return m, part
            case _:
                pass
    return None


def _is_count(m: Expr) -> bool:
    """A literal above 1, or a parameter; a call may only set it to 1 or more."""
    return isinstance(m, Param) or (isinstance(m, Const) and isinstance(m.value, int) and m.value > 1)


def _token(rank: str, axis: str) -> Expr:
    """What a mask calls the token on this axis: `q.y`, and on a line `k` and `pos(q)`."""
    if axis != LINE:
        return Var(rank, axis)
    return apply("add", Var("q"), _POSITION) if rank == "q" else Var("k")


def _axis_mask(axis: str, divisor: Expr | None, parts: list[Expr]) -> AxisMask:
    tiled, group = (axis, None) if divisor is None else _split_names(axis)
    return AxisMask(axis, tiled, group, divisor, tuple(_on_axis(p, axis, divisor, group) for p in parts))


def _split_names(axis: str) -> tuple[str, str]:
    return (f"{axis}_step", f"{axis}_residue") if axis else ("step", "residue")


def _on_axis(part: Expr, axis: str, divisor: Expr | None, group: str | None) -> Expr:
    """A conjunct in the tiled coordinates of its axis."""
    part = substitute(part, {_POSITION: Var(OFFSET)})
    if divisor is None or group is None:
        tokens = {rank: Var(rank) for rank in TOKEN_RANKS}
        return _substituted(part, axis, tokens)
    class_ = Var(group)

    def known(node: Expr) -> Expr | None:
        """`q.y % d` is the class, `q.y // d` the step: said outright, nothing has to be proved later."""
        match node:
            case Apply("mod" | "floordiv" as op, (token, m)) if m == divisor:
                for rank in TOKEN_RANKS:
                    if token == substitute(_token(rank, axis), {_POSITION: Var(OFFSET)}):
                        return class_ if op == "mod" else Var(rank)
            case _:
                pass
        return None

    # the step stands under a name of its own while the token it came from is still called q or k
    step = {rank: Var(f"{rank} step") for rank in TOKEN_RANKS}
    part = rewrite(part, lambda n: step[r.name] if isinstance(r := known(n), Var) and r.name in step else r)
    tokens: dict[str, Expr] = {}
    for rank in TOKEN_RANKS:
        token: Expr = apply("add", apply("mul", step[rank], divisor), class_)
        if axis == LINE and rank == "q":
            token = apply("sub", token, Var(OFFSET))
        tokens[rank] = token
    part = _substituted(part, axis, tokens)
    return substitute(part, {step[rank]: Var(rank) for rank in TOKEN_RANKS})


def _substituted(part: Expr, axis: str, tokens: dict[str, Expr]) -> Expr:
    def token(node: Expr) -> Expr | None:
        if isinstance(node, Var) and node.name in tokens and (node.axis or LINE) in (axis, LINE):
            return tokens[node.name]
        return None

    return rewrite(part, token)


def _layout(program: Program, masks: tuple[AxisMask, ...], rank: TokenRank) -> Layout:
    count = Size("n_q" if rank == "q" else "n_k")
    if not program.grid:
        return _line_layout(masks[0], rank, count)
    axes: list[Axis] = []
    coordinates: list[tuple[str, Expr]] = []
    for at, mask in enumerate(masks):
        stride = stride_of(program.grid, mask.axis) or ONE
        # the slowest axis runs on beyond the grid, as far as there are tokens
        extent = _cdiv(count, stride) if at == 0 else Param(size_param(mask.axis))
        whole = _floordiv(count, stride) if at == 0 else extent
        if mask.divisor is None or mask.group is None:
            axes.append(Axis(mask.axis, ZERO, extent, whole, extent, stride))
            coordinates.append((mask.axis, Var(rank, mask.axis)))
            continue
        d, group = mask.divisor, Var(mask.group)
        # class g of `extent` coordinates has ceil((extent - g) / d) of them
        steps, whole = (_ceil_from(x, group, d) for x in (extent, whole))
        axes.append(Axis(mask.group, ZERO, d, d, d, stride, group=True))
        axes.append(Axis(mask.tiled, ZERO, steps, whole, _cdiv(extent, d), _times(stride, d)))
        both = apply("add", apply("mul", Var(rank, mask.tiled), d), Var(rank, mask.group))
        coordinates.append((mask.axis, both))
    return Layout(rank, tuple(axes), ZERO, count, tuple(coordinates))


def _line_layout(mask: AxisMask, rank: TokenRank, count: Expr) -> Layout:
    """Residue classes of positions on a line; queries begin at position `n_k - n_q`."""
    assert mask.divisor is not None
    assert mask.group is not None
    d, group = mask.divisor, Var(mask.group)
    shift: Expr = _POSITION if rank == "q" else ZERO
    # the first position of class g at or after `shift` is step ceil((shift - g) / d)
    low = ZERO if rank == "k" else _ceil_from(shift, group, d)
    beyond = _ceil_from(count if rank == "k" else Size("n_k"), group, d)
    extent = beyond if rank == "k" else apply("sub", beyond, low)
    axes = (
        Axis(mask.group, ZERO, d, d, d, ONE, group=True),
        Axis(mask.tiled, low, extent, extent, _cdiv(count, d), d),
    )
    position = apply("add", apply("mul", Var(rank, mask.tiled), d), Var(rank, mask.group))
    return Layout(rank, axes, shift, count, (("", position),))


def _ceil_from(x: Expr, group: Expr, d: Expr) -> Expr:
    return apply("floordiv", apply("sub", apply("add", x, apply("sub", d, ONE)), group), d)


def _cdiv(x: Expr, d: Expr) -> Expr:
    if d == ONE:
        return x
    return apply("floordiv", apply("sub", apply("add", x, d), ONE), d)


def _floordiv(x: Expr, d: Expr) -> Expr:
    return x if d == ONE else apply("floordiv", x, d)


def _times(a: Expr, b: Expr) -> Expr:
    return b if a == ONE else apply("mul", a, b)
