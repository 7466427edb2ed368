"""What a kernel computes a pair, which tiles it visits, and how unevenly rows of work end: against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attngen
from attngen import pipeline
from attngen.analysed import analyse, consts_of, scheduled
from attngen.arguments import as_numpy
from attngen.cost.balance import imbalance
from attngen.cost.kernel_ops import pair_ops, row_widths
from attngen.cost.visits import Call, visits_of
from attngen.tiles_needed import EMPTY, FULL, PARTIAL, kept_pairs


def kernel(spec, dtype="float32", head_dim=64, value_dim=64, tensors=()):
    special = pipeline.Specialisation(dtype, head_dim, value_dim, tensors)
    return pipeline.kernel_spec(analyse(spec.program), special)


def test_operations_of_plain_attention():
    ops = pair_ops(kernel(attngen.load("causal"), value_dim=32))
    assert ops.macs == 64 + 32
    assert ops.special == 1
    assert (ops.reads, ops.rounded, ops.mask_quotients, ops.mask_reads) == (0, 0, 0, 0)
    assert ops.mask_simple == 1  # k <= pos(q): the position is the row's
    assert pair_ops(kernel(attngen.load("causal"), "bfloat16")).rounded == 1
    widths = row_widths(kernel(attngen.load("causal"), value_dim=32))
    assert (widths.query, widths.acc, widths.key, widths.scores) == (64, 32, 96, 1)


def test_operations_of_masks_and_scores():
    assert pair_ops(kernel(attngen.load("sliding_window"))).mask_simple == 4
    doc = kernel(attngen.load("documents"), tensors=(("doc", "int32", 2),))
    assert pair_ops(doc).mask_simple == 3
    plain, alibi = (
        pair_ops(kernel(attngen.load(n), tensors=t))
        for n, t in (("causal", ()), ("alibi", (("slope", "float32", 1),)))
    )
    assert alibi.simple > plain.simple
    bias = attngen.Attention(score=lambda s, b, h, q, k: s + torch.zeros(4, 4)[q % 4, k % 4])
    assert (
        pair_ops(kernel(bias, tensors=tuple((t.name, "float32", 2) for t in bias.program.tensors))).reads == 1
    )


CASES = {
    "causal": (attngen.load("causal"), {}, 200, 260),
    "window": (attngen.load("sliding_window", window=40), {}, 130, 130),
    "sink": (attngen.load("sliding_window_sink", sink=5, window=33), {}, 97, 150),
    "bands": (attngen.load("global_tokens", radius=17, n_global=3), {}, 150, 150),
    "documents": (attngen.load("documents"), {"doc": torch.arange(128)[None] // 37}, 128, 128),
    "grid": (attngen.load("neighborhood_2d", grid=(9, 12), window_y=3, window_x=5), {}, 108, 108),
    "empty": (attngen.load("causal"), {}, 0, 20),
    "no keys": (attngen.load("causal"), {}, 20, 0),
}


def call_of(spec, tensors, n_q, n_k, batch=2, heads=3):
    values = {p.name: p.default for p in spec.program.params if p.default is not None}
    values |= {n: v for n, v in spec.values.items() if isinstance(v, int | float)}
    analysed = scheduled(analyse(spec.program), consts_of(spec.program, values), 1)
    return Call(
        analysed.program, pipeline.plan_of(analysed), {**values, **as_numpy(tensors)}, n_q, n_k, batch, heads
    )


@pytest.mark.parametrize("name", CASES)
def test_visits_are_those_of_the_schedule(name):
    spec, tensors, n_q, n_k = CASES[name]
    call = call_of(spec, tensors, n_q, n_k)
    schedule = spec.schedule(n_q, n_k, 2, 3, 32, 24, **tensors)
    visits = visits_of(call, 32, 24, schedule.boxes)
    classes = schedule.tiles().numpy()
    rows = np.broadcast_to(classes, (2, 3, *classes.shape[2:]))
    assert visits.partial.tolist() == (rows == PARTIAL).sum(-1).tolist()
    assert visits.full.tolist() == (rows == FULL).sum(-1).tolist()
    assert visits.n_partial + visits.n_full == int((rows != EMPTY).sum())


@pytest.mark.parametrize("name", ["causal", "window", "sink", "bands"])
@pytest.mark.parametrize("panel", [1, 16, 32])
def test_keys_of_panels_are_those_between_what_their_rows_see(name, panel):
    spec, tensors, n_q, n_k = CASES[name]
    visits = visits_of(call_of(spec, tensors, n_q, n_k), 32, 24, None, panel)
    kept = kept_pairs(spec.program, spec.values, n_q, n_k)[0, 0]
    some = whole = 0
    for first in range(0, n_q, panel):
        rows = kept[first : first + panel]
        some += int(rows.any(0).sum())
        whole += int(rows.all(0).sum())
    assert visits.panels == 6 * -(-n_q // panel)
    assert visits.panel_keys is not None
    spans, full = visits.panel_keys
    # runs are joined where they touch, so that a key between two of them may count
    assert 6 * some <= spans <= 6 * some * 1.3
    assert full <= 6 * whole
    if name != "bands":
        assert (spans, full) == (6 * some, 6 * whole)


def test_keys_of_panels_of_boxes():
    spec, tensors, n_q, n_k = CASES["grid"]
    schedule = spec.schedule(n_q, n_k, 2, 3, 32, 24, **tensors)
    visits = visits_of(call_of(spec, tensors, n_q, n_k), 32, 24, schedule.boxes, 16)
    assert visits.panel_keys is not None
    kept = int(kept_pairs(spec.program, spec.values, n_q, n_k).sum())
    spans, _ = visits.panel_keys
    assert kept / 16 * 6 <= spans < visits.n_partial * 2 * visits.keys + 6 * visits.n_full * visits.keys


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=60), st.integers(2, 9))
def test_imbalance_is_what_units_that_take_the_next_row_end_with(work, units):
    free = [0.0] * units
    for amount in work:
        at = free.index(min(free))
        free[at] += amount
    expected = max(free) / (sum(work) / units)
    assert imbalance(np.array(work), units) == pytest.approx(expected)


def test_imbalance_of_many_rows_and_of_none():
    assert imbalance(np.ones(100_000), 7) == pytest.approx(1.0, abs=1e-3)
    assert imbalance(np.zeros(0), 4) == 1.0
    assert imbalance(np.ones(3), 1) == 1.0
    assert imbalance(np.ones(2), 8) == 4.0
