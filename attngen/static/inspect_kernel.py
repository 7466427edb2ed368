"""Compile a kernel for a target that need not be present, and read from its code what it takes.

KernelSpec, Target  ->  Inspection
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.backends.triton import TritonBackend
from attngen.backends.triton_compile import SOURCE_FILE, Compiled, compile_source
from attngen.emit.configs import Config
from attngen.emit.spec import KernelSpec, Source, Target
from attngen.emit.tile import AccDot, Dot
from attngen.emit.triton.config import padded_dim
from attngen.static.amd import parse_amd, parse_resources
from attngen.static.figures import Block, amd_loops, sass_loops
from attngen.static.labels import loop_lines
from attngen.static.mix import kind_of
from attngen.static.occupancy import cu_occupancy, sm_occupancy
from attngen.static.report import Inspection, LoopFigures, Occupancy
from attngen.static.resources import usage_of
from attngen.static.sass import parse_sass
from attngen.static.tools import run_tool

_KEPT_SHARED = (
    1024  # what cuobjdump lists as a kernel's own from sm_90 on, and CUDA keeps for each thread block
)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a binary says."""

    registers: int
    spill_bytes: int
    spill_instructions: int
    shared_bytes: int
    occupancy: Occupancy
    loops: tuple[LoopFigures, ...]
    accumulation_registers: int = 0
    scalar_registers: int = 0
    scalar_spills: int = 0


def inspect_kernel(spec: KernelSpec, target: Target, config: Config | None = None) -> Inspection:
    """Compile for a target that need not be present, with its default configuration if none is given; read the code.

    Raises CompileError, CompilerNotFoundError, CacheError, UnsupportedError.
    """
    source = TritonBackend().emit(spec, target, config)
    compiled = compile_source(source, spec)
    meta = dict(source.meta)
    block = _block(spec, source, compiled)
    read = _read_cuda(compiled, block) if target.kind == "cuda" else _read_hip(compiled, block)
    return Inspection(
        target=target.arch,
        dtype=spec.dtype,
        registers=read.registers,
        spill_bytes=read.spill_bytes,
        spill_instructions=read.spill_instructions,
        shared_bytes=read.shared_bytes,
        block_q=int(meta["block_q"]),
        block_k=int(meta["block_k"]),
        num_warps=block.num_warps,
        num_stages=int(meta["num_stages"]),
        accumulation_registers=read.accumulation_registers,
        scalar_registers=read.scalar_registers,
        scalar_spills=read.scalar_spills,
        occupancy=read.occupancy,
        loops=read.loops,
    )


def _block(spec: KernelSpec, source: Source, compiled: Compiled) -> Block:
    meta = dict(source.meta)
    return Block(
        arch=source.target.arch,
        # a compiler that adds warps of its own says so
        num_warps=int(compiled.metadata.get("num_warps", meta["num_warps"])),
        macs=tile_macs(spec, int(meta["block_q"]), int(meta["block_k"])),
        lines=loop_lines(source.text),
        file=SOURCE_FILE,
    )


def tile_macs(spec: KernelSpec, block_q: int, block_k: int) -> int:
    """Multiply-adds of the products of one query tile with one key tile, padding of the features included."""
    features: list[str] = []
    carried = {c.name: c.feature for c in spec.tile.carried}
    for step in spec.tile.steps:
        if isinstance(step, Dot):
            features.append(spec.tile.operand(step.left).feature)
        elif isinstance(step, AccDot):
            features.append(carried[step.acc])
    return block_q * block_k * sum(padded_dim(spec.width(feature)) for feature in features)


def _read_cuda(compiled: Compiled, block: Block) -> _Read:
    binary = str(compiled.binary)
    found = usage_of(compiled.binary)
    code = parse_sass(run_tool("nvdisasm", "-c", "-hex", "-g", binary), str(compiled.metadata["name"]))
    shared = int(compiled.metadata.get("shared", 0))
    kept = _KEPT_SHARED if int(block.arch.removeprefix("sm_")) >= 90 else 0
    occupancy = sm_occupancy(
        block.arch,
        registers=found["REG"],
        num_warps=block.num_warps,
        shared_bytes=shared + max(0, found.get("SHARED", 0) - kept),
        tensor_columns=int(compiled.metadata.get("tmem_size") or 0),
    )
    return _Read(
        registers=found["REG"],
        spill_bytes=found.get("STACK", 0) + found.get("LOCAL", 0),
        spill_instructions=sum(kind_of(x) == "spill" for x in code),
        shared_bytes=shared,
        occupancy=occupancy,
        loops=sass_loops(code, block, occupancy),
    )


def _read_hip(compiled: Compiled, block: Block) -> _Read:
    text = compiled.assembly.read_text(encoding="utf-8", errors="replace")
    takes = parse_resources(text)
    shared = max(int(compiled.metadata.get("shared", 0)), takes.group_bytes)
    return _Read(
        registers=takes.vector,
        spill_bytes=takes.private_bytes,
        # scalar registers spill into lanes of vector registers, not to memory, and are not counted
        spill_instructions=takes.vector_spills,
        shared_bytes=shared,
        occupancy=cu_occupancy(
            vector=takes.vector, scalar=takes.scalar, num_warps=block.num_warps, lds_bytes=shared
        ),
        loops=amd_loops(parse_amd(text), block),
        accumulation_registers=takes.accumulation,
        scalar_registers=takes.scalar,
        scalar_spills=takes.scalar_spills,
    )
