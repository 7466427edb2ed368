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
        rows, counts = (t.tolist() for t in torch.unique_consecutive(same[0, 0], return_counts=True))
        if _in_step(rows, counts, chunk):
            out = _by_chunks(query, states, rows[0] if rows else 0, counts, chunk)
        else:
            at = 0
            for c, n in zip(rows, counts, strict=True):
                out[:, :, at : at + n] = query[:, :, at : at + n] @ states[:, :, c]
                at += n
    else:
        for c in range(1, states.shape[2]):
            here = (cut == c)[..., None]
            if bool(here.any()):
                out += torch.where(here, query, 0.0) @ states[:, :, c]
    return out[..., 0] if flat else out


def _in_step(rows: list[int], counts: list[int], chunk: int) -> bool:
    """Whether every chunk of keys ends within a chunk of queries of its own, as under a causal mask."""
    whole = all(n == chunk for n in counts[1:-1]) and all(n <= chunk for n in counts[:1] + counts[-1:])
    return len(rows) > 1 and whole and rows == list(range(rows[0], rows[0] + len(rows)))


def _by_chunks(query: Tensor, states: Tensor, first: int, counts: list[int], chunk: int) -> Tensor:
    """Each chunk of queries times its own state, in one product: the first and the last are filled up with zeros."""
    before, after = chunk - counts[0], chunk - counts[-1]
    rows = torch.nn.functional.pad(query, (0, 0, before, after)).unflatten(2, (len(counts), chunk))
    out = (rows @ states[:, :, first : first + len(counts)]).flatten(2, 3)
    return out[:, :, before : before + query.shape[2]]


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
    carry = _carried_in_order if added.device.type == "cpu" else _carried_by_doubling
    return torch.cat([zero, carry(added, factor)], dim=2)


def _carried_in_order(added: Tensor, factor: Tensor) -> Tensor:
    """`state[c] = state[c - 1] * factor[c] + added[c]` along axis 2, chunk by chunk: the least work."""
    out = added.clone()
    for c in range(1, out.shape[2]):
        out[:, :, c].addcmul_(out[:, :, c - 1], factor[:, :, c])
    return out


def _carried_by_doubling(added: Tensor, factor: Tensor) -> Tensor:
    """The same in a number of steps that grows with the logarithm of the chunks, for where a step costs a launch."""
    state, along = added, factor.expand(*added.shape[:3], 1, 1)
    reach = 1
    while reach < state.shape[2]:  # after a round, each chunk holds the last 2 * reach up to it
        state = torch.cat(
            [state[:, :, :reach], state[:, :, reach:] + state[:, :, :-reach] * along[:, :, reach:]], dim=2
        )
        along = torch.cat([along[:, :, :reach], along[:, :, reach:] * along[:, :, :-reach]], dim=2)
        reach *= 2
    return state
