"""What a store must not load, must not drop, and must notice in a process that has seen it whole."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from attngen.errors import CacheError
from attngen.store import entry as entry_module
from attngen.store import hold, private
from attngen.store.cache import Store
from attngen.store.private import PrivateBuilds
from attngen.store.upkeep import LOCKS, STAGING, evict, sweep_staging

KEY = {"text": "x"}
CODE = b"machine code" * 50


def good(directory: Path) -> None:
    (directory / "kernel.so").write_bytes(CODE)


def read(directory: Path) -> bytes:
    return (directory / "kernel.so").read_bytes()


@pytest.mark.parametrize("depth", range(5), ids=["entry", "shard", "kind", "layout", "root"])
def test_a_directory_that_others_can_write_is_refused_with_an_explanation(tmp_path: Path, depth: int):
    root = tmp_path / "cache"
    path = Store(root).get_or_build("cpu", KEY, good)
    place = [path, *path.parents][depth]
    place.chmod(0o777)
    for attempt in (Store(root).get, lambda kind, key: Store(root).use(kind, key, good, read)):
        with pytest.raises(CacheError, match="others can write to it") as caught:
            attempt("cpu", KEY)
        assert f"chmod go-w {place}" in (caught.value.hint or "")
    place.chmod(0o755)
    assert Store(root).use("cpu", KEY, good, read) == CODE


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
@pytest.mark.parametrize("depth", range(5))
def test_a_directory_of_another_user_is_refused_with_an_explanation(tmp_path: Path, depth: int):
    root = tmp_path / "cache"
    path = Store(root).get_or_build("cpu", KEY, good)
    os.chown([path, *path.parents][depth], 1234, 1234)
    with pytest.raises(CacheError, match="belongs to another user"):
        Store(root).get_or_build("cpu", KEY, good)


def test_a_file_that_others_can_write_is_built_anew(tmp_path: Path):
    path = Store(tmp_path).get_or_build("cpu", KEY, good)
    (path / "kernel.so").chmod(0o666)
    assert Store(tmp_path).get("cpu", KEY) is None
    assert Store(tmp_path).use("cpu", KEY, good, read) == CODE
    assert (path / "kernel.so").stat().st_mode & 0o022 == 0


def test_a_builder_under_a_loose_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        path = Store(tmp_path).get_or_build("cpu", KEY, good)
    finally:
        os.umask(before)
    assert (path / "kernel.so").stat().st_mode & 0o022 == 0
    assert Store(tmp_path).get("cpu", KEY) == path


def test_damage_is_seen_by_a_process_that_saw_the_entry_whole(tmp_path: Path):
    store = Store(tmp_path)
    path = store.get_or_build("cpu", KEY, good)
    (path / "kernel.so").write_bytes(b"M" + CODE[1:])
    assert store.get("cpu", KEY) is None
    assert store.use("cpu", KEY, good, read) == CODE
    store.put_json("fold", KEY, {"a": 1})
    (document,) = tmp_path.glob("v1/fold/*/*/document.json")
    there = document.stat()
    document.write_text('{"a":2}')
    os.utime(document, ns=(there.st_atime_ns, there.st_mtime_ns))
    assert store.get_json("fold", KEY) is None
    store.put_json("fold", KEY, {"a": 1})
    assert store.get_json("fold", KEY) == {"a": 1}


def test_an_entry_whose_files_cannot_be_listed_is_not_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.scandir

    def refused(path):
        if STAGING in str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path)

    monkeypatch.setattr(entry_module.os, "scandir", refused)
    path = Store(tmp_path).get_or_build("cpu", KEY, good)
    assert read(path) == CODE
    assert tmp_path not in path.parents
    assert Store(tmp_path).entries() == []


def test_an_entry_that_is_read_is_not_evicted(tmp_path: Path):
    store = Store(tmp_path)
    path = store.get_or_build("cpu", KEY, good)
    with hold.held(path) as is_there:
        assert is_there
        assert evict(store.base, 0, 0.0) == 0
        assert read(path) == CODE
    assert evict(store.base, 0, 0.0) == 1
    with hold.held(path) as is_there:
        assert not is_there


def test_an_entry_that_goes_while_it_is_read_is_built_again(tmp_path: Path):
    store = Store(tmp_path)
    tries: list[int] = []

    def reading(directory: Path) -> bytes:
        tries.append(1)
        if len(tries) < 3:
            Store(tmp_path).clear()
        return read(directory)

    assert store.use("cpu", KEY, good, reading) == CODE
    assert len(tries) == 3
    store.clear()
    assert store.use_existing("cpu", KEY, read) is None


def test_an_error_of_the_reader_goes_through(tmp_path: Path):
    def reading(directory: Path) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Store(tmp_path).use("cpu", KEY, good, reading)
    with pytest.raises(KeyError, match="mine"):
        Store(tmp_path).use_existing("cpu", KEY, reading)


def test_a_clock_that_was_wrong_protects_nothing(tmp_path: Path):
    store = Store(tmp_path)
    for n in range(4):
        path = store.get_or_build("cpu", {"n": n}, good)
        then = time.time() + 1e8 + n
        os.utime(path / "manifest.json", (then, then))
    each = store.entries()[0].nbytes
    assert evict(store.base, each, 60.0) == 4
    assert store.entries() == []


def test_what_was_set_aside_counts_and_goes_first(tmp_path: Path):
    store = Store(tmp_path)
    for _ in range(5):
        path = store.get_or_build("cpu", KEY, good)
        (path / "kernel.so").write_bytes(b"damaged" * 100)
        store = Store(tmp_path)
    path = store.get_or_build("cpu", KEY, good)
    assert len(list((store.base / ".quarantine").iterdir())) == 5
    assert evict(store.base, 2000, 0.0) == 0
    assert not (store.base / ".quarantine").exists()
    assert path.exists()


@pytest.fixture
def lockless(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.usefixtures("lockless")
def test_without_locks_everything_works_and_nothing_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    store = Store(tmp_path)
    for n in range(3):
        assert store.use("cpu", {"n": n}, good, read) == CODE
    assert len([r for r in caplog.records if "cannot lock" in r.getMessage()]) == 1
    assert [p for area in (STAGING, LOCKS) for p in (store.base / area).iterdir()] == []
    (store.base / STAGING / "dead").mkdir()
    sweep_staging(store.base)
    assert (store.base / STAGING / "dead").exists()  # it may be alive
    later = time.time() + 2 * 86400
    monkeypatch.setattr(time, "time", lambda: later)
    sweep_staging(store.base)
    assert not (store.base / STAGING / "dead").exists()


def test_a_file_system_that_cannot_flush_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.fsync

    def fsync(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):  # noqa: PTH112
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    assert tmp_path in Store(tmp_path).get_or_build("cpu", KEY, good).parents


def test_what_killed_processes_built_for_themselves_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    child = os.fork()
    if child == 0:
        PrivateBuilds().build("cpu", "ab", good)
        os._exit(0)  # as if killed: nothing is tidied up
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    builds = PrivateBuilds()
    mine = builds.build("cpu", "ab", good)
    assert not left.exists()
    assert builds.build("cpu", "ab", None) == mine  # type: ignore[arg-type]
    other = PrivateBuilds().build("cpu", "cd", good)
    assert mine.exists()
    assert other.exists()
    assert private._PREFIX in str(other)
