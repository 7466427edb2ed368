"""Row sums that stay in parts until the last tile, so that no tile adds across the threads of a row.

    Z = tl.full([BLOCK_Q], 0.0, tl.float32)           Z = tl.full([BLOCK_Q, SUM_PARTS], 0.0, tl.float32)
    for ...:                                          for ...:
        Z_tile = tl.sum(E, axis=1)                ->      Z_tile = row_parts(E)
        Z = Z * Z_scale + Z_tile                          Z = Z * Z_scale[:, None] + Z_tile
                                                      Z = tl.sum(Z, axis=1)

A tensor core leaves a thread two of every eight keys of a row. Sums over keys that are eight apart are its own, and
two shuffles and two additions a row and tile are saved.
"""

from __future__ import annotations

from attngen.emit.tile import AccEach, AccLet, RowLet, RowReduce, TileLet, TileProgram, TileReduce
from attngen.lang.expr import Apply, Const, Load, loads


def sums_in_parts(tile: TileProgram) -> dict[str, str]:
    """The sums of a tile, `Z_tile`, with the carried sum that takes each: those that only their own update reads."""
    found: dict[str, str] = {}
    rows = {c.name for c in tile.carried if c.space == "row" and c.init == Const(0.0)}
    sums = {s.out for s in tile.steps if isinstance(s, RowReduce) and s.op == "sum"}
    for step in tile.steps:
        match step:
            case RowLet(out, Apply("add", (total, Load(part, _)))) if out in rows and part in sums:
                if _is_rescaled(total, out) and _reads(tile, out) == _reads(tile, part) == 1:
                    found[part] = out
            case _:
                pass
    return found


def _is_rescaled(total: object, name: str) -> bool:
    """Whether a total is `name` or `name * factor`."""
    match total:
        case Load(tensor, _) | Apply("mul", (Load(tensor, _), _)):
            return tensor == name
        case _:
            return False


def _reads(tile: TileProgram, name: str) -> int:
    """How often the steps of a tile read a row value."""
    bodies = [s.body for s in tile.steps if isinstance(s, RowLet | TileLet | AccLet | TileReduce | AccEach)]
    count = sum(ld.tensor == name for body in bodies for ld in loads(body))
    rescales = sum(getattr(s, "rescale", None) == name for s in tile.steps)
    return count + rescales
