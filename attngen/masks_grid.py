"""The catalogue's masks over grids of tokens, groups, blocks and frames. Import them from `attngen.masks`.

The extents of a grid are given with the call, as `grid=(height, width)`, or bound: `neighborhood((7, 7)).bind(grid=(56,
56))`. Widths are run-time scalars, so that changing one compiles nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from attngen.capture import Mask, mask
from attngen.errors import DTypeError, ParameterError, ShapeError
from attngen.lang.trace import extent, grid_size, param, pos

__all__ = ["elastic_window", "frames", "grouped", "neighborhood", "shifted_windows", "strided_blocks"]

_AXES = {1: ("x",), 2: ("y", "x"), 3: ("t", "y", "x")}


def neighborhood(
    window: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    stride: int | Sequence[int] = 1,
    causal: bool | Sequence[bool] = False,
    axes: Sequence[str] | None = None,
) -> Mask:
    """The nearest `window` tokens along each axis of a grid, moved inwards at the borders.

    Hassani et al., arXiv:2403.04690 and arXiv:2204.07143; the programs `neighborhood_1d`, `_2d` and `_3d` say what
    exactly is kept. A number is for every axis, a sequence has one value an axis, slowest first. The axes are called
    x; y, x; or t, y, x by the length of `window`, unless `axes` names them. Requires window * dilation <= the axis's
    extent at the call; an even window has its spare token before the query. Raises ParameterError for a window or
    dilation below 1 or a stride outside 1 .. window.
    """
    windows = [window] if isinstance(window, int) and axes is None else window
    n = len(axes) if axes is not None else len(windows) if isinstance(windows, Sequence) else 1
    if axes is None and n not in _AXES:
        raise ParameterError(f"`window` has {n} axes, and names are known for 1 to 3", hint="give axes=(...)")
    names = tuple(axes) if axes is not None else _AXES[n]
    per_axis = {
        key: _each(key, value, n)
        for key, value in (
            ("window", windows),
            ("dilation", dilation),
            ("stride", stride),
            ("causal", causal),
        )
    }
    numbers: dict[str, int | bool] = {}
    for i, axis in enumerate(names):
        for key in ("window", "dilation", "stride"):
            numbers[f"{key}_{axis}"] = _number(f"{key}_{axis}", per_axis[key][i], 1)
        numbers[f"causal_{axis}"] = bool(per_axis["causal"][i])
        if numbers[f"stride_{axis}"] > numbers[f"window_{axis}"]:
            raise ParameterError(
                f"`stride_{axis}` is more than `window_{axis}`: some query would see nothing"
            )
    return _neighborhood(names).bind(**numbers)


@lru_cache(maxsize=32)
def _neighborhood(names: tuple[str, ...]) -> Mask:
    """The mask over these axes, traced once: its numbers are parameters."""
    rules: list[tuple[str, Any, Any, Any, Any]] = []
    for axis in names:
        w, t = param(f"window_{axis}", 1), param(f"stride_{axis}", 1)
        d = param(f"dilation_{axis}", 1, const=True)
        rules.append((axis, w, d, t, param(f"causal_{axis}", False, const=True)))

    @mask(grid=names)
    def neighborhood(b: Any, h: Any, q: Any, k: Any) -> Any:
        kept: Any = None
        for axis, w, d, t, only_past in rules:
            query, key = getattr(q, axis), getattr(k, axis)
            place = query // d
            length = (grid_size(axis) + d - 1 - query % d) // d  # of the query's residue class
            first = place // t * t + torch.where(only_past, t - w, t // 2 - w // 2)
            offset = key // d - torch.clamp(first, torch.as_tensor(0), length - w)
            past = key // d <= place + torch.where(only_past, 0, w)
            part = (key % d == query % d) & (offset >= 0) & (offset < w) & past
            kept = part if kept is None else kept & part
        return kept

    return neighborhood


def shifted_windows(window: int, shift: int = 0) -> Mask:
    """Windows of `window` x `window` tokens of an image, on a grid of windows that begins `shift` tokens in.

    Swin transformer, Liu et al., arXiv:2103.14030, section 3.2: windows are cut at the borders, nothing wraps. The
    program `swin` adds the bias for each offset.
    """
    side, move = _whole("window", window, 1), _whole("shift", shift, 0)

    @mask(grid=("y", "x"))
    def shifted_windows(b: Any, h: Any, q: Any, k: Any) -> Any:
        same_y = (q.y + side - move) // side == (k.y + side - move) // side
        return same_y & ((q.x + side - move) // side == (k.x + side - move) // side)

    return shifted_windows


def strided_blocks(
    block: int,
    local_blocks: int,
    stride: int,
    *,
    n_dense: int = 0,
    group: int = 1,
    offset: int = 0,
    homo: bool = False,
) -> Mask:
    """Causal: the last `local_blocks` blocks, and every `stride`-th block, which every head counts from elsewhere.

    S2-Attention, Lin et al., arXiv:2407.17678; the program `s2_attention`. The last `n_dense` key heads are dense,
    `group` is query heads over key heads, `offset` shifts all stripes, and with `homo` all heads have those of head 0.
    """
    size = param("block", _number("block", block, 1), const=True)
    near = _whole("local_blocks", local_blocks, 0)
    step, dense = _whole("stride", stride, 1), _whole("n_dense", n_dense, 0)
    shared, moved = _whole("group", group, 1), _whole("offset", offset, 0)
    one: Any = param("homo", bool(homo))

    def strided_blocks(b: Any, h: Any, q: Any, k: Any) -> Any:
        head, heads = h // shared, extent("n_h")
        key_block = k // size
        shift = torch.where(one, 0, head) * torch.clamp(step // heads, min=1)
        stripe = (key_block + shift + moved) % step == 0
        local = pos(q) // size - key_block < near
        return (k <= pos(q)) & ((head >= heads // shared - dense) | local | stripe)

    return mask(strided_blocks)


def grouped(group: int) -> Mask:
    """Causal inside groups of `group` tokens; half the heads have their groups shifted by half a group.

    LongLoRA's S2-Attn, Chen et al., arXiv:2309.12307, section 3.2, without wrapping; the program `longlora`.
    """
    size = _whole("group", group, 1)

    def grouped(b: Any, h: Any, q: Any, k: Any) -> Any:
        shift = torch.where(h < extent("n_h") // 2, 0, size // 2)
        return (k <= pos(q)) & ((k - shift) // size == (pos(q) - shift) // size)

    return mask(grouped)


def frames(frame: int, reference: Tensor | None = None) -> Mask:
    """Tokens see their own frame of `frame` tokens and the reference frames, which see everything.

    Efficient-vDiT, Ding et al., arXiv:2502.06155; the program `vdit_tile`. `reference` is a boolean tensor with an
    entry a frame; without it there are no reference frames.
    """
    size = _whole("frame", frame, 1)
    if reference is not None and (reference.dtype is not torch.bool or reference.ndim != 1):
        error = DTypeError if reference.dtype is not torch.bool else ShapeError
        raise error(
            f"`reference` is a boolean tensor [frames], not {reference.dtype} {list(reference.shape)}"
        )

    def frames(b: Any, h: Any, q: Any, k: Any) -> Any:
        own = pos(q) // size == k // size
        return own if reference is None else own | reference[pos(q) // size] | reference[k // size]

    return mask(frames)


def elastic_window(alpha: Tensor, beta: Tensor, length: int, block: int = 64) -> Tensor:
    """The window of each head for an input of `length` tokens, int32 of the shape of `alpha`.

    MoA, Fu et al., arXiv:2406.14909: alpha + beta * length, rounded up to blocks of `block` and at most `length`,
    computed in float64. For `attngen.load("moa", window=...)` and `sliding_window_sink(window, sink)`. `alpha` and
    `beta` are tensors [H] of tokens, and of tokens for each token of the input.
    """
    if length < 0 or block < 1:
        raise ParameterError(f"`length` is {length} and `block` {block}; they are at least 0 and 1")
    width = torch.as_tensor(alpha).double() + torch.as_tensor(beta).double() * length
    blocks = torch.ceil(width / block - 1e-6)  # 0.1 * 640 is one block of 64, in float32 too
    return (blocks * block).clamp(0, length).int()


def _whole(name: str, value: Any, at_least: int) -> Any:
    """An integer as a run-time parameter."""
    return param(name, _number(name, value, at_least))


def _number(name: str, value: Any, at_least: int) -> int:
    """An integer of at least `at_least`. Raises ParameterError."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ParameterError(f"`{name}` is an integer, not {value!r}")
    number = value.__index__()
    if number < at_least:
        raise ParameterError(f"`{name}` is at least {at_least}, not {number}")
    return number


def _each(name: str, value: Any, n: int) -> list[Any]:
    """One value an axis."""
    values = list(value) if isinstance(value, Sequence) else [value] * n
    if len(values) != n:
        raise ParameterError(f"`{name}` has {len(values)} values for {n} axes")
    return values
