"""Cascades that need an orbit, a selection or scores of their own: what derives, and that it is sound."""

from __future__ import annotations

import json
import math
from functools import cache

import numpy as np
import pytest

from attngen.algebra.check import by_merging, by_tiles, check_fold, dense
from attngen.algebra.check_case import Case
from attngen.algebra.derive import derive
from attngen.algebra.fold import State
from attngen.algebra.monoids import WELFORD
from attngen.algebra.record import format_derivation, print_fold
from attngen.algebra.serialize import fold_from_json, fold_to_json
from attngen.lang.expr import Apply, loads, walk
from attngen.lang.print import print_expr

from .followers import FOLLOWERS, MEAN, WEIGHTS
from .programs import program

KEYS = "weight[k]: float\nS[q, k] = weight[k] * 1.0\n"


@cache
def derived(text):
    fold = derive(program(text))
    assert fold.derivation.refusals == ()
    return fold


def case_of(source, scores, **tensors):
    """A problem with one query that keeps every key; `weight[k]` holds the scores."""
    scores = np.asarray(scores, float)
    extents = {"q": 1, "k": len(scores), "d": 4, "e": 2, "b": 1, "h": 1, "g": 1}
    extents |= dict.fromkeys((r for r in source.own_ranks if r not in extents), 3)
    axes = {
        r: i for i, r in enumerate(["q", "k", "d", "e", *(r for r in source.own_ranks if r not in "qkdeb")])
    }
    shape = (1, len(scores), *[1] * (len(axes) - 2))
    inputs = {"weight": scores, "V": np.ones((len(scores), 2))} | tensors
    return Case(extents, axes, inputs, {}, np.ones(shape, bool))


def both_ways(text, scores, seed=0):
    """The outputs by tiles and by merging, over the scores given."""
    source, fold = program(text), derived(text)
    case = case_of(source, scores)
    with np.errstate(all="ignore"):
        runs = [run(fold, case, np.random.default_rng(seed)) for run in (by_tiles, by_merging)]
    return [{name: np.squeeze(value) for name, value in run.items()} for run in runs]


@pytest.mark.parametrize("name", FOLLOWERS)
def test_folds_in_one_pass(name, golden):
    text, written = FOLLOWERS[name]
    source = program(text)
    fold = derive(source)
    assert fold.derivation.refusals == ()
    assert (fold.derivation.passes_written, fold.derivation.passes) == (written, 1)
    assert check_fold(fold, source, trials=20, seed=11) < 1e-11
    assert fold_from_json(json.loads(json.dumps(fold_to_json(fold)))) == fold
    golden(f"algebra/{name}.txt", f"{text}\n\n{print_fold(fold)}\n{format_derivation(fold.derivation)}")


@pytest.mark.parametrize("name", FOLLOWERS)
def test_the_check_is_the_last_step_and_every_orbit_has_its_proofs(name):
    rules = derived(FOLLOWERS[name][0]).derivation.rules
    assert rules[-1].rule == "check"
    for use in rules:
        if use.rule == "D4":
            names = [o.name for o in use.obligations]
            assert {"PO1", "PO2", "PO3", "PO4"} <= set(names)
            assert all(o.residual == "0" for o in use.obligations)


def test_entropy_takes_a_share_of_the_sum_that_exists():
    fold = derived(FOLLOWERS["entropy"][0])
    assert [(s.name, s.rule, [m.state for m in s.mix]) for s in fold.states] == [
        ("M", "D1", []),
        ("Z", "D3", []),
        ("H_0_acc", "D4", ["Z"]),
    ]
    assert "H_0_acc[q] * exp(M.old[q] - finite(M[q])) + Z[q] * where(" in print_fold(fold)


@pytest.mark.parametrize("name", ["entropy", "entropy_guarded", "divergence", "cross_entropy", "log_weights"])
def test_no_logarithm_of_a_weight_is_left_in_the_loop(name):
    for step in derived(FOLLOWERS[name][0]).absorb:
        assert not any(isinstance(n, Apply) and n.op == "log" for n in walk(step.body)), print_expr(step.body)


@pytest.mark.parametrize("name", ["entropy", "divergence", "variance", "third_moment", "weighted_covariance"])
def test_a_score_stays_beside_its_statistic(name):
    """No accumulator of an orbit sums a power of the bare score, which cancels."""
    for state in derived(FOLLOWERS[name][0]).states:
        if state.rule == "D4":
            assert any(ld.tensor in ("M", "MT", "MS", "mu", "m", "w", "E") for ld in loads(state.body))


