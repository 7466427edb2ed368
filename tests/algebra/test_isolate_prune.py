"""Isolating reductions and dropping Einsums."""

from __future__ import annotations

import pytest

from attngen.algebra.isolate import isolate
from attngen.algebra.prune import prune
from attngen.algebra.record import einsum_text
from attngen.errors import OutputError
from attngen.lang.expr import Const, Load, Reduce, Var, apply, walk
from attngen.lang.program import Einsum, Program

from .programs import FOLDED, SCORE, program


def texts(source):
    return [einsum_text(e) for e in isolate(source).cascade]


def test_a_nested_reduction_gets_an_einsum():
    source = program(SCORE + "M[q] = max(max[k](S[q, k]), 0)\nreturn M")
    assert texts(source)[1:] == ["M_0[q] = max[k](S[q, k])", "M[q] = max(M_0[q], 0)"]


def test_contractions_over_other_ranks_stay():
    source = program(SCORE + "M[q] = max[k](S[q, k])\nreturn M")
    assert isolate(source) == source


def test_equal_reductions_are_shared_and_names_are_fresh():
    source = program(
        SCORE + "M_0[q] = max[k](S[q, k])\nM[q] = sum[k](S[q, k]) + sum[k](S[q, k]) * M_0[q]\nreturn M"
    )
    assert texts(source)[2:] == ["M_1[q] = sum[k](S[q, k])", "M[q] = M_1[q] + M_1[q] * M_0[q]"]


def test_a_value_width_is_kept_only_where_it_is_used():
    source = program(SCORE + "O[q, e] = sum[k](S[q, k] * V[k, e]) / sum[k](S[q, k])\nreturn O")
    assert [e.ranks for e in isolate(source).cascade[1:]] == [("q", "e"), ("q",), ("q", "e")]


def test_a_reduction_over_keys_and_more_is_nested():
    product = apply("mul", Load("Q", (Var("q"), Var("d"))), Load("K", (Var("k"), Var("d"))))
    body = Reduce("sum", ("k", "d"), product)
    source = Program("p", "", (), (), None, (Einsum("T", ("q",), apply("mul", body, Const(2))),), ("T",))
    assert texts(source) == ["T_0[q] = sum[k](sum[d](Q[q, d] * K[k, d]))", "T[q] = T_0[q] * 2"]


@pytest.mark.parametrize("name", FOLDED)
def test_after_isolation_a_key_reduction_is_a_whole_body(name):
    for einsum in isolate(program(FOLDED[name][0])).cascade:
        inner = [n for n in walk(einsum.body) if isinstance(n, Reduce) and "k" in n.ranks]
        assert inner in ([], [einsum.body])


def test_pruning_keeps_what_outputs_reach():
    source = program(FOLDED["softmax"][0])
    assert [e.target for e in prune(source).cascade] == ["S", "M", "E", "Z", "O"]


def test_pruning_rejects_unknown_outputs():
    source = program(FOLDED["softmax"][0])
    unknown = Program("p", "", (), (), None, source.cascade, ("O", "X"))
    with pytest.raises(OutputError, match="no Einsum writes the output X"):
        prune(unknown)
