"""Lists by key tile from lists by query tile, for kernels that go through the queries of a block of keys.

before   query tile 0: key tiles 0; query tile 1: key tiles 0, 1
after    key tile 0: query tiles 0, 1; key tile 1: query tiles 1
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attngen.planner.plan import BlockLists

Index = NDArray[np.int32]


def transpose(lists: BlockLists) -> BlockLists:
    """The lists of the transposed mask: rows are key tiles, `n_q_tiles` and `n_k_tiles` change places."""
    partial = _by_column(lists, lists.partial_ptr, lists.partial_index)
    full = _by_column(lists, lists.full_ptr, lists.full_index)
    return BlockLists(lists.batch, lists.heads, lists.n_k_tiles, lists.n_q_tiles, *partial, *full)


def _by_column(lists: BlockLists, ptr: Index, index: Index) -> tuple[Index, Index]:
    """Row pointers and indices of the transpose, ascending.

    Each tile is one number, its column above its row. Sorting plain numbers takes a fraction of the time that counting
    places and scattering to them takes in numpy.
    """
    heads, n_rows, n_columns = lists.batch * lists.heads, lists.n_q_tiles, lists.n_k_tiles
    bits = max(n_rows - 1, 1).bit_length()
    wide = heads * n_columns << bits
    dtype = np.int32 if wide <= np.iinfo(np.int32).max else np.int64
    lead, row = np.divmod(np.arange(heads * n_rows, dtype=dtype), dtype(max(n_rows, 1)))
    tiles = np.repeat(lead * dtype(n_columns << bits) + row, np.diff(ptr))
    tiles += index.astype(dtype, copy=False) << bits
    tiles.sort()
    out = np.zeros(heads * n_columns + 1, dtype=np.int32)
    out[1:] = np.searchsorted(tiles, np.arange(1, heads * n_columns + 1, dtype=np.int64) << bits)
    tiles &= dtype((1 << bits) - 1)
    return out, tiles.astype(np.int32, copy=False)
