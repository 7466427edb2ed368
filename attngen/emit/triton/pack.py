"""Whether a tile of queries may hold rows of all query heads of a key head, and when a call is better off so.

    4 query heads a key head, 1 query, tiles of 128 rows    4 tiles of 128 rows, of which 1 counts
->
    packed                                                  1 tile of 16 rows, of which 4 count

A packed tile walks the keys of its key head once, for all of its query heads. So every head must visit the same tiles
of keys and read the same rows there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from attngen.emit.triton.config import MIN_BLOCK, TritonConfig, lanes
from attngen.errors import UnsupportedError

if TYPE_CHECKING:
    from attngen.emit.spec import DType, KernelSpec

WIDEST = 256  # rows of a tile, and queries of a call that any default tile pads by half
# On tensor cores a product gives each warp 16 rows: more warps compute the same again. Fewer than four have too few
# registers for the accumulator of a wide head, unless there are hardly any pairs a thread.
_WARP_ROWS, _FEW_WARPS = 16, 4
_WARP_PAIRS = 8 * 32


def packs(spec: KernelSpec) -> bool:
    """Whether the kernel may be packed."""
    return not _obstacle(spec)


def check_packs(spec: KernelSpec) -> None:
    """Raise UnsupportedError, with the reason, for a kernel that may not be packed."""
    obstacle = _obstacle(spec)
    if obstacle:
        raise UnsupportedError(
            f"{spec.program.name}: tiles cannot hold rows of several heads, since {obstacle}",
            hint="take a configuration with pack_heads=False",
        )


def few_rows(n_q: int, group: int) -> int:
    """The rows of a tile that holds those of all query heads, at most 256; 0 where heads or queries ask for none.

    Calls of one value and one bucket of lengths take the same configuration from `packed`.
    """
    if group < 2 or n_q > WIDEST // 2:
        return 0
    return min(lanes(n_q * group), WIDEST)


def roomy(config: TritonConfig, spec: KernelSpec) -> TritonConfig:
    """The configuration without a limit on registers where each row of a packed tile holds values of its own head."""
    from attngen.lang.expr import free_vars

    loaded = {o.body for o in spec.tile.operands}
    varies = any("h" in free_vars(body) for body in spec.tile.bodies() if body not in loaded)
    return replace(config, max_registers=0) if varies else config


def packed(config: TritonConfig, dtype: DType, n_q: int, group: int) -> TritonConfig | None:
    """The packed variant of a default configuration, where a tile of one head would be half padding; else None.

    With tiles of M rows and at most M / 2 queries, G heads take G tiles. Packed they take one tile of fewer than
    2 * n_q * G rows if M rows hold them all, and ceil(n_q * G / M) <= ceil(G / 2) tiles of M if not: at no shape more,
    and from 2 heads on half of the tiles or a third less. Where M is 16 they are never more than G tiles.
    """
    if not few_rows(n_q, group) or n_q > max(config.block_q // 2, MIN_BLOCK):
        return None
    rows = min(few_rows(n_q, group), config.block_q)
    warps = config.num_warps
    if dtype != "float32":
        warps = min(warps, max(rows // _WARP_ROWS, _FEW_WARPS))
        while warps > 1 and rows * config.block_k < _WARP_PAIRS * warps:
            warps //= 2
    registers = config.max_registers if warps == config.num_warps else 0
    return replace(config, block_q=rows, num_warps=warps, max_registers=registers, pack_heads=True)


def _obstacle(spec: KernelSpec) -> str:
    """What stands against packing a kernel; empty where nothing does."""
    from attngen.emit.triton.sides import INPUT_AXES, rows_are_keys
    from attngen.lang.expr import Var, free_vars, loads

    mask, tile = spec.program.mask, spec.tile
    if spec.plan.boxes is not None:
        return "they are boxes of coordinates"
    if spec.plan.form == "lists":  # built for whole tiles of the queries of one head
        return "lists say which keys each tile of one head visits"
    if mask is not None and free_vars(mask) & {"h", "g"}:
        return "heads do not visit the same keys"
    if rows_are_keys(tile):
        return "its rows are keys"
    if any("h" in free_vars(o.body) for o in tile.operands if o.row == "k"):
        return "heads do not read the same rows of keys"
    own = {"Q": (Var("b"), Var("h"))}
    read = (load for body in tile.bodies() for load in loads(body) if load.tensor in INPUT_AXES)
    if any(load.indices[:2] != own.get(load.tensor, (Var("b"), Var("g"))) for load in read):
        return "it reads another head than its own"
    return ""
