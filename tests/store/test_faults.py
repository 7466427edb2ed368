"""What can go wrong with a cache: dead builders, damaged entries, full and read-only disks, strangers."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attngen.errors import CacheError, CompileError
from attngen.store import entry as entry_module
from attngen.store.cache import Store
from attngen.store.upkeep import LOCKS, QUARANTINE, STAGING

KEY = {"text": "x"}
NAMES = ["kernel.so", "manifest.json"]


def good(directory: Path) -> None:
    (directory / "kernel.so").write_bytes(b"machine code" * 50)


def forbidden(directory: Path) -> None:
    raise AssertionError(f"{directory} was built again")


def files(root: Path) -> list[str]:
    return sorted(p.name for p in root.rglob("*") if not p.is_dir() or p.is_symlink())


def truncate(path: Path) -> None:
    (path / "kernel.so").write_bytes((path / "kernel.so").read_bytes()[:-1])


def extend(path: Path) -> None:
    with (path / "kernel.so").open("ab") as file:
        file.write(b"!")


def flip(path: Path) -> None:
    data = bytearray((path / "kernel.so").read_bytes())
    data[17] ^= 1
    (path / "kernel.so").write_bytes(data)


def lose_file(path: Path) -> None:
    (path / "kernel.so").unlink()


def lose_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def empty_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"")


def garbage_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(bytes(range(256)))


def deep_manifest(path: Path) -> None:
    (path / "manifest.json").write_text("[" * 100_000)


def pipe_for_file(path: Path) -> None:
    (path / "kernel.so").unlink()
    os.mkfifo(path / "kernel.so")


def link_for_file(path: Path) -> None:
    copy = path.parent.parent.parent.parent / "copy.so"
    shutil.move(path / "kernel.so", copy)
    (path / "kernel.so").symlink_to(copy)


def link_for_entry(path: Path) -> None:
    copy = path.parent.parent.parent.parent / "copy"
    shutil.move(path, copy)
    path.symlink_to(copy)


def file_for_entry(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("not a directory")


def alter(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    document = json.loads((path / "manifest.json").read_text())
    change(document)
    (path / "manifest.json").write_text(json.dumps(document))


def other_format(path: Path) -> None:
    alter(path, lambda m: m.update(format=99))


def other_digest(path: Path) -> None:
    alter(path, lambda m: m.update(digest="0" * 64))


def climbing_name(path: Path) -> None:
    alter(path, lambda m: m.update(files={"../../../x": {"bytes": 0, "sha256": ""}}))


DAMAGE = [
    truncate,
    extend,
    flip,
    lose_file,
    lose_manifest,
    empty_manifest,
    garbage_manifest,
    deep_manifest,
    pipe_for_file,
    link_for_file,
    link_for_entry,
    file_for_entry,
    other_format,
    other_digest,
    climbing_name,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda d: d.__name__)
def test_a_damaged_entry_is_set_aside_and_built_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
):
    path = Store(tmp_path).get_or_build("cpu", KEY, good)
    damage(path)
    store = Store(tmp_path)
    assert store.get("cpu", KEY) is None
    caplog.clear()
    assert store.get_or_build("cpu", KEY, good) == path
    assert "set aside" in caplog.text
    assert (path / "kernel.so").read_bytes() == b"machine code" * 50
    assert len(list((store.base / QUARANTINE).iterdir())) == 1
    assert store.verify() == []
    assert Store(tmp_path).get("cpu", KEY) == path


@settings(
    max_examples=150,
    print_blob=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    data=st.binary(max_size=300)
    | st.text(max_size=100).map(lambda s: json.dumps({"format": 1, "files": s}).encode())
)
def test_no_manifest_but_the_right_one_is_accepted(tmp_path: Path, data: bytes):
    store = Store(tmp_path)
    path = store.get_or_build("cpu", KEY, good)
    (path / "manifest.json").write_bytes(data)
    assert Store(tmp_path).get("cpu", KEY) is None


def test_verify_and_manifest_report_damage(tmp_path: Path):
    store = Store(tmp_path)
    path = store.get_or_build("cpu", KEY, good)
    whole = store.get_or_build("cpu", {"text": "y"}, good)
    flip(path)
    ((entry, problem),) = store.verify()
    assert (entry.path, problem) == (path, "kernel.so has changed since it was written")
    empty_manifest(whole)
    with pytest.raises(CacheError, match="manifest cannot be read"):
        store.manifest(next(e for e in store.entries() if e.path == whole))


def test_quarantine_keeps_only_the_last_few(tmp_path: Path):
    store = Store(tmp_path)
    for _ in range(12):
        flip(store.get_or_build("cpu", KEY, good))
        store = Store(tmp_path)
    store.get_or_build("cpu", KEY, good)
    assert len(list((store.base / QUARANTINE).iterdir())) == 8
    store.clear()
    assert files(tmp_path) == []


def test_killed_in_the_middle_of_a_build(tmp_path: Path):
    code = f"""
