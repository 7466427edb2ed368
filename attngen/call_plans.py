"""What a specification plans for its calls, kept while lengths, tensors and parameters stay what they were."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import torch

from attngen import arguments, pipeline
from attngen.analysed import Analysed, consts_of, scheduled
from attngen.arguments import Number, Shapes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from attngen.backends.base import Kernel
    from attngen.lang.program import Program
    from attngen.planner.box_call import BoxCall
    from attngen.planner.choose_boxes import Call
    from attngen.planner.layout import Boxes
    from attngen.planner.plan import BlockLists, DeviceBlockLists

Tensor = torch.Tensor
T = TypeVar("T")
Lists: TypeAlias = "BlockLists | DeviceBlockLists"

_KEPT = 8


class CallPlans:
    """The block lists, box shapes and orders of recent calls of one specification."""

    def __init__(self, analysed: Analysed) -> None:
        self._analysed = analysed
        self._lists: OrderedDict[tuple[object, ...], tuple[Lists, tuple[Tensor, ...]]] = OrderedDict()
        self._boxes: OrderedDict[tuple[object, ...], tuple[BoxCall, tuple[Tensor, ...]]] = OrderedDict()
        self._given: OrderedDict[tuple[object, ...], tuple[BoxCall | None, tuple[Tensor, ...]]] = (
            OrderedDict()
        )
        self._orders: OrderedDict[tuple[object, ...], tuple[Tensor, tuple[Tensor, ...]]] = OrderedDict()

    def scheduled(self, shapes: Shapes, params: Mapping[str, Number]) -> Analysed:
        """The program as the schedule of a call is worked out."""
        group = max(shapes.heads // max(shapes.kv_heads, 1), 1)
        return scheduled(self._analysed, consts_of(self._analysed.program, params), group)

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
        analysed = self.scheduled(shapes, params)
        plan = pipeline.box_plan(analysed)
        if plan is None:
            return None
        from attngen.planner.box_call import make_box_call

        def make() -> BoxCall:
            call = _box_values(shapes, tensors, params, volume(analysed.program))
            return make_box_call(analysed.program, plan, call.values, call)

        return _kept(self._boxes, (*key, shapes), tensors, params, make)

    def boxed(
        self, boxes: Boxes, shapes: Shapes, tensors: Mapping[str, Tensor], params: Mapping[str, Number]
    ) -> BoxCall | None:
        """The tiles of a call in boxes of given shapes; None where a kernel of them is not right for it."""
        analysed = self.scheduled(shapes, params)
        plan = pipeline.box_plan(analysed)
        if plan is None:
            return None
        from attngen.planner.box_call import make_box_call
        from attngen.planner.choose_boxes import suits
        from attngen.planner.evaluate_plan import with_defaults

        def make() -> BoxCall | None:
            call = _box_values(shapes, tensors, params, (boxes.volume("q"), boxes.volume("k")))
            made = make_box_call(analysed.program, plan, call.values, call, boxes)
            known = replace(call, values=with_defaults(analysed.program, call.values))
            return made if suits(boxes, plan, known) else None

        return _kept(self._given, (boxes, shapes), tensors, params, make)

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
        program = self.scheduled(shapes, params).program

        def make() -> Lists:
            if device.type == "cuda":
                from attngen.planner.device_blocks import build_device_blocks, device_lists, fits

                compress = device_lists
                if kernel.jit:
                    from attngen.backends.triton_lists import compress

                if fits(program, extents):
                    return build_device_blocks(program, {**params, **tensors}, extents, device, compress)
            from attngen.planner.blocks import build_blocks_at

            return build_blocks_at(program, {**params, **arguments.as_numpy(tensors)}, extents)

        return _kept(self._lists, (shapes, kernel.block_q, kernel.block_k, device), tensors, params, make)

    def order(
        self,
        kernel: Kernel,
        lists: Lists | None,
        boxed: BoxCall | None,
        shapes: Shapes,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
        query: Tensor,
    ) -> Tensor | None:
        """The rows of work of a call, longest first, on its device; None for a kernel that takes no order.

        Heads whose keys and values do not fit the cache at once follow each other, those with the most work first. The
        order is worked out where the lists lie. Captured tensors that the closed form reads are read by the host, once
        for each of their versions.
        """
        if not kernel.needs_order:
            return None
        from attngen.planner.order import launch_order, work_of_lists

        def make() -> Tensor:
            together, heads = _heads_together(shapes, query), shapes.heads
            if kernel.packed:
                work = self._packed_work(kernel, shapes, tensors, params)
                together, heads = max(together * shapes.kv_heads // heads, 1), shapes.kv_heads
            elif lists:
                work = work_of_lists(lists)
            else:
                work = self._work(kernel, kernel.block_q, boxed, shapes, tensors, params)
            order = launch_order(work, batch=shapes.batch, heads=heads, together=together)
            return order if isinstance(order, Tensor) else torch.from_numpy(order).to(query.device)

        boxes = None if boxed is None else boxed.boxes
        key = (shapes, kernel.block_q, kernel.block_k, kernel.packed, boxes, query.device, query.dtype)
        return _kept(self._orders, key, tensors, params, make)

    def _packed_work(
        self,
        kernel: Kernel,
        shapes: Shapes,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
    ) -> NDArray[np.int32]:
        """The work of the tiles of a key head, as that of whole queries: at most one of each side counts too little."""
        import numpy as np

        group = shapes.heads // shapes.kv_heads
        queries = max(kernel.block_q // group, 1)
        work = self._work(kernel, queries, None, shapes, tensors, params)
        tiles = np.arange(-(-shapes.n_q * group // kernel.block_q))
        return work[:, :, tiles * kernel.block_q // group // queries]

    def _work(
        self,
        kernel: Kernel,
        block_q: int,
        boxed: BoxCall | None,
        shapes: Shapes,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
    ) -> NDArray[np.int32]:
        """The work of every row of a closed form, int32 `[B|1, H|1, query tiles]`."""
        import numpy as np

        from attngen.lang.expr import free_vars
        from attngen.planner.evaluate_plan import Extents, evaluate_plan, with_defaults
        from attngen.planner.order import work_of_pieces, work_of_runs

        analysed = self.scheduled(shapes, params)
        program, plan = analysed.program, pipeline.plan_of(analysed)
        at = Extents(shapes.n_q, shapes.n_k, shapes.batch, shapes.heads, block_q, kernel.block_k)
        if not shapes.n_k:  # nothing to do for anyone, and tensors along the keys have no elements
            return np.zeros((1, 1, at.q_tiles if boxed is None else boxed.n_q_tiles), dtype=np.int32)
        values = with_defaults(program, {**params, **arguments.as_numpy(tensors)})
        reads = frozenset[str]() if program.mask is None else free_vars(program.mask)
        per_batch, per_head = "b" in reads, "h" in reads
        leads = (at.batch if per_batch else 1, at.heads if per_head else 1)
        if boxed is not None:
            assert plan.boxes is not None
            from attngen.planner.evaluate_boxes import evaluate_boxes

            runs = evaluate_boxes(
                plan.boxes, boxed.boxes, values, boxed.extents, per_batch=per_batch, per_head=per_head
            )
            return work_of_runs(runs, (*leads, *boxed.extents.q_tiles))
        assert plan.ranges is not None
        pieces = evaluate_plan(plan.ranges, values, at, per_batch=per_batch, per_head=per_head)
        return work_of_pieces(pieces, (*leads, at.q_tiles))


def _box_values(
    shapes: Shapes, tensors: Mapping[str, Tensor], params: Mapping[str, Number], volume: tuple[int, int]
) -> Call:
    """A call as the shapes of boxes are chosen for it."""
    from attngen.planner.choose_boxes import Call

    values = {**params, **arguments.as_numpy(tensors)}
    return Call(values, shapes.n_q, shapes.n_k, shapes.batch, shapes.heads, *volume)


def _heads_together(shapes: Shapes, query: Tensor) -> int:
    """Heads whose keys and values take half of a GPU's second-level cache; the cores of a CPU work on one head."""
    if query.device.type == "cpu":
        return 1
    nbytes = shapes.n_k * (shapes.head_dim + shapes.value_dim) * query.element_size()
    cache: int = torch.cuda.get_device_properties(query.device).L2_cache_size
    return max(cache // 2 // max(nbytes, 1), 1) * (shapes.heads // shapes.kv_heads)


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
