"""Group A: what the papers' own code does, by rolling, cutting, gathering and folding, against one program each.

Every procedure is written here in float64, from tensors alone. The programs move no token.
"""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

import attngen
from tests.oracle import Shape, make_inputs
from tests.papers.definitions import longlora_segments, natten_axis


def inputs(n_q, n_k=None, *, b=2, h=4, hkv=None, d=8):
    shape = Shape(b=b, h=h, hkv=hkv or h, n_q=n_q, n_k=n_k or n_q, d=d, e=d)
    return tuple(x.double() for x in make_inputs(shape))


def check(program, q, k, v, want, **values):
    got = attngen.load(program, ("O",), **values).reference(q, k, v)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)


def windows(x, height, width, w):
    """`[B, H, N, D]` of an image as `[B, windows, H, w * w, D]`, as `window_partition` cuts it."""
    b, h, _, d = x.shape
    cut = x.reshape(b, h, height // w, w, width // w, w, d)
    return cut.permute(0, 2, 4, 1, 3, 5, 6).reshape(b, -1, h, w * w, d)


def image(x, height, width, w):
    """The inverse of `windows`."""
    b, _, h, _, d = x.shape
    back = x.reshape(b, height // w, width // w, h, w, w, d).permute(0, 3, 1, 4, 2, 5, 6)
    return back.reshape(b, h, height * width, d)


def roll(x, height, width, shift):
    b, h, n, d = x.shape
    return x.reshape(b, h, height, width, d).roll((shift, shift), (2, 3)).reshape(b, h, n, d)


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_swin_rolls_cuts_and_masks(shift):
    height, width, w, heads = 8, 12, 4, 4
    q, k, v = inputs(height * width, h=heads)
    table = torch.randn((2 * w - 1) ** 2, heads)
    rolled = [windows(roll(x, height, width, -shift), height, width, w) for x in (q, k, v)]
    # relative_position_index and the attention mask of the published code
    at = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(w), indexing="ij")).flatten(1)
    relative = (at[:, :, None] - at[:, None, :]).permute(1, 2, 0) + w - 1
    index = relative[..., 0] * (2 * w - 1) + relative[..., 1]
    bias = table.double()[index].permute(2, 0, 1)
    region = torch.zeros(1, 1, height, width, 1, dtype=torch.double)
    cuts = [slice(0, -w), slice(-w, -shift), slice(-shift, None)] if shift else [slice(None)]
    for n, (rows, columns) in enumerate(product(cuts, cuts)):
        region[:, :, rows, columns] = n
    regions = windows(region.reshape(1, 1, -1, 1), height, width, w)[0, :, 0, :, 0]
    apart = (regions[:, :, None] != regions[:, None, :])[None, :, None]
    mask = bias + torch.zeros_like(apart, dtype=torch.double).masked_fill(apart, -torch.inf)
    want = roll(image(sdpa(*rolled, attn_mask=mask), height, width, w), height, width, shift)
    check("swin", q, k, v, want, grid=(height, width), window=w, shift=shift, bias=table)


def test_vitdet_attends_to_the_image_and_to_the_rolled_image():
    height, width, w = 8, 12, 4
    q, k, v = inputs(height * width)

    def attend(*qkv):
        return image(sdpa(*(windows(x, height, width, w) for x in qkv)), height, width, w)

    check("vitdet_window", q, k, v, attend(q, k, v), grid=(height, width), window=w)
    rolled = roll(attend(*(roll(x, height, width, 2) for x in (q, k, v))), height, width, -2)
    check("vitdet_roll", q, k, v, rolled, grid=(height, width), window=w, shift=2)