import time
from pathlib import Path
from attngen.store.cache import Store
def build(directory):
    (directory / "kernel.so").write_bytes(b"half")
    print(directory, flush=True)
    time.sleep(60)
Store(Path({str(tmp_path)!r})).get_or_build("cpu", {KEY!r}, build)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as builder:
        assert builder.stdout is not None
        stage = Path(builder.stdout.readline().strip())
        assert stage.exists()
        # A live builder's directory is never swept.
        store = Store(tmp_path)
        store.get_or_build("cpu", {"text": "other"}, good)
        assert stage.exists()
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    assert (stage / "kernel.so").exists()
    assert len(list((store.base / LOCKS).iterdir())) == 1
    begin = time.monotonic()
    path = store.get_or_build("cpu", KEY, good)
    assert time.monotonic() - begin < 10  # the dead builder's lock holds nobody up
    assert (path / "kernel.so").read_bytes() == b"machine code" * 50
    assert list((store.base / STAGING).iterdir()) == []
    assert list((store.base / LOCKS).iterdir()) == []


def test_a_full_disk_while_flushing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(entry_module.os, "fsync", full)
    store = Store(tmp_path)
    path = store.get_or_build("cpu", KEY, good)
    assert (path / "kernel.so").read_bytes() == b"machine code" * 50
    assert tmp_path not in path.parents
    assert store.get_or_build("cpu", KEY, forbidden) == path
    store.get_or_build("cpu", {"text": "other"}, good)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "No space left on device" in warning
    assert "ATTNGEN_CACHE_DIR" in warning
    with pytest.raises(CacheError, match="No space left on device"):
        store.put_json("fold", KEY, {})
    assert files(tmp_path) == []


def test_a_full_disk_while_building(tmp_path: Path):
    def build(directory: Path) -> None:
        (directory / "kernel.so").write_bytes(b"half")
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")

    with pytest.raises(CacheError, match="No space left on device"):
        Store(tmp_path).get_or_build("cpu", KEY, build)
    assert files(tmp_path) == []


def test_a_compiler_that_fails_for_want_of_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def build(directory: Path) -> None:
        raise CompileError("ld: final link failed")

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(CacheError, match="No space left on device") as caught:
        Store(tmp_path).get_or_build("cpu", KEY, build)
    assert isinstance(caught.value.__cause__, CompileError)


def test_a_file_in_the_place_of_the_cache(tmp_path: Path):
    (tmp_path / "cache").write_text("a file")
    store = Store(tmp_path / "cache")
    assert store.get("cpu", KEY) is None
    assert (store.get_or_build("cpu", KEY, good) / "kernel.so").exists()
    with pytest.raises(CacheError, match="ATTNGEN_CACHE_DIR"):
        store.put_json("fold", KEY, {})
    assert (tmp_path / "cache").read_text() == "a file"