def test_a_row_of_far_away_scores_has_its_variance():
    rng = np.random.default_rng(5)
    scores = 1e8 + rng.normal(size=400)
    text = KEYS + MEAN + "W[q] = sum[k]((S[q, k] - mu[q]) ** 2) / N[q]\nreturn W"
    naive = np.mean(scores**2) - np.mean(scores) ** 2
    want = np.var(scores)
    assert abs(naive - want) > 1
    for out in both_ways(text, scores):
        assert math.isclose(out["W"], want, rel_tol=1e-6)


def test_the_orbit_of_the_variance_is_the_registered_merge():
    rng = np.random.default_rng(6)
    scores = rng.normal(size=30) * 3
    parts = [WELFORD.lift(s, np.asarray(0)) for s in scores]
    while len(parts) > 1:
        a, b = (parts.pop(int(rng.integers(len(parts)))) for _ in range(2))
        parts.append(WELFORD.merge(a, b))
    text = KEYS + MEAN + "W[q] = sum[k]((S[q, k] - mu[q]) ** 2) / N[q]\nreturn W"
    for out in both_ways(text, scores):
        assert math.isclose(out["W"], WELFORD.lower(parts[0]), rel_tol=1e-12)


def test_entropy_of_weights_that_underflow_is_finite():
    text = KEYS + WEIGHTS + "H[q] = -sum[k](P[q, k] * log(P[q, k]))\nreturn H"
    scores = [0.0, 0.0, -5000.0, -1e6]
    source = program(text)
    with np.errstate(all="ignore"):
        assert np.isnan(dense(source, case_of(source, scores))["H"]).all()
    for seed in range(10):
        for out in both_ways(text, scores, seed):
            assert math.isclose(out["H"], math.log(2), rel_tol=1e-12)


def test_a_score_of_minus_infinity_counts_as_a_weight_of_zero():
    text = (
        "weight[k]: float\nS[q, k] = where(weight[k] > 0, weight[k], -inf)\n"
        + WEIGHTS
        + "H[q] = -sum[k](P[q, k] * log(P[q, k]))\nreturn H"
    )
    scores = np.asarray([2.0, -1.0, 1.0, -1.0, -1.0, 2.0])
    p = np.exp(scores[scores > 0])
    p /= p.sum()
    for seed in range(20):
        for out in both_ways(text, scores, seed):
            assert math.isclose(out["H"], -(p * np.log(p)).sum(), rel_tol=1e-12)


def test_a_row_without_keys_has_the_value_of_an_empty_sum():
    for name, value in (("entropy", 0), ("divergence", 0), ("variance", 0), ("argmax", -1), ("top_keys", -1)):
        source, fold = program(FOLLOWERS[name][0]), derived(FOLLOWERS[name][0])
        case = case_of(source, [], Q=np.zeros((1, 4)), K=np.zeros((0, 4)))
        case = Case(case.extents, case.axes, case.tensors | {
            "Qt": np.zeros((1, 1, 1, 4)), "Kt": np.zeros((1, 1, 0, 4))
        }, {"scale": 1.0}, case.keep)  # fmt: skip
        with np.errstate(all="ignore"):
            out = by_tiles(fold, case, np.random.default_rng(0))
        assert (out[fold.outputs[0]] == value).all(), name


def test_a_selection_of_keys_keeps_the_values_beside_it():
    for name in ("argmax", "top_keys", "routing", "argmax_of_weights"):
        states = derived(FOLLOWERS[name][0]).states
        for state in states:
            if state.reduce in ("argmax", "argtopk"):
                by = "max" if state.reduce == "argmax" else "topk"
                assert any((s.reduce, s.body, s.ranks) == (by, state.body, state.ranks) for s in states)


def test_ties_go_to_the_smaller_key_however_keys_are_split():
    text = KEYS + "I[q] = argmax[k](S[q, k])\nreturn I"
    for seed in range(20):
        for out in both_ways(text, [1.0, 3.0, 2.0, 3.0, 3.0], seed):
            assert out["I"] == 1
    text = "j: rank = 3\n" + KEYS + "I[q, j] = argtopk[k](S[q, k], j)\nreturn I"
    for seed in range(20):
        for out in both_ways(text, [1.0, 3.0, 2.0, 3.0, 2.0], seed):
            assert out["I"].tolist() == [1, 3, 2]


def test_gates_are_the_weights_of_the_chosen_keys():
    fold = derived(FOLLOWERS["routing"][0])
    assert [(s.reduce, s.rule) for s in fold.states] == [
        ("max", "D1"),
        ("sum", "D3"),
        ("topk", "D5"),
        ("argtopk", "D5"),
    ]
    top, keys = (s for s in fold.states if s.rule == "D5")
    assert top.body == keys.body
    assert not any(isinstance(n, Apply) and n.op == "exp" for n in walk(top.body))


def test_only_orbits_have_shares():
    for text, _ in FOLLOWERS.values():
        for state in derived(text).states:
            assert isinstance(state, State)
            assert not state.mix or (state.rule == "D4" and state.reduce == "sum")
