"""The catalogue of masks for Python users: each function returns a `Mask`.

Widths and counts are run-time scalars, so that changing one compiles nothing; each may also be a tensor, one
value a head (widths) or a batch entry (prefixes, lengths). Positions are those of `pos(q) = q + (n_k - n_q)`:
the last query is aligned with the last key. Masks combine by `&`, `|` and `~`:

    causal() & (sink(64) | sliding_window(1024))

The programs of the same names in `ir/` define the same masks. `from_dense`, `from_blocks`, `from_block_mask`,
`from_intervals` and `from_slices` take masks as other systems write them (see `attngen.conversions`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attngen.capture import Mask, mask
from attngen.conversions import from_block_mask, from_blocks, from_dense, from_intervals, from_slices
from attngen.errors import DeviceError, DTypeError, ParameterError, ShapeError
from attngen.lang.trace import extent, param, pos
from attngen.masks_grid import elastic_window, frames, grouped, neighborhood, shifted_windows, strided_blocks

__all__ = [
    "block_diffusion",
    "causal",
    "chunked",
    "dilated",
    "documents",
    "elastic_window",
    "frames",
    "from_block_mask",
    "from_blocks",
    "from_dense",
    "from_intervals",
    "from_slices",
    "global_tokens",
    "grouped",
    "lengths",
    "neighborhood",
    "padded",
    "prefix_lm",
    "shifted_windows",
    "sink",
    "sliding_window",
    "sliding_window_sink",
    "strided_blocks",
    "symmetric_window",
    "varlen",
]


def causal() -> Mask:
    """Keys up to and including the query's own position. Vaswani et al., arXiv:1706.03762, section 3.2.3."""

    def causal(b: Any, h: Any, q: Any, k: Any) -> Any:
        return k <= pos(q)

    return mask(causal)


