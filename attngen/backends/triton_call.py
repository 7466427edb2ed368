"""What a call passes to a kernel written in Triton, however the kernel was compiled; nothing of Triton is needed.

Call  ->  [Q, Q.stride(0), ..., n_b, n_h, n_q, n_k, group, scale, ...]  one value for each of the kernel's arguments
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeAlias

import torch

from attngen.backends.base import Call, order_of
from attngen.emit.triton.config import TritonConfig
from attngen.emit.triton.names import MAX_POSITION, Arg
from attngen.errors import LaunchError, ShapeError, UnsupportedError
from attngen.planner.plan import BlockLists, DeviceBlockLists

Passed: TypeAlias = "torch.Tensor | float | bool"

_NEAR = 2**31 - 1  # elements inside a tile, which 32-bit offsets count

log = logging.getLogger("attngen.backends.triton")


@dataclass(frozen=True, slots=True)
class _DeviceLists:
    """Block lists on the kernel's device, kept while the same lists are launched again."""

    lists: BlockLists
    tensors: Mapping[str, torch.Tensor]


class CallArgs:
    """How one kernel takes its calls. Calls from several threads at once are fine."""

    def __init__(self, args: tuple[Arg, ...], config: TritonConfig) -> None:
        self.args, self.config = args, config
        self.packed = config.pack_heads
        self.needs_lists = any(a.role == "list_pointer" for a in args)
        self.needs_order = any(a.role == "order_pointer" for a in args)
        self._held: _DeviceLists | None = None

    def rows(self, call: Call) -> int:
        """The rows of work of a call, 0 for one without outputs.

        Raises UnsupportedError, ShapeError for a captured tensor without elements.
        """
        n_b, n_h, n_q, n_k = call.extents
        if max(n_q, n_k) > MAX_POSITION:
            raise UnsupportedError(f"the Triton backend takes at most {MAX_POSITION} tokens")
        rows = self._work_rows(call) if n_b and n_h and n_q else 0
        for name, tensor in call.tensors.items() if rows and n_k else ():
            if tensor.numel() == 0:
                raise ShapeError(f"tensor `{name}` has no elements: shape {tuple(tensor.shape)}")
        return rows

    def programs(self, rows: int, device: torch.device) -> int:
        """Programs of a launch: one a tile of queries, or as many as the device runs at once."""
        turns = self.config.persistent
        return min(rows, turns * multiprocessors(device)) if turns else rows

    def near(self, call: Call) -> Call:
        """The call with every tensor whose keys lie too far apart for 32-bit offsets inside a tile copied together."""
        far = [n for n, t in (("key", call.key), ("value", call.value)) if self._is_far(t)]
        tensors = {n: t.contiguous() for n, t in call.tensors.items() if t.dim() > 1 and self._is_far(t)}
        if not far and not tensors:
            return call
        log.info("copied %s: their rows lie too far apart for a tile", ", ".join([*far, *tensors]))
        inputs = {name: getattr(call, name).contiguous() for name in far}
        return replace(call, **inputs, tensors={**call.tensors, **tensors})

    def value(self, arg: Arg, call: Call) -> Passed:
        """What a call passes as an argument: a tensor for a pointer, else a number. Raises LaunchError."""
        match arg.role:
            case "pointer":
                return tensor_of(arg.of, call)
            case "stride":
                return tensor_of(arg.of, call).stride(arg.axis)
            case "size":
                return tensor_of(arg.of, call).shape[arg.axis]
            case "param":
                return call.params[arg.of]
            case "extent":
                return _extent(arg.of, call)
            case "list_pointer":
                return self._lists(call)[arg.of]
            case "list_stride":
                return _list_stride(arg.of, call)
            case "order_pointer":
                return order_of(call, self._work_rows(call))

    def _is_far(self, tensor: torch.Tensor) -> bool:
        row, feature = tensor.stride()[-2:]
        return self.config.block_k * row + tensor.shape[-1] * feature > _NEAR

    def _work_rows(self, call: Call) -> int:
        """Tiles of queries of a call: of every query head or, packed, of every key head. Raises UnsupportedError."""
        n_b, n_h, n_q, _ = call.extents
        if not self.packed:
            tiles = -(-n_q // self.config.block_q) if call.n_q_tiles is None else call.n_q_tiles
            return n_b * n_h * tiles
        n_kv = call.key.shape[1]
        if n_h % n_kv or n_q * (n_h // n_kv) > MAX_POSITION:
            raise UnsupportedError(
                f"{n_h} heads of {n_q} rows cannot share tiles over {n_kv} key heads",
                hint=f"heads are a multiple of key heads; those of one have at most {MAX_POSITION} rows together",
            )
        return n_b * n_kv * -(-n_q * (n_h // n_kv) // self.config.block_q)

    def _lists(self, call: Call) -> Mapping[str, torch.Tensor]:
        lists = _lists_of(call)
        if isinstance(lists, DeviceBlockLists):
            return {
                "partial_lists": lists.partial_ptr,
                "partial_index": lists.partial_index,
                "full_lists": lists.full_ptr,
                "full_index": lists.full_index,
            }
        held = self._held
        if held is None or held.lists is not lists:
            held = self._held = _DeviceLists(lists, _on_device(lists, call.query.device))
        return held.tensors


def tensor_of(name: str, call: Call) -> torch.Tensor:
    """The tensor that a kernel knows by a name: an output, an input or a captured one."""
    if name in call.outputs:
        return call.outputs[name]
    inputs = {"Q": call.query, "K": call.key, "V": call.value}
    return inputs[name] if name in inputs else call.tensors[name]


@cache
def multiprocessors(device: torch.device) -> int:
    """Of a GPU; of a CPU, which interprets kernels, a few, so that programs take turns there too."""
    if device.type != "cuda":
        return 3
    return torch.cuda.get_device_properties(device).multi_processor_count


def _extent(name: str, call: Call) -> int:
    if name == "group":
        return call.extents[1] // call.key.shape[1]
    return call.extents[("n_b", "n_h", "n_q", "n_k").index(name)]


def _lists_of(call: Call) -> BlockLists | DeviceBlockLists:
    if call.lists is None:
        raise LaunchError("this mask is scheduled ahead of the launch, and the call brings no lists")
    return call.lists


def _list_stride(axis: str, call: Call) -> int:
    lists = _lists_of(call)
    if axis == "h":
        return lists.n_q_tiles if lists.heads > 1 else 0
    return lists.heads * lists.n_q_tiles if lists.batch > 1 else 0


def _on_device(lists: BlockLists, device: torch.device) -> dict[str, torch.Tensor]:
    arrays = {
        "partial_lists": lists.partial_ptr,
        "partial_index": lists.partial_index,
        "full_lists": lists.full_ptr,
        "full_index": lists.full_index,
    }
    return {
        # an empty tensor has no address: one unused element gives it one
        n: torch.from_numpy(a).to(device) if a.size else torch.zeros(1, dtype=torch.int32, device=device)
        for n, a in arrays.items()
    }
