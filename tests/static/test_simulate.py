"""Warps in order, by hand: the figures are cycles of an iteration in the steady state."""

from __future__ import annotations

import pytest

from attngen.static.mix import cost_of
from attngen.static.sass import Instruction
from attngen.static.simulate import simulated_score


def score(*code: Instruction, arch: str = "sm_80", ctas: int = 1, warps: int = 1) -> float | None:
    costs = [cost_of(x, arch) for x in code]
    return simulated_score(code, costs, ctas, warps, iterations=64)


HMMA = "HMMA.16816.F32.BF16"  # 8 cycles on sm_80
near = pytest.approx


def test_matrix_instructions_back_to_back_fill_the_tensor_core():
    assert score(Instruction(HMMA, stall=1)) == near(1, abs=0.02)


def test_a_stall_of_one_warp_is_another_warps_time():
    code = (Instruction(HMMA, stall=15), Instruction("BRA", stall=1))
    assert score(*code) == near(8 / 16, abs=0.02)
    assert score(*code, warps=2) == near(1, abs=0.03)
    assert score(*code, ctas=2) == near(1, abs=0.03)


def test_a_scoreboard_holds_until_the_result_is_there():
    # issued at 0, its result at 20, then two more cycles: 22 an iteration
    code = (
        Instruction("MUFU.EX2", sets_done=0),
        Instruction("FADD", waits=(0,)),
        Instruction(HMMA),
    )
    assert score(*code) == near(8 / 22, abs=0.01)


def test_a_unit_is_held_as_long_as_it_works():
    # five exponentials of 8 cycles each
    code = (*(Instruction("MUFU.EX2") for _ in range(5)), Instruction(HMMA))
    assert score(*code) == near(8 / 40, abs=0.01)
    assert score(*code, warps=4) == near(8 / 40, abs=0.01)


def test_a_warpgroup_waits_for_its_queue():
    # N = 64: 32 cycles, then the wait and the next
    queued = Instruction("HGMMA.64x64x16.F32.BF16", "R24, R4, gdesc[UR4], R24, gsb0")
    alone = (queued, Instruction("WARPGROUP.DEPBAR.LE", "gsb0, 0x0", stall=8))
    assert score(*alone, arch="sm_90") == near(32 / 40, abs=0.01)
    ahead = (queued, Instruction("WARPGROUP.DEPBAR.LE", "gsb0, 0x1", stall=8))
    assert score(*ahead, arch="sm_90") == near(1, abs=0.03)


def test_a_barrier_waits_for_its_own_thread_block():
    # A turn is 17 cycles. Warps of one block take it at the same time, and the second waits 8 more for the core.
    code = (
        Instruction("BAR.SYNC.DEFER_BLOCKING", "0x0"),
        Instruction("FADD", stall=15),
        Instruction(HMMA),
    )
    assert score(*code, warps=2) == near(16 / 25, abs=0.03)
    assert score(*code, ctas=2) == near(16 / 17, abs=0.03)


def test_one_more_warp_never_lowers_the_score_of_independent_warps():
    code = (Instruction("MUFU.EX2", sets_done=1), Instruction(HMMA, stall=9, waits=(1,)))
    scores = [score(*code, ctas=n) or 0 for n in (1, 2, 3, 4)]
    assert scores == sorted(scores)


def test_what_says_nothing_of_tensor_cores_has_no_score():
    assert score(Instruction("FFMA"), Instruction("MUFU.EX2")) is None
    assert score(Instruction("UTCHMMA"), arch="sm_100") is None
    assert score(Instruction(HMMA), ctas=0) is None


def test_operands_of_another_form_wait_for_all():
    queued = Instruction("HGMMA.64x64x16.F32.BF16", "R24, R4, gdesc[UR4], R24, gsb0")
    code = (queued, Instruction("WARPGROUP.DEPBAR.LE", "gsb0", stall=8))
    assert score(*code, arch="sm_90") == near(32 / 40, abs=0.01)
