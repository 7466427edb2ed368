"""States carried from chunk to chunk: against a loop over the keys."""

from __future__ import annotations

import pytest
import torch

from attngen import run_carry
from attngen.run_carry import carried

CHUNK = 8


def by_keys(query, key, value, step, end):
    """The same, key by key: what lies before the last whole chunk before `end`."""
    out = torch.zeros(*query.shape[:3], value.shape[-1])
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            state, states = torch.zeros(key.shape[-1], value.shape[-1]), []
            for k in range(key.shape[2]):
                if k % CHUNK == 0:
                    states.append(state)
                    state = state * (1.0 if step is None else step[b, h, k])
                state = state + torch.outer(key[b, h, k], value[b, h, k])
            states.append(state)
            for q in range(query.shape[2]):
                out[b, h, q] = (
                    query[b, h, q] @ states[int(end[b % end.shape[0], h % end.shape[1], q]) // CHUNK]
                )
    return out


def inputs(n_q: int, n_k: int, *, decayed: bool):
    g = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 5, generator=g) for n in (n_q, n_k, n_k))
    return query, key, value, torch.rand(2, 3, n_k, generator=g) if decayed else None


CAUSAL = [(0, 16), (1, 7), (7, 8), (8, 8), (40, 40), (43, 43), (20, 43), (43, 20)]


@pytest.mark.parametrize("decayed", [False, True])
@pytest.mark.parametrize(("n_q", "n_k"), CAUSAL)
def test_causal_rows(n_q, n_k, decayed):
    q, k, v, step = inputs(n_q, n_k, decayed=decayed)
    end = (torch.arange(n_q) + n_k - n_q + 1).clamp(0, n_k)[None, None]
    torch.testing.assert_close(
        carried(q, k, v, step, end, CHUNK), by_keys(q, k, v, step, end), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("ends", ["jumps", "by head"])
def test_rows_out_of_step(ends):
    q, k, v, step = inputs(21, 40, decayed=True)
    g = torch.Generator().manual_seed(1)
    end = torch.randint(0, 41, (1, 1, 21) if ends == "jumps" else (2, 3, 21), generator=g)
    torch.testing.assert_close(
        carried(q, k, v, step, end, CHUNK), by_keys(q, k, v, step, end), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("chunks", [1, 2, 3, 7, 16])
def test_both_orders_carry_the_same(chunks):
    g = torch.Generator().manual_seed(2)
    added, factor = torch.randn(2, 3, chunks, 4, 5, generator=g), torch.rand(1, 3, chunks, 1, 1, generator=g)
    factor[:, :, chunks // 2] = 0.0  # nothing is remembered across it
    in_order = run_carry._carried_in_order(added, factor)
    torch.testing.assert_close(run_carry._carried_by_doubling(added, factor), in_order)
