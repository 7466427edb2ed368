"""Rows are launched longest first, heads together where asked, and the order is the same on tensors."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.planner.blocks import build_blocks
from attngen.planner.evaluate_plan import Extents, evaluate_plan
from attngen.planner.order import FULL, PARTIAL, launch_order, work_of_lists, work_of_pieces
from attngen.planner.plan_mask import plan_mask
from tests.planner.dense import program
from tests.planner.test_device_blocks import nothing_asked, on_device

WINDOWS = "w[h]: int\nmask = (k <= q) & (q - k < w[h])"
VALUES = {"w": np.array([100, 100_000, 300, 100_000])}
SIZES = {"n_q": 4096, "n_k": 4096, "batch": 2, "heads": 4, "block_q": 64, "block_k": 64}


def work_of_ranges() -> np.ndarray:
    p = program(WINDOWS)
    plan = plan_mask(p)
    assert plan.ranges is not None
    pieces = evaluate_plan(plan.ranges, VALUES, Extents(**SIZES), per_batch=False, per_head=True)
    return work_of_pieces(pieces, (1, 4, 64))


def makespan(work: np.ndarray, order: np.ndarray, workers: int) -> int:
    """When the last of `workers` is done, each taking the next row as it gets free."""
    free = [0] * workers
    for row in order:
        heapq.heappush(free, heapq.heappop(free) + int(work[row]))
    return max(free)


def test_both_forms_count_the_same_work() -> None:
    lists = build_blocks(program(WINDOWS), VALUES, **SIZES)
    work = work_of_lists(lists)
    assert work.dtype == np.int32
    assert (work == work_of_ranges()).all()
    assert work[0, 1, 0] == PARTIAL
    assert work[0, 1, -1] == 63 * FULL + PARTIAL


def test_mixed_heads_finish_near_the_bound() -> None:
    work = work_of_ranges()
    order = launch_order(work, batch=2, heads=4)
    rows = np.broadcast_to(work, (2, 4, 64)).reshape(-1)
    assert sorted(order.tolist()) == list(range(2 * 4 * 64))
    assert (np.diff(rows[order]) <= 0).all()
    bound = max(rows.sum() / 132, rows.max())
    assert makespan(rows, order, 132) < 1.1 * bound
    assert makespan(rows, np.arange(rows.size), 132) > 1.3 * bound, (
        "the order as it comes is what this improves on"
    )


def test_equal_rows_stay_in_order_and_heads_stay_together() -> None:
    work = np.array([[[3, 7, 3, 7]]], dtype=np.int32)
    assert launch_order(work, batch=1, heads=2).tolist() == [1, 3, 5, 7, 0, 2, 4, 6]
    assert launch_order(work, batch=2, heads=1, together=1).tolist() == [1, 3, 0, 2, 5, 7, 4, 6]
    assert launch_order(work, batch=2, heads=2, together=2).tolist()[:8] == [1, 3, 5, 7, 0, 2, 4, 6]


@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 20), st.sampled_from([None, 1, 2, 5]), st.data())
@settings(max_examples=60, deadline=None)
def test_the_same_order_on_tensors(
    batch: int, heads: int, tiles: int, together: int | None, data: st.DataObject
) -> None:
    shape = (data.draw(st.sampled_from([1, batch])), data.draw(st.sampled_from([1, heads])), tiles)
    work = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 9, shape).astype(np.int32)
    with nothing_asked():
        got = launch_order(torch.from_numpy(work), batch=batch, heads=heads, together=together)
    assert got.dtype == torch.int32
    assert got.tolist() == launch_order(work, batch=batch, heads=heads, together=together).tolist()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_lists_on_a_device(device: str) -> None:
    p = program(WINDOWS)
    tensors = {"w": torch.from_numpy(VALUES["w"]).to(device)}
    with nothing_asked():
        work = work_of_lists(on_device(p, tensors, SIZES, device))
        order = launch_order(work, batch=2, heads=4)
    assert order.device.type == device
    assert order.tolist() == launch_order(work_of_ranges(), batch=2, heads=4).tolist()
