"""Readers, builders and cleaners at once, in several processes: nobody ever sees a wrong or a half entry."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

from attngen.store.cache import Store
from attngen.store.upkeep import evict

SECONDS = 2.0
KEYS = 6
SPAWN = multiprocessing.get_context("spawn")


def content(n: int) -> bytes:
    return bytes([n]) * (1000 + n)


def work(root: Path, seed: int, gate: Path) -> None:
    rng = random.Random(seed)
    while not gate.exists():
        time.sleep(0.001)
    store = Store(root)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        n = rng.randrange(KEYS)
        path = store.get_or_build(
            "cpu", {"n": n}, lambda d, n=n: (d / "k.so").write_bytes(content(n)) and None
        )
        try:
            found = (path / "k.so").read_bytes()
        except FileNotFoundError:  # cleared by another process since; nothing wrong was read
            continue
        assert found == content(n)
        match rng.randrange(20):
            case 0:
                store.clear()
            case 1:
                evict(store.base, 2000, 0)
            case 2:
                store = Store(root)  # forgets what it has checked, as a new process
            case 3:
                assert store.verify() == []
            case _:
                pass


def test_readers_builders_and_cleaners_at_once(tmp_path: Path):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    workers = [SPAWN.Process(target=work, args=(tmp_path, seed + i, tmp_path / "gate")) for i in range(4)]
    for worker in workers:
        worker.start()
    (tmp_path / "gate").touch()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0] * 4
    store = Store(tmp_path)
    assert store.verify() == []
    store.clear()
    assert [p for p in store.base.rglob("*") if p.is_file()] == []
