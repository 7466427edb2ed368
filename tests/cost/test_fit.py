"""Fitted prices, and the figures that judge predictions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attngen.bench.cost.fit import fitted_prices
from attngen.bench.cost.quality import judged, left_out, pick_losses, rank_correlation

NAMES = ("a", "b", "c")


def points(prices, count=40, seed=0):
    rng = np.random.default_rng(seed)
    work = [dict(zip(NAMES, rng.uniform(1, 100, 3), strict=True)) for _ in range(count)]
    return work, [sum(prices[n] * w[n] for n in NAMES) for w in work]


@given(st.lists(st.floats(1e-3, 10), min_size=3, max_size=3), st.booleans())
def test_prices_that_made_the_times_are_found(prices, grouped):
    known = dict(zip(NAMES, prices, strict=True))
    work, seconds = points(known)
    groups = [f"g{i // 5}" for i in range(len(work))] if grouped else None
    found = fitted_prices(work, seconds, NAMES, groups)
    for w, s in zip(work, seconds, strict=True):
        assert sum(found[n] * w[n] for n in NAMES) == pytest.approx(s, rel=1e-2)


def test_prices_are_never_negative_and_of_nothing_are_nothing():
    work, seconds = points({"a": 1.0, "b": 2.0, "c": 0.0})
    for w in work:
        w["d"] = 0.0
    seconds = [s - 0.4 * w["c"] if s > w["c"] else s for w, s in zip(work, seconds, strict=True)]
    found = fitted_prices(work, seconds, (*NAMES, "d"))
    assert min(found.values()) == 0.0 == found["d"] == found["c"]


def test_a_group_that_is_off_as_a_whole_spoils_no_order():
    """Times of one kernel twice as long as its work says: the order inside the others still counts."""
    work, seconds = points({"a": 1.0, "b": 0.5, "c": 0.2})
    groups = [f"g{i // 10}" for i in range(40)]
    seconds = [2 * s if g == "g0" else s for s, g in zip(seconds, groups, strict=True)]
    found = fitted_prices(work, seconds, NAMES, groups)
    predicted = [sum(found[n] * w[n] for n in NAMES) for w in work]
    assert judged(groups, predicted, seconds)["rank_correlation_within_groups"] > 0.95


def test_rank_correlation():
    assert rank_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0.0
    # ties share the mean of their ranks: 1, 2.5, 2.5, 4 against 1, 2, 3, 4
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486832980505138)


def test_picks():
    groups = ["x", "x", "y", "y", "z"]
    assert pick_losses(groups, [1, 2, 2, 1, 5], [10, 20, 10, 30, 1]) == [1.0, 3.0]


def test_left_out_predictions_come_from_the_rest():
    seen = []

    def predict(mine):
        seen.append(tuple(mine))
        return {i: float(i) for i in mine}

    assert left_out(["p", "q", "p"], predict) == [0.0, 1.0, 2.0]
    assert seen == [(0, 2), (1,)]
