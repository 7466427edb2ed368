"""Tile sizes of a CPU kernel.

The number of lanes and the register tile are not configured: the C++ text takes them from the instruction
set it is compiled for, so one text serves every machine.
"""

from __future__ import annotations

from math import lcm
from typing import TYPE_CHECKING

from attngen.value import value

if TYPE_CHECKING:  # a process that only reopens cached kernels needs none of these
    from attngen.emit.spec import DType, KernelSpec, Target

# Every register tile the text may choose (4, 6 or 8 keys; panels of 8, 16 or 32 queries) divides these.
KEY_STEP = 24
QUERY_STEP = 32

# What one query tile may keep in a core's second-level cache: transposed queries and accumulators in fp32.
QUERY_TILE_BYTES = 192 * 1024
# The same for a key tile: K and V rows in fp32.
KEY_TILE_BYTES = 96 * 1024


@value
class CpuConfig:
    """Rows of a query tile, keys of a key tile, and threads of a launch; 0 threads: as many as the settings say."""

    block_q: int
    block_k: int
    threads: int = 0


def config_of(spec: KernelSpec, target: Target) -> CpuConfig:
    """The tile sizes of a kernel: what it keeps a query and what it keeps a key decide."""
    from attngen.emit.tile import StoreBlock

    tile = spec.tile
    query = [o.feature for o in tile.operands if o.row == "q"]
    query += [c.feature for c in tile.carried if c.space == "acc"]
    key = [o.feature for o in tile.operands if o.row == "k"]
    blocks = lcm(*(s.width for s in tile.steps if isinstance(s, StoreBlock)))
    widths = sum(map(spec.width, query)), sum(map(spec.width, key))
    return default_config(target, spec.dtype, *widths, blocks)


def of_boxes(config: CpuConfig, spec: KernelSpec) -> CpuConfig:
    """The configuration with room for every token of the boxes of a kernel: its text sizes its memory by that."""
    if spec.boxes is None:
        return config
    q, k = spec.boxes.volume("q"), spec.boxes.volume("k")
    block_q = max(config.block_q, -(-q // QUERY_STEP) * QUERY_STEP)
    block_k = config.block_k if k <= config.block_k else -(-k // KEY_STEP) * KEY_STEP
    return CpuConfig(block_q, block_k, config.threads)


def default_config(
    target: Target, dtype: DType, query_width: int, key_width: int, blocks: int = 1
) -> CpuConfig:
    """Tiles that fit the caches of any current core; they shrink as the rows of a query and of a key grow.

    A 16-bit kernel converts each key tile to fp32 once per query tile, so it wants tall query tiles; an fp32
    kernel reads K and V in place and gains nothing beyond 128 rows. A tile holds whole blocks of `blocks` keys.
    """
    del target  # every CPU target has caches of about these sizes
    tallest = 128 if dtype == "float32" else 256
    block_q = _fit(QUERY_TILE_BYTES // max(4 * query_width, 1), QUERY_STEP, tallest)
    block_k = _fit(KEY_TILE_BYTES // max(4 * key_width, 1), KEY_STEP, 4 * KEY_STEP)
    return CpuConfig(block_q, block_k if block_k % blocks == 0 else _fit(block_k, blocks, 4 * KEY_STEP))


def _fit(count: int, step: int, largest: int) -> int:
    """The largest multiple of `step` that is at most `count` and `largest`, but at least one step."""
    return max(step, min(count, largest) // step * step)
