"""Registers that a program takes beside its tiles, and the configuration that leaves them free.

What does not fit the registers of a thread goes to memory and back in every tile, which costs more than a shorter
tile of keys does. On wide heads accumulators and scores leave little room; what needs some of it is

    finding boxes of coordinates                 a few registers an axis
    quotients of keys by run-time numbers        some for each key of a thread: `k // group`
    a captured tensor read for every pair        an address a pair: `bias[h, q - k]`
    a loop over columns for every pair           what its body holds a pair: `sum[i](w[i] * tanh(X[k, i] + Y[q, i]))`
    a product in fp32                            its rows and keys: no tensor core takes them
    rows computed in fp32                        what they are computed from, of every tile in flight
    several scores                               their tiles live side by side
    scores that no product gives                 a second copy, as the product with the values takes it
"""

from __future__ import annotations

from dataclasses import replace

from attngen.emit.spec import KernelSpec, Target
from attngen.emit.tile import AccDot, Dot, TileLet, TileReduce
from attngen.emit.triton.config import MIN_BLOCK, NARROW, TritonConfig, padded_dim
from attngen.emit.triton.sides import sides
from attngen.lang.expr import Apply, Expr, Load, Param, free_vars, walk
from attngen.lang.program import Program
from attngen.planner.by_rows import divides_keys

# Two programs of eight warps have 128 of the 65,536 registers a thread.
_PAIR_WARPS, _PAIR_REGISTERS = 8, 128
_WIDE = 128
_FEW_ROWS = 64
_ROOMY = "sm_90"  # whose tensor cores read their operands from shared memory
# Where operands of products take registers and ptxas schedules loads early: with 64 keys a tile what is no plain kernel
# spills, with 32 and two tiles in flight some do.
_CRAMPED, _CRAMPED_STAGES = "sm_120", 3


def relieved(
    config: TritonConfig, target: Target, head_dim: int, value_dim: int, program: Program
) -> TritonConfig:
    """The configuration with shorter tiles of keys, or one tile less in flight, where a program needs registers."""
    width = max(padded_dim(head_dim), padded_dim(value_dim))
    if program.grid:  # finding boxes takes the registers that sums in parts would
        config = replace(config, sum_parts=0)
    divides, reads = not program.grid and divides_keys(program.mask), _reads_pairs(program)
    if target.kind != "cuda":
        config = _shorter(config) if divides else config
        few = width > NARROW and divides and _has(program.mask, "mod")
        return replace(config, block_q=min(config.block_q, _FEW_ROWS)) if few else config
    if width <= NARROW:
        if reads and program.grid:
            return replace(_shorter(config), num_stages=min(config.num_stages, 2))
        return _shorter(config) if divides and _has(program.mask, "mod", "or") else config
    if reads and program.grid:
        few = _shorter(config)
        return replace(few, block_q=min(few.block_q, _FEW_ROWS), num_stages=min(few.num_stages, 2))
    if program.grid:
        return _shorter(config) if len(program.grid) > 2 or target.arch != _ROOMY else config
    if divides or reads:
        return _shorter(config)
    return config


def roomier(config: TritonConfig, target: Target, spec: KernelSpec) -> TritonConfig:
    """The configuration with shorter tiles, where the steps of a kernel need registers."""
    if target.kind == "hip":
        return _two_waves(config, spec)
    if target.kind != "cuda":
        return config
    loops = any(isinstance(s, TileReduce) for s in spec.tile.steps)
    dots = sum(isinstance(s, Dot) for s in spec.tile.steps)  # whose tiles live side by side
    if spec.dtype == "float32" and any(s.load is None for s in sides(spec).values()):
        config = replace(config, num_stages=1)
    if target.arch == _CRAMPED and spec.dtype != "float32" and not _asks_little(spec):
        return replace(_shorter(config), num_stages=_CRAMPED_STAGES)
    tight = loops or dots != 1 or _multiplies_fp32(spec) or _computes_narrow(spec) or _is_listed(target, spec)
    return _shorter(config) if tight else config


