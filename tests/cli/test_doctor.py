from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from attngen.cli import trials
from attngen.cli.findings import State, examine
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
        "cpu kernel",
        "gpu kernel",
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


def test_installed_artefacts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Those of another attngen are told apart, and those that are refused say why."""
    import attngen

    folder = tmp_path / "artefacts"
    monkeypatch.setenv("ATTNGEN_ARTEFACTS", str(folder))
    for name in ("causal", "alibi"):
        attngen.load(name).compile("cpu", "fp32", 16, path=folder)
    assert [f.text for f in examine() if f.subject == "artefacts"] == ["2 installed"]
    (folder / "alibi").chmod(0o777)
    monkeypatch.setattr("attngen.pipeline.sources", lambda: "others")
    refused, other, count = (f for f in examine() if f.subject == "artefacts")
    assert (refused.state, other.state, count.state) == (State.NOTE, State.NOTE, State.OK)
    assert "others can write" in refused.text
    assert "chmod go-w" in refused.cure
    assert other.text.startswith("causal: built by another attngen")


def test_json_says_the_same(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATTNGEN_THREADS", "1")
    assert main(["doctor", "--json"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert held["works"] is True
    assert held["settings"]["ATTNGEN_THREADS"] == "1"
    assert set(held["settings"]) == {v.name for v in VARIABLES}
    found = {f["subject"]: f for f in held["findings"]}
    assert found["compiler"]["state"] == "ok"
    assert "right to" in found["cpu kernel"]["text"]
    assert all(set(f) == {"subject", "state", "text", "cure", "command"} for f in held["findings"])


def test_a_cure_comes_with_its_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("ATTNGEN_CXX", "no-such-compiler")
    monkeypatch.setenv("ATTNGEN_LOCK_TIMEOUT_S", "soon")
    assert main(["doctor", "--json"]) == 1
    held = json.loads(capsys.readouterr().out)
    assert held["works"] is False
    found = {f["subject"]: f for f in held["findings"]}
    assert found["settings"]["command"] == "unset ATTNGEN_LOCK_TIMEOUT_S"
    assert found["cpu kernel"]["text"] == "not tried"
    monkeypatch.delenv("ATTNGEN_LOCK_TIMEOUT_S")
    assert main(["doctor"]) == 1
    assert "run:  unset ATTNGEN_CXX" in capsys.readouterr().out


def test_a_wrong_result_is_a_problem(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trials, "_ALLOWED", {"cpu": 0.0, "cuda": 0.0})
    assert states()["cpu kernel"] is State.PROBLEM
