"""What an inspection says. Every figure is of the code as compiled; none is a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attngen.value import value


@value
class Occupancy:
    """How many copies of a kernel's block of threads run on one multiprocessor at a time.

    ctas        thread blocks (AMD: workgroups) on one SM (AMD: compute unit); 0 where one does not fit;
    waves       warps on one of the four sub-partitions of the SM (AMD: waves on one SIMD);
    limited_by  what allows no more, all that tie: "registers", "shared", "warps", "ctas", "tensor memory", and on
                AMD "scalar registers".
    """

    ctas: int
    waves: float
    limited_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoopFigures:
    """One hot loop: an innermost loop with matrix instructions, four exponentials or many multiply-adds.

    label         which loop of the emitted text the debug lines of the code name: over "partial" tiles with all of
                  the mask, the "left" edge or the "right" edge with one side of it, or "full" tiles without any. None
                  where they do not say;
    instructions  a warp issues in one iteration; of a branch inside, both sides are counted;
    mix           the same by kind (`mix.KINDS`, `amd.kind_of`); "mask" holds comparisons, selects and predicates,
                  of which a loop without a mask keeps the few that guard the running maximum;
    matrix        the matrix instructions among them, by full name;
    cycles        each unit is busy with one iteration of one thread block, on one of the four sub-partitions of an
                  SM: "issue" (one instruction a cycle), "tensor", "fma", "alu", "special" (exponentials,
                  reciprocals, conversions of the special-function unit) and "shared" (the shared memory, which is
                  one for the whole SM). AMD: "tensor" (matrix core), "alu" (vector unit, exponentials with it),
                  "special" (exponentials alone) and "shared" (LDS), on one SIMD;
    tile_cycles   tensor cycles that the products of one tile take, each computed once. Fewer than `cycles["tensor"]`
                  where several warps compute the same product, more where they are spread over several loops;
    bound         the unit that is busiest;
    pipe_bound    tensor cycles over cycles of the busiest unit, in 0 to 1: no schedule keeps the tensor cores busier.
                  None for a loop without matrix instructions;
    simulated     tensor cycles over the cycles that an in-order simulation of all resident warps takes
                  (`simulate.py`), in 0 to 1. It ranks kernels of one target; it does not forecast: measured rates
                  are 0.6 to 0.9 of it on an H100, and differences below 0.05 mean nothing. Shared memory never limits
                  it, so it may exceed the pipe bound. None where the tensor cores run beside the warps (sm_100 and
                  sm_103), on AMD, and where no thread block fits.
    """

    label: str | None
    instructions: int
    mix: Mapping[str, int]
    matrix: Mapping[str, int]
    cycles: Mapping[str, int]
    tile_cycles: int
    bound: str
    pipe_bound: float | None
    simulated: float | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """Resources of one kernel, and what its hot loops are made of.

    registers           per thread (NVIDIA) or vector registers per lane, accumulation registers included (AMD);
    spill_bytes         of local memory a thread uses for what did not fit its registers; 0 is what one wants;
    spill_instructions  loads and stores of spilled values in the code (AMD: vector registers spilled);
    shared_bytes        of shared memory (AMD: LDS) a thread block uses;
    block_q, block_k, num_warps, num_stages  the configuration compiled;
    accumulation_registers, scalar_registers, scalar_spills  AMD: per lane, per wave, and scalar registers kept in
                        lanes of vector registers; 0 on NVIDIA;
    occupancy           thread blocks that run at a time, and what limits them;
    loops               in the order of the code.
    """

    target: str
    dtype: str
    registers: int
    spill_bytes: int
    spill_instructions: int
    shared_bytes: int
    block_q: int
    block_k: int
    num_warps: int
    num_stages: int
    accumulation_registers: int
    scalar_registers: int
    scalar_spills: int
    occupancy: Occupancy
    loops: tuple[LoopFigures, ...]

    def loop(self, label: str) -> LoopFigures | None:
        """The first loop of a label: "partial", "left", "full" or "right"."""
        return next((found for found in self.loops if found.label == label), None)
