"""Tile sizes and launch options of a Triton kernel, per machine: a default that fits and does not spill."""

from __future__ import annotations

from dataclasses import dataclass, replace

from attngen.emit.spec import DType, Target

MIN_BLOCK = 16
_MIN_DIM = 16

# Shared memory one program may take, in bytes (the architecture's opt-in limit).
SHARED_BYTES = {
    "sm_80": 163 << 10,
    "sm_86": 99 << 10,
    "sm_89": 99 << 10,
    "sm_90": 227 << 10,
    "sm_100": 227 << 10,
    "sm_103": 227 << 10,
    "sm_120": 99 << 10,
    "gfx90a": 64 << 10,
    "gfx942": 64 << 10,
}
# Where scores leave the tensor core a row a thread, so that nothing is added across threads.
_WITHOUT_LANES = ("sm_100", "sm_103")
# Where a third tile in flight of wide heads, and sums in parts, take registers that accumulators need.
_SHORT_OF_REGISTERS = ("sm_80", "sm_86", "sm_89", "sm_120")
# Whose matrix instructions are done when a warp goes on, so that the next tile takes the place of the last.
_IN_ORDER = ("sm_80", "sm_86", "sm_89", "sm_120")
NARROW = 64  # heads up to this width leave room for anything
_MATRIX_ROWS = (16, 32)  # of the matrix instructions of AMD
_LEAST_ROWS = 16  # that a warp takes of a tile
_DESCRIBED_BYTES = 1 << 10  # barriers of tiles that come by descriptors, and what aligns them
_SMALLEST_SHARED = 64 << 10


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """How a kernel is cut and launched: one point of the space that is searched.

    block_q, block_k  rows of a query tile, keys of a key tile; of boxes the tokens they may hold.
    num_warps         warps of a program.
    num_stages        key tiles in flight.
    max_registers     registers a thread may take; 0 leaves that to the assembler. NVIDIA only.
    matrix_rows       rows of a matrix instruction, 16 or 32; 0 leaves that to Triton. AMD only.
    waves_per_eu      waves that a SIMD shall hold, which limits registers; 0 leaves that to LLVM. AMD only.
    one_sided         whether tiles at one edge of a run of keys have a loop of their own, which tests that edge only.
    sum_parts         parts in which sums of a row stay until the last tile; 0 adds them up in every tile.
    descriptors       whether tiles in a row are read through tensor descriptors.
    warp_specialize   whether Triton may split such loops into warps that load and warps that compute.
    persistent        programs a multiprocessor that take one tile of queries after the other; 0 launches one a tile.
    pack_heads        whether a tile of queries holds rows of all heads of a key head; not every kernel may (`pack`).
    """

    block_q: int
    block_k: int
    num_warps: int
    num_stages: int
    max_registers: int = 0
    matrix_rows: int = 0
    waves_per_eu: int = 0
    one_sided: bool = True
    sum_parts: int = 0
    descriptors: bool = False
    warp_specialize: bool = False
    persistent: int = 0
    pack_heads: bool = False


def padded_dim(dim: int) -> int:
    """The width a tile has for `dim` features: a power of two, at least what a dot product needs."""
    return max(_MIN_DIM, 1 << (dim - 1).bit_length())


def lanes(volume: int) -> int:
    """The lanes a tile of `volume` tokens takes: the next power of two."""
    return max(MIN_BLOCK, 1 << (volume - 1).bit_length())


def default_config(target: Target, dtype: DType, head_dim: int, value_dim: int) -> TritonConfig:
    """A configuration that always fits: tiles and stages shrink until the shared memory does.

    Wide heads take fewer rows, so that accumulators stay in registers; fp32 has no exact tensor-core form, so its tiles
    are those of an FMA kernel.
    """
    width = max(padded_dim(head_dim), padded_dim(value_dim))
    if target.kind == "cpu":
        # the interpreter, which runs what a GPU runs
        return TritonConfig(block_q=64, block_k=64, num_warps=4, num_stages=1, sum_parts=8)
    if target.kind == "hip":
        config = _hip_fp32(width) if dtype == "float32" else _hip(width)
    elif dtype == "float32":
        config = _fp32(width)
    else:
        config = _cuda(width)
        if target.arch in _WITHOUT_LANES:
            config = replace(config, sum_parts=0)
        if target.arch in _SHORT_OF_REGISTERS and width > NARROW:
            config = replace(config, num_stages=2, sum_parts=0)
    limit = SHARED_BYTES.get(target.arch, _SMALLEST_SHARED)
    return _shrink(config, target, dtype, padded_dim(head_dim), padded_dim(value_dim), limit)


def _cuda(width: int) -> TritonConfig:
    if width <= 128:
        return TritonConfig(block_q=128, block_k=64, num_warps=8, num_stages=3, sum_parts=8)
    if width <= 256:
        return TritonConfig(block_q=64, block_k=32, num_warps=8, num_stages=2)
    return TritonConfig(block_q=32, block_k=32, num_warps=8, num_stages=2)


