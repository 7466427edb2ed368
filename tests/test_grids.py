"""Grids from Python: traced functions with coordinates, combined masks, scores, tokens beyond the grid."""

from __future__ import annotations

import pytest
import torch

import attngen
from attngen.api import Attention
from attngen.errors import AttngenError, ProgramTypeError, TraceError
from tests.oracle import Shape, assert_matches_reference, make_inputs

GRID = (6, 7)


@attngen.mask(grid=("y", "x"))
def near(b, h, q, k):
    return ((q.y - k.y).abs() <= 1) & ((q.x - k.x).abs() <= h + 1)


@attngen.mask(grid=("y", "x"))
def beyond(b, h, q, k):
    return (k.y >= attngen.grid_size("y")) | (q.y >= attngen.grid_size("y"))


@attngen.score(grid=("y", "x"))
def slope(score, b, h, q, k):
    return score - 0.1 * (q.x - k.x).abs()


def coordinates(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    i = torch.arange(n)
    return i // GRID[1], i % GRID[1]


def test_a_mask_on_coordinates_is_the_predicate_on_tokens():
    y, x = coordinates(42)
    kept = near.bind(grid=GRID)(0, 1, torch.arange(42)[:, None], torch.arange(42))
    want = ((y[:, None] - y).abs() <= 1) & ((x[:, None] - x).abs() <= 2)
    assert torch.equal(kept, want)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("extra", [0, 5])
def test_masks_and_scores_on_one_grid(backend, extra):
    mask = near & ~beyond | beyond if extra else near
    spec = Attention(mask=mask.bind(grid=GRID), score=slope, outputs=("O", "LSE"))
    n = 42 + extra
    assert_matches_reference(
        spec, *make_inputs(Shape(b=2, h=4, hkv=2, n_q=n, n_k=n, d=16, e=24)), backend=backend
    )


def test_a_mask_on_a_line_joins_a_grid():
    joined = (near & attngen.masks.causal()).bind(grid=GRID)
    assert joined.grid == ("y", "x")
    q = torch.arange(42)
    kept = joined(0, 0, q[:, None], q, n_q=42, n_k=42)
    assert torch.equal(kept, near.bind(grid=GRID)(0, 0, q[:, None], q) & (q <= q[:, None]))
    assert_matches_reference(Attention(mask=joined), *make_inputs(Shape(n_q=42, n_k=42, d=16, e=16)))


def test_extents_follow_whichever_part_is_bound():
    both = near.bind(grid=GRID) | beyond
    assert both.values["size_y"] == 6
    assert (beyond | near.bind(grid=GRID)).values["size_x"] == 7
    assert (~near.bind(grid=GRID)).values["size_y"] == 6
    with pytest.raises(ProgramTypeError, match="disagree on `size_y`"):
        near.bind(grid=GRID) & beyond.bind(grid=(5, 7))


def test_two_grids_do_not_mix():
    @attngen.mask(grid=("t", "x"))
    def other(b, h, q, k):
        return q.t == k.t

    with pytest.raises(ProgramTypeError, match="different grids"):
        near & other
    with pytest.raises(ProgramTypeError, match="different grids"):
        Attention(mask=other, score=slope)


def test_a_grid_mask_called_inside_another_function():
    """Where the caller has no such grid, coordinates are worked out from the numbers of the tokens."""
    inner = near.bind(grid=GRID)

    def outer(b, h, q, k):
        return inner(b, h, q, k) & (k <= q)

    spec = Attention(mask=outer)
    assert spec.program.grid == ()
    assert_matches_reference(spec, *make_inputs(Shape(n_q=42, n_k=42, d=16, e=16)))


def test_mistakes_are_named():
    with pytest.raises(TraceError):
        attngen.mask(lambda b, h, q, k: q.y == k.y)
    with pytest.raises(AttngenError, match="no axis 'z'"):

        @attngen.mask(grid=("y", "x"))
        def wrong(b, h, q, k):
            return k.y < attngen.grid_size("z")


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_values_that_no_query_of_a_box_may_see_reach_nothing(backend):
    q, k, v = make_inputs(Shape(h=1, hkv=1, n_q=81, n_k=81, d=16, e=16))
    hidden = Attention(mask=near.bind(grid=(9, 9)) & "k != 40", outputs=("O", "LSE"))
    clean = hidden(q, k, v, backend=backend)[0]
    k[:, :, 40], v[:, :, 40] = torch.nan, torch.nan
    assert torch.equal(hidden(q, k, v, backend=backend)[0], clean)


def test_strided_inputs_on_a_grid():
    spec = attngen.load("neighborhood_2d", grid=(8, 8), window_y=3, window_x=5)
    q, k, v = make_inputs(Shape(b=2, h=2, hkv=1, n_q=64, n_k=64, d=16, e=32))
    want = spec(q, k, v)
    strided = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    torch.testing.assert_close(spec(*strided), want)
