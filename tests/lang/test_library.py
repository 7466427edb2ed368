"""Programs on disk, by name and by path; and programs built by hand, which meet the same verifier."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from attngen.errors import (
    AttngenError,
    ProgramNotFoundError,
    ProgramSyntaxError,
    ProgramTypeError,
    UnknownNameError,
)
from attngen.lang.desugar import desugar
from attngen.lang.expr import Apply, Const, Expr, Load, Param, Reduce, Size, Var
from attngen.lang.library import cascade_names, load_cascade, load_program, parse_file, program_names
from attngen.lang.link import link
from attngen.lang.loc import Loc
from attngen.lang.parse import parse_program
from attngen.lang.print import print_program
from attngen.lang.verify import verify
from attngen.lang.words import MAX_DEPTH


def test_the_catalogue() -> None:
    assert {"softmax", "sigmoid", "relu", "relu2", "softmax_sink", "softcap"} <= set(cascade_names())
    assert {"causal", "sliding_window_sink", "block_diffusion"} <= set(program_names())
    assert not set(program_names()) & set(cascade_names())


def test_loading_by_name_and_by_path(tmp_path: Path) -> None:
    assert load_program("causal").name == "causal"
    assert load_program("relu") == load_cascade("relu")
    path = tmp_path / "mine.attn"
    path.write_text("mask = k < q")
    assert load_program(str(path)) == load_program(path) == parse_file(path)
    assert load_program(path).name == "mine"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("causl", "did you mean `causal`?"),
        ("softmx", "did you mean `softmax`?"),
        ("", "causal"),
        ("zzzzzz", "a path ends in .attn"),
    ],
)
def test_an_unknown_name_offers_the_closest(name: str, hint: str) -> None:
    with pytest.raises(ProgramNotFoundError) as caught:
        load_program(name)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("path", ["no/such.attn", "nothing.attn", "a\x00b.attn", "/", "x" * 5000 + ".attn"])
def test_a_path_that_cannot_be_read_is_one_error(path: str) -> None:
    with pytest.raises(ProgramNotFoundError, match="cannot be read"):
        load_program(path)


def test_a_huge_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "huge.attn"
    with path.open("wb") as stream:
        stream.truncate(1 << 33)
    with pytest.raises(ProgramSyntaxError, match="at most"):
        load_program(path)


def test_only_names_of_cascades_are_cascades() -> None:
    with pytest.raises(ProgramNotFoundError, match="no cascade `causal`"):
        load_cascade("causal")
    with pytest.raises(ProgramNotFoundError):
        load_cascade("../causal")


def test_parsing_needs_no_heavy_import() -> None:
    code = (
        "import sys; from attngen.lang.library import load_program, load_cascade; "
        "from attngen.lang.link import link; link(load_program('causal'), load_cascade); "
        "assert not {'torch', 'sympy', 'numpy', 'jinja2', 'triton'} & set(sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def deep(n: int) -> Expr:
    expr: Expr = Var("q")
    for _ in range(n):
        expr = Apply("neg", (expr,))
    return Apply("lt", (expr, Const(0)))


def shared(n: int) -> Expr:
    expr: Expr = Var("q")
    for _ in range(n):
        expr = Apply("add", (expr, expr))
    return Apply("lt", (expr, Const(0)))


def test_the_deepest_legal_expression_passes_every_pass_of_the_language() -> None:
    program = replace(parse_program("mask = k < q"), mask=deep(MAX_DEPTH - 2))
    verify(program)
    assert parse_program(print_program(program)) == program
    assert desugar(link(program, load_cascade)).mask == program.mask
    with pytest.raises(ProgramSyntaxError, match="128 deep"):
        verify(replace(program, mask=deep(MAX_DEPTH - 1)))


@pytest.mark.parametrize(
    ("mask", "kind"),
    [
        (deep(100_000), ProgramSyntaxError),
        (shared(100), ProgramSyntaxError),
        (Apply("lt", (Var("q"), Const(2**70))), ProgramSyntaxError),
        (Apply("lt", (Var("q"), Const(float("nan")))), ProgramTypeError),
        (Apply("lt", (Param("x"), Const(0))), UnknownNameError),
        (Apply("lt", (Size("n_z"), Const(0))), UnknownNameError),
        (Apply("less", (Var("q"), Const(0))), UnknownNameError),
        (Apply("lt", (Var("q"),)), ProgramTypeError),
        (Apply("lt", (Var("q", "y"), Const(0))), UnknownNameError),
        (Apply("lt", (Load("T", ()), Const(0))), UnknownNameError),
        (Reduce("any", ("k",), Apply("lt", (Var("k"), Const(0)))), AttngenError),
        (Expr(), ProgramTypeError),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_expressions_built_by_hand_are_verified_too(mask: Expr, kind: type[AttngenError]) -> None:
    with pytest.raises(kind):
        verify(replace(parse_program("mask = k < q"), mask=mask))


def test_a_cascade_has_a_name_that_can_be_printed() -> None:
    with pytest.raises(ProgramSyntaxError, match="is not a name"):
        verify(replace(parse_program("mask = k < q"), cascade_name="two words"))


@pytest.mark.parametrize(
    ("loc", "shown"),
    [
        (Loc("f", 1, 2, 4, "ab\tcd"), "    ab cd\n      ^^"),
        (Loc("f", 1, 1, 2, "漢字x"), "    漢字x\n      ^^"),
        (Loc("f", 1, 9, 9, "ab"), "    ab\n      ^"),
        (Loc("f", 1, 1, 2, "a\x1b[31mb\n"), "    a?[31mb\n     ^"),
    ],
)
def test_carets_stand_under_what_they_mark(loc: Loc, shown: str) -> None:
    assert loc.snippet() == shown


def test_a_long_line_is_shown_around_its_mark() -> None:
    text = "a" * 1000 + "BC" + "a" * 1000
    first, second = Loc("f", 1, 1000, 1002, text).snippet().split("\n")
    assert len(first) < 200
    assert first[second.index("^") : second.rindex("^") + 1] == "BC"
