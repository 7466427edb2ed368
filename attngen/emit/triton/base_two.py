"""Keep a running maximum in the units of the exponentials that read it.

    M_tile = M_raw * scale                               M_tile = M_raw * qk_scale
    M_new = max(M, M_tile)                               M_new = max(M, M_tile)
    M_log2 = finite(M_new) * LOG2E                       M_log2 = finite(M_new)
    E = exp2(S_dot * qk_scale - M_log2)           ->     E = exp2(S_dot * qk_scale - M_log2)
    Z_scale = exp2((M - finite(M_new)) * LOG2E)          Z_scale = exp2(M - M_log2)
    ...
    LSE = M + log(Z)                                     LSE = M * LN2 + log(Z)

What is carried is `M * LOG2E`, which no tile has to multiply again. A maximum that a kernel stores keeps its own
units, and so does one that anything else reads.
"""

from __future__ import annotations

import math
from dataclasses import replace

from attngen.emit.tile import AccEach, AccLet, RowLet, TileLet, TileProgram, TileReduce, TileStep
from attngen.emit.to_exp2 import LOG2E
from attngen.lang.expr import Apply, Const, Expr, Load, Var, apply, loads, map_children, rewrite

LN2 = Const(math.log(2.0))
_Q = (Var("q"),)
_INFINITIES = (Const(float("-inf")), Const(float("inf")))
_BASE_TWO = "\0"  # ends the name of a value that has been read in units of base 2


def in_base_two(tile: TileProgram) -> TileProgram:
    """The tile program with every extreme that allows it in units of base 2."""
    for carried in tile.carried:
        if carried.space == "row" and carried.init in _INFINITIES:
            tile = _rescaled(tile, carried.name) or tile
    return tile


def _rescaled(tile: TileProgram, name: str) -> TileProgram | None:
    """The program with `name` in units of base 2; None where something needs its own units."""
    updates = _updates(tile, name)
    if updates is None or any(o.source == name for o in tile.outputs):
        return None
    names = frozenset(u.out for u in updates)
    steps: list[TileStep] = []
    known: dict[Expr, Expr] = {}  # values that already have a name
    for step in tile.steps:
        update = next((u for u in updates if isinstance(step, RowLet) and u.out == step.out), None)
        if update is not None:
            steps.append(update)
        elif isinstance(step, RowLet | TileLet | TileReduce | AccLet | AccEach):
            body = _without_factor(step.body, names)
            if any(ld.tensor in names for ld in loads(body)):
                return None
            body = rewrite(body, known.get)
            if isinstance(step, RowLet) and isinstance(body, Apply):
                known[body] = Load(step.out, _Q)
            steps.append(replace(step, body=body))
        else:
            steps.append(step)
    back: dict[Expr, Expr] = {Load(name, _Q): apply("mul", Load(name, _Q), LN2)}
    finish = tuple(replace(f, body=rewrite(f.body, back.get)) for f in tile.finish)
    return replace(tile, steps=tuple(_named(s) for s in steps), finish=finish)


def _updates(tile: TileProgram, name: str) -> tuple[RowLet, ...] | None:
    """What sets the extreme, in the new units: the tile's own, the new value, the carried one."""
    lets = {s.out: s.body for s in tile.steps if isinstance(s, RowLet)}
    match lets.get(name):
        case Load(new, _) if new in lets:
            pass
        case _:
            return None
    match lets[new]:
        case Apply("max" | "min", (Load(carried, _), Load(own, _))) if carried == name and own in lets:
            pass
        case _:
            return None
    match lets[own]:
        case Apply("mul", (Load() as raw, scale)):
            factor = apply("mul", scale, LOG2E)
            uniform = next((n for n, body in tile.uniforms if body == factor), None)
        case _:
            return None
    if uniform is None:
        return None
    tile_value = RowLet(own, apply("mul", raw, Load(uniform, ())))
    return tile_value, RowLet(new, lets[new]), RowLet(name, lets[name])


def _without_factor(expr: Expr, names: frozenset[str]) -> Expr:
    """`expr` with products of LOG2E and the extremes replaced by the extremes in the new units."""
    match expr:
        case Apply("mul", (value, factor)) if factor == LOG2E and _homogeneous(value, names):
            return _marked(value)
        case _:
            return map_children(expr, lambda c: _without_factor(c, names))


def _homogeneous(expr: Expr, names: frozenset[str]) -> bool:
    """Whether an expression is multiplied by a positive factor where the extremes that it reads are."""
    match expr:
        case Load(tensor, _):
            return tensor in names
        case Apply("finite" | "sub" | "add" | "neg" | "max" | "min", args):
            return all(_homogeneous(a, names) for a in args)
        case _:
            return False


def _marked(expr: Expr) -> Expr:
    return rewrite(expr, lambda n: Load(n.tensor + _BASE_TWO, n.indices) if isinstance(n, Load) else None)


def _named(step: TileStep) -> TileStep:
    """The step with the marks taken off."""
    if not isinstance(step, RowLet | TileLet | TileReduce | AccLet | AccEach):
        return step
    body = rewrite(
        step.body,
        lambda n: Load(n.tensor.removesuffix(_BASE_TWO), n.indices) if isinstance(n, Load) else None,
    )
    return replace(step, body=body)
