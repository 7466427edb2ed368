from __future__ import annotations

import json
import os
import shutil
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


def said(capsys: pytest.CaptureFixture[str], *line: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["cache", *line])
    return code, capsys.readouterr().out


def test_the_truth_about_a_damaged_cache(store: Store, capsys: pytest.CaptureFixture[str]):
    whole, hurt, bare = store.entries("cpu")
    (fold,) = store.entries("fold")
    (hurt.path / "k.so").write_bytes(b"y" * 2048)
    (bare.path / "manifest.json").write_bytes(b"{")
    shutil.rmtree(fold.path.parent)
    fold.path.parent.write_text("a file in the place of a directory of entries")
    stray = fold.path.parent.name
    code, out = said(capsys, "verify", "--json")
    found = json.loads(out)
    assert (code, found["entries"], found["refused"]) == (1, 4, None)
    problems = {e["digest"]: e["problem"] for e in found["damaged"]}
    assert problems.keys() == {hurt.digest, bare.digest, stray}
    assert problems[hurt.digest] == "k.so has changed since it was written"
    listed = {e["digest"]: e["has_manifest"] for e in json.loads(said(capsys, "list", "--json")[1])}
    assert listed == {whole.digest: True, hurt.digest: True, bare.digest: False, stray: False}
    assert said(capsys, "list")[1].count("damaged: it is built anew") == 2
    assert "every file is as it was written" in said(capsys, "explain", whole.digest)[1]
    assert "never loaded: k.so has changed" in said(capsys, "explain", hurt.digest)[1]
    assert json.loads(said(capsys, "explain", hurt.digest, "--json")[1])["problem"] == problems[hurt.digest]
    assert main(["cache", "explain", bare.digest]) == 2
    code, out = said(capsys, "prune")
    assert (code, out.split(" and ")[0]) == (0, "dropped 3 damaged entries")
    assert [e.path for e in store.entries()] == [whole.path]
    assert said(capsys, "verify") == (0, "1 entries checked, 0 not as they were written\n")


def test_a_change_of_what_a_manifest_says_is_seen(store: Store, capsys: pytest.CaptureFixture[str]):
    entry = store.entries("fold")[0]
    manifest = entry.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"n": 0', '"n": 7'))
    assert said(capsys, "verify")[0] == 1
    assert main(["cache", "explain", entry.digest]) == 2


def test_prune_keeps_to_a_limit(store: Store, capsys: pytest.CaptureFixture[str]):
    entries = store.entries()
    for n, entry in enumerate(entries):
        os.utime(entry.path / "manifest.json", (1e9 + n, 1e9 + n))
    found = json.loads(said(capsys, "prune", "--json")[1])
    assert (found["old"], found["damaged"]) == (0, [])
    found = json.loads(said(capsys, "prune", "--limit-mb", "0", "--json")[1])
    assert (found["old"], found["bytes"], found["freed"]) == (4, 0, sum(e.nbytes for e in entries))


def test_prune_of_a_cache_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path / "none"))
    assert said(capsys, "prune")[0] == 0
    assert said(capsys, "verify")[0] == 0
    assert not (tmp_path / "none").exists()


def test_a_cache_that_others_can_write_is_neither_well_nor_pruned(
    store: Store, capsys: pytest.CaptureFixture[str]
):
    store.root.chmod(0o777)
    code, out = said(capsys, "verify")
    assert code == 1
    assert "others can write to it" in out
    assert "chmod go-w" in out
    assert main(["cache", "prune"]) == 2
    assert len(store.entries()) == 4


def test_damaged_measurements_are_counted(store: Store, capsys: pytest.CaptureFixture[str]):
    from attngen.tune.folder import journal_path
    from attngen.tune.journal import Journal

    journal = Journal(journal_path(store.root, "ab" * 32))
    for n in range(3):
        journal.append({"n": n})
    assert said(capsys, "verify")[0] == 0
    journal.path.write_bytes(journal.path.read_bytes().replace(b'"n":1', b'"n":5'))
    code, out = said(capsys, "verify")
    assert code == 1
    assert "abababababab  measurements: 1 lines" in out
    assert json.loads(said(capsys, "verify", "--json")[1])["damaged_lines"] == {str(journal.path): 1}
    assert [r["n"] for r in journal.read()] == [0, 2]


def test_a_time_yet_to_come_is_called_so(store: Store, capsys: pytest.CaptureFixture[str]):
    os.utime(store.entries("fold")[0].path / "manifest.json", (4e9, 4e9))
    assert "yet to come" in said(capsys, "list", "--kind", "fold")[1]
