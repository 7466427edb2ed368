"""Kills, refusals of the disk and corruptions at every step, and many processes on one key."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is to be had: what survives a kill is the same, and flushing costs nothing."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 1 << 28:
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(prefix="attngen-test-", dir=memory))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def said(module: str, *args: object) -> dict[str, Any]:
    """What such a run reports."""
    line = [sys.executable, "-m", f"tests.store.{module}", *map(str, args)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    return json.loads(done.stdout)


def held(module: str, *args: object, count: int) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    found = said(module, *args, count, seed)
    print({name: len(what) if isinstance(what, list) else what for name, what in found.items()})
    assert found["wrong"] == []
    assert found["lost"] == []
    assert found["faults"] >= count


@pytest.mark.parametrize("count", [pytest.param(40, id="few"), pytest.param(1200, marks=pytest.mark.slow)])
def test_killed_at_any_step(folder: Path, count: int):
    held("faults", "kills", folder / "f", count=count)


@pytest.mark.parametrize("count", [pytest.param(40, id="few"), pytest.param(2500, marks=pytest.mark.slow)])
def test_refused_by_the_disk_at_any_step(folder: Path, count: int):
    held("faults", "errors", folder / "f", count=count)


@pytest.mark.parametrize("count", [pytest.param(100, id="few"), pytest.param(2000, marks=pytest.mark.slow)])
def test_corrupted_anywhere(folder: Path, count: int):
    held("corruptions", folder, count=count)


@pytest.mark.parametrize(("what", "processes", "builds"), [("cold", 64, 1), ("warm", 200, 0)])
def test_many_processes_on_one_key_build_it_once(folder: Path, what: str, processes: int, builds: int):
    assert said("races", what, folder, processes) == {"failed": 0, "builds": builds, "left": []}


def test_what_is_dropped_under_its_readers_is_built_again(folder: Path):
    found = said("races", "evicted", folder, 6)
    assert (found["failed"], found["left"]) == (0, [])
    assert found["builds"] > 3
