"""Which row reductions must carry a NaN themselves.

Triton's maximum and minimum of a row drop NaN. Mostly that loses nothing: the NaN of a score reaches every output
through a sum over the same pairs. An output that depends on a maximum alone has no such sum.

    M = max[k](S);  Z = sum[k](exp(S - M));  O = ... / Z    NaN reaches O through Z: Triton's own maximum serves
    M = max[k](S);  M is an output                          nothing else carries it: `row_max`
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attngen.emit.tile import (
    AccBins,
    AccDot,
    AccEach,
    AccLet,
    RowLet,
    RowReduce,
    TileLet,
    TileProgram,
    TileReduce,
)
from attngen.lang.expr import loads


def must_carry_nan(tile: TileProgram) -> frozenset[str]:
    """The maxima and minima on which an output depends that no sum over the same tile value reaches."""
    reads = _reads(tile)
    summed = {s.source for s in tile.steps if isinstance(s, AccDot | AccBins)}
    summed |= {s.source for s in tile.steps if isinstance(s, RowReduce) and s.op == "sum"}
    # The reductions of an AccEach all keep NaN.
    summed |= {ld.tensor for s in tile.steps if isinstance(s, AccEach) for ld in loads(s.body)}
    extremes = [s for s in tile.steps if isinstance(s, RowReduce) and s.op in ("max", "min")]
    out: set[str] = set()
    for output in tile.outputs:
        behind = _closure([output.source], reads)
        carried = _closure(summed & behind, reads)
        out |= {e.out for e in extremes if e.out in behind and e.source not in carried}
    return frozenset(out)


def _reads(tile: TileProgram) -> dict[str, set[str]]:
    """What each value is computed from, over all key tiles; reductions to rows by maximum end the path of a NaN."""
    reads: dict[str, set[str]] = {}
    for step in tile.steps:
        match step:
            case TileLet(out, body) | TileReduce(out, _, _, body) | RowLet(out, body):
                reads.setdefault(out, set()).update(ld.tensor for ld in loads(body))
            case RowReduce(out, "sum", source):
                reads.setdefault(out, set()).add(source)
            case AccLet(acc, body):
                reads.setdefault(acc, set()).update(ld.tensor for ld in loads(body))
            case AccDot(acc, source, rescale, _) | AccBins(acc, source, rescale, _):
                reads.setdefault(acc, set()).update(n for n in (source, rescale) if n is not None)
            case AccEach(acc, _, body, rescale):
                reads.setdefault(acc, set()).update(ld.tensor for ld in loads(body))
                reads[acc].update(() if rescale is None else (rescale,))
            case _:
                pass
    for let in tile.finish:
        reads.setdefault(let.out, set()).update(ld.tensor for ld in loads(let.body))
    return reads


def _closure(names: Iterable[str], reads: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            stack.extend(reads.get(name, ()))
    return seen
