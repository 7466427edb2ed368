"""The store on real small and read-only file systems, mounted in a namespace of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PRELUDE = """
import logging
import sys
from pathlib import Path
from attngen.errors import CacheError
from attngen.store.cache import Store

root = Path(sys.argv[1])
said = []

class Said(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

logging.getLogger("attngen.store").addHandler(Said(logging.WARNING))
store = Store(root / "cache")

def build(size):
    return lambda directory: (directory / "kernel.so").write_bytes(b"x" * size) and None

def refused(size, reason):
    said.clear()
    path = store.get_or_build("cpu", {"size": size}, build(size))
    assert (path / "kernel.so").read_bytes() == b"x" * size and root not in path.parents
    assert len(said) == 1 and reason in said[0] and "ATTNGEN_CACHE_DIR" in said[0], said
    assert store.get_or_build("cpu", {"size": size}, None) == path
    try:
        store.put_json("fold", {"size": size}, "x" * size)
    except CacheError as error:
        assert reason in str(error) and "ATTNGEN_CACHE_DIR" in str(error), error
    else:
        raise AssertionError("written")
"""

FULL = """
small = store.get_or_build("cpu", {"size": 10}, build(10))
before = sorted(p for p in root.rglob("*"))
refused(1 << 20, "No space left on device")
assert sorted(p for p in root.rglob("*")) == before, "something half-written is left"
assert store.get_or_build("cpu", {"size": 10}, None) == small
"""

NO_INODES = """
import itertools
try:
    for n in itertools.count():
        (root / f"{n}").touch()
except OSError:
    pass
refused(10, "No space left on device")
(root / "0").unlink()
"""

READ_ONLY = """
import subprocess
small = store.get_or_build("cpu", {"size": 10}, build(10))
subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
store = Store(root / "cache")
assert store.get_or_build("cpu", {"size": 10}, None) == small
refused(20, "Read-only file system")
assert "Read-only" in str(store.writable())
"""


def in_namespace(folder: Path, options: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a tmpfs over `folder` that nothing outside the command sees."""
    script = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"'
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", options, str(folder), *command],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@cache
def can_mount(folder: Path) -> bool:
    return shutil.which("unshare") is not None and in_namespace(folder, "size=64k", "true").returncode == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [("size=256k", FULL), ("size=1m,nr_inodes=40", NO_INODES), ("size=256k", READ_ONLY)],
    ids=["full", "no inodes", "read-only"],
)
def test_store_on_such_a_disk(tmp_path: Path, options: str, code: str):
    if not can_mount(tmp_path):
        pytest.skip("this user may not make a mount namespace")
    done = in_namespace(tmp_path, options, sys.executable, "-c", PRELUDE + code, str(tmp_path))
    assert done.returncode == 0, done.stderr
