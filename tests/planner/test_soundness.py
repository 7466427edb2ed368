"""No kept pair lies in an empty tile and no dropped pair in a full one, whatever the mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings

from attngen.lang.print import print_expr
from attngen.planner.blocks import build_blocks
from attngen.planner.evaluate_plan import Extents, evaluate_plan
from attngen.planner.plan import BlockLists, MaskPlan
from attngen.planner.plan_mask import plan_mask
from attngen.planner.schedule import make_schedule
from tests.planner.dense import classes, dense
from tests.planner.hulls import hulls
from tests.planner.random_masks import B, Case, H, cases

SHARED = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}
DEFAULT = settings(max_examples=100, **SHARED)
SWEEP = settings(max_examples=1000, **SHARED)


def check(case: Case) -> str:
    note(f"mask = {print_expr(case.program.mask)}")
    sizes = {"n_q": case.n_q, "n_k": case.n_k, "batch": B, "heads": H}
    blocks = {"block_q": case.block_q, "block_k": case.block_k}
    with np.errstate(all="ignore"):
        kept = dense(case.program.mask, case.values, case.n_q, case.n_k, B, H)
    truth = classes(kept, case.block_q, case.block_k)
    plan = plan_mask(case.program)
    schedule = make_schedule(case.program, plan, case.values, **sizes, **blocks)
    assert_sound(schedule.tiles().numpy(), truth)
    total = schedule.n_full + schedule.n_partial + schedule.n_empty
    assert total == schedule.tiles().numel()
    assert schedule.n_full == int((schedule.tiles() == 2).sum())
    if plan.form == "ranges":
        assert_contract(case, plan)
        expand(schedule.lists())
        assert_hulls(case, plan, kept)
        lists = build_blocks(case.program, case.values, **sizes, **blocks)
        assert_sound(expand(lists), truth)
    return plan.form


def expand(lists: BlockLists) -> np.ndarray:
    out = np.zeros((lists.batch * lists.heads * lists.n_q_tiles, lists.n_k_tiles), dtype=np.int8)
    for what, ptr, index in (
        (1, lists.partial_ptr, lists.partial_index),
        (2, lists.full_ptr, lists.full_index),
    ):
        for row in range(out.shape[0]):
            tiles = index[ptr[row] : ptr[row + 1]]
            assert (np.diff(tiles) > 0).all(), "ascending, none twice"
            assert (out[row, tiles] == 0).all(), "no tile is both partial and full"
            out[row, tiles] = what
    return out.reshape(lists.batch, lists.heads, lists.n_q_tiles, lists.n_k_tiles)


def assert_sound(tiles: np.ndarray, truth: np.ndarray) -> None:
    tiles = np.broadcast_to(tiles, truth.shape)
    assert not ((tiles == 0) & (truth > 0)).any(), "a kept pair in an empty tile"
    assert not ((tiles == 2) & (truth < 2)).any(), "a dropped pair in a full tile"


def assert_contract(case: Case, plan: MaskPlan) -> None:
    """`0 <= start <= full_start <= full_end <= end <= key tiles`, pieces ascending, for every query tile."""
    at = Extents(case.n_q, case.n_k, B, H, case.block_q, case.block_k)
    last = np.zeros((B, H, at.q_tiles), dtype=np.int64)
    for piece in evaluate_plan(plan.ranges, case.values, at, per_batch=True, per_head=True):
        for edge in (piece.start, piece.full_start, piece.full_end, piece.end):
            assert (last <= edge).all()
            last = edge
    assert (last <= at.k_tiles).all()


def assert_hulls(case: Case, plan, kept: np.ndarray) -> None:
    """Every kept pair lies in a hull; where the plan says tight, every key of a hull is kept by some row."""
    for (b, h, rows), spans in hulls(case, plan.ranges):
        seen = kept[b, h, rows].any(axis=0)
        inside = np.zeros_like(seen)
        for lo, hi in spans:
            assert lo >= 0
            assert lo <= case.n_k
            assert hi <= case.n_k
            inside[lo : max(hi, lo)] = True
        assert not (seen & ~inside).any(), "a kept key outside every hull"
        assert not (plan.ranges.tight and (inside & ~seen).any()), "not tight"


@given(cases(data=False))
@DEFAULT
def test_masks_of_range_atoms(case: Case) -> None:
    check(case)


@given(cases(data=True))
@DEFAULT
def test_masks_of_anything(case: Case) -> None:
    check(case)


@pytest.mark.slow
@given(cases(data=False))
@SWEEP
def test_sweep_of_range_atoms(case: Case) -> None:
    check(case)


@pytest.mark.slow
@given(cases(data=True))
@SWEEP
def test_sweep_of_anything(case: Case) -> None:
    check(case)
