"""The journal: whole lines survive whatever happens to the rest of the file."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attngen.emit.cpu_config import CpuConfig
from attngen.store.lock import FileLock
from attngen.tune import journal as journal_module
from attngen.tune.journal import Journal, line_of, record_of
from attngen.tune.knowledge import compacted, known_of, measured_record
from attngen.tune.measurement import Measurement, Sample

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "v1" / "ab" / "abcd.jsonl")


def test_records_come_back_in_order(journal: Journal):
    assert journal.read() == []
    for n in range(5):
        assert journal.append({"n": n, "text": "é\n", "x": 1.5e-7})
    assert [r["n"] for r in journal.read()] == list(range(5))
    assert journal.path.stat().st_mode & 0o777 == 0o600
    assert len(journal.path.read_bytes().splitlines()) == 5


def test_a_torn_line_costs_itself_alone(journal: Journal):
    journal.append({"n": 0})
    with journal.path.open("ab") as file:
        file.write(line_of({"n": 1})[:-9])
    journal.append({"n": 2})
    assert [r["n"] for r in journal.read()] == [0, 2]


def test_every_cut_leaves_the_whole_lines_before_it(journal: Journal):
    for n in range(4):
        journal.append({"n": n})
    data = journal.path.read_bytes()
    for cut in range(len(data) + 1):
        journal.path.write_bytes(data[:cut])
        whole = data[:cut].count(b"\n") + (cut > 0 and data[cut : cut + 1] == b"\n")
        assert [r["n"] for r in journal.read()] == list(range(whole))


def test_damage_costs_the_lines_it_hits(journal: Journal):
    rng = random.Random(0)
    for n in range(20):
        journal.append({"n": n, "filler": "x" * 30})
    data = journal.path.read_bytes()
    for _ in range(300):
        hurt = bytearray(data)
        at = rng.randrange(len(data))
        hurt[at] = rng.randrange(256)
        journal.path.write_bytes(bytes(hurt))
        found = [r["n"] for r in journal.read()]
        assert len(found) >= 18
        assert all(record == {"n": record["n"], "filler": "x" * 30} for record in journal.read())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"sha":1,"record":{}}',
        b'{"sha":"00","record":{}}',
        b"[" * 100000,
        b"\xff",
    ],
)
def test_what_is_no_record(line: bytes):
    assert record_of(line) is None


def test_a_file_that_others_could_have_written_is_not_used(journal: Journal):
    journal.append({"n": 0})
    journal.path.chmod(0o666)
    assert journal.read() == []
    assert not journal.append({"n": 1})  # nobody would ever read it
    assert journal.damaged() == 1
    journal.path.chmod(0o600)
    assert journal.read() == [{"n": 0}]


def link(path: Path) -> None:
    path.with_name("elsewhere").write_bytes(line_of({"n": 7}))
    path.symlink_to(path.with_name("elsewhere"))


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize(
    "stray", [link, Path.mkdir, os.mkfifo, huge], ids=["link", "directory", "pipe", "huge"]
)
def test_what_can_be_no_journal_is_set_aside(journal: Journal, stray: Callable[[Path], object]):
    journal.append({"n": 0})
    journal.path.unlink()
    stray(journal.path)
    assert journal.load(list) == []
    assert journal.append({"n": 1})
    assert journal.read() == [{"n": 1}]
    (aside,) = journal.path.parent.glob(".*.aside")
    assert os.path.lexists(aside)
    if stray is link:
        assert record_of(aside.read_bytes()) == {"n": 7}


@pytest.mark.parametrize("area", [".locks", "ab"])
def test_a_file_in_the_place_of_a_directory_is_no_obstacle(journal: Journal, area: str):
    journal.path.parent.parent.mkdir(parents=True)
    (journal.path.parent.parent / area).write_text("stray")
    assert journal.append({"n": 1})
    assert journal.read() == [{"n": 1}]


def test_a_lock_that_is_never_to_be_had_is_waited_for_once(journal: Journal):
    journal.append({"n": 0})
    impatient = Journal(journal.path, 0.2)
    with FileLock(journal.path.parent.parent / ".locks" / "abcd.lock") as lock:
        assert lock.acquire(0)
        begin = time.monotonic()
        assert all(impatient.append({"n": n}) for n in range(1, 20))
        assert time.monotonic() - begin < 2
    assert [r["n"] for r in journal.read()] == list(range(20))


def test_a_writer_without_the_lock_loses_nothing_to_a_rewriter(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(journal_module, "_LARGE_BYTES", 1)
    journal.append({"n": 0})

    def late(records):  # between the rewriter's reading and its renaming
        with journal.path.open("ab") as file:
            file.write(line_of({"n": 1}))
        return records

    assert [r["n"] for r in journal.load(late)] == [0, 1]
    real = os.write

    def slow(fd: int, data: bytes) -> int:  # the rewriter comes between opening and writing
        monkeypatch.setattr(os, "write", real)
        journal.path.rename(journal.path.with_name("old"))
        journal.path.write_bytes(line_of({"n": 0}) + line_of({"n": 1}))
        journal.path.chmod(0o600)
        return real(fd, data)

    monkeypatch.setattr(os, "write", slow)
    assert journal.append({"n": 2})
    assert [r["n"] for r in journal.read()] == [0, 1, 2]


def test_a_directory_that_cannot_be_made_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "ab" / "abcd.jsonl")
    assert not journal.append({"n": 0})
    assert not journal.append({"n": 0})
    assert len([r for r in caplog.records if "not kept" in r.message]) == 1
    assert journal.read() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_cache_that_can_only_be_read(journal: Journal):
    journal.append({"n": 0})
    journal.path.parent.chmod(0o500)
    journal.path.chmod(0o400)
    assert not journal.append({"n": 1})
    assert len(journal.load(lambda records: records)) == 1


APPENDING = """
import sys
from pathlib import Path
from attngen.tune.journal import Journal
journal = Journal(Path(sys.argv[1]))
for n in range(100):
    assert journal.append({"by": sys.argv[2], "n": n})
    if n % 25 == 0:
        journal.load(list)
