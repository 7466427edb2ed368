"""The columns in which people read an inspection; the command line and the tables of `benchmarks/` share them.

Inspection  ->  rows of text, the first of them a header
"""

from __future__ import annotations

from collections.abc import Mapping

from attngen.static.amd import VECTOR
from attngen.static.report import Inspection, LoopFigures, Occupancy

Columns = Mapping[str, tuple[str, ...]]

NVIDIA_COLUMNS: Columns = {
    "mma": ("mma",),
    "exp2": ("exp2",),
    "ffma": ("ffma",),
    "fmul": ("fmul",),
    "fadd": ("fadd",),
    "fmax": ("fmax",),
    "mask": ("mask",),
    "int": ("int",),
    "uniform": ("uniform",),
    "copy": ("async_copy", "tma"),
    "lds/sts": ("lds", "sts", "ldsm"),
    "shuffle": ("shuffle",),
    "global": ("global",),
    "sync": ("sync",),
    "branch": ("branch",),
    "spill": ("spill",),
}
AMD_COLUMNS: Columns = {
    "mfma": ("mma",),
    "valu": VECTOR,
    "exp": ("exp2",),
    "mask": ("mask",),
    "lds": ("lds", "cross_lane"),
    "global": ("global",),
    "scalar": ("scalar", "scalar_load"),
    "wait": ("wait",),
    "barrier": ("barrier",),
    "branch": ("branch",),
    "spill": ("spill",),
}
_UNITS = ("tensor", "issue", "alu", "fma", "special", "shared")


def is_amd(target: str) -> bool:
    """Whether a target's figures are those of AMD."""
    return target.startswith("gfx")


def occupancy_text(found: Occupancy, target: str) -> str:
    """`1 CTA on an SM, 2 warps on a sub-partition; no more for registers, shared`."""
    group, on = ("workgroup", "a compute unit") if is_amd(target) else ("CTA", "an SM")
    wave, part = ("wave", "a SIMD") if is_amd(target) else ("warp", "a sub-partition")
    many = "" if found.ctas == 1 else "s"
    waves = "" if found.waves == 1 else "s"
    limits = ", ".join(found.limited_by)
    return (
        f"{found.ctas} {group}{many} on {on}, {found.waves:g} {wave}{waves} on {part}; no more for {limits}"
    )


def instruction_rows(found: Inspection) -> list[list[str]]:
    """Instructions of a warp in one iteration of each hot loop, by kind."""
    table = AMD_COLUMNS if is_amd(found.target) else NVIDIA_COLUMNS
    rows = [["loop", "instructions", *table]]
    for loop in found.loops:
        counts = [str(counted(loop, kinds)) for kinds in table.values()]
        rows.append([loop.label or "?", str(loop.instructions), *counts])
    return rows


def cycle_rows(found: Inspection) -> list[list[str]]:
    """Cycles of each unit for one iteration of one thread block, the busiest, and the shares of the tensor cores."""
    units = [u for u in _UNITS if any(u in loop.cycles for loop in found.loops)]
    rows = [["loop", "tile", *units, "busiest", "pipe bound", "simulated"]]
    for loop in found.loops:
        cycles = [str(loop.cycles.get(u, "")) for u in units]
        shares = [share_text(loop.pipe_bound), share_text(loop.simulated)]
        rows.append([loop.label or "?", str(loop.tile_cycles), *cycles, loop.bound, *shares])
    return rows


def counted(loop: LoopFigures, kinds: tuple[str, ...]) -> int:
    """Instructions of some kinds."""
    return sum(loop.mix.get(kind, 0) for kind in kinds)


def share_text(share: float | None) -> str:
    """A share with two digits, or a dash."""
    return "-" if share is None else f"{share:.2f}"
