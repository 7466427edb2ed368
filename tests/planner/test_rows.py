"""Bounds read at the query: exact where rows see runs that touch, sound and cheap for any tensor."""

from __future__ import annotations

import random
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch

from attngen import masks
from attngen.api import Attention
from attngen.lang.expr import Const, Var
from attngen.planner.evaluate_plan import Extents, evaluate_plan
from attngen.planner.plan import TilePlan
from attngen.planner.plan_mask import plan_mask
from attngen.planner.rows import RowExtreme, row_extremes
from attngen.planner.schedule import Schedule, make_schedule
from tests.planner.dense import classes, dense, program
from tests.planner.hulls import hulls
from tests.planner.random_masks import B, Case, H
from tests.planner.test_soundness import assert_sound

MILLION = 1 << 20
RUN = "first[q]: int\nlast[q]: int\nmask = first[q] <= k < last[q]"
CAUSAL = "first[i]: int\nmask = (first[pos(q)] <= k) & (k <= pos(q))"
TIGHT = "first[i]: int\nmask = (min(first[pos(q)], pos(q)) <= k) & (k <= pos(q))"


def ranges_of(text: str) -> TilePlan:
    plan = plan_mask(program(text))
    assert plan.form == "ranges", plan.reason
    assert plan.ranges is not None
    return plan.ranges


def schedule(
    text: str, values: dict[str, Any], n_q: int, n_k: int, block_q: int = 16, block_k: int = 16
) -> Schedule:
    p = program(text)
    sizes = {"n_q": n_q, "n_k": n_k, "batch": B, "heads": H}
    return make_schedule(p, plan_mask(p), values, **sizes, block_q=block_q, block_k=block_k)


