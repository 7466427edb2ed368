"""The workloads of the GPU suite: predicates and exact counts against dense masks, operations, bytes, smaller cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attngen import arguments
from attngen.analysed import analyse
from attngen.bench.gpu import cases
from attngen.bench.gpu.cases import Bar, Case
from attngen.bench.gpu.masks import Documents, Extents, Full, Window
from attngen.bench.gpu.masks_grid import Dilated, Near, Stripes, Swin
from attngen.bench.gpu.masks_tables import Blocks, Selected, Slashes
from attngen.count_pairs import Count, count_kept

CPU = torch.device("cpu")
MASKS = [
    (Full(), 70, 90),
    (Window(), 90, 90),
    (Window(), 1, 90),
    (Window(17), 90, 90),
    (Window(17), 33, 90),
    (Window(17, 5), 90, 90),
    (Window(17, 5), 1, 90),
    (Documents(16), 100, 100),
    (Documents(16, offsets=True), 100, 100),
    (Near((100,), (10,), (1,)), 100, 100),
    (Near((96,), (12,), (4,)), 96, 96),
    (Near((9, 11), (4, 5), (1, 1)), 99, 99),
    (Near((4, 6, 8), (3, 4, 4), (2, 2, 1)), 192, 192),
    (Blocks(16, 0.4), 100, 90),
    (Slashes(9, 21), 80, 80),
    (Slashes(9, 21), 7, 80),
    (Selected(3, 16), 90, 90),
    (Stripes(2, 4), 256, 256),
    (Dilated(5, 3), 90, 90),
    (Swin(15, 4, 1), 225, 225),
]
IDS = [f"{type(m).__name__}-{i}" for i, (m, _, _) in enumerate(MASKS)]


@pytest.mark.parametrize(("mask", "n_q", "n_k"), MASKS, ids=IDS)
def test_pairs_are_counted_exactly(mask, n_q, n_k):
    at = Extents(4, 2, n_q, n_k)
    spec = mask.spec(at, CPU)
    tensors, params = arguments.bind(spec.program, spec.values, {})
    call = Count({**params, **tensors}, n_q, n_k, 1, 4)
    if not isinstance(mask, Selected):  # which reads at key heads, unknown to a count
        assert count_kept(analyse(spec.program).program, call, (1, 4)).n == mask.pairs(spec, at)


@pytest.mark.parametrize(("mask", "n_q", "n_k"), MASKS, ids=IDS)
def test_the_predicate_for_flex_attention_keeps_the_same_pairs(mask, n_q, n_k):
    at = Extents(4, 2, n_q, n_k)
    spec = mask.spec(at, CPU)
    keep = mask.keep(spec, at)
    if keep is None:
        assert isinstance(mask, Full | Swin)
        return
    h, q, k = torch.arange(4)[:, None, None], torch.arange(n_q)[:, None], torch.arange(n_k)
    dense = keep(torch.zeros((), dtype=torch.int64), h, q, k).broadcast_to(4, n_q, n_k)
    assert int(dense.sum()) == mask.pairs(spec, at)
    # values that say which keys were seen: means of numbers are equal only where the sets are
    query = torch.zeros(1, 4, n_q, 8)
    key = torch.zeros(1, 2, n_k, 8)
    value = torch.randn(1, 2, n_k, 8, generator=torch.Generator().manual_seed(0))
    out = spec(query, key, value, backend="reference")
    weights = dense.double() / dense.sum(-1, keepdim=True).clamp(min=1)
    want = weights @ value[0].repeat_interleave(2, dim=0).double()
    torch.testing.assert_close(out[0].double(), want, atol=1e-6, rtol=1e-6)
    assert mask.causal == (not bool((dense & (k > q + n_k - n_q)).any()))
    assert mask.per_head or all(torch.equal(dense[0], one) for one in dense)


def test_operations_are_those_of_kept_pairs():
    case = Case("c", "", Window(3), 1, 2, 1, 10, head_dim=16)
    pairs = case.mask.pairs(case.mask.spec(case.extents, CPU), case.extents)
    assert pairs == 2 * (1 + 2 + 3 * 8)
    assert case.flop(pairs) == pairs * (2 * 16 + 2 * 16)


def test_bytes_are_those_of_keys_that_are_seen_once_a_key_head():
    case = Case("c", "", Window(8, 2), 3, 4, 2, 64, n_q=1, head_dim=16)
    pairs = case.mask.pairs(case.mask.spec(case.extents, CPU), case.extents) * case.batch
    assert pairs == 3 * 4 * 10
    assert case.touched_bytes(pairs) == 3 * 2 * 10 * (16 + 16) * 2


def test_a_smaller_case_halves_the_batch_then_the_heads_and_says_so():
    case = Case("c", "G1", Full(), 2, 8, 2, 64)
    first = case.smaller()
    second = first.smaller()
    assert (first.batch, second.heads, second.kv_heads) == (1, 4, 1)
    assert second.shrunk == ("batch 2 to 1", "heads 8 to 4")
    assert second.smaller() is None


@pytest.mark.parametrize(
    ("bar", "value", "verdict"),
    [
        (Bar("TF/s", 400, 520), 399.9, "fail"),
        (Bar("TF/s", 400, 520), 400, "pass"),
        (Bar("TF/s", 400, 520), 521, "stretch"),
        (Bar("ms", 19, 14), 20, "fail"),
        (Bar("ms", 19, 14), 15, "pass"),
        (Bar("ms", 19, 14), 14, "stretch"),
        (Bar("s", 5), 1, "pass"),
    ],
)
def test_a_bar_knows_whether_more_is_better(bar, value, verdict):
    assert bar.verdict(value) == verdict


def test_every_forward_goal_has_a_workload_and_names_are_unique():
    assert set(cases.goal_names()) == {f"G{i}" for i in range(1, 19)} - {"G3"}
    names = [c.name for c in (*cases.GOALS, *cases.MORE)]
    assert len(names) == len(set(names))
    grids = [c for c in cases.GOALS if isinstance(c, Case) and isinstance(c.mask, Near)]
    assert all(torch.Size(c.mask.grid).numel() == c.n for c in grids)


def test_a_case_is_a_value():
    case = cases.MORE[0]
    assert replace(case) == case
    assert hash(case) == hash(replace(case))
