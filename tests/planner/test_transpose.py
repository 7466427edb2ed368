"""Lists by key tile hold the same tiles as lists by query tile."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.planner.blocks import build_blocks
from attngen.planner.plan import BlockLists
from attngen.planner.plan_mask import plan_mask
from attngen.planner.schedule import make_schedule
from tests.planner.dense import program
from tests.planner.random_masks import B, Case, H, cases
from tests.planner.test_soundness import DEFAULT, expand


def assert_transposed(lists: BlockLists) -> None:
    flipped = lists.transposed()
    assert (expand(flipped) == expand(lists).swapaxes(2, 3)).all()
    back = flipped.transposed()
    for name in ("partial_ptr", "partial_index", "full_ptr", "full_index"):
        assert getattr(flipped, name).dtype == np.int32
        assert (getattr(back, name) == getattr(lists, name)).all()


@given(cases(data=True))
@DEFAULT
def test_lists_of_random_masks(case: Case) -> None:
    sizes = {"n_q": case.n_q, "n_k": case.n_k, "batch": B, "heads": H}
    blocks = {"block_q": case.block_q, "block_k": case.block_k}
    assert_transposed(build_blocks(case.program, case.values, **sizes, **blocks))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 9), st.integers(0, 9), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_random_lists(batch: int, heads: int, rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, (batch * heads * rows, columns), p=[0.5, 0.3, 0.2])
    parts = []
    for what in (1, 2):
        row, column = np.nonzero(kind == what)
        ptr = np.zeros(batch * heads * rows + 1, dtype=np.int32)
        ptr[1:] = np.cumsum(np.bincount(row, minlength=batch * heads * rows))
        parts += [ptr, column.astype(np.int32)]
    assert_transposed(BlockLists(batch, heads, rows, columns, *parts))


@pytest.mark.parametrize(
    "text", ["w: int = 300\nmask = (k <= q) & (q - k < w)", "doc[q]: int\nmask = doc[q] == doc[k]"]
)
def test_both_forms_of_a_schedule(text: str) -> None:
    p = program(text)
    doc = np.arange(1000) // 170
    found = make_schedule(
        p, plan_mask(p), {"doc": doc}, n_q=900, n_k=1000, batch=2, heads=2, block_q=64, block_k=32
    )
    assert (expand(found.transposed()) == found.tiles().numpy().swapaxes(2, 3)).all()


def test_numbers_beyond_32_bits() -> None:
    """Many heads of many tiles: a tile's number needs 64 bits, the lists do not."""
    heads, tiles = 40, 1 << 13
    ptr = np.arange(heads * tiles + 1, dtype=np.int32)
    index = np.tile(np.arange(tiles, dtype=np.int32)[::-1], heads)
    empty = np.zeros(heads * tiles + 1, dtype=np.int32), np.zeros(0, dtype=np.int32)
    flipped = BlockLists(1, heads, tiles, tiles, *empty, ptr, index).transposed()
    assert (flipped.full_ptr == ptr).all()
    assert (flipped.full_index == index).all()


def test_a_million_tokens() -> None:
    p = program("w: int = 4096\nmask = (k <= q) & (q - k < w)")
    n = 1 << 20
    lists = make_schedule(
        p, plan_mask(p), {}, n_q=n, n_k=n, batch=1, heads=1, block_q=128, block_k=128
    ).lists()
    start = time.perf_counter()
    lists.transposed()
    assert time.perf_counter() - start < 0.1
