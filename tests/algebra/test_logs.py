"""Logarithms of products, and logarithms of a row that leave a sum."""

from __future__ import annotations

import pytest

from attngen.algebra.canonical import Scope
from attngen.algebra.isolate import isolate
from attngen.algebra.linear import split_logs
from attngen.algebra.logs import expand_logs
from attngen.algebra.record import einsum_text
from attngen.lang.expr import Expr, Load, Reduce
from attngen.lang.print import print_expr

from .followers import WEIGHTS
from .programs import MAX, SCORE, program


def last(text: str) -> str:
    source, _ = expand_logs(isolate(program(SCORE + text)))
    return einsum_text(source.cascade[-1]).split(" = ", 1)[1]


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ("log(P[q, k])", "S[q, k] - M[q] - log(Z[q])"),
        ("log(E[q, k] * E[q, k])", "S[q, k] - M[q] + (S[q, k] - M[q])"),
        ("log(1 / P[q, k])", "log(1) - (S[q, k] - M[q] - log(Z[q]))"),
        ("log(P[q, k] ** 2)", "2 * (S[q, k] - M[q] - log(Z[q]))"),
        ("where(P[q, k] > 0, P[q, k], 0.0)", "P[q, k]"),
        ("where(P[q, k] == 0, 0.0, P[q, k])", "P[q, k]"),
        # Unknown signs, other bases and logarithms without an exponential stay.
        ("log(P[q, k] * S[q, k])", "log(P[q, k] * S[q, k])"),
        ("log2(P[q, k])", "log2(P[q, k])"),
        ("log(abs(S[q, k]) / Z[q])", "log(abs(S[q, k]) / Z[q])"),
        ("where(S[q, k] > 0, P[q, k], 0.0)", "where(S[q, k] > 0, P[q, k], 0.0)"),
    ],
)
def test_rewriting(body, after):
    assert last(WEIGHTS + f"R[q] = sum[k]({body})\nreturn R") == f"sum[k]({after})"


def test_a_row_value_is_left_alone_and_each_rewriting_is_recorded():
    source = program(
        SCORE + WEIGHTS + "L[q] = log(Z[q] * Z[q])\nR[q] = sum[k](log(P[q, k])) + L[q]\nreturn R"
    )
    after, uses = expand_logs(isolate(source))
    assert einsum_text(after.cascade[-3]) == "L[q] = log(Z[q] * Z[q])"
    assert [u.target for u in uses] == ["R_0"]
    assert uses[0].obligations[0].residual == "0"


def test_a_sum_that_may_be_zero_is_not_taken_for_positive():
    text = MAX + "A[q] = sum[k](abs(S[q, k]))\nR[q] = sum[k](log(exp(S[q, k]) / A[q]))\nreturn R"
    assert last(text) == "sum[k](log(exp(S[q, k]) / A[q]))"


def body_of(text: str) -> tuple[Expr, Scope]:
    scope = Scope("k")
    scope.running |= {"M", "Z"}
    source = program(SCORE + MAX + f"Z[q] = sum[k](S[q, k])\nR[q] = sum[k]({text})\nreturn R")
    reduction = source.cascade[-1].body
    assert isinstance(reduction, Reduce)
    return reduction.body, scope


@pytest.mark.parametrize(
    ("body", "core", "rest"),
    [
        ("exp(S[q, k]) * (S[q, k] - M[q] - log(Z[q]))", "exp(S[q, k]) * (S[q, k] - M[q])", "exp(S[q, k])"),
        ("(log(Z[q]) + M[q] - S[q, k]) * V[k, 0]", "(M[q] - S[q, k]) * V[k, 0]", "V[k, 0]"),
        ("-(S[q, k] - M[q] - log(Z[q]))", "-(S[q, k] - M[q])", "-1.0"),
    ],
)
def test_a_logarithm_of_the_row_leaves(body, core, rest):
    expr, scope = body_of(body)
    found = split_logs(expr, scope)
    assert found is not None
    assert (print_expr(found.core), print_expr(found.rest).replace("-(1.0)", "-1.0")) == (core, rest)
    joined = found.joined(Load("A", ()), Load("B", ()))
    assert "finite(log(Z[q]))" in print_expr(joined)


@pytest.mark.parametrize(
    "body",
    [
        "exp(S[q, k]) * (S[q, k] - log(Z[q]))",  # nothing else holds the score near zero
        "exp(S[q, k]) * (S[q, k] - M[q])",  # not a logarithm
        "(S[q, k] - M[q]) ** 2",
        "exp(S[q, k] - M[q] - log(Z[q]))",
    ],
)
def test_what_has_to_stay_together_does(body):
    expr, scope = body_of(body)
    assert split_logs(expr, scope) is None