def _hip(width: int) -> TritonConfig:
    """Two workgroups a compute unit, each warp with the rows of one matrix instruction at least."""
    if width <= NARROW:
        return TritonConfig(block_q=128, block_k=64, num_warps=4, num_stages=1)
    if width <= 128:
        return TritonConfig(block_q=128, block_k=32, num_warps=4, num_stages=1)
    return TritonConfig(block_q=64, block_k=32, num_warps=4, num_stages=1)


def _hip_fp32(width: int) -> TritonConfig:
    """Matrix instructions of AMD take fp32 as it is, if slowly: every warp has the rows of one."""
    if width <= NARROW:
        return TritonConfig(block_q=64, block_k=32, num_warps=4, num_stages=1)
    if width <= 128:
        return TritonConfig(block_q=64, block_k=16, num_warps=4, num_stages=1)
    return TritonConfig(block_q=32, block_k=16, num_warps=2, num_stages=1)


def _fp32(width: int) -> TritonConfig:
    if width <= 64:
        return TritonConfig(block_q=64, block_k=32, num_warps=8, num_stages=2)
    if width <= 128:
        return TritonConfig(block_q=32, block_k=32, num_warps=8, num_stages=2)
    return TritonConfig(block_q=16, block_k=16, num_warps=8, num_stages=1)


def _shrink(
    config: TritonConfig, target: Target, dtype: DType, head: int, value: int, limit: int
) -> TritonConfig:
    """Fewer stages first, then fewer keys, then fewer rows, until the estimate fits."""
    q, k, stages = config.block_q, config.block_k, config.num_stages
    while shared_bytes(TritonConfig(q, k, config.num_warps, stages), target, dtype, head, value) > limit:
        if stages > 2:
            stages -= 1
        elif k > MIN_BLOCK:
            k //= 2
        elif stages > 1:
            stages -= 1
        elif q > MIN_BLOCK:
            q //= 2
        else:
            break
    return replace(config, block_q=q, block_k=k, num_stages=stages)


def fewer_stages(
    config: TritonConfig, target: Target, dtype: DType, head_dim: int, value_dim: int, pairs: int = 0
) -> TritonConfig:
    """The configuration with fewer tiles in flight, until they fit; the tiles themselves are given."""
    limit = SHARED_BYTES.get(target.arch, _SMALLEST_SHARED)
    while config.num_stages > 1 and shared_bytes(config, target, dtype, head_dim, value_dim, pairs) > limit:
        config = replace(config, num_stages=config.num_stages - 1)
    return config


def rows_of_matrix(config: TritonConfig) -> int:
    """Rows of the matrix instruction that Triton takes on AMD: of its own the largest that a tile of scores holds."""
    least = min(config.block_q, config.block_k)
    return config.matrix_rows or max((r for r in _MATRIX_ROWS if r <= least), default=_MATRIX_ROWS[0])


def with_matrix_rows(config: TritonConfig, target: Target) -> TritonConfig:
    """The configuration with the matrix instruction that leaves every warp rows of its own.

    Triton gives each warp of a chain of two products a slice of the rows. Where a slice is shorter than an instruction,
    several warps compute the same scores, and the weights go through shared memory to the second product.
    """
    if (
        target.kind != "hip"
        or config.matrix_rows
        or config.num_warps * rows_of_matrix(config) <= config.block_q
    ):
        return config
    return replace(config, matrix_rows=_MATRIX_ROWS[0])


def shared_bytes(
    config: TritonConfig,
    target: Target,
    dtype: DType,
    head: int,
    value: int,
    pairs: int = 0,
    *,
    with_weights: bool = True,
) -> int:
    """An upper estimate.

    The query tile, the key and value tiles of every stage, the weights of one tile and a number for each part of a
    row; `pairs` elements are read for each pair of a tile in flight. One stage less where matrix instructions take
    operands from registers. On AMD the query tile goes through shared memory to registers before the first key and
    outputs after the last; with one stage, a tile of keys or of values lies there at a time.

    Weights of half precision stay in registers on NVIDIA's tensor cores wherever their layouts agree: the estimate
    without them is what a kernel takes at least.
    """
    size = 4 if dtype == "float32" else 2
    rows, keys = config.block_q * head, config.block_k * (head + value + config.block_q * pairs)
    parts = max(2, _LEAST_ROWS * config.num_warps // config.block_q)  # of a row, in warps side by side
    weights = config.block_q * ((config.block_k if with_weights else 0) + parts * 4 // size)
    if target.kind == "hip":
        held = (config.num_stages - 1) * keys or config.block_k * (max(head, value) + config.block_q * pairs)
        return size * max(rows, config.block_q * value, held + weights)
    stages = config.num_stages
    if target.arch in _IN_ORDER and dtype != "float32" and not config.descriptors:
        stages = max(stages - 1, 1)
    return size * (rows + weights + stages * keys) + (_DESCRIBED_BYTES if config.descriptors else 0)
