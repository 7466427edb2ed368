"""Calls to tune."""

from __future__ import annotations

from dataclasses import replace

import torch

from attngen.store.settings import settings


def qkv(batch=1, heads=2, kv_heads=None, n=128, dim=16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, h, n, dim) for h in (heads, kv_heads or heads, kv_heads or heads)]
    return tuple(torch.randn(s, generator=generator).to(dtype) for s in shapes)


def calls_of(spec, query, key, value, *, backend="cpu", **tensors):
    """The sweeps of a call."""
    calls = []
    inputs = spec._inputs(query, key, value, None, True, backend, replace(settings(), tune="off"), tensors)
    spec._runner.run(replace(inputs, observer=calls.append))
    return calls
