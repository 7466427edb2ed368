"""Block lists on a GPU: by kernels where a compiler is there, by tensor operations where none is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import attngen
from attngen.analysed import analyse
from attngen.arguments import Shapes
from attngen.backends import triton_lists
from attngen.call_plans import CallPlans
from attngen.planner import device_blocks


@pytest.mark.parametrize("jit", [False, True])
def test_who_compresses(monkeypatch, jit):
    seen: list[object] = []

    def built(program, values, at, device, compress):
        del program, values, at
        seen.append(compress)
        assert device == torch.device("cuda", 0)
        return "lists"

    monkeypatch.setattr(device_blocks, "build_device_blocks", built)
    plans = CallPlans(analyse(attngen.load("documents").program))
    kernel = SimpleNamespace(needs_lists=True, block_q=64, block_k=64, jit=jit)
    shapes = Shapes(batch=1, heads=1, kv_heads=1, n_q=128, n_k=128, head_dim=32, value_dim=32)
    doc = {"doc": torch.zeros(1, 128, dtype=torch.int32)}
    assert plans.lists(kernel, shapes, doc, {}, torch.device("cuda", 0)) == "lists"
    assert seen == [triton_lists.compress if jit else device_blocks.device_lists]
