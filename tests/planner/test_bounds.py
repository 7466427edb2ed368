"""Interval rules contain what the operators give; pyramids contain what the tensors hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import OPS, Rule
from attngen.planner.bounds import BIG, INTERVAL_OPS, Interval, interval
from attngen.planner.pyramid import Blocks, Pyramid

WHOLE_ONLY = ("shl", "shr")
EDGES = [0, 1, -1, 2, 3, 7, -8, 40, 63, 2**31 - 1, -(2**31), 2**40, -(2**60), 2**60]


def test_every_operator_has_a_rule() -> None:
    assert set(INTERVAL_OPS) == set(OPS)


def boxes(kind: str) -> st.SearchStrategy[tuple[Interval, np.ndarray]]:
    """An interval and some values in it."""
    if kind == "b":
        return st.sampled_from([[False], [True], [False, True]]).map(
            lambda v: (interval(np.array(v[:1]), np.array(v[-1:])), np.array(v))
        )
    if kind == "i":
        numbers = st.one_of(st.integers(-70, 70), st.sampled_from(EDGES))
        make = np.int64
    else:
        numbers = st.one_of(
            st.floats(-100, 100, width=32), st.sampled_from([0.0, -0.0, np.inf, -np.inf, np.nan, 3e38, 1e-40])
        )
        make = np.float64

    def box(values: list) -> tuple[Interval, np.ndarray]:
        a = np.array(values, dtype=make)
        return interval(a.min(keepdims=True), a.max(keepdims=True)), a

    return st.lists(numbers, min_size=1, max_size=4).map(box)


def kinds_for(name: str, draw: st.DrawFn) -> list[str]:
    match OPS[name].rule:
        case Rule.LOGIC:
            return [draw(st.sampled_from("bi"))] * OPS[name].arity
        case Rule.SELECT:
            return ["b", draw(st.sampled_from("if")), draw(st.sampled_from("if"))]
        case Rule.INT:
            return ["i", "i"]
        case _:
            return [draw(st.sampled_from("iifb")) for _ in range(OPS[name].arity)]


@pytest.mark.parametrize("name", OPS)
def test_rule_contains_the_operator(name: str) -> None:
    @given(st.data())
    @settings(max_examples=60, deadline=None, print_blob=True)
    def run(data: st.DataObject) -> None:
        drawn = [data.draw(boxes(k)) for k in data.draw(st.composite(lambda draw: kinds_for(name, draw))())]
        found = INTERVAL_OPS[name](*(box for box, _ in drawn))
        grids = np.meshgrid(*(values for _, values in drawn), indexing="ij")
        with np.errstate(all="ignore"):
            exact = np.asarray(NUMPY_OPS[name](*grids))
        unknown = np.isnan(found.lo) if found.kind == "f" else (found.lo <= -BIG) & (found.hi >= BIG)
        if found.kind == "b" or not unknown.all():
            assert not (exact.dtype.kind == "f" and np.isnan(exact).any()), "NaN in a known interval"
            assert (found.lo <= exact).all(), (drawn, found, exact)
            assert (exact <= found.hi).all(), (drawn, found, exact)

    run()


def test_small_integers_are_exact_where_the_operands_occur_once() -> None:
    a, b = interval(np.array([3]), np.array([9])), interval(np.array([-2]), np.array([4]))
    for name, want in {
        "add": (1, 13),
        "sub": (-1, 11),
        "mul": (-18, 36),
        "min": (-2, 4),
        "max": (3, 9),
        "neg": (-9, -3),
    }.items():
        got = INTERVAL_OPS[name](*(a, b)[: OPS[name].arity])
        assert (int(got.lo[0]), int(got.hi[0])) == want, name
    five = interval(np.array([5]))
    assert [int(x[0]) for x in _ends(INTERVAL_OPS["floordiv"](a, five))] == [0, 1]
    assert [int(x[0]) for x in _ends(INTERVAL_OPS["mod"](interval(np.array([6]), np.array([8])), five))] == [
        1,
        3,
    ]
    assert [int(x[0]) for x in _ends(INTERVAL_OPS["mod"](a, five))] == [0, 4]
    assert [int(x[0]) for x in _ends(INTERVAL_OPS["abs"](b))] == [0, 4]


def _ends(x: Interval) -> tuple[np.ndarray, np.ndarray]:
    return x.lo, x.hi


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None, print_blob=True)
def test_pyramid_of_one_axis(size: int, block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tensor = rng.integers(-50, 50, (3, size))
    lead = rng.integers(0, 3, 40)
    lo = rng.integers(-5, size + 5, 40)
    hi = lo + rng.integers(0, size, 40)
    got = Pyramid(tensor, (None, Blocks(block))).query([interval(lead), interval(lo, hi)])
    for i in range(40):
        a, b = np.clip(lo[i], 0, size - 1), np.clip(hi[i], 0, size - 1)
        exact = tensor[lead[i], a : b + 1]
        assert got.lo[i] <= exact.min()
        assert got.hi[i] >= exact.max()
        if a % block == 0 and (b + 1) % block == 0:
            assert (got.lo[i], got.hi[i]) == (exact.min(), exact.max())


@given(st.integers(1, 25), st.integers(1, 25), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None, print_blob=True)
def test_pyramid_of_two_axes(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tensor = rng.random((rows, columns)) < 0.5
    i, j = rng.integers(0, rows, 30), rng.integers(0, columns, 30)
    i_hi, j_hi = np.minimum(i + rng.integers(0, rows, 30), rows - 1), np.minimum(j + 3, columns - 1)
    got = Pyramid(tensor, (Blocks(1), Blocks(1))).query([interval(i, i_hi), interval(j, j_hi)])
    for n in range(30):
        exact = tensor[i[n] : i_hi[n] + 1, j[n] : j_hi[n] + 1]
        assert (got.lo[n], got.hi[n]) == (exact.all(), exact.any())


def test_nan_in_a_tensor_decides_nothing() -> None:
    tensor = np.array([1.0, np.nan, 2.0, 3.0])
    got = Pyramid(tensor, (Blocks(2),)).query([interval(np.array([0, 2]), np.array([1, 3]))])
    below = INTERVAL_OPS["lt"](got, interval(np.array([10.0])))
    assert below.lo.tolist() == [False, True]
    assert below.hi.tolist() == [True, True]


def test_empty_tensor_is_unknown() -> None:
    got = Pyramid(np.zeros(0, dtype=np.int64), (Blocks(1),)).query([interval(np.array([0]))])
    assert np.isnan(got.lo).all()
