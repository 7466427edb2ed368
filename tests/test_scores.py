"""The catalogue of scores against their formulas on torch tensors, and cascades by name and by text."""

from __future__ import annotations

import math

import pytest
import torch

from attngen import cascades, masks, scores
from attngen.errors import (
    DTypeError,
    ParameterError,
    ProgramNotFoundError,
    ProgramSyntaxError,
    ProgramTypeError,
    ShapeError,
)
from attngen.lang.kinds import kind_of
from attngen.lang.ops import Kind

B, H, N_Q, N_K = 2, 6, 5, 8


def apply(score, s):
    b, h = torch.arange(B)[:, None, None, None], torch.arange(H)[:, None, None]
    return score(s, b, h, torch.arange(N_Q)[:, None], torch.arange(N_K), n_q=N_Q, n_k=N_K)


@pytest.fixture
def s():
    return torch.randn(B, H, N_Q, N_K, generator=torch.Generator().manual_seed(1)) * 8


DISTANCE = torch.arange(N_Q)[:, None] + (N_K - N_Q) - torch.arange(N_K)


def test_alibi(s):
    slopes = torch.rand(H)
    torch.testing.assert_close(apply(scores.alibi(slopes), s), s - slopes[:, None, None] * DISTANCE)
    assert scores.alibi(8).expr == scores.alibi(slopes).expr


def test_alibi_slopes():
    assert scores.alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert scores.alibi_slopes(1) == [2.0**-8]
    twelve = scores.alibi_slopes(12)
    assert twelve[:8] == scores.alibi_slopes(8)
    assert twelve[8:] == [2.0 ** (-(i + 0.5)) for i in range(4)]
    assert torch.equal(scores.alibi(12).values["slopes"], torch.tensor(twelve))


def test_softcap_and_temperature(s):
    torch.testing.assert_close(apply(scores.softcap(20), s), 20 * torch.tanh(s / 20))
    torch.testing.assert_close(apply(scores.temperature(2.5), s), s / 2.5)
    assert scores.softcap(20).structure == scores.softcap(30.0).structure
    assert [(p.name, p.kind) for p in scores.softcap(20).params] == [("cap", Kind.FLOAT)]


def test_relative_bias(s):
    table = torch.randn(H, 7)
    at = (-DISTANCE).clamp(-3, 3) + 3
    torch.testing.assert_close(apply(scores.relative_bias(table), s), s + table[:, at])
    torch.testing.assert_close(apply(scores.relative_bias(table[0]), s), s + table[0][at])


def test_scores_chain(s):
    chained = scores.softcap(5).then(scores.alibi(torch.ones(H)))
    torch.testing.assert_close(apply(chained, s), 5 * torch.tanh(s / 5) - DISTANCE)
    kinds = {"S": Kind.FLOAT, "cap": Kind.FLOAT, "slopes": Kind.FLOAT}
    assert kind_of(chained.expr, kinds) is Kind.FLOAT


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: scores.alibi(0), ParameterError, "at least 1"),
        (lambda: scores.alibi(torch.ones(2, 2)), ShapeError, "[2, 2]"),
        (lambda: scores.alibi(torch.ones(2, dtype=torch.int32)), DTypeError, "int32"),
        (lambda: scores.softcap(0), ParameterError, "positive"),
        (lambda: scores.softcap(math.inf), ParameterError, "positive"),
        (lambda: scores.softcap("big"), ParameterError, "positive"),
        (lambda: scores.temperature(-1), ParameterError, "positive"),
        (lambda: scores.relative_bias(torch.ones(4, 6)), ShapeError, "odd"),
    ],
)
def test_bad_values(build, error, text):
    with pytest.raises(error) as caught:
        build()
    assert text in str(caught.value)


TEXT = """
    S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale
    O[q, e] = sum[k](sigmoid(S[q, k]) * V[k, e])
    return O
"""


def test_cascades():
    assert {"softmax", "sigmoid", "relu", "softmax_sink"} <= set(cascades.names())
    for name in cascades.names():
        assert cascades.cascade(name).outputs
    program = cascades.cascade(TEXT)
    assert [e.target for e in program.cascade] == ["S", "O"]


@pytest.mark.parametrize(
    ("text", "error", "part"),
    [
        ("sofmax", ProgramNotFoundError, "softmax"),
        ("mask = k <= q\n" + "\n".join(line.strip() for line in TEXT.splitlines()), ProgramTypeError, "mask"),
        ("cap: float = 1.0", ProgramTypeError, "Einsums"),
        ("S[q, k] = ", ProgramSyntaxError, "^"),
    ],
)
def test_bad_cascades(text, error, part):
    with pytest.raises(error) as caught:
        cascades.cascade(text)
    assert part in str(caught.value)


def test_the_catalogue_lists_what_it_has():
    for module in (masks, scores, cascades):
        assert all(callable(getattr(module, name)) for name in module.__all__)
