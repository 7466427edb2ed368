"""Derivations: which rule falls out for which cascade, and that each Fold computes what the text says."""

from __future__ import annotations

import json

import pytest

from attngen.algebra.check import check_fold
from attngen.algebra.derive import derive
from attngen.algebra.fold import Let, State
from attngen.algebra.record import format_derivation, print_fold
from attngen.algebra.serialize import fold_from_json, fold_to_json
from attngen.errors import OutputError
from attngen.lang.expr import Apply, Load, loads, walk
from attngen.lang.print import print_expr

from .programs import FOLDED, REFUSED, SCORE, SOFTMAX, program


@pytest.mark.parametrize("name", FOLDED)
def test_folds_in_one_pass(name, golden):
    text, written = FOLDED[name]
    source = program(text)
    fold = derive(source)
    assert fold.derivation.refusals == ()
    assert (fold.derivation.passes_written, fold.derivation.passes) == (written, 1)
    assert check_fold(fold, source, trials=12, seed=7) < 1e-12
    assert fold.outputs == source.outputs
    assert fold_from_json(json.loads(json.dumps(fold_to_json(fold)))) == fold
    golden(f"algebra/{name}.txt", f"{text}\n\n{print_fold(fold)}\n{format_derivation(fold.derivation)}")


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_values_with_reasons(name, golden):
    text, words, passes = REFUSED[name]
    fold = derive(program(text))
    assert fold.absorb == ()
    assert fold.finish == ()
    reasons = "; ".join(r.reason for r in fold.derivation.refusals)
    assert all(word in reasons for word in words), reasons
    assert fold.derivation.passes == passes
    assert fold_from_json(json.loads(json.dumps(fold_to_json(fold)))) == fold
    golden(f"algebra/refused_{name}.txt", f"{text}\n\n{print_fold(fold)}")


def _rules(name):
    return [(s.name, s.rule) for s in derive(program(FOLDED[name][0])).states]


def test_rules_by_cascade():
    assert _rules("softmax") == [("M", "D1"), ("Z", "D3"), ("O_acc", "D3")]
    assert _rules("no_max") == [("Z", "D1"), ("O_acc", "D2")]
    assert _rules("sigmoid") == [("O", "D1")]
    assert _rules("power") == [("Z", "D1"), ("O_acc", "D2")]
    assert _rules("power_scaled") == [("A", "D1"), ("Z", "D3"), ("O_acc", "D3")]
    assert _rules("logaddexp") == [("L", "D1"), ("O", "D3")]


def test_the_rescale_of_softmax_is_one_exponential():
    fold = derive(program(FOLDED["softmax"][0]))
    rescales = {print_expr(s.rescale) for s in fold.states if s.rescale is not None}
    assert rescales == {"exp(M.old[q] - finite(M[q]))"}


def test_exp_of_a_score_is_never_formed_alone():
    for name in (
        "softmax",
        "softmax_sink",
        "softcap",
        "running_lse",
        "softmax_named_weights",
        "softmax_base2",
    ):
        for step in derive(program(FOLDED[name][0])).absorb:
            for node in walk(step.body):
                if isinstance(node, Apply) and node.op in ("exp", "exp2"):
                    assert any(ld.tensor in ("M", "L") for ld in loads(node)), (name, print_expr(step.body))


@pytest.mark.parametrize("name", FOLDED)
def test_extremes_are_read_through_finite_and_old_values_are_not(name):
    fold = derive(program(FOLDED[name][0]))
    infinite = {s.name for s in fold.states if s.reduce in ("max", "min", "logaddexp")}
    bodies = [s.body for s in fold.absorb if isinstance(s, State) or "k" in s.ranks]
    bodies += [s.rescale for s in fold.states if s.rescale is not None]
    for body in bodies:
        guarded = [n.args[0] for n in walk(body) if isinstance(n, Apply) and n.op == "finite"]
        for load in loads(body):
            if load.tensor in infinite:
                assert sum(load == g for g in guarded) == sum(load == other for other in loads(body))
            assert not (load.tensor.endswith(".old") and load in guarded)


def test_lse_costs_nothing_unless_it_is_asked_for():
    fold = derive(program(FOLDED["softmax"][0]))
    assert "LSE" not in {s.name for s in fold.finish}
    assert fold.derivation.notes == ("dropped, since no output reads it: LSE",)
    with_lse = derive(program(FOLDED["softmax_lse"][0]))
    assert with_lse.absorb == fold.absorb
    assert print_expr(with_lse.finish[-1].body) == "M[q] + log(Z[q])"


def test_a_sink_is_recomputed_in_the_loop_and_enters_the_sum_once():
    fold = derive(program(FOLDED["softmax_sink"][0]))
    inside = {s.name: s for s in fold.absorb}
    assert isinstance(inside["M"], Let)
    assert inside["M"].ranks == ("q",)
    assert isinstance(inside["Z_0"], State)
    assert [s.name for s in fold.finish] == ["Z", "O", "LSE"]


def test_a_weighted_value_is_a_product_with_v():
    for name in ("softmax", "no_max", "relu2", "power_scaled", "logaddexp"):
        state = next(s for s in derive(program(FOLDED[name][0])).states if "e" in s.ranks)
        assert isinstance(state.body, Apply)
        assert state.body.op == "mul"
        weight, value = state.body.args
        assert isinstance(value, Load)
        assert value.tensor == "V"
        assert all(ld.tensor != "V" for ld in loads(weight))


def test_derivative_in_the_followed_statistic_is_recorded():
    proofs = {
        name: [
            o
            for r in derive(program(FOLDED[name][0])).derivation.rules
            for o in r.obligations
            if o.name == "PO6"
        ]
        for name in ("softmax_lse", "softmax_sink", "power_scaled", "logaddexp")
    }
    assert [o.residual for o in proofs["softmax_lse"]] == ["0", "0"]
    assert [o.residual for o in proofs["softmax_sink"]] == ["0", "0"]
    assert [o.residual for o in proofs["power_scaled"]] == ["0"]
    # Normalised by L as it goes: the exact value of L matters.
    assert proofs["logaddexp"][0].residual != "0"


def test_fresh_names_do_not_clash():
    text = SCORE + SOFTMAX.replace("E[", "O_acc[") + "M_0[q] = sum[k](S[q, k]) + 1\n"
    text += "O[q, e] = sum[k](O_acc[q, k] / Z[q] * V[k, e])\nreturn O, M_0"
    source = program(text)
    fold = derive(source)
    names = [s.name for s in (*fold.absorb, *fold.finish)]
    assert len(names) == len(set(names))
    assert check_fold(fold, source, trials=10) < 1e-12


def test_an_output_must_be_a_row_of_the_cascade():
    with pytest.raises(OutputError, match="value per pair"):
        derive(program(SCORE + SOFTMAX + "return E"))


def test_derivation_is_deterministic():
    source = program(FOLDED["softmax_sink"][0])
    assert derive(source) == derive(source)
