"""Group the steps of a tile program into contractions and sweeps over the keys, and give tile values storage.

    S_dot = Q . K^T;  mask S_dot;  M_raw = rowmax S_dot;  M_new = ...;  E = exp2(...);  Z_tile = rowsum E;  Z = ...;
    O = O * Z_scale + E . V
->
    contraction  S_dot
    sweep        mask S_dot, M_raw
    row          M_new, ..., Z_scale
    sweep        E, Z_tile
    row          Z, M
    contraction  O

A sweep ends where a row value needs one of its reductions. A tile value lives in a register of its sweep, and in
memory only if a later sweep or a contraction reads it; slots of memory are reused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attngen.emit.tile import AccDot, DotQK, Mask, RowLet, RowReduce, TileLet, TileProgram, TileStep
from attngen.lang.expr import Expr, loads

ROUNDED = " rounded"


@dataclass(frozen=True, slots=True)
class Round:
    """`out[q, k] = source[q, k]` in the element type: the operand of a contraction."""

    out: str
    source: str


SweepStep = TileLet | Mask | RowReduce | Round


@dataclass(frozen=True, slots=True)
class Sweep:
    """Steps done in one loop over the keys."""

    steps: tuple[SweepStep, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Sweeps and row lets between two contractions: one loop over the vectors of a panel."""

    items: tuple[Sweep | RowLet, ...]


Part = DotQK | AccDot | Section


@dataclass(frozen=True, slots=True)
class Layout:
    """Parts in order; `slots` gives the memory of tile values, `kept` the row values that outlive their section."""

    parts: tuple[Part, ...]
    slots: dict[str, int]
    n_slots: int
    kept: tuple[str, ...]


def lay_out(tile: TileProgram, *, masked: bool, rounded: bool) -> Layout:
    """The parts of a tile program; without `masked` the mask steps fall away.

    With `rounded`, operands of the second contraction are rounded to the element type where they are stored.
    """
    parts: list[Part] = []
    pending: list[TileStep | Round] = []

    def flush() -> None:
        if pending:
            parts.append(Section(tuple(_sweeps(pending))))
            pending.clear()

    for step in _contract_last(tile.steps):
        if isinstance(step, DotQK):
            flush()
            parts.append(step)
        elif isinstance(step, AccDot):
            if rounded:
                made = [
                    i for i, s in enumerate(pending) if isinstance(s, TileLet | Mask) and s.out == step.source
                ]
                at = made[-1] + 1 if made else len(pending)
                pending.insert(at, Round(step.source + ROUNDED, step.source))
            flush()
            parts.append(AccDot(step.acc, step.source + ROUNDED, step.rescale) if rounded else step)
        elif masked or not isinstance(step, Mask):
            pending.append(step)
    flush()
    slots, n_slots = _slots(parts)
    return Layout(tuple(parts), slots, n_slots, _kept(parts, {c.name for c in tile.carried}))


def _contract_last(steps: tuple[TileStep, ...]) -> list[TileStep]:
    """Row lets that follow an accumulation and do not change its rescale go before it, into the open section."""
    out: list[TileStep] = []
    for step in steps:
        at = len(out)
        if isinstance(step, RowLet):
            while at and isinstance(before := out[at - 1], AccDot) and before.rescale != step.out:
                at -= 1
        out.insert(at, step)
    return out


def _sweeps(steps: list[TileStep | Round]) -> Iterator[Sweep | RowLet]:
    """Sweeps as long as they can be; a row let goes before the open sweep unless one depends on the other."""
    open_sweep: list[SweepStep] = []
    for step in steps:
        reduced = {s.out for s in open_sweep if isinstance(s, RowReduce)}
        if isinstance(step, RowLet):
            read_later = {name for s in open_sweep for name in reads(s)}
            if open_sweep and (reduced & set(reads(step)) or step.out in read_later):
                yield Sweep(tuple(open_sweep))
                open_sweep = []
            yield step
        else:
            assert isinstance(step, TileLet | Mask | RowReduce | Round)
            if reduced & set(reads(step)):
                yield Sweep(tuple(open_sweep))
                open_sweep = []
            open_sweep.append(step)
    if open_sweep:
        yield Sweep(tuple(open_sweep))


def reads(step: TileStep | Round) -> tuple[str, ...]:
    """Names a step reads."""
    match step:
        case TileLet(_, body) | RowLet(_, body):
            return names_in(body)
        case RowReduce(_, _, source) | Round(_, source):
            return (source,)
        case Mask(out, _):
            return (out,)
        case AccDot(_, source, rescale):
            return (source, rescale) if rescale else (source,)
        case DotQK():
            return ()


def names_in(expr: Expr) -> tuple[str, ...]:
    """Names an expression loads."""
    return tuple(load.tensor for load in loads(expr))


def _timeline(parts: list[Part]) -> Iterator[tuple[int, DotQK | AccDot | Sweep]]:
    """Whatever touches tile values, in order."""
    now = 0
    for part in parts:
        items = part.items if isinstance(part, Section) else (part,)
        for item in items:
            if not isinstance(item, RowLet):
                yield now, item
                now += 1


def _slots(parts: list[Part]) -> tuple[dict[str, int], int]:
    """Memory for tile values that are read after the sweep or contraction that makes them."""
    made: dict[str, int] = {}
    last: dict[str, int] = {}
    for now, item in _timeline(parts):
        steps: tuple[TileStep | Round, ...] = item.steps if isinstance(item, Sweep) else (item,)
        for step in steps:
            for name in reads(step):
                if name in made and made[name] < now:
                    last[name] = now
            if isinstance(step, DotQK | TileLet | Round):
                made.setdefault(step.out, now)
    slots: dict[str, int] = {}
    free_at: list[int] = []
    for name in sorted(last, key=lambda n: made[n]):
        slot = next((i for i, free in enumerate(free_at) if free <= made[name]), len(free_at))
        if slot == len(free_at):
            free_at.append(0)
        free_at[slot] = last[name]
        slots[name] = slot
    return slots, len(free_at)


def _kept(parts: list[Part], carried: set[str]) -> tuple[str, ...]:
    """Row values that are not carried but read in a later part than the one that makes them."""
    made: dict[str, int] = {}
    kept: dict[str, None] = {}
    for i, part in enumerate(parts):
        steps: list[TileStep | Round] = []
        for item in part.items if isinstance(part, Section) else (part,):
            steps += item.steps if isinstance(item, Sweep) else [item]
        for step in steps:
            for name in reads(step):
                if name in made and made[name] < i and name not in carried:
                    kept[name] = None
            if isinstance(step, RowLet | RowReduce):
                made.setdefault(step.out, i)
    return tuple(kept)
