"""Tile sizes of a CPU kernel.

The number of lanes and the register tile are not configured: the C++ text takes them from the instruction
set it is compiled for, so one text serves every machine.
"""

from __future__ import annotations

from attngen.emit.spec import DType, Target
from attngen.value import value

# Every register tile the text may choose (4, 6 or 8 keys; panels of 8, 16 or 32 queries) divides these.
KEY_STEP = 24
QUERY_STEP = 32

# What one query tile may keep in a core's second-level cache: transposed queries and accumulators in fp32.
QUERY_TILE_BYTES = 192 * 1024
# The same for a key tile: K and V rows in fp32.
KEY_TILE_BYTES = 96 * 1024


@value
class CpuConfig:
    """Rows of a query tile, and keys of a key tile."""

    block_q: int
    block_k: int


def default_config(target: Target, dtype: DType, head_dim: int, value_dim: int) -> CpuConfig:
    """Tiles that fit the caches of any current core; they shrink as the head grows.

    A 16-bit kernel converts each key tile to fp32 once per query tile, so it wants tall query tiles; an fp32
    kernel reads K and V in place and gains nothing beyond 128 rows.
    """
    del target  # every CPU target has caches of about these sizes
    row_bytes = 4 * (head_dim + value_dim)
    tallest = 128 if dtype == "float32" else 256
    block_q = _fit(QUERY_TILE_BYTES // row_bytes, QUERY_STEP, tallest)
    block_k = _fit(KEY_TILE_BYTES // row_bytes, KEY_STEP, 4 * KEY_STEP)
    return CpuConfig(block_q, block_k)


def _fit(count: int, step: int, largest: int) -> int:
    """The largest multiple of `step` that is at most `count` and `largest`, but at least one step."""
    return max(step, min(count, largest) // step * step)
