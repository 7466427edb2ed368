"""Print what a kernel writes: rows and accumulators at its end, pairs and blocks of them in its loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attngen.emit.spec import KernelSpec
from attngen.emit.tile import StoreBlock
from attngen.emit.triton.features import features
from attngen.emit.triton.names import topk_indices
from attngen.emit.triton.places import Places
from attngen.errors import UnsupportedError

_BLOCK_REDUCE = {"max": "block_max({})", "min": "block_min({})", "sum": "tl.sum({}, axis=2)"}


@dataclass(frozen=True, slots=True)
class Store:
    """One output: where its head begins, where its elements go, in which dtype, and which of them exist."""

    base: str
    pointer: str
    value: str
    mask: str


def final_stores(spec: KernelSpec, names: Mapping[str, str], at: Places) -> list[Store]:
    """What is written after the loops, of the rows that are there."""
    out: list[Store] = []
    ranks = features(spec)
    for o in spec.tile.outputs:
        name = o.name
        base = f"{name}_base = {at.head(name)}"
        if o.space == "acc":
            feature = ranks[o.feature]
            mask = _rows(at.exists)
            if feature.pads:
                mask += f" & ({feature.lane} < {feature.width})[None, :]"
            lane = f"{feature.wide}[None, :] * {name}_stride_{feature.lane}"
            pointer = f"{name}_base + {at.row(name, column=True)} + {lane}"
            value = names[o.source]
            if o.rounded:
                value = f"{value}.to({name}_ptr.dtype.element_ty)"
            elif o.source in topk_indices(spec.tile):
                value = f"{value}.to(tl.float32)"
            out.append(Store(base, pointer, value, mask))
        elif o.space == "row":
            pointer = f"{name}_base + {at.row(name, column=False)}"
            out.append(Store(base, pointer, names[o.source], at.exists))
    return out


def store_rows(spec: KernelSpec, at: Places) -> list[str]:
    """Before the loops: where each row begins of what is written in them."""
    stepwise = (o.name for o in spec.tile.outputs if o.space in ("pair", "block"))
    return [f"{name}_rows = {at.head(name)} + {at.row(name, column=True, ends=False)}" for name in stepwise]


def pair_store(name: str, pairs: str, exists: str, *, masked: bool) -> str:
    """The statement that writes a value of each kept pair."""
    mask = f"keep & {_rows(exists)}" if masked else _rows(exists)
    return f"tl.store({name}_rows + k.to(tl.int64)[None, :] * {name}_stride_k, {pairs}, mask={mask})"


def block_store(name: str, op: str, pairs: str, width: int, exists: str, *, masked: bool) -> list[str]:
    """The statements that reduce each block of keys and write what holds a kept pair."""
    if op not in _BLOCK_REDUCE:
        raise UnsupportedError(f"Triton has no reduction over blocks of keys for {op}")
    blocks = f"[BLOCK_Q, BLOCK_K // {width}, {width}]"
    reduced = _BLOCK_REDUCE[op].format(f"tl.reshape({pairs}, {blocks})")
    lines = [
        f"{name}_block = start // {width} + tl.arange(0, BLOCK_K // {width})",
        f"{name}_tile = {reduced}",
    ]
    mask = _rows(exists)
    if masked:
        lines.append(f"{name}_kept = tl.max(tl.reshape(keep.to(tl.int32), {blocks}), axis=2) > 0")
        mask = f"{name}_kept & {mask}"
    pointer = f"{name}_rows + {name}_block.to(tl.int64)[None, :] * {name}_stride_block"
    return [*lines, f"tl.store({pointer}, {name}_tile, mask={mask})"]


def check_blocks(spec: KernelSpec, block_k: int) -> None:
    """Raise UnsupportedError where a tile of keys is no whole number of blocks."""
    for step in spec.tile.steps:
        if not isinstance(step, StoreBlock):
            continue
        divides = block_k % step.width == 0 and step.width & (step.width - 1) == 0
        if spec.boxes is not None or not divides:
            raise UnsupportedError(
                f"{step.name}: a block of {step.width} keys lies in no tile of {block_k} keys",
                hint="blocks are powers of two, of keys that lie on a line",
            )


def _rows(exists: str) -> str:
    """The rows that are there, along the first axis of a tile."""
    return f"({exists})[:, None]" if " " in exists else f"{exists}[:, None]"