def _two_waves(config: TritonConfig, spec: KernelSpec) -> TritonConfig:
    """The configuration that leaves two waves on a SIMD of AMD, of 512 registers a lane, where tiles come from lists.

    Places in lists, and what the mask reads a row, put the default tiles just above 256: then a wave waits for its
    loads with nothing beside it.
    """
    if spec.plan.form != "lists" or spec.boxes is not None or spec.dtype == "float32":
        return config
    if config.block_q <= _FEW_ROWS:
        return replace(config, block_k=min(config.block_k, MIN_BLOCK))
    return replace(config, block_q=_FEW_ROWS)


def _is_listed(target: Target, spec: KernelSpec) -> bool:
    """Whether tiles of wide heads come from lists, where accumulators take registers that masks need."""
    wide = any(s.feature.lanes > NARROW for s in sides(spec).values())
    return wide and spec.plan.form == "lists" and spec.boxes is None and target.arch != _ROOMY


def fitted(config: TritonConfig, target: Target, spec: KernelSpec) -> TritonConfig:
    """The configuration that keeps the tensor cores of sm_90 busiest, for a kernel that asks for little besides them.

    On narrow heads exponentials take as long as products do: two programs share a multiprocessor, and those of one
    hide behind those of the other. On wide ones eight warps need 128 rows, or both halves compute the same scores.
    """
    if target.arch != _ROOMY or spec.dtype == "float32" or not _is_plain(spec):
        return config
    width = max(s.feature.lanes for s in sides(spec).values())
    if width <= NARROW and config.num_warps == _PAIR_WARPS and _asks_little(spec):
        return replace(config, num_stages=2, max_registers=_PAIR_REGISTERS)
    if _WIDE < width <= 2 * _WIDE and config.num_warps == _PAIR_WARPS:
        return replace(config, block_q=128)
    return config


def _asks_little(spec: KernelSpec) -> bool:
    """Whether a kernel is plain and bends no scores, and one end of a row's run at most is read or made of values."""
    plan = spec.plan.ranges
    bent = any(
        _has(s.body, "tanh", "sigmoid", "erf", "log") for s in spec.tile.steps if isinstance(s, TileLet)
    )
    ends = plan.rows if plan else ()
    return _is_plain(spec) and not bent and not any(_reads_values(a) and _reads_values(b) for a, b in ends)


def _reads_values(expr: Expr) -> bool:
    return any(isinstance(node, Param | Load) for node in walk(expr))


def _is_plain(spec: KernelSpec) -> bool:
    """Whether a kernel has one score, one accumulator, rows as they lie in memory, and one run of keys a row."""
    plan = spec.plan.ranges
    if plan is None or len(plan.pieces) > 1:
        return False
    dots = sum(isinstance(s, Dot) for s in spec.tile.steps)
    accumulators = sum(c.space == "acc" for c in spec.tile.carried)
    pairs = any(t.rank > 1 for t in spec.tensors) or _reads_pairs(spec.program)
    loaded = all(s.load is not None for s in sides(spec).values())
    return loaded and dots == 1 and accumulators <= 1 and not pairs and not divides_keys(spec.program.mask)


def _computes_narrow(spec: KernelSpec) -> bool:
    """Whether half-precision rows that are computed, fewer than 64 wide, are multiplied after weights.

    With 64 keys a tile such a product came out wrong on sm_90 from Triton 3.6 in some kernels; with 32 in none tried.
    """
    known = sides(spec)
    values = (known[s.value] for s in spec.tile.steps if isinstance(s, AccDot))
    return any(v.load is None and v.dtype != "float32" and v.feature.lanes < NARROW for v in values)


def _multiplies_fp32(spec: KernelSpec) -> bool:
    """Whether a kernel of half precision takes a product in fp32, of captured tensors."""
    wide = any(side.dtype == "float32" for side in sides(spec).values())
    return wide and spec.dtype != "float32"


def _shorter(config: TritonConfig) -> TritonConfig:
    return replace(config, block_k=min(config.block_k, 32))


def _has(mask: Expr | None, *ops: str) -> bool:
    return mask is not None and any(isinstance(n, Apply) and n.op in ops for n in walk(mask))


def _reads_pairs(program: Program) -> bool:
    """Whether a captured tensor is read at an index of both the query and the key."""
    names = {t.name for t in program.tensors}
    bodies = [e.body for e in program.cascade] + ([] if program.mask is None else [program.mask])
    return any(
        isinstance(node, Load) and node.tensor in names and {"q", "k"} <= free_vars(node)
        for body in bodies
        for node in walk(body)
    )
