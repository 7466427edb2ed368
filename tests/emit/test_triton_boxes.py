"""Kernels of boxes with shapes that are chosen by hand: idle lanes, tilings that begin off 0, cut planes."""

from __future__ import annotations

import pytest
import torch

import attngen
from attngen import pipeline
from attngen.emit.triton import config as triton_config
from attngen.emit.triton.config import TritonConfig
from attngen.planner import box_call
from attngen.planner.layout import Boxes, Shape
from tests.oracle import Shape as Extents
from tests.oracle import assert_matches_reference, make_inputs

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="a process compiles or interprets; the GPU tests run the same programs"
)

WINDOWS = {"window_y": 3, "window_x": 4, "stride_x": 2}
SHAPES = [  # (y: queries, keys, origin), (x: ...)
    ((4, 4, 0), (4, 4, 0)),
    ((8, 2, 0), (2, 8, 0)),
    ((3, 5, 0), (5, 3, 0)),  # 15 of 16 lanes
    ((7, 6, 2), (7, 7, 3)),  # 49 and 42 of 64 lanes, tilings that begin before 0
    ((1, 1, 0), (13, 11, 5)),
    ((16, 1, 1), (1, 48, 0)),
]


@pytest.mark.parametrize("beyond", [0, 3])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("backend", ["triton", "cpu"])
def test_any_shape_gives_the_same(shapes, beyond, backend, monkeypatch):
    """`choose_boxes` may pick any of these for some call; the result must not depend on it."""
    chosen = box_call.choose_boxes

    def by_hand(program, plan, call):
        found = chosen(program, plan, call)
        return Boxes(
            tuple(Shape(axis, *shape) for axis, shape in zip("yx", shapes, strict=True)),
            found.cut,
            found.tight,
        )

    monkeypatch.setattr(box_call, "choose_boxes", by_hand)
    spec = attngen.load("neighborhood_2d", ("O", "LSE"), grid=(11, 13), **WINDOWS)
    n = 11 * 13 + beyond
    inputs = make_inputs(Extents(b=1, h=2, hkv=1, n_q=n, n_k=n, d=16, e=16))
    assert_matches_reference(spec, *inputs, backend=backend)


@pytest.mark.parametrize("blocks", [(128, 64), (64, 32), (16, 16)])
@pytest.mark.parametrize(("window", "stride"), [(8, 3), (7, 1), (5, 5)])
def test_one_axis_with_idle_lanes(window, stride, blocks, monkeypatch):
    """A key box of 48 on 64 lanes: an idle lane must not count the first keys of the next box a second time."""

    def fixed(*_args: object) -> TritonConfig:
        return TritonConfig(*blocks, 4, 1)

    monkeypatch.setattr(triton_config, "default_config", fixed)
    monkeypatch.setattr("attngen.backends.triton.default_config", fixed)
    pipeline.load_kernel.cache_clear()
    pipeline.kernel_spec.cache_clear()
    try:
        spec = attngen.load("neighborhood_1d", ("O", "LSE"), grid=(131,), window_x=window, stride_x=stride)
        inputs = make_inputs(Extents(b=1, h=1, hkv=1, n_q=131, n_k=131, d=16, e=16))
        assert_matches_reference(spec, *inputs, backend="triton")
    finally:
        pipeline.load_kernel.cache_clear()
        pipeline.kernel_spec.cache_clear()