def sliding_window(window: int | Tensor) -> Mask:
    """The last `window` keys, the query's own position included.

    Longformer (arXiv:2004.05150, section 3.1); causal in Mistral 7B (arXiv:2310.06825, section 2). `window`
    is a number, a 0-d tensor, or a tensor [H] with one width a head.
    """
    window = _scalar("window", window, at_least=1)

    def sliding_window(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (k <= pos(q)) & (pos(q) - k < _of(window, h))

    return mask(sliding_window)


def symmetric_window(left: int | Tensor, right: int | Tensor | None = None) -> Mask:
    """Keys at most `left` before and `right` after the query's position (`right = left` if not given).

    The bidirectional window of encoders (Longformer, arXiv:2004.05150, section 3.1): `left + right + 1` keys.
    """
    right = _scalar("right", left if right is None else right, at_least=0)
    left = _scalar("left", left, at_least=0)

    def symmetric_window(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (pos(q) - k <= _of(left, h)) & (k - pos(q) <= _of(right, h))

    return mask(symmetric_window)


def sink(n: int | Tensor) -> Mask:
    """The first `n` keys, for every query: a part of other masks, not causal by itself.

    StreamingLLM, arXiv:2309.17453.
    """
    sink = _scalar("sink", n, at_least=0)

    def sink_keys(b: Any, h: Any, q: Any, k: Any) -> Any:
        return k < _of(sink, h)

    return mask(sink_keys)


def sliding_window_sink(window: int | Tensor, sink: int | Tensor) -> Mask:
    """The last `window` keys and the first `sink` keys, as far as they are not in the future.

    StreamingLLM, arXiv:2309.17453; the A-shape head of MInference, arXiv:2407.02490.
    """
    window = _scalar("window", window, at_least=1)
    sink = _scalar("sink", sink, at_least=0)

    def sliding_window_sink(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (k <= pos(q)) & ((k < _of(sink, h)) | (pos(q) - k < _of(window, h)))

    return mask(sliding_window_sink)


def prefix_lm(prefix: int | Tensor) -> Mask:
    """Every key of the prefix, then causal. T5, arXiv:1910.10683, section 3.2.1; UniLM, arXiv:1905.03197.

    `prefix` is a length, or a tensor [B] with the length of each batch entry.
    """
    prefix = _scalar("prefix", prefix, at_least=0)

    def prefix_lm(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (k < _of(prefix, b)) | (k <= pos(q))

    return mask(prefix_lm)


def chunked(chunk: int | Tensor) -> Mask:
    """Causal inside chunks of `chunk` tokens, nothing across. Liu et al., arXiv:1801.10198, section 4.2.4."""
    chunk = _scalar("chunk", chunk, at_least=1)

    def chunked(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (k <= pos(q)) & (k // _of(chunk, h) == pos(q) // _of(chunk, h))

    return mask(chunked)


def dilated(window: int | Tensor, dilation: int | Tensor) -> Mask:
    """`window` keys that lie `dilation` apart, the query's own position the last of them.

    Longformer, arXiv:2004.05150, section 3.1, in its causal form.
    """
    window = _scalar("window", window, at_least=1)
    dilation = _scalar("dilation", dilation, at_least=1)

    def dilated(b: Any, h: Any, q: Any, k: Any) -> Any:
        step = _of(dilation, h)
        near = pos(q) - k < _of(window, h) * step
        return (k <= pos(q)) & near & ((pos(q) - k) % step == 0)

    return mask(dilated)


def global_tokens(radius: int | Tensor, n_global: int | Tensor) -> Mask:
    """`radius` neighbours on each side; the first `n_global` tokens see all and are seen by all.

    Longformer, arXiv:2004.05150, section 3.1; Big Bird, arXiv:2007.14062, without its random keys.
    """
    radius = _scalar("radius", radius, at_least=0)
    n_global = _scalar("n_global", n_global, at_least=0)

    def global_tokens(b: Any, h: Any, q: Any, k: Any) -> Any:
        reach, n = _of(radius, h), _of(n_global, h)
        near = (-reach <= pos(q) - k) & (pos(q) - k <= reach)
        return near | (k < n) | (pos(q) < n)

    return mask(global_tokens)


def documents(doc: Tensor | None = None, *, offsets: Tensor | None = None, causal: bool = True) -> Mask:
    """Packed documents: attention inside each, nothing between them. Krell et al., arXiv:2107.02027.

    Give either `doc`, the document number of every key position, as an integer tensor [N] or [B, N], or
    `offsets` [documents + 1], where each document starts, from 0 to N. The query's document is the one at its
    own position. With `causal=False` a token sees its whole document. Offsets give key ranges in closed form,
    numbers are read at the key and give lists.
    """
    if (doc is None) == (offsets is None):
        raise ParameterError(
            "documents takes either `doc` or `offsets`", hint="documents(offsets=cu_seqlens)"
        )
    if offsets is not None:
        return _documents_from(offsets, causal=causal)
    assert doc is not None
    if doc.dtype.is_floating_point or doc.dtype.is_complex:
        raise DTypeError(f"`doc` holds document numbers, but its dtype is {doc.dtype}")
    if doc.ndim not in (1, 2):
        raise ShapeError(f"`doc` has shape {list(doc.shape)}; it must be [N] or [B, N]")
    packed = doc.ndim == 2

    def documents(b: Any, h: Any, q: Any, k: Any) -> Any:
        same = doc[b, k] == doc[b, pos(q)] if packed else doc[k] == doc[pos(q)]
        return (k <= pos(q)) & same if causal else same

    return mask(documents)


def varlen(cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, causal: bool = True) -> Mask:
    """Packed sequences whose queries and keys differ in number, the last query of each at its last key.

    FlashAttention's `flash_attn_varlen_func` (Dao, arXiv:2307.08691): both tensors are integers [sequences + 1],
    cumulative lengths with a leading 0, on one device. For a batch of 1 with all queries and all keys packed.
    A query before the first key of its sequence sees nothing.
    """
    _check_offsets("cu_seqlens_q", cu_seqlens_q)
    _check_offsets("cu_seqlens_k", cu_seqlens_k)
    if cu_seqlens_q.shape != cu_seqlens_k.shape:
        q_shape, k_shape = list(cu_seqlens_q.shape), list(cu_seqlens_k.shape)
        raise ShapeError(f"`cu_seqlens_q` {q_shape} and `cu_seqlens_k` {k_shape} count different sequences")
    if cu_seqlens_q.device != cu_seqlens_k.device:
        raise DeviceError(
            f"`cu_seqlens_q` and `cu_seqlens_k` lie on {cu_seqlens_q.device} and {cu_seqlens_k.device}"
        )
    lengths_q = cu_seqlens_q.diff()
    first, end = (ends.repeat_interleave(lengths_q) for ends in (cu_seqlens_k[:-1], cu_seqlens_k[1:]))
    if causal:
        shift = (cu_seqlens_k - cu_seqlens_q)[1:].repeat_interleave(lengths_q)
        end = torch.minimum(end, torch.arange(1, end.numel() + 1, device=end.device) + shift)
    sees = end > first  # a row that sees nothing widens the range of no tile
    first = torch.where(sees, first, cu_seqlens_k[-1]).int()
    last = torch.where(sees, end, 0).int()

    def varlen(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (first[q] <= k) & (k < last[q])

    return mask(varlen)


def padded(lengths_q: int | Tensor, lengths_k: int | Tensor, causal: bool = True) -> Mask:
    """Padding at the end of queries and of keys, the last valid query of an entry at its last valid key.

    Both are numbers, or tensors [B]. Query `q` of entry `b` lies at key `q + lengths_k[b] - lengths_q[b]`. Keys
    from `lengths_k[b]` on are seen by none, queries from `lengths_q[b]` on see nothing. `seqused_q` and `seqused_k`
    of FlashAttention (Dao, arXiv:2307.08691).
    """
    lengths_q = _scalar("lengths_q", lengths_q, at_least=0)
    lengths_k = _scalar("lengths_k", lengths_k, at_least=0)

    def padded(b: Any, h: Any, q: Any, k: Any) -> Any:
        n_q, n_k = _of(lengths_q, b), _of(lengths_k, b)
        valid = (q < n_q) & (k < n_k)
        return valid & (k <= q + (n_k - n_q)) if causal else valid

    return mask(padded)


def lengths(length: int | Tensor) -> Mask:
    """The first `length` keys: padding at the end. `length` is a number, or a tensor [B]."""
    length = _scalar("length", length, at_least=0)

    def lengths(b: Any, h: Any, q: Any, k: Any) -> Any:
        return k < _of(length, b)

    return mask(lengths)


def block_diffusion(block: int | Tensor) -> Mask:
    """The training mask of block diffusion: a noisy copy of the sequence, then the clean one (`n_q = n_k`).

    BD3-LM, arXiv:2503.09573, section 3.3. A noisy token sees its own noisy block and the clean blocks before
    it; a clean token sees the clean blocks up to and including its own.
    """
    block = _scalar("block", block, at_least=1)

    def block_diffusion(b: Any, h: Any, q: Any, k: Any) -> Any:
        half, size = extent("n_k") // 2, _of(block, h)
        noisy_q, noisy_k = q < half, k < half
        own = noisy_q & noisy_k & (q // size == k // size)
        earlier = noisy_q & ~noisy_k & (q // size > (k - half) // size)
        clean = ~noisy_q & ~noisy_k & ((q - half) // size >= (k - half) // size)
        return own | earlier | clean

    return mask(block_diffusion)


def _scalar(name: str, value: Any, *, at_least: int) -> Any:
    """A number as a run-time parameter; a tensor of at most one dimension as it is.

    A tensor's contents are not looked at: on a GPU that would wait for it.
    """
    if isinstance(value, torch.Tensor):
        if value.dtype.is_floating_point or value.dtype.is_complex:
            raise DTypeError(f"`{name}` is an integer, but the tensor's dtype is {value.dtype}")
        if value.ndim > 1:
            raise ShapeError(
                f"`{name}` has shape {list(value.shape)}; it is one number, or one a head or batch entry"
            )
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ParameterError(f"`{name}` is an integer, not {value!r}")
    number = value.__index__()
    if number < at_least:
        raise ParameterError(f"`{name}` is at least {at_least}, not {number}")
    return param(name, number)


def _of(value: Any, at: Any) -> Any:
    """The value for head or batch entry `at`: a vector is read there, a single value is the same for all."""
    return value[at] if getattr(value, "ndim", 0) == 1 else value


def _documents_from(offsets: Tensor, *, causal: bool) -> Mask:
    _check_offsets("offsets", offsets)
    lengths = offsets.diff()
    first, last = (ends.int().repeat_interleave(lengths) for ends in (offsets[:-1], offsets[1:]))

    def documents(b: Any, h: Any, q: Any, k: Any) -> Any:
        at: Any = pos(q)
        if not causal:
            return (first[at] <= k) & (k < last[at])
        # A document starts no later than its tokens: said outright, the keys of a tile are known to have no gap.
        return (torch.minimum(first[at], at) <= k) & (k <= at)

    return mask(documents)


def _check_offsets(name: str, offsets: Tensor) -> None:
    if offsets.ndim != 1 or offsets.dtype.is_floating_point or offsets.dtype is torch.bool:
        given = f"{offsets.dtype} {list(offsets.shape)}"
        raise ShapeError(f"`{name}` is an integer tensor [sequences + 1], not {given}")
    if offsets.numel() == 0 or int(offsets[0]) != 0 or bool((offsets.diff() < 0).any()):
        raise ParameterError(
            f"`{name}` starts at 0 and never falls", hint="cumulative lengths with a leading 0"
        )
