"""From the code of a kernel to the figures of its hot loops.

SASS or AMD instructions, thread block, occupancy  ->  (LoopFigures, ...)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from attngen.static import amd, mix
from attngen.static.labels import label_of
from attngen.static.loops import hot_loops
from attngen.static.report import LoopFigures, Occupancy
from attngen.static.sass import Instruction
from attngen.static.simulate import simulated_score
from attngen.value import value


@value
class Block:
    """A kernel as it is launched on a target.

    num_warps  of a thread block;
    macs       multiply-adds of one tile of keys, for code that does not tell (0: not known);
    lines      those of the labelled loops in the text `file`.
    """

    arch: str
    num_warps: int
    macs: int
    lines: Mapping[str, range]
    file: str


def sass_loops(code: Sequence[Instruction], block: Block, occupancy: Occupancy) -> tuple[LoopFigures, ...]:
    """The hot loops of SASS."""

    def figures(at: Sequence[int]) -> LoopFigures:
        body = [code[i] for i in at]
        costs = [mix.cost_of(x, block.arch) for x in body]
        warps = max(1, block.num_warps // mix.PARTITIONS)
        kinds = [c.kind for c in costs]
        return _loop(
            block,
            kinds,
            [(x.opcode, x.source) for x in body],
            mix.cycles_of(costs, block.arch, warps, block.macs if "mma" in kinds else 0),
            mix.tile_cycles(body, block.arch, block.macs),
            simulated_score(body, costs, occupancy.ctas, warps),
        )

    flow = [x.jump for x in code]
    return tuple(figures(at) for at in hot_loops(flow, lambda at: mix.is_hot([code[i] for i in at])))


def amd_loops(code: Sequence[amd.AmdInstruction], block: Block) -> tuple[LoopFigures, ...]:
    """The hot loops of AMD assembly."""

    def figures(at: Sequence[int]) -> LoopFigures:
        body = [code[i] for i in at]
        kinds = [amd.kind_of(x) for x in body]
        cycles = amd.cycles_of(body, block.arch, block.num_warps)
        tile = amd.tile_cycles(body, block.arch, block.macs)
        return _loop(block, kinds, [(x.opcode, x.source) for x in body], cycles, tile, None)

    flow = [x.jump for x in code]
    return tuple(figures(at) for at in hot_loops(flow, lambda at: amd.is_hot([code[i] for i in at])))


def _loop(
    block: Block,
    kinds: Sequence[str],
    code: Sequence[tuple[str, tuple[str, int] | None]],
    cycles: Mapping[str, int],
    tile_cycles: int,
    simulated: float | None,
) -> LoopFigures:
    busiest = max(cycles, key=lambda unit: cycles[unit])
    tensor = cycles["tensor"]
    return LoopFigures(
        label=label_of([source for _, source in code], block.lines, block.file),
        instructions=len(code),
        mix=_counted(kinds),
        matrix=_counted([opcode for kind, (opcode, _) in zip(kinds, code, strict=True) if kind == "mma"]),
        cycles=cycles,
        tile_cycles=tile_cycles,
        bound=busiest,
        pipe_bound=round(tensor / cycles[busiest], 3) if tensor else None,
        simulated=None if simulated is None else round(simulated, 3),
    )


def _counted(names: Sequence[str]) -> dict[str, int]:
    """How often each occurs, the most frequent first."""
    return dict(Counter(names).most_common())
