"""Masks as other systems write them, as masks here: nothing has to be rewritten to move.

    dense boolean tensors         scaled_dot_product_attention            from_dense
    maps of blocks                MInference, Sparge, Block-Sparse-Attention   from_blocks
    `BlockMask`                   FlexAttention                           from_block_mask
    column intervals              FlashMask (arXiv:2410.01359)            from_intervals
    typed rectangles              MagiAttention                           from_slices

Tensors stay where they are, and are read by the kernel: other values in them compile nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attngen.capture import Mask, mask
from attngen.errors import DTypeError, HeadCountError, ParameterError, ProgramTypeError, ShapeError
from attngen.lang.trace import pos

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

__all__ = ["from_block_mask", "from_blocks", "from_dense", "from_intervals", "from_slices"]

_AXES = {2: ("q", "k"), 3: ("b", "q", "k"), 4: ("b", "h", "q", "k")}
_TYPES = ("full", "causal", "inv_causal", "bi_causal")


def from_dense(allowed: Tensor) -> Mask:
    """The mask of a boolean tensor [N, M], [B, N, M] or [B, H, N, M]: True where a pair is kept.

    The convention of `scaled_dot_product_attention`. An axis of length 1 holds for every index. Raises DTypeError for
    a tensor that is not boolean, ShapeError for another number of axes.
    """
    _check_bool("allowed", allowed, "N, M")
    allowed, axes = _squeezed(allowed, _AXES[allowed.ndim])

    def from_dense(b: Any, h: Any, q: Any, k: Any) -> Any:
        return allowed[_index(axes, b, h, q, k)]

    return mask(from_dense)


def from_blocks(blocks: Tensor, block_q: int, block_k: int) -> Mask:
    """The mask of a boolean map of blocks [.., query blocks, key blocks], with axes for B, or B and H, before them.

    Block (i, j) is `block_q` queries from `i * block_q` on by `block_k` keys; the last of either may overhang. Sizes
    may be any: tiles that lie in one block are planned exactly. As in Block-Sparse-Attention, SpargeAttn and
    MInference. Raises DTypeError or ShapeError for the map, ParameterError for a size below 1.
    """
    _check_bool("blocks", blocks, "query blocks, key blocks")
    block_q, block_k = _size("block_q", block_q), _size("block_k", block_k)
    blocks, axes = _squeezed(blocks, _AXES[blocks.ndim])

    def from_blocks(b: Any, h: Any, q: Any, k: Any) -> Any:
        return blocks[_index(axes, b, h, q // block_q, k // block_k)]

    return mask(from_blocks)


def from_block_mask(block_mask: BlockMask) -> Mask:
    """What FlexAttention computes with a `BlockMask`: full blocks whole, partial ones by its `mask_mod`, no others.

    The lists rule, whoever built them: a pair outside every listed block is dropped even if `mask_mod` keeps it, a pair
    of a full block is kept even if it does not. Lists of batch or head 1 hold for all. A mask that is nothing but its
    `mask_mod` is planned better from that: `attention(..., mask=block_mask.mask_mod)`.

    Raises ProgramTypeError for what is no BlockMask, ParameterError for a block that is listed as both partial and
    full (FlexAttention would count it twice), TraceError for a `mask_mod` that cannot be traced.
    """
    from torch.nn.attention.flex_attention import BlockMask, noop_mask

    if not isinstance(block_mask, BlockMask):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ProgramTypeError(f"from_block_mask takes a BlockMask, not {type(block_mask).__name__}")
    block_q, block_k = block_mask.BLOCK_SIZE
    columns = max(block_mask.kv_indices.shape[-1], -(-block_mask.seq_lengths[1] // block_k))
    partial = _listed(block_mask.kv_num_blocks, block_mask.kv_indices, columns)
    full = None
    if block_mask.full_kv_num_blocks is not None and block_mask.full_kv_indices is not None:
        full = _listed(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, columns)
        partial, full = torch.broadcast_tensors(partial, full)
        if bool((partial & full).any()):
            raise ParameterError("a block is listed as partial and as full", hint="list each block once")
    if block_mask.mask_mod is noop_mask:
        return from_blocks(partial if full is None else partial | full, block_q, block_k)
    inside = mask(block_mask.mask_mod)
    partial, axes = _squeezed(partial, _AXES[4])
    full = None if full is None else _squeezed(full, _AXES[4])[0]

    def from_block_mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        at = _index(axes, b, h, q // block_q, k // block_k)
        kept = partial[at] & inside(b, h, q, k)
        return kept if full is None else full[at] | kept

    return mask(from_block_mask)


def from_intervals(startend_row_indices: Tensor, causal: bool = True, heads: int | None = None) -> Mask:
    """FlashMask's column intervals: of key `j`, the queries in one or two intervals of rows are masked.

    `startend_row_indices` is an integer tensor [B, H, N_k, n] with B or H 1 for all. Its last axis holds, for n = 1,
    the first masked row (to the last row); for n = 2 the start and the end of the masked rows if `causal`, else the
    start of those below (to the last row) and the end of those above (from row 0); for n = 4 start and end below, then
    start and end above. An end is one past its last row. `causal` also masks what lies above the diagonal that
    ends in the bottom right corner. FlashMask, arXiv:2410.01359; PaddlePaddle's `flashmask_attention`.

    Where the tensor has one head for each key/value head, `heads` is the number of query heads. Raises DTypeError,
    ShapeError or HeadCountError.
    """
    x = startend_row_indices
    if x.dtype.is_floating_point or x.dtype.is_complex or x.dtype is torch.bool:
        raise DTypeError(f"`startend_row_indices` holds row numbers, but its dtype is {x.dtype}")
    if x.ndim != 4 or x.shape[3] not in (1, 2, 4):
        raise ShapeError(
            f"`startend_row_indices` has shape {list(x.shape)}; it must be [B, H, N_k, 1, 2 or 4]",
            hint="1: start; 2: start and end, or start below and end above; 4: both of both",
        )
    shared = x.shape[1]
    if heads is not None and (shared == 0 or heads % shared):
        raise HeadCountError(f"{heads} query heads are not a multiple of the {shared} of the intervals")
    group = 1 if heads is None else heads // shared
    columns = [_squeezed(x[..., i], ("b", "h", "k")) for i in range(x.shape[3])]
    axes = columns[0][1]
    names = _INTERVAL_ENDS[x.shape[3], causal]
    ends = {name: column for name, (column, _) in zip(names, columns, strict=True)}
    lower_start, lower_end, upper_start, upper_end = (ends.get(name) for name in _FOUR)

    def from_intervals(b: Any, h: Any, q: Any, k: Any) -> Any:
        at = _index(axes, b, h // group if group > 1 else h, q, k)
        kept = _outside(q, at, lower_start, lower_end)
        if upper_end is not None:
            kept = kept & _outside(q, at, upper_start, upper_end)
        return (k <= pos(q)) & kept if causal else kept

    return mask(from_intervals)


# What the columns of an interval tensor are, by their number and whether the mask is causal.
_FOUR = ("lower_start", "lower_end", "upper_start", "upper_end")
_INTERVAL_ENDS = {
    (1, True): _FOUR[:1],
    (1, False): _FOUR[:1],
    (2, True): _FOUR[:2],
    (2, False): ("lower_start", "upper_end"),
    (4, True): _FOUR,
    (4, False): _FOUR,
}


def _outside(q: Any, at: Any, start: Tensor | None, end: Tensor | None) -> Any:
    """Whether row `q` is in none of the rows [start, end) that are masked; a missing end is that of all rows."""
    before = None if start is None else q < start[at]
    after = None if end is None else q >= end[at]
    return after if before is None else before if after is None else before | after


def from_slices(
    q_ranges: Tensor | Sequence[Sequence[int]],
    k_ranges: Tensor | Sequence[Sequence[int]],
    types: Tensor | Sequence[int | str] | None = None,
    n_q: int | None = None,
) -> Mask:
    """The union of typed rectangles of queries and keys, MagiAttention's slices.

    `q_ranges` and `k_ranges` are integers [n, 2], each a start and one past its end; `types` [n] holds 0 or "full"
    (also by default), 1 or "causal" (up to the diagonal that ends in the bottom right corner), 2 or "inv_causal" (from
    the diagonal on that begins in the top left corner), 3 or "bi_causal" (both). `n_q` is the number of queries, where
    the last ones are in no rectangle. The tensors of the mask lie where `q_ranges` does.

    Rows become runs of keys: up to 4 runs a row have a closed form, more give lists. Raises ShapeError for ranges that
    do not fit, DTypeError, ParameterError for an unknown type or for two slices that keep the same pair, which
    MagiAttention would count twice.
    """
    device = q_ranges.device if isinstance(q_ranges, Tensor) else torch.device("cpu")
    queries, keys = _ranges("q_ranges", q_ranges), _ranges("k_ranges", k_ranges)
    if len(queries) != len(keys):
        raise ShapeError(f"there are {len(queries)} ranges of queries and {len(keys)} of keys")
    kinds = _types(types, len(queries))
    rows = int(queries[:, 1].max(initial=0))
    if n_q is not None and n_q < rows:
        raise ParameterError(f"`n_q` is {n_q}, but a slice ends at query {rows}")
    start, end = _runs(queries, keys, kinds, rows if n_q is None else n_q)
    starts, ends = (torch.from_numpy(x.astype(np.int32)).to(device) for x in (start, end))
    if len(starts) == 1:
        first, last = starts[0], ends[0]

        def one_run(b: Any, h: Any, q: Any, k: Any) -> Any:
            return (first[q] <= k) & (k < last[q])

        return mask(one_run)

    def from_slices(b: Any, h: Any, q: Any, k: Any) -> Any:
        return _any([(starts[i, q] <= k) & (k < ends[i, q]) for i in range(len(starts))])

    return mask(from_slices)


def _any(parts: list[Any]) -> Any:
    """Their disjunction, as a tree that is no deeper than it must be."""
    if len(parts) < 2:
        return parts[0] if parts else False
    middle = len(parts) // 2
    return _any(parts[:middle]) | _any(parts[middle:])


_Array = NDArray[np.int64]


def _runs(queries: _Array, keys: _Array, kinds: _Array, rows: int) -> tuple[_Array, _Array]:
    """The keys of each row as runs in ascending order, [runs, rows]: first key, and one past the last.

    A row with fewer runs than others has empty ones, whose ends widen the range of no tile.
    """
    nowhere = int(keys[:, 1].max(initial=0))
    shape = (_layers(queries), rows)
    low, high, owner = np.full(shape, nowhere), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    layer = _layer_of_each(queries)
    for i, ((q0, q1), (k0, k1), kind) in enumerate(zip(queries, keys, kinds, strict=True)):
        row = np.arange(q1 - q0)
        a = k0 + row if kind & 2 else np.full(row.size, k0)
        z = np.minimum(k1, k1 - (q1 - q0) + row + 1) if kind & 1 else np.full(row.size, k1)
        sees = a < z
        low[layer[i], q0:q1], high[layer[i], q0:q1] = np.where(sees, a, nowhere), np.where(sees, z, 0)
        owner[layer[i], q0:q1] = i
    order = np.argsort(
        low + (high == 0), axis=0, kind="stable"
    )  # runs in the order of their keys, empty ones last
    low, high, owner = (np.take_along_axis(x, order, axis=0) for x in (low, high, owner))
    _check_disjoint(low, high, owner)
    begins = high > 0
    begins[1:] &= low[1:] > high[:-1]
    run = np.cumsum(begins, axis=0) - 1
    n_runs = int(run.max(initial=-1)) + 1
    start, end = np.full((n_runs, rows), nowhere), np.zeros((n_runs, rows), np.int64)
    for i in range(shape[0]):
        (at,) = np.nonzero(high[i] > 0)
        new = at[begins[i, at]]
        start[run[i, new], new] = low[i, new]
        end[run[i, at], at] = high[i, at]
    return start, end


def _check_disjoint(low: _Array, high: _Array, owner: _Array) -> None:
    over = np.argwhere((low[1:] < high[:-1]) & (high[1:] > 0))
    if len(over):
        i, row = (int(x) for x in over[0])
        raise ParameterError(
            f"slices {int(owner[i, row])} and {int(owner[i + 1, row])} both keep key {int(low[i + 1, row])} of query "
            f"{row}: it would count twice",
            hint="cut the rectangles so that no two overlap",
        )


def _layers(queries: _Array) -> int:
    """The most slices that one row has."""
    return int(_layer_of_each(queries).max(initial=-1)) + 1


def _layer_of_each(queries: _Array) -> _Array:
    """A number for each slice such that those of one row differ, no larger than it must be."""
    out = np.zeros(len(queries), np.int64)
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    used = 0
    for i in np.argsort(queries[:, 0], kind="stable"):
        start, end = int(queries[i, 0]), int(queries[i, 1])
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            out[i] = heapq.heappop(free)
        else:
            out[i], used = used, used + 1
        heapq.heappush(busy, (end, int(out[i])))
    return out


def _ranges(name: str, ranges: Tensor | Sequence[Sequence[int]]) -> _Array:
    given = ranges.detach().cpu() if isinstance(ranges, Tensor) else torch.tensor(ranges)
    if given.numel() == 0:
        given = given.reshape(0, 2).long()
    if given.ndim != 2 or given.shape[1] != 2:
        raise ShapeError(f"`{name}` has shape {list(given.shape)}; it must be [slices, 2]")
    if given.dtype.is_floating_point or given.dtype is torch.bool:
        raise DTypeError(f"`{name}` holds token numbers, but its dtype is {given.dtype}")
    out = given.long().numpy()
    if bool((out[:, 0] < 0).any() or (out[:, 0] > out[:, 1]).any()):
        raise ShapeError(f"a range of `{name}` starts below 0 or ends before it starts")
    return out


def _types(types: Tensor | Sequence[int | str] | None, n: int) -> _Array:
    if types is None:
        return np.zeros(n, np.int64)
    given: list[Any] = types.tolist() if isinstance(types, Tensor) else list(types)
    if len(given) != n:
        raise ShapeError(f"there are {n} slices and {len(given)} types")
    numbers = [_TYPES.index(t) if t in _TYPES else t for t in given]
    for t in numbers:
        if t not in range(len(_TYPES)):
            raise ParameterError(
                f"there is no slice type {t!r}", hint=f"0 to 3 stand for {', '.join(_TYPES)}"
            )
    return np.array(numbers, np.int64)


def _listed(counts: Tensor, indices: Tensor, columns: int) -> Tensor:
    """Which blocks are listed, bool [.., rows, columns]; entries past a row's count mean nothing."""
    entry = torch.arange(indices.shape[-1], device=indices.device)
    valid = (entry < counts[..., None]) & (indices >= 0) & (indices < columns)
    found = torch.zeros((*indices.shape[:-1], columns + 1), dtype=torch.bool, device=indices.device)
    found.scatter_(-1, torch.where(valid, indices, columns).long(), True)
    return found[..., :columns].contiguous()


def _squeezed(table: Tensor, axes: tuple[str, ...]) -> tuple[Tensor, tuple[str, ...]]:
    """The table without its axes of length 1, which hold for every index, and the names of the others."""
    kept = tuple(a for a, n in zip(axes, table.shape, strict=True) if n != 1)
    return table.reshape([n for n in table.shape if n != 1]), kept


def _index(axes: tuple[str, ...], b: Any, h: Any, q: Any, k: Any) -> Any:
    """The indices of these axes."""
    at = {"b": b, "h": h, "q": q, "k": k}
    return tuple(at[axis] for axis in axes)


def _check_bool(name: str, table: Tensor, last: str) -> None:
    if table.dtype is not torch.bool:
        raise DTypeError(
            f"`{name}` is a boolean tensor, but its dtype is {table.dtype}",
            hint="compare it: x != 0, or x > -inf; what is added to scores is a score function",
        )
    if table.ndim not in _AXES:
        raise ShapeError(
            f"`{name}` has shape {list(table.shape)}; it must be [{last}], [B, {last}] or [B, H, {last}]"
        )


def _size(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise ParameterError(f"`{name}` is a number of tokens, 1 or more, not {value!r}")
    return value.__index__()
