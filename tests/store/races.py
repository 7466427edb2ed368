"""Many processes on one key at once: `python -m tests.store.races cold|warm|evicted FOLDER PROCESSES`.

Prints one line of JSON: how they ended, and how often the key was built.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from attngen.store.cache import Store
from attngen.store.upkeep import evict
from tests.store.scenes import built, is_right

SECONDS = 3.0


def cold(root: Path, say: Callable[[str], None]) -> None:
    """Everybody wants what takes a while to build."""

    def build(directory: Path) -> None:
        time.sleep(0.3)
        built(1, say)(directory)

    assert Store(root).use("cpu", {"n": 1}, build, lambda d: is_right(d, 1))


def evicted(root: Path, say: Callable[[str], None]) -> None:
    """Everybody uses a few keys, and drops them again."""
    end = time.monotonic() + SECONDS
    n = os.getpid()
    while time.monotonic() < end:
        n += 1
        store = Store(root)
        assert store.use("cpu", {"n": n % 3}, built(n % 3, say), lambda d, n=n: is_right(d, n % 3))
        if n % 4 == 0:
            evict(store.base, 0, 0.0)
        if n % 16 == 0:
            store.clear()


def main(what: str, folder: Path, processes: int) -> None:
    root, log, gate = folder / "cache", folder / "log", folder / "gate"
    logging.getLogger("attngen").addHandler(logging.NullHandler())
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    work = evicted if what == "evicted" else cold
    if what == "warm":
        cold(root, lambda _: None)
    children: list[int] = []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                while not gate.exists():
                    time.sleep(0.002)
                work(root, lambda line: os.write(handle, f"{line}\n".encode()) and None)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    gate.touch()
    ends = [os.waitpid(child, 0)[1] for child in children]
    builds = log.read_text().count("built")
    left = [str(p) for area in (".staging", ".locks") for p in (root / "v1" / area).glob("*")]
    print(json.dumps({"failed": sum(e != 0 for e in ends), "builds": builds, "left": left}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
