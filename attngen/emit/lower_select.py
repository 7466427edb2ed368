"""Lower the selecting states of a Fold: the key of the largest value, and the few largest with their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attngen.algebra.fold import State
from attngen.emit.explicit import explicit
from attngen.emit.tile import AccTopK, Carried, RowLet, RowReduce, TileLet
from attngen.errors import UnsupportedError
from attngen.lang.expr import Const, Load, Var, apply
from attngen.lang.fresh import fresh_name
from attngen.lang.ops import REDUCERS

if TYPE_CHECKING:
    from attngen.emit.lower import Lowering

_Q, _K = Var("q"), Var("k")


def lower_argmax(low: Lowering, state: State) -> None:
    """The first key of the largest value: the largest of the tile, then the least key that reaches it."""
    source = low.as_tile(state.name, low.resolve(low.contracted(state.name, explicit(state.body))))
    best, tile_best, tile_key = (
        fresh_name(f"{state.name}_{what}", low.taken) for what in ("best", "tile_best", "tile_key")
    )
    low.carried.append(Carried(best, "row", Const(float("-inf"))))
    low.carried.append(Carried(state.name, "row", Const(REDUCERS["argmax"].identity)))
    low.steps.append(RowReduce(tile_best, "max", source))
    reaches = apply("eq", Load(source, (_Q, _K)), Load(tile_best, (_Q,)))
    candidate = fresh_name(f"{state.name}_candidate", low.taken)
    low.steps.append(TileLet(candidate, apply("where", reaches, apply("float", _K), Const(float("inf")))))
    low.exp2.tiles.add(candidate)
    low.steps.append(RowReduce(tile_key, "min", candidate))
    # Tiles need not come in the order of their keys: an equal value wins with the smaller key.
    old_best, new_best = Load(best, (_Q,)), Load(tile_best, (_Q,))
    old_key, new_key = Load(state.name, (_Q,)), Load(tile_key, (_Q,))
    tie = apply("and", apply("eq", new_best, old_best), apply("lt", new_key, old_key))
    wins = apply("or", apply("gt", new_best, old_best), apply("and", tie, apply("ge", old_key, Const(0.0))))
    low.steps.append(RowLet(state.name, apply("where", wins, new_key, old_key)))
    low.steps.append(RowLet(best, apply("max", old_best, new_best)))


def lower_topk(low: Lowering, state: State, feature: str) -> None:
    """Values and keys are kept together, whichever of them the cascade asks for."""
    body = low.resolve(low.contracted(state.name, explicit(state.body)))
    source = low.as_tile(state.name, body)
    pair = low.tops.get((source, feature))
    if pair is None:
        names = {state.reduce: state.name}
        for op in ("topk", "argtopk"):
            if op not in names:
                twin = next(
                    (t.name for t in low.fold.states
                     if t.reduce == op and t.ranks == state.ranks and t.body == state.body),
                    None,
                )  # fmt: skip
                names[op] = twin or fresh_name(f"{state.name}_{op}", low.taken)
        low.carried.append(Carried(names["topk"], "acc", Const(float("-inf")), feature))
        low.carried.append(Carried(names["argtopk"], "acc", Const(-1.0), feature))
        low.accs.append(AccTopK(names["topk"], names["argtopk"], source))
        low.tops[source, feature] = names
    elif pair[state.reduce] != state.name:
        raise no_operation(state)


def no_operation(state: State) -> UnsupportedError:
    """The refusal of a state that no tile operation accumulates."""
    return UnsupportedError(
        f"{state.name}[{', '.join(state.ranks)}] = {state.reduce}[k](...) has no tile operation",
        loc=state.body.loc,
    )
