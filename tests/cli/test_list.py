from __future__ import annotations

from pathlib import Path

import pytest

from attngen.cli.main import main

IR = Path(__file__).resolve().parents[2] / "ir"


def test_every_program_and_cascade_with_its_first_line(capsys: pytest.CaptureFixture[str]):
    assert main(["list"]) == 0
    programs, cascades = capsys.readouterr().out.split("\n\ncascades")
    for folder, text in ((IR, programs), (IR / "cascades", cascades)):
        lines = text.splitlines()
        for path in folder.glob("*.attn"):
            doc = path.read_text(encoding="utf-8").split('"""')[1].strip().split("\n")[0]
            assert any(line.split() == [path.stem, *doc.split()] for line in lines), path.stem


def test_parameters_are_shown_with_their_defaults(capsys: pytest.CaptureFixture[str]):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    after = lines[next(i for i, line in enumerate(lines) if line.startswith("  sliding_window_sink ")) + 1]
    assert after.strip() == "sink: int = 64, window: int = 1024"


def test_names_alone(capsys: pytest.CaptureFixture[str]):
    assert main(["list", "--names"]) == 0
    assert capsys.readouterr().out.split() == sorted(p.stem for p in IR.glob("*.attn"))


def test_ranks_and_outputs_other_than_o_are_shown(capsys: pytest.CaptureFixture[str]):
    assert main(["list"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    at = next(i for i, line in enumerate(lines) if line.startswith("block_max "))
    assert "j: rank = (n_k + keys - 1) // keys" in lines[at + 1]
    assert lines[at + 2] == "-> B[i, j]"
    at = next(i for i, line in enumerate(lines) if line.startswith("relu2 "))
    assert not lines[at + 1].startswith("->")
