"""Carry a state from chunk to chunk of the keys: the part of a causal linear sum that lies before a row's chunk."""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def carried(
    query: Tensor, key: Tensor, value: Tensor, step: Tensor | None, end: Tensor, chunk: int
) -> Tensor:
    """`query[q] . state[end[q] // chunk]`, fp32 `[B, H, n_q, columns]`; without the last axis if `value` has none.

    query [B, H|1, n_q, r], key [B, H|1, n_k, r], value [B, H|1, n_k(, f)], step [B, H|1, n_k] (read where a chunk
    begins), end [B, H|1, n_q] integers from 0 to n_k.
    """
    flat = value.dim() == 3
    value = value[..., None] if flat else value
    states = _states(key.float(), value.float(), step, chunk)
    cut = (end // chunk).expand(*query.shape[:2], -1) if end.shape[1] > 1 else end // chunk
    query = query.float().expand(states.shape[0], states.shape[1], -1, -1)
    out = query.new_zeros(*query.shape[:3], value.shape[-1])
    same = cut[:1, :1]
    if bool((cut == same).all()):
        rows, counts = torch.unique_consecutive(same[0, 0], return_counts=True)
        at = 0
        for c, n in zip(rows.tolist(), counts.tolist(), strict=True):
            out[:, :, at : at + n] = query[:, :, at : at + n] @ states[:, :, c]
            at += n
    else:
        for c in range(1, states.shape[2]):
            here = (cut == c)[..., None]
            if bool(here.any()):
                out += torch.where(here, query, 0.0) @ states[:, :, c]
    return out[..., 0] if flat else out


def _states(key: Tensor, value: Tensor, step: Tensor | None, chunk: int) -> Tensor:
    """The state before each chunk, and after the last whole one: `[B, H, chunks + 1, r, f]`."""
    batch = max(key.shape[0], value.shape[0])
    heads = max(key.shape[1], value.shape[1], 1 if step is None else step.shape[1])
    n = key.shape[2] // chunk
    keys = key[:, :, : n * chunk].reshape(*key.shape[:2], n, chunk, key.shape[3])
    values = value[:, :, : n * chunk].reshape(*value.shape[:2], n, chunk, value.shape[3])
    added = (keys.transpose(-1, -2) @ values).expand(batch, heads, -1, -1, -1)
    zero = added.new_zeros(batch, heads, 1, *added.shape[3:])
    if step is None:
        return torch.cat([zero, added.cumsum(2)], dim=2)
    factor = step[:, :, : n * chunk : chunk].float()[..., None, None]
    states = [zero[:, :, 0]]
    for c in range(n):
        states.append(states[-1] * factor[:, :, c] + added[:, :, c])
    return torch.stack(states, dim=2)
