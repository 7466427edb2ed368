"""How little a box schedule visits: published cases of multi-dimensional windows, small windows packed in a tile."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch

import attngen
from attngen.errors import MissingTensorError, ParameterError, ShapeError, UnexpectedArgumentError

FLUX = {"grid": (256, 256), "window_y": 80, "window_x": 80}
HUNYUAN = {"grid": (30, 48, 80), "window_t": 18, "window_y": 24, "window_x": 24}
# (program, values, keys a tile, key tiles over those a query tile visits on average, at least)
BOUNDS = [
    ("neighborhood_2d", FLUX, 128, 7.91),
    ("neighborhood_2d", FLUX, 64, 8.42),
    ("neighborhood_2d", FLUX | {"stride_y": 16, "stride_x": 16}, 128, 10.24),
    ("neighborhood_3d", HUNYUAN, 128, 6.67),
    ("neighborhood_3d", HUNYUAN, 64, 7.31),
    ("neighborhood_3d", HUNYUAN | {"stride_t": 16, "stride_y": 8, "stride_x": 8}, 128, 11.11),
]


@pytest.mark.parametrize(("program", "values", "block_k", "least"), BOUNDS)
def test_published_windows(program, values, block_k, least):
    n = prod(values["grid"])
    schedule = attngen.load(program, **values).schedule(n, n, block_q=128, block_k=block_k)
    assert schedule.form == "ranges"
    assert schedule.nbytes == 0
    boxes = schedule.boxes
    assert boxes.volume("q") == 128
    assert boxes.volume("k") == block_k
    visited = (schedule.n_full + schedule.n_partial) / schedule.n_q_tiles
    assert round(n / block_k / visited, 2) >= least


def test_query_and_key_boxes_differ_where_that_visits_less():
    n = prod(HUNYUAN["grid"])
    boxes = attngen.load("neighborhood_3d", **HUNYUAN).schedule(n, n, block_q=128, block_k=128).boxes
    assert boxes.text("q") != boxes.text("k")


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("window", [2, 4, 7])
def test_whole_windows_share_a_tile_and_no_query_tile_visits_two(window, shift):
    shift = shift if shift < window else 0
    grid = (56, 56)
    bias = torch.zeros((2 * window - 1) ** 2, 1)
    spec = attngen.load("swin", grid=grid, window=window, shift=shift, bias=bias)
    schedule = spec.schedule(56 * 56, 56 * 56, block_q=128, block_k=128)
    used = np.unique(schedule.tiles().numpy()[0, 0].nonzero()[0]).size
    assert schedule.n_full + schedule.n_partial == used, (
        "each query tile visits the one tile of its own windows"
    )
    assert schedule.boxes.volume("q") >= window * window


def test_axes_that_never_meet_are_planned_apart():
    """Attention over time at every place: a tile holds many places, and visits one tile of keys."""
    schedule = attngen.load("temporal", grid=(12, 100)).schedule(1200, 1200, block_q=128, block_k=128)
    rows = -(-1200 // schedule.boxes.volume("q"))
    assert schedule.n_full + schedule.n_partial <= rows + 1


def test_a_million_tokens_take_no_list_of_tiles():
    spec = attngen.load("neighborhood_2d", grid=(1024, 1024), window_y=31, window_x=31)
    schedule = spec.schedule(1 << 20, 1 << 20)
    assert schedule.nbytes == 0
    assert schedule.n_q_tiles == (1 << 20) // 128
    assert schedule.density < 0.01


def test_a_residue_class_on_a_line_is_dense():
    spec = attngen.load("dilated", window=64, dilation=8)
    schedule = spec.schedule(8192, 8192, block_q=64, block_k=64)
    assert [s.axis for s in schedule.boxes.shapes] == ["residue", "step"]
    # 1024 tokens a class, 16 tiles; each sees itself and the one before
    assert schedule.n_full + schedule.n_partial == 8 * (16 + 15)


def test_extents_are_asked_for_and_checked():
    spec = attngen.load("neighborhood_2d")
    with pytest.raises(MissingTensorError):
        spec.schedule(64, 64)
    with pytest.raises(ParameterError, match="2 extents, but the axes are t, y, x"):
        attngen.load("neighborhood_3d", grid=(8, 8))
    with pytest.raises(UnexpectedArgumentError, match="no grid"):
        attngen.load("causal", grid=(8, 8))
    q = torch.randn(1, 1, 64, 16)
    with pytest.raises(ShapeError, match="100 tokens, but there are 64 keys"):
        spec(q, q, q, grid=(10, 10))
    with pytest.raises(ParameterError, match="1 or more"):
        spec(q, q, q, grid=(0, 10))
