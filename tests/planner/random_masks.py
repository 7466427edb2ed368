"""Random masks: nested boolean and integer expressions over indices, sizes, parameters and captured tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from attngen.lang.expr import Const, Expr, Load, Param, Size, Var, apply
from attngen.lang.ops import Kind
from attngen.lang.program import ParamDecl, Program, TensorDecl

B, H = 2, 2
PARAMS = (
    ParamDecl("any1", Kind.INT),
    ParamDecl("any2", Kind.INT),
    ParamDecl("pos", Kind.INT),  # the only parameter that is divided by
    ParamDecl("flag", Kind.BOOL),
    ParamDecl("real", Kind.FLOAT),
)
TENSORS = (
    TensorDecl("doc", ("q",), Kind.INT),
    TensorDecl("of_bk", ("b", "k"), Kind.INT),
    TensorDecl("width", ("h",), Kind.INT),
    TensorDecl("length", ("b",), Kind.INT),
    TensorDecl("table", ("i",), Kind.INT),
    TensorDecl("grid", ("i", "j"), Kind.BOOL),
    TensorDecl("on", ("h",), Kind.BOOL),
    TensorDecl("weight", ("k",), Kind.FLOAT),
    TensorDecl("start", ("i",), Kind.INT),
    TensorDecl("end", ("b", "q"), Kind.INT),
    TensorDecl("open", ("q",), Kind.BOOL),
)


@dataclass(frozen=True)
class Case:
    """A mask and everything it is evaluated with."""

    program: Program
    values: dict[str, Any]
    n_q: int
    n_k: int
    block_q: int
    block_k: int


AT_QUERY = (
    Load("start", (Var("q"),)),
    Load("start", (apply("sub", Var("q"), Const(3)),)),
    Load("end", (Var("b"), Var("q"))),
    Load("start", (Load("doc", (Var("q"),)),)),
)


def _small() -> st.SearchStrategy[Expr]:
    return st.integers(-9, 40).map(Const)


def _divisor() -> st.SearchStrategy[Expr]:
    return st.sampled_from([Const(1), Const(2), Const(3), Const(8), Const(-4), Param("pos")])


@cache
def ints(depth: int, data: bool) -> st.SearchStrategy[Expr]:
    """Integer expressions, with captured tensors at the query; with `data` also at the key, bit tricks and products."""
    leaves: list[st.SearchStrategy[Expr]] = [
        st.sampled_from(
            [Var("q"), Var("k"), Var("q"), Var("k"), Var("b"), Var("h"), Size("n_q"), Size("n_k")]
        ),
        st.sampled_from([Param("any1"), Param("any2"), Param("pos")]),
        st.sampled_from([Load("width", (Var("h"),)), Load("length", (Var("b"),))]),
        st.sampled_from(AT_QUERY),
        _small(),
    ]
    if data:
        leaves.append(
            st.sampled_from(
                [Load("doc", (Var("q"),)), Load("doc", (Var("k"),)), Load("of_bk", (Var("b"), Var("k")))]
            )
        )
    if depth == 0:
        return st.one_of(leaves)
    sub = st.deferred(lambda: ints(depth - 1, data))
    cond = st.deferred(lambda: bools(depth - 1, data))
    nodes = [
        *leaves,
        st.builds(lambda o, a, b: apply(o, a, b), st.sampled_from(["add", "sub", "min", "max"]), sub, sub),
        st.builds(lambda o, a, d: apply(o, a, d), st.sampled_from(["floordiv", "mod"]), sub, _divisor()),
        st.builds(lambda a, c: apply("mul", a, c), sub, st.sampled_from([Const(2), Const(-3), Param("pos")])),
        st.builds(lambda o, a: apply(o, a), st.sampled_from(["neg", "abs"]), sub),
        st.builds(lambda c, a, b: apply("where", c, a, b), cond, sub, sub),
    ]
    if data:
        bitwise = st.sampled_from(["and", "or", "xor", "mul", "floordiv", "mod"])
        nodes += [
            st.builds(lambda o, a, b: apply(o, a, b), bitwise, sub, sub),
            st.builds(
                lambda o, a, n: apply(o, a, Const(n)), st.sampled_from(["shl", "shr"]), sub, st.integers(0, 3)
            ),
            st.builds(lambda a: Load("table", (a,)), sub),
            st.builds(lambda a: apply("sign", a), sub),
            st.builds(lambda a: apply("not", a), sub),
            st.builds(lambda a: apply("pow", a, Const(2)), sub),
            st.builds(lambda a: apply("int", apply("floor", apply("div", a, Const(3.0)))), sub),
        ]
    return st.one_of(nodes)


@cache
def floats(depth: int) -> st.SearchStrategy[Expr]:
    """Float expressions: every function of the language, so that each interval rule is met."""
    leaf = st.one_of(
        st.sampled_from([Param("real"), Load("weight", (Var("k"),)), Const(0.5), Const(-1.25)]),
        ints(0, True).map(lambda e: apply("float", e)),
    )
    if depth == 0:
        return leaf
    sub = st.deferred(lambda: floats(depth - 1))
    unary = [
        "exp",
        "exp2",
        "log",
        "log2",
        "tanh",
        "sigmoid",
        "erf",
        "sqrt",
        "sin",
        "cos",
        "neg",
        "abs",
        "sign",
    ]
    unary += ["round", "floor", "ceil", "finite"]
    binary = ["add", "sub", "mul", "div", "min", "max", "floordiv", "mod"]
    return st.one_of(
        leaf,
        st.builds(lambda o, a: apply(o, a), st.sampled_from(unary), sub),
        st.builds(lambda o, a, b: apply(o, a, b), st.sampled_from(binary), sub, sub),
    )


@cache
def bools(depth: int, data: bool) -> st.SearchStrategy[Expr]:
    """Boolean expressions."""
    number = ints(max(depth - 1, 0), data)
    compare = st.builds(
        lambda o, a, b: apply(o, a, b), st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]), number, number
    )
    switches = [Param("flag"), Load("on", (Var("h"),)), Load("open", (Var("q"),))]
    leaves = [compare, compare, compare, st.sampled_from(switches)]
    if data:
        leaves.append(st.builds(lambda i, j: Load("grid", (i, j)), number, number))
        leaves.append(st.builds(lambda a, b: apply("lt", a, b), floats(min(depth, 2)), floats(1)))
    if depth == 0:
        return st.one_of(leaves)
    sub = st.deferred(lambda: bools(depth - 1, data))
    return st.one_of(
        *leaves,
        st.builds(lambda o, a, b: apply(o, a, b), st.sampled_from(["and", "or"]), sub, sub),
        st.builds(lambda o, a, b: apply(o, a, b), st.sampled_from(["and", "or", "xor", "eq"]), sub, sub),
        st.builds(lambda a: apply("not", a), sub),
        st.builds(lambda c, a, b: apply("where", c, a, b), sub, sub, sub),
    )


@st.composite
def cases(draw: st.DrawFn, data: bool) -> Case:
    """A mask with sizes and values; without `data` it is made of what ranges may hold."""
    mask = draw(bools(3, data))
    n_q, n_k = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    longest = max(n_q, n_k, 1)
    values: dict[str, Any] = {
        "any1": draw(st.integers(-50, 50)),
        "any2": draw(st.sampled_from([0, 1, -1, 7, 2**31 - 1])),
        "pos": draw(st.sampled_from([1, 2, 3, 5, 8, 16, 100])),
        "flag": draw(st.booleans()),
        "real": draw(st.sampled_from([0.0, 0.5, -3.0, 10.0])),
        "doc": np.sort(rng.integers(0, 4, longest)),
        "of_bk": rng.integers(-3, 20, (B, longest)),
        "width": rng.integers(-2, 30, H),
        "length": rng.integers(0, 45, B),
        "table": rng.integers(-5, 30, 11),
        "grid": rng.random((6, 5)) < 0.6,
        "on": rng.random(H) < 0.5,
        "weight": rng.choice([0.0, 1.0, -2.5, 30.0, np.inf, -np.inf, np.nan], longest),
        "start": rng.integers(-5, 45, longest, dtype=np.int8),
        "end": rng.integers(-5, 45, (B, longest)).astype(np.int32),
        "open": rng.random(longest) < rng.choice([0.2, 0.9]),
    }
    tile = st.sampled_from([3, 4, 8, 16])
    program = Program("random", "", PARAMS, TENSORS, mask, (), ())
    return Case(program, values, n_q, n_k, draw(tile), draw(tile))
