"""The programs that policies call, each made once a process."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from attngen.api import Attention, Output, load

CAUSAL = "k <= pos(q)"


@lru_cache(maxsize=64)
def program(
    name: str, outputs: tuple[str, ...] | None = None, grid: tuple[int, ...] | None = None
) -> Attention:
    """A program of `ir/`; its parameters and tensors are given with the call."""
    return load(name, outputs) if grid is None else load(name, outputs, grid=grid)


@lru_cache(maxsize=64)
def cascade(name: str, mask: str | None = None, outputs: tuple[str, ...] | None = None) -> Attention:
    """A cascade of `ir/cascades/` under a mask."""
    return Attention(mask=mask, cascade=name, outputs=outputs)


def one(out: Output) -> Tensor:
    """The only output of a call."""
    assert isinstance(out, torch.Tensor)
    return out


def several(out: Output) -> tuple[Tensor, ...]:
    """The outputs of a call that has more than one."""
    assert isinstance(out, tuple)
    return out


def layer_norm(x: Tensor, eps: float) -> Tensor:
    """Over the last axis, without weights."""
    return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=eps)
