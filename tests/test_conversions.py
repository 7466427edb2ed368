"""Masks of other systems: each against a dense definition written on its own, and against FlexAttention."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask, flex_attention

import attngen
from attngen import masks
from attngen.api import Attention
from attngen.capture import Mask
from attngen.errors import (
    DTypeError,
    HeadCountError,
    ParameterError,
    ProgramTypeError,
    ShapeError,
    UnsupportedError,
)
from tests.captured import B, H, reference
from tests.oracle import Shape, assert_matches_reference, make_inputs

PROPERTY = settings(max_examples=40, deadline=None, print_blob=True)
SEEDS = st.integers(0, 2**16)


def kept(m: Mask, n_q: int, n_k: int) -> np.ndarray:
    return reference(m, n_q=n_q, n_k=n_k)


def tiles(m: Mask, n_q: int, n_k: int, block_q: int, block_k: int) -> np.ndarray:
    found = Attention(mask=m).schedule(n_q, n_k, B, H, block_q=block_q, block_k=block_k).tiles()
    return np.broadcast_to(found.numpy(), (B, H, *found.shape[2:]))


# Dense tensors.


@PROPERTY
@given(SEEDS, st.sampled_from([(B, H), (1, H), (B, 1), (1, 1), (B,), (1,), ()]), st.booleans(), st.booleans())
def test_dense(seed, leading, one_q, one_k):
    n_q, n_k = 5, 6
    rng = np.random.default_rng(seed)
    table = rng.random((*leading, 1 if one_q else n_q, 1 if one_k else n_k)) < 0.5
    axes = table[:, None] if len(leading) == 1 else table
    want = np.broadcast_to(axes, (B, H, n_q, n_k))
    np.testing.assert_array_equal(kept(masks.from_dense(torch.from_numpy(table)), n_q, n_k), want)


def test_dense_runs_as_in_sdpa():
    shape = Shape(b=B, h=H, hkv=H, n_q=40, n_k=50, d=16, e=16)
    query, key, value = make_inputs(shape)
    table = torch.rand(B, 1, 40, 50, generator=torch.Generator().manual_seed(1)) < 0.7
    out = attngen.attention(query, key, value, mask=masks.from_dense(table))
    want = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=table)
    torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-5)
    with pytest.raises(ShapeError, match="axis 2"):
        attngen.attention(query, key, value, mask=masks.from_dense(table[..., :30]))


# Maps of blocks.


@PROPERTY
@given(SEEDS, st.integers(1, 5), st.integers(1, 7), st.sampled_from([(B, H), (1, H), (B, 1), (B,), ()]))
def test_blocks(seed, block_q, block_k, leading):
    n_q, n_k = 13, 17
    rng = np.random.default_rng(seed)
    blocks = rng.random((*leading, -(-n_q // block_q), -(-n_k // block_k))) < 0.5
    want = np.zeros((B, H, n_q, n_k), bool)
    for b, h, q, k in np.ndindex(want.shape):
        at = {0: (), 1: (b,), 2: (b % blocks.shape[0], h % blocks.shape[1] if len(leading) == 2 else 0)}
        want[b, h, q, k] = blocks[(*at[len(leading)], q // block_q, k // block_k)]
    np.testing.assert_array_equal(
        kept(masks.from_blocks(torch.from_numpy(blocks), block_q, block_k), n_q, n_k), want
    )


@pytest.mark.parametrize("times", [1, 2])
def test_blocks_of_whole_tiles_have_no_partial_tile(times):
    seed = random.randrange(1 << 30)
    blocks = torch.rand(B, H, 4, 6, generator=torch.Generator().manual_seed(seed)) < 0.4
    got = tiles(masks.from_blocks(blocks, 16 * times, 8 * times), 64 * times, 48 * times, 16, 8)
    want = np.where(blocks, 2, 0).repeat(times, 2).repeat(times, 3)
    np.testing.assert_array_equal(got, want, err_msg=f"seed {seed}")


# BlockMask.


def hand_built(seed: int, batch: int, heads: int, with_full: bool, mask_mod) -> tuple[BlockMask, np.ndarray]:
    """A BlockMask whose lists do not follow its mask_mod, and what it means on 3 x 4 blocks of 8 x 4."""
    rng = np.random.default_rng(seed)
    what = rng.choice(3 if with_full else 2, (batch, heads, 3, 4))  # 0 nothing, 1 partial, 2 full
    lists = []
    for kind in (1, 2):
        counts = (what == kind).sum(-1)
        index = rng.integers(0, 4, what.shape)  # what follows a row's count means nothing
        for row in np.ndindex(counts.shape):
            index[row][: counts[row]] = rng.permutation(np.flatnonzero(what[row] == kind))
        lists += [torch.from_numpy(counts).int(), torch.from_numpy(index).int()]
    built = BlockMask.from_kv_blocks(
        *(lists if with_full else lists[:2]), BLOCK_SIZE=(8, 4), mask_mod=mask_mod, seq_lengths=(24, 16)
    )
    blocks = np.broadcast_to(what, (B, H, 3, 4)).repeat(8, 2).repeat(4, 3)
    inside = np.ones((B, H, 24, 16), bool)
    if mask_mod is not None:
        inside = create_mask(mask_mod, B, H, 24, 16, device="cpu").numpy()
    return built, (blocks == 2) | ((blocks == 1) & inside)


def causal(b, h, q, k):
    return q >= k


@PROPERTY
@given(
    SEEDS, st.sampled_from([1, B]), st.sampled_from([1, H]), st.booleans(), st.sampled_from([None, causal])
)
def test_block_mask_lists_rule(seed, batch, heads, with_full, mask_mod):
    built, want = hand_built(seed, batch, heads, with_full, mask_mod)
    converted = masks.from_block_mask(built)
    np.testing.assert_array_equal(kept(converted, 24, 16), want)
    ranks = [t.ranks for t in converted.tensors]
    assert all(("b" in r) == (batch > 1) and ("h" in r) == (heads > 1) for r in ranks)
    if mask_mod is None:
        want_tiles = np.where(want[:, :, ::8, ::4], 2, 0)
        np.testing.assert_array_equal(tiles(converted, 24, 16, 8, 4), want_tiles)


def documents_mod():
    doc = torch.arange(200) // 37
    return lambda b, h, q, k: (doc[q] == doc[k]) & (q >= k)


@pytest.mark.parametrize("mod", [causal, documents_mod()], ids=["causal", "documents"])
def test_round_trip_of_a_block_mask(mod):
    built = create_block_mask(mod, None, None, 192, 200, device="cpu", BLOCK_SIZE=(16, 16))
    spec = Attention(mask=masks.from_block_mask(built))
    back = spec.schedule(192, 200, block_q=16, block_k=16).to_block_mask()
    assert back.shape == built.shape
    assert back.BLOCK_SIZE == built.BLOCK_SIZE
    assert torch.equal(back.to_dense(), built.to_dense())
    assert torch.equal(back.full_kv_num_blocks, built.full_kv_num_blocks)
    shape = Shape(h=1, hkv=1, n_q=192, n_k=200, d=16, e=16)
    query, key, value = make_inputs(shape)
    want = flex_attention(query, key, value, block_mask=built)
    torch.testing.assert_close(spec(query, key, value), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(flex_attention(query, key, value, block_mask=back), want)


# Schedules as BlockMasks.

SCHEDULED = {
    "no mask": lambda: None,
    "window": lambda: masks.sliding_window(20),
    "heads": lambda: masks.sliding_window(torch.tensor([3, 20, 60])),
    "documents": lambda: masks.documents(offsets=torch.tensor([0, 30, 31, 90])),
    "lists": lambda: masks.documents(torch.stack([torch.arange(90) // 20, torch.arange(90) // 33])),
    "dilated": lambda: masks.dilated(4, 3),
    "nothing": lambda: "k < 0",
}


@pytest.mark.parametrize("name", SCHEDULED)
def test_schedule_as_a_block_mask(name):
    spec = Attention(mask=SCHEDULED[name]())
    query, key, value = make_inputs(Shape(b=B, h=H, hkv=H, n_q=60, n_k=90, d=16, e=16))
    found = spec.schedule(60, 90, B, H, block_q=16, block_k=32)
    built = found.to_block_mask()
    assert built.BLOCK_SIZE == (16, 32)
    assert built.seq_lengths == (60, 90)
    if found.boxes is None:
        got = built.kv_num_blocks.sum(), built.full_kv_num_blocks.sum()
        assert got == (found.n_partial, found.n_full)
        assert torch.equal(built.to_dense() > 0, found.tiles().expand(built.to_dense().shape) > 0)
    out = flex_attention(query, key, value, block_mask=built)
    want = spec.reference(query, key, value).float()
    torch.testing.assert_close(out.nan_to_num(), want, atol=1e-5, rtol=1e-5)


def test_a_schedule_on_its_own_has_no_mask():
    from attngen.planner.plan_mask import plan_mask
    from attngen.planner.schedule import make_schedule

    program = attngen.load("causal").program
    sizes = {"n_q": 9, "n_k": 9, "batch": 1, "heads": 1, "block_q": 4, "block_k": 4}
    with pytest.raises(UnsupportedError, match=r"Attention\.schedule"):
        make_schedule(program, plan_mask(program), {}, **sizes).to_block_mask()


# Column intervals.


def flashmask(x: np.ndarray, causal: bool, n_q: int) -> np.ndarray:
    """FlashMask's definition, column by column."""
    n_k, n = x.shape[2:]
    out = np.ones((B, H, n_q, n_k), bool)
    for b, h, j in np.ndindex(B, H, n_k):
        ends = x[b % x.shape[0], h % x.shape[1], j]
        rows = out[b, h, :, j]
        if n == 4:
            rows[ends[0] : ends[1]] = False
            rows[ends[2] : ends[3]] = False
        elif n == 2 and causal:
            rows[ends[0] : ends[1]] = False
        elif n == 2:
            rows[ends[0] :] = False
            rows[: ends[1]] = False
        else:
            rows[ends[0] :] = False
        if causal:
            rows[: max(j - (n_k - n_q), 0)] = False
    return out


