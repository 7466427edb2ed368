"""Programs that are too large, or that ask for more time than anybody has, end in an error of ours."""

from __future__ import annotations

import time

import pytest

from attngen import forms, pipeline
from attngen.analysed import analyse
from attngen.api import Attention
from attngen.assemble import finish_program
from attngen.errors import ProgramSyntaxError, UnsupportedError
from attngen.lang import limits
from attngen.lang.library import cascade_names, load_cascade, load_program, program_names
from attngen.lang.parse import parse_program
from attngen.limit_time import within_time

SOFTMAX = """
S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale
M[q] = max[k](S[q, k])
E[q, k] = exp(S[q, k] - M[q])
Z[q] = sum[k](E[q, k])
O[q, e] = sum[k](E[q, k] / Z[q] * V[k, e])
"""


def doubling(ranks: str, lines: int) -> str:
    text = f"Y0[{ranks}] = sum[d](Q[q, d] * K[k, d])\n" if "q" in ranks else "Y0[k] = sum[d](K[k, d])\n"
    for i in range(1, lines):
        text += f"Y{i}[{ranks}] = Y{i - 1}[{ranks}] + Y{i - 1}[{ranks}]\n"
    return text


def tree(operator: str, leaves: list[str]) -> str:
    while len(leaves) > 1:
        pairs = [leaves[i : i + 2] for i in range(0, len(leaves), 2)]
        leaves = [f"({f' {operator} '.join(pair)})" for pair in pairs]
    return leaves[0]


TOO_LARGE = {
    "Einsums": SOFTMAX + "".join(f"X{i}[q] = sum[k](S[q, k])\n" for i in range(260)) + "return O",
    "parameters": "".join(f"p{i}: int = 0\n" for i in range(1025)),
    "ranks": "".join(f"r{i}: rank = 2\n" for i in range(17)) + SOFTMAX + "return O",
    "ranks of a tensor": f"t[{', '.join(f'r{i}' for i in range(17))}]: float\nmask = k <= q",
    "axes": f"tokens = grid({', '.join(f'a{i}' for i in range(9))})\nmask = q.a0 == k.a0",
    "values of pairs": doubling("q, k", 40) + "O[q, e] = sum[k](Y39[q, k] * V[k, e])\nreturn O",
    "values of keys": SOFTMAX + doubling("k", 40) + "P[q] = sum[k](E[q, k] * Y39[k])\nreturn O, P",
    "all together": SOFTMAX + doubling("q, k", 13)
    + "".join(f"X{i}[q] = sum[k](Y12[q, k])\n" for i in range(30)) + "return X29",
    "a long name": f"{'x' * 201}: int = 0\nmask = k <= q",
}  # fmt: skip


@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_program_that_is_too_large(case: str):
    before = time.process_time()
    with pytest.raises(ProgramSyntaxError):
        parse_program(TOO_LARGE[case])
    assert time.process_time() - before < 1


def test_the_limits_are_far_above_what_is_written(monkeypatch: pytest.MonkeyPatch):
    """Every program and cascade that ships passes a quarter of each."""
    for name in ("MAX_EINSUMS", "MAX_DECLARATIONS", "MAX_TOTAL_NODES", "MAX_NODES", "MAX_NAME"):
        monkeypatch.setattr(limits, name, getattr(limits, name) // 4)
    for name in program_names():
        finish_program(load_program(name))
    for name in cascade_names():
        limits.verify_limits(load_cascade(name))


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", "a\0b", "a\u2028b", "\u202ea", "\x1b[2J", "a" * 201])
def test_names_that_do_not_stay_on_their_line(name: str):
    with pytest.raises(ProgramSyntaxError, match="cannot name a program"):
        parse_program("mask = k <= q", name=name)
    with pytest.raises(ProgramSyntaxError, match="cannot name a program"):
        Attention(name=name)


def test_wide_masks_are_planned():
    """Hundreds of comparisons side by side: no pass walks down a chain of them."""
    text = "mask = " + tree("&", [f"((k < {i}) | (q >= {i}))" for i in range(600)])
    found = Attention.from_program(parse_program(text)).schedule(200, 200)
    assert found.tiles().shape == (1, 1, 2, 2)


SLOW_PLAN = "mask = " + "abs(" * 60 + "k - q" + ") - 1" * 60 + " < 3\n"
SLOW_FOLD = (
    SOFTMAX + "O2[q, e] = sum[k]((" + tree("+", [f"exp(S[q, k] * {i} - M[q] * {i})" for i in range(300)])
)
SLOW_FOLD += ") * V[k, e])\nreturn O2"


@pytest.mark.parametrize("text", [SLOW_PLAN, SLOW_FOLD], ids=["plan", "fold"])
def test_work_without_end_is_stopped(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATTNGEN_DERIVE_TIMEOUT_S", "0.5")
    analysed = analyse(finish_program(parse_program(text)))
    before = time.monotonic()
    work = pipeline.plan_of if text is SLOW_PLAN else forms.forms_of
    with pytest.raises(UnsupportedError, match=r"took longer than 0\.5 s") as caught:
        work(analysed)
    assert time.monotonic() - before < 15
    assert "ATTNGEN_DERIVE_TIMEOUT_S" in (caught.value.hint or "")


def test_a_call_of_such_a_program_is_refused(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setenv("ATTNGEN_DERIVE_TIMEOUT_S", "0.5")
    spec = Attention.from_program(parse_program(SLOW_PLAN.replace("< 3", "< 5")))
    x = torch.zeros(1, 1, 8, 16)
    with pytest.raises(UnsupportedError, match="took longer"):
        spec(x, x, x, backend="cpu")


def test_what_is_raised_and_returned_comes_through(monkeypatch: pytest.MonkeyPatch):
    assert within_time("this", lambda: 3) == 3
    assert within_time("this", lambda: within_time("that", lambda: None)) is None
    with pytest.raises(KeyError):
        within_time("this", lambda: {}["x"])

    def deep(n: int) -> int:
        return 1 + deep(n + 1)

    with pytest.raises(UnsupportedError, match="nests too deeply"):
        within_time("this", lambda: deep(0))


def test_the_inner_work_shares_the_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATTNGEN_DERIVE_TIMEOUT_S", "0.2")

    def busy() -> None:
        while True:
            pass

    with pytest.raises(UnsupportedError, match=r"outer took longer than 0\.2 s"):
        within_time("outer", lambda: within_time("inner", busy))


def test_documents_of_the_call_are_seen_inside():
    from attngen.documents import noted, noting

    with noting() as notes:
        assert within_time("this", noted) is notes
