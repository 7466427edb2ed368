"""Linking: mask, score and cascade become one program, or an error that says why not."""

from __future__ import annotations

import numpy as np
import pytest

from attngen.errors import LinkError, OutputError, ProgramNotFoundError, ProgramSyntaxError
from attngen.lang.library import load_cascade
from attngen.lang.link import link
from attngen.lang.parse import parse_program
from attngen.lang.print import print_expr
from attngen.lang.program import Program
from tests.lang.dense import Dense


def linked(text: str) -> Program:
    return link(parse_program(text), load_cascade)


def body(program: Program, target: str) -> str:
    einsum = program.einsum(target)
    assert einsum is not None
    return print_expr(einsum.body)


DOT = "sum[d](Q[q, d] * K[k, d]) * scale"


def test_the_default_cascade_is_softmax() -> None:
    program = linked("mask = k <= q")
    assert program.linked
    assert program.cascade == load_cascade("softmax").cascade
    assert program.outputs == ("O",)


def test_a_named_cascade_brings_its_parameters_and_tensors() -> None:
    program = linked("window: int = 4\nmask = q - k < window\ncascade = sigmoid")
    assert [p.name for p in program.params] == ["window", "bias"]
    program = linked("slope[h]: float\nscore = S * slope[h]\ncascade = softmax_sink")
    assert [t.name for t in program.tensors] == ["slope", "sink_logit"]


def test_the_programs_own_outputs_win() -> None:
    assert linked("mask = k <= q\nreturn LSE, O").outputs == ("LSE", "O")
    with pytest.raises(OutputError, match="`LSE` is returned"):
        linked("cascade = sigmoid\nreturn LSE")


def test_a_score_that_reads_the_score_once_wraps_it() -> None:
    program = linked("slope[h]: float\nscore = S + slope[h] * (k - q)")
    assert body(program, "S") == f"{DOT} + slope[h] * (k - q)"
    assert len(program.cascade) == 6


def test_a_score_that_reads_the_score_twice_splits_it() -> None:
    program = linked("score = where(S > 0, S, -inf)")
    assert body(program, "S_raw") == DOT
    assert body(program, "S") == "where(S_raw[q, k] > 0, S_raw[q, k], -inf)"
    assert [e.target for e in program.cascade][:3] == ["S_raw", "S", "M"]


def test_a_score_that_does_not_read_the_score_replaces_it() -> None:
    assert body(linked("score = -1.0 * abs(q - k)"), "S") == "-1.0 * abs(q - k)"


def test_the_fresh_name_is_free() -> None:
    assert linked("S_raw: float = 1.0\nscore = S * S * S_raw").einsum("S_raw_") is not None


def test_a_score_works_into_einsums_of_the_programs_own() -> None:
    program = linked("score = S / 2.0\nS[q, k] = sum[d](Q[q, d] * K[k, d])\nreturn S")
    assert body(program, "S") == "sum[d](Q[q, d] * K[k, d]) / 2.0"


@pytest.mark.parametrize("score", ["tanh(S)", "S * S - S", "1.0 * k"])
def test_a_linked_score_computes_what_it_says(score: str) -> None:
    rng = np.random.default_rng(3)
    inputs = {
        "Q": rng.standard_normal((4, 2)),
        "K": rng.standard_normal((5, 2)),
        "V": rng.standard_normal((5, 2)),
    }
    plain = Dense(linked(""), inputs, {}, 4, 5).run()["S"]
    got = Dense(linked(f"score = {score}"), inputs, {}, 4, 5).run()["S"]
    keys = np.arange(5.0)
    want = {"tanh(S)": np.tanh(plain), "S * S - S": plain * plain - plain, "1.0 * k": keys + 0 * plain}[score]
    np.testing.assert_allclose(got, want)


def test_linking_twice_changes_nothing() -> None:
    program = linked("score = S * S")
    assert link(program, load_cascade) is program


def test_equal_declarations_are_merged() -> None:
    assert [p.name for p in linked("bias: float = 0.0\nscore = S - bias\ncascade = sigmoid").params] == [
        "bias"
    ]


@pytest.mark.parametrize(
    ("text", "message", "marked"),
    [
        ("bias: float = 1.0\ncascade = sigmoid", "`bias` is declared differently", "bias"),
        ("bias: int = 0\ncascade = sigmoid", "`bias` is declared differently", "bias"),
        (
            "sink_logit[q]: float\ncascade = softmax_sink",
            "`sink_logit` is declared differently",
            "sink_logit[q]",
        ),
        ("bias[h]: float\ncascade = sigmoid", "`bias` is also a name of the cascade", "bias[h]"),
        ("M: float = 0.0\nmask = k <= q", "`M` is also a name of the cascade", "M"),
        ("score = S + 1\nX[q, k] = sum[d](Q[q, d] * K[k, d])\nreturn X", "no S[q, k] for it", "S + 1"),
        ("score = S + 1\nS[k, q] = sum[d](Q[q, d] * K[k, d])\nreturn S", "no S[q, k] for it", "S + 1"),
    ],
)
def test_what_does_not_go_together_is_refused(text: str, message: str, marked: str) -> None:
    with pytest.raises(LinkError) as caught:
        linked(text)
    assert message in caught.value.message
    assert caught.value.loc is not None
    assert caught.value.loc.text[caught.value.loc.col : caught.value.loc.end_col] == marked


def test_a_cascade_is_neither_a_mask_nor_missing() -> None:
    with pytest.raises(LinkError, match="is not a cascade"):
        link(parse_program("mask = k <= q"), lambda name: parse_program("mask = k <= q", name=name))
    with pytest.raises(LinkError, match="is not a cascade"):
        link(parse_program("cascade = x"), lambda name: parse_program("mask = k <= q\nX[q] = 1.0\nreturn X"))
    with pytest.raises(ProgramNotFoundError, match="did you mean `softmax`"):
        linked("cascade = softmaxx")


def test_a_score_too_deep_once_linked_is_refused() -> None:
    deep = "score = " + "-(" * 126 + "S" + ")" * 126
    with pytest.raises(ProgramSyntaxError, match="128 deep"):
        linked(deep)
