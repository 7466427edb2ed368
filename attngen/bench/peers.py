"""What a PyTorch user would run instead: SDPA with a dense mask, FlexAttention, the plain formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

import torch

from attngen import arguments
from attngen.backends.reference import reference
from attngen.bench.timing import Fn
from attngen.to_flex import mask_function
from attngen.tolerance import dense_numbers, shapes_of

if TYPE_CHECKING:
    from attngen.api import Attention

Tensor = torch.Tensor
# A dense peer holds a few score matrices; above this many pairs it is left out.
_MOST_PAIRS = 1 << 28
# The formula holds several of its largest tensor; where that has more numbers it is left out.
_MOST_NUMBERS = 1 << 26


def dense_peers(
    spec: Attention, query: Tensor, key: Tensor, value: Tensor, given: Mapping[str, object]
) -> dict[str, Fn]:
    """SDPA and, on a GPU, FlexAttention where the cascade is plain softmax; else the formula."""
    tensors, params = arguments.bind(spec.program, spec.values, given)
    params["scale"] = arguments.default_scale(query.shape[-1], None)
    batch, heads, n_q, _ = query.shape
    n_k = key.shape[2]
    if not n_q or not n_k or batch * heads * n_q * n_k > _MOST_PAIRS:
        return {}
    if not _is_plain_softmax(spec):
        if dense_numbers(spec.program, shapes_of(query, key, value), tensors, params) > _MOST_NUMBERS:
            return {}
        return {
            "the formula in PyTorch": lambda: reference(
                spec.program, query, key, value, tensors=tensors, params=params, dtype=query.dtype
            )
        }
    keep = mask_function(spec.program, {**tensors, **params}, {"n_q": n_q, "n_k": n_k})
    gqa = heads != key.shape[1]
    dense = None if keep is None else _dense_mask(keep, batch, heads, n_q, n_k, query.device)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    peers: dict[str, Fn] = {
        "SDPA with a dense mask": lambda: sdpa(query, key, value, attn_mask=dense, enable_gqa=gqa)
    }
    if query.device.type == "cuda":
        peers["FlexAttention, compiled"] = _flex(keep, query, key, value)
    return peers


def _dense_mask(
    keep: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    batch: int,
    heads: int,
    n_q: int,
    n_k: int,
    device: torch.device,
) -> Tensor:
    def axis(n: int, shape: tuple[int, ...]) -> Tensor:
        return torch.arange(n, device=device).reshape(shape)

    b, h = axis(batch, (-1, 1, 1, 1)), axis(heads, (-1, 1, 1))
    return keep(b, h, axis(n_q, (-1, 1)), axis(n_k, (-1,)))


def _flex(
    keep: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None, query: Tensor, key: Tensor, value: Tensor
) -> Fn:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)
    batch, heads, n_q, _ = query.shape
    block_mask = keep and create_block_mask(keep, batch, heads, n_q, key.shape[2], device=str(query.device))
    gqa = heads != key.shape[1]
    return lambda: compiled(query, key, value, block_mask=block_mask, enable_gqa=gqa)


def _is_plain_softmax(spec: Attention) -> bool:
    return spec.outputs == ("O",) and spec.program.cascade == _softmax().program.cascade


@cache
def _softmax() -> Attention:
    from attngen.api import Attention

    return Attention()
