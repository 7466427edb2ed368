"""Put the mask into a tile: on the scores where that is proved enough, else on what a reduction reads.

    S_dot;  M_raw = max S_dot;  E = exp2(S_dot ...);  Z = sum E;  T = sum (S - M) * E
->
    S_dot;  mask S_dot with -inf;  ...  E;  ...  T_kept = T_term;  mask T_kept with 0;  T = sum T_kept

Setting a score to -inf costs one select and makes every reduction after it see its identity, unless something is
multiplied with the score itself: 0 * -inf. Such a source gets a masked copy of its own.
"""

from __future__ import annotations

from dataclasses import replace

from attngen.emit.mask_point import Limit, is_identity, limit_of
from attngen.emit.tile import (
    AccBins,
    AccDot,
    AccTopK,
    Dot,
    Mask,
    RowLet,
    RowReduce,
    StoreBlock,
    TileLet,
    TileReduce,
    TileStep,
)
from attngen.lang.expr import Expr, Load, Var
from attngen.lang.fresh import fresh_name
from attngen.lang.ops import REDUCERS

_PAIR = (Var("q"), Var("k"))
_Reducing = RowReduce | AccDot | AccBins | AccTopK | StoreBlock


def place_mask(
    steps: list[TileStep],
    uniforms: list[tuple[str, Expr]],
    positive: frozenset[str],
    taken: set[str],
    finite: frozenset[str] = frozenset(),
) -> list[TileStep]:
    """The steps with their `Mask`s.

    `positive` names parameters known to be > 0, `finite` row values known to be finite; `taken` grows by the names
    of masked copies.
    """
    sources = list(dict.fromkeys((s.source, _op(s)) for s in steps if isinstance(s, _Reducing)))
    masked: list[str] = []
    covered: set[tuple[str, str]] = set()
    while len(covered) < len(sources):
        found: tuple[str, set[tuple[str, str]]] | None = None
        for step in steps:
            if not isinstance(step, Dot | TileLet | TileReduce) or step.out in masked:
                continue
            known = _limits(steps, uniforms, positive, finite, {*masked, step.out})
            here = {(s, op) for s, op in sources if is_identity(known.get(s, Limit.ANY), op)}
            if here > covered and (found is None or len(here) > len(found[1])):
                found = step.out, here
        if found is None:
            break
        masked.append(found[0])
        covered = found[1]
    out: list[TileStep] = []
    for step in steps:
        out.append(step)
        if isinstance(step, Dot | TileLet | TileReduce) and step.out in masked:
            out.append(Mask(step.out, float("-inf")))
    return _mask_copies(out, covered, taken)


def _op(step: _Reducing) -> str:
    """The reducer whose identity a dropped pair must be."""
    match step:
        case RowReduce(_, op, _) | StoreBlock(_, op, _, _):
            return op
        case AccTopK():
            return "topk"
        case _:
            return "sum"


def _limits(
    steps: list[TileStep],
    uniforms: list[tuple[str, Expr]],
    positive: frozenset[str],
    finite: frozenset[str],
    masked: set[str],
) -> dict[str, Limit]:
    """What is known of every value of a pair that is dropped, where the values in `masked` are -inf."""
    known = dict.fromkeys(finite, Limit.FINITE)
    known |= {name: limit_of(body, {}, positive) for name, body in uniforms}
    known |= dict.fromkeys(masked, Limit.NEG_INF)
    for step in steps:
        if isinstance(step, TileLet | RowLet) and step.out not in masked:
            known[step.out] = limit_of(step.body, known, positive)
    return known


def _mask_copies(steps: list[TileStep], covered: set[tuple[str, str]], taken: set[str]) -> list[TileStep]:
    """Masked copies, filled with the reducer's identity, of the sources that no masked score covers."""
    copies: dict[tuple[str, str], str] = {}
    out: list[TileStep] = []
    for step in steps:
        if isinstance(step, _Reducing) and (key := (step.source, _op(step))) not in covered:
            if key not in copies:
                copies[key] = fresh_name(f"{key[0]}_kept", taken)
                out.append(TileLet(copies[key], Load(key[0], _PAIR)))
                out.append(Mask(copies[key], REDUCERS[key[1]].identity))
            step = replace(step, source=copies[key])  # noqa: PLW2901
        out.append(step)
    return out
