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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from attngen.emit.tile import (
    AccBins,
    AccDot,
    AccEach,
    AccLet,
    AccTopK,
    Dot,
    Mask,
    RowLet,
    RowReduce,
    StoreBlock,
    StorePair,
    TileLet,
    TileProgram,
    TileReduce,
    TileStep,
)
from attngen.lang.expr import Expr, loads


@dataclass(frozen=True, slots=True)
class Round:
    """`out[q, k] = source[q, k]` in a dtype below fp32: the operand of a contraction."""

    out: str
    source: str
    dtype: str


SweepStep = (
    TileLet | TileReduce | Mask | RowReduce | Round | AccBins | AccTopK | AccEach | StorePair | StoreBlock
)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Steps done in one loop over the keys."""

    steps: tuple[SweepStep, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Sweeps, and what is done once a row between them: all that lies between two contractions."""

    items: tuple[Sweep | RowLet | AccLet, ...]


Part = Dot | AccDot | Section


@dataclass(frozen=True, slots=True)
class Layout:
    """Parts in order; `slots` gives the memory of tile values, `kept` the row values that outlive their section."""

    parts: tuple[Part, ...]
    slots: dict[str, int]
    n_slots: int
    kept: tuple[str, ...]


def lay_out(tile: TileProgram, *, masked: bool, dtypes: Mapping[str, str]) -> Layout:
    """The parts of a tile program; without `masked` the mask steps fall away.

    What is multiplied by one of the operands in `dtypes` is rounded to its dtype where it is stored.
    """
    parts: list[Part] = []
    pending: list[TileStep | Round] = []
    rounded: set[str] = set()

    def flush() -> None:
        if pending:
            parts.append(Section(tuple(_sweeps(pending))))
            pending.clear()

    for step in _contract_last(tile.steps):
        if isinstance(step, Dot):
            flush()
            parts.append(step)
        elif isinstance(step, AccDot):
            source = step.source
            if step.value in dtypes:
                source = rounded_name(source, dtypes[step.value])
                if source not in rounded:
                    _round(pending, Round(source, step.source, dtypes[step.value]))
                    rounded.add(source)
            flush()
            parts.append(replace(step, source=source))
        elif masked or not isinstance(step, Mask):
            pending.append(step)
    flush()
    slots, n_slots = _slots(parts)
    return Layout(tuple(parts), slots, n_slots, _kept(parts, {c.name for c in tile.carried}))


def rounded_name(source: str, dtype: str) -> str:
    """What a tile value is called once it is rounded; no program has a name with a space in it."""
    return f"{source} {dtype}"


def _round(pending: list[TileStep | Round], step: Round) -> None:
    """Puts a rounding behind the last step that changes its source."""
    made = [
        i
        for i, s in enumerate(pending)
        if isinstance(s, TileLet | TileReduce | Mask) and s.out == step.source
    ]
    pending.insert(made[-1] + 1 if made else len(pending), step)


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


def _sweeps(steps: list[TileStep | Round]) -> Iterator[Sweep | RowLet | AccLet]:
    """Sweeps as long as they can be; what is done once a row goes before the open sweep if it may."""
    open_sweep: list[SweepStep] = []
    for step in steps:
        assert not isinstance(step, Dot | AccDot)
        if open_sweep and _ends(open_sweep, step):
            yield Sweep(tuple(open_sweep))
            open_sweep = []
        if isinstance(step, RowLet | AccLet):
            yield step
        else:
            open_sweep.append(step)
    if open_sweep:
        yield Sweep(tuple(open_sweep))


def _ends(sweep: list[SweepStep], step: TileStep | Round) -> bool:
    """Whether a step must wait for the end of the sweep before it.

    It must if it reads what the whole sweep makes; if it is done once a row, before the sweep, also if the sweep reads
    what it makes. A rescale of an accumulator is done before the sweep too.
    """
    whole = {s.out for s in sweep if isinstance(s, RowReduce)} | {n for s in sweep for n in _collects(s)}
    early = {name for s in sweep for name in reads(s)} | whole
    match step:
        case RowLet(out, _) | AccLet(out, _):
            return bool(whole & set(reads(step))) or out in early
        case AccBins() | AccEach():
            return bool(whole & set(reads(step))) or (step.rescale is not None and step.acc in whole)
        case _:
            return bool(whole & set(reads(step)))


def _collects(step: TileStep | Round) -> tuple[str, ...]:
    """Accumulators that a step of a sweep changes key by key."""
    match step:
        case AccBins() | AccEach():
            return (step.acc,)
        case AccTopK():
            return step.acc, step.index
        case _:
            return ()


def reads(step: TileStep | Round) -> tuple[str, ...]:
    """Names a step reads."""
    match step:
        case TileLet() | TileReduce() | RowLet() | AccLet():
            return names_in(step.body)
        case AccEach():
            return (*names_in(step.body), step.rescale) if step.rescale else names_in(step.body)
        case RowReduce() | Round() | AccTopK() | StorePair() | StoreBlock():
            return (step.source,)
        case Mask(out, _):
            return (out,)
        case AccDot():
            return (step.source, step.rescale) if step.rescale else (step.source,)
        case AccBins():
            return (step.source, step.bin, step.rescale) if step.rescale else (step.source, step.bin)
        case Dot():
            return ()


def names_in(expr: Expr) -> tuple[str, ...]:
    """Names an expression loads."""
    return tuple(load.tensor for load in loads(expr))


def _timeline(parts: list[Part]) -> Iterator[tuple[int, Dot | AccDot | Sweep]]:
    """Whatever touches tile values, in order."""
    now = 0
    for part in parts:
        items = part.items if isinstance(part, Section) else (part,)
        for item in items:
            if not isinstance(item, RowLet | AccLet):
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
            if isinstance(step, Dot | TileLet | TileReduce | Round):
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
