"""Merging partial states, and that the randomised check finds what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.algebra.check import check_fold
from attngen.algebra.derive import derive
from attngen.algebra.fold import Fold, Let, Mix, State
from attngen.algebra.merge import finish_states, merge_states
from attngen.algebra.serialize import fold_from_json, fold_to_json
from attngen.errors import CacheError
from attngen.lang.expr import Apply, Const, Expr, Param, Reduce, Size, Var
from attngen.lang.numpy_ops import NUMPY_OPS
from attngen.lang.serialize import expr_from_json, expr_to_json

from .followers import FOLLOWERS
from .programs import FOLDED, program

SOFTMAX = derive(program(FOLDED["softmax_lse"][0]))


def leaf(node: Expr) -> np.ndarray:
    assert isinstance(node, Const)
    return np.asarray(node.value)


def states(scores: list[float]) -> dict[str, np.ndarray]:
    """The states of softmax over some scores whose values are the scores themselves."""
    s = np.asarray(scores, float)
    top = s.max(initial=-np.inf)
    weights = np.exp(s - (0 if np.isinf(top) else top))
    kept = np.where(np.isinf(s), 0, s)
    return {"M": np.asarray(top), "Z": weights.sum(), "O_acc": (weights * kept).sum()}


SCORES = st.lists(st.floats(-50, 50) | st.just(-np.inf), max_size=6)


@settings(max_examples=100, print_blob=True, deadline=None)
@given(a=SCORES, b=SCORES, c=SCORES)
def test_merge_is_a_commutative_monoid_that_agrees_with_all_keys_at_once(a, b, c):
    def merge(x, y):
        return merge_states(SOFTMAX, x, y, leaf=leaf, ops=NUMPY_OPS)

    def done(x):
        return finish_states(SOFTMAX, x, leaf=leaf, ops=NUMPY_OPS)

    left = done(merge(merge(states(a), states(b)), states(c)))
    right = done(merge(states(a), merge(states(b), states(c))))
    swapped = done(merge(states(c), merge(states(b), states(a))))
    whole = done(merge(states([]), states(a + b + c)))
    for name in ("O", "LSE"):
        for other in (right, swapped, whole):
            assert np.allclose(left[name], other[name], rtol=1e-12, atol=1e-12, equal_nan=False)


def test_a_row_without_keys_is_zero_and_minus_infinity():
    out = finish_states(SOFTMAX, states([]), leaf=leaf, ops=NUMPY_OPS)
    assert out["O"] == 0
    assert out["LSE"] == -np.inf


ENTROPY = derive(program(FOLLOWERS["entropy"][0]))


def entropy_states(scores: list[float]) -> dict[str, np.ndarray]:
    s = np.asarray(scores, float)
    s = s[~np.isinf(s)]
    top = s.max(initial=-np.inf)
    gap = s - (0 if np.isinf(top) else top)
    return {"M": np.asarray(top), "Z": np.exp(gap).sum(), "H_0_acc": (gap * np.exp(gap)).sum()}


@settings(max_examples=100, print_blob=True, deadline=None)
@given(a=SCORES, b=SCORES, c=SCORES)
def test_an_orbit_merges_like_a_commutative_monoid(a, b, c):
    """Both sides give and take shares; parts without keys among them."""

    def merge(x, y):
        return merge_states(ENTROPY, x, y, leaf=leaf, ops=NUMPY_OPS)

    left = merge(merge(entropy_states(a), entropy_states(b)), entropy_states(c))
    right = merge(entropy_states(c), merge(entropy_states(b), entropy_states(a)))
    whole = entropy_states(a + b + c)
    for name, want in whole.items():
        assert np.allclose(left[name], want, rtol=1e-10, atol=1e-10, equal_nan=False)
        assert np.allclose(right[name], want, rtol=1e-10, atol=1e-10, equal_nan=False)


def changed(fold: Fold, name: str, **fields: object) -> Fold:
    steps = tuple(replace(s, **fields) if s.name == name else s for s in fold.absorb)
    return replace(fold, absorb=steps)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda f: changed(f, "Z", rescale=None, combine=None),
        lambda f: changed(f, "O_acc", combine="add"),
        lambda f: changed(f, "Z", reduce="max"),
        lambda f: changed(f, "E", body=Apply("mul", (Const(1.001), f.absorb[2].body))),
        lambda f: replace(f, finish=(Let("O", ("q", "e"), Const(0.0)), *f.finish[1:])),
    ],
    ids=["no rescale", "wrong combine", "wrong reducer", "wrong weight", "wrong finish"],
)
def test_the_check_finds_a_wrong_fold(wrong):
    text = FOLDED["softmax_lse"][0]
    assert isinstance(SOFTMAX.absorb[2], Let)
    assert check_fold(wrong(SOFTMAX), program(text), trials=20) > 1e-4


def _first_mix(orbit: State, **fields: object) -> tuple[Mix, ...]:
    return (replace(orbit.mix[0], **fields), *orbit.mix[1:])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("entropy", lambda s: replace(s, mix=())),
        ("entropy", lambda s: replace(s, mix=_first_mix(s, factor=Const(0.5)))),
        ("entropy", lambda s: replace(s, mix=_first_mix(s, state=s.name))),
        ("variance", lambda s: replace(s, mix=s.mix[:1])),
        ("routing", lambda s: replace(s, body=Const(1.0))),
        ("top_keys", lambda s: replace(s, reduce="topk")),
    ],
    ids=["no share", "wrong share", "share of itself", "a share less", "wrong values", "wrong selection"],
)
def test_the_check_finds_a_wrong_orbit_or_selection(name, wrong):
    text = FOLLOWERS[name][0]
    fold = derive(program(text))
    state = next(s for s in reversed(fold.states) if s.rule in ("D4", "D5"))
    if name == "routing":
        state = next(s for s in fold.states if s.reduce == "topk")
        pair = {s.name for s in fold.states if s.rule == "D5"}
        steps = tuple(wrong(s) if s.name in pair else s for s in fold.absorb)
    else:
        steps = tuple(wrong(s) if s is state else s for s in fold.absorb)
    assert check_fold(replace(fold, absorb=steps), program(text), trials=20) > 1e-4


def test_the_check_reads_scores_and_bins_of_captured_tensors():
    """An accumulator for each bin, whose number the program declares, and a score from tensors of the call."""
    for name in ("blocks", "divergence"):
        text = FOLLOWERS[name][0]
        fold = derive(program(text))
        last = fold.states[-1]
        assert check_fold(fold, program(text), trials=20) < 1e-11
        halved = Apply("mul", (Const(0.5), last.body))
        assert check_fold(changed(fold, last.name, body=halved), program(text), trials=20) > 1e-4


def test_an_invariant_statistic_may_be_anything():
    """dO / dM = 0, as the derivation recorded: a running sum in place of the maximum gives the same."""
    fold = changed(SOFTMAX, "M", reduce="sum")
    assert check_fold(fold, program(FOLDED["softmax_lse"][0])) < 1e-12


def test_the_check_finds_a_missing_guard():
    """Without `finite`, a first tile with no kept key gives -inf - -inf."""

    def bare(expr: Expr) -> Expr:
        match expr:
            case Apply("finite", (a,)):
                return a
            case Apply(op, args):
                return Apply(op, tuple(bare(a) for a in args))
            case _:
                return expr

    steps = tuple(
        replace(s, rescale=bare(s.rescale)) if isinstance(s, State) and s.rescale is not None else s
        for s in SOFTMAX.absorb
    )
    assert check_fold(replace(SOFTMAX, absorb=steps), program(FOLDED["softmax_lse"][0])) == np.inf


def expressions() -> st.SearchStrategy[Expr]:
    leaves = (
        st.builds(Const, st.booleans() | st.integers() | st.floats(allow_nan=False))
        | st.builds(Var, st.sampled_from("qk"), st.sampled_from([None, "y"]))
        | st.builds(Param, st.text(max_size=3))
        | st.builds(Size, st.just("n_k"))
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.builds(lambda op, a: Apply(op, tuple(a)), st.text(max_size=3), st.lists(inner, max_size=3))
            | st.builds(lambda b: Reduce("sum", ("k",), b), inner)
        ),
        max_leaves=8,
    )


@settings(max_examples=100, print_blob=True)
@given(expr=expressions())
def test_json_round_trip_is_exact(expr):
    back = expr_from_json(json.loads(json.dumps(expr_to_json(expr))))
    assert back == expr
    assert repr(back) == repr(expr)


def test_json_of_something_else_is_one_clear_error():
    good = fold_to_json(SOFTMAX)
    for bad in (
        {},
        {"version": 0},
        good | {"absorb": [{"let": {}}]},
        good | {"derivation": 3},
        good | {"absorb": 1},
        good | {"version": 1},
    ):
        with pytest.raises(CacheError):
            fold_from_json(bad)
    with pytest.raises(CacheError):
        expr_from_json(["what"])
