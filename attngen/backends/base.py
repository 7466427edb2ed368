"""The one interface behind which kernels are rendered, built, loaded and launched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import torch

from attngen.errors import LaunchError
from attngen.value import value

if TYPE_CHECKING:
    from attngen.emit.configs import Config
    from attngen.emit.spec import KernelSpec, Source, Target
    from attngen.planner.plan import BlockLists, DeviceBlockLists


@value
class Call:
    """One launch. All tensors lie on one device; shapes and dtypes were checked by the caller.

    query [B, Hq, Nq, D], key [B, Hkv, Nk, D], value [B, Hkv, Nk, E], any strides (the last included);
    outputs   preallocated, by name, in the spec's order, as `tile.Output` describes them; those that steps store are
              filled with what a pair, or a block of them, that nobody keeps has;
    tensors   captured tensors by name, any strides;
    params    run-time scalars by name;
    lists     for plans of form "lists": built for the kernel's own tile sizes, on the host, or, for a kernel that
              runs on a GPU, on its device;
    n_q_tiles for plans of boxes: query tiles of one head;
    swapped   whether the rows of the kernel are the call's keys and its columns the call's queries;
    heads     where it is not the number of query heads: of a kernel that finds the query's head from its own;
    rows      where it is not the number of queries: of a kernel whose rows are no tokens;
    order     for a kernel that takes one: its rows of work `(b * heads + h) * query tiles + tile` as they are to be
              launched, an int32 permutation on the kernel's device; of a packed kernel, whose query tiles are those
              of a key head, `(b * key heads + g) * query tiles + tile`.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    outputs: Mapping[str, torch.Tensor]
    tensors: Mapping[str, torch.Tensor]
    params: Mapping[str, int | float | bool]
    lists: BlockLists | DeviceBlockLists | None = None
    n_q_tiles: int | None = None
    order: torch.Tensor | None = None
    swapped: bool = False
    heads: int | None = None
    rows: int | None = None

    @property
    def extents(self) -> tuple[int, int, int, int]:
        """Batch entries, heads, rows and columns of the kernel."""
        n_b, n_h, n_q, _ = self.query.shape
        n_k = self.key.shape[2]
        n_q, n_k = (n_k, n_q) if self.swapped else (n_q, n_k)
        return n_b, n_h if self.heads is None else self.heads, n_q if self.rows is None else self.rows, n_k


def order_of(call: Call, rows: int) -> torch.Tensor:
    """The order of a call's rows of work. Raises LaunchError where there is none, or one of other rows."""
    order = call.order
    if order is None:
        raise LaunchError("this kernel launches its rows of work in an order, and the call brings none")
    if order.dtype != torch.int32 or order.shape != (rows,) or not order.is_contiguous():
        raise LaunchError(
            f"the order of {rows} rows of work is an int32 vector of as many, not {order.dtype} {tuple(order.shape)}"
        )
    return order


class Kernel(Protocol):
    """A loaded kernel. `block_q` and `block_k` are the tile sizes its lists must be built for.

    needs_lists  whether its plan is of form "lists", so that a call must bring `BlockLists`;
    needs_order  whether its rows of work differ between heads or are listed, so that a call must bring their order;
    packed       whether a tile of queries holds rows of all query heads of a key head, the head fastest;
    jit          whether its first launch compiles it, so that a compiler is there for what else runs on its device.
    """

    block_q: int
    block_k: int
    needs_lists: bool
    needs_order: bool
    packed: bool
    jit: bool

    def launch(self, call: Call) -> None:
        """Run; writes every element of every output."""
        ...

    def recipe(self) -> dict[str, object]:
        """JSON from which `Backend.reopen` makes this kernel again, in a process that derives nothing."""
        ...


class Backend(Protocol):
    """A code generator with its tool chain."""

    name: str

    def emit(self, spec: KernelSpec, target: Target, config: Config | None = None) -> Source:
        """The kernel's text for a target; without a configuration, with the default one. Pure."""
        ...

    def config(self, spec: KernelSpec, target: Target) -> Config:
        """The configuration that `emit` and `load` take where none is given: one that always fits."""
        ...

    def load(self, spec: KernelSpec, target: Target, config: Config | None = None) -> Kernel:
        """A callable kernel, from the cache or built now."""
        ...

    def reopen(self, recipe: Mapping[str, object]) -> Kernel | None:
        """The kernel of a recipe, or None where the cache no longer holds it for this machine."""
        ...