def documents(rng: random.Random, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of the document at each of `n` positions."""
    cuts = sorted({0, n, *(rng.randrange(n + 1) for _ in range(rng.choice((0, 1, 4, 12))))})
    lengths = np.diff(cuts)
    return np.repeat(cuts[:-1], lengths), np.repeat(cuts[1:], lengths)


@pytest.mark.parametrize("text", [RUN, CAUSAL, TIGHT])
def test_documents_are_exact(text: str) -> None:
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    for _ in range(12):
        n = rng.choice((1, 15, 16, 17, 100, 257))
        first, last = documents(rng, n)
        values = {"first": first.astype(np.int32), "last": last.astype(np.int32)}
        n_q = n if text is RUN else rng.randint(1, n)
        block_q, block_k = rng.choice((4, 16, 64)), rng.choice((4, 16, 64))
        kept = dense(program(text).mask or Const(True), values, n_q, n, B, H)
        want = classes(kept, block_q, block_k)
        got = schedule(text, values, n_q, n, block_q, block_k)
        assert got.form == "ranges"
        assert got.nbytes == 0
        assert (np.broadcast_to(got.tiles().numpy(), want.shape) == want).all(), f"seed {seed}"
        case = Case(program(text), values, n_q, n, block_q, block_k)
        for (b, h, rows), ((lo, hi),) in hulls(case, ranges_of(text)):
            seen = np.flatnonzero(kept[b, h, rows].any(axis=0))
            assert (lo, hi) == (seen[0], seen[-1] + 1), f"seed {seed}"
            assert seen.size == hi - lo, f"seed {seed}"


@pytest.mark.parametrize(
    "text",
    [
        "x[q]: int\nmask = (k >= x[q] // 8 * 8 - 3) & (k <= q)",
        "x[q]: int\ny[b, q]: int\nmask = (k >= min(x[q], y[b, q])) & (k < max(x[q], y[b, q]) + 5)",
        "x[q]: int\nw: int\nmask = abs(k - x[q]) <= w",
        "x[q]: int\ny[b, q]: int\nmask = k * 2 + x[q] < y[b, q] * 3 - q",
        "x[q]: int\nmask = k // 4 == x[q]",
        "x[q]: int\nt[i]: int\nmask = k < t[x[q]] + t[q // 3]",
        "x[q]: int\nw: int\nmask = (k < w) | (k >= x[q]) & (k < x[q] + 7)",
        "x[q]: int\nw: int\nmask = k <= w * x[q]",
        "on[q]: bool\nmask = (k <= q) & on[q]",
        "on[q]: bool\nx[q]: int\nmask = (on[q] & (k <= q)) | (~on[q] & (k >= x[q]))",
        "on[q]: bool\nmask = where(on[q], k <= q, k >= q)",
        "x[q]: int\nw: int\nmask = (x[q] <= w) & (k <= q)",
        "x[q]: int\nmask = (max(k, x[q]) <= q) & (q % 3 != 1)",
        "mask = (q ^ 5) > 9",
    ],
)
def test_sound_for_any_data(text: str) -> None:
    ranges_of(text)
    seed = random.randrange(1 << 30)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        n_q, n_k = (int(n) for n in rng.integers(1, 80, 2))
        values = {
            "x": rng.integers(-9, 70, n_q).astype(rng.choice(["int8", "int32", "int64"])),
            "y": rng.integers(-9, 70, (B, n_q)),
            "t": rng.integers(-9, 70, 13).astype(np.int16),
            "on": rng.random(n_q) < rng.choice([0.1, 0.95]),
            "w": int(rng.integers(-20, 40)),
        }
        kept = dense(program(text).mask or Const(True), values, n_q, n_k, B, H)
        got = schedule(text, values, n_q, n_k, 8, 4)
        assert_sound(got.tiles().numpy(), classes(kept, 8, 4))
        for (b, h, rows), spans in hulls(Case(program(text), values, n_q, n_k, 8, 4), ranges_of(text)):
            inside = np.zeros(n_k, dtype=bool)
            for lo, hi in spans:
                inside[lo : max(lo, hi)] = True
            assert not (kept[b, h, rows].any(axis=0) & ~inside).any(), f"seed {seed}"


def test_rows_that_a_condition_picks_make_full_tiles() -> None:
    on = np.repeat([True, False], 32)
    on[5] = False
    got = schedule("on[q]: bool\nmask = on[q] & (k < 40)", {"on": on}, 64, 48).tiles()
    assert got[0, 0].tolist() == [[1, 1, 1], [2, 2, 1], [0, 0, 0], [0, 0, 0]]


def test_masks_of_the_catalogue_need_no_lists() -> None:
    starts = torch.tensor([0, 30, 31, 90])
    every = (masks.documents(offsets=starts), masks.varlen(starts, starts), masks.padded(starts, starts))
    for mask in every:
        for other in (masks.causal(), masks.sliding_window(9), masks.sink(3)):
            assert Attention(mask=mask & other).schedule(90, 90, 4, block_q=16, block_k=16).form == "ranges"
    lengths_q, lengths_k = torch.tensor([100, 17]), torch.tensor([50, 90])
    found = Attention(mask=masks.padded(lengths_q, lengths_k)).schedule(128, 96, 2, block_q=16, block_k=16)
    q, k = np.arange(128)[:, None], np.arange(96)
    kept = [(q < a) & (k < b) & (k <= q + b - a) for a, b in ((100, 50), (17, 90))]
    assert (found.tiles()[:, 0].numpy() == classes(np.array(kept)[:, None], 16, 16)[:, 0]).all()


def test_what_is_not_proved_is_not_tight() -> None:
    for text in (
        RUN,
        CAUSAL,
        "on[q]: bool\nmask = on[q] & (k <= q)",
        "first[q]: int\nmask = (min(first[q], q) <= k) & (k <= 2 * q)",
        "first[q]: int\nmask = (min(first[q], q) <= k) & (k <= q) & (q < 40)",
        "first[q]: int\nx[q]: int\nmask = (min(first[q], q) <= k) & (min(x[q], q) <= k) & (k <= q)",
        "first[q]: int\nmask = (min(first[q], q) + q <= k) & (k <= q)",
    ):
        assert not ranges_of(text).tight
    assert ranges_of(TIGHT).tight


def test_the_plan_reads_each_end_once() -> None:
    extremes = row_extremes(ranges_of(RUN).lets)
    assert [(e.op, e.body.tensor) for e in extremes] == [  # type: ignore[attr-defined]
        ("min", "first"),
        ("max", "last"),
        ("max", "first"),
        ("min", "last"),
    ]
    assert RowExtreme("min", Var("q")) != RowExtreme("max", Var("q"))


def test_a_million_rows_take_little_memory() -> None:
    rng = random.Random(0)
    first, last = (x.astype(np.int32) for x in documents(rng, MILLION))
    values, plan = {"first": first, "last": last}, ranges_of(RUN)
    at = Extents(MILLION, MILLION, 1, 1, 128, 128)

    def run() -> Any:
        return evaluate_plan(plan, values, at, per_batch=False, per_head=False)

    best = 10.0
    for _ in range(3):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert best < 4 * 50e-3, "four times the budget of 50 ms, for noisy machines"
    assert peak < 8 << 20
