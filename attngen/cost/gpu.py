"""Seconds of a launch of a Triton kernel: cycles of its tiles, shared by multiprocessors, against bytes to be moved.

a tile        units of a multiprocessor partly work beside each other: each unit's cycles times a fitted share
a row         its tiles with the mask and without, and what begins and ends a row
the launch    rows, as programs become free for them: whole waves and their tails
memory        keys and values of every tile come from the second-level cache, of every head once from memory
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from attngen.cost.balance import imbalance, in_launch_order
from attngen.cost.estimate import Estimate
from attngen.cost.gpus import GPUS, L2_BYTES_A_CYCLE, Gpu
from attngen.cost.kernel_ops import row_widths
from attngen.cost.prices import prices

if TYPE_CHECKING:
    from attngen.cost.gpu_tile import TileCycles
    from attngen.cost.visits import Visits
    from attngen.emit.spec import KernelSpec, Target
    from attngen.emit.triton.config import TritonConfig

_BEGIN_CYCLES = 2500  # to begin and to end a row: addresses, queries, results
_LAUNCH_S = 4e-6
_NEAR_CYCLES, _FAR_CYCLES = 300, 800  # until a tile is there, from the second-level cache and from memory
_SPILL_CYCLES = 2  # a byte that a thread spills, in every tile: a store and a load of a warp each 4 bytes
_FITTED = {"sm_90": "tile sm_90"}
_OTHER = "tile sm_80"  # matrix instructions that a warp waits for


def gpu_estimate(
    spec: KernelSpec,
    config: TritonConfig,
    target: Target,
    visits: Visits,
    cycles: TileCycles,
    *,
    group: int,
    gpu: Gpu | None = None,
) -> Estimate | None:
    """The prediction for one configuration; None where a program does not fit a multiprocessor."""
    gpu = gpu or GPUS[target.arch]
    if cycles.ctas < 1:
        return None
    widths, element = row_widths(spec), 4 if spec.dtype == "float32" else 2
    heads = visits.batch * visits.heads
    tile_bytes = visits.keys * widths.key * element
    keys = heads / group * visits.n_k * widths.key * element
    is_near = keys / max(heads / group, 1) < gpu.cache and visits.full.shape[2] * group > 1
    waiting = (_NEAR_CYCLES if is_near else _FAR_CYCLES) / max(config.num_stages - 1, 1) / cycles.ctas
    partial, full = (_cycles(dict(u), target) + waiting for u in (cycles.partial, cycles.full))
    spilled = _SPILL_CYCLES * cycles.spills * config.num_warps / 4
    rows = np.asarray(visits.partial * (partial + spilled) + visits.full * (full + spilled), dtype=np.float64)
    begun = _BEGIN_CYCLES / cycles.ctas
    work = in_launch_order(rows + begun, longest_first=spec.ordered)
    units = gpu.units if work.size <= gpu.units else gpu.units * cycles.ctas
    uneven = imbalance(work, units)
    second = 1 / gpu.hertz / gpu.units
    visited = float(visits.n_partial + visits.n_full)
    rest = heads * visits.n_q * (widths.query + widths.acc) * element
    parts = {
        "tiles without a mask": visits.n_full * full * second,
        "tiles with the mask": visits.n_partial * partial * second,
        "spills": visited * spilled * second,
        "rows begun": work.size * begun * second,
        "second-level cache": visited * tile_bytes / (L2_BYTES_A_CYCLE * gpu.units * gpu.hertz),
        "memory": (keys + rest) / gpu.memory,
        "launch": _LAUNCH_S,
    }
    computed = sum(parts[n] for n in ("tiles without a mask", "tiles with the mask", "spills", "rows begun"))
    seconds = max(computed * uneven, parts["second-level cache"], parts["memory"]) + _LAUNCH_S
    facts = {
        "rows of work": float(work.size),
        "programs a unit": float(cycles.ctas),
        "waves": work.size / (gpu.units * cycles.ctas),
        "imbalance": uneven,
    }
    return Estimate(config, seconds, {n: p for n, p in parts.items() if p > 0}, facts)


def _cycles(units: Mapping[str, float], target: Target) -> float:
    """Cycles of a tile: no fewer than those of its busiest unit."""
    price = prices(_FITTED.get(target.arch, _OTHER))
    return max(*units.values(), sum(price[name] * amount for name, amount in units.items()))
