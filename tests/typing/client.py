"""A client's use of the public interface: never run, only type-checked, in strict mode."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import torch

import attngen
from attngen import Attention, AttngenError, Mask, Schedule, Score


@attngen.mask
def local(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return (k <= q) & (q - k < 512)


@attngen.score
def decayed(
    score: torch.Tensor, b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor
) -> torch.Tensor:
    return score - 0.1 * (q - k)


def use(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
    assert_type(local, Mask)
    assert_type(decayed, Score)
    both = local & attngen.masks.causal() | ~attngen.masks.sink(4)
    assert_type(both, Mask)
    spec = Attention(mask=both, score=decayed, cascade="softmax", outputs=("O", "LSE"))
    result = spec(query, key, value, scale=0.5)
    if isinstance(result, tuple):
        assert_type(result, tuple[torch.Tensor, ...])
    else:
        assert_type(result, torch.Tensor)
    plan = spec.schedule(1024, 1024, heads=8)
    assert_type(plan, Schedule)
    assert_type(plan.n_full, int)
    assert_type(plan.tiles(), torch.Tensor)
    assert_type(spec.text(), str)
    assert_type(spec.source(target="sm_90", dtype="bf16", head_dim=128), str)
    assert_type(spec.derivation().passes, int)
    assert_type(spec.explain(n_q=64).to_html("page.html"), Path)
    figures = spec.inspect(target="sm_80", dtype="fp16", head_dim=64)
    assert_type(figures.registers, int)
    assert_type(figures.occupancy.ctas, int)
    assert_type([loop.simulated for loop in figures.loops], list[float | None])
    found = spec.tune(query, key, value, budget="quick", seed=1)
    assert_type(found.default_s, float | None)
    assert_type(found.interrupted, bool)
    assert_type(found.sweeps[0].speedup, float)
    loaded = attngen.load("sliding_window_sink", sink=64, window=1024)
    assert_type(loaded, Attention)
    attngen.attention(query, key, value, mask=lambda b, h, q, k: k <= q, enable_gqa=True)
    try:
        attngen.cascade("sigmoid")
    except AttngenError as error:
        assert_type(error.code, str)
