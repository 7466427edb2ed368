from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from attngen.store.lock import FileLock


def test_excludes_and_leaves_no_file(tmp_path: Path):
    path = tmp_path / "x.lock"
    first, second = FileLock(path), FileLock(path)
    with first:
        assert first.acquire(0)
        begin = time.monotonic()
        assert not second.acquire(0.2)
        assert 0.2 <= time.monotonic() - begin < 2
    assert not path.exists()
    assert second.acquire(0)
    second.release()
    second.release()
    assert not path.exists()


def test_is_private_and_never_follows_a_link(tmp_path: Path):
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "x.lock").symlink_to(target)
    with pytest.raises(OSError, match=r"x\.lock"):
        FileLock(tmp_path / "x.lock").acquire(0)
    assert target.read_text() == "precious"
    with FileLock(tmp_path / "y.lock") as lock:
        assert lock.acquire(0)
        assert (tmp_path / "y.lock").stat().st_mode & 0o777 == 0o600


def test_threads_take_turns(tmp_path: Path):
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with FileLock(tmp_path / "x.lock") as lock:
                assert lock.acquire(30)
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_killed_holder_frees_the_lock(tmp_path: Path):
    path = tmp_path / "x.lock"
    code = (
        "import sys, time; from pathlib import Path; from attngen.store.lock import FileLock\n"
        f"lock = FileLock(Path({str(path)!r})); assert lock.acquire(0)\n"
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        lock = FileLock(path)
        assert not lock.acquire(0.05)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert lock.acquire(5)
        lock.release()


def test_a_forked_child_has_no_part_in_it(tmp_path: Path):
    path = tmp_path / "x.lock"
    lock = FileLock(path)
    assert lock.acquire(0)
    child = os.fork()
    if child == 0:
        lock.release()  # closes its copy, neither unlinks nor unlocks
        os._exit(0)
    os.waitpid(child, 0)
    assert path.exists()
    assert not FileLock(path).acquire(0)
    lock.release()


def test_released_although_a_forked_child_lives(tmp_path: Path):
    lock = FileLock(tmp_path / "x.lock")
    assert lock.acquire(0)
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        lock.release()
        assert FileLock(tmp_path / "x.lock").acquire(0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
