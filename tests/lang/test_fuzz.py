"""Any text, of any bytes, is a program or one error of ours; never a crash, a hang or another's exception."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.errors import AttngenError, ProgramSyntaxError
from attngen.lang.library import load_cascade, load_program, parse_bytes, parse_file, program_names
from attngen.lang.link import link
from attngen.lang.parse import MAX_CHARS, parse_program
from attngen.lang.print import print_program

FUZZ = settings(max_examples=250, deadline=None, derandomize=False, print_blob=True)
SEEDS = tuple(print_program(link(load_program(n), load_cascade)) for n in program_names())
_WORDS = (
    "mask = k <= q & | ~ ( ) [ ] , : int float const return sum[k]( max[q]( where( -1 1e9 inf S Q[q, d] . @"
)
_ODD = 'lambda if else and not in is True None \'a\' """ \\ # λ 99999999999999999999 q.y := += yield'
_TOKENS = (*_WORDS.split(), *_ODD.split(), "\n", "\t", "\x0c", "\x00", "\ud800")


def is_handled(data: str | bytes) -> None:
    """Parse, and accept only a program or an error of ours that can be shown."""
    program = error = None
    try:
        program = parse_bytes(data) if isinstance(data, bytes) else parse_program(data)
    except AttngenError as caught:
        error = caught
    if program is not None:
        assert parse_program(print_program(program)) == program
    else:
        shown = str(error)
        shown.encode("utf-8")
        assert shown.startswith("[AG")


@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    is_handled(data)


@FUZZ
@given(st.text(st.characters(), max_size=200) | st.lists(st.sampled_from(_TOKENS), max_size=40).map(" ".join))
def test_any_text(text: str) -> None:
    is_handled(text)


@FUZZ
@given(st.data())
def test_a_valid_program_with_something_changed(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(SEEDS))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 8)))
        text = text[:start] + data.draw(st.sampled_from(_TOKENS) | st.text(max_size=3)) + text[stop:]
    is_handled(text)


DEEP = {
    "parentheses": "mask = " + "(" * 50_000,
    "closed parentheses": "mask = " + "(" * 150 + "k < q" + ")" * 150,
    "signs": "mask = " + "-" * 50_000 + "1 < k",
    "fewer signs": "mask = " + "-" * 1500 + "1 < k",
    "complements": "mask = " + "~" * 50_000 + "(k < q)",
    "sums": "mask = k < " + "+".join("1" * 50_000),
    "fewer sums": "mask = k < " + "+".join("1" * 900),
    "comparisons": "mask = " + "<".join("1" * 50_000),
    "powers": "mask = 1 < " + "**".join("1" * 50_000),
    "attributes": "mask = k" + ".a" * 50_000,
    "subscripts": "mask = k" + "[q]" * 50_000,
    "calls": "mask = k" + "()" * 50_000,
    "calls within calls": "mask = " + "exp(" * 150 + "q" + ")" * 150 + " > 0",
    "arguments": "mask = 0 < min(" + ",".join("k" * 50_000) + ")",
    "blocks": "".join("\n" + " " * i + "if 1:" for i in range(110)),
    "branches": "if 1: pass\n" + "elif 1: pass\n" * 9_000,
    "targets": "a=" * 50_000 + "1",
    "names": "mask = " + "k" * 200_000,
    "strings": "mask = " + "'a' " * 50_000,
    "lines": "\n" * 200_000,
    "characters": "# " + "x" * MAX_CHARS,
    "wide characters": "mask = " + "λ + " * 60_000 + "1",
    "digits": "mask = k < " + "1" * 10_000,
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_and_long_texts_end_in_one_error_soon(name: str) -> None:
    start = time.perf_counter()
    if name in ("closed parentheses", "lines"):
        parse_program(DEEP[name])
    else:
        with pytest.raises(AttngenError) as caught:
            parse_program(DEEP[name])
        assert len(caught.value.loc.snippet() if caught.value.loc else "") < 1000
    assert time.perf_counter() - start < 20


def test_bytes_that_are_not_text_say_where() -> None:
    with pytest.raises(ProgramSyntaxError, match="not UTF-8") as caught:
        parse_bytes(b"# fine\nmask = k < \xff\n", file="f.attn")
    assert caught.value.loc is not None
    assert (caught.value.loc.file, caught.value.loc.line) == ("f.attn", 2)


def test_a_byte_order_mark_and_all_line_ends_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "causal.attn"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(f"\ufeff# first{end}mask = k <= q{end}".encode())
        program = parse_file(path)
        assert program.name == "causal"
        assert program.mask is not None
        assert program.mask.loc is not None
        assert (program.mask.loc.line, program.mask.loc.col) == (2, 7)
