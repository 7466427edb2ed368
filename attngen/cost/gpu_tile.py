"""Cycles that one tile of keys keeps the units of a GPU busy: read from compiled code if there is some, else counted.

    compiled   `attngen inspect`: the cycles of each unit in each loop, spills and occupancy
    counted    pairs a thread, times the instructions of a pair; loads; what a loop has whatever its tile

Counted instructions are within a few hundredths of those of the static tables, from which the constants come; they
know nothing of spills.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attngen.cost.gpus import GPUS
from attngen.cost.kernel_ops import pair_ops
from attngen.emit.triton.config import SHARED_BYTES, TritonConfig, padded_dim, rows_of_matrix, shared_bytes
from attngen.emit.triton.sides import needs_weights, shared_widths
from attngen.static.inspect_kernel import tile_macs
from attngen.value import value

if TYPE_CHECKING:
    from attngen.emit.spec import KernelSpec, Target
    from attngen.static.report import Inspection

PARTITIONS = 4
# Instructions a pair: additions and products fuse, two weights are rounded by one, a comparison selects as well.
_SIMPLE, _SPECIAL, _ROUNDED = 0.75, 1.0, 0.5
_MASK, _QUOTIENT, _READ = 1.5, 10.0, 8.0
_ROW = 8.0  # instructions of a row: its maximum and its sum across threads, and what they rescale
_ALU = 0.33  # of the instructions of pairs are maxima, conversions and the like
_LOAD, _LOOP = 6.0, 70.0
_MMA_MACS = 2048  # of one warp-level matrix instruction, which comes with half a load of its operands
_REGISTERS, _MOST_REGISTERS = 65536, 255.0  # of a multiprocessor, of a thread


@value
class _Rates:
    """Cycles that a warp's instruction holds a unit, rows of its matrix instruction, and threads that share a row."""

    wave: int
    alu: int
    special: int
    rows: int
    sharing: int


_RATES = {"cuda": _Rates(32, 2, 8, 16, 4), "hip": _Rates(64, 4, 16, 16, 2)}
_QUEUED = ("sm_90", "sm_100", "sm_103")  # matrix instructions of four warps together, which run beside them
_BY_COLUMNS = ("sm_100", "sm_103")  # where warps share the columns of rows that are too few for all
_GROUP = 4


@value
class TileCycles:
    """Cycles of one tile of a program, on a quarter of a multiprocessor.

    partial, full   of a tile with the mask and without, by unit: "issue", "alu", "special", "tensor".
    ctas            programs that a multiprocessor holds at a time; 0 where not one fits.
    spills          bytes a thread keeps in memory for want of registers.
    source          "compiled" or "counted".
    """

    partial: tuple[tuple[str, float], ...]
    full: tuple[tuple[str, float], ...]
    ctas: int
    spills: int
    source: str


def compiled_cycles(found: Inspection) -> TileCycles:
    """The cycles of an inspected kernel: the loop with the mask is the edge's where edges have loops of their own."""
    edge = next((found.loop(n) for n in ("right", "left", "partial") if found.loop(n) is not None), None)
    full = found.loop("full") or edge
    units = ("issue", "alu", "special", "tensor")

    def of(loop: object) -> tuple[tuple[str, float], ...]:
        cycles: Mapping[str, int] = getattr(loop, "cycles", {})
        return tuple((u, float(cycles.get(u, 0))) for u in units)

    return TileCycles(of(edge or full), of(full), found.occupancy.ctas, found.spill_bytes, "compiled")


def counted_cycles(spec: KernelSpec, config: TritonConfig, target: Target) -> TileCycles:
    """The cycles of a kernel that was not compiled."""
    ops, rates = pair_ops(spec), _RATES[target.kind]
    threads = config.num_warps * rates.wave
    # warps beyond those that have rows of a matrix instruction compute what others do
    rows_a_warp = rows_of_matrix(config) if target.kind == "hip" else rates.rows
    same = 1.0 if target.arch in _BY_COLUMNS else max(1.0, config.num_warps * rows_a_warp / config.block_q)
    pairs = same * config.block_q * config.block_k / threads
    rows = same * config.block_q * rates.sharing / threads
    acc = config.block_q * _acc_width(spec) / threads
    macs = float(tile_macs(spec, config.block_q, config.block_k))
    element = 4 if spec.dtype == "float32" else 2
    loads = config.block_k * sum(shared_widths(spec)[:2]) * element / 16 / threads
    vector = pairs * (_SIMPLE * ops.simple + _SPECIAL * ops.special + _ROUNDED * ops.rounded)
    base = vector + acc + _ROW * rows + _LOAD * loads + _LOOP + _READ * ops.reads * pairs
    if spec.dtype == "float32":  # products in fp32 are multiply-adds of every thread
        base, macs = base + macs / threads, 0.0
    elif target.kind == "cuda" and (target.arch not in _QUEUED or config.num_warps < _GROUP):
        base += 1.5 * same * macs / _MMA_MACS / config.num_warps
    mask = pairs * (_MASK * (ops.mask_simple + 1) + _QUOTIENT * ops.mask_quotients + _READ * ops.mask_reads)
    exps = pairs * ops.special + rows
    warps = max(config.num_warps / PARTITIONS, 1.0)
    most = _MOST_REGISTERS * (2 if target.kind == "hip" else 1)
    tensor = macs / GPUS[target.arch].tensor

    def units(instructions: float, light: float) -> tuple[tuple[str, float], ...]:
        issue, alu, special = instructions * warps, rates.alu * light * warps, rates.special * exps * warps
        if target.kind == "hip":  # one vector unit does it all
            issue, alu = 0.0, rates.alu * instructions * warps + special
        return ("issue", issue), ("alu", alu), ("special", special), ("tensor", tensor)

    return TileCycles(
        units(base + mask, _ALU * vector + mask),
        units(base, _ALU * vector),
        _ctas(spec, config, target, pairs / same, acc),
        round(4 * max(_wanted(pairs, acc) - (config.max_registers or most), 0.0)),
        "counted",
    )


def _acc_width(spec: KernelSpec) -> int:
    return sum(padded_dim(spec.width(c.feature)) for c in spec.tile.carried if c.space == "acc")


def _wanted(pairs: float, acc: float) -> float:
    """Registers that a thread would take, if it could have any number: for scores, weights and accumulators."""
    return 48 + 2.5 * pairs + 1.1 * acc


def _ctas(spec: KernelSpec, config: TritonConfig, target: Target, pairs: float, acc: float) -> int:
    """Programs a multiprocessor: by shared memory, and by registers for scores, weights and accumulators."""
    threads = config.num_warps * _RATES[target.kind].wave
    wanted = config.max_registers or min(_MOST_REGISTERS, _wanted(pairs, acc))
    widths, weights = shared_widths(spec), needs_weights(spec, target)
    takes = shared_bytes(config, target, spec.dtype, *widths, with_weights=weights)
    shared = SHARED_BYTES.get(target.arch, 64 << 10) // max(takes, 1)
    return int(min(shared, max(_REGISTERS // (threads * wanted), 1 if shared else 0), 2048 // threads))