"""


def test_processes_append_at_once_while_others_rewrite(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_module, "_LARGE_BYTES", 64)
    code = "import attngen.tune.journal as j; j._LARGE_BYTES = 64\n" + APPENDING
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(journal.path), str(i)], env=env) for i in range(3)
    ]
    assert [c.wait() for c in children] == [0, 0, 0]
    found = journal.read()
    for i in range(3):
        assert [r["n"] for r in found if r["by"] == str(i)] == list(range(100))


SOFT, OLD = {"torch": "2"}, {"torch": "1"}
A, B = CpuConfig(32, 24), CpuConfig(64, 48)


def told(journal: Journal, *measurements: Measurement, soft=SOFT) -> None:
    for m in measurements:
        journal.append(measured_record(m, soft))


def test_a_large_journal_is_made_small_and_says_the_same(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    journal.append({"event": "key", "key": {"kind": "cpu"}})
    told(journal, *(Measurement(c, samples=(Sample(0.5, 1.0 + i),)) for i in range(20) for c in (A, B)))
    told(journal, Measurement(B, "wrong", note="off"), Measurement(A, samples=(Sample(1.0, 1.0),)))
    told(journal, Measurement(A, samples=(Sample(2.0, 1.0),)), soft=OLD)
    journal.append({"event": "finished", "soft": SOFT, "budget": "quick"})
    before = known_of(journal, "cpu", SOFT), known_of(journal, "cpu", OLD)
    size = journal.path.stat().st_size
    monkeypatch.setattr(journal_module, "_LARGE_BYTES", 64)
    assert (known_of(journal, "cpu", SOFT), known_of(journal, "cpu", OLD)) == before
    assert journal.path.stat().st_size < size / 2
    assert journal.read()[0]["event"] == "key"
    told(journal, Measurement(A, samples=(Sample(1.0, 1.0),)))
    assert len(known_of(journal, "cpu", SOFT).measurements[A].samples) == 22


def test_other_versions_of_libraries_serve_until_there_are_measurements_of_these(journal: Journal):
    told(journal, Measurement(A, samples=(Sample(1.0, 2.0),)), soft=OLD)
    known = known_of(journal, "cpu", SOFT)
    assert known.stale
    assert list(known.measurements) == [A]
    told(journal, Measurement(B, samples=(Sample(1.0, 2.0),)))
    known = known_of(journal, "cpu", SOFT)
    assert not known.stale
    assert list(known.measurements) == [B]


def test_records_of_another_version_of_ours_are_left_alone(journal: Journal):
    journal.append(
        {"event": "measured", "soft": SOFT, "config": {"block_q": 32}, "status": "ok", "samples": []}
    )
    journal.append({"event": "something new"})
    journal.append({"event": "finished", "soft": "of another form", "budget": "quick"})
    told(journal, Measurement(A))
    assert list(known_of(journal, "cpu", SOFT).measurements) == [A]
    journal.append({"event": "key", "key": {"kind": "cpu"}})
    before = journal.read()
    kept = compacted(before)
    assert all(record in kept for record in before)
    assert sorted(map(str, compacted(kept))) == sorted(map(str, kept))
