"""What a specification plans for its calls, kept while lengths, tensors and parameters stay what they were."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import torch

from attngen import arguments, pipeline
from attngen.arguments import Number, Shapes

if TYPE_CHECKING:
    from attngen.backends.base import Kernel
    from attngen.lang.program import Program
    from attngen.planner.box_call import BoxCall
    from attngen.planner.plan import BlockLists, DeviceBlockLists

Tensor = torch.Tensor
T = TypeVar("T")
Lists: TypeAlias = "BlockLists | DeviceBlockLists"

_KEPT = 8


class CallPlans:
    """The block lists and box shapes of recent calls of one specification."""

    def __init__(self, analysed: pipeline.Analysed) -> None:
        self._analysed = analysed
        self._lists: OrderedDict[tuple[object, ...], tuple[Lists, tuple[Tensor, ...]]] = OrderedDict()
        self._boxes: OrderedDict[tuple[object, ...], tuple[BoxCall, tuple[Tensor, ...]]] = OrderedDict()

    def boxes(
        self,
        volume: Callable[[Program], tuple[int, int]],
        key: tuple[object, ...],
        shapes: Shapes,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
    ) -> BoxCall | None:
        """The boxes of a call; None for a mask whose tiles are runs of tokens.

        `volume` gives the queries and keys that a tile of the program may hold; `key` stands for it.
        """
        if not pipeline.may_have_boxes(self._analysed):
            return None
        analysed = pipeline.specialised(self._analysed, pipeline.consts_of(self._analysed.program, params))
        plan = pipeline.box_plan(analysed)
        if plan is None:
            return None
        from attngen.planner.box_call import make_box_call
        from attngen.planner.choose_boxes import Call

        def make() -> BoxCall:
            values = {**params, **arguments.as_numpy(tensors)}
            extents = (shapes.n_q, shapes.n_k, shapes.batch, shapes.heads)
            call = Call(values, *extents, *volume(analysed.program))
            return make_box_call(analysed.program, plan, values, call)

        return _kept(self._boxes, (*key, shapes), tensors, params, make)

    def lists(
        self,
        kernel: Kernel,
        shapes: Shapes,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
        device: torch.device,
    ) -> Lists | None:
        """Lists for a mask without a closed form; None for a kernel that needs none.

        On a GPU they are built there, without waiting for it, unless they would need too much room.
        """
        if not kernel.needs_lists:
            return None
        from attngen.planner.evaluate_plan import Extents

        extents = Extents(shapes.n_q, shapes.n_k, shapes.batch, shapes.heads, kernel.block_q, kernel.block_k)
        program = self._analysed.program

        def make() -> Lists:
            if device.type == "cuda":
                from attngen.backends.triton_lists import compress
                from attngen.planner.device_blocks import build_device_blocks, fits

                if fits(program, extents):
                    return build_device_blocks(program, {**params, **tensors}, extents, device, compress)
            from attngen.planner.blocks import build_blocks_at

            return build_blocks_at(program, {**params, **arguments.as_numpy(tensors)}, extents)

        return _kept(self._lists, (shapes, kernel.block_q, kernel.block_k, device), tensors, params, make)


def _kept(
    known: OrderedDict[tuple[object, ...], tuple[T, tuple[Tensor, ...]]],
    key: tuple[object, ...],
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Number],
    make: Callable[[], T],
) -> T:
    """What `make` gives, from an earlier call with equal parameters and the same tensors, unchanged since."""
    held = tuple(tensors.values())
    whole = (*key, tuple(sorted(params.items())), tuple((id(t), t._version) for t in held))
    if whole in known:
        known.move_to_end(whole)
        return known[whole][0]
    made = make()
    known[whole] = (made, held)  # holding the tensors keeps their ids from being reused
    if len(known) > _KEPT:
        known.popitem(last=False)
    return made
