"""Which tiles of a schedule hold a kept pair, found by looking at every pair: what a schedule is judged by.

For pages and tests. The cost is that of the mask on all pairs of tokens of all heads; no call of a kernel comes here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attngen.eager import evaluate_with_torch
from attngen.lang.desugar import desugar_expr
from attngen.lang.domain import size_param, without_coordinates
from attngen.lang.expr import Param

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attngen.lang.program import Program
    from attngen.planner.schedule import Schedule

EMPTY, PARTIAL, FULL = 0, 1, 2


def kept_pairs(
    program: Program, values: Mapping[str, Any], n_q: int, n_k: int, batch: int = 1, heads: int = 1
) -> torch.Tensor:
    """The mask on every pair, bool `[batch, heads, n_q, n_k]`.

    `values` holds parameters as numbers and captured tensors; defaults fill in what it leaves out. Raises
    MissingTensorError for a value that is nowhere.
    """
    shape = (batch, heads, n_q, n_k)
    if program.mask is None:
        return torch.ones(shape, dtype=torch.bool)
    known = {p.name: p.default for p in program.params if p.default is not None} | dict(values)
    b, h, q, k = (
        torch.arange(n).reshape([-1 if i == at else 1 for i in range(4)]) for at, n in enumerate(shape)
    )
    sizes = {"n_q": n_q, "n_k": n_k, "n_b": batch, "n_h": heads}
    expr = desugar_expr(without_coordinates(program.mask, program.grid))
    kept = evaluate_with_torch(expr, {"b": b, "h": h, "q": q, "k": k}, known, sizes)
    return torch.as_tensor(kept).broadcast_to(shape)


def tiles_needed(program: Program, schedule: Schedule, values: Mapping[str, Any]) -> NDArray[np.int8]:
    """The classes of the tiles of `schedule`, int8 `[batch, heads, q tiles, k tiles]`: 0 empty, 1 partial, 2 full.

    A tile is needed if it is not empty. One that overhangs the keys is at most partial, as in a schedule.
    """
    s = schedule
    kept = kept_pairs(program, values, s.n_q, s.n_k, s.batch, s.heads)
    of_q, of_k = (torch.from_numpy(tile_of_tokens(program, s, values, rank)) for rank in ("q", "k"))
    shape = (s.batch, s.heads, s.n_q_tiles, s.n_k_tiles)
    rows = torch.zeros((s.batch, s.heads, s.n_q_tiles, s.n_k), dtype=torch.int64)
    rows.index_add_(2, of_q, kept.long())
    counts = torch.zeros(shape, dtype=torch.int64).index_add_(3, of_k, rows).numpy()
    sizes = torch.bincount(of_q, minlength=s.n_q_tiles), torch.bincount(of_k, minlength=s.n_k_tiles)
    q_size, k_size = (x.numpy() for x in sizes)
    lanes = s.block_k if s.boxes is None else s.boxes.volume("k")
    full = (counts == q_size[:, None] * k_size) & (counts > 0) & (k_size == lanes)
    return np.where(full, FULL, np.where(counts > 0, PARTIAL, EMPTY)).astype(np.int8)


def tile_of_tokens(
    program: Program, schedule: Schedule, values: Mapping[str, Any], rank: str
) -> NDArray[np.int64]:
    """The number of the tile that each token of rank "q" or "k" lies in, int64 `[n]`.

    A grid's axis that is split in residue classes (`y_residue`, `y_step`) is taken apart as its mask does.
    """
    n = schedule.n_q if rank == "q" else schedule.n_k
    token = np.arange(n, dtype=np.int64)
    if schedule.boxes is None:
        return token // (schedule.block_q if rank == "q" else schedule.block_k)
    coordinates = _coordinates(program, values, token)
    counts = schedule.tile_grid[0 if rank == "q" else 1]
    out = np.zeros(n, dtype=np.int64)
    for shape, count in zip(schedule.boxes.shapes, counts, strict=True):
        box = shape.q if rank == "q" else shape.k
        out = out * count + (coordinates[shape.axis] + shape.origin) // box
    return out


def _coordinates(
    program: Program, values: Mapping[str, Any], token: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """Every coordinate that a layout of this program may tile, by name."""
    from attngen.planner.split import split

    known = {p.name: p.default for p in program.params if p.default is not None} | dict(values)
    out: dict[str, NDArray[np.int64]] = {}
    rest = token
    for at, axis in reversed(list(enumerate(program.grid))):
        size = int(known[size_param(axis)])
        out[axis] = rest % size if at else rest  # the slowest axis goes on beyond the grid
        rest = rest // size
    found = split(program)
    for mask in () if found is None else found.axes:
        if mask.group is not None and mask.axis in out:
            divisor = mask.divisor
            d = int(known[divisor.name]) if isinstance(divisor, Param) else int(getattr(divisor, "value", 1))
            out[mask.group], out[mask.tiled] = out[mask.axis] % d, out[mask.axis] // d
    return out
