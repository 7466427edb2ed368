"""The language reference: its examples are programs, its lists those of the code and of the folder."""

from __future__ import annotations

import re

import pytest

from attngen import errors
from attngen.lang.library import cascade_names, load_cascade, program_names
from attngen.lang.link import link
from attngen.lang.ops import OPS, REDUCERS, SUGAR
from attngen.lang.parse import MAX_CHARS, parse_program
from attngen.lang.program import EXTENTS
from attngen.lang.words import FUNCTIONS, MAX_DEPTH, MAX_NODES
from attngen.resources import data_dir

TEXT = (data_dir("ir") / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def section(title: str) -> str:
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert match, title
    return match[1]


def first_cells(text: str) -> list[str]:
    """The names in the first column of the tables of a text."""
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(.*?)`", row)]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_program(example: str) -> None:
    linked = link(parse_program(example), load_cascade)
    assert linked.linked
    assert linked.outputs


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6


def test_the_two_spellings_of_the_first_example_are_one_program() -> None:
    written, short = (link(parse_program(text), load_cascade) for text in EXAMPLES[:2])
    assert short.mask == written.mask
    assert short.params == written.params
    assert short.cascade[:-1] == written.cascade  # the shipped cascade adds LSE


def test_the_shown_error_is_the_real_one() -> None:
    shown = re.findall(r"```\n(\[AG.*?)\n```", TEXT, re.DOTALL)
    assert len(shown) == 1
    text = "window: int = 512\n\nmask = (k <= pos(q)) & (pos(q) - k < windw)\n"
    with pytest.raises(errors.UnknownNameError) as caught:
        parse_program(text, file="local.attn")
    assert str(caught.value) == shown[0]


def test_programs_and_cascades_are_those_of_the_folder() -> None:
    listed = first_cells(section("Programs in this folder"))
    assert sorted(listed) == sorted([*program_names(), *cascade_names()])


def test_every_function_operator_and_reducer_is_described() -> None:
    names = {re.split(r"[(\[]", cell)[0] for cell in first_cells(section("Operators"))}
    assert set(FUNCTIONS) <= names
    assert {re.split(r"[(\[]", cell)[0] for cell in first_cells(section("Einsums"))} == set(REDUCERS)
    cells = " ".join(first_cells(section("Operators"))).replace("\\|", "|")
    for op in (*OPS.values(), *SUGAR.values()):
        assert op.symbol is None or op.symbol in cells


def test_ranks_and_bounds_are_those_of_the_code() -> None:
    names = re.findall(r"^\| `(\w)` \| .* \| `(\w+)` \|$", section("Ranks, sizes and inputs"), re.MULTILINE)
    assert dict(names) == EXTENTS
    for bound in (MAX_DEPTH, MAX_NODES, MAX_CHARS):
        assert f"{bound:,}" in TEXT


def test_error_codes_are_those_of_the_classes() -> None:
    rows = re.findall(r"^\| `(AG\d+)` \| `(\w+)` \|", section("Errors"), re.MULTILINE)
    assert rows
    for code, name in rows:
        assert getattr(errors, name).code == code
