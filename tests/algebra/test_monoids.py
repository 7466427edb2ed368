"""Laws of the registered monoids: identity, any grouping, any order, and the result of lifting everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.algebra.monoids import ARGMAX, LOGADDEXP, WELFORD, Monoid, best, selection

# Few values, so that ties are common; minus infinity is a value too.
VALUES = st.lists(st.sampled_from([-1.5, 0.0, 0.25, 2.0, 3.0, 700.0]), max_size=7)


def lifted(monoid: Monoid, values: list[float], first: int):
    """The element over the keys `first`, `first + 1`, ..."""
    out = monoid.identity()
    for i, v in enumerate(values):
        one = monoid.lift(np.atleast_1d(v), np.atleast_1d(first + i))
        out = monoid.merge(out, one)
    return out


def same(a, b) -> bool:
    return all(np.allclose(x, y, rtol=1e-12, atol=1e-9) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("monoid", [ARGMAX, selection(3), LOGADDEXP, WELFORD], ids=lambda m: m.name)
@settings(max_examples=60, print_blob=True, deadline=None)
@given(a=VALUES, b=VALUES, c=VALUES)
def test_laws(monoid, a, b, c):
    x, y, z = lifted(monoid, a, 0), lifted(monoid, b, 10), lifted(monoid, c, 20)
    assert same(monoid.merge(x, monoid.identity()), x)
    assert same(monoid.merge(monoid.identity(), x), x)
    assert same(monoid.merge(monoid.merge(x, y), z), monoid.merge(x, monoid.merge(y, z)))
    assert same(monoid.merge(x, y), monoid.merge(y, x))


@settings(max_examples=60, print_blob=True, deadline=None)
@given(values=VALUES.filter(bool), order=st.randoms(use_true_random=False))
def test_results(values, order):
    keys = list(range(len(values)))
    order.shuffle(keys)
    parts = {m.name: m.identity() for m in (LOGADDEXP, WELFORD)}
    top, one = selection(3).identity(), ARGMAX.identity()
    for key in keys:
        single = (np.atleast_1d(values[key]), np.atleast_1d(key))
        parts = {m.name: m.merge(parts[m.name], m.lift(*single)) for m in (LOGADDEXP, WELFORD)}
        top = selection(3).merge(top, selection(3).lift(*single))
        one = ARGMAX.merge(one, ARGMAX.lift(*single))
    assert one[1] == np.argmax(values)
    assert ARGMAX.lower(one) == max(values)
    ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))[:3]
    assert top[1].tolist() == ranked + [-1] * (3 - len(ranked))
    assert top[0].tolist() == [values[i] for i in ranked] + [-np.inf] * (3 - len(ranked))
    assert np.isclose(LOGADDEXP.lower(parts["logaddexp"])[0], np.logaddexp.reduce(values))
    assert np.isclose(WELFORD.lower(parts["welford"])[0], np.var(values), rtol=1e-9, atol=1e-9)


def test_a_kept_value_of_minus_infinity_comes_before_an_empty_slot():
    values, keys = best(np.asarray([-np.inf, 1.0, -np.inf]), np.asarray([4.0, 5.0, -1.0]), 4)
    assert values.tolist() == [1.0, -np.inf, -np.inf, -np.inf]
    assert keys.tolist() == [5.0, 4.0, -1.0, -1.0]


def test_selection_on_an_inner_axis():
    values = np.asarray([[3.0, 1.0], [5.0, 9.0], [4.0, 2.0]])
    keys = np.broadcast_to(np.arange(3.0)[:, None], values.shape)
    chosen = best(values, keys, 2, axis=0)
    assert chosen[0].tolist() == [[5.0, 9.0], [4.0, 2.0]]
    assert chosen[1].tolist() == [[1.0, 1.0], [2.0, 2.0]]
