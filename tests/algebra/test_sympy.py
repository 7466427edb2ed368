"""To sympy and back: same value, same operators, and opaque where sympy knows nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.algebra.from_sympy import from_sympy
from attngen.algebra.mp_ops import Undefined, mp_ops
from attngen.algebra.to_sympy import JUMPS, KINKS, OPAQUE, sympy_ops, to_sympy
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Apply, Const, Var, apply
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import OPS
from attngen.lang.print import print_expr

X, Y = Var("x"), Var("y")
SMOOTH = ("exp", "exp2", "tanh", "sigmoid", "sin", "cos", "neg", "abs", "erf")
BINARY = ("add", "sub", "mul", "min", "max")


def test_every_operator_has_an_entry():
    assert set(sympy_ops()) == set(OPS)
    assert set(mp_ops()) == set(OPS)
    assert set(OPS) >= OPAQUE | JUMPS | KINKS


def trees():
    leaves = st.sampled_from([X, Y, Const(2), Const(0.5), Const(-1.25)])

    def grow(inner):
        unary = st.builds(lambda op, a: Apply(op, (a,)), st.sampled_from(SMOOTH), inner)
        binary = st.builds(lambda op, a, b: Apply(op, (a, b)), st.sampled_from(BINARY), inner, inner)
        return unary | binary

    return st.recursive(leaves, grow, max_leaves=6)


def value(expr, x, y, ops=NUMPY_OPS):
    at = {X: x, Y: y}
    return evaluate(expr, lambda n: n.value if isinstance(n, Const) else at[n], ops)


@settings(max_examples=80, print_blob=True, deadline=None)
@given(expr=trees(), x=st.floats(-1.5, 1.5), y=st.floats(-1.5, 1.5))
def test_round_trip_keeps_the_value(expr, x, y):
    import sympy as sp

    symbols = {X: sp.Symbol("x", real=True), Y: sp.Symbol("y", real=True)}
    back = from_sympy(to_sympy(expr, symbols), {s: v for v, s in symbols.items()})
    want, got = float(value(expr, x, y)), float(value(back, x, y))
    if math.isfinite(want) and abs(want) < 1e12:
        assert np.isclose(got, want, rtol=1e-8, atol=1e-8), print_expr(back)


@settings(max_examples=60, print_blob=True, deadline=None)
@given(expr=trees(), x=st.floats(-1.5, 1.5), y=st.floats(-1.5, 1.5))
def test_forty_digits_agree_with_float64(expr, x, y):
    want = float(value(expr, x, y))
    if math.isfinite(want) and abs(want) < 1e12:
        try:
            got = float(value(expr, x, y, mp_ops()))
        except Undefined:
            return
        assert np.isclose(got, want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("x", "want"), [(0.5, 0), (1.5, 2), (-0.5, 0), (-1.5, -2), (2.4, 2), (-2.6, -3)])
def test_rounding_is_half_to_even_everywhere(x, want):
    import sympy as sp

    assert float(mp_ops()["round"](x)) == want
    assert sympy_ops()["round"](sp.Rational(repr(x))) == want
    assert NUMPY_OPS["round"](x) == want


def test_opaque_operators_are_equal_to_themselves_only():
    import sympy as sp

    x = sp.Symbol("x", real=True)
    rounded = to_sympy(apply("round", X), {X: x})
    assert rounded - rounded == 0
    assert sp.simplify(rounded - x) != 0
    assert sp.simplify(to_sympy(apply("shl", X, Const(1)), {X: x}) - 2 * x) != 0


def test_a_quotient_of_powers_is_a_power_of_a_quotient():
    import sympy as sp

    a, b = sp.symbols("a b", positive=True)
    assert print_expr(from_sympy(a**3 / b**3, {a: Var("a"), b: Var("b")})) == "(a / b) ** 3"
    t = sp.Symbol("t", real=True)
    ratio = sp.exp(a / t - b / t)
    assert print_expr(from_sympy(ratio, {a: Var("a"), b: Var("b"), t: Var("t")})) == "exp((a - b) / t)"


def test_a_point_outside_the_reals_decides_nothing():
    for op, args in (("log", (-1,)), ("div", (1, 0)), ("sqrt", (-1,)), ("pow", (-1, 0.5))):
        with pytest.raises(Undefined):
            mp_ops()[op](*args)
