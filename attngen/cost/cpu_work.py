"""What a launch of a C++ kernel does, counted: the quantities whose prices `cpu.py` knows.

The kernel transposes a tile of queries into panels of some vectors; each tile of keys meets each panel: a product of
queries and keys into scores, pointwise passes over the scores, a product with the values into the accumulators. In a
tile that needs the mask a panel drops the keys that none of its queries sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attngen.cost.kernel_ops import PairOps, RowWidths
from attngen.cost.visits import Visits

VECTORS = 2  # of a panel
_FP32, _LINE = 4, 64
_SEEN = 0.6  # of the keys of a tile that a list calls partial: half on a diagonal, most where a few pairs are missing


@dataclass(frozen=True, slots=True)
class Core:
    """A core as a kernel sees it: fp32 lanes of a vector, and bytes of its caches."""

    lanes: int
    l1: int
    l2: int


QUANTITIES: dict[str, str] = {
    "products": "vector multiply-adds of both products",
    "pointwise": "vector operations on scores",
    "special": "vectors of exponentials and the like",
    "rounding": "vectors of weights rounded to half precision",
    "mask": "vector operations of the mask",
    "wide mask": "vector operations of the mask in 64 bits",
    "quotients": "vectors of integer quotients in the mask",
    "reads": "values of captured tensors read pair by pair",
    "accumulators": "vectors of accumulators that are scaled, read and written",
    "panels": "meetings of a panel and a tile of keys",
    "masked panels": "meetings that look at the mask",
    "keys": "keys listed for a tile",
    "conversion": "vectors of keys and values converted to fp32",
    "queries": "numbers of queries and results transposed",
    "rows of work": "tiles of queries begun and ended",
    "second level": "cache lines of keys, scores or panels that come from the second-level cache",
    "far keys": "cache lines of keys and values that come from beyond it",
    "launch": "launches",
}


def cpu_work(
    visits: Visits, ops: PairOps, widths: RowWidths, core: Core, element: int, group: int
) -> dict[str, float]:
    """The quantities of one launch, of all heads; `element` bytes a number, `group` query heads a key head."""
    panel = core.lanes * VECTORS
    used = min(panel, max(visits.n_q, 1))
    vectors = 1 if used <= core.lanes else VECTORS
    per_tile = -(-min(visits.rows, max(visits.n_q, 1)) // panel)
    full_pairs = float(visits.n_full) * per_tile * visits.keys
    looked, seen, meetings = _masked(visits, per_tile, full_pairs)
    keyed = (full_pairs + seen) * vectors  # vectors of pairs that are computed
    visited = visits.n_full + visits.n_partial
    listed = float(visited) * visits.keys
    tasks = visits.full.size
    out = {
        "products": keyed * ops.macs,
        "pointwise": keyed * ops.simple,
        "special": keyed * ops.special,
        "rounding": keyed * ops.rounded,
        "mask": looked * vectors * (ops.mask_simple - ops.mask_wide + 2),
        "wide mask": looked * vectors * ops.mask_wide,
        "quotients": looked * vectors * ops.mask_quotients,
        "reads": (keyed * ops.reads + looked * vectors * ops.mask_reads) * core.lanes,
        "accumulators": (visits.n_full * per_tile + meetings) * vectors * widths.acc,
        "panels": visits.n_full * per_tile + meetings,
        "masked panels": meetings if looked else 0.0,
        "keys": listed,
        "conversion": listed * widths.key / core.lanes if element < _FP32 else 0.0,
        "queries": float(visits.batch * visits.heads * visits.n_q) * (widths.query + 2 * widths.acc),
        "rows of work": float(tasks),
        "launch": 1.0,
    }
    return out | _memory(visits, widths, core, element, group, per_tile)


def _masked(visits: Visits, per_tile: int, full_pairs: float) -> tuple[float, float, float]:
    """Of tiles with a mask: keys that panels look at, keys that they see, and meetings of a panel and such a tile."""
    meetings = float(visits.n_partial) * per_tile
    every = meetings * visits.keys
    if visits.panel_keys is None:
        return every, _SEEN * every, meetings
    spans, whole = visits.panel_keys
    seen = min(max(spans - full_pairs, 0.0), every)
    if not seen:
        return 0.0, 0.0, 0.0
    met = min(meetings, seen / visits.keys + visits.panels)
    if not visits.in_rows:
        return every, seen, met
    # tiles that lie in what all rows of a panel see are settled without a look, keys outside its runs as well
    return min(seen, max(spans - whole, 0.0) + visits.panels * visits.keys / 2), seen, met


def _memory(
    visits: Visits, widths: RowWidths, core: Core, element: int, group: int, per_tile: int
) -> dict[str, float]:
    """Cache lines that do not come from the first-level cache."""
    panel = core.lanes * VECTORS
    tile = visits.keys * widths.key * _FP32
    scores = (widths.scores + 1) * visits.keys * panel * _FP32
    held = panel * (widths.query + widths.acc) * _FP32
    visited = float(visits.n_full + visits.n_partial)
    near = 0.0
    if per_tile > 1:  # every panel goes through the tile of keys again
        near += per_tile * tile * _beyond(tile + scores + held, core.l1)
    near += per_tile * (held * _beyond(per_tile * held + tile, core.l1) + scores * _beyond(scores, core.l1))
    far = visits.keys * widths.key * element
    # what one row of work goes through before the next of its head comes back to the same keys
    reach = float(np.max(visits.full + visits.partial, initial=0)) * far
    first = visits.batch * visits.heads / group * visits.n_k * widths.key * element
    return {
        "second level": visited * near / _LINE,
        "far keys": min(first + visited * far * _beyond(reach, core.l2), visited * far) / _LINE,
    }


def _beyond(nbytes: float, cache: int) -> float:
    """The part that a cache does not hold, of so many bytes gone through again and again; smooth, not a cliff."""
    return float(np.clip((nbytes - 0.5 * cache) / cache, 0.0, 1.0))
