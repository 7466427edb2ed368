"""The catalogue's masks over grids, groups, blocks and frames: the programs of the papers, and their mistakes."""

from __future__ import annotations

import pytest
import torch

from attngen import masks
from attngen.api import Attention
from attngen.capture import as_mask
from attngen.errors import DTypeError, ParameterError, ShapeError
from attngen.lang.library import load_program
from attngen.tiles_needed import kept_pairs
from tests.oracle import Shape, assert_matches_reference, make_inputs
from tests.papers.definitions import neighborhood

REFERENCE = torch.tensor([True, False, False, True])
GRID2, GRID3 = {"size_y": 7, "size_x": 9}, {"size_t": 3, "size_y": 4, "size_x": 5}
PAIRS = {
    "neighborhood_1d": (masks.neighborhood(5, 2, 2), {"size_x": 60}),
    "neighborhood_2d": (masks.neighborhood((3, 5), (2, 1), (1, 3), causal=(False, True)), GRID2),
    "neighborhood_3d": (masks.neighborhood((3, 3, 2), causal=(True, False, False)), GRID3),
    "swin": (masks.shifted_windows(4, 2), GRID2),
    "s2_attention": (masks.strided_blocks(4, 2, 3, n_dense=1, group=2, offset=1), {}),
    "longlora": (masks.grouped(12), {}),
    "vdit_tile": (masks.frames(16, REFERENCE), {}),
}


@pytest.mark.parametrize("name", PAIRS)
def test_same_as_the_program(name):
    built, extents = PAIRS[name]
    program = load_program(name)
    assert {(p.name, p.kind) for p in built.params} == {(p.name, p.kind) for p in program.params}
    text = as_mask(program)
    assert text is not None
    assert built.grid == text.grid
    spec = Attention(mask=built)
    values = {**built.values, **extents}
    for n_q, n_k in ((60, 60), (60, 63), (17, 60)):
        got = kept_pairs(spec.program, values, n_q, n_k, 2, 4)
        assert torch.equal(got, kept_pairs(program, values, n_q, n_k, 2, 4))
    table = {t.name: torch.zeros(49, 4) for t in text.tensors if t.name == "bias"}
    plans = [Attention(mask=m).schedule(63, 63, 1, 4, 16, 16, **values) for m in (built, text.bind(**table))]
    assert torch.equal(plans[0].tiles(), plans[1].tiles())


def test_axes_of_any_name_and_number():
    near = masks.neighborhood((3, 2, 2, 3), axes=("a", "t", "y", "x"), causal=(True, False, False, False))
    grid = (2, 3, 2, 4)
    with pytest.raises(ParameterError):
        near.bind(grid=grid[1:])
    near = masks.neighborhood((2, 2, 2, 3), axes=("a", "t", "y", "x"), causal=(True, False, False, False))
    spec = Attention(mask=near.bind(grid=grid), outputs=("O", "LSE"))
    want = neighborhood(grid, (2, 2, 2, 3), (1,) * 4, (1,) * 4, (True, False, False, False))
    got = kept_pairs(spec.program, dict(spec.values), 48, 48)
    assert torch.equal(got[0], torch.from_numpy(want))
    assert_matches_reference(spec, *make_inputs(Shape(n_q=48, n_k=48)))
    one = masks.neighborhood(3, axes=("w",)).bind(grid=(20,))
    assert one.grid == ("w",)


def test_frames_without_references():
    kept = kept_pairs(Attention(mask=masks.frames(5)).program, {"frame": 5}, 20, 20)[0, 0]
    assert torch.equal(kept, torch.block_diag(*[torch.ones(5, 5)] * 4).bool())


def test_windows_are_run_time_numbers():
    assert masks.neighborhood((7, 7)).structure == masks.neighborhood((13, 5), 2, 3, causal=True).structure
    assert masks.grouped(64).bind(group=128) == masks.grouped(128)


def test_elastic_windows():
    width = masks.elastic_window(torch.tensor([64, 0, 1000]), torch.tensor([0.0, 0.1, 0.5]), 640)
    assert width.tolist() == [64, 64, 640]
    assert width.dtype is torch.int32
    assert masks.elastic_window(torch.tensor([1]), torch.tensor([0.0]), 0).tolist() == [0]


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: masks.neighborhood((7, 7), stride=(8, 1)), ParameterError, "stride_y"),
        (lambda: masks.neighborhood((7, 7), dilation=(1, 2, 3)), ParameterError, "3 values for 2 axes"),
        (lambda: masks.neighborhood((7, 0)), ParameterError, "window_x"),
        (lambda: masks.neighborhood(7.5), ParameterError, "window_x"),
        (lambda: masks.neighborhood((3, 3, 3, 3)), ParameterError, "give axes"),
        (lambda: masks.neighborhood(()), ParameterError, "0 axes"),
        (lambda: masks.neighborhood((3, 3), axes=("y",)), ParameterError, "2 values for 1 axes"),
        (lambda: masks.shifted_windows(0), ParameterError, "window"),
        (lambda: masks.shifted_windows(7, -1), ParameterError, "shift"),
        (lambda: masks.strided_blocks(64, 1, 0), ParameterError, "stride"),
        (lambda: masks.grouped(True), ParameterError, "integer"),
        (lambda: masks.frames(0), ParameterError, "frame"),
        (lambda: masks.frames(4, torch.ones(3)), DTypeError, "float32"),
        (lambda: masks.frames(4, torch.ones(3, 2).bool()), ShapeError, "[3, 2]"),
        (lambda: masks.elastic_window(torch.ones(2), torch.ones(2), -1), ParameterError, "length"),
    ],
)
def test_bad_values(build, error, text):
    with pytest.raises(error) as caught:
        build()
    assert text in str(caught.value)
