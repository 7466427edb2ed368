"""The one interface behind which kernels are rendered, built, loaded and launched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from attngen.emit.spec import KernelSpec, Source, Target
from attngen.planner.plan import BlockLists


@dataclass(frozen=True, slots=True)
class Call:
    """One launch. All tensors lie on one device; shapes and dtypes were checked by the caller.

    query [B, Hq, Nq, D], key [B, Hkv, Nk, D], value [B, Hkv, Nk, E], any strides (the last included);
    outputs   preallocated, by name, in the spec's order: `[B, Hq, Nq, E]` in the input dtype or `[B, Hq, Nq]` fp32;
    tensors   captured tensors by name, any strides;
    params    run-time scalars by name;
    lists     for plans of form "lists": built for the kernel's own tile sizes.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    outputs: Mapping[str, torch.Tensor]
    tensors: Mapping[str, torch.Tensor]
    params: Mapping[str, int | float | bool]
    lists: BlockLists | None = None


class Kernel(Protocol):
    """A loaded kernel. `block_q` and `block_k` are the tile sizes its lists must be built for."""

    block_q: int
    block_k: int

    def launch(self, call: Call) -> None:
        """Run; writes every element of every output."""
        ...


class Backend(Protocol):
    """A code generator with its tool chain."""

    name: str

    def emit(self, spec: KernelSpec, target: Target) -> Source:
        """The kernel's text for a target, with the default configuration. Pure."""
        ...

    def load(self, spec: KernelSpec, target: Target) -> Kernel:
        """A callable kernel, from the cache or built now."""
        ...
