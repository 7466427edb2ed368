"""Who else computes a workload on a GPU: FlexAttention, SDPA held to one back end, flash-attn, NATTEN.

`prepare` gives a call, or says in words why there is none: not installed, or not made for such a mask. What a peer
raises is the caller's to record. SDPA has no sparse masks: on a causal window or documents it computes the whole
triangle, elsewhere every pair, which is what a user without a sparse kernel runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from attngen.bench.gpu.masks import Documents, Full, Window
from attngen.bench.gpu.masks_grid import Near
from attngen.bench.gpu.stopwatch import synchronize
from attngen.bench.timing import Fn

if TYPE_CHECKING:
    from attngen.api import Attention
    from attngen.bench.gpu.cases import Case

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Work:
    """A case with its tensors and its specification, on one device."""

    case: Case
    query: Tensor
    key: Tensor
    value: Tensor
    spec: Attention

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.query.device

    @property
    def gqa(self) -> bool:
        """Whether several query heads share a key head."""
        return self.case.heads != self.case.kv_heads


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call, and what its preparation took that a new mask of the same shape would take again."""

    call: Fn
    planning_ms: dict[str, float] = field(default_factory=dict[str, float])
    superset: str = ""


def prepare(name: str, work: Work) -> Prepared | str:
    """A candidate by name, ready to call; or why there is none."""
    return _MAKERS[name](work)


def _attngen(work: Work) -> Prepared:
    return Prepared(lambda: work.spec(work.query, work.key, work.value))


def _flex(work: Work) -> Prepared:
    """Compiled FlexAttention with its defaults; its block mask is made by a compiled function, timed apart."""
    from torch.nn.attention.flex_attention import flex_attention

    torch.compiler.reset()  # past eight specialisations FlexAttention would silently run unfused
    _compile_here()
    compiled = torch.compile(flex_attention, dynamic=False)
    blocks, planning = _block_mask(work)
    return Prepared(
        lambda: compiled(work.query, work.key, work.value, block_mask=blocks, enable_gqa=work.gqa), planning
    )


def _compile_here() -> None:
    """Have the compiler work in this process: for one kernel, starting its helpers takes longer than it does."""
    with suppress(ImportError, AttributeError):
        config: Any = import_module("torch._inductor.config")
        config.compile_threads = 1


def _block_mask(work: Work) -> tuple[Any, dict[str, float]]:
    from torch.nn.attention.flex_attention import create_block_mask

    case = work.case
    at = case.extents
    keep = case.mask.keep(work.spec, at)
    if keep is None:
        return None, {}
    create = torch.compile(create_block_mask) if work.device.type == "cuda" else create_block_mask
    heads = at.heads if case.mask.per_head else None

    def timed() -> tuple[Any, float]:
        synchronize(work.device)
        start = time.perf_counter()
        made = create(keep, None, heads, at.n_q, at.n_k, device=str(work.device))
        synchronize(work.device)
        return made, round((time.perf_counter() - start) * 1e3, 3)

    _, first = timed()
    blocks, again = timed()
    return blocks, {"flex, first": first, "flex": again}


def _sdpa(work: Work, backend: str) -> Prepared | str:
    """SDPA held to a back end; on keys and values repeated ahead where that does not take grouped heads."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    case = work.case
    one_query = case.extents.n_q == 1
    causal = case.mask.causal and not one_query  # one query at the end sees all keys
    function = torch.nn.functional.scaled_dot_product_attention
    where: SDPBackend = getattr(SDPBackend, backend)

    def run(key: Tensor, value: Tensor, gqa: bool) -> Tensor:
        with sdpa_kernel(where):
            return function(work.query, key, value, is_causal=causal, enable_gqa=gqa)

    exact = isinstance(case.mask, Full) or (
        isinstance(case.mask, Window) and case.mask.window is None and not one_query
    )
    superset = "" if exact else "the triangle" if causal else "every pair"
    call = partial(run, work.key, work.value, work.gqa)
    if work.gqa:
        try:
            call()
        except RuntimeError:
            group = case.heads // case.kv_heads
            call = partial(run, *(t.repeat_interleave(group, dim=1) for t in (work.key, work.value)), False)
    return Prepared(call, superset=superset)


def _flash_attn(work: Work) -> Prepared | str:
    """The flash-attn package, for what it has an argument for."""
    if find_spec("flash_attn") is None:
        return "flash-attn is not installed"
    package = import_module("flash_attn")
    mask = work.case.mask
    query, key, value = (t.transpose(1, 2) for t in (work.query, work.key, work.value))
    if isinstance(mask, Full):
        return Prepared(partial(package.flash_attn_func, query, key, value))
    if isinstance(mask, Window) and not mask.sink:
        window = (-1, -1) if mask.window is None else (mask.window - 1, 0)
        return Prepared(partial(package.flash_attn_func, query, key, value, causal=True, window_size=window))
    if isinstance(mask, Documents) and work.case.batch == 1:
        lengths = mask.lengths(work.case.n)
        ends = torch.tensor([0, *lengths]).cumsum(0).int().to(work.device)
        packed = (query[0], key[0], value[0], ends, ends, max(lengths), max(lengths))
        return Prepared(partial(package.flash_attn_varlen_func, *packed, causal=True))
    return "flash-attn has no such mask"


def _natten(work: Work) -> Prepared | str:
    """NATTEN's neighbourhoods, with whatever permutation they make inside."""
    mask = work.case.mask
    if not isinstance(mask, Near):
        return "NATTEN has no such mask"
    if find_spec("natten") is None:
        return "NATTEN is not installed"
    package = import_module("natten")
    function: Callable[..., Any] = getattr(package, f"na{len(mask.grid)}d")
    tensors = [
        t.transpose(1, 2).unflatten(1, mask.grid).contiguous() for t in (work.query, work.key, work.value)
    ]
    return Prepared(partial(function, *tensors, kernel_size=mask.window, stride=mask.stride))


_MAKERS: dict[str, Callable[[Work], Prepared | str]] = {
    "attngen": _attngen,
    "flex": _flex,
    "sdpa_flash": lambda work: _sdpa(work, "FLASH_ATTENTION"),
    "sdpa_cudnn": lambda work: _sdpa(work, "CUDNN_ATTENTION"),
    "flash_attn": _flash_attn,
    "natten": _natten,
}
