from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from attngen.cli.doctor import State, examine
from attngen.cli.main import main
from attngen.store.settings import VARIABLES


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path / "cache"))


def states() -> dict[str, State]:
    return {f.subject: f.state for f in examine()}


def test_a_machine_where_the_tests_run_is_well(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "`attngen run` can work here" in out
    for subject in (
        "python",
        "torch",
        "triton",
        "ptxas",
        "compiler",
        "processor",
        "threads",
        "ir",
        "templates",
    ):
        assert f"  {subject} " in out
    assert str(tmp_path / "cache") in out
    for variable in VARIABLES:
        assert variable.name in out


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("PATH", "")
    for name in ("ATTNGEN_CXX", "CXX"):
        monkeypatch.delenv(name, raising=False)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "!! compiler" in out
    assert "cure: install" in out


def test_a_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATTNGEN_CXX", "no-such-compiler")
    assert states()["compiler"] is State.PROBLEM


def test_a_compiler_that_cannot_compile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fake = tmp_path / "c++"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "if '--version' in sys.argv: print('fake 1.0')\n"
        "else: sys.exit('fatal error: omp.h: No such file or directory')\n"
    )
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("ATTNGEN_CXX", str(fake))
    assert main(["doctor"]) == 1
    assert "cannot build a kernel: fatal error: omp.h" in capsys.readouterr().out


def test_a_cache_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path / "file"))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "!! cache" in out
    assert "cure: set ATTNGEN_CACHE_DIR" in out


def test_a_bad_variable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("ATTNGEN_THREADS", "many")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "!! settings: ATTNGEN_THREADS='many' cannot be used" in out


def test_without_triton_there_is_a_note_but_no_problem(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    found = states()
    assert found["triton"] is State.NOTE
    assert State.PROBLEM not in found.values()
