"""Group A of the papers, defined by hand: which pairs each keeps, step by step as in the paper's own procedure.

Nothing here reads a program of `ir/`. A definition is a boolean array `[heads, n_q, n_k]`; heads is 1 where all agree.
"""

from __future__ import annotations

from itertools import pairwise, product
from math import ceil

import numpy as np
from numpy.typing import NDArray

Keep = NDArray[np.bool_]


def positions(n_q: int, n_k: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of queries, the last one at the last key, as a column, and of keys as a row."""
    return np.arange(n_k - n_q, n_k)[:, None], np.arange(n_k)[None]


def dense(n_q: int, n_k: int) -> Keep:
    return np.ones((1, n_q, n_k), bool)


def causal(n_q: int, n_k: int) -> Keep:
    i, k = positions(n_q, n_k)
    return (k <= i)[None]


def s2_blocks(n: int, head: int, heads: int, local: int, stride: int, offset: int = 0) -> np.ndarray:
    """DKernel's layout of one head, a block at a time: local blocks, and absolute stripes."""
    step = max(1, stride // heads)
    keep = np.zeros((n, n), bool)
    for row in range(n):
        keep[row, max(0, row - local + 1) : row + 1] = True
        for column in range(row + 1):
            if (column + head * step + offset) % stride == 0:
                keep[row, column] = True
    return keep


def s2_attention(
    n_q: int, n_k: int, heads: int, kv_heads: int, block: int, local: int, stride: int,
    n_dense: int = 0, offset: int = 0, homo: bool = False,
) -> Keep:  # fmt: skip
    n = ceil(n_k / block)
    out = []
    for query_head in range(heads):
        head = query_head // (heads // kv_heads)
        blocks = s2_blocks(n, 0 if homo else head, heads, local, stride, offset)
        if head in range(kv_heads - n_dense, kv_heads):
            blocks = np.tril(np.ones((n, n), bool))
        tokens = np.kron(blocks, np.ones((block, block), bool))[:n_k, :n_k]
        out.append(np.tril(tokens)[n_k - n_q :])
    return np.array(out)


def s2_bidirectional(
    n_q: int, n_k: int, heads: int, kv_heads: int, block: int, left: int, right: int, stride: int,
    n_dense: int = 0,
) -> Keep:  # fmt: skip
    """Local blocks, then every `stride`-th block outwards from the edges of the local band."""
    n = ceil(n_k / block)
    blocks = np.zeros((n, n), bool)
    for row in range(n):
        first, last = row - left + 1, row + right - 1
        columns = [*range(first, last + 1), *range(first, -1, -stride), *range(last, n, stride)]
        blocks[row, [c for c in columns if 0 <= c < n]] = True
    tokens = np.kron(blocks, np.ones((block, block), bool))[n_k - n_q : n_k, :n_k]
    kv = np.arange(heads) // (heads // kv_heads)
    return np.array([np.ones_like(tokens) if h >= kv_heads - n_dense else tokens for h in kv])


def longgen_blocks(
    n_q: int, n_k: int, heads: int, kv_heads: int, block: int, sink: int, local: int, stride: int
) -> Keep:
    keep = s2_attention(n_q, n_k, heads, kv_heads, block, local, stride)
    keep[:, :, : sink * block] = True
    return keep & causal(n_q, n_k)


def sink_window(n_q: int, n_k: int, sink: int, windows: list[int]) -> Keep:
    """Row by row: the first keys, and the last `window` of each head up to the query."""
    keep = np.zeros((len(windows), n_q, n_k), bool)
    for h, row in product(range(len(windows)), range(n_q)):
        at = row + n_k - n_q
        keep[h, row, max(0, at - windows[h] + 1) : at + 1] = True
        keep[h, row, : min(sink, at + 1)] = True
    return keep


def vdit(n_q: int, n_k: int, frame: int, references: set[int]) -> Keep:
    """Three rectangles a frame: itself, its row if it is a reference, and the columns of the references."""
    keep = np.zeros((n_k, n_k), bool)
    for f in range(ceil(n_k / frame)):
        own = slice(f * frame, (f + 1) * frame)
        keep[own, own] = True
        if f in references:
            keep[own], keep[:, own] = True, True
    return keep[None, n_k - n_q :]


def longlora_segments(n: int, group: int, shifted: bool) -> list[int]:
    """`cu_seqlens` of LongLoRA's variable-length path for one sequence: shifted, the first group is half as long."""
    cuts = range(group // 2 if shifted else group, n, group)
    return [0, *cuts, n]


def longlora(n_q: int, n_k: int, heads: int, group: int, sink: int = 0) -> Keep:
    keep = np.zeros((heads, n_k, n_k), bool)
    for h in range(heads):
        ends = longlora_segments(n_k, group, h >= heads // 2)
        for first, last in pairwise(ends):
            keep[h, first:last, first:last] = np.tril(np.ones((last - first, last - first), bool))
    keep[:, :, :sink] = True
    return keep[:, n_k - n_q :] & causal(n_q, n_k)


def longlora_roll(n: int, heads: int, group: int) -> Keep:
    """Roll by half a group, attend causally inside groups, roll back: token numbers travel with their tokens."""
    keep = np.zeros((heads, n, n), bool)
    for h in range(heads):
        tokens = np.roll(np.arange(n), -(group // 2) if h >= heads // 2 else 0)
        for first in range(0, n, group):
            inside = tokens[first : first + group]
            for place, query in enumerate(inside):
                keep[h, query, inside[: place + 1]] = True
    return keep


def natten_axis(size: int, window: int, dilation: int, stride: int, causal: bool) -> np.ndarray:
    """One axis as NATTEN's kernels walk it: a dilation group at a time, start and end of the window of a query."""
    keep = np.zeros((size, size), bool)
    for x in range(size):
        group, place = x % dilation, x // dilation
        length = len(range(group, size, dilation))
        if causal:
            leader = min(place // stride * stride + stride - 1, length - 1)
            start, end = max(leader - window + 1, 0), place + 1
        else:
            leader = min(place // stride * stride + stride // 2, length - 1)
            left, right = window // 2, window // 2 + window % 2 - 1
            start = max(leader - left, 0)
            if leader + right >= length:
                start += length - right - leader - 1
            end = start + window
        keep[x, group + dilation * np.arange(start, end)] = True
    return keep


def neighborhood(
    grid: tuple[int, ...], window: tuple[int, ...], dilation: tuple[int, ...], stride: tuple[int, ...],
    causal: tuple[bool, ...],
) -> Keep:  # fmt: skip
    keep = np.ones((1, 1), bool)
    for axis in zip(grid, window, dilation, stride, causal, strict=True):
        keep = np.kron(keep, natten_axis(*axis))
    return keep[None]


def swin(height: int, width: int, window: int, shift: int) -> Keep:
    """Pad to whole windows, roll, cut windows, and mask pairs of unlike regions and the padding."""
    h, w = (ceil(n / window) * window for n in (height, width))
    number = np.full((h, w), -1)
    number[:height, :width] = np.arange(height * width).reshape(height, width)
    cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None)) if shift else (slice(None),)
    region = np.zeros((h, w), int)
    for label, (rows, columns) in enumerate(product(cuts, cuts)):
        region[rows, columns] = label
    number = np.roll(number, (-shift, -shift), (0, 1))
    keep = np.zeros((height * width, height * width), bool)
    for y, x in product(range(0, h, window), range(0, w, window)):
        here = (slice(y, y + window), slice(x, x + window))
        tokens, regions = number[here].ravel(), region[here].ravel()
        for token, label in zip(tokens, regions, strict=True):
            if token >= 0:
                keep[token, tokens[(tokens >= 0) & (regions == label)]] = True
    return keep[None]


def rolled_windows(height: int, width: int, window: int, shift: int = 0) -> Keep:
    """Roll the image by `shift`, and let the tokens of each window see each other."""
    number = np.roll(np.arange(height * width).reshape(height, width), (shift, shift), (0, 1))
    keep = np.zeros((height * width, height * width), bool)
    for y, x in product(range(0, height, window), range(0, width, window)):
        tokens = number[y : y + window, x : x + window].ravel()
        keep[np.ix_(tokens, tokens)] = True
    return keep[None]


def mask_units(n_k: int, unit: int, q_stride: int) -> Keep:
    pooled = unit // q_stride
    keep = np.zeros((n_k // q_stride, n_k), bool)
    for u in range(n_k // unit):
        keep[u * pooled : (u + 1) * pooled, u * unit : (u + 1) * unit] = True
    return keep[None]


def fold(sizes: tuple[int, int], axis: int) -> Keep:
    """Tokens of a grid of two axes that share the coordinate of `axis`: the batch that a model folds it into."""
    tokens = np.arange(sizes[0] * sizes[1]).reshape(sizes)
    keep = np.zeros((tokens.size, tokens.size), bool)
    for at in range(sizes[axis]):
        line = tokens.take(at, axis)
        keep[np.ix_(line, line)] = True
    return keep[None]


def first_frame(n_q: int, n_k: int, frame: int) -> Keep:
    keep = np.zeros((1, n_q, n_k), bool)
    keep[:, :, :frame] = True
    return keep
