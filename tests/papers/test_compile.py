"""Group A: kernels for GPUs that need not be here, at the head dimensions that models use, spill nothing."""

from __future__ import annotations

from itertools import product

import pytest

from tests.papers.cases import CASES

# One case a program: the first, which has the widest set of features its mask has.
FIRST = {c.program: c for c in reversed(CASES)}
ALL = list(product(sorted(FIRST), ("sm_90", "gfx942"), (64, 128)))
QUICK = [
    ("moa", "sm_90", 128),
    ("longlora", "gfx942", 64),
    ("neighborhood_3d", "sm_90", 128),
    ("temporal", "sm_90", 64),
]


def check(program, target, head_dim):
    figures = FIRST[program].spec().inspect(target, "bf16", head_dim)
    assert figures.spill_bytes == 0
    assert figures.spill_instructions == 0
    assert figures.registers > 0


@pytest.mark.parametrize(("program", "target", "head_dim"), QUICK)
def test_nothing_is_spilled(program, target, head_dim):
    check(program, target, head_dim)


@pytest.mark.slow
@pytest.mark.parametrize(("program", "target", "head_dim"), [c for c in ALL if c not in QUICK])
def test_nothing_is_spilled_by_any_program(program, target, head_dim):
    check(program, target, head_dim)
