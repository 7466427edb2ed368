"""Random masks over the coordinates of a grid, made from the random masks of `random_masks`."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from attngen.lang.domain import size_decls, size_param
from attngen.lang.expr import Const, Expr, Param, Size, Var, apply, rewrite
from attngen.lang.program import Program
from tests.planner.random_masks import PARAMS, TENSORS, B, Case, H, bools

AXES = ("t", "y", "x")


def on_axis(mask: Expr, axis: str, extent: bool) -> Expr:
    """A mask over `q` and `k` as one over a coordinate of theirs; counts of tokens become the axis's extent."""

    def move(node: Expr) -> Expr | None:
        match node:
            case Var("q" | "k" as rank, None):
                return Var(rank, axis)
            case Size("n_q" | "n_k") if extent:
                return Param(size_param(axis))
            case _:
                return None

    return rewrite(mask, move)


def scattered(mask: Expr, axes: tuple[str, ...], rng: random.Random) -> Expr:
    """A mask over `q` and `k` with some of them replaced by coordinates, each by one of its own."""

    def move(node: Expr) -> Expr | None:
        if isinstance(node, Var) and node.name in ("q", "k") and rng.random() < 0.8:
            return Var(node.name, rng.choice(axes))
        return None

    return rewrite(mask, move)


def window(axis: str, width: int, stride: int) -> Expr:
    """A window that is moved inwards at the borders and in steps of `stride`: neighbourhood attention's."""
    size, q, k = Param(size_param(axis)), Var("q", axis), Var("k", axis)
    step = apply("mul", apply("floordiv", q, Const(stride)), Const(stride))
    center = apply("min", apply("add", step, Const(stride // 2)), apply("sub", size, Const(1)))
    first = apply("max", apply("sub", center, Const(width // 2)), Const(0))
    first = apply("min", first, apply("sub", size, Const(width)))
    return apply("and", apply("ge", k, first), apply("lt", k, apply("add", first, Const(width))))


def congruence(axis: str, divisor: Expr) -> Expr:
    """Pairs of one residue class."""
    return apply("eq", apply("mod", Var("k", axis), divisor), apply("mod", Var("q", axis), divisor))


@st.composite
def grids(draw: st.DrawFn, *, product: bool) -> Case:
    """A mask on a grid of one to three axes: with `product` a conjunction of parts over one axis each."""
    axes = AXES[-draw(st.integers(1, 3)) :]
    sizes = {axis: draw(st.integers(1, 6)) for axis in axes}
    rng = random.Random(draw(st.integers(0, 9999)))
    if product:
        mask: Expr = Const(True)
        for axis in axes:
            kind = draw(st.sampled_from(["none", "window", "random", "random"]))
            if kind == "window":
                part = window(axis, draw(st.integers(1, 4)), draw(st.integers(1, 3)))
            elif kind == "random":
                part = on_axis(draw(bools(2, False)), axis, extent=True)
            else:
                continue
            mask = apply("and", mask, part)
            if draw(st.integers(0, 3)) == 0:
                mask = apply("and", mask, congruence(axis, draw(st.sampled_from([Const(2), Param("pos")]))))
    else:
        mask = scattered(draw(bools(3, draw(st.booleans()))), axes, rng)
    beyond = draw(st.sampled_from([0, 0, 0, 1, 5]))
    n = int(np.prod(list(sizes.values()))) + beyond
    numbers = np.random.default_rng(draw(st.integers(0, 999)))
    values: dict[str, Any] = {
        "any1": draw(st.integers(-20, 20)),
        "any2": draw(st.sampled_from([0, 1, -1, 7])),
        "pos": draw(st.sampled_from([1, 2, 3, 5])),
        "flag": draw(st.booleans()),
        "real": draw(st.sampled_from([0.0, 0.5, -3.0])),
        "doc": np.sort(numbers.integers(0, 4, n)),
        "of_bk": numbers.integers(-3, 20, (B, n)),
        "width": numbers.integers(-2, 8, H),
        "length": numbers.integers(0, 9, B),
        "table": numbers.integers(-5, 12, 11),
        "grid": numbers.random((6, 5)) < 0.6,
        "on": numbers.random(H) < 0.5,
        "weight": numbers.choice([0.0, 1.0, -2.5, np.inf, np.nan], n),
        "start": numbers.integers(-5, 15, n, dtype=np.int8),
        "end": numbers.integers(-5, 15, (B, n)).astype(np.int32),
        "open": numbers.random(n) < numbers.choice([0.2, 0.9]),
        **{size_param(axis): size for axis, size in sizes.items()},
    }
    params = (*size_decls(axes), *PARAMS)
    program = Program("random", "", params, TENSORS, mask, (), (), grid=axes)
    tile = st.sampled_from([4, 8, 16])
    return Case(program, values, n, n, draw(tile), draw(tile))
