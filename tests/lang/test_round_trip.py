"""Printing and parsing are inverse, on programs that use every corner of the language."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from attngen.lang.expr import Apply, Const, Expr, Load, Var
from attngen.lang.library import cascade_names, load_cascade, load_program, program_names
from attngen.lang.link import link
from attngen.lang.parse import parse_program
from attngen.lang.print import print_expr, print_program
from attngen.lang.program import Program
from attngen.lang.verify import verify
from tests.lang.programs import programs

SLOW = settings(
    max_examples=100,
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
x, y, z = Var("q"), Var("k"), Var("b")


@SLOW
@given(programs())
def test_parse_undoes_print(program: Program) -> None:
    verify(program)
    text = print_program(program)
    again = parse_program(text, name=program.name)
    assert again == program
    assert again.doc == program.doc
    assert print_program(again) == text


@settings(SLOW, max_examples=40)
@given(programs())
def test_the_hashed_form_leaves_out_the_docstring_and_nothing_else(program: Program) -> None:
    text = print_program(program, doc=False)
    again = parse_program(text, name=program.name)
    assert again == program
    assert text == print_program(replace(program, doc=""))


@pytest.mark.parametrize("name", program_names() + cascade_names())
def test_every_shipped_program_round_trips(name: str) -> None:
    program = load_program(name)
    for form in (program, link(program, load_cascade)):
        text = print_program(form)
        assert parse_program(text, name=name) == form
        assert print_program(parse_program(text, name=name)) == text


def op(name: str, *args: Expr) -> Apply:
    return Apply(name, args)


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (op("sub", x, op("sub", y, z)), "q - (k - b)"),
        (op("sub", op("sub", x, y), z), "q - k - b"),
        (op("mul", op("add", x, y), z), "(q + k) * b"),
        (op("pow", x, op("pow", y, z)), "q ** k ** b"),
        (op("pow", op("pow", x, y), z), "(q ** k) ** b"),
        (op("neg", op("pow", x, y)), "-q ** k"),
        (op("pow", op("neg", x), y), "(-q) ** k"),
        (op("pow", x, op("neg", y)), "q ** -k"),
        (op("pow", Const(-2), y), "(-2) ** k"),
        (op("neg", Const(1)), "-(1)"),
        (Const(-1), "-1"),
        (op("neg", Const(-1)), "--1"),
        (op("neg", op("neg", x)), "--q"),
        (op("neg", Const(True)), "-True"),
        (Const(-math.inf), "-inf"),
        (op("neg", Const(math.inf)), "-(inf)"),
        (Const(-0.0), "-0.0"),
        (Const(1e-05), "1e-05"),
        (op("lt", op("lt", x, y), z), "(q < k) < b"),
        (op("lt", x, op("lt", y, z)), "q < (k < b)"),
        (
            op("and", op("lt", x, y), op("or", op("lt", y, z), op("lt", x, z))),
            "(q < k) & ((k < b) | (q < b))",
        ),
        (op("or", op("and", op("lt", x, y), op("lt", y, z)), op("lt", x, z)), "(q < k) & (k < b) | (q < b)"),
        (op("eq", op("and", x, Const(1)), Const(0)), "(q & 1) == 0"),
        (op("eq", op("not", x), y), "(~q) == k"),
        (op("not", op("eq", x, y)), "~(q == k)"),
        (op("shl", x, op("add", y, z)), "q << k + b"),
        (op("min", op("min", x, y), z), "min(min(q, k), b)"),
        (Load("S", ()), "S"),
        (Load("t", ()), "t[()]"),
        (Load("t", (op("add", x, y), z)), "t[q + k, b]"),
    ],
)
def test_parentheses_are_the_needed_ones(expr: Expr, text: str) -> None:
    assert print_expr(expr) == text


@pytest.mark.parametrize(
    "doc",
    [
        'say "yes"',
        'ends in a quote"',
        '"""',
        'a\\"',
        "tab\there",
        "\\",
        "é\u200b\x00",
        "two\nlines",
        '""x""',
        "\ud800",
    ],
)
def test_docstrings_come_back_as_they_were(doc: str) -> None:
    program = Program("p", doc, (), (), None, (), ())
    assert parse_program(print_program(program)).doc == doc
