"""Every row of the distributivity table, on random numbers with identities among them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.algebra.distribute import DISTRIBUTES, UNIT_SYMBOL, rows_for, unit_of
from attngen.algebra.signs import Sign
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import OPS, REDUCERS

FINITE = st.floats(-40, 40, allow_nan=False)


def _fold(reducer, values):
    """The reduction, as a list so that index and top-k reductions compare alike."""
    match reducer:
        case "argmax":
            return [float(np.argmax(values))]
        case "topk":
            return sorted(values, reverse=True)[:2]
        case "any" | "all":
            return [float(getattr(np, reducer)(np.asarray(values, bool)))]
        case "logaddexp":
            return [float(np.logaddexp.reduce(np.asarray(values), initial=-np.inf))]
        case _:
            ufunc = {"sum": np.add, "max": np.maximum, "min": np.minimum, "prod": np.multiply}[reducer]
            return [float(ufunc.reduce(np.asarray(values), initial=REDUCERS[reducer].identity))]


@pytest.mark.parametrize("row", DISTRIBUTES, ids=lambda r: f"{r.reducer}-{r.op}")
@settings(max_examples=60, print_blob=True, deadline=None)
@given(data=st.data())
def test_law(row, data):
    if row.reducer in ("any", "all"):
        values = data.draw(st.lists(st.booleans(), min_size=1, max_size=6))
        factor = data.draw(st.booleans())
    else:
        low = 0.05 if row.operand else -40
        values = data.draw(st.lists(st.floats(low, 40, allow_nan=False), min_size=1, max_size=6, unique=True))
        bounds = {Sign.ANY: (-3.0, 3.0), Sign.NONNEG: (0.0, 3.0), Sign.POSITIVE: (0.05, 3.0)}[row.factor]
        factor = data.draw(st.floats(*bounds, allow_nan=False))
    op = NUMPY_OPS[row.op]
    left = _fold(row.reducer, [op(v, factor).item() for v in values])
    plain = _fold(row.reducer, values)
    if row.invariant:
        # A shift or a scale may round two near values together; which of them wins is then not defined.
        shifted = [op(v, factor).item() for v in values]
        if len(set(shifted)) == len(values):
            assert left == plain
        return
    logic = row.op in ("and", "or")
    right = [float(op(bool(v) if logic else v, factor)) for v in plain]
    assert np.allclose(left, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("row", [r for r in DISTRIBUTES if r.reducer in ("sum", "max", "min", "logaddexp")])
def test_law_holds_for_the_identity_where_it_is_defined(row):
    """An identity absorbs a finite factor, except that an infinity times 0 is not defined: that needs a guard."""
    identity = REDUCERS[row.reducer].identity
    for factor in (0.5, 2.0):
        assert NUMPY_OPS[row.op](identity, factor) == identity
    if row.op == "mul" and math.isinf(identity):
        assert math.isnan(NUMPY_OPS[row.op](identity, 0.0))


def test_side_conditions_are_needed():
    for row in DISTRIBUTES:
        if row.reducer in ("max", "min") and row.op == "mul":
            values = [1.0, 2.0]
            assert _fold(row.reducer, [-v for v in values]) != [-v for v in _fold(row.reducer, values)]


def test_table_is_well_formed():
    for row in DISTRIBUTES:
        assert row.reducer in REDUCERS
        assert row.op in OPS
        assert row.op in UNIT_SYMBOL
        assert (
            NUMPY_OPS[row.op](
                1.0 if row.op not in ("and", "or") else True,
                unit_of(row.op)
                if row.op
                not in (
                    "and",
                    "or",
                )
                else bool(unit_of(row.op)),
            )
            == 1.0
        )
        assert row.law()
    assert [r.op for r in rows_for("max")] == ["add", "mul"]
