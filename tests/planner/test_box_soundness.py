"""On grids, too: no kept pair lies in an empty tile and no dropped pair in a full one, whatever the mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, note

from attngen.lang.print import print_expr
from attngen.planner.plan import MaskPlan
from attngen.planner.plan_mask import plan_mask
from attngen.planner.schedule import Schedule, make_schedule
from tests.planner.boxes import layout_coordinates, truth
from tests.planner.random_grids import grids
from tests.planner.random_masks import B, Case, H
from tests.planner.test_soundness import DEFAULT, SWEEP, assert_sound, expand


def plan_and_schedule(case: Case) -> tuple[MaskPlan, Schedule]:
    plan = plan_mask(case.program)
    assert plan.boxes is not None
    schedule = make_schedule(
        case.program,
        plan,
        case.values,
        n_q=case.n_q,
        n_k=case.n_k,
        batch=B,
        heads=H,
        block_q=case.block_q,
        block_k=case.block_k,
    )
    return plan, schedule


def check(case: Case) -> None:
    note(f"mask = {print_expr(case.program.mask)}; {case.values}")
    plan, schedule = plan_and_schedule(case)
    want = truth(case.program, plan, schedule, case.values)
    got = np.broadcast_to(schedule.tiles().numpy(), want.shape)
    # a tile of the layout may hold no token at all; what a schedule says of it does not matter
    exists = layout_coordinates(plan.boxes.q, case.program, case.values, case.n_q)[1]
    q_tiles = np.unique(truth_tiles(plan, schedule, exists))
    assert_sound(got[:, :, q_tiles], want[:, :, q_tiles])
    assert schedule.n_full + schedule.n_partial + schedule.n_empty == schedule.tiles().numel()
    assert schedule.n_full == int((schedule.tiles() == 2).sum())
    expand(schedule.lists())
    assert schedule.boxes is not None
    assert schedule.boxes.volume("q") <= case.block_q
    assert schedule.boxes.volume("k") <= case.block_k


def truth_tiles(plan: MaskPlan, schedule: Schedule, coordinates: dict[str, np.ndarray]) -> np.ndarray:
    from tests.planner.boxes import tiles_of

    return tiles_of(plan.boxes.q, schedule.boxes, schedule.tile_grid[0], coordinates)


@given(grids(product=True))
@DEFAULT
def test_products(case: Case) -> None:
    check(case)


@given(grids(product=False))
@DEFAULT
def test_masks_of_anything(case: Case) -> None:
    check(case)


@pytest.mark.slow
@given(grids(product=True))
@SWEEP
def test_sweep_of_products(case: Case) -> None:
    check(case)


@pytest.mark.slow
@given(grids(product=False))
@SWEEP
def test_sweep_of_anything(case: Case) -> None:
    check(case)