@PROPERTY
@given(SEEDS, st.sampled_from([1, 2, 4]), st.booleans(), st.sampled_from([1, B]), st.sampled_from([1, H]))
def test_intervals(seed, n, causal, batch, heads):
    n_q, n_k = 9, 12
    x = np.random.default_rng(seed).integers(0, n_q + 1, (batch, heads, n_k, n)).astype(np.int32)
    got = kept(masks.from_intervals(torch.from_numpy(x), causal), n_q, n_k)
    np.testing.assert_array_equal(got, flashmask(x, causal, n_q))


def test_intervals_of_key_heads():
    x = torch.randint(0, 30, (1, 2, 30, 1), generator=torch.Generator().manual_seed(3))
    shape = Shape(h=4, hkv=2, n_q=30, n_k=30, d=16, e=16)
    shared = Attention(mask=masks.from_intervals(x, heads=4), outputs=("O", "LSE"))
    each = Attention(mask=masks.from_intervals(x.repeat_interleave(2, 1)), outputs=("O", "LSE"))
    inputs = make_inputs(shape)
    for a, b in zip(shared(*inputs), each(*inputs), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(HeadCountError):
        masks.from_intervals(x, heads=3)


# Typed rectangles.


def rectangles(slices, n_q: int, n_k: int) -> np.ndarray:
    """How many slices keep each pair."""
    out = np.zeros((n_q, n_k), int)
    for (q0, q1), (k0, k1), kind in slices:
        for i, j in np.ndindex(q1 - q0, k1 - k0):
            below = j <= i + (k1 - k0) - (q1 - q0)  # the diagonal ends in the bottom right corner
            above = j >= i  # it begins in the top left corner
            keep = {0: True, 1: below, 2: above, 3: below and above}[kind]
            out[q0 + i, k0 + j] += keep
    return out


def random_slices(seed: int, n_q: int, n_k: int, most: int):
    """Rectangles without a pair in common: one that would overlap is left out."""
    rng = random.Random(seed)
    slices = []
    for _ in range(most):
        q0, q1 = sorted(rng.sample(range(n_q + 1), 2))
        k0, k1 = sorted(rng.sample(range(n_k + 1), 2))
        new = ((q0, q1), (k0, k1), rng.randrange(4))
        if rectangles([*slices, new], n_q, n_k).max() <= 1:
            slices.append(new)
    return slices


@PROPERTY
@given(SEEDS, st.integers(1, 30))
def test_slices(seed, most):
    n_q, n_k = 20, 24
    slices = random_slices(seed, n_q, n_k, most)
    q_ranges, k_ranges, types = zip(*slices, strict=True)
    built = masks.from_slices(torch.tensor(q_ranges), torch.tensor(k_ranges), torch.tensor(types), n_q=n_q)
    want = rectangles(slices, n_q, n_k) > 0
    np.testing.assert_array_equal(kept(built, n_q, n_k), np.broadcast_to(want, (B, H, n_q, n_k)))
    runs = (np.diff(np.pad(want, ((0, 0), (1, 0))).astype(int), axis=1) == 1).sum(axis=1).max(initial=0)
    form = Attention(mask=built).schedule(n_q, n_k, block_q=4, block_k=4).form
    assert form == ("ranges" if runs <= 4 else "lists")


def test_slices_that_touch_are_one_run():
    """A document after another, causal: the second sees the first through a full rectangle."""
    q_ranges, k_ranges = [[0, 8], [8, 24], [8, 24]], [[0, 8], [0, 8], [8, 24]]
    built = masks.from_slices(q_ranges, k_ranges, ["causal", "full", "causal"])
    assert built.text() == "(first[q] <= k) & (k < last[q])"
    want = np.broadcast_to(np.tri(24, dtype=bool), (B, H, 24, 24))
    np.testing.assert_array_equal(kept(built, 24, 24), want)
    got = tiles(built, 24, 24, 8, 8)
    np.testing.assert_array_equal(got, np.broadcast_to([[1, 0, 0], [2, 1, 0], [2, 2, 1]], got.shape))


def test_no_slices_keep_nothing():
    assert not kept(masks.from_slices([], [], []), 4, 5).any()
    assert not kept(masks.from_slices(torch.zeros(0, 2, dtype=torch.int32), [], n_q=4), 4, 5).any()


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("most", [3, 40])
def test_slices_run(most, backend):
    n_q, n_k = 70, 90
    slices = random_slices(5, n_q, n_k, most)
    q_ranges, k_ranges, types = zip(*slices, strict=True)
    spec = Attention(mask=masks.from_slices(q_ranges, k_ranges, types, n_q=n_q), outputs=("O", "LSE"))
    assert_matches_reference(
        spec, *make_inputs(Shape(h=1, hkv=1, n_q=n_q, n_k=n_k, d=16, e=16)), backend=backend
    )


# Errors.

TABLE = torch.ones(4, 4)
ROWS = torch.zeros(1, 1, 4, 2, dtype=torch.int32)


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: masks.from_dense(TABLE), DTypeError, "float32"),
        (lambda: masks.from_dense(TABLE[0] > 0), ShapeError, "[4]"),
        (lambda: masks.from_blocks(TABLE.int(), 4, 4), DTypeError, "int32"),
        (lambda: masks.from_blocks(TABLE > 0, 0, 4), ParameterError, "block_q"),
        (lambda: masks.from_blocks(TABLE > 0, 4, 2.0), ParameterError, "block_k"),
        (lambda: masks.from_block_mask(TABLE), ProgramTypeError, "Tensor"),
        (lambda: masks.from_intervals(ROWS.float()), DTypeError, "float32"),
        (lambda: masks.from_intervals(ROWS[0]), ShapeError, "[1, 4, 2]"),
        (lambda: masks.from_intervals(ROWS.expand(1, 1, 4, 2).repeat(1, 1, 1, 3)), ShapeError, "6]"),
        (lambda: masks.from_slices([[0, 4]], [[0, 4], [4, 8]]), ShapeError, "1 ranges of queries and 2"),
        (lambda: masks.from_slices([0, 4], [[0, 4]]), ShapeError, "q_ranges"),
        (lambda: masks.from_slices([[4, 0]], [[0, 4]]), ShapeError, "before it starts"),
        (lambda: masks.from_slices([[0.0, 4]], [[0, 4]]), DTypeError, "q_ranges"),
        (lambda: masks.from_slices([[0, 4]], [[0, 4]], [4]), ParameterError, "type 4"),
        (lambda: masks.from_slices([[0, 4]], [[0, 4]], ["casual"]), ParameterError, "casual"),
        (lambda: masks.from_slices([[0, 4]], [[0, 4]], [0, 1]), ShapeError, "2 types"),
        (lambda: masks.from_slices([[0, 4]], [[0, 4]], n_q=3), ParameterError, "query 4"),
        (lambda: masks.from_slices([[0, 4], [2, 6]], [[0, 4], [3, 8]]), ParameterError, "key 3 of query 2"),
    ],
)
def test_bad_values(build, error, text):
    with pytest.raises(error) as caught:
        build()
    assert text in str(caught.value)


def test_a_block_listed_twice():
    one = torch.ones(1, 1, 1, dtype=torch.int32)
    index = torch.zeros(1, 1, 1, 1, dtype=torch.int32)
    twice = BlockMask.from_kv_blocks(one, index, one, index, BLOCK_SIZE=8, mask_mod=causal)
    with pytest.raises(ParameterError, match="partial and as full"):
        masks.from_block_mask(twice)