def test_natten_gathers_the_window_of_each_query():
    grid, rules = (7, 9), ((3, 2, 1, False), (4, 1, 2, True))
    q, k, v = inputs(63, h=2)
    want = torch.empty_like(q)
    near = [natten_axis(n, *rule) for n, rule in zip(grid, rules, strict=True)]
    for y, x in product(range(7), range(9)):
        keys = [i * 9 + j for i in near[0][y].nonzero()[0] for j in near[1][x].nonzero()[0]]
        at = slice(y * 9 + x, y * 9 + x + 1)
        want[:, :, at] = sdpa(q[:, :, at], k[:, :, keys], v[:, :, keys])
    values = {
        f"{name}_{axis}": value
        for axis, rule in zip("yx", rules, strict=True)
        for name, value in zip(("window", "dilation", "stride", "causal"), rule, strict=True)
    }
    check("neighborhood_2d", q, k, v, want, grid=grid, **values)


def test_dilation_is_the_same_window_in_each_residue_class():
    """With a dilation that divides the extent, dilated attention is plain attention on folded classes."""
    q, k, v = inputs(60, h=2)
    fold = [x.reshape(2, 2, 12, 5, 8).permute(0, 3, 1, 2, 4).reshape(10, 2, 12, 8) for x in (q, k, v)]
    inner = attngen.load("neighborhood_1d", ("O",), grid=(12,), window_x=5).reference(*fold)
    want = inner.reshape(2, 5, 2, 12, 8).permute(0, 2, 3, 1, 4).reshape(2, 2, 60, 8)
    check("neighborhood_1d", q, k, v, want, grid=(60,), window_x=5, dilation_x=5)


