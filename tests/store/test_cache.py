"""The cache as its users see it: hits, misses, races between processes, and the limit."""

from __future__ import annotations

import multiprocessing
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attngen.errors import CompileError, InternalError, UnkeyableError
from attngen.store.cache import Store, default_store
from attngen.store.upkeep import evict

KEY = {"text": "int main() {}" * 100, "target": "cpu", "flags": ("-O3",)}
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def write(text: str = "hello") -> Callable[[Path], None]:
    def build(directory: Path) -> None:
        (directory / "kernel.so").write_text(text)
        (directory / "sub").mkdir()
        (directory / "sub" / "kernel.cpp").write_text("source")

    return build


def forbidden(directory: Path) -> None:
    raise AssertionError(f"{directory} was built again")


def tree(root: Path) -> list[str]:
    """Every path below, except the empty areas the store keeps for itself."""
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() or p.is_symlink())


def test_builds_once_then_hits(store: Store):
    assert store.get("cpu", KEY) is None
    path = store.get_or_build("cpu", KEY, write())
    assert (path / "kernel.so").read_text() == "hello"
    assert (path / "sub" / "kernel.cpp").read_text() == "source"
    assert store.get_or_build("cpu", KEY, forbidden) == path
    assert store.get("cpu", dict(reversed(KEY.items()))) == path
    assert Store(store.root).get_or_build("cpu", KEY, forbidden) == path


def test_kinds_and_keys_are_apart(store: Store):
    paths = {
        store.get_or_build("cpu", KEY, write("1")),
        store.get_or_build("fold", KEY, write("2")),
        store.get_or_build("cpu", KEY | {"target": "sm_90"}, write("3")),
    }
    assert sorted((p / "kernel.so").read_text() for p in paths) == ["1", "2", "3"]


def test_layout_is_private_and_holds_nothing_else(store: Store):
    path = store.get_or_build("cpu", KEY, write())
    assert path.parent.parent.parent == store.root / "v1"
    assert path.parent.name == path.name[:2]
    assert [p.split("/")[-1] for p in tree(store.root)] == ["kernel.so", "manifest.json", "kernel.cpp"]
    for folder in [store.root, *(p for p in store.root.rglob("*") if p.is_dir() and path not in p.parents)]:
        if folder != path / "sub":
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


def test_a_builder_that_raises_leaves_nothing(store: Store):
    def build(directory: Path) -> None:
        (directory / "half").write_text("half")
        raise CompileError("no", log="line 1")

    with pytest.raises(CompileError, match="no"):
        store.get_or_build("cpu", KEY, build)
    assert tree(store.root) == []

    def interrupted(directory: Path) -> None:
        (directory / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_or_build("cpu", KEY, interrupted)
    assert tree(store.root) == []


def test_an_oserror_of_the_builder_goes_through_as_it_is(store: Store):
    def build(directory: Path) -> None:
        (directory.parent / "not-there" / "x").read_text()

    with pytest.raises(FileNotFoundError) as caught:
        store.get_or_build("cpu", KEY, build)
    assert type(caught.value) is FileNotFoundError
    assert tree(store.root) == []


def test_builders_may_leave_only_plain_files(store: Store):
    with pytest.raises(InternalError, match="not a plain file"):
        store.get_or_build("cpu", KEY, lambda d: (d / "link").symlink_to("/etc/passwd"))
    with pytest.raises(InternalError, match="not a plain file"):
        store.get_or_build("cpu", KEY, lambda d: os.mkfifo(d / "pipe"))
    with pytest.raises(InternalError, match=r"manifest\.json"):
        store.get_or_build("cpu", KEY, lambda d: (d / "manifest.json").write_text("{}") and None)
    assert tree(store.root) == []


def test_bad_kinds_and_keys(store: Store):
    for kind in ("", "../x", "A", ".staging", "a/b", "x" * 33):
        with pytest.raises(InternalError, match="not a kind"):
            store.get_or_build(kind, KEY, forbidden)
    with pytest.raises(UnkeyableError):
        store.get_or_build("cpu", {"a": object()}, forbidden)
    assert not store.root.exists()


def test_documents(store: Store):
    document = {"rules": [["D1", 2, 0.1, None, True]], "text": "é"}
    assert store.get_json("fold", KEY) is None
    store.put_json("fold", KEY, document)
    assert store.get_json("fold", KEY) == document
    store.put_json("fold", KEY, {"other": 1})  # the key names the content: the first stays
    assert Store(store.root).get_json("fold", KEY) == document


def test_reading_makes_no_directory(store: Store):
    assert store.get("cpu", KEY) is None
    assert store.get_json("fold", KEY) is None
    assert store.entries() == []
    assert store.verify() == []
    assert store.clear() == []
    assert not store.root.exists()


def test_a_hit_takes_less_than_two_milliseconds(store: Store):
    key = KEY | {"text": "x" * 30_000}
    store.get_or_build("cpu", key, write("y" * 100_000))
    times = []
    for _ in range(7):
        fresh = Store(store.root)  # checks the files, as a new process does
        begin = time.perf_counter()
        fresh.get_or_build("cpu", key, forbidden)
        times.append(time.perf_counter() - begin)
    assert min(times) < 2e-3


def _build_slowly(root: Path, gate: Path, log: Path) -> None:
    def build(directory: Path) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        write()(directory)

    while not gate.exists():
        time.sleep(0.001)
    path = Store(root).get_or_build("cpu", KEY, build)
    assert (path / "kernel.so").read_text() == "hello"


def test_processes_that_build_one_key_at_once_build_it_once(tmp_path: Path):
    gate, log = tmp_path / "gate", tmp_path / "log"
    workers = [SPAWN.Process(target=_build_slowly, args=(tmp_path / "cache", gate, log)) for _ in range(4)]
    for worker in workers:
        worker.start()
    gate.touch()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0, 0, 0, 0]
    assert len(log.read_text().split()) == 1


