"""Families whose schedule is exact: visited tiles are those with a kept pair, full tiles those with all kept."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import numpy as np
import pytest

from attngen.lang.expr import Const
from attngen.lang.program import Program
from attngen.planner.blocks import build_blocks
from attngen.planner.plan_mask import plan_mask
from attngen.planner.schedule import make_schedule
from tests.planner.dense import classes, dense, program
from tests.planner.hulls import hulls
from tests.planner.random_masks import Case
from tests.planner.test_soundness import assert_sound, expand

B, H = 2, 3
HUGE = 2**31 - 1
WIDTHS = (0, 1, 2, 15, 16, 17, 64, 127, 128, 129, 500, -1, -200, HUGE, -HUGE)
DIVISORS = (1, 2, 3, 15, 16, 17, 64, 128, 200, HUGE)
LENGTHS = (0, 1, 127, 128, 129)
BLOCKS = (16, 32, 64, 128)

# name: (text, values of each parameter). All of them must be ranges, exact, and proved tight.
FAMILIES: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "none": ("w: int = 1", {"w": (1,)}),
    "causal": ("mask = k <= q", {}),
    "causal from the end": ("mask = k <= pos(q)", {}),
    "anticausal": ("mask = k >= pos(q)", {}),
    "antidiagonal": ("w: int\nmask = q + k <= w", {"w": WIDTHS}),
    "strict antidiagonal band": ("w: int\nmask = abs(q + k - 100) < w", {"w": WIDTHS}),
    "sliding window": ("w: int\nmask = (k <= pos(q)) & (pos(q) - k < w)", {"w": WIDTHS}),
    "flash window": (
        "l: int\nr: int\nmask = (k >= pos(q) - l) & (k <= pos(q) + r)",
        {"l": WIDTHS, "r": WIDTHS},
    ),
    "symmetric window": ("w: int\nmask = abs(q - k) <= w", {"w": WIDTHS}),
    "sink and window": (
        "s: int\nw: int\nmask = (k <= pos(q)) & ((k < s) | (pos(q) - k < w))",
        {"s": WIDTHS, "w": WIDTHS},
    ),
    "prefix": ("p: int\nmask = (k <= q) | (k < p)", {"p": WIDTHS}),
    "chunk": ("c: int\nmask = q // c == k // c", {"c": DIVISORS}),
    "causal chunk": ("c: int\nmask = (k <= q) & (q // c == k // c)", {"c": DIVISORS}),
    "chunk of 48": ("mask = (q // 48 == k // 48) & (q >= k)", {}),
    "whole chunks so far": ("c: int\nmask = k // c <= q // c", {"c": DIVISORS}),
    "compressed keys": ("c: int\nw: int\nmask = k * 3 + w <= q // c", {"c": DIVISORS, "w": WIDTHS}),
    "nested division": ("c: int\nmask = (k + 5) // 4 // 3 <= (q - 2) // c", {"c": DIVISORS}),
    "chunk by remainder": ("c: int\nmask = (k >= q - q % c) & (k <= q)", {"c": DIVISORS}),
    "window per head": ("w[h]: int\nmask = (k <= q) & (q - k < w[h])", {}),
    "length per batch": ("n[b]: int\nmask = (k < n[b]) & (k <= q)", {}),
    "switch per head": ("on[h]: bool\nw: int\nmask = (k <= q) & (~on[h] | (q - k < w))", {"w": WIDTHS}),
    "some rows": ("a: int\nmask = (q >= a) & (q < a + 40) & (k <= q) & (q - k < 30)", {"a": WIDTHS}),
    "shifted window": ("a: int\nw: int\nmask = (k >= q + a) & (k < q + a + w)", {"a": WIDTHS, "w": WIDTHS}),
}

# The same with bounds from data of the query. Their lists are not exact: intervals do not see that `first` is no later.
ROW_FAMILIES: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "documents": ("first[i]: int\nmask = (min(first[pos(q)], pos(q)) <= k) & (k <= pos(q))", {}),
    "documents from blocks": (
        "first[i]: int\nmask = (k >= min(first[q] // 16 * 16, q)) & (k <= q) & (k >= 3) & (k < 150)",
        {},
    ),
}
ALL = FAMILIES | ROW_FAMILIES


def values_of(text: str, choice: dict[str, int], rng: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = dict(choice)
    if "w[h]" in text:
        values["w"] = np.array([rng.choice(WIDTHS) for _ in range(H)])
    if "n[b]" in text:
        values["n"] = np.array([rng.choice((0, 1, 60, 128, 500)) for _ in range(B)])
    if "first[i]" in text:
        values["first"] = np.array([rng.randint(max(i - 70, 0), i) for i in range(300)], dtype=np.int32)
    if "on[h]" in text:
        values["on"] = np.array([rng.random() < 0.5 for _ in range(H)])
    return values


def compare(p: Program, values: dict[str, Any], n_q: int, n_k: int, block_q: int, block_k: int) -> None:
    plan = plan_mask(p)
    assert plan.form == "ranges", plan.reason
    assert plan.ranges is not None
    assert plan.ranges.tight
    sizes = {"n_q": n_q, "n_k": n_k, "batch": B, "heads": H, "block_q": block_q, "block_k": block_k}
    kept = dense(p.mask or Const(True), values, n_q, n_k, B, H)
    want = classes(kept, block_q, block_k)
    got = make_schedule(p, plan, values, **sizes).tiles().numpy()
    where = f"{values} {sizes}"
    assert (np.broadcast_to(got, want.shape) == want).all(), where
    for (b, h, rows), spans in hulls(Case(p, values, n_q, n_k, block_q, block_k), plan.ranges):
        inside = np.zeros(n_k, dtype=bool)
        for lo, hi in spans:
            inside[lo : max(hi, lo)] = True
        assert (inside == kept[b, h, rows].any(axis=0)).all(), where
    assert_sound(expand(build_blocks(p, values, **sizes)), want)


@pytest.mark.parametrize("name", ALL)
def test_exact(name: str) -> None:
    text, choices = ALL[name]
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    p = program(text)
    lengths = [*product(LENGTHS, LENGTHS), (200, 70), (70, 200), (257, 255)]
    for n_q, n_k in rng.sample(lengths, 8):
        for _ in range(2):
            values = values_of(text, {k: rng.choice(v) for k, v in choices.items()}, rng)
            try:
                compare(p, values, n_q, n_k, rng.choice(BLOCKS), rng.choice(BLOCKS))
            except AssertionError as error:
                raise AssertionError(f"seed {seed}") from error


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_exact_for_all_values(name: str) -> None:
    text, choices = ALL[name]
    rng = random.Random(1)
    p = program(text)
    for combination in product(*choices.values()):
        values = values_of(text, dict(zip(choices, combination, strict=True)), rng)
        for n_q, n_k in product(LENGTHS, LENGTHS):
            compare(p, values, n_q, n_k, rng.choice(BLOCKS), rng.choice(BLOCKS))


def test_huge_parameters_do_not_overflow() -> None:
    p = program("c: int\nw: int\ns: int\nmask = (k // c <= q // c + w) & (k >= q - s * w)")
    for c, w, s in product((1, 3, HUGE), (-HUGE, -1, 0, 5, HUGE), (-HUGE, 1, HUGE)):
        values = {"c": c, "w": w, "s": s}
        kept = dense(p.mask or Const(True), values, 50, 40, 1, 1)
        plan = plan_mask(p)
        assert plan.form == "ranges", plan.reason
        got = make_schedule(p, plan, values, n_q=50, n_k=40, batch=1, heads=1, block_q=16, block_k=8)
        assert_sound(got.tiles().numpy(), classes(kept, 16, 8))


@pytest.mark.parametrize(
    "text",
    [
        "mask = k == 2 * q",
        "mask = (k >= q // 4 * 8) & (k <= q // 4 * 8 + 3)",
        "mask = (k <= q) & ((q - k) % 40 == 0)",
        "mask = (k >= q) & (k <= 40 - q)",
    ],
)
def test_gaps_are_never_called_tight(text: str) -> None:
    p = program(text)
    plan = plan_mask(p)
    assert plan.ranges is not None
    kept = dense(p.mask or Const(True), {}, 64, 64, 2, 2)
    gaps = False
    for (b, h, rows), spans in hulls(Case(p, {}, 64, 64, 16, 16), plan.ranges):
        seen = kept[b, h, rows].any(axis=0)
        gaps |= any(not seen[lo : max(hi, lo)].all() for lo, hi in spans)
    assert plan.ranges.tight == (not gaps)


def test_products_beyond_64_bits_are_not_ranges() -> None:
    plan = plan_mask(program("a: int\nmask = k <= a * a * a"))
    assert plan.form == "lists"
    assert "64 bits" in plan.reason
