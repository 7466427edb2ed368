from __future__ import annotations

from pathlib import Path

import pytest

from attngen.cli.main import main
from attngen.store.cache import Store, default_store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path / "cache"))
    store = default_store()
    for n in range(3):
        store.get_or_build(
            "cpu", {"n": n, "text": "x" * 500}, lambda d: (d / "k.so").write_bytes(b"x" * 2048) and None
        )
    store.put_json("fold", {"n": 0}, {"a": 1})
    return store


def digests(store: Store, kind: str) -> list[str]:
    return [e.digest for e in store.entries(kind)]


def test_info(store: Store, capsys: pytest.CaptureFixture[str]):
    assert main(["cache", "info"]) == 0
    out = capsys.readouterr().out
    assert str(store.root) in out
    assert "4 entries" in out
    assert "of at most 1.0 GiB" in out
    assert [line.split()[:2] for line in out.splitlines()[2:]] == [["cpu", "3"], ["fold", "1"]]


def test_info_of_a_cache_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path / "none"))
    assert main(["cache", "info"]) == 0
    assert "0 entries" in capsys.readouterr().out
    assert main(["cache", "list"]) == 0
    assert capsys.readouterr().out == "no entries\n"
    assert main(["cache", "clear"]) == 0
    assert not (tmp_path / "none").exists()


def test_list(store: Store, capsys: pytest.CaptureFixture[str]):
    assert main(["cache", "list", "--kind", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {d[:12] for d in digests(store, "cpu")}
    assert all("ago" in line for line in lines)


def test_explain(store: Store, capsys: pytest.CaptureFixture[str]):
    name = digests(store, "fold")[0]
    assert main(["cache", "explain", name[:12].upper()]) == 0
    out = capsys.readouterr().out
    assert f"fold {name}" in out
    assert '"n": 0' in out
    assert "document.json" in out
    assert main(["cache", "explain", digests(store, "cpu")[0][:12]]) == 0
    assert '"text": "500 characters, sha256 ' in capsys.readouterr().out


def test_explain_of_no_entry_or_of_several(store: Store, capsys: pytest.CaptureFixture[str]):
    assert main(["cache", "explain", "zz"]) == 2
    assert "no cache entry begins with 'zz'" in capsys.readouterr().err
    assert main(["cache", "explain", ""]) == 2
    assert "4 cache entries begin with ''" in capsys.readouterr().err


def test_clear(store: Store, capsys: pytest.CaptureFixture[str]):
    assert main(["cache", "clear", "--kind", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("dropped 3 entries, ")
    assert [e.kind for e in store.entries()] == ["fold"]
    assert main(["cache", "clear"]) == 0
    assert store.entries() == []


def test_verify(store: Store, capsys: pytest.CaptureFixture[str]):
    assert main(["cache", "verify"]) == 0
    assert capsys.readouterr().out == "4 entries checked, 0 not as they were written\n"
    victim = store.entries("cpu")[0]
    (victim.path / "k.so").write_bytes(b"y" * 2048)
    assert main(["cache", "verify"]) == 1
    assert f"{victim.digest[:12]}  cpu: k.so has changed" in capsys.readouterr().out


def test_measurements_are_counted_and_forgotten_on_demand_alone(
    store: Store, capsys: pytest.CaptureFixture[str]
):
    from attngen.tune.folder import journal_path
    from attngen.tune.journal import Journal

    journal = Journal(journal_path(store.root, "ab" * 32))
    journal.append({"n": 1})
    assert main(["cache", "info"]) == 0
    assert "measurements of 1 kinds of calls" in capsys.readouterr().out
    assert main(["cache", "clear"]) == 0
    assert journal.read() == [{"n": 1}]
    assert main(["cache", "clear", "--tuning"]) == 0
    assert capsys.readouterr().out.endswith("forgot the measurements of 1 kinds of calls\n")
    assert journal.read() == []
