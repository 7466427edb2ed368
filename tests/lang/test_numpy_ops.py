"""Every operator against Python's own arithmetic, on numbers and on arrays, silently at the edges."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.errors import UnsupportedError
from attngen.lang.desugar import desugar_expr
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Apply, Const, Expr, Size, Var
from attngen.lang.kinds import kind_of
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import OPS, SUGAR, Kind, Rule

CHECKS = settings(max_examples=150, deadline=None, derandomize=False, print_blob=True)
SMALL = st.integers(-50, 50)
INTS: dict[str, Callable[..., int | bool]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": lambda a, b: a // b if b else 0,
    "mod": lambda a, b: a % b if b else 0,
    "pow": lambda a, b: a ** (abs(b) % 6),
    "neg": operator.neg,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "not": operator.invert,
    "shl": lambda a, b: a << (abs(b) % 32),
    "shr": lambda a, b: a >> (abs(b) % 32),
    "min": min,
    "max": max,
    "abs": abs,
    "sign": lambda a: (a > 0) - (a < 0),
    "round": round,
    "floor": math.floor,
    "ceil": math.ceil,
    "int": int,
    "finite": lambda a: a,
}
FLOATS: dict[str, Callable[..., float]] = {
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "min": min,
    "max": max,
    "round": round,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "exp2": math.exp2,
    "log": math.log,
    "log2": math.log2,
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "erf": math.erf,
    "sqrt": math.sqrt,
    "sin": math.sin,
    "cos": math.cos,
    "int": math.trunc,
    "float": float,
    "finite": lambda x: x,
    "pow": operator.pow,
    "sign": lambda x: math.copysign(1.0, x) if x else 0.0,
}


def test_there_is_one_entry_for_each_operator() -> None:
    assert set(NUMPY_OPS) == set(OPS)
    assert set(INTS) | set(FLOATS) | {"where"} == set(OPS)


@pytest.mark.parametrize("name", INTS)
@CHECKS
@given(a=SMALL, b=SMALL)
def test_integers_are_pythons(name: str, a: int, b: int) -> None:
    args = (a, b)[: OPS[name].arity]
    exponents = {"pow": abs(b) % 6, "shl": abs(b) % 32, "shr": abs(b) % 32}
    given_args = (a, exponents[name]) if name in exponents else args
    want = INTS[name](*args)
    for convert in (lambda x: x, np.asarray, lambda x: np.full(3, x, np.int32)):
        got = np.asarray(NUMPY_OPS[name](*map(convert, given_args)))
        assert got.dtype == (np.bool_ if OPS[name].rule is Rule.COMPARE else np.int64)
        assert (got == want).all()


@pytest.mark.parametrize("name", FLOATS)
@CHECKS
@given(a=st.floats(0.01, 20), b=st.floats(0.01, 20), sign=st.sampled_from((1, -1)))
def test_floats_are_pythons(name: str, a: float, b: float, sign: int) -> None:
    if name not in ("log", "log2", "sqrt", "pow"):
        a *= sign
    args = (a, b)[: OPS[name].arity]
    got = np.asarray(NUMPY_OPS[name](*args))
    assert got.dtype == (np.int64 if name == "int" else np.float64)
    assert math.isclose(float(got), FLOATS[name](*args), rel_tol=1e-13, abs_tol=1e-300)


@pytest.mark.parametrize("name", NUMPY_OPS)
def test_nothing_warns_or_raises_at_the_edges(name: str) -> None:
    ints = np.array([0, 1, -1, 5, -(2**40), 2**40])
    floats = np.array([0.0, -0.0, 1.5, -2.5, math.inf, -math.inf, math.nan, 1e300, -800.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for values in (ints, floats, ints > 0):
            if values.dtype.kind == "f" and OPS[name].rule in (Rule.LOGIC, Rule.INT):
                continue
            args = np.meshgrid(*[values] * OPS[name].arity)
            NUMPY_OPS[name](*([args[0] > 0, *args[1:]] if name == "where" else args))


@pytest.mark.parametrize(
    ("name", "args", "want"),
    [
        ("round", (0.5,), 0.0),
        ("round", (1.5,), 2.0),
        ("round", (-2.5,), -2.0),
        ("finite", (math.inf,), 0.0),
        ("finite", (-math.inf,), 0.0),
        ("finite", (-3.5,), -3.5),
        ("sigmoid", (-1000.0,), 0.0),
        ("sigmoid", (1000.0,), 1.0),
        ("int", (-1.9,), -1),
        ("pow", (2, -1), 0),
        ("pow", (-1, -3), -1),
        ("pow", (2.0, -1), 0.5),
        ("add", (True, True), 2),
        ("neg", (True,), -1),
        ("not", (True,), False),
        ("not", (1,), -2),
        ("where", (True, False, True), False),
        ("where", (False, 1, 2.5), 2.5),
        ("where", (True, True, 3), 1),
        ("max", (False, True), 1),
        ("div", (1, 2), 0.5),
        ("floordiv", (7, 0), 0),
        ("mod", (-7, 3), 2),
        ("mod", (7, -3), -2),
    ],
)
def test_what_the_language_defines(name: str, args: tuple[Any, ...], want: object) -> None:
    got = NUMPY_OPS[name](*args)
    assert np.asarray(got) == want
    sort = {bool: "b", int: "i", float: "f"}[type(want)]
    assert np.asarray(got).dtype.kind == sort


@pytest.mark.parametrize("name", OPS)
def test_the_kind_of_a_result_is_the_kind_of_its_array(name: str) -> None:
    """`kind_of` and the arrays agree for every operator and every kinds of operands that it accepts."""
    values: dict[Kind, Any] = {
        Kind.INT: np.array([3, -2]),
        Kind.FLOAT: np.array([0.5, 2.0]),
        Kind.BOOL: np.array([True, False]),
    }
    arity = OPS[name].arity
    accepted = 0
    for kinds in np.ndindex(*[3] * arity):
        chosen = [list(Kind)[i] for i in kinds]
        expr = Apply(name, tuple(Const({Kind.INT: 1, Kind.FLOAT: 1.0, Kind.BOOL: True}[k]) for k in chosen))
        try:
            kind = kind_of(expr, {})
        except TypeError:
            continue
        accepted += 1
        got = np.asarray(NUMPY_OPS[name](*[values[k] for k in chosen]))
        assert got.dtype.kind == {Kind.INT: "i", Kind.FLOAT: "f", Kind.BOOL: "b"}[kind], chosen
    assert accepted


def test_sugar_means_what_it_abbreviates() -> None:
    pos = desugar_expr(Apply("pos", (Var("q"),)))
    clip = desugar_expr(Apply("clip", (Var("q"), Const(2), Apply("pos", (Const(1),)))))
    names = {node.op for node in (pos, clip) if isinstance(node, Apply)}
    assert not names & set(SUGAR)

    def leaf(node: Expr) -> Any:
        match node:
            case Const(value):
                return value
            case Size(name):
                return {"n_q": 3, "n_k": 10}[name]
            case _:
                return np.arange(12)

    np.testing.assert_array_equal(evaluate(pos, leaf, NUMPY_OPS), np.arange(12) + 7)
    np.testing.assert_array_equal(evaluate(clip, leaf, NUMPY_OPS), np.clip(np.arange(12), 2, 8))


def test_desugaring_what_has_no_sugar_keeps_the_object() -> None:
    expr = Apply("add", (Var("q"), Const(1)))
    assert desugar_expr(expr) is expr


def test_evaluate_refuses_an_operator_without_a_meaning() -> None:
    with pytest.raises(UnsupportedError, match="`pos`"):
        evaluate(Apply("pos", (Const(1),)), lambda _: 0, NUMPY_OPS)
