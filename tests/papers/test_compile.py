"""Kernels for GPUs that need not be here, at the head dimensions that models use, spill nothing."""

from __future__ import annotations

from itertools import product

import pytest

from attngen.paper_samples import SAMPLES
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


# Groups C, D, E.2 and F: every kernel of a program; those of the programs below hold more than registers do.
SPILLS = {"abc_causal", "mossformer2", "rope", "vitdet_window"}
QUICK_PROGRAMS = ("column_sums", "extra_keys", "block_max", "aaren")


def check_all(call, target, head_dim):
    spec = call.spec()
    specs, _ = spec.kernel_specs(target, "bf16", head_dim)
    for sweep in range(len(specs)):
        figures = spec.inspect(target, "bf16", head_dim, sweep=sweep)
        assert figures.registers > 0
        if call.program not in SPILLS:
            assert figures.spill_bytes == 0, f"sweep {sweep}"


@pytest.mark.parametrize("program", QUICK_PROGRAMS)
def test_every_kernel_of_a_program_compiles(program):
    check_all(next(s for s in SAMPLES if s.program == program), "sm_90", 64)


@pytest.mark.slow
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize("call", SAMPLES, ids=lambda s: s.program)
def test_every_kernel_of_every_program_compiles(call, target, head_dim):
    check_all(call, target, head_dim)
