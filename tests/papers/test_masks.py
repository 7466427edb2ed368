"""Group A: every program keeps exactly the pairs of its paper, and visits the tiles that hold them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attngen import arguments, papers
from attngen.lang.library import load_program
from attngen.tiles_needed import kept_pairs, tiles_needed
from tests.papers.cases import CASES

# Masks whose stripes or wrapped windows are no runs of keys: their plans are sound and visit more than they need.
VISITS_MORE = {"longlora_roll", "vitdet_roll"}


def _values(case):
    spec = case.spec()
    tensors, params = arguments.bind(spec.program, spec.values, {})
    return spec, {**params, **tensors}


def test_every_program_of_the_table_has_a_case():
    assert {c.program for c in CASES} == {p for row in papers.GROUP_A for p in row.programs}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_pairs_of_the_paper(case):
    spec, values = _values(case)
    s = case.shape
    got = kept_pairs(spec.program, values, s.n_q, s.n_k, s.b, s.h)
    assert torch.equal(got, case.kept())
    assert case.kept().any(-1).all(), "every query of these papers sees something"


@pytest.mark.parametrize("block", [16, 32, 64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_tiles_that_hold_them(case, block):
    spec, values = _values(case)
    s = case.shape
    schedule = spec.schedule(s.n_q, s.n_k, s.b, s.h, block, block)
    needed = tiles_needed(spec.program, schedule, values)
    planned = np.broadcast_to(schedule.tiles().numpy(), needed.shape)
    assert not ((planned == 0) & (needed > 0)).any(), "a tile with a kept pair is skipped"
    assert not ((planned == 2) & (needed < 2)).any(), "a tile is full that is not"
    if case.program not in VISITS_MORE:
        assert (planned > 0).sum() == (needed > 0).sum()
    if schedule.form == "ranges" and case.program not in VISITS_MORE:
        np.testing.assert_array_equal(planned, needed)


# Stripes of blocks, wrapped coordinates, frames named by a table: lists.
LISTED = {
    "longgen_blocks", "longlora_roll", "s2_attention", "s2_attention_bidirectional", "vdit_tile", "vitdet_roll"
}  # fmt: skip
CLOSED = {c.program for c in CASES} - LISTED


@pytest.mark.parametrize("name", sorted(CLOSED))
def test_closed_form(name):
    case = next(c for c in CASES if c.program == name)
    s = case.shape
    schedule = case.spec().schedule(s.n_q, s.n_k, s.b, s.h)
    assert schedule.form == "ranges"
    assert schedule.nbytes == 0


def test_programs_on_a_grid_take_axes_in_the_order_of_memory():
    for case in CASES:
        grid = load_program(case.program).grid
        assert len(grid) == len(case.values.get("grid", ()))
        assert list(grid) == sorted(grid, key=("t", "p", "y", "x").index)


def test_neighbourhoods_of_a_query_have_as_many_keys_everywhere():
    for case in CASES:
        plain = not any(name.startswith("causal") for name in case.values)
        if case.program.startswith("neighborhood") and plain:
            counts = case.kept().sum(-1)
            windows = (case.values.get(f"window_{a}", 7) for a in load_program(case.program).grid)
            assert (counts == int(np.prod(list(windows)))).all()


def test_densities_of_efficient_vdit():
    """Block sparsities of 1:7, 2:6, 3:5 and 4:4 references among eight frames, one tile a frame."""
    kept = []
    for n in range(1, 5):
        reference = torch.arange(8) < n
        pairs = kept_pairs(load_program("vdit_tile"), {"frame": 4, "reference": reference}, 32, 32)
        kept.append(1 - pairs.float().mean().item())
    assert kept == pytest.approx([0.656, 0.469, 0.3125, 0.1875], abs=5e-4)


def test_the_leak_of_rolled_groups():
    """Rolled, a shifted head sees (group / 2) ** 2 pairs of the future; cut groups see none."""
    future = ~torch.ones(160, 160).tril().bool()
    leaks = {}
    for name in ("longlora", "longlora_roll"):
        pairs = kept_pairs(load_program(name), {"group": 40}, 160, 160, 1, 2)
        leaks[name] = (pairs & future).sum((0, 2, 3)).tolist()
    assert leaks == {"longlora": [0, 0], "longlora_roll": [0, 20 * 20]}
