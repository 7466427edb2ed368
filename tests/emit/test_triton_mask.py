"""Masks as the Triton printer arranges them: the same pairs, fewer instructions."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attngen
from attngen.emit.triton.nan_paths import must_carry_nan
from attngen.emit.triton.past_end import drops_past_end
from attngen.emit.triton.separate import separate
from attngen.lang.evaluate import evaluate
from attngen.lang.expr import Apply, Const, Expr, Param, Size, Var, apply, free_vars, walk
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.ops import Kind

KINDS = {"w": Kind.INT, "d": Kind.INT, "x": Kind.FLOAT}
N_Q, N_K = 9, 13


def pairs(mask: Expr, n_k=N_K, **params):
    values = {"n_q": N_Q, "n_k": N_K, "q": np.arange(N_Q)[:, None], "k": np.arange(n_k)[None, :], **params}

    def leaf(node):
        return node.value if isinstance(node, Const) else values[node.name]

    return np.broadcast_to(evaluate(mask, leaf, NUMPY_OPS), (N_Q, n_k))


TERMS = st.recursive(
    st.sampled_from([Var("q"), Var("k"), Param("w"), Size("n_k"), Size("n_q"), Const(3), Const(-2)]),
    lambda sub: st.one_of(
        st.builds(
            lambda op, a, b: apply(op, a, b), st.sampled_from(["add", "sub", "add", "sub", "mul"]), sub, sub
        ),
        st.builds(lambda a: apply("neg", a), sub),
        st.builds(lambda op, a: apply(op, a, Param("d")), st.sampled_from(["mod", "floordiv"]), sub),
    ),
    max_leaves=6,
)
COMPARISONS = st.builds(
    lambda op, a, b: apply(op, a, b), st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]), TERMS, TERMS
)
CONGRUENCES = st.builds(
    lambda op, a: apply(op, apply("mod", a, Param("d")), Const(0)), st.sampled_from(["eq", "ne"]), TERMS
)
MASKS = st.recursive(
    st.one_of(COMPARISONS, CONGRUENCES),
    lambda sub: st.builds(lambda op, a, b: apply(op, a, b), st.sampled_from(["and", "or"]), sub, sub),
    max_leaves=3,
)


@settings(max_examples=300, deadline=None, print_blob=True)
@given(mask=MASKS, w=st.integers(-5, 20), d=st.integers(-4, 4))
def test_separated_masks_keep_the_same_pairs(mask, w, d):
    same = separate(mask, KINDS)
    assert (pairs(same, w=w, d=d) == pairs(mask, w=w, d=d)).all()


@settings(max_examples=300, deadline=None, print_blob=True)
@given(mask=MASKS, w=st.integers(-5, 20), d=st.integers(-4, 4))
def test_a_mask_said_to_drop_keys_past_the_end_does(mask, w, d):
    if drops_past_end(mask):
        assert not pairs(mask, n_k=N_K + 8, w=w, d=d)[:, N_K:].any()


@pytest.mark.parametrize("name", ["causal", "sliding_window", "sliding_window_sink", "chunked", "documents"])
def test_causal_masks_need_no_bound(name):
    assert drops_past_end(attngen.load(name).program.mask)


@pytest.mark.parametrize("name", ["prefix_lm", "global_tokens", "block_diffusion"])
def test_other_masks_need_one(name):
    assert not drops_past_end(attngen.load(name).program.mask)


@pytest.mark.parametrize("name", ["sliding_window", "dilated", "sliding_window_sink", "chunked"])
def test_no_term_of_a_comparison_is_left_with_both_a_row_and_a_key(name):
    program = attngen.load(name).program
    mask = separate(program.mask, {p.name: p.kind for p in program.params})
    mixed = [
        n
        for n in walk(mask)
        if isinstance(n, Apply) and n.op in ("sub", "add", "mod", "floordiv") and {"q", "k"} <= free_vars(n)
    ]
    assert not mixed


def test_comparisons_of_floats_stay_as_they_are():
    mask = apply("lt", apply("sub", apply("mul", Param("x"), Var("q")), Var("k")), Param("x"))
    assert separate(mask, KINDS) is mask


def test_a_causal_mask_is_printed_without_a_bound():
    keep = re.search(r"keep = .*", attngen.load("causal").source()).group()
    assert "loadable" not in keep
    assert "n_k - 1" not in keep


def tile_of(outputs):
    return attngen.Attention(outputs=outputs).kernel_specs("sm_90", "bf16", 64)[0][0].tile


def test_a_sum_carries_nan_where_there_is_one():
    assert not must_carry_nan(tile_of(("O", "LSE")))
    assert len(must_carry_nan(tile_of(("M",)))) == 1
    assert len(must_carry_nan(tile_of(("O", "M")))) == 1