def as_nobody(work: Callable[[], None]) -> None:
    """Run `work` in a forked child without root's privilege to ignore permissions."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def owned_by_nobody(path: Path) -> None:
    if os.geteuid() == 0:
        for each in [path, *path.rglob("*")]:
            os.chown(each, 65534, 65534)


@pytest.fixture
def open_tmp(tmp_path: Path) -> Path:
    """A directory that the unprivileged child can reach: pytest makes its own 0700."""
    for parent in [tmp_path, *tmp_path.parents]:
        if parent.stat().st_uid == os.geteuid() and parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    return tmp_path


def read_only(path: Path) -> None:
    for each in [path, *path.rglob("*")]:
        each.chmod(0o555 if each.is_dir() else 0o444)


def test_a_read_only_cache_is_read_but_not_written(open_tmp: Path):
    root = open_tmp / "cache"
    path = Store(root).get_or_build("cpu", KEY, good)
    owned_by_nobody(root)
    read_only(root)

    def work() -> None:
        store = Store(root)
        assert store.get_or_build("cpu", KEY, good) == path
        alone = store.get_or_build("cpu", {"text": "new"}, good)
        assert alone.exists()
        assert root not in alone.parents
        with pytest.raises(CacheError, match="Permission denied") as caught:
            store.put_json("fold", {"text": "new"}, {})
        assert "ATTNGEN_CACHE_DIR" in str(caught.value)
        assert store.writable() is not None

    before = files(root)
    try:
        as_nobody(work)
        assert files(root) == before
    finally:
        for each in [root, *root.rglob("*")]:
            each.chmod(0o700)


def test_a_damaged_entry_in_a_read_only_cache(open_tmp: Path):
    root = open_tmp / "cache"
    flip(Store(root).get_or_build("cpu", KEY, good))
    owned_by_nobody(root)
    read_only(root)

    def work() -> None:
        alone = Store(root).get_or_build("cpu", KEY, good)
        assert (alone / "kernel.so").read_bytes() == b"machine code" * 50
        assert root not in alone.parents

    try:
        as_nobody(work)
    finally:
        for each in [root, *root.rglob("*")]:
            each.chmod(0o700)


def test_a_cache_under_a_directory_that_cannot_be_entered(open_tmp: Path):
    closed = open_tmp / "closed"
    closed.mkdir(mode=0o700)
    if os.geteuid() != 0:
        closed.chmod(0)

    def work() -> None:
        store = Store(closed / "cache")
        assert store.get("cpu", KEY) is None
        assert (store.get_or_build("cpu", KEY, good) / "kernel.so").exists()
        with pytest.raises(CacheError, match="Permission denied"):
            store.put_json("fold", KEY, {})

    try:
        as_nobody(work)
    finally:
        closed.chmod(0o700)


def test_a_cache_that_others_can_write_is_refused(tmp_path: Path):
    store = Store(tmp_path)
    path = store.get_or_build("cpu", KEY, good)
    store.base.chmod(0o777)
    for attempt in (Store(tmp_path).get, lambda kind, key: Store(tmp_path).get_or_build(kind, key, good)):
        with pytest.raises(CacheError, match="others can write to it"):
            attempt("cpu", KEY)
    assert path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make another user's directory")
def test_a_cache_of_another_user_is_refused(open_tmp: Path):
    root = open_tmp / "cache"
    root.mkdir(mode=0o777)
    root.chmod(0o1777)  # as /tmp is: others may add names, and not change ours
    store = Store(root)
    store.get_or_build("cpu", KEY, good)
    for each in store.base.rglob("*"):
        each.chmod(0o755)
    store.base.chmod(0o755)
    os.chown(store.base, 1234, 1234)

    def work() -> None:
        for attempt in (Store(root).get, lambda kind, key: Store(root).get_or_build(kind, key, good)):
            with pytest.raises(CacheError, match="belongs to another user"):
                attempt("cpu", KEY)

    as_nobody(work)


def test_a_link_in_the_place_of_the_layout_directory_is_refused(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    Store(elsewhere).get_or_build("cpu", KEY, good)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "v1").symlink_to(elsewhere / "v1")
    for attempt in (
        Store(tmp_path / "cache").get,
        lambda kind, key: Store(tmp_path / "cache").get_or_build(kind, key, good),
    ):
        with pytest.raises(CacheError, match="not a plain directory"):
            attempt("cpu", KEY)


def test_writable_leaves_nothing(tmp_path: Path):
    assert Store(tmp_path / "cache").writable() is None
    assert files(tmp_path) == []