def test_threads_that_build_one_key_at_once_build_it_once(store: Store):
    count = []

    def build(directory: Path) -> None:
        count.append(1)
        time.sleep(0.05)
        write()(directory)

    threads = [threading.Thread(target=store.get_or_build, args=("cpu", KEY, build)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(count) == 1


def test_different_keys_build_side_by_side(store: Store):
    both = threading.Barrier(2, timeout=20)

    def build(directory: Path) -> None:
        both.wait()  # breaks, and fails the test, if one build waits for the other
        write()(directory)

    errors: list[BaseException] = []

    def work(n: int) -> None:
        try:
            store.get_or_build("cpu", {"n": n}, build)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store.entries()) == 2


def test_a_builder_that_hangs_does_not_hang_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    release = threading.Event()
    started = threading.Event()

    def hang(directory: Path) -> None:
        started.set()
        release.wait(30)
        write("late")(directory)

    slow = threading.Thread(target=Store(tmp_path).get_or_build, args=("cpu", KEY, hang))
    slow.start()
    try:
        assert started.wait(10)
        path = Store(tmp_path, lock_timeout_s=0.1).get_or_build("cpu", KEY, write("mine"))
    finally:
        release.set()
        slow.join()
    assert "building it here too" in caplog.text
    assert (path / "kernel.so").read_text() == "mine"  # the late one finds it there and takes it
    assert [p.split("/")[-1] for p in tree(tmp_path)] == ["kernel.so", "manifest.json", "kernel.cpp"]


def _age(store: Store, key: dict[str, object], seconds: float) -> Path:
    path = store.get_or_build("cpu", key, write("x" * 10_000))
    then = time.time() - seconds
    os.utime(path / "manifest.json", (then, then))
    return path


def test_past_the_limit_the_entries_used_longest_ago_go(tmp_path: Path):
    store = Store(tmp_path, limit_bytes=1 << 30)
    paths = [_age(store, {"n": n}, 10_000 - n) for n in range(6)]
    Store(tmp_path).get("cpu", {"n": 0})  # a use makes it young
    each = sum(e.nbytes for e in store.entries()) // 6
    assert evict(store.base, each * 4, 60) == 3
    assert [p.exists() for p in paths] == [True, False, False, False, True, True]
    assert store.get_or_build("cpu", {"n": 1}, write("again")).exists()


def test_entries_in_use_are_never_dropped(tmp_path: Path):
    store = Store(tmp_path, limit_bytes=1)
    paths = [store.get_or_build("cpu", {"n": n}, write("x" * 1000)) for n in range(3)]
    assert all(p.exists() for p in paths)


def test_the_limit_holds_without_being_asked(tmp_path: Path):
    _age(Store(tmp_path), {"n": 0}, 9000)
    store = Store(tmp_path, limit_bytes=5000)
    kept = store.get_or_build("cpu", {"n": 1}, write())
    assert [e.path for e in store.entries()] == [kept]


def test_an_entry_dropped_by_another_process_is_built_again(store: Store):
    path = store.get_or_build("cpu", KEY, write())
    assert len(Store(store.root).clear()) == 1
    assert not path.exists()
    assert store.get("cpu", KEY) is None
    assert store.get_or_build("cpu", KEY, write("new")) == path
    assert (path / "kernel.so").read_text() == "new"


def test_default_store_follows_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path / "a"))
    monkeypatch.setenv("ATTNGEN_CACHE_LIMIT_MB", "7")
    first = default_store()
    assert (first.root, first.limit_bytes) == (tmp_path / "a", 7 << 20)
    assert default_store() is first
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(tmp_path / "b"))
    assert default_store().root == tmp_path / "b"


def test_a_forked_child_uses_the_store_too(store: Store):
    path = store.get_or_build("cpu", KEY, write())
    child = os.fork()
    if child == 0:
        ok = store.get_or_build("cpu", KEY, forbidden) == path
        ok = ok and store.get_or_build("cpu", {"n": 1}, write()).exists()
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get_or_build("cpu", {"n": 1}, forbidden).exists()
