"""The pages of the papers: what is committed is what the command writes, and pictures show the tiles."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from attngen import blockmap
from attngen.cli.main import main
from attngen.lang.library import load_program
from attngen.papers import EXAMPLES, GROUP_A, TESTS
from attngen.papers_cdf import GROUPS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "papers"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("papers") / "page"
    assert main(["papers", "--out", str(folder)]) == 0
    return folder


def test_the_committed_page_is_what_the_command_writes(written):
    assert {p.name for p in written.iterdir()} == {p.name for p in PAGE.iterdir()}
    for path in sorted(written.iterdir()):
        kept = (PAGE / path.name).read_text(encoding="utf-8")
        assert path.read_text(encoding="utf-8") == kept, f"{path.name} differs; `attngen papers` rewrites it"


def test_every_link_leads_somewhere(written):
    links = {
        link
        for page in written.glob("*.md")
        for link in re.findall(r"\]\((.*?)\)", page.read_text(encoding="utf-8"))
    }
    assert len(links) > 100
    for link in links:
        assert (PAGE / link).exists(), link


def test_pictures_are_small(written):
    assert all(p.stat().st_size < 10_000 for p in written.glob("*.svg"))


def test_the_sixteen_papers():
    assert [p.number for p in GROUP_A] == [8, 9, 17, 24, 32, 34, 38, 39, 44, 50, 53, 54, 55, 60, 67, 72]
    named = {name for paper in GROUP_A for name in paper.programs}
    assert {e.program for e in EXAMPLES} == named
    for paper in GROUP_A:
        assert (ROOT / TESTS / paper.test).is_file()
    for call in EXAMPLES:
        grid = call.values.get("grid", ())
        assert len(grid) == len(load_program(call.program).grid)
        assert not grid or np.prod(grid) == call.n_k


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)
def test_every_program_of_the_other_groups_agrees(written, group):
    rows = [
        ln
        for ln in (written / f"{group.name}.md").read_text(encoding="utf-8").splitlines()
        if "](../../ir" in ln
    ]
    programs = [p for section in group.sections for paper in section.papers for p in paper.programs]
    assert len(rows) == len(programs)
    for row in rows:
        assert row.split(" | ")[5] == "yes", row


def test_every_paper_is_on_one_page_once():
    numbers = [paper.number for group in GROUPS for section in group.sections for paper in section.papers]
    assert len(set(numbers)) == len(numbers)
    assert not set(numbers) & ({p.number for p in GROUP_A})
    for group in GROUPS:
        for section in group.sections:
            assert [p.number for p in section.papers] == sorted(p.number for p in section.papers)
            assert all((ROOT / TESTS / p.test).is_file() for p in section.papers)


def test_a_picture_holds_every_tile():
    cells = np.random.default_rng(0).integers(0, 3, (9, 13)).astype(np.int8)
    cells[4] = cells[3]
    drawn = np.zeros_like(cells)
    for color, path in re.findall(r'<path fill="(.*?)" d="(.*?)"/>', blockmap.to_svg(cells)):
        what = next(k for k, v in blockmap.COLORS.items() if v == color)
        for x, y, width, height in re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)h-\d+z", path):
            left, top = int(x), int(y)
            drawn[top : top + int(height), left : left + int(width)] = what
    np.testing.assert_array_equal(drawn, cells)