def test_longlora_rolls_half_of_the_heads():
    n, group = 96, 24
    q, k, v = inputs(n)

    def shift(x, by):
        return torch.cat((x[:, :2], x[:, 2:].roll(by, 2)), 1)

    grouped = [shift(x, -(group // 2)).reshape(2, 4, n // group, group, 8) for x in (q, k, v)]
    inside = sdpa(*grouped, is_causal=True).reshape(2, 4, n, 8)
    check("longlora_roll", q, k, v, shift(inside, group // 2), group=group)


@pytest.mark.parametrize("n", [96, 100, 11])
def test_longlora_packs_sequences_of_a_group(n):
    group = 24
    q, k, v = inputs(n)
    want = torch.empty_like(q)
    for h in range(4):
        ends = longlora_segments(n, group, h >= 2)
        for first, last in pairwise(ends):
            at = (slice(None), slice(h, h + 1), slice(first, last))
            want[at] = sdpa(q[at], k[at], v[at], is_causal=True)
    check("longlora", q, k, v, want, group=group)


def test_s2_attends_to_a_list_of_blocks():
    """Heads of queries share their key head's list; blocks of queries gather the blocks of keys on it."""
    n, block, local, stride, heads = 160, 16, 2, 4, 4
    q, k, v = inputs(n, h=heads, hkv=2)
    want = torch.empty_like(q)
    for h, row in product(range(heads), range(n // block)):
        kv = h // 2
        step = max(1, stride // heads)
        on_list = [c for c in range(row + 1) if row - c < local or (c + kv * step) % stride == 0]
        keys = torch.cat([torch.arange(c * block, (c + 1) * block) for c in on_list])
        rows = torch.arange(row * block, (row + 1) * block)
        want[:, h, rows] = sdpa(
            q[:, h, rows], k[:, kv, keys], v[:, kv, keys], attn_mask=keys[None] <= rows[:, None]
        )
    check("s2_attention", q, k, v, want, block=block, local_blocks=local, stride=stride, group=2)


def test_moa_reads_a_table_of_windows():
    q, k, v = inputs(100)
    alpha, beta = torch.tensor([10, 0, 60, 20]), torch.tensor([0.0, 0.5, 0.3, 2.0])
    windows_of = attngen.masks.elastic_window(alpha, beta, 100, block=8)
    assert windows_of.tolist() == [16, 56, 96, 100]
    want = torch.empty_like(q)
    for h, i in product(range(4), range(100)):
        keys = sorted({*range(min(4, i + 1)), *range(max(0, i + 1 - int(windows_of[h])), i + 1)})
        want[:, h, i : i + 1] = sdpa(q[:, h, i : i + 1], k[:, h, keys], v[:, h, keys])
    check("moa", q, k, v, want, sink=4, window=windows_of)


def test_efficient_vdit_attends_frame_by_frame():
    n, frame, references = 90, 20, [1, 3]
    q, k, v = inputs(n)
    want = torch.empty_like(q)
    spans = [torch.arange(f * 20, min(n, f * 20 + 20)) for f in range(5)]
    for f, rows in enumerate(spans):
        seen = range(5) if f in references else sorted({f, *references})
        keys = torch.cat([spans[g] for g in seen])
        want[:, :, rows] = sdpa(q[:, :, rows], k[:, :, keys], v[:, :, keys])
    table = torch.tensor([f in references for f in range(5)])
    check("vdit_tile", q, k, v, want, frame=frame, reference=table)


@pytest.mark.parametrize(("unit", "q_stride"), [(64, 4), (16, 4), (16, 1)])
def test_mask_units_that_lie_together(unit, q_stride):
    q, k, v = inputs(192)
    pooled = q.reshape(2, 4, 192 // q_stride, q_stride, 8).amax(3)
    cut = [x.reshape(2, 4, 192 // unit, -1, 8) for x in (pooled, k, v)]
    want = sdpa(*cut).reshape(2, 4, -1, 8)
    check("mask_unit", pooled, k, v, want, unit=unit, queries=unit // q_stride)


def test_mask_units_in_unrolled_order():
    """Hiera's own order: the tokens of a unit lie as far apart as there are units."""
    units, q_stride, inside = 6, 4, 16  # of each unit, 16 keys and 4 queries
    q, k, v = inputs(units * inside)
    split = [x.reshape(2, 4, inside, units, 8).transpose(2, 3) for x in (q, k, v)]
    pooled = split[0].reshape(2, 4, units, q_stride, -1, 8).amax(3)
    want = sdpa(pooled, *split[1:]).transpose(2, 3).reshape(2, 4, -1, 8)
    queries = pooled.transpose(2, 3).reshape(2, 4, -1, 8)
    check("temporal", queries, k, v, want, grid=(inside, units))


def test_lamp_replaces_keys_and_values_by_the_first_frame_s():
    frames, frame = 5, 12
    q, k, v = inputs(frames * frame)
    first = [x.reshape(2, 4, frames, frame, 8)[:, :, :1].expand(-1, -1, frames, -1, -1) for x in (k, v)]
    want = sdpa(q.reshape(2, 4, frames, frame, 8), *first).reshape(q.shape)
    check("lamp_first_frame", q, k, v, want, frame=frame)


def test_time_and_space_are_folded_into_the_batch():
    """LAMP's temporal attention, STTN's two transformers, LoCoNet's speakers."""
    steps, places = 7, 9
    q, k, v = inputs(steps * places)
    each_step = [x.reshape(2, 4, steps, places, 8) for x in (q, k, v)]
    want = sdpa(*each_step).reshape(q.shape)
    check("spatial", q, k, v, want, grid=(steps, places))
    each_place = [x.transpose(2, 3) for x in each_step]
    want = sdpa(*each_place).transpose(2, 3).reshape(q.shape)
    check("temporal", q, k, v, want, grid=(steps, places))


def test_todyformer_pads_the_windows_of_a_node():
    nodes = [3, 9, 1, 6]
    q, k, v = inputs(9, b=4)
    got = attngen.load("lengths", ("O",), length=torch.tensor(nodes)).reference(q, k, v)
    for b, n in enumerate(nodes):
        real = (slice(b, b + 1), slice(None), slice(0, n))
        torch.testing.assert_close(got[real], sdpa(q[real], k[real], v[real]), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("n_q", "n_k"), [(40, 40), (5, 40), (1, 40), (40, 7)])
def test_plain_causal_and_cross_attention(n_q, n_k):
    """OAT, MHAC, SEE, and LoCoNet's attention between sound and picture."""
    q, k, v = inputs(n_q, n_k)
    check("softmax", q, k, v, sdpa(q, k, v))
    if n_q <= n_k:
        past = torch.arange(n_k)[None] <= torch.arange(n_k - n_q, n_k)[:, None]
        check("causal", q, k, v, sdpa(q, k, v, attn_mask=past))
